//! init, key, passwd and wrong keys: what is asked, written, refused; no secret where it does not belong.

use crate::common::{Outcome, STRONG, Scratch, holds, text};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use runvault_custody::key_files;
use runvault_format::key_file::{KeyFile, Lock};

const OTHER: &str = "another seven words that nobody guesses xylophone";

/// A vault whose owner's key file is in the store, under `STRONG` in the file `pass`.
fn locked(scratch: &Scratch) {
    scratch.secret("pass", format!("{STRONG}\n"));
    scratch.secret("other", OTHER);
    let made = scratch.run(&["init", "--passphrase-file", "pass", "store"]);
    let said = made.done().out();
    for part in ["fingerprint", "in words", "custody/locks", "runvault key export", "nobody can reset it"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(!made.stderr.contains("warning"), "{}", made.stderr);
}

fn ls(scratch: &Scratch, pass: &str) -> Outcome {
    scratch.run(&["ls", "--passphrase-file", pass, "store"])
}

#[test]
fn a_locked_vault_opens_by_its_passphrase_alone() {
    let scratch = Scratch::new();
    locked(&scratch);
    ls(&scratch, "pass").done();
    let before = snapshot(&scratch.path(""));
    let wrong = ls(&scratch, "other");
    wrong.refused(3, "the passphrase does not open the key of");
    let at = scratch.folder("mnt");
    for args in [
        &["check", "store"][..],
        &["passwd", "store"],
        &["custody", "rotate", "store"],
        &["cp", "pass", "store:/file"],
        &["mount", "store", text(&at)],
    ] {
        let refused = scratch.run(&[args, &["--passphrase-file", "other"]].concat());
        refused.refused(3, "the passphrase does not open the key of");
    }
    let after = snapshot(&scratch.path(""));
    let new: Vec<_> = after.iter().filter(|file| !before.contains(file)).map(|(name, _)| name).collect();
    assert!(after == before, "a wrong passphrase writes nothing, anywhere: {new:?}");
    // By file descriptor.
    let mut command = scratch.command(&["ls", "--passphrase-fd", "0", "store"]);
    command.stdin(std::fs::File::open(scratch.path("pass")).unwrap());
    Outcome::of(command).done();
    // By systemd's credential.
    let folder = scratch.folder("credentials");
    std::fs::copy(scratch.path("pass"), folder.join("runvault.passphrase")).unwrap();
    let mut command = scratch.command(&["ls", "store"]);
    command.env("CREDENTIALS_DIRECTORY", &folder);
    Outcome::of(command).done();
    scratch.run(&["ls", "store"]).refused(2, "no terminal");
}

#[test]
fn a_refusal_names_the_option_or_the_file_that_is_missing() {
    let scratch = Scratch::new();
    scratch.vault();
    let new = "name a file that holds it: --new-passphrase-file FILE";
    scratch.run(&["passwd", "--identity", "owner.key", "store"]).refused(2, new);
    scratch.run(&["key", "relock", "owner.key", "--lock", "passphrase"]).refused(2, new);
    scratch
        .run(&["keygen", "--out", "new.key"])
        .refused(2, "name a file that holds it: --passphrase-file FILE");
    for command in [&["ls", "store"][..], &["mount", "store", text(&scratch.folder("mnt"))]] {
        scratch
            .run(&[command, &["--identity", "gone.key"]].concat())
            .refused(2, "gone.key: No such file")
            .refused(2, "name that file where it is");
    }
}

#[test]
fn the_fingerprint_is_what_init_said_and_its_last_line_is_the_vaults_id() {
    let scratch = Scratch::new();
    let made = scratch.run(&["init", "--no-lock", "--identity", "owner.key", "store"]);
    let said = made.done().out();
    let printed = scratch.run(&["fingerprint", "store"]);
    let printed = printed.done().out();
    let [words, id] = printed.lines().collect::<Vec<_>>()[..] else { panic!("{printed}") };
    assert!(said.contains(words) && said.contains(id), "{said} {printed}");
    assert_eq!((words.split(' ').count(), id.len()), (12, 64));
    assert!(scratch.run(&["status", "store"]).done().out().starts_with("mounted at  nowhere here\n"));
    scratch.folder("other");
    scratch.run(&["fingerprint", "other"]).refused(1, "");
    let genesis = scratch.path("store/custody/genesis");
    let mut bytes = std::fs::read(&genesis).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&genesis, bytes).unwrap();
    let damaged = scratch.run(&["fingerprint", "store"]);
    assert!(damaged.refused(4, "genesis").out().is_empty(), "{}", damaged.all());
}

#[test]
fn a_wrong_key_is_exit_3_and_writes_nothing() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    let before = snapshot(&store);
    let owner = key_files::read(&scratch.path("owner.key"), false).unwrap();
    let needed = format!("needed is \"owner\" ({})", owner.id());
    scratch.run(&["init", "--no-lock", "--identity", "stranger.key", "elsewhere"]).done();
    for command in ["ls", "check", "passwd"] {
        scratch.run(&[command, "--identity", "stranger.key", "store"]).refused(3, &needed);
    }
    scratch.run(&["custody", "rotate", "--identity", "stranger.key", "store"]).refused(3, &needed);
    scratch.run(&["cp", "--identity", "stranger.key", "owner.key", "store:/x"]).refused(3, &needed);
    let at = scratch.folder("mnt");
    let mount = ["mount", "--identity", "stranger.key", "store", text(&at)];
    scratch.run(&mount).refused(3, &needed);
    assert_eq!(snapshot(&store), before);
    // The key is outside the store: without it nobody can be asked.
    scratch.run(&["ls", "store"]).refused(2, "--identity");
}

#[test]
fn init_refuses_what_is_not_empty_and_a_key_file_in_the_way() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    let before = snapshot(&store);
    let key = std::fs::read(scratch.path("owner.key")).unwrap();
    let init = |key: &str, store: &str| scratch.run(&["init", "--no-lock", "--identity", key, store]);
    init("second.key", "store").refused(1, "is a vault already");
    init("owner.key", "second").refused(2, "never overwritten");
    init("store/owner.key", "store").refused(1, "is a vault already");
    init("fresh/owner.key", "fresh").refused(2, "");
    scratch.secret("full.txt", "x");
    scratch.folder("full/x");
    init("third.key", "full").refused(1, "not empty");
    assert_eq!(snapshot(&store), before);
    assert_eq!(std::fs::read(scratch.path("owner.key")).unwrap(), key);
    assert!(!scratch.path("second.key").exists() && !scratch.path("third.key").exists());
    assert_eq!(std::fs::metadata(scratch.path("owner.key")).unwrap().mode() & 0o7777, 0o600);
    scratch.run(&["init", "--no-lock", "unlocked"]).refused(2, "--identity");
}

/// The key file that `init` makes: its lock's costs, its mode.
fn assert_locked_at_full_cost(key: &Path) {
    assert_eq!(std::fs::metadata(key).unwrap().mode() & 0o7777, 0o600);
    let file = KeyFile::parse(&std::fs::read(key).unwrap()).unwrap();
    assert!(matches!(file.lock, Lock::Argon2id { m_kib: 262_144, t: 3, p: 4, .. }), "{:?}", file.lock);
}

#[test]
fn a_lock_costs_what_the_default_says() {
    let scratch = Scratch::new();
    locked(&scratch);
    for copy in ["owner-0", "owner-1"] {
        assert_locked_at_full_cost(&scratch.path("store/custody/locks").join(copy));
    }
}

#[test]
fn a_key_outside_the_store_may_be_locked() {
    let scratch = Scratch::new();
    let pass = ["--passphrase-file", "pass"];
    scratch.secret("pass", STRONG);
    scratch.run(&[&["init", "--identity", "outside.key", "store"], &pass[..]].concat()).done();
    assert_locked_at_full_cost(&scratch.path("outside.key"));
    assert_eq!(std::fs::read_dir(scratch.path("store/custody/locks")).unwrap().count(), 0);
    let ls = |more: &[&str]| scratch.run(&[&["ls", "store"], more].concat());
    ls(&[&["--identity", "outside.key"], &pass[..]].concat()).done();
    ls(&["--identity", "outside.key"]).refused(2, "no terminal");
    ls(&pass).refused(2, "--identity");
}

/// Who names a passphrase believes that the key file has a lock.
#[test]
fn a_passphrase_for_a_key_that_is_not_locked_is_said_to_be_needless() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.secret("pass", STRONG);
    let ls = |more: &[&str]| scratch.run(&[&["ls", "store", "--identity", "owner.key"], more].concat());
    let told = ls(&["--passphrase-file", "pass"]);
    assert!(told.done().stderr.contains("warning: the key file is not locked"), "{}", told.stderr);
    assert!(ls(&[]).done().stderr.is_empty());
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_its_mode() {
    let scratch = Scratch::new();
    scratch.vault();
    let key = scratch.path("owner.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let refused = scratch.run(&["ls", "--identity", "owner.key", "store"]);
    refused.refused(2, "0640").refused(2, "chmod 600 owner.key");
    assert_eq!(refused.stderr.matches("chmod").count(), 1, "one way out: {}", refused.stderr);
    scratch.run(&["ls", "--identity", "owner.key", "--allow-readable-secret", "store"]).done();
}

#[test]
fn a_weak_passphrase_is_warned_about() {
    let scratch = Scratch::new();
    scratch.secret("weak", "sequencer1");
    let made = scratch.run(&["init", "--passphrase-file", "weak", "store"]);
    assert!(made.done().stderr.contains("bits"), "{}", made.stderr);
    // A key that lies in no store.
    let made = scratch.run(&["keygen", "--passphrase-file", "weak", "--out", "alice.key"]);
    assert!(made.done().stderr.contains("whoever copies the key file"), "{}", made.stderr);
}

#[test]
fn the_exported_key_opens_the_vault_and_keeps_its_passphrase() {
    let scratch = Scratch::new();
    locked(&scratch);
    scratch.run(&["key", "export", "store", "--out", "copy.key"]).done();
    assert_eq!(std::fs::metadata(scratch.path("copy.key")).unwrap().mode() & 0o7777, 0o600);
    scratch.run(&["key", "export", "store", "--out", "copy.key"]).refused(2, "never overwritten");
    let change = ["passwd", "--passphrase-file", "pass", "--new-passphrase-file", "other", "store"];
    scratch.run(&["cp", "--passphrase-file", "pass", "pass", "store:/file"]).done();
    let others = || -> Vec<_> {
        let files = snapshot(&scratch.path("store")).into_iter();
        files.filter(|(name, _)| !name.starts_with("custody/locks/")).collect()
    };
    let before = others();
    let changed = scratch.run(&change);
    assert!(changed.done().out().contains("the old passphrase still opens everything"), "{}", changed.all());
    assert!(others() == before, "nothing but the locked key changes");
    ls(&scratch, "pass").refused(3, "");
    ls(&scratch, "other").done();
    let copy = |pass| scratch.run(&["ls", "--identity", "copy.key", "--passphrase-file", pass, "store"]);
    copy("pass").done();
    copy("other").refused(3, "");
    let change = [&["passwd", "--identity", "copy.key"], &change[1..]].concat();
    scratch.run(&change).done();
    copy("other").done();
    copy("pass").refused(3, "");
}

#[test]
fn of_two_new_passphrases_at_once_one_counts_and_the_other_is_told() {
    let scratch = Scratch::new();
    locked(&scratch);
    scratch.secret("third", "seven quite different words for a third lock");
    let start = |new| {
        let args = ["passwd", "--passphrase-file", "pass", "--new-passphrase-file", new, "store"];
        let mut command = scratch.command(&args);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = ["other", "third"].map(|new| (new, start(new)));
    let ended = both.map(|(new, child)| (new, child.wait_with_output().unwrap()));
    let won: Vec<&str> = ended.iter().filter(|(_, end)| end.status.success()).map(|(new, _)| *new).collect();
    let [won] = won[..] else { panic!("{ended:?}") };
    for (new, end) in &ended {
        ls(&scratch, new).refused(if *new == won { 0 } else { 3 }, "");
        // A machine that is busy enough runs one after the other: then the old passphrase is wrong.
        assert!(*new == won || matches!(end.status.code(), Some(5 | 3)), "{end:?}");
    }
}

#[test]
fn a_key_file_is_locked_anew_where_its_link_leads() {
    let scratch = Scratch::new();
    scratch.secret("pass", STRONG);
    scratch.secret("other", OTHER);
    let key = ["--identity", "link.key"];
    scratch.run(&["init", "--identity", "owner.key", "--passphrase-file", "pass", "store"]).done();
    std::os::unix::fs::symlink("owner.key", scratch.path("link.key")).unwrap();
    std::fs::hard_link(scratch.path("owner.key"), scratch.path("same.key")).unwrap();
    let passwd =
        [&["passwd", "--passphrase-file", "pass", "--new-passphrase-file", "other"], &key[..], &["store"]]
            .concat();
    scratch.run(&passwd).refused(2, "it has 2 names (hard links)");
    std::fs::remove_file(scratch.path("same.key")).unwrap();
    scratch.run(&passwd).done();
    assert!(std::fs::symlink_metadata(scratch.path("link.key")).unwrap().is_symlink());
    let ls = |pass| scratch.run(&["ls", "--identity", "owner.key", "--passphrase-file", pass, "store"]);
    ls("other").done();
    ls("pass").refused(3, "");
}

#[test]
fn an_older_custody_is_refused_until_a_person_names_where_it_ends() {
    let scratch = Scratch::new();
    scratch.vault();
    let custody = scratch.path("store/custody");
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for (name, bytes) in snapshot(from) {
            std::fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
            std::fs::write(to.join(&name), bytes).unwrap();
        }
    };
    copy(&custody, &scratch.path("backup"));
    let rotate = scratch.run(&["custody", "rotate", "--identity", "owner.key", "store"]);
    rotate.done();
    std::fs::remove_dir_all(&custody).unwrap();
    copy(&scratch.path("backup"), &custody);
    let ls = |more: &[&str]| scratch.run(&[&["ls", "--identity", "owner.key"], more, &["store"]].concat());
    let refused = ls(&[]);
    refused.refused(4, "rolled back to line 0").refused(4, "--accept-rollback 0");
    ls(&["--accept-rollback", "1"]).refused(4, "rolled back");
    let accepted = ls(&["--accept-rollback", "0"]);
    assert!(accepted.done().stderr.contains("is undone"), "{}", accepted.stderr);
    ls(&[]).done();
    scratch.run(&["custody", "rotate", "--identity", "owner.key", "store"]).done();
    ls(&["--accept-rollback", "0"]).done();
}

/// The new key has the number of the one that was lost with custody/, and so has its envelope.
#[test]
fn a_rotation_over_an_older_custody_names_what_it_leaves_and_the_writer_mends_it() {
    let scratch = Scratch::new();
    let identity = ["--identity", "owner.key"];
    let run = |args: &[&str]| scratch.run(&[args, &identity].concat());
    scratch.vault();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    run(&["cp", "-r", "run", "store:/"]).done();
    let (custody, older) = (scratch.path("store/custody"), scratch.path("older"));
    let copy = |from: &Path, to: &Path| {
        let status = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
        assert!(status.success());
    };
    copy(&custody, &older);
    run(&["custody", "rotate", "store"]).done();
    std::fs::remove_dir_all(&custody).unwrap();
    copy(&older, &custody);
    let rotated = run(&["custody", "rotate", "--accept-rollback", "1", "store"]);
    rotated
        .refused(4, "none of its envelopes opens to its key")
        .refused(4, "1 run could not be sealed to the new key")
        .refused(4, "mount the store again on the machine that writes the run");
    let resumed = run(&["custody", "rotate", "--resume", "store"]);
    resumed.refused(4, "none of its envelopes opens to its key");
    assert!(!resumed.out().contains("finished"), "{}", resumed.all());
    let checked = run(&["check", "store"]);
    assert!(checked.refused(4, "").out().contains("the envelope does not open"), "{}", checked.all());
    // Its writer has the run's key still.
    run(&["cp", "owner.key", "store:/run/new"]).done();
    run(&["check", "store"]).done();
    run(&["custody", "rotate", "--resume", "store"]).done();
    std::fs::remove_dir_all(scratch.path("state")).unwrap();
    run(&["cat", "store", "run/new"]).done();
}

#[test]
fn no_secret_is_printed_or_stored() {
    let scratch = Scratch::new();
    locked(&scratch);
    let change = ["passwd", "--passphrase-file", "pass", "--new-passphrase-file", "other", "store"];
    let outputs = [ls(&scratch, "other"), scratch.run(&change)];
    for outcome in &outputs {
        assert!(!outcome.all().contains(STRONG) && !outcome.all().contains(OTHER), "{}", outcome.all());
    }
    for (name, bytes) in snapshot(scratch.path("").as_path()) {
        let own = ["pass", "other"].contains(&name.as_str());
        assert!(own || !holds(&bytes, STRONG) && !holds(&bytes, OTHER), "{name}");
    }
}

/// Every file below a folder, by its path.
fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// As a user who may lock nothing: it goes on, and says so once.
#[test]
fn keys_that_could_not_be_locked_in_memory_are_told_once() {
    let scratch = Scratch::new();
    let program = scratch.command(&["keygen", "--no-lock", "--out", "a.key"]);
    let mut command = Command::new("setpriv");
    // Root locks what it wants, unless that right is taken.
    let unprivileged = ["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"];
    let root = rustix::process::geteuid().is_root();
    command.args(unprivileged.iter().filter(|_| root));
    command.args(["--", "prlimit", "--memlock=0:0"]).arg(program.get_program()).args(program.get_args());
    let said = Outcome::of({
        command.current_dir(scratch.path(""));
        command
    });
    let warned = said.done().stderr.matches("keys could not be locked in memory").count();
    assert!(warned == 1 && said.stderr.contains("LimitMEMLOCK="), "{}", said.stderr);
    let other = scratch.run(&["keygen", "--no-lock", "--out", "b.key"]);
    assert!(!other.done().stderr.contains("locked in memory"), "{}", other.stderr);
}
