//! `ls`: a vault's directories without a mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use runvault_store::backend::Kind;
use runvault_vault::{Error, Options, Posix};
use serde_json::{Map, Value, json};

use crate::args::Ls;
use crate::exit::{self, Exit, refuse};
use crate::output::{self, json_name, name_bytes};
use crate::store::Store;
use crate::trees::{InVault, Meta, Tree, refuse_deep, vault_path};

pub fn run(args: &Ls) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let open = store.read(&args.who, Options::default())?;
    let tree = InVault::new(&open.vault, &args.store);
    let mut listing = Listing { args, tree: &tree, damaged: 0, worst: Exit::Done };
    let path = vault_path(Path::new(&args.path))?;
    let result = listing.everything(&path);
    let (damaged, worst) = (listing.damaged, listing.worst);
    drop(tree);
    open.close()?;
    result?;
    match damaged {
        0 => Ok(()),
        n => Err(refuse(worst, format!("{} could not be read", output::count(n, "object")))),
    }
}

struct Listing<'a> {
    args: &'a Ls,
    tree: &'a InVault,
    damaged: u64,
    worst: Exit,
}

impl Listing<'_> {
    /// The path, then the runs that are missing there; one of them may be what was asked for.
    fn everything(&mut self, path: &Path) -> Result<()> {
        let started = self.start(path);
        if started.as_ref().is_err_and(|error| error.is::<output::StandardOutput>()) {
            return started;
        }
        let left_out = self.tree.left_out(path);
        match started {
            Err(error) if !left_out.is_empty() => self.note(&error),
            started => started?,
        }
        for run in left_out {
            self.note(&run.into());
        }
        Ok(())
    }

    fn start(&mut self, path: &Path) -> Result<()> {
        let Some(meta) = self.tree.stat(path)? else {
            return Err(anyhow::Error::from(Error::Posix(Posix::NotFound)).context(self.tree.shown(path)));
        };
        if meta.kind == Kind::Dir {
            return self.directory(path);
        }
        let name = path.as_os_str().to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        self.print(parent, &[(name, meta)])
    }

    fn directory(&mut self, path: &Path) -> Result<()> {
        refuse_deep(self.tree, path)?;
        if self.args.recursive && !self.args.json {
            let mut heading = name_bytes(path.as_os_str().as_bytes());
            heading.splice(..0, *b"/");
            heading.extend_from_slice(b":\n");
            output::bytes(&heading)?;
        }
        let mut entries = Vec::new();
        let (found, complete) = self.tree.entries(path)?;
        for listed in found {
            match listed.meta {
                Ok(meta) => entries.push((listed.name, meta)),
                Err(error) => self.note(&error),
            }
        }
        if let Err(error) = complete {
            self.note(&error);
        }
        self.print(path, &entries)?;
        if !self.args.recursive {
            return Ok(());
        }
        for (name, _) in entries.iter().filter(|(_, meta)| meta.kind == Kind::Dir) {
            if !self.args.json {
                output::line("")?;
            }
            if let Err(error) = self.directory(&path.join(name)) {
                if error.is::<output::StandardOutput>() {
                    return Err(error);
                }
                self.note(&error);
            }
        }
        Ok(())
    }

    /// One that cannot be read does not hide the others.
    fn note(&mut self, error: &anyhow::Error) {
        self.damaged += 1;
        let exit = exit::of(error);
        if self.worst != Exit::Damaged {
            self.worst = exit;
        }
        exit::report(error);
    }

    fn print(&self, parent: &Path, entries: &[(std::ffi::OsString, Meta)]) -> Result<()> {
        let text = if self.args.json {
            self.json(parent, entries)?
        } else if self.args.long {
            self.long(parent, entries)?
        } else {
            entries.iter().fold(Vec::new(), |mut text, (name, _)| {
                text.extend(name_bytes(name.as_bytes()));
                text.push(b'\n');
                text
            })
        };
        output::bytes(&text)
    }

    fn json(&self, parent: &Path, entries: &[(std::ffi::OsString, Meta)]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for (name, meta) in entries {
            let path = parent.join(name);
            let mut object = Map::new();
            json_name(&mut object, "path", path.as_os_str().as_bytes());
            object.insert("type".into(), json!(kind_name(meta.kind)));
            object.insert("mode".into(), json!(format!("{:04o}", meta.mode)));
            object.insert("links".into(), json!(meta.nlink));
            object.insert("uid".into(), json!(meta.uid));
            object.insert("gid".into(), json!(meta.gid));
            object.insert("size".into(), json!(meta.size));
            object.insert("mtime".into(), json!(output::utc(meta.mtime.sec)));
            object.insert("mtime_ns".into(), json!(meta.mtime.nsec));
            if let Some(state) = self.tree.state_of_run(parent, name)? {
                object.insert("state".into(), json!(state));
            }
            if meta.kind == Kind::Symlink {
                json_name(&mut object, "target", self.tree.read_link(&path)?.as_bytes());
            }
            text.extend_from_slice(format!("{}\n", Value::Object(object)).as_bytes());
        }
        Ok(text)
    }

    /// Columns as wide as their widest cell; the name last, as its bytes are.
    fn long(&self, parent: &Path, entries: &[(std::ffi::OsString, Meta)]) -> Result<Vec<u8>> {
        let states = entries.iter().map(|(name, _)| self.tree.state_of_run(parent, name));
        let states: Vec<_> = states.collect::<Result<_>>()?;
        let of_runs = states.iter().any(Option::is_some);
        let cells = entries.iter().zip(states).map(|((_, meta), state)| {
            let mut cells = vec![
                mode_text(meta),
                meta.nlink.to_string(),
                meta.uid.to_string(),
                meta.gid.to_string(),
                size_cell(meta),
                output::utc(meta.mtime.sec),
            ];
            cells.extend(of_runs.then(|| state.unwrap_or("-").to_owned()));
            cells
        });
        let table = output::table(&cells.collect::<Vec<_>>(), &[1, 2, 3, 4]);
        let mut text = Vec::new();
        for (columns, (name, meta)) in table.lines().zip(entries) {
            text.extend_from_slice(columns.as_bytes());
            text.extend_from_slice(b"  ");
            text.extend(name_bytes(name.as_bytes()));
            if meta.kind == Kind::Symlink {
                text.extend_from_slice(b" -> ");
                text.extend(self.target(&parent.join(OsStr::new(name)))?);
            }
            text.push(b'\n');
        }
        Ok(text)
    }

    fn target(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(name_bytes(self.tree.read_link(path)?.as_bytes()))
    }
}

/// Devices show their numbers, everything else its size.
fn size_cell(meta: &Meta) -> String {
    match meta.kind {
        Kind::CharDevice | Kind::BlockDevice => {
            format!("{},{}", rustix::fs::major(meta.rdev), rustix::fs::minor(meta.rdev))
        }
        _ => meta.size.to_string(),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice => "char device",
        Kind::BlockDevice => "block device",
    }
}

/// `drwxr-sr-t`, as ls(1) writes it.
fn mode_text(meta: &Meta) -> String {
    let kind = match meta.kind {
        Kind::File => '-',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    };
    let bit = |mask: u32, c: char| if meta.mode & mask != 0 { c } else { '-' };
    let execute = |execute: u32, special: u32, letter: char| match (meta.mode & execute, meta.mode & special)
    {
        (0, 0) => '-',
        (_, 0) => 'x',
        (0, _) => letter.to_ascii_uppercase(),
        _ => letter,
    };
    let bits = [
        kind,
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        execute(0o100, 0o4000, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        execute(0o010, 0o2000, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        execute(0o001, 0o1000, 't'),
    ];
    bits.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use runvault_store::backend::Time;

    #[test]
    fn modes_read_as_ls_writes_them() {
        let time = Time::default();
        let of = |kind, mode| {
            let (object, nlink, uid, gid, rdev, size) = ((0, 0), 1, 0, 0, 0, 0);
            mode_text(&Meta {
                kind,
                object,
                mode,
                nlink,
                uid,
                gid,
                rdev,
                size,
                blocks: 0,
                atime: time,
                mtime: time,
            })
        };
        assert_eq!(of(Kind::File, 0o644), "-rw-r--r--");
        assert_eq!(of(Kind::Dir, 0o2755), "drwxr-sr-x");
        assert_eq!(of(Kind::Dir, 0o1777), "drwxrwxrwt");
        assert_eq!(of(Kind::File, 0o6600), "-rwS--S---");
    }
}
