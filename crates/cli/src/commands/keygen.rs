//! `keygen`: a key file, and the public key file that others need.

use std::path::PathBuf;

use anyhow::Result;
use runvault_custody::identity::Identity;
use runvault_custody::key_files;
use runvault_custody::public_file;
use serde_json::json;

use crate::args::{Keygen, LockKind};
use crate::exit::{Exit, refuse, refuse_with};
use crate::new_lock::{self, Chosen, Passphrase};
use crate::output::{self, shown, visible};
use crate::prompt::{Asker, Source};

pub fn run(args: &Keygen) -> Result<()> {
    let public = public_of(&args.out);
    let label = match (&args.label, args.out.file_stem().and_then(|stem| stem.to_str())) {
        (Some(label), _) => label.clone(),
        (None, Some(stem)) if runvault_format::custody_state::is_label(stem) => stem.to_owned(),
        _ => {
            let what = format!("{} gives the key no name", shown(&args.out));
            return Err(refuse_with(Exit::Usage, what, "say what it is called: --label NAME"));
        }
    };
    for path in [&args.out, &public] {
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(runvault_custody::Error::KeyFileExists(path.clone()).into());
        }
    }
    let wanted = Passphrase {
        source: Source::of(&args.unlock),
        option: "--passphrase-file",
        named: args.unlock.names_a_passphrase(),
    };
    let kind = args.lock_kind();
    let mut asker = Asker::of(&args.unlock, &args.reach);
    if kind != LockKind::Pkcs11 && asker.names_a_module() {
        return Err(refuse(Exit::Usage, "--pkcs11-module belongs to --lock pkcs11"));
    }
    new_lock::check(kind, &args.options, &wanted, &asker)?;
    let chosen = Chosen::ask(kind, &args.options, &wanted, &mut asker, &label)?;
    let identity = Identity::generate(&label)?;
    let file = key_files::lock(&identity, &chosen.lock(), None)?;
    key_files::write_copy(&args.out, &file)?;
    public_file::write_new(&public, &identity, None)?;
    if args.json {
        return output::json(&json!({
            "key_file": args.out.to_string_lossy(),
            "public_key_file": public.to_string_lossy(),
            "label": label,
            "id": identity.id().to_string(),
            "locked": args.lock_kind() != LockKind::None,
            "lock": file.lock()?.parameters,
        }));
    }
    let locked = match args.lock_kind() {
        LockKind::None => "NOT LOCKED: whoever reads it has the key",
        LockKind::Passphrase => "locked by the passphrase",
        LockKind::Pkcs11 => "locked by the token: without it nobody opens this file",
        LockKind::Tpm2 => "locked by this machine's TPM: on another machine nobody opens this file",
    };
    output::line(&format!(
        "{}: the key of {} ({}), {locked}. Keep it to yourself, and a copy elsewhere.\n\
         {}: its public part. Give it to those who let you in; they compare the id with you.",
        shown(&args.out),
        visible(label.as_bytes()),
        identity.id(),
        shown(&public),
    ))
}

fn public_of(key: &std::path::Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}
