//! Row "a memory dump or a swap file": what a command leaves in its memory, at its very last system call.

use std::path::Path;
use std::process::Command;

use runvault_crypto::envelope::KemPrivate;
use runvault_crypto::secrets::Secret;
use runvault_crypto::sharing;
use runvault_format::custody_state::State;
use runvault_format::envelope_file;
use runvault_format::info::{Purpose, Recipient, Scope, info};
use runvault_format::key_file::KeyFile;
use runvault_tests::site::detach;
use runvault_tests::tools::{root_for, run, runvault};
use runvault_tests::traced::{Image, traced};

use crate::shares::{point, share_of};
use crate::vault::{CONTENT, FILE, SEALED, Vault};

/// What the key files hold: the seed, from which everything of an identity follows.
fn seed(vault: &Vault, file: &str) -> Secret<32> {
    let file = KeyFile::parse(&vault.read(file)).expect("a key file");
    file.open(&Secret::from_fn(|zeros| zeros.fill(0))).expect("no lock")
}

pub fn vault_key(vault: &Vault, state: &State) -> Secret<32> {
    let points = ["alice", "bob"].map(|who| point(vault, state, who));
    sharing::combine(2, &points).expect("a key")
}

pub fn run_key(vault: &Vault, key: &Secret<32>, e: u32) -> Secret<32> {
    let run = vault.run_id(SEALED);
    let text =
        info(Purpose::RunKey, &vault.id(), &Scope::Run(run.parse().expect("an id")), &Recipient::Epoch(e));
    let envelope = vault.read(&format!("store/runs/{run}/keys/vault-{e}"));
    let key = KemPrivate::from_seed(key).expect("a key");
    envelope_file::secret_of(&envelope_file::open(&key, &text, &envelope).expect("it opens"))
        .expect("32 bytes")
}

/// Traces a command line, whose arguments hold no spaces: each secret was there before, the control (where random bytes
/// are drawn, as for an envelope, and where a file comes under its name), and none is at the end, which it gives.
#[track_caller]
fn gone(vault: &Vault, line: &str, secrets: &[(&str, &Secret<32>)]) -> Image {
    let mut command = Command::new(runvault());
    command.args(line.split(' ')).current_dir(vault.path("")).env_clear().env("HOME", vault.path(""));
    let mut there = vec![false; secrets.len()];
    let calls = [libc::SYS_getrandom, libc::SYS_linkat, libc::SYS_renameat2];
    let (code, last) = traced(&mut command, &calls, &mut |image| {
        for (there, (_, secret)) in there.iter_mut().zip(secrets) {
            *there = *there || image.holds(secret.expose());
        }
    });
    assert_eq!(code, 0, "{line}");
    assert!(last.size() > 1 << 17, "an image has a heap and a stack");
    for (there, (what, secret)) in there.iter().zip(secrets) {
        assert!(there, "the control: {what}");
        assert!(!last.holds(secret.expose()), "{what} is left");
    }
    last
}

#[test]
fn nothing_of_a_key_or_share_is_left_after_an_approval() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    vault.propose("rotate", "req");
    let share = share_of(&vault, &vault.state(), "alice");
    let secrets = [("the key's seed", &seed(&vault, "alice.key")), ("the share", &share)];
    gone(&vault, "custody approve req.req --identity alice.key --out alice.ok --yes", &secrets);
}

#[test]
fn nothing_of_a_key_or_share_is_left_after_a_drill() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    let (own, share) = (seed(&vault, "carol.key"), share_of(&vault, &vault.state(), "carol"));
    // The control for the share, which a drill opens and drops without a system call in between.
    vault.propose("rotate", "req");
    let approve = "custody approve req.req --identity carol.key --out carol.ok --yes";
    gone(&vault, approve, &[("the share", &share)]);
    let last =
        gone(&vault, "custody confirm store --identity carol.key --state state", &[("the key's seed", &own)]);
    assert!(!last.holds(share.expose()), "the share is left");
}

/// The machine that executes: the vault keys of before and after, the shares, a run's key.
#[test]
fn nothing_of_any_key_is_left_after_an_execution() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    let grant = format!("grant {} lab", vault.run_id(SEALED));
    for (what, of_run) in [(grant.as_str(), true), ("rotate", false)] {
        vault.propose(what, "req");
        ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
        let (before, executor) = (vault.state(), seed(&vault, "req.req.executor"));
        let old = vault_key(&vault, &before);
        let key_of_run = run_key(&vault, &old, 2);
        // A rotation opens runs on threads of their own.
        let secrets = [
            ("the executor's seed", &executor),
            ("the vault key before", &old),
            ("a run's key", &key_of_run),
        ];
        let controlled = if of_run { &secrets[..] } else { &secrets[..2] };
        let line =
            "custody execute store req.req --approval alice.req.ok --approval bob.req.ok --state state";
        let last = gone(&vault, line, controlled);
        assert!(!last.holds(key_of_run.expose()), "{what}");
        assert!(!last.holds(vault_key(&vault, &vault.state()).expose()), "{what}");
        for who in ["alice", "bob", "carol"] {
            for state in [&before, &vault.state()] {
                assert!(!last.holds(share_of(&vault, state, who).expose()), "{what}: {who}'s share");
            }
        }
    }
}

/// The machine that recovers: the seeds, the shares, the vault key, and that of each run.
#[test]
fn nothing_of_any_key_is_left_after_a_recovery() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    let state = vault.state();
    let key = vault_key(&vault, &state);
    let (alice, bob, of_run) = (seed(&vault, "alice.key"), seed(&vault, "bob.key"), run_key(&vault, &key, 2));
    std::fs::remove_dir_all(vault.path("store/custody")).expect("custody/ is lost");
    let line = "custody recover store --identity alice.key --identity bob.key --state new";
    let last = gone(&vault, line, &[("alice's seed", &alice), ("bob's seed", &bob), ("the vault key", &key)]);
    for secret in [of_run, share_of(&vault, &state, "alice"), share_of(&vault, &state, "bob")] {
        assert!(!last.holds(secret.expose()));
    }
}

/// Whoever does the work of a re-keying: the worker's seed, the run's keys of before and after, what the run holds.
#[test]
fn nothing_of_a_key_or_of_the_run_is_left_after_a_rekeying() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    let key = vault_key(&vault, &vault.state());
    let before = run_key(&vault, &key, 2);
    let content = CONTENT.as_bytes().first_chunk::<16>().expect("16 bytes");
    let mut shown = Command::new(runvault());
    shown.args(["cat", "--identity", "guest.key", "--state", "state", "store", &format!("{SEALED}/{FILE}")]);
    shown.current_dir(vault.path("")).env_clear().env("HOME", vault.path(""));
    let mut there = false;
    traced(&mut shown, &[libc::SYS_write], &mut |image| there |= image.holds(content));
    assert!(there, "the control, of one that shows it: a file's content");
    vault.agree(&format!("rekey {}", vault.run_id(SEALED)));
    let worker = seed(&vault, "req.req.worker");
    let line = "rekey store --identity req.req.worker --state state --grace 0s";
    let last = gone(&vault, line, &[("the worker's seed", &worker), ("the run's key before", &before)]);
    assert!(!last.holds(run_key(&vault, &key, 2).expose()), "the run's key after");
    let left = last.places(content);
    assert!(left.is_empty(), "{left:#?}");
}

/// One owner, whose command is all three steps.
#[test]
fn nothing_of_a_key_is_left_after_an_owners_act() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    vault.done("init own --no-lock --identity owner.key");
    let owner = seed(&vault, "owner.key");
    gone(&vault, "custody rotate own --identity owner.key --state state", &[("the owner's seed", &owner)]);
}

/// A reader's mount that has ended.
#[test]
fn nothing_of_a_readers_mount_is_left_when_it_ends() {
    if !root_for("reading another process's memory") {
        return;
    }
    let vault = Vault::new();
    let (at, key) = (vault.path("mnt"), seed(&vault, "guest.key"));
    let of_run = run_key(&vault, &vault_key(&vault, &vault.state()), 2);
    std::fs::create_dir(&at).expect("a mount point");
    let mut command = Command::new(runvault());
    command.args(["mount", "-f", "--identity", "guest.key", "--state", "state", "store"]).arg(&at);
    command.current_dir(vault.path("")).env("HOME", vault.path(""));
    let (code, last) = std::thread::scope(|scope| {
        let _end = Detached(&at);
        let mount = scope.spawn(|| traced(&mut command, &[], &mut drop));
        let file = at.join(SEALED).join(FILE);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while std::fs::read_to_string(&file).ok().as_deref() != Some(CONTENT) {
            assert!(std::time::Instant::now() < until && !mount.is_finished(), "it does not mount");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = pid_of(&at);
        let live = Image::of(pid);
        // The seed is of no use any more once keys were made of it.
        assert!(live.holds(of_run.expose()), "the control: the run's key");
        assert!(live.holds(FILE.as_bytes()), "the control: a name");
        run(Command::new(runvault()).arg("unmount").arg(&at));
        mount.join().expect("the tracer")
    });
    assert_eq!(code, 0);
    for (what, bytes) in [
        ("the key's seed", &key.expose()[..]),
        ("the run's key", of_run.expose()),
        ("a name", FILE.as_bytes()),
        ("contents", &CONTENT.as_bytes()[..20]),
    ] {
        assert!(!last.holds(bytes), "{what} is left");
    }
}

/// Lets the mount go also when the test fails, which else would wait for it.
struct Detached<'a>(&'a Path);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        detach(self.0);
    }
}

/// The process that was told to mount there.
fn pid_of(at: &Path) -> u32 {
    let at = at.to_str().expect("a path").as_bytes();
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let arguments = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.find(|pid| arguments(pid).split(|byte| *byte == 0).any(|one| one == at))
        .expect("the mount's process")
}
