//! `custody`: two of three agree, a reader gets runs and loses them, and what is not agreed on changes nothing.

use crate::common::agreeing::{agree, confirm, enroll, run, vault};
use crate::common::{self, Outcome, Scratch, faketime};
use serde_json::Value;

fn bytes_of(scratch: &Scratch, folder: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![scratch.path(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push((entry.path(), std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// A machine that writes, a run of it, whose id it gives, and dave, who reads what he is granted.
fn written(scratch: &Scratch) -> String {
    let words = run(scratch, "fingerprint store").done().out();
    let vault = words.lines().last().unwrap().to_owned();
    let alone = run(scratch, &format!("gateway enroll store --fingerprint {vault} --name novaseq"));
    alone.refused(1, "2 of 3 custodians have to agree before a machine is let in; nothing was signed");
    alone.refused(
        1,
        "--name novaseq --out FILE\n  runvault custody propose store enroll-gateway FILE --out REQ",
    );
    let asked = format!("gateway enroll store --fingerprint {vault} --out gateway.req --name novaseq");
    let said = run(scratch, &asked).done().out();
    assert!(
        said.contains("\n  runvault custody propose store enroll-gateway gateway.req --out REQ\n"),
        "{said}"
    );
    let said = agree(scratch, "enroll-gateway gateway.req --reason first-day", ["alice", "bob"]);
    assert!(said.contains("novaseq") && said.contains("may write runs"), "{said}");
    agree(scratch, "add-reader dave=dave.key.pub", ["carol", "bob"]);
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(scratch, "cp -r run store:/ --identity dave.key").done();
    let runs = std::fs::read_dir(scratch.path("store/runs")).unwrap();
    runs.map(|run| run.unwrap().file_name().into_string().unwrap()).find(|name| name.len() == 32).unwrap()
}

#[test]
fn two_of_three_agree_and_a_reader_reads_what_is_granted() {
    let scratch = vault(&["alice", "bob", "carol", "dave"]);
    let list = run(&scratch, "custody list store").done().out();
    assert!(list.contains("2 of 3") && list.contains("due: alice has not seen"), "{list}");
    run(&scratch, "custody confirm store --identity alice.key").done();
    let list = run(&scratch, "custody list store").done().out();
    assert!(!list.contains("due: alice") && list.contains("due: bob"), "{list}");
    confirm(&scratch, &["bob"]);

    let id = written(&scratch);
    let closed = run(&scratch, "cat store run/RunInfo.xml --identity dave.key");
    assert_ne!(closed.code, 0, "not granted yet");
    run(&scratch, "ls store --identity alice.key").refused(1, "several have to agree");
    agree(&scratch, &format!("grant {id} dave"), ["alice", "carol"]);
    let read = run(&scratch, "cat store run/RunInfo.xml --identity dave.key").done().out();
    assert_eq!(read, "<RunInfo/>\n");
    let said = agree(&scratch, "rotate --reason yearly", ["alice", "bob"]);
    assert!(said.contains("1 run done"), "{said}");
    run(&scratch, "cat store run/RunInfo.xml --identity dave.key").done();
    agree(&scratch, &format!("revoke {id} dave"), ["bob", "carol"]);
    assert_ne!(run(&scratch, "cat store run/RunInfo.xml --identity dave.key").code, 0);

    assert!(!scratch.path("req.executor").exists(), "the executor's key is erased");
    let trail = run(&scratch, "audit show store").done().out();
    for said in ["why: yearly", "why: first-day", "approved: \"bob\"", &id, "5 lines, verified"] {
        assert!(trail.contains(said), "{said}:\n{trail}");
    }
    let all = bytes_of(&scratch, "store/custody");
    assert!(all.iter().all(|(_, bytes)| !common::holds(bytes, "RunInfo")), "no plaintext name");
}

#[test]
fn what_is_not_agreed_on_changes_nothing() {
    let scratch = vault(&["alice", "bob", "carol", "mallory"]);
    run(&scratch, "custody propose store rotate --out req").done();
    run(&scratch, "custody propose store quorum 3 --out other").done();
    let approve = |request: &str, who: &str, out: &str| {
        run(&scratch, &format!("custody approve {request} --identity {who}.key --out {out} --yes"))
    };
    run(&scratch, "custody propose store rotate --out req").refused(2, "exists");
    run(&scratch, "custody propose store rotate").refused(2, "--out");
    run(&scratch, "custody propose store quorum 4 --out x").refused(2, "cannot be reached");
    approve("req", "alice", "a.ok").done();
    approve("req", "alice", "a.ok").refused(2, "exists");
    approve("req", "bob", "b.ok").done();
    approve("other", "bob", "b2.ok").refused(1, "approved another request");
    approve("req", "mallory", "m.ok").refused(3, "wrong key");
    approve("other", "carol", "c2.ok").done();
    scratch.secret("broken", &std::fs::read(scratch.path("req")).unwrap()[..9000]);
    approve("broken", "carol", "x.ok").refused(4, "damaged");
    scratch.secret("empty", "");
    approve("empty", "carol", "x.ok").refused(4, "request");
    assert!(!scratch.path("x.ok").exists());

    run(&scratch, "custody execute store req --approval a.ok --approval b.ok")
        .refused(1, "0 of the 2 custodians");
    // Nobody does the drill for what is refused all the same.
    run(&scratch, "custody execute store req --approval a.ok --approval c2.ok").refused(4, "another request");
    run(&scratch, "custody execute store req --approval a.ok --approval a.ok").refused(2, "is there twice");
    confirm(&scratch, &["carol", "bob"]);
    let before = bytes_of(&scratch, "store");
    let execute = |approvals: &str| {
        let line: String = approvals.split(' ').map(|one| format!(" --approval {one}")).collect();
        run(&scratch, &format!("custody execute store req{line}"))
    };
    execute("a.ok").refused(1, "1 of 2 approvals");
    execute("a.ok a.ok").refused(2, "is there twice").refused(2, "name each approval once");
    execute("a.ok c2.ok").refused(4, "is for another request");
    execute("a.ok req").refused(4, "");
    run(&scratch, "custody execute store other --unconfirmed --approval a.ok --approval c2.ok")
        .refused(4, "another request");
    run(&scratch, "custody execute store req --approval a.ok --approval b.ok --resume")
        .refused(1, "not executed yet");
    std::fs::rename(scratch.path("req.executor"), scratch.path("kept")).unwrap();
    execute("a.ok b.ok").refused(2, "executor");
    std::fs::copy(scratch.path("other.executor"), scratch.path("req.executor")).unwrap();
    execute("a.ok b.ok").refused(3, "executor key");
    assert_eq!(bytes_of(&scratch, "store"), before, "nothing was changed");

    std::fs::rename(scratch.path("kept"), scratch.path("req.executor")).unwrap();
    let key = std::fs::read(scratch.path("req.executor")).unwrap();
    execute("a.ok b.ok").done();
    scratch.secret("req.executor", key);
    execute("a.ok b.ok").refused(1, "it is line 1");
    let other = "custody execute store other --approval c2.ok --approval c2.ok";
    run(&scratch, other).refused(1, "overtaken");

    // A head on paper: of this trail, of another one, of one that was longer.
    let head = run(&scratch, "audit verify store").done().out().lines().last().unwrap().to_owned();
    run(&scratch, &format!("audit verify store --since {head}")).done();
    run(&scratch, &format!("audit verify store --since {}", head.replace("1:", "7:"))).refused(4, "cut");
    let flipped = if head.ends_with('0') { "1" } else { "0" };
    run(&scratch, &format!("audit verify store --since {}{flipped}", &head[..head.len() - 1]))
        .refused(4, "forked");
}

#[test]
fn one_owner_grows_into_a_quorum() {
    let scratch = Scratch::new();
    scratch.vault_with_a_lock();
    std::fs::remove_file(scratch.path("owner.key")).unwrap();
    let owner = "--passphrase-file pass";
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, &format!("cp -r run store:/ {owner}")).done();
    run(&scratch, "keygen --out bob.key --no-lock").done();
    run(&scratch, "keygen --out bob.key --no-lock").refused(2, "never overwritten");
    run(&scratch, &format!("custody add-custodian store bob=bob.key.pub {owner}")).done();
    // Either of both opens it now.
    run(&scratch, "cat store run/RunInfo.xml --identity bob.key").done();
    run(&scratch, &format!("custody add-reader store reader=bob.key.pub --standing {owner}")).done();
    run(&scratch, &format!("custody grant store run reader {owner}")).done();
    run(&scratch, &format!("custody quorum store 2 {owner}")).refused(1, "0 of the 2 custodians");
    run(&scratch, &format!("custody quorum store 2 --unconfirmed {owner}")).refused(2, "custody/locks");
    run(&scratch, "key export store --out owner.key --remove").refused(2, "terminal");
    run(&scratch, &format!("key export store --out owner.key --remove {owner}")).done();
    confirm(&scratch, &["bob"]);
    run(&scratch, &format!("custody confirm store --identity owner.key {owner}")).done();
    run(&scratch, &format!("custody quorum store 2 --identity owner.key {owner}")).done();
    let list = run(&scratch, "custody list store --json").done().out();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["quorum"], &list["epoch"]), (&2.into(), &2.into()));
    let alone = run(&scratch, &format!("custody rotate store --identity owner.key {owner}"));
    alone.refused(1, "quorum is 2 of 2");
    run(&scratch, &format!("cat store run/RunInfo.xml --identity owner.key {owner}")).refused(1, "quorum");
    // Bob is a reader, too.
    run(&scratch, "cat store run/RunInfo.xml --identity bob.key").done();
}

#[test]
fn each_step_of_a_rekeying_says_what_is_next() {
    let scratch = vault(&["alice", "bob", "carol", "dave", "mallory"]);
    let id = written(&scratch);
    run(&scratch, "seal store run").done();
    run(&scratch, &format!("custody propose store rekey {id} --out it")).done();
    let shown = run(&scratch, "custody show it").done().out();
    let runs = format!("\n\nRuns, as their gateways signed it:\n  {id}: of gateway novaseq, made on 20");
    assert!(shown.contains(&runs) && shown.contains(", 1 file, 11 B\n\nAfterwards:"), "{shown}");
    assert!(shown.contains("learns the vault key") && !shown.contains("makes the next one"), "{shown}");
    for one in ["alice", "bob"] {
        run(&scratch, &format!("custody approve it --identity {one}.key --out {one}.yes --yes")).done();
    }
    let execute = "custody execute store it --approval alice.yes --approval bob.yes --json";
    let said: serde_json::Value = serde_json::from_str(&run(&scratch, execute).done().out()).unwrap();
    assert_eq!(
        (&said["worker"], &said["replacements"][0]["run"]),
        (&"it.worker".into(), &id.as_str().into())
    );
    let new = said["replacements"][0]["new"].as_str().unwrap();
    run(&scratch, execute).refused(1, "what is left: runvault custody list");
    let list: serde_json::Value =
        serde_json::from_str(&run(&scratch, "custody list store --json").done().out()).unwrap();
    assert_eq!(list["rekeying"], said["replacements"]);
    let due = format!("run {id} waits for its new key: runvault rekey store --identity REQ.worker");
    assert!(list["due"].as_array().unwrap().contains(&due.as_str().into()), "{list}");
    run(&scratch, &format!("custody propose store rekey {id} --out again"))
        .refused(1, "--identity REQ.worker");

    // Only the worker's key does it, and is erased with it; a copy is, too.
    run(&scratch, "rekey store").refused(2, "--identity REQ.worker");
    for one in ["alice", "dave", "mallory"] {
        let other = run(&scratch, &format!("rekey store --identity {one}.key"));
        other.refused(3, "not the worker's").refused(3, "--identity REQ.worker");
    }
    std::fs::copy(scratch.path("it.worker"), scratch.path("copy")).unwrap();
    let keys = std::fs::read_dir(scratch.path("store/runs").join(&id).join("keys")).unwrap();
    let mut keys = keys.map(|key| key.unwrap().file_name().into_string().unwrap());
    let worker = keys.find(|name| name.starts_with("worker-")).unwrap();
    let done = run(&scratch, "rekey store --identity it.worker --grace 0s").done().out();
    assert!(done.contains(new) && done.contains("it.worker was erased"), "{done}");
    let again = run(&scratch, "rekey store --identity copy --json").done().out();
    assert_eq!(again, "{\"worker_erased\":true}\n");
    assert!(!scratch.path("it.worker").exists() && !scratch.path("copy").exists());
    // What somebody puts there under the worker's name goes again, without any key.
    let planted = scratch.path("store/runs").join(new).join("keys").join(worker);
    std::fs::write(&planted, "planted").unwrap();
    let due = run(&scratch, "custody list store").done().out();
    assert!(due.contains(&format!("what is left beside run {new}, of the worker")), "{due}");
    let cleared = run(&scratch, "rekey store").done().out();
    assert!(
        cleared.contains("left beside 1 re-keyed run, of the worker or") && !planted.exists(),
        "{cleared}"
    );
    let list = run(&scratch, "custody list store").done().out();
    assert!(!list.contains("worker"), "{list}");
    // The old id leads to the new one.
    for act in ["grant OLD dave", "rekey OLD", "retire OLD"] {
        let act = act.replace("OLD", &id);
        run(&scratch, &format!("custody propose store {act} --out x"))
            .refused(1, &format!("run {id} was re-keyed: it is run {new}"));
    }
}

#[test]
fn what_one_alone_may_not_do_is_said_before_a_key_is_asked_for() {
    let scratch = vault(&["alice", "bob", "carol", "dave", "mallory"]);
    run(&scratch, "custody add-reader store dave=dave.key.pub").refused(1, "quorum is 2 of 3");
    run(&scratch, "custody rotate store").refused(1, "runvault custody propose store rotate --out REQ");
    run(&scratch, "passwd store").refused(2, "each in an own key file");
    run(&scratch, "key export store --out x").refused(2, "each in an own key file");
    // Runs are read with a reader's key: no custodian's is asked for.
    run(&scratch, "ls store --identity mallory.key").refused(3, "a reader's, of whom there is none");
    agree(&scratch, "add-reader dave=dave.key.pub", ["alice", "bob"]);
    let refused = run(&scratch, "ls store --identity mallory.key");
    refused.refused(3, "needed is \"dave\"");
    assert!(!refused.stderr.contains("alice"), "{}", refused.stderr);
}

/// By clocks that are ahead.
#[test]
fn what_is_old_is_named_with_its_age_and_is_due() {
    let scratch = vault(&["alice", "bob", "carol", "dave", "lab"]);
    enroll(&scratch, "novaseq");
    let soon = runvault_format::time::text(runvault_custody::clock::seconds() + 3600);
    agree(&scratch, &format!("add-reader lab=lab.key.pub --expires {soon}"), ["alice", "bob"]);
    agree(&scratch, "add-custodian dave=dave.key.pub", ["alice", "bob"]);
    confirm(&scratch, &["alice", "bob", "carol"]);
    let list = |clock: &str, json: &[&str]| {
        let mut command = scratch.command(&[&["custody", "list", "store"], json].concat());
        faketime(&mut command, clock);
        Outcome::of(command).done().out()
    };
    let due = |listed: &str| {
        let lines = listed.lines().filter_map(|line| line.strip_prefix("due: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let now = list("+0", &[]);
    assert_eq!(
        due(&now),
        ["dave has not seen the own share open: runvault custody confirm store --identity KEY"],
        "{now}"
    );
    assert!(now.contains("number 1, 0 days old, since") && !now.contains("months old"), "{now}");

    let later = list("+430d", &[]);
    assert_eq!(later.matches("  14 months old, since ").count(), 6, "each of six: {later}");
    let (said, propose) = (due(&later), "runvault custody propose store");
    let wanted = [
        format!("vault key 1 is over a year old: {propose} rotate --out REQ"),
        "alice has not seen the own share open for a year: runvault custody confirm store --identity KEY"
            .to_owned(),
        format!("the time of reader lab is over; its envelopes go by: {propose} remove-reader "),
    ];
    for wanted in &wanted {
        assert!(said.iter().any(|line| line.starts_with(wanted)), "{wanted}: {said:?}");
    }
    assert!(!said.iter().any(|line| line.starts_with("the key of")), "two years are not over: {said:?}");

    let said = due(&list("+800d", &[]));
    for who in ["custodian alice", "custodian dave", "reader lab"] {
        let begin = format!(
            "the key of {who} is 26 months old: a new one by runvault keygen --out FILE, {propose} add-"
        );
        assert!(said.iter().any(|line| line.starts_with(&begin)), "{who}: {said:?}");
    }
    assert!(!said.iter().any(|line| line.contains("gateway")), "it signs: {said:?}");
    let last: Value = serde_json::from_str(&list("+1200d", &["--json"])).expect("JSON");
    let gateway = "the key of gateway novaseq is 3 years old: enrol its machine with a new state folder";
    let said = last["due"].as_array().expect("lines");
    assert!(said.iter().any(|line| line.as_str().unwrap().starts_with(gateway)), "{last}");
    for kind in ["custodians", "readers", "gateways"] {
        for one in last[kind].as_array().expect(kind) {
            assert!(one["since"].as_str().is_some_and(runvault_format::time::is_time), "{one}");
        }
    }
}

/// Exit 2: a file that is to be made is there, or an own secret file is none. Exit 4: what others handed over is none, or
/// was changed.
#[test]
fn files_that_are_there_and_files_that_are_none_have_one_exit_code_each() {
    let scratch = vault(&["alice", "bob", "carol"]);
    run(&scratch, "custody propose store rotate --out req").done();
    scratch.secret("there", "kept");
    scratch.secret("garbage", "not what it should be\n");
    let fingerprint = run(&scratch, "fingerprint store").done().out();
    let fingerprint = fingerprint.lines().last().expect("an id").to_owned();
    for line in [
        "keygen --no-lock --out there",
        "init new --no-lock --identity there",
        "custody propose store rotate --out there",
        "custody approve req --identity alice.key --yes --out there",
        &format!("gateway enroll store --fingerprint {fingerprint} --out there"),
    ] {
        run(&scratch, line).refused(2, "there: exists");
        assert_eq!(std::fs::read(scratch.path("there")).expect("a file"), b"kept", "{line}");
    }
    assert!(!scratch.path("new").exists());
    for (code, line) in [
        (2, "key show garbage"),
        (2, "key check garbage"),
        (2, "custody approve req --identity garbage --yes --out ok"),
        (2, "custody confirm store --identity garbage"),
        (4, "custody show garbage"),
        (4, "custody approve garbage --identity alice.key --yes --out ok"),
        (4, "custody execute store garbage --approval garbage"),
        (4, "custody execute store req --approval garbage"),
        (4, "custody propose store add-reader x=garbage --out other"),
        (4, "custody propose store add-custodian x=garbage --out other"),
        (4, "custody propose store enroll-gateway garbage --out other"),
        (4, "init new --custodian x=garbage --quorum 1"),
        (4, "exposure store --key garbage"),
    ] {
        let said = run(&scratch, line);
        assert_eq!(said.code, code, "{line}: {}", said.all());
        assert!(
            said.stderr.contains("garbage") && said.stderr.contains("damaged"),
            "{line}: {}",
            said.stderr
        );
    }
    for line in [
        "custody show none",
        "custody approve none --identity alice.key --yes --out ok",
        "custody execute store none --approval garbage",
        "custody execute store req --approval none",
        "custody propose store add-reader x=none --standing --out other",
        "custody propose store enroll-gateway none --out other",
        "init new --custodian x=none --quorum 1",
    ] {
        run(&scratch, line).refused(2, "none: No such file").refused(2, "name that file where it is");
    }
    for line in [
        "custody propose store add-reader x=alice.key --standing --out other",
        "custody propose store add-custodian x=alice.key --out other",
        "init new --custodian x=alice.key --quorum 1",
        "exposure store --key alice.key",
    ] {
        run(&scratch, line).refused(2, "that is the private key: its public one is alice.key.pub");
    }
    run(&scratch, "custody propose store quorum 5 --out other")
        .refused(2, "a quorum of 5 cannot be reached by 3 custodians");
    std::fs::File::create(scratch.path("film")).and_then(|film| film.set_len(40 << 20)).expect("a file");
    for (line, what) in [
        ("custody show film", "request"),
        ("custody approve film --identity alice.key --yes --out ok", "request"),
        ("custody execute store req --approval film", "approval"),
        ("exposure store --key film", "public key file"),
    ] {
        run(&scratch, line)
            .refused(2, &format!("film: longer than any {what} of runvault, which has at most "));
    }
}

fn json(scratch: &Scratch, line: &str) -> serde_json::Value {
    serde_json::from_str(&run(scratch, line).done().out()).unwrap()
}

/// What people read before they say yes, and afterwards.
#[test]
fn what_is_asked_is_told_in_words() {
    let scratch = vault(&["alice", "bob", "carol", "dave"]);
    confirm(&scratch, &["alice", "bob"]);
    let id = written(&scratch);
    let propose = |what: &str, out: &str| run(&scratch, &format!("custody propose store {what} --out {out}"));
    // A run by what is signed about it: its id says nothing.
    let said = propose(&format!("grant {id} dave"), "grant").done().out();
    let facts = format!("{id}: of gateway novaseq, made on 20");
    assert!(said.contains(&facts) && said.contains(", not sealed"), "{said}");
    let shown = run(&scratch, "custody show grant --store store").done().out();
    assert!(shown.contains(&facts) && shown.contains("may read 1 run: its key is sealed to it"), "{shown}");
    // Without the store, too, as it was signed: what comes with the request is refused where it was changed.
    for line in ["custody show grant", "custody approve grant --identity bob.key --out offline.ok --yes"] {
        let shown = run(&scratch, line).done().out();
        assert!(shown.contains(&facts) && shown.contains(", no seal of it came with the request"), "{shown}");
    }
    let signed = &json(&scratch, "custody show grant --json")["signed"];
    assert_eq!(
        (&signed[0]["run"], &signed[0]["gateway"]),
        (&id.as_str().into(), &"novaseq".into()),
        "{signed}"
    );
    assert!(signed[0]["files"].is_null() && signed[1].is_null(), "{signed}");
    let genuine = std::fs::read_to_string(scratch.path("grant")).unwrap();
    assert!(!genuine.contains("RunInfo"), "no name of a file");
    let note = genuine.find("runvault/1 run\n").expect("a run.json");
    let opened = genuine[note..].find("\"opened\":\"20").expect("a time") + note + 10;
    let at = |at: usize, with: &str| [&genuine[..at], with, &genuine[at + with.len()..]].concat();
    let twice = [&genuine, &genuine[note..]].concat();
    for (changed, says) in
        [(at(opened, "21"), "signature"), (twice, "does not name"), (format!("{genuine}x"), "note")]
    {
        std::fs::write(scratch.path("changed"), changed).unwrap();
        run(&scratch, "custody show changed").refused(4, says);
    }
    std::fs::write(scratch.path("changed"), &genuine[..note]).unwrap();
    let shown = run(&scratch, "custody show changed").done().out();
    let told =
        format!("{id}: nothing that a gateway signed came with the request\nWhere you reach the store");
    assert!(shown.contains(&told), "{shown}");
    // What is new in it, and what it does not end.
    propose("remove-custodian carol", "gone").done();
    let shown = run(&scratch, "custody show gone").done().out();
    assert!(
        shown.contains("quorum 2 of 2   <- new") && shown.contains("no more: custodian \"carol\""),
        "{shown}"
    );
    let shown = json(&scratch, "custody show gone --json");
    assert!(
        shown["stays_open"]
            .as_str()
            .unwrap()
            .contains("until those get new keys: runvault custody propose STORE rekey RUN... --out REQ")
    );
    // A second request on one line: the first is named by the words that were read out.
    let words = |req: &str| json(&scratch, &format!("custody show {req} --json"))["words"].clone();
    run(&scratch, "custody approve gone --identity alice.key --out a.ok --yes").done();
    let first = words("gone");
    run(&scratch, "custody approve grant --identity alice.key --out b.ok --yes")
        .refused(1, first.as_str().unwrap());
    let kept = json(&scratch, "key show alice.key --json");
    assert_eq!(kept["kept"]["approved"]["words"], first);
    // Of a time: a day is enough, and one that is over is none.
    let reader = "add-reader eve=dave.key.pub --standing";
    propose(&format!("{reader} --expires 2020-02-01"), "late")
        .refused(2, "2020-02-01T00:00:00Z: that time is over");
    propose(&format!("{reader} --expires 2020-02-31"), "late").refused(2, "give it as 2027-01-31");
    let said = propose(&format!("{reader} --expires 2990-02-01"), "day").done().out();
    assert!(said.contains("called \"dave\" so far") && said.contains("until 2990-02-01T00:00:00Z"), "{said}");
    propose("add-custodian bob=dave.key.pub", "twice").refused(1, "a custodian of that name already");
    // Without a key a run is what it is.
    run(&scratch, "seal store run").done();
    propose(&format!("rekey {id}"), "sealed").done();
    let shown = run(&scratch, "custody show sealed").done().out();
    assert!(
        shown.contains(&facts) && shown.contains(", 1 file, ") && shown.contains(", sealed on 20"),
        "{shown}"
    );
    // A seal belongs to its run alone.
    let genuine = std::fs::read_to_string(scratch.path("sealed")).unwrap();
    let seal = genuine.find("runvault/1 seal\n").expect("a seal");
    std::fs::write(scratch.path("changed"), [&genuine, &genuine[seal..]].concat()).unwrap();
    run(&scratch, "custody show changed").refused(4, "what is signed about its runs");
    let status = run(&scratch, "status store").done().out();
    assert!(status.lines().any(|line| line.starts_with(&id) && line.ends_with("sealed")), "{status}");
}

/// With one owner: what an interruption leaves is due, and the same command does it.
#[test]
fn what_was_interrupted_is_due_and_is_finished() {
    let scratch = Scratch::new();
    scratch.vault();
    run(&scratch, "keygen --out lab.key --no-lock").done();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    let act = |line: &str| {
        let said = run(&scratch, &format!("custody {line} --identity owner.key"));
        said.done();
        said
    };
    run(&scratch, "cp -r run store:/ --identity owner.key").done();
    act("add-reader store lab=lab.key.pub");
    act("grant store run lab");
    let id = scratch.runs().remove(0);
    let keys = scratch.path(&format!("store/runs/{id}/keys"));
    let held =
        || std::fs::read_dir(&keys).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let lab = held().find(|name| name.starts_with("reader-")).unwrap();
    let before: Vec<(String, Vec<u8>)> = [lab.clone(), "vault-1".into()]
        .map(|name| (name.clone(), std::fs::read(keys.join(name)).unwrap()))
        .into();
    let due = || run(&scratch, "custody list store").done().out();
    assert!(!due().contains(&id), "{}", due());
    std::fs::remove_file(keys.join(&lab)).unwrap();
    assert!(due().contains(&format!("runvault custody grant store {id} lab")), "{}", due());
    act("grant store run lab");
    act("remove-reader store lab");
    act("rotate store");
    assert!(!due().contains(&id), "{}", due());
    // As an interruption leaves them: the lines are there, and none of the work.
    for (name, bytes) in &before {
        std::fs::write(keys.join(name), bytes).unwrap();
    }
    std::fs::remove_file(keys.join("vault-2")).unwrap();
    let said = due();
    assert!(said.contains(&format!("({}) is no reader, and has envelopes of 1 run", &lab[7..])), "{said}");
    assert!(said.contains("runvault custody remove-reader store lab\n"), "{said}");
    assert!(
        said.contains("not sealed to vault key 2 yet")
            && said.contains("runvault custody rotate --resume store\n"),
        "{said}"
    );
    act("rotate --resume store");
    // No second line, and what was there is counted.
    let lines = || run(&scratch, "audit show store --json").done().out().lines().count();
    let trail = lines();
    let said = act("remove-reader store lab");
    assert!(said.all().contains("says so already") && said.out().contains("1 run done"), "{}", said.all());
    assert!(!act("remove-reader store lab").out().contains("run done"));
    assert_eq!((lines(), held().collect::<Vec<_>>()), (trail, vec!["vault-2".to_owned()]));
    assert!(!due().contains(&id), "{}", due());
    // What acts in a quorum by a request acts at once here, gateways too.
    run(&scratch, "custody revoke-gateway store nobody --identity owner.key").refused(1, "nobody");
}

/// Its seal would give the key again to who reads all that comes.
#[test]
fn an_open_run_is_taken_from_a_standing_reader_when_it_is_sealed() {
    let scratch = Scratch::new();
    scratch.vault();
    run(&scratch, "keygen --out lab.key --no-lock").done();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, "custody add-reader store lab=lab.key.pub --standing --identity owner.key").done();
    run(&scratch, "cp -r run store:/ --identity owner.key").done();
    let keys = scratch.path(&format!("store/runs/{}/keys", scratch.runs().remove(0)));
    let envelopes = || std::fs::read_dir(&keys).unwrap().count();
    run(&scratch, "cat store run/RunInfo.xml --identity lab.key").done();
    let revoke = || run(&scratch, "custody revoke store run lab --identity owner.key");
    let refused = revoke();
    refused.refused(5, "1 run is open: the reader still reads there");
    refused.refused(5, "once it is sealed: ").refused(5, "runvault custody remove-reader store ");
    assert_eq!(envelopes(), 2);
    run(&scratch, "seal store run").done();
    revoke().done();
    assert_eq!(envelopes(), 1);
    run(&scratch, "cat store run/RunInfo.xml --identity lab.key").refused(1, "1 run not shown");
}
