//! chmod, chown, utimens, truncate: in the order size, owner, mode, times.

use runvault_format::ledger::{Group, Named, Owner};
use runvault_store::backend::{Kind, SetTime, Stat};

use crate::api::{Attr, Caller, Handle, Ino, ROOT, SetAttr};
use crate::handles::{strip_suid, without_suid};
use crate::noted_names::{owner_given, owner_of};
use crate::outcome::outcome;
use crate::sealed::is_sealed;
use crate::view::At;
use crate::{Posix, Result, Vault};

impl Vault {
    /// Changes attributes; gives all of them.
    ///
    /// # Errors
    /// [`Posix::ReadOnly`], [`Posix::NotPermitted`] for the mount's root; the store's.
    pub fn setattr(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Option<Handle>,
        change: &SetAttr,
    ) -> Result<Attr> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        if ino == ROOT {
            return self.set_root(change);
        }
        if is_sealed(ino) {
            return Err(self.sealed_refusal(ino));
        }
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        self.body(&known.run)?.check_writer()?;
        if let Some(size) = change.size {
            self.set_size(caller, ino, handle, size, change.kill_suidgid)?;
        }
        if change.mode.is_some()
            || change.uid.is_some()
            || change.gid.is_some()
            || change.atime != SetTime::Omit
            || change.mtime != SetTime::Omit
        {
            match (self.files.live(ino), known.kind) {
                (Some(file), Kind::File) => self.set_live(&file, change)?,
                _ => {
                    let (at, _names) = self.hold_node(ino)?;
                    self.set_noted(ino, &at, change)?;
                }
            }
            self.unsynced.attributes(ino);
        }
        if known.kind == Kind::Dir {
            // What was remembered of its group and default ACL may have changed.
            self.dirs.drop_one(ino);
        }
        self.getattr(ino, handle)
    }

    fn set_size(
        &self,
        caller: &Caller,
        ino: Ino,
        handle: Option<Handle>,
        size: u64,
        kill: bool,
    ) -> Result<()> {
        let change = |file: &std::sync::Arc<crate::file::FileObject>| {
            file.truncate(size)?;
            if kill || caller.uid != 0 { strip_suid(file) } else { Ok(()) }
        };
        match handle.map(|h| self.handles.file(h)) {
            Some(open) => change(&open?.file),
            None => {
                let (file, ..) = self.file_object(ino, false, size == 0)?;
                // Without a handle nobody will flush it later.
                let result = change(&file).and_then(|()| file.flush());
                drop(file);
                self.let_go(ino);
                result
            }
        }
    }

    fn set_live(&self, file: &std::sync::Arc<crate::file::FileObject>, change: &SetAttr) -> Result<()> {
        if change.uid.is_some() || change.gid.is_some() {
            let mode = file.attr()?.mode & 0o7777;
            file.set_owner(change.uid, change.gid)?;
            let kept = without_suid(mode);
            if change.mode.is_none() && file.attr()?.mode & 0o7777 != kept {
                file.set_mode(kept)?;
            }
        }
        if let Some(mode) = change.mode {
            file.set_mode(mode & 0o7777)?;
        }
        if change.atime != SetTime::Omit || change.mtime != SetTime::Omit {
            file.set_times(change.atime, change.mtime)?;
        }
        Ok(())
    }

    /// [`Vault::set_stored`], and the ledger knows.
    fn set_noted(&self, ino: Ino, at: &At, change: &SetAttr) -> Result<()> {
        let of = match self.ledger_object(&at.body, ino, (&*at.dir, &at.stored), &at.looked.stat) {
            Named::Object(_, of) if matches!(at.looked.stat.kind, Kind::File | Kind::Dir) => of,
            _ => Group::default(),
        };
        let owns = change.mode.is_some() || change.uid.is_some() || change.gid.is_some();
        let Some(ledger) = at.body.context.ledger().filter(|_| owns && of != Group::default()) else {
            return self.set_stored(at, change);
        };
        let act = || {
            self.set_stored(at, change)?;
            at.dir.stat(&at.stored).map_err(|e| outcome("stat", at.body.context.object(ino), e))
        };
        let now =
            |stat: &Stat| Owner { mode: owner_of(stat).mode, ..owner_given(stat, change.uid, change.gid) };
        ledger.changing_owner(of, act, now).map(drop)
    }

    fn set_stored(&self, at: &At, change: &SetAttr) -> Result<()> {
        let fail = |what| move |e| outcome(what, format!("an object of run {}", at.body.context.id), e);
        if change.uid.is_some() || change.gid.is_some() {
            at.dir.set_owner(&at.stored, change.uid, change.gid).map_err(fail("change the owner of"))?;
            let keeps = matches!(at.looked.stat.kind, Kind::Dir | Kind::Symlink) || change.mode.is_some();
            let now = at.dir.stat(&at.stored).map_err(fail("stat"))?.mode & 0o7777;
            if !keeps && without_suid(now) != now {
                at.dir.set_mode(&at.stored, without_suid(now)).map_err(fail("change the mode of"))?;
            }
        }
        if let Some(mode) = change.mode.filter(|_| at.looked.stat.kind != Kind::Symlink) {
            at.dir.set_mode(&at.stored, mode & 0o7777).map_err(fail("change the mode of"))?;
        }
        if change.atime != SetTime::Omit || change.mtime != SetTime::Omit {
            at.dir.set_times(&at.stored, change.atime, change.mtime).map_err(fail("set times of"))?;
        }
        Ok(())
    }

    /// The mount's root takes times only: its mode and owner are the mount's.
    fn set_root(&self, change: &SetAttr) -> Result<Attr> {
        if change.mode.is_some() || change.uid.is_some() || change.gid.is_some() || change.size.is_some() {
            return Err(Posix::NotPermitted.into());
        }
        self.root
            .set_times(b"runs", change.atime, change.mtime)
            .map_err(|e| outcome("set times of", "runs", e))?;
        self.root_attr()
    }
}
