//! Extended attributes: `user.*` and `trusted.*` encrypted, POSIX ACLs as the store has them.

use runvault_format::ids::FileId;
use runvault_format::keys::NameKey;
use runvault_format::ledger::{self, Owner};
use runvault_format::name;
use runvault_store::backend::{Kind, Xattrs};

use crate::api::{Ino, ROOT};
use crate::ledger::Ledger;
use crate::outcome::outcome;
use crate::run::Body;
use crate::sealed::is_sealed;
use crate::sys;
use crate::{Damage, Error, Posix, Result, Vault, runs};

pub(crate) const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// What an attribute's name asks for.
enum Class {
    Encrypted,
    Acl,
    /// Never there: asked for at every write, and not worth a call.
    Absent,
    Unsupported,
    /// A prefix and nothing behind it.
    Nameless,
}

fn class(name: &[u8]) -> Class {
    if ACLS.contains(&name) {
        Class::Acl
    } else if name == b"security.capability" || name == b"security.selinux" {
        Class::Absent
    } else if name == b"user." || name == b"trusted." {
        Class::Nameless
    } else if name.starts_with(b"user.") || (name.starts_with(b"trusted.") && sys::is_root()) {
        Class::Encrypted
    } else {
        Class::Unsupported
    }
}

/// An object, with the id that its attributes' names are bound to.
struct Subject<'a> {
    xattrs: &'a dyn Xattrs,
    key: &'a NameKey,
    id: FileId,
    object: String,
    ledger: Option<&'a Ledger>,
}

impl Vault {
    /// The value of an attribute.
    ///
    /// # Errors
    /// [`Posix::NoAttribute`], [`Posix::AttributeNameTooLong`]; [`Damage::Name`]; the store's.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.check_open()?;
        match class(name) {
            Class::Absent => Err(Posix::NoAttribute.into()),
            Class::Unsupported => Err(Posix::Unsupported.into()),
            Class::Nameless => Err(Posix::Invalid.into()),
            _ if ino == ROOT => Err(Posix::NoAttribute.into()),
            _ if is_sealed(ino) => {
                let found = self.sealed_xattrs(ino)?.into_iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value).ok_or(Error::Posix(Posix::NoAttribute))
            }
            Class::Acl => self.on_stored(ino, |xattrs, object| {
                xattrs.xattr(name).map_err(|e| outcome("read an attribute of", object, e))
            }),
            Class::Encrypted => self
                .on_subject(ino, false, |subject| {
                    let stored = subject.stored_name(name)?;
                    let value = subject
                        .xattrs
                        .xattr(&stored)
                        .map_err(|e| outcome("read an attribute of", &subject.object, e))?;
                    name::decrypt_xattr_value(subject.key, &subject.id, name, &value)
                        .map_err(|_| Error::damaged(&subject.object, Damage::Name))
                })?
                .ok_or(Error::Posix(Posix::NoAttribute)),
        }
    }

    /// Names of all attributes.
    ///
    /// # Errors
    /// The store's.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.check_open()?;
        if ino == ROOT {
            return Ok(Vec::new());
        }
        if is_sealed(ino) {
            return Ok(self.sealed_xattrs(ino)?.into_iter().map(|(name, _)| name).collect());
        }
        let list = |xattrs: &dyn Xattrs, object: &str| match xattrs.xattrs() {
            Ok(names) => Ok(names),
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
            Err(e) => Err(outcome("list the attributes of", object, e)),
        };
        let mut shown: Vec<Vec<u8>> = self
            .on_stored(ino, |xattrs, object| list(xattrs, object))?
            .into_iter()
            .filter(|name| ACLS.contains(&name.as_slice()))
            .collect();
        let ours = self.on_subject(ino, false, |subject| {
            let names = list(subject.xattrs, &subject.object)?;
            let plain = |stored: &Vec<u8>| name::decrypt_xattr_name(subject.key, &subject.id, stored).ok();
            Ok(names.iter().filter_map(plain).collect::<Vec<_>>())
        })?;
        shown.extend(ours.unwrap_or_default());
        Ok(shown)
    }

    /// `flags` as for setxattr(2).
    ///
    /// # Errors
    /// [`Posix::AttributeNameTooLong`] over 130 bytes, [`Posix::NotPermitted`] on what is neither file
    /// nor directory, [`Posix::Unsupported`]; the store's.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.may_change(ino)?;
        match class(name) {
            Class::Absent | Class::Unsupported => return Err(Posix::Unsupported.into()),
            Class::Nameless => return Err(Posix::Invalid.into()),
            Class::Acl => self.changing_acl(ino, || {
                self.on_stored(ino, |xattrs, object| {
                    xattrs
                        .set_xattr(name, value, flags)
                        .map_err(|e| outcome("set an attribute of", object, e))
                })
            })?,
            Class::Encrypted => self
                .on_subject(ino, true, |subject| {
                    let stored = subject.stored_name(name)?;
                    let sealed = name::encrypt_xattr_value(subject.key, &subject.id, name, value)?;
                    subject.noted(name, Some(value), || {
                        subject
                            .xattrs
                            .set_xattr(&stored, &sealed, flags)
                            .map_err(|e| outcome("set an attribute of", &subject.object, e))
                    })
                })?
                .ok_or(Posix::NotPermitted)?,
        }
        self.attribute_changed(ino);
        Ok(())
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// [`Posix::NoAttribute`]; the store's.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.may_change(ino)?;
        match class(name) {
            Class::Absent => return Err(Posix::NoAttribute.into()),
            Class::Nameless => return Err(Posix::Invalid.into()),
            Class::Unsupported => return Err(Posix::Unsupported.into()),
            Class::Acl => self.changing_acl(ino, || {
                self.on_stored(ino, |xattrs, object| {
                    xattrs.remove_xattr(name).map_err(|e| outcome("remove an attribute of", object, e))
                })
            })?,
            Class::Encrypted => self
                .on_subject(ino, false, |subject| {
                    let stored = subject.stored_name(name)?;
                    subject.noted(name, None, || {
                        subject
                            .xattrs
                            .remove_xattr(&stored)
                            .map_err(|e| outcome("remove an attribute of", &subject.object, e))
                    })
                })?
                .ok_or(Posix::NoAttribute)?,
        }
        self.attribute_changed(ino);
        Ok(())
    }

    fn may_change(&self, ino: Ino) -> Result<()> {
        self.check_open()?;
        if self.read_only() {
            return Err(Posix::ReadOnly.into());
        }
        if ino == ROOT {
            return Err(Posix::Unsupported.into());
        }
        if is_sealed(ino) {
            return Err(self.sealed_refusal(ino));
        }
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        self.body(&known.run)?.check_writer()
    }

    /// An ACL changes the mode too, and the ledger has neither from then on.
    fn changing_acl(&self, ino: Ino, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        let body = self.body(&known.run)?;
        let Some(ledger) = body.context.ledger() else { return act() };
        match known.kind {
            // An empty one too: the ledger knows it by the id that it will have.
            Kind::File => self.with_file(ino, |file| {
                ledger.changing_owner(file.ledger_group(), act, |()| Owner::default())
            }),
            Kind::Dir => {
                let of = ledger::group(&self.directory(ino)?.id);
                ledger.changing_owner(of, act, |()| Owner::default())
            }
            _ => act(),
        }
    }

    fn attribute_changed(&self, ino: Ino) {
        self.unsynced.attributes(ino);
        self.dirs.drop_one(ino);
    }

    /// The stored object's own attributes.
    fn on_stored<T>(&self, ino: Ino, act: impl FnOnce(&dyn Xattrs, &str) -> Result<T>) -> Result<T> {
        if let Some(file) = self.files.live(ino) {
            return act(&**file.stored(), &format!("inode {ino}"));
        }
        if let Some(known) = self.nodes.known(ino).filter(|k| k.top && k.run.opened_body().is_none()) {
            let object = format!("runs/{}/tree", known.run.id);
            let dir = runs::run_dir(&self.root, &known.run.id)?;
            let xattrs = dir.entry_xattrs(b"tree").map_err(|e| outcome("open", &object, e))?;
            return act(&*xattrs, &object);
        }
        let (at, _names) = self.hold_node(ino)?;
        let object = at.body.context.object(ino);
        let xattrs = at.dir.entry_xattrs(&at.stored).map_err(|e| outcome("open", &object, e))?;
        act(&*xattrs, &object)
    }

    /// The object with its id; `None` where it has none: neither file nor directory, or a file to
    /// which nothing was written yet (`make`: it gets one).
    fn on_subject<T>(
        &self,
        ino: Ino,
        make: bool,
        act: impl FnOnce(&Subject<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let known = self.nodes.known(ino).ok_or(Posix::Stale)?;
        let body: std::sync::Arc<Body> = self.body(&known.run)?;
        let key = body.context.keys.name_key();
        let (object, ledger) = (body.context.object(ino), body.context.ledger());
        match known.kind {
            Kind::File => self.with_file(ino, |file| {
                let id = if make { Some(file.ensure_written_header()?) } else { file.file_id() };
                let Some(id) = id else { return Ok(None) };
                act(&Subject { xattrs: &**file.stored(), key, id, object, ledger }).map(Some)
            }),
            Kind::Dir => {
                let dir = self.directory(ino)?;
                act(&Subject { xattrs: &*dir.dir, key, id: dir.id, object, ledger }).map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl Subject<'_> {
    /// Lets `act` set or remove an attribute, and the ledger knows.
    fn noted(&self, name: &[u8], value: Option<&[u8]>, act: impl FnOnce() -> Result<()>) -> Result<()> {
        match self.ledger {
            Some(ledger) => ledger.changing_attribute(ledger::group(&self.id), name, value, act),
            None => act(),
        }
    }

    fn stored_name(&self, name: &[u8]) -> Result<Vec<u8>> {
        name::encrypt_xattr_name(self.key, &self.id, name).map_err(|e| match e {
            runvault_format::Error::TooLong => Posix::AttributeNameTooLong.into(),
            other => other.into(),
        })
    }
}
