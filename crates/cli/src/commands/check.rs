//! `check`: everything that the key opens; damage by file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use runvault_custody::faults::faults;
use runvault_custody::gateway::StateFolder;
use runvault_vault::check::{CheckEvent, CheckSummary, Unproven, check};
use serde_json::{Map, Value, json};

use crate::args::Check;
use crate::exit::{Exit, refuse_with};
use crate::hint::NEWER;
use crate::output::{self, count, json_name, quoted, shown, size, visible};
use crate::store::Store;
use crate::{progress, undone};

pub fn run(args: &Check) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let authority = store.acting(&args.who)?;
    let held = StateFolder::sessions(&store.state, store.chain.vault_id())?;
    let faults = faults(&store.root, &store.chain)?;
    let bar = progress::bytes(stored_bytes(&args.store.join("runs")), "check");
    let mut report = Report { json: args.json, bar: &bar, failed: None };
    for fault in faults.locks.iter().chain(&faults.others) {
        report.fault(fault);
    }
    let undone = undone::unseen(&store)?;
    for one in &undone {
        let object = format!("runs/{}", one.of.run);
        report.event(&CheckEvent::Damage { object, path: None, what: one.to_string() });
    }
    let summary = check(&store.root, &authority, &held, &mut |event| report.event(&event));
    bar.finish_and_clear();
    if let Some(error) = report.failed {
        return Err(error);
    }
    let mut summary = summary.with_context(|| store.named())?;
    summary.damages += (faults.locks.len() + faults.others.len() + undone.len()) as u64;
    tell(args, &summary, !faults.locks.is_empty())
}

/// What the bar is measured by: what is stored, since holes are not read. Files that cannot be looked at count nothing.
fn stored_bytes(runs: &Path) -> u64 {
    let mut bytes = 0u64;
    let mut folders = vec![runs.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes = bytes.saturating_add(stored(&meta)),
                _ => {}
            }
        }
    }
    bytes
}

/// A file system that counts no blocks stores all of a file.
fn stored(meta: &Metadata) -> u64 {
    match meta.blocks().saturating_mul(512) {
        0 => meta.len(),
        stored => stored.min(meta.len()),
    }
}

struct Report<'a> {
    json: bool,
    bar: &'a ProgressBar,
    /// Standard output could not take it; told when the check is over.
    failed: Option<anyhow::Error>,
}

impl Report<'_> {
    fn event(&mut self, event: &CheckEvent) {
        match event {
            CheckEvent::Run { name, .. } => {
                self.bar.set_message(name.as_deref().map(visible).unwrap_or_default());
            }
            CheckEvent::File { bytes, .. } => {
                // What lies between holes is read with some of them.
                let done = self.bar.position().saturating_add(*bytes);
                self.bar.set_position(done.min(self.bar.length().unwrap_or(done)));
            }
            CheckEvent::Damage { object, path, what } => {
                let text = placed(object, path.as_deref(), what);
                let mut fields = Map::new();
                fields.insert("damage".into(), json!(what));
                if let Some(path) = path {
                    json_name(&mut fields, "path", path);
                }
                fields.insert("object".into(), json!(object));
                self.print(&text, fields);
            }
            CheckEvent::Unread { object, path, what } => {
                let text = placed(object, path.as_deref(), &format!("not read: {what}"));
                let fields = [("unread", json!(what)), ("object", json!(object))];
                self.print(&text, fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
            }
            CheckEvent::Newer { object, what } => {
                let text = placed(object, None, &format!("not read: {what}"));
                let fields = [("newer", json!(what)), ("object", json!(object))];
                self.print(&text, fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
            }
            CheckEvent::Foreign { object } => {
                let text = format!("{}: not ours, hidden in a mount", visible(object.as_bytes()));
                self.print(&text, Map::from_iter([("foreign".to_owned(), json!(object))]));
            }
            CheckEvent::Leftover { object } => {
                let text =
                    format!("{}: left over by what was cut short, harmless", visible(object.as_bytes()));
                self.print(&text, Map::from_iter([("leftover".to_owned(), json!(object))]));
            }
        }
    }

    /// What is wrong in custody/, though the vault opens.
    fn fault(&mut self, fault: &runvault_custody::Error) {
        use runvault_custody::Error as E;
        let (object, what) = match fault {
            E::Damaged { object, why } => (object.clone(), why.clone()),
            other => ("custody".to_owned(), other.to_string()),
        };
        self.event(&CheckEvent::Damage { object, path: None, what });
    }

    fn print(&mut self, text: &str, fields: Map<String, Value>) {
        let printed = self
            .bar
            .suspend(|| if self.json { output::json(&Value::Object(fields)) } else { output::line(text) });
        self.failed = self.failed.take().or(printed.err());
    }
}

/// What was found, after the path where that is known, else after the place in the store.
fn placed(object: &str, path: Option<&[u8]>, what: &str) -> String {
    match path {
        Some(path) => format!("{}: {what} ({object})", visible(path)),
        None => format!("{}: {what}", visible(object.as_bytes())),
    }
}

/// `locks`: one of the copies of the owner's key file is among the damages, the other opened.
fn tell(args: &Check, summary: &CheckSummary, locks: bool) -> Result<()> {
    let unproven = &summary.unproven;
    if args.json {
        output::json(&json!({ "summary": {
            "runs": summary.runs,
            "closed_runs": summary.closed_runs,
            "newer_runs": summary.newer_runs,
            "directories": summary.directories,
            "files": summary.files,
            "bytes": summary.bytes,
            "journal_records": summary.journal_records,
            "journal_records_behind": summary.journal_records_behind,
            "foreign_names": summary.foreign_names,
            "leftovers": summary.leftovers,
            "unproven": {
                "empty_files": unproven.empty_files,
                "empty_directories": unproven.empty_directories,
                "symlinks": unproven.symlinks,
                "fifos": unproven.fifos,
                "sockets": unproven.sockets,
                "devices": unproven.devices,
            },
            "damages": summary.damages,
            "unread": summary.unread,
        }}))?;
    } else {
        output::line(&in_words(summary))?;
    }
    match (summary.damages, summary.unread, summary.foreign_names) {
        (0, 0, 0) => told_newer(args, summary.newer_runs),
        (0, 1.., _) => Err(refuse_with(
            Exit::Failed,
            format!(
                "{}: {} not read: permission denied",
                shown(&args.store),
                count(summary.unread, "object")
            ),
            "check as a user who may read what is named above; nothing that was read is damaged",
        )),
        (0, 0, foreign) => Err(refuse_with(
            Exit::Damaged,
            format!("{}: {} that runvault did not write", shown(&args.store), count(foreign, "name")),
            "someone put what is named above there: look at it, then move it out of the store; what runvault wrote\n\
             is as it was written",
        )),
        (damages, ..) => Err(damaged(args, damages, locks, summary.journal_records > 0)),
    }
}

fn told_newer(args: &Check, runs: u64) -> Result<()> {
    if runs == 0 {
        return Ok(());
    }
    let what = format!("{}: {} of a newer runvault not read", shown(&args.store), count(runs, "run"));
    Err(refuse_with(Exit::Failed, what, NEWER))
}

fn damaged(args: &Check, damages: u64, locks: bool, journals: bool) -> anyhow::Error {
    let mut hint =
        "put the objects named above back from a backup; everything else is as it was written".to_owned();
    if journals {
        hint = format!(
            "journals may make some of it good: mount the store on the machine that writes these runs, then check again;\n\
             {hint}"
        );
    }
    if locks {
        let store = quoted(&args.store);
        hint += &format!(
            "\ncustody/locks needs no backup: runvault passwd {store} writes both copies of the key file anew"
        );
    }
    let what = format!("{}: {} damaged or tampered with", shown(&args.store), count(damages, "object"));
    refuse_with(Exit::Damaged, what, hint)
}

fn in_words(summary: &CheckSummary) -> String {
    let mut text = format!(
        "{}, {}, {} read and authenticated",
        count(summary.runs, "run"),
        count(summary.files, "file"),
        size(summary.bytes)
    );
    if summary.journal_records > 0 {
        text += &format!("; {} in journals", count(summary.journal_records, "record"));
    }
    if summary.journal_records_behind > 0 {
        let behind = count(summary.journal_records_behind, "record");
        text += &format!("; {behind} behind one that does not authenticate, not to be replayed");
    }
    if summary.closed_runs > 0 {
        text += &format!("; {} not opened by this key", count(summary.closed_runs, "run"));
    }
    if let Some(unproven) = unproven_in_words(&summary.unproven) {
        text += &format!("\nwithout proof of their place: {unproven}");
    }
    text
}

fn unproven_in_words(unproven: &Unproven) -> Option<String> {
    let kinds = [
        (unproven.empty_files, "empty file"),
        (unproven.empty_directories, "empty folder"),
        (unproven.symlinks, "symlink"),
        (unproven.fifos, "fifo"),
        (unproven.sockets, "socket"),
        (unproven.devices, "device"),
    ];
    let met: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, what)| count(*n, what)).collect();
    (!met.is_empty()).then(|| met.join(", "))
}
