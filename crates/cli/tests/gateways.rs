//! `gateway`: machines are let in by the owner, here or by a request, listed, and ended.

use crate::common::{Scratch, text};

/// The vault id, as `fingerprint` prints it, and its words.
fn fingerprint(scratch: &Scratch) -> (String, String) {
    let printed = scratch.run(&["fingerprint", "store"]).done().out();
    let mut lines = printed.lines().rev().map(str::to_owned);
    let (id, words) = (lines.next().unwrap(), lines.next().unwrap());
    (id, words)
}

#[test]
fn a_machine_is_let_in_by_a_request() {
    let scratch = Scratch::new();
    scratch.vault();
    let (vault, words) = fingerprint(&scratch);
    // The instrument's side: no key of the owner's is read there.
    let asked =
        ["gateway", "enroll", "store", "--fingerprint", &words, "--name", "novaseq-1", "--out", "req"];
    let said = scratch.run(&[&asked[..], &["--json"]].concat()).done().out();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let id = said["gateway"].as_str().unwrap().to_owned();
    assert_eq!(said["enrolled"], false);
    let again = scratch.run(&asked);
    again.refused(2, "req: exists, and is not overwritten").refused(2, "name a file that does not exist yet");
    assert!(!again.stderr.contains("key file") && !again.stderr.contains("init"), "{}", again.stderr);
    assert!(scratch.run(&["gateway", "list", "store"]).done().out().contains("no machine was enrolled yet"));
    // The owner's side, with a state folder of its own.
    let sign = ["gateway", "enroll", "store", "--request", "req", "--identity", "owner.key"];
    let signed = scratch.run(&[&sign[..], &["--state", "elsewhere"]].concat());
    assert!(signed.done().out().contains(&format!("gateway novaseq-1 ({id}) may write")), "{}", signed.all());
    let listed = scratch.run(&["gateway", "list", "store"]).done().out();
    assert!(listed.contains("novaseq-1") && listed.contains(&id) && listed.contains("yes"), "{listed}");
    // Once more changes nothing.
    let line = |scratch: &Scratch| std::fs::read(scratch.path("store/custody/audit.log")).unwrap();
    let before = line(&scratch);
    let again = scratch.run(&[&sign[..], &["--fingerprint", &vault]].concat());
    assert!(
        again.done().out().contains("is enrolled already as novaseq-1; nothing was written"),
        "{}",
        again.all()
    );
    assert_eq!(line(&scratch), before);
    std::fs::write(scratch.path("req"), "runvault/1 public\n{}\n").unwrap();
    scratch.run(&sign).refused(4, "not a public key file");
}

#[test]
fn another_store_than_the_one_that_is_meant_is_refused() {
    let scratch = Scratch::new();
    scratch.vault();
    let (vault, words) = fingerprint(&scratch);
    let enroll = |fingerprint: &str| {
        scratch.run(&["gateway", "enroll", "store", "--fingerprint", fingerprint, "--identity", "owner.key"])
    };
    for none in ["foo", &vault[..63], "abandon ability able", ""] {
        enroll(none).refused(2, "64 hex digits or twelve words");
        assert!(!scratch.path("state").exists(), "a state folder was made");
    }
    for other in [vault.replace(&vault[..4], "0000"), ["abandon"; 12].join(" ")] {
        let refused = enroll(&other);
        refused.refused(4, "nothing was written");
        assert!(refused.stderr.contains(&vault), "{}", refused.stderr);
        assert!(!scratch.path("state").exists(), "a state folder was made");
    }
    let said = enroll(&words.to_uppercase()).done().out();
    let next = format!("\n  runvault mount --ingest --state {} store MNT\n", text(&scratch.path("state")));
    assert!(said.ends_with(&next), "{said}");
    enroll(&vault.to_uppercase()).done();
    scratch.run(&["gateway", "enroll", "store"]).refused(2, "--fingerprint");
}

/// The name that it has stays; who names another one is told, and nobody is asked for a passphrase.
#[test]
fn a_machine_that_is_enrolled_is_not_named_anew() {
    let scratch = Scratch::new();
    scratch.vault();
    let (vault, _) = fingerprint(&scratch);
    let enroll = |more: &[&str]| {
        scratch.run(&[&["gateway", "enroll", "store", "--fingerprint", &vault], more].concat())
    };
    enroll(&["--identity", "owner.key", "--name", "one"]).done();
    let trail = || std::fs::read(scratch.path("store/custody/audit.log")).unwrap();
    let before = trail();
    for same in [&["--name", "one"][..], &[]] {
        let said = enroll(same);
        assert!(
            said.done().out().contains("is enrolled already as one; nothing was written. It mounts with")
        );
        let said: serde_json::Value =
            serde_json::from_str(&enroll(&[same, &["--json"]].concat()).done().out()).unwrap();
        assert_eq!((&said["name"], &said["already"]), (&"one".into(), &true.into()));
    }
    for other in [&["--name", "two"][..], &["--name", "two", "--out", "req"], &["--name", "on"]] {
        let refused = enroll(other);
        refused
            .refused(1, "enrolled already, as gateway one (")
            .refused(1, "that name stays; nothing was written");
        refused
            .refused(1, &format!("runvault gateway enroll store --fingerprint {vault} --name {}", other[1]));
    }
    assert!(!scratch.path("req").exists());
    let asked = enroll(&["--out", "req"]);
    assert!(
        asked.done().out().contains("enrolled already as one: nobody needs to sign it"),
        "{}",
        asked.all()
    );
    assert_eq!(trail(), before);
}

#[test]
fn a_machine_is_ended_by_its_name_or_id() {
    let scratch = Scratch::new();
    scratch.vault();
    let (vault, _) = fingerprint(&scratch);
    for (state, name) in [("a", "one"), ("b", "two"), ("c", "two")] {
        let at = scratch.path(state);
        let who = ["--identity", "owner.key", "--state", text(&at), "--name", name];
        scratch.run(&[&["gateway", "enroll", "store", "--fingerprint", &vault], &who[..]].concat()).done();
    }
    let list = || {
        let listed = scratch.run(&["gateway", "list", "--json", "store"]).done().out();
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let names: Vec<_> = list().iter().map(|g| g["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["one", "two", "two-2"]);
    let revoke = |name: &str| scratch.run(&["gateway", "revoke", "store", name, "--identity", "owner.key"]);
    revoke("three").refused(1, "no gateway \"three\" is enrolled").refused(1, "runvault gateway list");
    revoke("two").done();
    revoke(list()[2]["gateway"].as_str().unwrap()).done();
    let ended: Vec<_> = list().iter().map(|g| g["last_run"].as_u64()).collect();
    assert_eq!(ended, [None, Some(0), Some(0)]);
    assert!(scratch.run(&["gateway", "list", "store"]).out().contains("no: none of its runs counts"));
}

/// Someone puts an old copy of the store back, or takes the newest run away.
#[test]
fn a_store_without_the_newest_run_that_was_seen_is_refused_until_a_person_accepts_it() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    for run in ["one", "two"] {
        scratch.folder(run);
        scratch.run(&["cp", "-r", "--identity", "owner.key", run, "store:/"]).done();
    }
    let ls = ["ls", "store", "--identity", "owner.key"];
    scratch.run(&ls).done();
    let newest =
        std::fs::read_dir(store.join("runs")).unwrap().map(|entry| entry.unwrap().path()).find(|run| {
            let text = std::fs::read_to_string(run.join("run.json")).unwrap();
            text.contains("\"seq\":2")
        });
    std::fs::rename(newest.unwrap(), scratch.path("elsewhere")).unwrap();
    for refused in [&ls[..], &["scrub", "store"], &["cp", "--identity", "owner.key", "one", "store:/", "-r"]]
    {
        scratch
            .run(refused)
            .refused(4, "gone; this machine has seen it, number 2 of gateway")
            .refused(4, "--accept-rollback 1");
    }
    let accepted = scratch.run(&[&ls[..], &["--accept-rollback", "1"]].concat());
    assert!(accepted.done().stderr.contains("accepted by --accept-rollback 1"), "{}", accepted.all());
    assert_eq!(scratch.run(&ls).done().out(), "one\n");
}

#[test]
fn a_gateway_whose_numbers_have_gaps_is_ended_where_a_person_says() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    for run in ["one", "two", "three"] {
        scratch.folder(run);
        scratch.run(&["cp", "-r", "--identity", "owner.key", run, "store:/"]).done();
    }
    let numbered = |n: u64| {
        let mut runs = std::fs::read_dir(store.join("runs")).unwrap().map(|entry| entry.unwrap().path());
        let of = |run: &std::path::PathBuf| std::fs::read_to_string(run.join("run.json")).unwrap();
        runs.find(|run| of(run).contains(&format!("\"seq\":{n},"))).unwrap()
    };
    std::fs::remove_dir_all(numbered(2)).unwrap();
    let id = scratch.run(&["gateway", "list", "store", "--json"]).done().out();
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let id = id["gateway"].as_str().unwrap();
    let revoke = ["gateway", "revoke", "--identity", "owner.key", "store", id];
    scratch.run(&revoke).refused(4, "run number 2 is missing").refused(4, "--last-run N");
    let ended = scratch.run(&[&revoke[..], &["--last-run", "1", "--json"]].concat()).done().out();
    let ended: serde_json::Value = serde_json::from_str(&ended).unwrap();
    assert_eq!((&ended["last_run"], &ended["last_seal"]), (&1.into(), &0.into()));
    let third = numbered(3).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(ended["cut_off"], serde_json::json!({ "runs": [third], "seals": [] }));
    let listed = scratch.run(&["ls", "store", "--identity", "owner.key"]);
    assert!(listed.refused(4, "end at number 1").out().contains("one"), "{}", listed.all());
    // Genuine bytes that count no longer: no backup has others.
    listed.refused(4, "runvault gateway list store shows who may");
    assert!(!listed.stderr.contains("backup"), "{}", listed.stderr);
}

/// Who copied the state folder makes a run of the same number as the machine itself.
#[test]
fn of_two_runs_of_one_number_the_owner_names_the_genuine_one() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    let put = |run: &str, state: &str, store: &str| {
        scratch.folder(run);
        let state = scratch.path(state);
        let to = format!("{store}:/");
        scratch.run(&["cp", "-r", "--identity", "owner.key", "--state", text(&state), run, &to]).done();
    };
    put("one", "state", "store");
    for (from, to) in [("state", "stolen"), ("store", "copied")] {
        let copied =
            std::process::Command::new("cp").arg("-a").arg(scratch.path(from)).arg(scratch.path(to)).status();
        assert!(copied.unwrap().success());
    }
    put("two", "state", "store");
    put("forged", "stolen", "copied");
    for run in std::fs::read_dir(scratch.path("copied/runs")).unwrap().map(|run| run.unwrap()) {
        let planted = store.join("runs").join(run.file_name());
        if !planted.exists() {
            std::fs::rename(run.path(), planted).unwrap();
        }
    }
    let id = |name: &str| {
        let said = scratch.run(&["runs", "--json", "--identity", "owner.key", "store"]).done().out();
        let mut runs = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        runs.find(|run| run["name"] == name).unwrap()["run"].as_str().unwrap().to_owned()
    };
    let gateway = scratch.run(&["gateway", "list", "store", "--json"]).done().out();
    let gateway: serde_json::Value = serde_json::from_str(&gateway).unwrap();
    let revoke =
        ["gateway", "revoke", "--identity", "owner.key", "store", gateway["gateway"].as_str().unwrap()];
    scratch.run(&revoke).refused(4, "2 runs bear the number 2");
    let refused = scratch.run(&[&revoke[..], &["--last-run", "2"]].concat());
    refused.refused(4, &id("two")).refused(4, &id("forged")).refused(4, "--last-run ID");
    let forged = id("forged");
    let ended = scratch.run(&[&revoke[..], &["--last-run", &id("two")]].concat()).done().out();
    assert!(ended.contains("up to number 2") && ended.contains(&format!("run {forged}")), "{ended}");
    let listed = scratch.run(&["ls", "store", "--identity", "owner.key"]);
    assert_eq!(listed.refused(4, "it is not the run number 2").out(), "one\ntwo\n");
    assert!(store.join("runs").join(forged).exists(), "nothing is removed");
}

#[test]
fn a_machine_that_was_admitted_is_dismissed() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run");
    for file in ["one", "two", "three"] {
        scratch.secret(file, "result");
    }
    let other = scratch.path("other");
    let owner = ["--identity", "owner.key"];
    let with = |args: &[&str], more: &[&str]| scratch.run(&[args, &owner[..], more].concat());
    with(&["cp", "-r", "run", "store:/"], &[]).done();
    scratch.run(&["seal", "store", "run"]).done();
    let add = |file: &str| with(&["cp", file, "store:/run/"], &["--state", text(&other)]);
    add("one").refused(1, "it can be read, and no more");
    let objects = |args: &[&str]| {
        let said = with(args, &["--json"]).done().out();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let id = objects(&["gateway", "list", "store"])[1]["gateway"].as_str().unwrap().to_owned();
    with(&["gateway", "admit", "store", &id], &[]).done();
    with(&["gateway", "admit", "store", &id, "run"], &[]).done();
    assert_eq!(objects(&["gateway", "list", "store"])[1]["admitted"].as_array().unwrap().len(), 2);
    add("one").done();
    let open = objects(&["runs", "store"]).into_iter().find(|run| run["state"] != "sealed").unwrap();
    assert_eq!((&open["files"], &open["bytes"]), (&1.into(), &6.into()));
    let open = open["run"].as_str().unwrap();
    scratch.run(&["seal", "store", open, "--state", text(&other)]).done();
    let ended = &objects(&["gateway", "dismiss", "store", &id, "run"])[0];
    assert_eq!((&ended["already"], &ended["admitted"]), (&false.into(), &serde_json::json!([null])));
    add("two").done();
    let ended = with(&["gateway", "dismiss", "store", &id], &[]);
    assert!(ended.done().out().contains("is dismissed: it may add to its own runs alone"), "{}", ended.all());
    let again = with(&["gateway", "dismiss", "store", &id], &[]);
    assert!(again.done().out().contains("was not admitted to that"), "{}", again.all());
    let listed = with(&["ls", "store", "run"], &[]);
    assert_eq!(listed.done().out(), "one\ntwo\n", "what it added before stays");
    let open = objects(&["runs", "store"]).into_iter().find(|run| run["state"] != "sealed").unwrap();
    scratch.run(&["seal", "store", open["run"].as_str().unwrap(), "--state", text(&other)]).done();
    add("three").refused(1, "it can be read, and no more");
}

/// By a machine that has seen it under the id that it had before, too.
#[test]
fn a_run_that_was_re_keyed_goes_by_its_owners_word() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    scratch.folder("run");
    let by_owner = |args: &[&str]| scratch.run(&[args, &["--identity", "owner.key"]].concat()).done().out();
    by_owner(&["cp", "-r", "run", "store:/"]);
    scratch.run(&["seal", "store", "run"]).done();
    by_owner(&["custody", "rekey", "store", "run"]);
    by_owner(&["rekey", "store", "--grace", "1s"]);
    by_owner(&["retire", "store", "run"]);
    std::fs::rename(store.join("runs").join(&scratch.runs()[0]), scratch.path("tape")).unwrap();
    by_owner(&["ls", "store"]);
    by_owner(&["check", "store"]);
    scratch.run(&["scrub", "store"]).done();
    scratch.run(&["runs", "store"]).done();
}

/// Whose key was stolen, and with it the word of the gateway, cannot make a sealed run be forgotten.
#[test]
fn a_sealed_run_goes_by_its_owners_word_alone() {
    let scratch = Scratch::new();
    let store = scratch.vault();
    scratch.folder("run");
    scratch.run(&["cp", "-r", "--identity", "owner.key", "run", "store:/"]).done();
    scratch.run(&["seal", "store", "run"]).done();
    let ls = ["ls", "store", "--identity", "owner.key"];
    scratch.run(&ls).done();
    let retired = ["retire", "store", "run", "--identity", "owner.key", "--json", "--reason", "to tape"];
    let said: serde_json::Value = serde_json::from_str(&scratch.run(&retired).done().out()).unwrap();
    assert_eq!((&said["seq"], &said["seal"]), (&1.into(), &1.into()));
    assert_eq!(scratch.run(&ls).done().out(), "run\n", "nothing was removed");
    let run = said["run"].as_str().unwrap();
    let note = store.join("retired").join(run);
    assert!(std::fs::read_to_string(&note).unwrap().contains("\"reason\":\"to tape\""));
    std::fs::rename(store.join("runs").join(run), scratch.path("tape")).unwrap();
    assert_eq!(scratch.run(&ls).done().out(), "");
    scratch.run(&["scrub", "store"]).done();
    // Without the note both are missed.
    std::fs::rename(&note, scratch.path("note")).unwrap();
    scratch.run(&ls).refused(4, "gone; this machine has seen it").refused(4, "runvault retire");
    scratch.run(&["scrub", "store"]).refused(4, "gone; this machine has seen it");
    // It is back, and hollow.
    std::fs::rename(scratch.path("tape"), store.join("runs").join(run)).unwrap();
    std::fs::write(store.join("runs").join(run).join("run.json"), "").unwrap();
    scratch.run(&ls).refused(4, "gone; this machine has seen it");
    scratch.run(&["status", "store"]).refused(4, "gone; this machine has seen it");
}
