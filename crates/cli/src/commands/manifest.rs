//! `manifest`: the signed list of a sealed run's files.

use anyhow::Result;
use runvault_format::manifest::{Entry, Kind};
use runvault_vault::seal::{self, Seen, Shown};
use serde_json::{Map, Value, json};

use super::verify::{seal_is_missing, with_sealed_run};
use crate::args::ManifestOf;
use crate::output::{self, json_name, visible};

pub fn run(args: &ManifestOf) -> Result<()> {
    let parts = with_sealed_run(&args.store, &args.who, &args.run, |root, run, authority| {
        Ok((*run, seal::manifest(root, run, authority).map_err(seal_is_missing)?))
    })?;
    let mut shown = Shown::default();
    for (run, manifest) in &parts {
        let seen = shown.add(*run, manifest);
        let all = manifest.entries.iter().zip(&seen).skip(1);
        let new = all.filter(|(_, (_, seen))| *seen == Seen::Shown).map(|(entry, (path, _))| (entry, path));
        tell(args, &new.collect::<Vec<_>>())?;
    }
    Ok(())
}

fn tell(args: &ManifestOf, entries: &[(&Entry, &Vec<u8>)]) -> Result<()> {
    if args.sha256sums {
        return sums(entries);
    }
    for (entry, path) in entries {
        let record = &entry.record;
        let hash = hex(&record.sha256);
        if args.json {
            let mut object = Map::new();
            json_name(&mut object, "path", path);
            object.insert("kind".into(), json!(kind(record.kind)));
            object.insert("size".into(), json!(record.size));
            object.insert("mode".into(), json!(format!("{:04o}", record.mode)));
            object.insert("mtime".into(), json!(record.mtime));
            if record.kind == Kind::File {
                object.insert("sha256".into(), json!(hash));
            }
            if record.kind == Kind::Symlink {
                json_name(&mut object, "target", &entry.target);
            }
            output::json(&Value::Object(object))?;
        } else {
            let hash = if record.kind == Kind::File { hash } else { format!("{:64}", kind(record.kind)) };
            output::line(&format!("{hash}  {:>15}  {}", record.size, visible(path)))?;
        }
    }
    Ok(())
}

/// As sha256sum(1) prints them: a name with a backslash or a line end is escaped, and its line begins with one.
fn sums(entries: &[(&Entry, &Vec<u8>)]) -> Result<()> {
    for (entry, path) in entries {
        if entry.record.kind != Kind::File {
            continue;
        }
        let odd = path.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r'));
        let mut line = if odd { b"\\".to_vec() } else { Vec::new() };
        line.extend_from_slice(hex(&entry.record.sha256).as_bytes());
        line.extend_from_slice(b"  ");
        for byte in path.iter() {
            match byte {
                b'\\' => line.extend_from_slice(b"\\\\"),
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                other => line.push(*other),
            }
        }
        line.push(b'\n');
        output::bytes(&line)?;
    }
    Ok(())
}

fn hex(bytes: &[u8; 32]) -> String {
    runvault_format::ids::Digest(*bytes).to_string()
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "link",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}
