//! `key show`: what a key file says of itself, without its lock being opened.

use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use runvault_custody::key_files::{self, KeyFile, Shown};
use runvault_custody::public_file;
use runvault_format::public_key::PublicKey;
use runvault_format::words;
use serde_json::{Value, json};

use crate::args::KeyShow;
use crate::output::{self, shown, visible, warn};

pub fn run(args: &KeyShow) -> Result<()> {
    // Nothing that is secret is printed: a mode that lets others read is told, and no reason to say nothing.
    let file = match key_files::read(&args.file, true) {
        Ok(file) => file,
        Err(error) => return public(args, &public_file::read_any(&args.file).map_err(|_| error)?),
    };
    let mode = std::fs::metadata(&args.file)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        warn(&format!(
            "{0} has mode {mode:04o}, which lets others read it: chmod 600 {0}",
            shown(&args.file)
        ));
    }
    let lock = file.lock()?;
    if args.json { output::json(&object(args, &file, &lock)) } else { output::line(&text(&file, &lock)) }
}

/// Of what keygen writes beside it.
fn public(args: &KeyShow, public: &PublicKey) -> Result<()> {
    let vault = public.vault.map(|vault| vault.to_string());
    if args.json {
        return output::json(&json!({
            "public_key_file": args.file.to_string_lossy(),
            "label": public.label,
            "id": public.id.to_string(),
            "vault": vault,
        }));
    }
    let rows = [
        ("label", visible(public.label.as_bytes())),
        ("id", public.id.to_string()),
        ("vault", vault.unwrap_or("none: it is for any".to_owned())),
        ("public", "to be given away: it opens nothing".to_owned()),
    ];
    output::line(output::pairs(&rows).trim_end())
}

fn object(args: &KeyShow, file: &KeyFile, lock: &Shown) -> Value {
    let kept = file.kept().map(|kept| {
        json!({
            "vault": kept.vault.to_string(),
            "line": kept.head.n,
            "head": kept.head.hash.to_string(),
            "share_epoch": kept.share.as_ref().map(|share| share.epoch),
            "approved": kept.approved.as_ref().map(|approved| json!({
                "request": approved.request.to_string(),
                "words": words::of_request(&approved.request).join(" "),
                "line": approved.head.n,
                "expires": approved.expires,
            })),
        })
    });
    json!({
        "key_file": args.file.to_string_lossy(),
        "label": file.label(),
        "id": file.id().to_string(),
        "vault": file.vault().map(|vault| vault.to_string()),
        "lock": lock.parameters,
        "kept": kept,
        "copy_line": file.copy_line(),
    })
}

fn text(file: &KeyFile, lock: &Shown) -> String {
    let vault = file.vault().map_or("none: it is not bound to one".to_owned(), |vault| vault.to_string());
    let mut rows = vec![
        ("label", visible(file.label().as_bytes())),
        ("id", file.id().to_string()),
        ("lock", visible(lock.words.as_bytes())),
        ("vault", vault),
    ];
    if let Some(kept) = file.kept() {
        rows.push(("kept of vault", kept.vault.to_string()));
        rows.push(("newest line seen", format!("{} of the audit log, {}", kept.head.n, kept.head.hash)));
        let share = kept.share.as_ref();
        rows.push((
            "share",
            share.map_or("none: no drill yet".to_owned(), |s| format!("of epoch {}", s.epoch)),
        ));
        let approved = kept.approved.as_ref().map(|approved| {
            format!(
                "the request \"{}\" ({}), after line {}; it can be executed until {}",
                words::of_request(&approved.request).join(" "),
                approved.request,
                approved.head.n,
                approved.expires
            )
        });
        rows.push(("approved last", approved.unwrap_or("nothing".to_owned())));
    }
    if let Some(line) = file.copy_line() {
        rows.push(("custody/", format!("a copy, up to line {line}")));
    }
    output::pairs(&rows).trim_end().to_owned()
}
