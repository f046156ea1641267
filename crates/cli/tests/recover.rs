//! `custody recover`, a custody/ that lies elsewhere, runs that a quorum retires, and what a lost key opened.

use std::fs;

use crate::common::agreeing::{agree, confirm, enroll, run, vault};
use crate::common::{Outcome, STRONG, Scratch};
use serde_json::Value;

/// A gateway is let in, and a reader of all that is made; a run.
fn with_a_run(scratch: &Scratch, reader: &str) -> String {
    enroll(scratch, "novaseq");
    agree(scratch, &format!("add-reader {reader}={reader}.key.pub --standing"), ["alice", "bob"]);
    a_run(scratch, "run", reader);
    scratch.runs().remove(0)
}

fn a_run(scratch: &Scratch, name: &str, reader: &str) {
    scratch.folder(name);
    scratch.secret(&format!("{name}/RunInfo.xml"), "<RunInfo/>\n");
    run(scratch, &format!("cp -r {name} store:/ --identity {reader}.key")).done();
}

#[test]
fn two_key_files_make_a_lost_custody_anew() {
    let scratch = vault(&["alice", "bob", "carol", "lab"]);
    confirm(&scratch, &["bob"]);
    with_a_run(&scratch, "lab");
    // Under a passphrase, and with a copy of custody/ as it is now.
    scratch.secret("pass", STRONG);
    scratch.secret("old", "");
    scratch.lock_cheaply("alice.key");
    run(&scratch, "custody confirm store --identity alice.key --passphrase-file pass").done();
    fs::rename(scratch.path("store/custody"), scratch.path("lost")).unwrap();
    run(&scratch, "ls store --identity lab.key")
        .refused(4, "custody/ is not in the store")
        .refused(4, "--custody DIR")
        .refused(4, "custody recover");

    let recover = "custody recover store --identity alice.key --passphrase-file pass";
    run(&scratch, recover).refused(1, "1 of the 2 keys");
    run(&scratch, &format!("{recover} --identity carol.key --identity carol.key"))
        .refused(2, "is there twice");
    run(&scratch, &format!("{recover} --identity lab.key")).refused(3, "wrong key");
    run(&scratch, "custody recover store --identity carol.key --identity lab.key").refused(1, "keeps a copy");
    assert!(!scratch.path("store/custody").exists());
    // Bob's drill was before the others' acts: it counts all the same.
    let said = run(&scratch, &format!("{recover} --identity bob.key --reason burnt")).done().out();
    assert!(said.contains("\"alice\"") && said.contains("(line 2)") && said.contains("(line 0)"), "{said}");
    assert!(said.contains("1 run done"), "{said}");
    for line in ["state-0", "state-1", "state-2", "genesis"] {
        let of = |folder: &str| fs::read(scratch.path(folder).join(line)).unwrap();
        assert_eq!(of("store/custody"), of("lost"), "{line}");
    }
    run(&scratch, "custody recover store --identity alice.key").refused(1, "custody/ is there");
    let trail = run(&scratch, "audit show store").done().out();
    assert!(trail.contains("made anew") && trail.contains("why: burnt"), "{trail}");
    run(&scratch, "cat store run/RunInfo.xml --identity lab.key").done();
    run(&scratch, "custody confirm store --identity alice.key --passphrase-file pass").done();
    confirm(&scratch, &["bob", "carol"]);
    agree(&scratch, "rotate", ["carol", "bob"]);
    a_run(&scratch, "second", "lab");

    // This machine saw what is lost with it; the runs were sealed to the lost key alone, and stay as they are.
    fs::rename(scratch.path("store/custody"), scratch.path("newer")).unwrap();
    let again = format!("{recover} --identity bob.key");
    run(&scratch, &again).refused(4, "has seen line 4 of the audit log").refused(4, "--accept-rollback 3");
    assert!(!scratch.path("store/custody").exists());
    run(&scratch, &format!("{again} --accept-rollback 3"))
        .refused(4, "has seen line 4 of the audit log")
        .refused(4, "rolled back to line 3")
        .refused(4, "accepted by --accept-rollback 3")
        .refused(4, "no envelope to a key of this vault")
        .refused(4, "move custody/ away, keep it");
    let noted = fs::read_dir(scratch.path("state")).unwrap().next().unwrap().unwrap().path();
    let noted = fs::read_to_string(noted.join("rollbacks")).unwrap();
    assert!(noted.contains("/run.json, signed by"), "{noted}");
    // One that saw the other line 4 is told why this is another one.
    fs::rename(scratch.path("store/custody"), scratch.path("anew")).unwrap();
    fs::rename(scratch.path("newer"), scratch.path("store/custody")).unwrap();
    run(&scratch, "custody list store --state elsewhere").done();
    fs::rename(scratch.path("store/custody"), scratch.path("newer")).unwrap();
    fs::rename(scratch.path("anew"), scratch.path("store/custody")).unwrap();
    run(&scratch, "custody list store --state elsewhere")
        .refused(4, "forked at line 4")
        .refused(4, "was made anew from key files by line 4");
    run(&scratch, "custody list store --state elsewhere --accept-rollback 4").done();
}

#[test]
fn an_owner_s_exported_key_file_is_enough() {
    let scratch = Scratch::new();
    scratch.vault_with_a_lock();
    fs::remove_file(scratch.path("owner.key")).unwrap();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, "cp -r run store:/ --passphrase-file pass").done();
    run(&scratch, "seal store run").done();
    let said = run(&scratch, "key export store --out owner.key").done().out();
    assert!(said.contains("up to line 1") && said.contains("in clear"), "{said}");
    let said = run(&scratch, "key show owner.key").done().out();
    assert!(said.contains("a copy, up to line 1"), "{said}");
    let said = run(&scratch, "key show owner.key --json").done().out();
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["copy_line"], 1);
    scratch.folder("empty");
    for nothing in ["empty", "none"] {
        run(&scratch, &format!("custody recover {nothing} --identity owner.key"))
            .refused(1, "put runs/ of the store back first");
    }
    fs::remove_dir_all(scratch.path("store/custody")).unwrap();
    fs::remove_file(scratch.path("store/vault.json")).unwrap();
    // Whoever has the disk can put that there; nobody signed it.
    let made = scratch.runs().remove(0);
    let keys = |run: &str| scratch.path("store/runs").join(run).join("keys");
    fs::write(keys(&made).join("vault-77"), "").unwrap();
    let recover = "custody recover store --identity owner.key --passphrase-fd 0 --key-in-store --json";
    let mut recover = scratch.command(&recover.split(' ').collect::<Vec<_>>());
    recover.stdin(fs::File::open(scratch.path("pass")).unwrap());
    let said = Outcome::of(recover);
    said.refused(0, "keys/vault-77 has seen vault key 77")
        .refused(0, "Nobody whom the copies know signed that");
    let said: Value = serde_json::from_str(&said.done().out()).unwrap();
    assert_eq!((&said["line"], &said["already"]), (&2.into(), &1.into()));
    fs::remove_file(keys(&made).join("vault-77")).unwrap();
    run(&scratch, "cat store run/RunInfo.xml --passphrase-file pass").done();
    // Lines that said for whom an envelope is may be lost, of runs that were made before that.
    fs::rename(scratch.path("run"), scratch.path("since")).unwrap();
    run(&scratch, "cp -r since store:/ --passphrase-file pass").done();
    run(&scratch, "seal store since").done();
    let since = scratch.runs().into_iter().find(|one| *one != made).unwrap();
    let planted = format!("reader-{}", "7".repeat(32));
    for run in [&made, &since] {
        fs::copy(keys(run).join("vault-1"), keys(run).join(&planted)).unwrap();
    }
    let added = format!("runs/{since}/keys/{planted}: added: it was not sealed\n");
    assert_eq!(run(&scratch, "scrub store").refused(4, "1 finding").out(), added);
    fs::remove_file(keys(&since).join(&planted)).unwrap();
    run(&scratch, "custody rotate store --passphrase-file pass").done();
}

#[test]
fn a_store_lives_apart_from_its_custody() {
    let scratch = Scratch::new();
    scratch.folder("keys/used");
    scratch.secret("keys/used/x", "");
    let init = "init store --no-lock --identity owner.key --custody";
    run(&scratch, &format!("{init} keys/used")).refused(1, "not an empty directory");
    run(&scratch, &format!("{init} none/clinic")).refused(1, "no such directory");
    let said = run(&scratch, &format!("{init} keys/clinic")).done().out();
    assert!(said.contains("needs --custody /") && said.contains("/keys/clinic"), "{said}");
    let said =
        run(&scratch, "init json --no-lock --identity json.key --custody keys/json --json").done().out();
    let at = serde_json::from_str::<Value>(&said).unwrap()["custody"].as_str().unwrap().to_owned();
    assert!(at.ends_with("/keys/json"), "{at}");
    scratch.secret("pass", STRONG);
    let said = run(&scratch, "init locked --passphrase-file pass --custody keys/locked").done().out();
    let export = said.lines().find_map(|line| line.trim().strip_prefix("runvault key export ")).unwrap();
    run(&scratch, &format!("key export {}", export.replace("owner.key", "locked.key"))).done();
    assert!(!scratch.path("store/custody").exists());
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, "cp -r run store:/ --identity owner.key").refused(4, "--custody DIR");
    let apart = "--custody keys/clinic";
    let by = format!("{apart} --identity owner.key");
    run(&scratch, &format!("cp -r run store:/ {by}")).done();
    run(&scratch, &format!("custody rotate store {by}")).done();
    for command in ["ls store", "check store", "runs store", "doctor store", "custody confirm store"] {
        run(&scratch, &format!("{command} {by}")).done();
    }
    for command in
        ["fingerprint store", "custody list store", "audit verify store", "status store", "scrub store"]
    {
        run(&scratch, &format!("{command} {apart}")).done();
    }
    // What is about to be agreed on, as the store has it.
    let id = scratch.runs().remove(0);
    run(&scratch, &format!("custody propose store retire {id} {apart} --out req")).done();
    let shown = run(&scratch, &format!("custody show req --store store {apart} --state state")).done().out();
    let (_, there) = shown.split_once("In the store store:\n").expect("what is there");
    assert!(there.starts_with(&format!("  {id}: of gateway ")) && there.contains(", not sealed"), "{there}");
    run(&scratch, &format!("custody show req {apart}")).refused(2, "--store");
    run(&scratch, &format!("custody propose store rotate {apart} --out none")).done();
    let shown = run(&scratch, &format!("custody show none --store store {apart}")).done().out();
    assert!(!shown.contains("In the store"), "it is about no run: {shown}");
    run(&scratch, "cp store:/run/RunInfo.xml out.xml --from-custody keys/clinic --identity owner.key").done();
    assert_eq!(fs::read_to_string(scratch.path("out.xml")).unwrap(), "<RunInfo/>\n");
    // Another vault's is refused.
    run(&scratch, "init other --no-lock --identity other.key").done();
    run(&scratch, "ls store --custody other/custody --identity owner.key")
        .refused(4, "names vault")
        .refused(4, "Where it is given, --custody may name another vault's");
    // Lost, it is made anew where it was; a link leads there as well.
    fs::remove_dir_all(scratch.path("keys/clinic")).unwrap();
    run(&scratch, &format!("custody recover store {by}")).done();
    std::os::unix::fs::symlink(scratch.path("keys/clinic"), scratch.path("link")).unwrap();
    run(&scratch, "ls store --custody link --identity owner.key").done();
}

#[test]
fn runs_are_retired_by_a_quorum_and_by_an_owner_who_grows_into_one() {
    let scratch = vault(&["alice", "bob", "carol", "lab"]);
    confirm(&scratch, &["alice", "bob"]);
    let id = with_a_run(&scratch, "lab");
    a_run(&scratch, "second", "lab");
    run(&scratch, &format!("retire store {id} --identity alice.key"))
        .refused(1, "custody propose store retire");
    run(&scratch, "custody propose store retire 00000000000000000000000000000000 --out x")
        .refused(1, "no run");
    let said = agree(&scratch, &format!("retire {id} --reason tape"), ["alice", "carol"]);
    assert!(said.contains("1 run is not missed any more"), "{said}");
    fs::rename(scratch.path("store/runs").join(&id), scratch.path("tape")).unwrap();
    run(&scratch, "scrub store").done();
    run(&scratch, "ls store --identity lab.key").done();
    let trail = run(&scratch, "audit show store").done().out();
    assert!(trail.contains(&format!("{id}, number 1 of gateway")), "{trail}");

    let owner = Scratch::new();
    owner.vault();
    for name in ["first", "second"] {
        a_run(&owner, name, "owner");
    }
    run(&owner, "retire store first --identity owner.key").done();
    let gone = fs::read_dir(owner.path("store/retired")).unwrap().next().unwrap().unwrap().file_name();
    let gone = gone.into_string().unwrap();
    fs::rename(owner.path("store/runs").join(&gone), owner.path("tape")).unwrap();
    run(&owner, "keygen --out bob.key --no-lock").done();
    run(&owner, "custody add-custodian store bob=bob.key.pub --identity owner.key").done();
    let quorum = "custody quorum store 2 --unconfirmed --identity owner.key";
    run(&owner, quorum).refused(1, "was retired by one").refused(1, &format!("custody retire store {gone}"));
    run(&owner, &format!("custody retire store {gone} --identity owner.key")).done();
    run(&owner, quorum).done();
    run(&owner, "scrub store").done();
}

#[test]
fn what_a_lost_key_opened() {
    let scratch = vault(&["alice", "bob", "carol", "lab"]);
    confirm(&scratch, &["alice", "bob"]);
    let id = with_a_run(&scratch, "lab");
    let of = |line: &str| {
        let said = run(&scratch, &format!("exposure store --json --key {line}")).done().out();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let said = of("lab.key.pub");
    assert_eq!((&said["label"], &said["runs"][0]["run"]), (&"lab".into(), &id.as_str().into()));
    assert_eq!((&said["runs"][0]["opens"], &said["of"]), (&"now".into(), &1.into()));
    agree(&scratch, "remove-reader lab", ["alice", "bob"]);
    let said = of("lab.key.pub");
    assert_eq!((&said["runs"][0]["opens"], &said["runs"][0]["as"]), (&"then".into(), &"reader".into()));
    let text = run(
        &scratch,
        "exposure store --key lab.key.pub --from 2999-01-01T00:00:00Z --to 2999-01-02T00:00:00Z",
    );
    assert!(text.done().out().contains("Ended before"), "{}", text.out());
    let said = of("carol");
    assert_eq!(
        (&said["runs"][0]["as"], &said["runs"][0]["other_custodians"]),
        (&"custodian".into(), &1.into())
    );
    assert_eq!(of("novaseq")["runs"][0]["as"], "gateway");
    let text = run(&scratch, "exposure store --key carol").done().out();
    assert!(text.contains("\n  runvault custody propose store rekey RUN... --out REQ"), "{text}");
    let carol = of("carol")["key"].as_str().unwrap().to_owned();
    let ends =
        format!("closed to it by:\n  runvault custody propose store remove-custodian {carol} --out REQ\n");
    assert!(text.contains(&ends), "{text}");
    let text = run(&scratch, "exposure store --key novaseq").done().out();
    assert!(text.contains("count after:\n  runvault custody propose store revoke-gateway "), "{text}");
    // One that was removed has what it had, and nobody removes it twice.
    run(&scratch, "seal store run").done();
    agree(&scratch, "remove-custodian carol", ["alice", "bob"]);
    let text = run(&scratch, "exposure store --key carol.key.pub").done().out();
    assert!(text.contains("sealed to vault key 1") && !text.contains("remove-custodian"), "{text}");
    run(&scratch, "exposure store --key nobody").refused(1, "nobody of that name");
    run(&scratch, &format!("exposure store --key {}", "0".repeat(32)))
        .refused(1, "was never")
        .refused(1, "audit show");
    run(&scratch, "exposure store --key lab --from 2027-01-01T00:00:00Z --to 2026-01-01T00:00:00Z")
        .refused(2, "--from is later than --to");
}

/// The run of before is put back from the tape and the new one taken away: told by all who look, and put right.
fn undone(scratch: &Scratch, id: &str, new: &str) {
    let run_of = |id: &str| scratch.path("store/runs").join(id);
    fs::rename(run_of(new), scratch.path("aside")).unwrap();
    fs::rename(scratch.path("tape"), run_of(id)).unwrap();
    let seen = format!("run {new} took its place, which this machine has seen, and which is gone");
    for command in ["scrub store", "check store --identity owner.key", "runs store", "runs store --json"] {
        let told = run(scratch, command);
        assert_eq!(told.code, 4, "{command}: {}", told.all());
        assert!(
            told.all().contains(&seen) && told.all().matches(&seen).count() == 1,
            "{command}: {}",
            told.all()
        );
        // Nothing was seen from there.
        let told = run(scratch, &format!("{command} --state nowhere"));
        assert_eq!(told.code, 4, "{command}: {}", told.all());
        assert!(told.all().contains("its re-keying was undone, or never begun"), "{command}: {}", told.all());
    }
    run(scratch, &format!("verify store {id} --identity owner.key")).refused(4, &seen);
    run(scratch, "cat store run/RunInfo.xml --identity owner.key").refused(4, &seen);
    let due = run(scratch, "custody list store").done().out();
    assert!(due.contains(&format!("due: run {id}: its re-keying was undone")), "{due}");
    fs::rename(run_of(id), scratch.path("tape")).unwrap();
    fs::rename(scratch.path("aside"), run_of(new)).unwrap();
    run(scratch, "scrub store").done();
}

#[test]
fn a_re_keying_asks_for_the_drill() {
    let scratch = Scratch::new();
    scratch.vault();
    a_run(&scratch, "run", "owner");
    run(&scratch, "seal store run").done();
    let confirm = || run(&scratch, "custody confirm store --identity owner.key").done().out();
    assert!(confirm().contains("a copy of custody/ up to that line"));
    let due = || {
        let said = run(&scratch, "custody list store --json").done().out();
        serde_json::from_str::<Value>(&said).unwrap()["due"].as_array().unwrap().clone()
    };
    assert_eq!(due(), Vec::<Value>::new());
    let old = fs::read(scratch.path("owner.key")).unwrap();
    let id = scratch.runs().remove(0);
    let run_of = |id: &str| scratch.path("store/runs").join(id);
    let copied =
        std::process::Command::new("cp").arg("-a").arg(run_of(&id)).arg(scratch.path("tape")).status();
    assert!(copied.unwrap().success());
    let said = run(&scratch, &format!("custody rekey store {} --identity owner.key", scratch.runs()[0]));
    assert!(said.done().out().contains("Each custodian does the drill then"), "{}", said.out());
    run(&scratch, "rekey store --grace 1s --identity owner.key").done();
    let said = due();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0]
            .as_str()
            .unwrap()
            .contains("by line 2, which the key files of 0 custodians keep, and 1 are needed"),
        "{said:?}"
    );
    confirm();
    assert_eq!(due(), Vec::<Value>::new());
    let new = scratch.runs().remove(0);
    let moved = format!("run {id} was re-keyed: it is run {new}");
    run(&scratch, &format!("takeover store {id} --identity owner.key")).refused(1, &moved);
    undone(&scratch, &id, &new);
    // The file of before brings custody/ back without the line, and is told apart from damage; the newer one reads.
    fs::rename(scratch.path("store/custody"), scratch.path("lost")).unwrap();
    fs::rename(scratch.path("owner.key"), scratch.path("newer.key")).unwrap();
    scratch.secret("owner.key", old);
    let recover = "custody recover store --identity owner.key";
    run(&scratch, recover).refused(4, "--accept-rollback 1");
    assert!(!scratch.path("store/custody").exists());
    // A machine that has seen nothing yet is told of the line that the run names, whose worker only that line let in.
    run(&scratch, &format!("{recover} --state elsewhere"))
        .refused(4, &format!("runs/{new}/run.json, signed by"))
        .refused(4, "whom the copies do not know, has seen line 2 of the audit log")
        .refused(4, "they were made or re-keyed after that copy");
    fs::rename(scratch.path("store/custody"), scratch.path("older")).unwrap();
    run(&scratch, "custody recover store --identity newer.key").done();
    run(&scratch, "cat store run/RunInfo.xml --identity newer.key").done();
}
