//! `init`: an owner, a vault, and what to keep a copy of.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use runvault_crypto::passphrase::Params;
use runvault_custody::chain::Chain;
use runvault_custody::identity::Identity;
use runvault_custody::init::{Found, NewVault, inspect};
use runvault_custody::key_files::{self, NewLock};
use runvault_custody::{public_file, relock};
use runvault_format::custody_state::Custodian;
use runvault_store::backend::Dir;
use zeroize::Zeroizing;

use crate::args::{Apart, Init};
use crate::commands::custody::operations::unreachable_quorum;
use crate::exit::{Exit, refuse, refuse_with};
use crate::mount_point::absolute;
use crate::output::{self, option, quoted, shown};
use crate::prompt::Source;
use crate::store::{open_root, open_store};

/// Nothing is written before everything is known to be usable.
pub fn run(args: &Init) -> Result<()> {
    let store = absolute(&args.store)?;
    refuse_used(&store)?;
    refuse_filled(args.custody.as_deref())?;
    if let Some(quorum) = args.quorum {
        return shared(args, &store, quorum);
    }
    let outside = args.identity.as_deref().map(|path| key_path(path, &store)).transpose()?;
    let passphrase = if args.no_lock {
        None
    } else {
        Some(Source::of(&args.unlock).new_one(&args.label, "--passphrase-file")?)
    };
    let owner = Identity::generate(&args.label)?;
    make_directory(&store)?;
    let root = open_to_be(args, &store)?;
    write(&root, &owner, passphrase.as_ref(), outside.as_deref())?;
    tell(args, &store, &root, &owner, outside.as_deref())
}

/// A vault of several custodians, whose keys stay with them.
fn shared(args: &Init, store: &Path, quorum: u8) -> Result<()> {
    let custodian = |(name, path): &(String, PathBuf)| {
        let public = public_file::read_any(path)?;
        Ok(Custodian::new(name, &public.keys()))
    };
    let custodians = args.custodian.iter().map(custodian).collect::<Result<Vec<_>>>()?;
    let vault = NewVault::of_custodians(custodians, quorum).map_err(|e| match e {
        runvault_custody::Error::Crypto(runvault_crypto::Error::Threshold) => {
            unreachable_quorum(quorum, args.custodian.len())
        }
        runvault_custody::Error::Format(why @ runvault_format::Error::State(_)) => {
            refuse_with(Exit::Usage, why.to_string(), "each custodian has a name and a key of the own")
        }
        e => e.into(),
    })?;
    make_directory(store)?;
    let root = open_to_be(args, store)?;
    vault.write_shared(&root)?;
    let (chain, custody) = (Chain::load(&root)?, custody_at(args)?);
    let custodians = chain.custodians();
    if args.json {
        let custodians: Vec<_> = custodians
            .iter()
            .map(|(label, id)| serde_json::json!({ "label": label, "id": id.to_string() }))
            .collect();
        return output::json(&serde_json::json!({
            "store": store.to_string_lossy(),
            "vault": chain.vault_id().to_string(),
            "words": chain.words(),
            "quorum": quorum,
            "custodians": custodians,
            "custody": custody.as_deref().map(Path::to_string_lossy),
        }));
    }
    output::line(&format!("Made a vault in {}\n", shown(store)))?;
    let mut rows = vec![
        ("fingerprint", chain.vault_id().to_string()),
        ("in words", chain.words()),
        ("quorum", format!("{quorum} of {}", custodians.len())),
    ];
    rows.extend(
        custodians
            .iter()
            .map(|(label, id)| ("custodian", format!("{} ({id})", output::visible(label.as_bytes())))),
    );
    output::line(&output::pairs(&rows))?;
    output::line(&format!(
        "Keep the fingerprint on paper, apart from the store. Compare each id with its custodian, and have each of\n\
         them do the drill: runvault custody confirm {}{} --identity KEY",
        quoted(store),
        option("custody", custody.as_deref())
    ))?;
    custody.map_or(Ok(()), |custody| output::line(&every_command(&custody)))
}

fn refuse_used(store: &Path) -> Result<()> {
    if std::fs::symlink_metadata(store).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let root = open_root(store)?;
    match inspect(&root)? {
        Found::Empty => Ok(()),
        Found::Vault => Err(refuse_with(
            Exit::Failed,
            format!("{} is a vault already; nothing was changed", shown(store)),
            format!("runvault status {}", quoted(store)),
        )),
        // Loading it is what names the leftovers.
        Found::KilledInit => match Chain::load(&root) {
            Err(error) => Err(error.into()),
            Ok(_) => Err(refuse(Exit::Failed, format!("{} is a vault already", shown(store)))),
        },
        Found::NotEmpty(names) => Err(runvault_custody::Error::NotEmpty(names).into()),
    }
}

/// The key file's path, which must not lie in the store and must not exist.
fn key_path(path: &Path, store: &Path) -> Result<PathBuf> {
    let path = absolute(path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let real =
        folder.canonicalize().map_err(|e| refuse(Exit::Usage, format!("key file {}: {e}", shown(&path))))?;
    if path.starts_with(store) || store.canonicalize().is_ok_and(|store| real.starts_with(store)) {
        let what = format!("key file {}: inside the store", shown(&path));
        return Err(refuse_with(Exit::Usage, what, "keep it on another medium than the store"));
    }
    if std::fs::symlink_metadata(&path).is_ok() {
        return Err(runvault_custody::Error::KeyFileExists(path).into());
    }
    Ok(path)
}

/// The store, with its custody/ where that will lie.
fn open_to_be(args: &Init, store: &Path) -> Result<Arc<dyn Dir>> {
    open_store(store, &Apart { custody: args.custody.clone() })
}

fn refuse_filled(custody: Option<&Path>) -> Result<()> {
    let Some(custody) = custody.filter(|path| std::fs::symlink_metadata(path).is_ok()) else { return Ok(()) };
    if std::fs::read_dir(custody).is_ok_and(|mut names| names.next().is_none()) {
        return Ok(());
    }
    let what = format!("--custody {}: not an empty directory", shown(custody));
    Err(refuse_with(Exit::Failed, what, "name one that is empty, or to be made"))
}

fn make_directory(store: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(store) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("make {}", shown(store)))
        }
        _ => Ok(()),
    }
}

/// The key file first: a vault whose key is not durable would be lost at once.
fn write(
    root: &Arc<dyn Dir>,
    owner: &Identity,
    passphrase: Option<&Zeroizing<Vec<u8>>>,
    outside: Option<&Path>,
) -> Result<()> {
    let vault = NewVault::prepare(owner)?;
    let lock = match passphrase {
        Some(passphrase) => NewLock::Passphrase { passphrase, params: Params::DEFAULT },
        None => NewLock::None,
    };
    let Some(path) = outside else {
        return Ok(vault.write(root, owner, Some(&lock))?);
    };
    key_files::write_new(path, owner, &lock, Some(vault.vault_id()))?;
    vault.write(root, owner, None).inspect_err(|_| {
        // Made a moment ago, for a vault that does not exist.
        let _ = std::fs::remove_file(path);
    })?;
    // With a copy of custody/ it makes that anew, should it be lost.
    let seen = relock::Seen::read(path, false)?;
    let copy = Chain::load(root)?.copy(root)?;
    Ok(seen.replace(&seen.file().clone().with_copy(Some(copy)))?)
}

fn tell(
    args: &Init,
    store: &Path,
    root: &Arc<dyn Dir>,
    owner: &Identity,
    outside: Option<&Path>,
) -> Result<()> {
    let (chain, custody) = (Chain::load(root)?, custody_at(args)?);
    if args.json {
        return output::json(&serde_json::json!({
            "store": store.to_string_lossy(),
            "vault": chain.vault_id().to_string(),
            "words": chain.words(),
            "custody": custody.as_deref().map(Path::to_string_lossy),
            "owner": { "label": owner.label, "id": owner.id().to_string() },
            "key_file": outside.map(|path| path.to_string_lossy()),
            "locked": !args.no_lock,
        }));
    }
    let kept = match (outside, args.no_lock) {
        (None, _) if custody.is_some() => "in custody/ (locks), locked by the passphrase".to_owned(),
        (None, _) => "in the store (custody/locks), locked by the passphrase".to_owned(),
        (Some(path), false) => format!("{}, locked by the passphrase", shown(path)),
        (Some(path), true) => format!("{}, NOT LOCKED: whoever reads it has the vault", shown(path)),
    };
    output::line(&format!("Made a vault in {}\n", shown(store)))?;
    output::line(&output::pairs(&[
        ("fingerprint", chain.vault_id().to_string()),
        ("in words", chain.words()),
        ("owner", format!("{} ({})", output::visible(owner.label.as_bytes()), owner.id())),
        ("key file", kept),
    ]))?;
    let keep = to_keep(store, custody.as_deref(), outside, args.no_lock);
    output::line(&format!("Keep, apart from the store:\n{keep}"))?;
    custody.map_or(Ok(()), |custody| output::line(&every_command(&custody)))
}

/// Where custody/ lies, if not in the store.
fn custody_at(args: &Init) -> Result<Option<PathBuf>> {
    args.custody.as_deref().map(absolute).transpose()
}

fn every_command(custody: &Path) -> String {
    format!(
        "\nEvery command on this store needs{}, a mount in fstab -o custody=DIR.",
        option("custody", Some(custody))
    )
}

fn to_keep(store: &Path, custody: Option<&Path>, outside: Option<&Path>, unlocked: bool) -> String {
    let mut text = String::from("  - the fingerprint, on paper: it tells this vault from every other one\n");
    match outside {
        Some(path) => {
            text +=
                &format!("  - a copy of {}: without that file nobody opens the vault, ever\n", shown(path));
        }
        None => {
            text += &format!(
                "  - a copy of the key file, for the day that custody/ is lost:\n      runvault key export {}{} --out owner.key\n",
                quoted(store),
                option("custody", custody)
            );
        }
    }
    if !unlocked {
        text += "  - the passphrase: nobody can reset it\n";
    }
    text.trim_end().to_owned()
}
