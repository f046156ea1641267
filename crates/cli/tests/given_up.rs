//! A re-keying that was agreed on, and that whoever has the disk keeps from going on: what is told to do then, pasted into a
//! shell, ends it, and no run is lost.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::agreeing::{self, agree, run};
use crate::common::{Outcome, Scratch};

const STORE: &str = "the store";
const TEXT: &str = "<RunInfo/>\n";

/// What somebody does to the store, whose `runs/` it is: to the old run, and to that which is to take its place.
struct Plant {
    /// What is told then.
    says: &'static str,
    act: fn(runs: &Path, old: &str, new: &str),
}

fn new(runs: &Path, new: &str) -> std::path::PathBuf {
    runs.join(format!(".new-{new}"))
}

fn workers(run: &Path) -> std::path::PathBuf {
    let keys = fs::read_dir(run.join("keys")).unwrap().map(|key| key.unwrap());
    keys.map(|key| key.path()).find(|key| key.to_str().unwrap().contains("/worker-")).unwrap()
}

const PLANTS: [Plant; 13] = [
    Plant {
        says: "runs/.new-NEW/keys/worker-",
        act: |runs, _, id| fs::remove_file(workers(&new(runs, id))).unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/keys/worker-",
        act: |runs, _, id| fs::write(workers(&new(runs, id)), "x").unwrap(),
    },
    Plant {
        says: "runs/OLD/keys/worker-",
        act: |runs, old, _| fs::remove_file(workers(&runs.join(old))).unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/keys: ",
        act: |runs, _, id| {
            fs::remove_dir_all(new(runs, id).join("keys")).unwrap();
            fs::write(new(runs, id).join("keys"), "x").unwrap();
        },
    },
    Plant {
        says: "runs/.new-NEW/partial: ",
        act: |runs, _, id| fs::write(new(runs, id).join("partial"), "x").unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/tree: ",
        act: |runs, _, id| fs::write(new(runs, id).join("tree"), "x").unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/name: ",
        act: |runs, _, id| fs::create_dir(new(runs, id).join("name")).unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/lease: ",
        act: |runs, _, id| fs::create_dir(new(runs, id).join("lease")).unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/seal/seal.note: ",
        act: |runs, _, id| fs::create_dir(new(runs, id).join("seal")).unwrap(),
    },
    Plant {
        says: "runs/.new-NEW/run.json: ",
        act: |runs, _, id| fs::remove_file(new(runs, id).join("run.json")).unwrap(),
    },
    Plant {
        says: "to take the place of run OLD",
        act: |runs, _, id| fs::remove_dir_all(new(runs, id)).unwrap(),
    },
    Plant { says: "runs/NEW/run.json: ", act: |runs, _, id| fs::create_dir(runs.join(id)).unwrap() },
    Plant { says: "runs/NEW: another kind", act: |runs, _, id| fs::write(runs.join(id), "x").unwrap() },
];

/// Of what was told: the commands, each of which is a line.
fn commands(said: &Outcome) -> Vec<String> {
    let is_one = |line: &&str| ["mv ", "runvault "].iter().any(|word| line.starts_with(word));
    said.stderr.lines().filter_map(|line| line.strip_prefix("  ")).filter(is_one).map(str::to_owned).collect()
}

fn pasted(scratch: &Scratch, line: &str) -> Outcome {
    let bin = Path::new(env!("CARGO_BIN_EXE_runvault")).parent().unwrap().display().to_string();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", line]).current_dir(scratch.path("")).stdin(Stdio::null());
    shell.env_clear().env("HOME", scratch.path("")).env("PATH", format!("{bin}:/usr/bin:/bin"));
    Outcome::of(shell)
}

fn copy(scratch: &Scratch, from: &str, to: &str) {
    let _ = fs::remove_dir_all(scratch.path(to));
    assert!(
        Command::new("cp")
            .arg("-a")
            .args([from, to].map(|name| scratch.path(name)))
            .status()
            .unwrap()
            .success()
    );
}

/// The run that is there, and the one that is on its way.
fn there(scratch: &Scratch) -> (String, String) {
    let names = fs::read_dir(scratch.path(STORE).join("runs")).unwrap();
    let names: Vec<String> = names.map(|run| run.unwrap().file_name().into_string().unwrap()).collect();
    let coming = names.iter().find_map(|name| name.strip_prefix(".new-")).unwrap_or_default();
    (names.iter().find(|name| name.len() == 32).unwrap().clone(), coming.to_owned())
}

/// Everything of the store and of this machine, once for each plant.
fn each_planted<'a>(
    scratch: &Scratch,
    plants: impl IntoIterator<Item = &'a Plant>,
    mut act: impl FnMut(&str, &dyn Fn(&Outcome)),
) {
    let (old, new) = there(scratch);
    copy(scratch, STORE, "kept");
    copy(scratch, "state", "kept state");
    for plant in plants {
        copy(scratch, "kept", STORE);
        copy(scratch, "kept state", "state");
        (plant.act)(&scratch.path(STORE).join("runs"), &old, &new);
        // Whoever does that knows the names that things are moved to, too.
        let taken = [&old, &new].map(|id| ["given-up", "in-the-way"].map(|name| format!("{name}-{id}")));
        let taken = taken.concat().into_iter().map(|name| scratch.path(STORE).join(name));
        let taken: Vec<_> = taken.inspect(|name| fs::write(name, "theirs").unwrap()).collect();
        act(&old, &|stuck| {
            let said = stuck.stderr.replace(&old, "OLD").replace(&new, "NEW");
            assert!(stuck.code != 0 && said.contains(plant.says), "{}: {said}", plant.says);
            let told = commands(stuck);
            assert!(!told.is_empty(), "{}: {said}", plant.says);
            told.iter().for_each(|line| _ = pasted(scratch, line).done());
        });
        assert!(taken.iter().all(|name| fs::read(name).unwrap() == b"theirs"), "{}", plant.says);
    }
}

/// A sealed run that is to get a new key.
fn one_owner() -> Scratch {
    let scratch = Scratch::new();
    scratch.run(&["init", "--no-lock", "--identity", "owner.key", STORE]).done();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", TEXT);
    let to = format!("{STORE}:/");
    scratch.run(&["cp", "-r", "run", &to, "--identity", "owner.key"]).done();
    scratch.run(&["seal", STORE, "run"]).done();
    scratch.run(&["custody", "rekey", STORE, "run", "--identity", "owner.key"]).done();
    scratch
}

fn owners_work(scratch: &Scratch) -> Outcome {
    scratch.run(&["rekey", STORE, "--identity", "owner.key", "--grace", "0s"])
}

fn is_whole(scratch: &Scratch) {
    let read = scratch.run(&["cat", STORE, "run/RunInfo.xml", "--identity", "owner.key"]);
    assert_eq!(read.out(), TEXT, "{}", read.all());
    scratch.run(&["scrub", STORE]).done();
}

#[test]
fn one_owner_has_a_way_out_of_whatever_is_planted() {
    let scratch = one_owner();
    let work = || owners_work(&scratch);
    let seed = Plant {
        says: "runs/.new-NEW/worker-vault-",
        act: |runs, _, id| fs::remove_file(new(runs, id).join("worker-vault-1")).unwrap(),
    };
    let torn = Plant {
        says: "runs/.new-NEW/worker-vault-1: ",
        act: |runs, _, id| fs::write(new(runs, id).join("worker-vault-1"), "x").unwrap(),
    };
    each_planted(&scratch, PLANTS.iter().chain(&[seed, torn]), |old, ends| {
        ends(&work());
        work().done();
        let (stands, coming) = there(&scratch);
        assert!(stands != old && coming.is_empty(), "{stands} {coming}");
        is_whole(&scratch);
        let due = scratch.run(&["custody", "list", STORE]).done().out();
        assert!(!due.contains("waits for its new key"), "{due}");
    });
}

/// A copy of a run that was replaced, whole or not, is put back: nobody is asked to agree on another key for it.
#[test]
fn what_was_re_keyed_is_not_agreed_on_again() {
    let scratch = one_owner();
    let (old, _) = there(&scratch);
    let runs = scratch.path(STORE).join("runs");
    copy(&scratch, &format!("{STORE}/runs/{old}"), "copy");
    owners_work(&scratch).done();
    let (new, _) = there(&scratch);
    let ask = || scratch.run(&["custody", "rekey", STORE, &old, "--identity", "owner.key"]);
    for part in ["tree", "seal", "nothing"] {
        copy(&scratch, "copy", &format!("{STORE}/runs/{old}"));
        let _ = fs::remove_dir_all(runs.join(&old).join(part));
        for refused in [ask(), owners_work(&scratch), scratch.run(&["rekey", STORE])] {
            refused.refused(1, &format!("run {old} was re-keyed: it is run {new}"));
            let told = commands(&refused);
            assert!(told[0].starts_with("mv ") && told[0].contains(&format!("/runs/{old} ")), "{told:?}");
        }
        let due = scratch.run(&["custody", "list", STORE]).done().out();
        assert!(due.contains(&format!("run {old} is there again, beside run {new}")), "{due}");
        pasted(&scratch, &commands(&ask())[0]).done();
        owners_work(&scratch).done();
        is_whole(&scratch);
    }
    // Where the new one is lost, the copy is what there is.
    copy(&scratch, "copy", &format!("{STORE}/runs/{old}"));
    fs::remove_dir_all(runs.join(&new).join("tree")).unwrap();
    let stuck = owners_work(&scratch);
    pasted(&scratch, commands(&stuck).last().unwrap()).done();
    fs::rename(runs.join(&new), scratch.path("damaged")).unwrap();
    owners_work(&scratch).done();
    is_whole(&scratch);
}

#[test]
fn nobody_is_asked_to_approve_what_was_re_keyed() {
    let scratch = two_of_three();
    let (old, _) = there(&scratch);
    copy(&scratch, &format!("{STORE}/runs/{old}"), "copy");
    scratch.run(&["rekey", STORE, "--identity", "req.worker", "--grace", "0s"]).done();
    let (new, _) = there(&scratch);
    copy(&scratch, "copy", &format!("{STORE}/runs/{old}"));
    let propose = ["custody", "propose", STORE, "rekey", &old, "--out", "anew"];
    for refused in [scratch.run(&propose), scratch.run(&["rekey", STORE])] {
        refused.refused(1, &format!("run {old} was re-keyed: it is run {new}"));
    }
    assert!(!scratch.path("anew").exists());
    pasted(&scratch, &commands(&scratch.run(&propose))[0]).done();
    let due = scratch.run(&["custody", "list", STORE]).done().out();
    assert!(!due.contains(&old), "{due}");
}

/// While both runs are there, the one that is asked for is the one that is there already.
#[test]
fn what_is_about_to_be_done_is_not_agreed_on_again() {
    let scratch = one_owner();
    let (old, new) = there(&scratch);
    let mut work = scratch.command(&["rekey", STORE, "--identity", "owner.key", "--grace", "1h"]);
    let mut work = work.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let runs = scratch.path(STORE).join("runs");
    while !runs.join(&new).exists() {
        assert!(work.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let asked = scratch.run(&["custody", "rekey", STORE, &old, "--identity", "owner.key"]);
    work.kill().unwrap();
    work.wait().unwrap();
    asked.refused(1, &format!("run {old} was re-keyed: it is run {new}"));
    asked.refused(1, &format!("finish it: runvault rekey '{STORE}' {old}"));
    owners_work(&scratch).done();
    is_whole(&scratch);
}

/// The new run stands, and is not to go for whatever has the old one's name.
#[test]
fn what_takes_the_place_of_a_run_that_was_replaced_is_moved_away() {
    let scratch = one_owner();
    let (old, _) = there(&scratch);
    owners_work(&scratch).done();
    fs::create_dir(scratch.path(STORE).join("runs").join(&old)).unwrap();
    let stuck = owners_work(&scratch);
    stuck.refused(1, &format!("runs/{old} is what is too much"));
    let told = commands(&stuck);
    pasted(&scratch, told.first().unwrap()).done();
    owners_work(&scratch).done();
    is_whole(&scratch);
}

/// It was replaced by another one meanwhile, or moved out.
#[test]
fn what_is_made_in_the_place_of_a_run_that_is_gone_is_given_up() {
    let scratch = two_of_three();
    let (old, _) = there(&scratch);
    fs::rename(scratch.path(STORE).join("runs").join(&old), scratch.path("moved out")).unwrap();
    let stuck = scratch.run(&["rekey", STORE, "--identity", "req.worker", "--state", "elsewhere"]);
    stuck.refused(1, &format!("run {old} is not there any more"));
    let told = commands(&stuck);
    assert!(told.len() == 1 && told[0].starts_with("mv "), "{}", stuck.all());
    pasted(&scratch, &told[0]).done();
    let done =
        scratch.run(&["rekey", STORE, "--identity", "req.worker", "--state", "elsewhere"]).done().out();
    assert!(done.contains("was erased"), "{done}");
}

/// The other message: that it is under way, to whoever asks for it once more.
#[test]
fn what_is_given_up_by_the_one_who_asks_again_is_agreed_on_anew() {
    let scratch = two_of_three();
    let (old, _) = there(&scratch);
    let propose = ["custody", "propose", STORE, "rekey", &old, "--out", "anew"];
    let refused = scratch.run(&propose);
    refused.refused(1, "is being re-keyed already");
    let told = commands(&refused);
    let is_mv = |line: &&String| line.starts_with("mv ");
    assert_eq!(told.iter().filter(is_mv).count(), 1, "{}", refused.all());
    pasted(&scratch, told.iter().find(is_mv).unwrap()).done();
    scratch.run(&propose).done();
}

fn two_of_three() -> Scratch {
    let scratch = agreeing::vault(&["alice", "bob", "carol", "lab"]);
    agree(&scratch, "add-reader lab=lab.key.pub --standing", ["alice", "bob"]);
    agreeing::enroll(&scratch, "machine");
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", TEXT);
    run(&scratch, "cp -r run store:/ --identity lab.key").done();
    run(&scratch, "seal store run").done();
    let id = scratch.runs().pop().unwrap();
    agree(&scratch, &format!("rekey {id}"), ["alice", "bob"]);
    fs::rename(scratch.path("store"), scratch.path(STORE)).unwrap();
    for made in ["req", "req.executor"] {
        let _ = fs::remove_file(scratch.path(made));
    }
    scratch
}

#[test]
fn several_custodians_have_a_way_out_of_whatever_is_planted() {
    let scratch = two_of_three();
    fs::rename(scratch.path("req.worker"), scratch.path("worker")).unwrap();
    each_planted(&scratch, &PLANTS, |old, ends| {
        for made in ["REQ", "REQ.executor", "REQ.worker", "alice.ok", "bob.ok"] {
            let _ = fs::remove_file(scratch.path(made));
        }
        copy(&scratch, "worker", "first");
        ends(&scratch.run(&["rekey", STORE, "--identity", "first", "--grace", "0s"]));
        let worker = if scratch.path("REQ").exists() { "REQ.worker" } else { "first" };
        if worker == "REQ.worker" {
            for one in ["alice", "bob"] {
                run(
                    &scratch,
                    &format!("custody approve REQ --identity {one}.key --out {one}.ok --yes --instead"),
                )
                .done();
            }
            let approvals = ["--approval", "alice.ok", "--approval", "bob.ok"];
            scratch.run(&[&["custody", "execute", STORE, "REQ"], &approvals[..]].concat()).done();
        }
        scratch.run(&["rekey", STORE, "--identity", worker, "--grace", "0s"]).done();
        let (stands, coming) = there(&scratch);
        assert!(stands != old && coming.is_empty(), "{stands} {coming}");
        let read = scratch.run(&["cat", STORE, "run/RunInfo.xml", "--identity", "lab.key"]);
        assert_eq!(read.out(), TEXT, "{}", read.all());
    });
}
