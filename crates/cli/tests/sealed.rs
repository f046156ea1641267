//! What someone takes away from a sealed run in the store is named, with exit 4.

use std::fs;
use std::path::PathBuf;

use crate::common::Scratch;

/// A store with one sealed run; the run's directory.
fn sealed(scratch: &Scratch) -> PathBuf {
    scratch.vault();
    scratch.folder("run");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    scratch.run(&["cp", "-r", "run", "store:/", "--identity", "owner.key"]).done();
    scratch.run(&["seal", "store", "run"]).done();
    let runs = fs::read_dir(scratch.path("store/runs")).expect("runs");
    let sealed = runs.map(|run| run.expect("a run").path()).find(|run| run.join("seal").exists());
    sealed.expect("a sealed run")
}

/// What would only be refused next is no way out.
#[test]
fn what_is_copied_onto_a_sealed_run_is_not_advised_to_be_forced() {
    let scratch = Scratch::new();
    sealed(&scratch);
    let cp = |from: &str| scratch.run(&["cp", "-r", from, "store:/", "--identity", "owner.key"]);
    let refused = cp("run");
    refused.refused(1, "run/RunInfo.xml: exists").refused(1, "what is sealed stays as it is");
    scratch.folder("open");
    scratch.secret("open/file", "x");
    cp("open").done();
    cp("open").refused(1, "cp --force overwrites");
}

/// With --run-depth 2 a run's name has its folder's before it.
#[test]
fn a_run_below_a_folder_is_named_to_who_leaves_the_folder_out() {
    let scratch = Scratch::new();
    scratch.vault();
    for run in ["novaseq/one", "novaseq/two", "miseq/two"] {
        scratch.folder(run);
        scratch.secret(&format!("{run}/RunInfo.xml"), "<RunInfo/>");
    }
    for folder in ["novaseq", "miseq"] {
        let cp = ["cp", "-r", "--run-depth", "2", folder, "store:/", "--identity", "owner.key"];
        scratch.run(&cp).done();
    }
    let owner = ["--identity", "owner.key"];
    let verify = |run| scratch.run(&[&["verify", "store", run][..], &owner].concat());
    scratch.run(&["seal", "store", "one"]).refused(1, "is it novaseq/one?");
    scratch.run(&["seal", "store", "two"]).refused(1, "runvault runs store");
    scratch.run(&[&["takeover", "store", "one"][..], &owner].concat()).refused(1, "is it novaseq/one?");
    scratch.run(&["seal", "store", "novaseq/one"]).done();
    verify("one").refused(1, "is it novaseq/one?");
    verify("ne").refused(1, "runvault runs store");
    verify("novaseq/one").done();
}

const VERIFY: [&str; 5] = ["verify", "store", "run", "--identity", "owner.key"];

#[test]
fn a_part_of_a_seal_that_was_removed_is_named() {
    let scratch = Scratch::new();
    let seal = sealed(&scratch).join("seal");
    for part in ["seal.note", "manifest", "pins", "digests"] {
        let good = fs::read(seal.join(part)).expect("a part");
        fs::remove_file(seal.join(part)).expect("removed");
        let by_id =
            [&VERIFY[..2], &[seal.parent().unwrap().file_name().unwrap().to_str().unwrap()], &VERIFY[3..]]
                .concat();
        scratch.run(&by_id).refused(4, part);
        assert_eq!(scratch.run(&["scrub", "store"]).code, 4, "{part}");
        fs::write(seal.join(part), good).expect("restored");
    }
    let (run, nobody) = (seal.parent().unwrap(), format!("keys/reader-{}", "7".repeat(32)));
    fs::copy(run.join("keys/vault-1"), scratch.path("envelope")).expect("an envelope");
    for planted in ["seal/more", "more", "journal", "keys/more", "keys/vault-2", &nobody] {
        fs::copy(scratch.path("envelope"), run.join(planted)).expect("planted");
        for command in [&VERIFY[..], &["scrub", "store"]] {
            let said = scratch.run(command);
            let named = said.out().contains(&format!("{planted}: added: it was not sealed"));
            assert!(said.code == 4 && named, "{command:?}: {}", said.all());
        }
        fs::remove_file(run.join(planted)).expect("removed");
    }
    // What NFS keeps of what was deleted while it was open speaks against nothing, and goes as it is told.
    let name = run.strip_prefix(scratch.path("store")).unwrap().join("keys/.nfs000000000012ab3400000001");
    fs::write(scratch.path("store").join(&name), "deleted").expect("left");
    for command in [&["scrub", "store"], &VERIFY[..]] {
        let said = scratch.run(command).done().out();
        assert!(said.contains(&format!(". Clear it: rm store/{}\n", name.display())), "{said}");
        assert!(said.contains("as signed") || said.contains("sealed it on"), "{said}");
    }
    let said = scratch.run(&["scrub", "store", "--json"]).done().out();
    assert!(said.contains("\"change\":\"left-over\"") && said.contains("\"findings\":0"), "{said}");
    fs::remove_file(scratch.path("store").join(name)).expect("cleared");
    assert!(!scratch.run(&["scrub", "store"]).done().out().contains("left over"));
    scratch.run(&VERIFY).done();
}

/// A directory may be wider than a process may have files open.
#[test]
fn nothing_of_a_wide_run_is_passed_over() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run");
    (0..300).for_each(|n| _ = scratch.folder(&format!("run/{n}")));
    scratch.run(&["cp", "-r", "run", "store:/", "--identity", "owner.key"]).done();
    scratch.run(&["seal", "store", "run"]).done();
    let runs = fs::read_dir(scratch.path("store/runs")).expect("runs");
    let tree = runs.map(|run| run.expect("a run").path().join("tree")).find(|tree| tree.exists());
    let entries = fs::read_dir(tree.expect("a tree")).expect("a tree").flatten().map(|entry| entry.path());
    let wide: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert_eq!(wide.len(), 300);
    wide.iter().for_each(|dir| fs::write(dir.join("more"), b"x").expect("planted"));
    let program = scratch.command(&["scrub", "store"]);
    let mut command = std::process::Command::new("prlimit");
    command.args(["--nofile=128:128"]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = command.current_dir(scratch.path("")).output().expect("prlimit");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.lines().filter(|line| line.contains("added: it was not sealed")).count(), 300, "{said}");
}

#[test]
fn a_seal_that_was_removed_is_missed_where_it_was_seen() {
    let scratch = Scratch::new();
    let run = sealed(&scratch);
    fs::rename(run.join("seal"), scratch.path("seal")).expect("removed");
    let scrubbed = scratch.run(&["scrub", "store"]);
    assert!(scrubbed.code == 4 && scrubbed.out().contains("its seal was removed"), "{}", scrubbed.all());
    let shown = scratch.run(&["runs", "store"]);
    assert!(shown.done().out().contains("its seal was removed"), "{}", shown.all());
    let id = run.file_name().unwrap().to_str().unwrap();
    scratch.run(&["verify", "store", id, "--identity", "owner.key"]).refused(4, "its seal was removed");
    scratch.run(&VERIFY).refused(4, "its seal was removed").refused(4, "runvault verify store ID");
    // Who has never seen it takes the run for one that was not sealed yet.
    scratch.run(&["scrub", "store", "--state", "elsewhere"]).done();
}

/// The machine that made it has its key no more.
#[test]
fn a_sealed_run_without_any_envelope_is_named() {
    let scratch = Scratch::new();
    let run = sealed(&scratch);
    scratch.run(&["scrub", "store"]).done();
    for (folder, said) in [("keys", "keys: missing"), ("seal", "seal/vault-1: missing")] {
        fs::remove_file(run.join(folder).join("vault-1")).expect("removed");
        let scrubbed = scratch.run(&["scrub", "store"]);
        assert!(scrubbed.code == 4 && scrubbed.out().contains(said), "{}", scrubbed.all());
    }
    scratch.run(&VERIFY).refused(4, "no envelope to a key of this vault is there");
}

/// A lower bound: whoever is slower anyway keeps it too.
#[test]
fn reading_a_whole_run_keeps_the_pace_that_is_asked_for() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run");
    fs::write(scratch.path("run/data"), vec![7; 3 << 20]).expect("a file");
    scratch.run(&["cp", "-r", "run", "store:/", "--identity", "owner.key"]).done();
    scratch.run(&["seal", "store", "run"]).done();
    for command in [&VERIFY[..], &["scrub", "store"]] {
        let began = std::time::Instant::now();
        scratch.run(&[command, &["--limit", "2"]].concat()).done();
        assert!(
            began.elapsed() > std::time::Duration::from_millis(1400),
            "{command:?}: {:?}",
            began.elapsed()
        );
        scratch.run(&[command, &["--limit", "0"]].concat()).refused(2, "--limit");
    }
}

/// Whoever has the disk removes what was prepared for one, and puts what is none of ours beside what is done.
#[test]
fn a_run_that_cannot_be_rekeyed_keeps_no_other_from_it() {
    let scratch = Scratch::new();
    let lost = sealed(&scratch).file_name().unwrap().to_str().unwrap().to_owned();
    scratch.folder("other");
    scratch.run(&["cp", "-r", "other", "store:/", "--identity", "owner.key"]).done();
    scratch.run(&["seal", "store", "other"]).done();
    let agree = |run| scratch.run(&["custody", "rekey", "store", run, "--identity", "owner.key"]);
    agree("run").done();
    let runs = scratch.path("store/runs");
    let names = || fs::read_dir(&runs).unwrap().map(|run| run.unwrap().file_name().into_string().unwrap());
    fs::remove_dir_all(runs.join(names().find(|name| name.starts_with(".new-")).unwrap())).unwrap();
    agree("other").done();
    let work = ["rekey", "store", "--grace", "0s", "--identity", "owner.key"];
    let done = scratch.run(&work);
    done.refused(1, &format!("run {lost}: ")).refused(1, "1 of 2 runs could not be re-keyed");
    assert_eq!(done.out().matches("has a new key, as run").count(), 1, "{}", done.all());
    // What came to nothing may come first by its id; it is not what waits.
    agree("run").done();
    let done = scratch.run(&work).done().out();
    assert_eq!(done.matches("has a new key, as run").count(), 1, "{done}");
    assert!(done.contains(&format!("run {lost} has a new key")), "{done}");
    let gone = runs.join(format!(".gone-{lost}"));
    fs::create_dir_all(gone.join("lease")).unwrap();
    fs::write(gone.join("keys"), "planted").unwrap();
    scratch.run(&["rekey", "store"]).done();
    assert!(!gone.exists());
}

/// Whoever has the disk puts it there, and something in the new run, which is not whole then.
#[test]
fn what_stays_of_an_old_run_is_told_until_it_is_gone() {
    let scratch = Scratch::new();
    let old = sealed(&scratch).file_name().unwrap().to_str().unwrap().to_owned();
    scratch.run(&["custody", "rekey", "store", "run", "--identity", "owner.key"]).done();
    scratch.run(&["rekey", "store", "--grace", "0s", "--identity", "owner.key"]).done();
    let (runs, new) = (scratch.path("store/runs"), scratch.runs().remove(0));
    let (gone, stray) = (runs.join(format!(".gone-{old}")), runs.join(new).join("stray"));
    fs::create_dir(&gone).unwrap();
    fs::write(gone.join("run.json"), "planted").unwrap();
    fs::write(&stray, "planted").unwrap();
    for key in [&[][..], &["--identity", "owner.key"]] {
        scratch
            .run(&[&["rekey", "store"], key].concat())
            .refused(4, &format!("runs/.gone-{old}: it stays"))
            .refused(4, "what is left beside 1 re-keyed run stays")
            .refused(4, "runvault scrub store");
    }
    let due = scratch.run(&["custody", "list", "store"]).done().out();
    assert!(due.contains("due: what is left beside run"), "{due}");
    fs::remove_file(stray).unwrap();
    scratch.run(&["rekey", "store"]).done();
    assert!(!gone.exists());
}

#[test]
fn a_run_that_is_rekeyed_by_its_name_takes_along_what_was_added() {
    let scratch = Scratch::new();
    let old = sealed(&scratch).file_name().unwrap().to_str().unwrap().to_owned();
    let runs = || {
        let names = fs::read_dir(scratch.path("store/runs")).unwrap().map(|run| run.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| name.len() == 32).collect::<Vec<_>>()
    };
    scratch.folder("more");
    scratch.secret("more/results", "variants");
    scratch.run(&["cp", "-r", "more", "store:/run", "--identity", "owner.key"]).done();
    let added = runs().into_iter().find(|run| *run != old).expect("what was added");
    let agree = ["custody", "rekey", "store", "run", "--identity", "owner.key"];
    scratch.run(&agree).refused(1, &format!("run {added} is not sealed"));
    scratch.run(&["seal", "store", &added]).done();
    let said = scratch.run(&agree).done().out();
    assert!(said.contains("2 runs get new keys"), "{said}");
    assert!(said.contains("runvault rekey store --identity owner.key"), "{said}");
    let listed = scratch.run(&["custody", "list", "store"]).done().out();
    assert_eq!(listed.matches("waits for its new key: runvault rekey store").count(), 2, "{listed}");
    let work = ["rekey", "store", "run", "--grace", "0s", "--identity", "owner.key"];
    let done = scratch.run(&work).done().out();
    assert_eq!(done.matches("has a new key, as run").count(), 2, "{done}");
    assert!(runs().iter().all(|run| *run != old && *run != added), "{:?}", runs());
    let again = scratch.run(&work).done().out();
    assert_eq!(again.matches("was re-keyed before: it is run").count(), 2, "{again}");
    let none = ["rekey", "store", "--json", "--identity", "owner.key"];
    assert_eq!(scratch.run(&none).done().out(), "");
    // The old id is read under the new one; nothing is done to it.
    let verified = scratch.run(&["verify", "store", &old, "--identity", "owner.key"]);
    assert!(
        verified.done().all().contains(&format!("run {old} was re-keyed: it is run ")),
        "{}",
        verified.all()
    );
    for act in [&["custody", "rekey"][..], &["custody", "retire"], &["retire"]] {
        let act = [act, &["store", &old, "--identity", "owner.key"]].concat();
        scratch.run(&act).refused(1, "was re-keyed: it is run ");
    }
    let unknown = "0".repeat(32);
    scratch.run(&["verify", "store", &unknown, "--identity", "owner.key"]).refused(1, "there is no run");
}
