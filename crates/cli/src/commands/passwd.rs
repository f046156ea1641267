//! `passwd`: the same key under another passphrase.

use std::path::Path;

use anyhow::Result;
use runvault_crypto::passphrase::Params;
use runvault_custody::authority::Acting;
use runvault_custody::identity::Identity;
use runvault_custody::key_files::NewLock;
use runvault_custody::{locks, relock};
use runvault_format::ids::IdentityId;
use serde_json::json;

use crate::args::Passwd;
use crate::exit::{Exit, refuse_with};
use crate::output::{self, quoted, shown};
use crate::prompt::Source;
use crate::store::{Store, require_lock};

pub fn run(args: &Passwd) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    if args.who.identity.is_none() {
        require_lock(&store.root, &store.chain)?;
    }
    let kept = Kept::see(&store, args)?;
    let owner = store.identity(&args.who)?;
    let among = |people: Vec<(String, IdentityId)>| people.iter().any(|(_, id)| *id == owner.id());
    let sole = store.chain.quorum().0 == 1 && among(store.chain.custodians());
    if !sole && !among(store.chain.custodians()) && !among(store.chain.readers()) {
        // Another vault's key is not this command's business: says whose are.
        Acting::open(&store.root, store.chain.clone(), &owner)?;
    }
    let source = Source::of_new(&args.new, args.who.unlock.allow_readable_secret);
    let new = source.new_one(&owner.label, "--new-passphrase-file")?;
    let lock = NewLock::Passphrase { passphrase: &new, params: Params::DEFAULT };
    kept.relock(&store, &owner, &lock)?;
    if args.json {
        let key_file = args.who.identity.as_deref().map(Path::to_string_lossy);
        return output::json(&json!({ "key_file": key_file, "id": owner.id().to_string() }));
    }
    let place = args.who.identity.as_deref().map_or("the key file in the store".to_owned(), shown);
    if !sole {
        return output::line(&format!(
            "{place} opens by the new passphrase now; nothing else was changed.\n\n\
             What this does not end: it is the same key. Whoever has an old copy of the key file and the old passphrase\n\
             has it still. If that has happened, let it be removed, and a new one added (docs/custody.md):\n  {}",
            renewal(&store, &owner.id())
        ));
    }
    output::line(&format!(
        "{place} opens by the new passphrase now; nothing else was changed.\n\n\
         What this does not end: it is the same key. Whoever has an old copy of the key file (a backup or a\n\
         snapshot of the store, an export) and the old passphrase still opens everything in this vault, also\n\
         what is written from now on. If that has happened, make a new vault and copy the runs into it:\n  \
         {}\n\
         As root, so that owners are kept.",
        anew(args)
    ))
}

/// The commands by which another key takes the place of this one.
fn renewal(store: &Store, key: &IdentityId) -> String {
    let (acts, key) = (store.acts(), key.to_string());
    let what = match store.chain.custodians().iter().any(|(_, id)| id.to_string() == key) {
        true => ["add-custodian", "remove-custodian"],
        false => ["add-reader", "remove-reader"],
    };
    let [add, remove] = what;
    format!("{}\n  {}", acts.command(add, "NAME=FILE.pub"), acts.command(remove, &key))
}

/// The key file as it was before its lock was opened: of two commands at once the later one finds another.
enum Kept {
    InStore(locks::Seen),
    Outside(Box<relock::Seen>),
}

impl Kept {
    fn see(store: &Store, args: &Passwd) -> Result<Self> {
        Ok(match &args.who.identity {
            None => Self::InStore(locks::seen(&store.root)?),
            Some(path) => {
                let seen = relock::Seen::read(path, args.who.unlock.allow_readable_secret)?;
                if seen.file().needs_hardware() {
                    return Err(refuse_with(
                        Exit::Usage,
                        format!(
                            "the lock of {} is {}, and no passphrase alone",
                            shown(path),
                            seen.file().lock()?.words
                        ),
                        "another lock: runvault key relock",
                    ));
                }
                Self::Outside(Box::new(seen))
            }
        })
    }

    fn relock(&self, store: &Store, owner: &Identity, lock: &NewLock) -> Result<()> {
        match self {
            Self::InStore(seen) => {
                for broken in locks::passwd(&store.root, owner, seen, lock)? {
                    output::warn(&format!(
                        "one copy of the key file was broken ({broken}); it is written anew"
                    ));
                }
            }
            Self::Outside(seen) => drop(seen.relock(owner, lock)?),
        }
        Ok(())
    }
}

/// The commands that leave this vault behind.
fn anew(args: &Passwd) -> String {
    let store = quoted(&args.store);
    match args.who.identity.as_deref().map(quoted) {
        None => format!("runvault init NEW && runvault cp -r {store}:/ NEW:/"),
        Some(key) => format!(
            "runvault init NEW --identity NEW.key &&\n  \
             runvault cp -r --identity NEW.key --from-identity {key} {store}:/ NEW:/"
        ),
    }
}
