//! Advice: what a person can do about an error, with the very command.

use std::io::ErrorKind;

use runvault_custody::Error as Custody;
use runvault_custody::kek_home::Refused;
use runvault_custody::token::Refused as Token;
use runvault_format::ids::RunId;
use runvault_format::vault_file;
use runvault_fuse::Error as Fuse;
use runvault_vault::runs::coming_place;
use runvault_vault::seal::Change;
use runvault_vault::{Damage, Error as Vault};

use crate::exit::Refusal;
use crate::output::{quoted, shown};
use crate::store::Store;

/// The advice for the first cause that has one.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return refusal.hint.clone();
        }
        if let Some(custody) = cause.downcast_ref::<Custody>() {
            return of_custody(custody);
        }
        if let Some(fuse) = cause.downcast_ref::<Fuse>() {
            return of_fuse(fuse);
        }
        cause.downcast_ref::<Vault>().and_then(of_vault)
    })
}

/// Whether no more is said than that something is damaged, if anything.
pub fn is_general(error: &anyhow::Error) -> bool {
    hint(error).is_none_or(|advice| advice == RUN_DAMAGED)
}

fn of_custody(error: &Custody) -> Option<String> {
    Some(match error {
        Custody::WrongPassphrase { .. } => {
            "try again; if the passphrase was changed lately, the new one is needed.\n\
             Without it the vault opens by a copy of the key file under a passphrase that is known: --identity FILE"
                .into()
        }
        Custody::NotEnrolled { .. } => {
            "to write, the owner lets this machine in: runvault gateway enroll STORE --fingerprint F (where several have to\n\
             agree: its request by --out, then runvault custody propose STORE enroll-gateway). To read: --read-only"
                .into()
        }
        Custody::Revoked { .. } => {
            "if this machine is trusted again, give it a new identity: another --state folder, and runvault gateway enroll"
                .into()
        }
        Custody::NoGateway(_) => "runvault gateway list STORE shows those that are".into(),
        Custody::UnknownKey(_) => "runvault audit show STORE has the ids of all".into(),
        Custody::SeveralGateways { .. } => "name one of these ids".into(),
        Custody::WrongKey { .. } => "name the key file of one of those with --identity FILE".into(),
        Custody::OtherVault { .. } => {
            "a key file serves one vault: the one that it was made with, or where it did its first drill. Name the key file of\n\
             this vault; if this is not the vault that you meant, say which"
                .into()
        }
        Custody::NoLock => {
            "name yours, where it lies: --identity FILE; where several have to agree, runs are read with a reader's".into()
        }
        Custody::NotAVault { .. } => "make a vault in an empty directory: runvault init DIR".into(),
        Custody::NotEmpty(_) => "a vault is made in an empty directory, or in one that init makes".into(),
        Custody::UnknownVersion { version, .. } if *version < vault_file::VERSION => {
            "a runvault of before 1.0 made this, and the format has changed since: with that program, copy the runs\n\
             out (runvault cp -r), then with this one into a new vault"
                .into()
        }
        Custody::UnknownVersion { .. } | Custody::UnknownSuite { .. } => NEWER.into(),
        Custody::Damaged { object, .. } => return of_damaged(object),
        Custody::ChainBroken { line, .. } => format!(
            "line {line} or custody/state-{line} was changed, or two commands of an older build ran at once: put custody/ back\n\
             from a backup. Without one, and if it is the last line, take both out: the vault is then as before that\n\
             operation (docs/operations.md)"
        ),
        Custody::Forked { .. } | Custody::CutShort { .. } | Custody::RolledBack { .. } => {
            "the store is older than this machine has seen it, or another one: put the newest custody/ back".into()
        }
        Custody::RunGone { .. } => "the store is older than this machine has seen it: put the run back".into(),
        Custody::OneNumber { what, .. } => format!(
            "find out which is genuine (runvault runs --json STORE has begun and sealed), and name its run: --last-{what} ID"
        ),
        Custody::LooseSeal { .. } => {
            "name the last seal that is genuine, by its number or its run's id: --last-seal. Where only runs were moved away\n\
             it is this one; where that run was not sealed when the key was lost, it is the one before"
                .into()
        }
        Custody::NotThere { .. } => {
            "runvault runs --json STORE lists runs, with their seals' numbers (n); scrub names gaps".into()
        }
        Custody::ChangedMeanwhile => "run the same command again".into(),
        Custody::LockChanged => "open the key with the other new passphrase, then run the same command again if need be".into(),
        Custody::Busy { mountpoint: Some(at), .. } => format!(
            "work in the mount {}, or end it: runvault unmount {}\nReading needs no state folder: mount --read-only, ls, cat",
            shown(at),
            quoted(at)
        ),
        Custody::Busy { mountpoint: None, .. } => {
            "wait until that process has ended, or use another folder: --state DIR".into()
        }
        Custody::Permissions { path, .. } => {
            format!("chmod 600 {}, or accept it with --allow-readable-secret", quoted(path))
        }
        Custody::KeyFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            "name that file where it is; any copy of it does as well".into()
        }
        Custody::KeyFile { path, source } if source.kind() == ErrorKind::PermissionDenied => format!(
            "this user may not read it: run this as the user whose key it is; the file has mode 600 then (chmod 600 {})",
            quoted(path)
        ),
        Custody::GivenFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            "name that file where it is: keygen makes public key files (.pub), custody propose requests, custody approve\n\
             approvals"
                .into()
        }
        Custody::KeyFileExists(_) => {
            "name a file that does not exist yet; remove this one only if an interrupted init left it and no vault was made".into()
        }
        Custody::FileExists(_) => "name a file that does not exist yet".into(),
        Custody::ReaderExpired { .. } => {
            "who holds the vault's key gives it new terms: runvault custody add-reader NAME=FILE --expires TIME".into()
        }
        Custody::NeedsQuorum { what: "open the vault key", .. } => {
            "several have to agree before a key opens runs: they are read with a reader's key, --identity FILE\n\
             (runvault custody propose STORE add-reader, or grant)"
                .into()
        }
        Custody::NeedsQuorum { what: "rotate the vault key", .. } => {
            "several have to agree: runvault custody propose STORE rotate --out REQ, then approve, then execute".into()
        }
        Custody::NeedsQuorum { what: "say that a run is gone", .. } => {
            "several have to agree: runvault custody propose STORE retire RUN --out REQ, then approve, then execute".into()
        }
        Custody::NeedsQuorum { .. } => {
            "several have to agree: runvault custody propose STORE ... --out REQ, then approve, then execute".into()
        }
        Custody::RetiredByOne { run } => {
            format!("say it in the audit log, which goes on counting: runvault custody retire STORE {run}")
        }
        Custody::NoCustody => {
            "if it is kept elsewhere: --custody DIR (in fstab: -o custody=DIR). If it is lost: put it back from a backup, or\n\
             make it anew from key files: runvault custody recover (docs/custody.md, \"Everything burnt\")"
                .into()
        }
        Custody::CustodyThere => {
            "runvault check STORE says what is wrong with it. If it is of no more use, move it away, and keep it, first".into()
        }
        Custody::NoCopy => {
            "a key file keeps one since its drill (runvault custody confirm): bring the newest copies of the key files, or put\n\
             custody/ back from a backup"
                .into()
        }
        Custody::KeysOfTwoVaults { .. } => "name the store, and key files of its custodians alone".into(),
        Custody::KeyTwice { .. } => "one file of each custodian: --identity A --identity B".into(),
        Custody::TooFewKeys { .. } => "bring the key file of one more custodian: --identity FILE".into(),
        Custody::SeenMore { found, .. } => format!(
            "bring a key file that did its drill later. If there is none: --accept-rollback {found}; what was done since is\n\
             undone"
        ),
        Custody::LockInStore => {
            "take it out first, and keep the copy: runvault key export STORE --out FILE --remove".into()
        }
        Custody::ClockBehind { .. } => "set the clock of this machine, or of the one that proposed it".into(),
        Custody::EndCuts { .. } => {
            "propose it again, from the store as it is now. To leave out what came since: execute --cut".into()
        }
        Custody::Overtaken { .. } | Custody::Expired { .. } => {
            "propose it again: runvault custody propose; approvals of the old request do not count for the new one".into()
        }
        Custody::RequestUsed { .. } => {
            "nothing was done. If it was interrupted, go on with --resume".into()
        }
        Custody::RequestNotUsed => "leave --resume out".into(),
        Custody::OtherExecutor => {
            "execute it on the machine that proposed it, with REQ.executor beside REQ".into()
        }
        Custody::RequestOfOtherVault { .. } => "name the store that it was proposed for".into(),
        Custody::ApprovedAnother { .. } => {
            "of two requests on one line only one can be executed. If the other one is given up: --instead".into()
        }
        Custody::TooFewApprovals { .. } => "runvault custody approve REQ, by one more custodian".into(),
        Custody::BadApproval { why: "is there twice", .. } => "name each approval once".into(),
        Custody::BadApproval { .. } => "that custodian approves this very request again: runvault custody approve".into(),
        Custody::WrongShare { .. } => {
            "propose it anew from the newest store; if it says so again, that custodian's part is lost: agree without it,\n\
             and make the shares anew (rotate)"
                .into()
        }
        Custody::NotSealed { .. } => "its gateway seals it: runvault seal".into(),
        Custody::UnderWay { run, .. } => finish("STORE", run),
        Custody::BadRequest { .. } => "have it sent again, or propose it again".into(),
        Custody::UnlockedInStore => "--no-lock needs --identity FILE, outside the store".into(),
        Custody::Tpm { why, .. } => return of_tpm(why),
        Custody::NoModule(_) => "name the library that reaches it: --pkcs11-module /usr/lib/.../NAME.so".into(),
        Custody::Token { why, .. } => return of_token(why),
        Custody::KekElsewhere(_) => {
            "where the key is kept is chosen once: seal what is open, then enrol a new state folder (--state DIR)".into()
        }
        Custody::Io { source, .. } => return of_errno(source.raw_os_error()?),
        Custody::Vault(error) => return of_vault(error),
        _ => return None,
    })
}

fn of_token(why: &Token) -> Option<String> {
    Some(match why {
        Token::Absent(_) => {
            "put in the token that `runvault key show FILE` names; if it is lost, docs/custody.md".into()
        }
        Token::Several(..) => "name its serial number: --token".into(),
        Token::WrongPin => {
            "nothing is tried again by itself: the token counts wrong PINs, and locks after a few".into()
        }
        Token::Locked => "the token's security officer unlocks it; runvault never does".into(),
        Token::LastTry => "be sure of the PIN, then accept the risk with --last-pin-try".into(),
        Token::NoKey(_) | Token::OtherKey => {
            "the key in the token is gone or another one: docs/custody.md, \"A lock is lost\"".into()
        }
        Token::Keys(..) => "name one of them: --token-key".into(),
        Token::Silent(_) => {
            "nothing was written. Is the token in place, its button pressed in time, the HSM reachable? Then run the same\n\
             command again"
                .into()
        }
        Token::Said(_) => return None,
    })
}

fn of_tpm(why: &Refused) -> Option<String> {
    Some(match why {
        Refused::NoTools => "apt-get install tpm2-tools".into(),
        Refused::NoTpm(_) => {
            "is it switched on in the firmware, and /dev/tpmrm0 there and open to this user? Another one is named by the\n\
             variable TPM2TOOLS_TCTI, such as device:/dev/tpmrm0"
                .into()
        }
        Refused::Taken | Refused::NotAnIndex => {
            "let it choose two that are free: --kek tpm. tpm2_getcap handles-nv-index lists those in use".into()
        }
        Refused::Gone | Refused::NotOurs | Refused::NotWritten | Refused::NoKey => {
            "the keys of the runs that were open here are lost with it; their owner reads them, and takes them over.\n\
             Enrol this machine anew with another state folder: runvault gateway enroll --state DIR --kek tpm"
                .into()
        }
        Refused::OtherTpm | Refused::PcrsChanged => {
            "a copy of the key file under another lock opens: docs/custody.md, \"A lock is lost\"".into()
        }
        Refused::Locked => {
            "nothing of runvault can lock it, and it tries nothing again. tpm2_dictionarylockout --clear-lockout, or wait".into()
        }
        Refused::OwnerHasPassword => {
            "take it away while this machine is enrolled: tpm2_changeauth -c owner -p PASSWORD; or --kek file".into()
        }
        Refused::Silent { .. } => {
            "something else has the TPM, or it hangs: fuser -v /dev/tpm0 /dev/tpmrm0, and try again; then a restart of the\n\
             machine. Nothing of the open runs is lost"
                .into()
        }
        Refused::Failed { .. } => return None,
    })
}

const CUSTODY_CHANGED: &str = "someone or something changed it: put that file back from a backup; \
     it holds no secret that is not locked";

/// Of what this program does not know.
pub const NEWER: &str =
    "a newer runvault made this; `runvault --version` shows the one that is installed here";

/// By where it lies: in the store's custody, in a run, or in this machine's state folder.
fn of_damaged(object: &str) -> Option<String> {
    Some(if object == "vault.json" {
        "vault.json names the vault and never changes: put it back from a backup or any other copy of this store, however\n\
         old. Where it is given, --custody may name another vault's"
            .into()
    } else if object == "custody" || object == "runs" {
        format!("put {object}/ back from a backup: without it nothing of this vault can be read")
    } else if object.starts_with("custody/line-") {
        "it holds an operation that is not in audit.log yet: put that file back from a backup. If there is none, remove\n\
         it: that operation then counts as never made, and is to be done again"
            .into()
    } else if object.starts_with("custody/") {
        CUSTODY_CHANGED.into()
    } else if object.starts_with("runs/") {
        RUN_DAMAGED.into()
    } else if object.starts_with('/') && (object.ends_with("/pins") || object.ends_with("/pins.lock")) {
        "without it nobody here would notice an older copy of the store, so reading is refused too: put that file\n\
         back from a backup, or use another folder: --state DIR"
            .into()
    } else if object.starts_with('/') {
        "this machine's own state: put that file back from a backup, or use another folder: --state DIR.\n\
         Reading needs none of it: mount --read-only, ls, cat"
            .into()
    } else {
        return None;
    })
}

/// A re-keying that is agreed on: what is done about it by whoever wants to agree on another one.
pub fn under_way(store: &Store, run: &RunId, new: &RunId) -> String {
    format!(
        "{}. If that cannot go\n\
         on, as it says then, or REQ.worker is lost: give it up, which loses nothing, and agree anew:\n{}",
        finish(&store.typed(), run),
        give_up(store, new)
    )
}

/// What goes on with one; `store`: as it is typed.
pub fn finish(store: &str, run: &RunId) -> String {
    format!("finish it: runvault rekey {store} {run}, where several have agreed with --identity REQ.worker")
}

/// A run that is on its way goes, by one rename: whoever is still at it finds its place gone, and nothing is taken for it.
pub fn give_up(store: &Store, new: &RunId) -> String {
    store.aside(&coming_place(new), &format!("given-up-{new}"))
}

/// What has the name of a run whose place another one has taken goes.
pub fn too_much(store: &Store, run: &RunId) -> String {
    store.aside(&run.to_string(), &format!("in-the-way-{run}"))
}

const RUN_DAMAGED: &str = "runvault check STORE names everything that is damaged, of a sealed run runvault verify STORE RUN; put those files\n\
     back from a backup";

/// No copy of it would count either.
const NOT_OURS: &str = "who signed it may not, or no longer: runvault gateway list STORE shows who may. Find out who put it there;\n\
                        move it out of the store, and keep it. Where it is the seal of a run of yours, by a gateway that was revoked\n\
                        at that moment: move runs/ID/seal alone, then runvault takeover STORE ID on another machine, and seal it there";

fn of_vault(error: &Vault) -> Option<String> {
    match error {
        Vault::Held { run, .. } => Some(format!(
            "reading works: mount --read-only, ls, cat. If that machine is gone for good:\nrunvault takeover STORE {run}"
        )),
        Vault::NotHeld { run, .. } => Some(format!(
            "reading works. If that machine shall not write it any more:\nrunvault takeover STORE {run}"
        )),
        Vault::NoRoom { .. } => {
            Some("a re-keying needs the space of the run once more: make room, and start it again".to_owned())
        }
        Vault::NotMaker { run, .. } => Some(format!(
            "the owner lets this machine seal it: runvault gateway admit STORE NAME {run}, which takeover does by itself.\n\
             To have the space back, remove what is in it; for the empty folder the owner says that it may go:\n\
             runvault retire STORE {run}"
        )),
        Vault::Damaged { damage: Damage::Signer(_), .. } => Some(NOT_OURS.into()),
        Vault::Damaged { damage: Damage::OldStays { change: Change::Added, new, .. }, .. } => Some(format!(
            "move away what was added, never runs/{new} itself (runvault scrub STORE names all of it): then the same command\n\
             goes on. All else is as it was sealed"
        )),
        Vault::Damaged { damage: Damage::OldStays { old, new, .. }, .. } => Some(format!(
            "put it back from a copy. Without one agree on a new key for run {old} again, and take runs/{new} away once that is\n\
             done, not before: who has seen it does not open the old run without it"
        )),
        Vault::Damaged { object, .. } => Some(of_damaged(object).unwrap_or_else(|| RUN_DAMAGED.into())),
        Vault::Newer { .. } => Some(NEWER.into()),
        Vault::Store { source, .. } => of_errno(source.raw_os_error()?),
        _ => None,
    }
}

fn of_errno(errno: i32) -> Option<String> {
    Some(match errno {
        libc::ENOSPC | libc::EDQUOT => {
            "the store is full: make space, then try again; nothing that was accepted is lost".into()
        }
        libc::EMFILE | libc::ENFILE => {
            "more files would have to be open at once than this machine allows: raise the limit (ulimit -n)".into()
        }
        libc::EROFS => "the store is read-only here: mount --read-only, ls, cat and check still work".into(),
        libc::EACCES | libc::EPERM => {
            "this user may not do that in the store: check its owner and mode".into()
        }
        libc::EXDEV => {
            "another file system is mounted there: a store lies on one file system, so that renames and syncs reach\n\
             all of it. Unmount that one, or move the whole store to it"
                .into()
        }
        libc::ESTALE | libc::EIO | libc::ETIMEDOUT => {
            "the store does not answer as it should: is the disk or share still there?".into()
        }
        _ => return None,
    })
}

fn of_fuse(error: &Fuse) -> Option<String> {
    Some(match error {
        Fuse::NoDevice(source) if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            "this user may not open it: as root, chmod 666 /dev/fuse (udev's usual mode); in a container: --device /dev/fuse.\n\
             Without FUSE the vault opens by: runvault ls, cat, cp"
                .into()
        }
        Fuse::NoDevice(_) => "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN.\n\
                              Without FUSE the vault opens by: runvault ls, cat, cp"
            .into(),
        Fuse::NoFusermount => "install the package fuse3: apt install fuse3".into(),
        Fuse::AllowOtherForbidden => "as root: echo user_allow_other >> /etc/fuse.conf".into(),
        Fuse::Mount(source) if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
            "this user may not mount here: the mount point must be its own; in a container: --cap-add SYS_ADMIN".into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, of};

    #[test]
    fn advice_names_the_command() {
        let held = Vault::Held { run: "00ff".into(), holder: "gateway ab".into() };
        let error = anyhow::Error::from(held);
        assert!(hint(&error).unwrap().contains("runvault takeover STORE 00ff"));
        assert_eq!(of(&error), Exit::Busy);
        let busy = anyhow::Error::from(Custody::Busy { pid: 7, mountpoint: Some("/mnt/x".into()) });
        assert!(hint(&busy).unwrap().contains("runvault unmount /mnt/x"));
        assert_eq!(of(&busy), Exit::Busy);
    }

    #[test]
    fn damage_is_mended_where_it_lies() {
        let advice = |object: &str| hint(&Custody::Damaged { object: object.into(), why: "x".into() }.into());
        assert!(advice("custody/states/0").unwrap().contains("from a backup"));
        assert!(advice("vault.json").unwrap().contains("any other copy of this store"));
        assert!(advice("custody").unwrap().contains("put custody/ back"));
        assert!(advice("runs").unwrap().contains("put runs/ back"));
        assert!(advice("runs/00/run.json").unwrap().contains("runvault check"));
        assert!(advice("/var/lib/runvault/00/head").unwrap().contains("--state"));
        let pins = advice("/var/lib/runvault/00/pins").unwrap();
        assert!(pins.contains("--state") && !pins.contains("Reading needs none"), "{pins}");
        assert!(advice("custody/line-3").unwrap().contains("remove"));
        assert_eq!(advice("key file"), None);
    }

    #[test]
    fn a_device_that_is_closed_to_this_user_is_told_from_a_missing_one() {
        let advice = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            hint(&Fuse::NoDevice(source).into()).unwrap()
        };
        assert!(advice(libc::EACCES).contains("chmod 666 /dev/fuse"));
        assert!(advice(libc::ENOENT).contains("modprobe fuse"));
    }

    #[test]
    fn a_key_file_that_does_not_open_is_named_and_not_the_store() {
        let refusal = |errno| {
            let source = std::io::Error::from_raw_os_error(errno);
            anyhow::Error::from(Custody::KeyFile { path: "/k/owner.key".into(), source })
        };
        assert!(hint(&refusal(libc::ENOENT)).unwrap().contains("where it is"));
        assert!(hint(&refusal(libc::EACCES)).unwrap().contains("chmod 600 /k/owner.key"));
        assert_eq!(of(&refusal(libc::EIO)), Exit::Usage);
        assert_eq!(hint(&refusal(libc::EIO)), None);
    }

    #[test]
    fn custody_refusals_have_their_exit_codes() {
        let wrong = Custody::WrongPassphrase { custodian: "owner".into() };
        let cut = Custody::CutShort { pinned: 2, found: 1 };
        for (error, code) in [
            (wrong, Exit::WrongKey),
            (cut, Exit::Damaged),
            (Custody::NoLock, Exit::Usage),
            (Custody::NotAVault { found: "x".into() }, Exit::Failed),
            (Custody::NotEmpty(vec!["x".into()]), Exit::Failed),
        ] {
            let error = anyhow::Error::from(error);
            assert_eq!(of(&error), code, "{error}");
            assert!(hint(&error).is_some(), "{error}");
        }
    }
}
