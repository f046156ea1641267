//! `custody`: two of three agree, a reader gets runs and loses them, and what is not agreed on changes nothing.

mod common;

use common::Scratch;
use common::agreeing::{agree, confirm, run, vault};

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

#[test]
fn two_of_three_agree_and_a_reader_reads_what_is_granted() {
    let scratch = vault(&["alice", "bob", "carol", "dave"]);
    let list = run(&scratch, "custody list store").done().out();
    assert!(list.contains("2 of 3") && list.contains("due: alice has not seen"), "{list}");
    run(&scratch, "custody confirm store --identity alice.key").done();
    let list = run(&scratch, "custody list store").done().out();
    assert!(!list.contains("due: alice") && list.contains("due: bob"), "{list}");
    confirm(&scratch, &["bob"]);

    // A machine that writes, and a run of it.
    let words = run(&scratch, "fingerprint store").done().out();
    let vault = words.lines().last().unwrap().to_owned();
    run(&scratch, &format!("gateway enroll store --fingerprint {vault} --out gateway.req --name novaseq"))
        .done();
    let said = agree(&scratch, "enroll-gateway gateway.req --reason first-day", ["alice", "bob"]);
    assert!(said.contains("novaseq") && said.contains("may write runs"), "{said}");
    agree(&scratch, "add-reader dave=dave.key.pub", ["carol", "bob"]);
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, "cp -r run store:/ --identity dave.key").done();
    let runs = std::fs::read_dir(scratch.path("store/runs")).unwrap();
    let id = runs.map(|run| run.unwrap().file_name().into_string().unwrap()).find(|n| n.len() == 32).unwrap();

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
    run(&scratch, "custody propose store quorum 4 --out x").refused(1, "cannot be reached");
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
    confirm(&scratch, &["carol", "bob"]);
    let before = bytes_of(&scratch, "store");
    let execute = |approvals: &str| {
        let line: String = approvals.split(' ').map(|one| format!(" --approval {one}")).collect();
        run(&scratch, &format!("custody execute store req{line}"))
    };
    execute("a.ok").refused(1, "1 of 2 approvals");
    execute("a.ok a.ok").refused(4, "is there twice");
    execute("a.ok c2.ok").refused(4, "is for another request");
    execute("a.ok req").refused(4, "");
    run(&scratch, "custody execute store other --unconfirmed --approval a.ok --approval c2.ok")
        .refused(4, "another request");
    run(&scratch, "custody execute store req --approval a.ok --approval b.ok --resume")
        .refused(1, "not executed yet");
    std::fs::rename(scratch.path("req.executor"), scratch.path("kept")).unwrap();
    execute("a.ok b.ok").refused(1, "executor");
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
    scratch.secret("pass.txt", common::STRONG);
    run(&scratch, "init store --passphrase-file pass.txt").done();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    run(&scratch, "cp -r run store:/ --passphrase-file pass.txt").done();
    run(&scratch, "keygen --out bob.key --no-lock").done();
    run(&scratch, "keygen --out bob.key --no-lock").refused(1, "never overwritten");
    let owner = "--passphrase-file pass.txt";
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
