//! What the ledger is told of names.

use runvault_format::ledger::{self, Group, Named, Owner};
use runvault_format::name::Stored;
use runvault_store::backend::{Dir, Kind, Stat};

use crate::api::Ino;
use crate::directory::OpenDir;
use crate::ledger::Changing;
use crate::run::Body;
use crate::seal::kind_of;
use crate::{Vault, record};

impl OpenDir {
    /// A new name in it.
    pub(crate) fn note(&self, name: &Stored, what: Named) {
        self.body.context.note_name(&self.id, &name.text, what);
    }

    /// An empty file in it that was opened, and has an id since.
    pub(crate) fn note_reopened(&self, name: &Stored, object: Group) {
        if let Some(ledger) = self.body.context.ledger() {
            ledger.reopened(&self.id, &name.text, object);
        }
    }

    /// Mode and owner of a new file or directory.
    pub(crate) fn note_owner(&self, of: Group, stat: &Stat) {
        if let Some(ledger) = self.body.context.ledger() {
            ledger.owner(of, owner_of(stat));
        }
    }

    /// Before a name comes into it.
    pub(crate) fn making(&self, name: &Stored) -> Changing<'_> {
        let ledger = self.body.context.ledger();
        ledger.map_or(Changing::unnoted(), |ledger| ledger.making_name(&self.id, &name.text))
    }

    /// Before a name of it goes, or leads to something else.
    pub(crate) fn changing(&self) -> Changing<'_> {
        self.body.context.changing_names(&self.id)
    }
}

impl Vault {
    /// What the ledger says that a name leads to, where the store has this under it. No file may be locked.
    pub(crate) fn ledger_object(&self, body: &Body, ino: Ino, at: (&dyn Dir, &[u8]), stat: &Stat) -> Named {
        if body.context.ledger().is_none() {
            return Named::Unknown;
        }
        let (dir, name) = at;
        let object = match stat.kind {
            Kind::File => self.with_file(ino, |file| Ok(file.ledger_group())).ok(),
            Kind::Dir => {
                let id =
                    dir.open_dir(name).ok().and_then(|dir| record::read(&body.context, &*dir, None).ok());
                id.flatten().map(|id| ledger::group(&id))
            }
            Kind::Symlink => dir.read_link(name).ok().map(|text| ledger::link_object(&text)),
            _ => Some(device_object(stat)),
        };
        // Its kind is known at least.
        Named::Object(kind_of(stat.kind) as u8, object.unwrap_or_default())
    }
}

/// As they are.
pub(crate) fn owner_of(stat: &Stat) -> Owner {
    Owner { mode: Some((stat.mode & 0o7777) as u16), uid: Some(stat.uid), gid: Some(stat.gid) }
}

/// What a store made of an owner that it was given: some keep none.
pub(crate) fn owner_given(stat: &Stat, uid: Option<u32>, gid: Option<u32>) -> Owner {
    Owner { mode: None, uid: uid.map(|_| stat.uid), gid: gid.map(|_| stat.gid) }
}

/// The number of a device; zeros for what has none.
pub(crate) fn device_object(stat: &Stat) -> Group {
    let device = matches!(stat.kind, Kind::CharDevice | Kind::BlockDevice);
    u128::from(if device { stat.rdev } else { 0 }).to_le_bytes()
}
