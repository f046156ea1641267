//! A run from its first byte to its seal, as an instrument's machine goes through it, and what people do then.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::models::MODELS;
use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::making::of_few_cycles;
use runvault_tests::tools::{output, printed, run, runvault, tool};
use runvault_tests::{Mount, Site};
use rustix::process::{Pid, Signal, kill_process};

/// A whole generated run in a gateway's mount; its name.
fn sequenced(at: &Path) -> String {
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let done = Replay::new(spec).run(at, &mut |_| {}).expect("a run");
    done.folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// `runvault seal`, which is given no key.
fn seal(site: &Site, name: &str) -> Output {
    let mut command = Command::new(runvault());
    output(command.args(["seal", "--json", "--state"]).arg(&site.state).arg(&site.store).arg(name))
}

fn said(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", printed(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut stack) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() { stack.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn a_run_is_sealed_under_a_live_mount_and_opens_for_the_owner_alone() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    let tailing = fs::File::open(mount.path(&name).join("RunInfo.xml")).expect("an open file");
    let refused = seal(&site, &name);
    assert_eq!(refused.status.code(), Some(5), "{}", printed(&refused));
    assert!(printed(&refused).contains("is open"), "{}", printed(&refused));
    drop(tailing);
    let facts = said(&seal(&site, &name));
    assert_eq!((&facts["n"], &facts["complete"]), (&1.into(), &true.into()), "{facts}");
    assert_eq!(facts["family"], "novaseq-x");
    // Nothing of it is left where it was written, also not in the kernel's memory.
    let until = Instant::now() + Duration::from_secs(20);
    while fs::read(mount.path(&name).join("RunInfo.xml")).is_ok() {
        assert!(Instant::now() < until, "the gateway still reads it");
        std::thread::sleep(Duration::from_millis(50));
    }
    let again = seal(&site, &name);
    assert!(printed(&again).contains("this machine holds no run"), "{}", printed(&again));
    fs::create_dir(mount.path("next")).expect("the next run");
    mount.unmount();

    let verified = run(site.command(&["verify"]).arg(&site.store).arg(&name));
    assert!(printed(&verified).contains("is as gateway"), "{}", printed(&verified));
    let scrubbed =
        run(Command::new(runvault()).arg("scrub").arg(&site.store).arg("--state").arg(&site.state));
    assert!(
        printed(&scrubbed).contains("1 sealed run as signed; 1 run not sealed"),
        "{}",
        printed(&scrubbed)
    );
    // sha256sum(1) in a mount of the run agrees with what was signed.
    let sums = run(site.command(&["manifest", "--sha256sums"]).arg(&site.store).arg(&name));
    let list = site.dir().join("sums");
    fs::write(&list, &sums.stdout).expect("a file");
    let reader = site.mount_read_only();
    let checked =
        output(Command::new("sha256sum").arg("--quiet").arg("-c").arg(&list).current_dir(reader.path(&name)));
    assert!(checked.status.success(), "{}", printed(&checked));
    assert_eq!(
        String::from_utf8_lossy(&sums.stdout).lines().count() as u64,
        facts["files"].as_u64().unwrap()
    );
    let refused = fs::write(reader.path(&name).join("new"), b"x").expect_err("a sealed run");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    reader.unmount();
}

/// `runvault runs` with these options, an object for each run.
fn runs(mut command: Command, site: &Site) -> Vec<serde_json::Value> {
    let said = run(command.args(["runs", "--json"]).arg(&site.store).arg("--state").arg(&site.state));
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    let objects = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    // Alarms are about this machine too.
    objects.filter(|object| object.get("alarm").is_none()).collect()
}

#[test]
fn how_far_a_run_is_shows_from_its_first_cycle_to_its_seal() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--quiet").arg("1h").mount();
    let keyless = || runs(Command::new(runvault()), &site);
    assert!(keyless().is_empty());
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let cycles = spec.cycles();
    let mut seen = None;
    let done = Replay::new(spec)
        .run(&mount.at, &mut |event| {
            if event.cycle == 40 && seen.is_none() {
                seen = Some(keyless().remove(0));
            }
        })
        .expect("a run");
    let name = done.folder.file_name().expect("a name").to_str().expect("UTF-8");
    let seen = seen.expect("a cycle");
    assert_eq!((&seen["name"], &seen["state"]), (&name.into(), &"open".into()), "{seen}");
    assert_eq!((&seen["cycles"], &seen["complete"]), (&cycles.into(), &serde_json::Value::Null), "{seen}");
    assert!((30..=41).contains(&seen["cycle"].as_u64().expect("a cycle")), "{seen}");
    assert!(seen["waits_for"].as_str().is_some_and(|what| what.starts_with("cycle ")), "{seen}");
    let lacking = "Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl";
    fs::remove_file(mount.path(name).join(lacking)).expect("removed");
    let over = keyless().remove(0);
    let here: u64 =
        files_below(&mount.path(name)).iter().map(|f| fs::metadata(f).expect("a file").len()).sum();
    assert_eq!(
        (&over["state"], &over["bytes"], &over["cycle"]),
        (&"complete".into(), &here.into(), &cycles.into())
    );
    assert_eq!((&over["complete"], &over["waits_for"]), (&false.into(), &"1h without a change".into()));
    assert_eq!(over["named"], serde_json::json!(["L001 C3.1 surface 2"]));
    let table = run(Command::new(runvault()).arg("runs").arg(&site.store).arg("--state").arg(&site.state));
    assert!(printed(&table).contains("incomplete: L001 C3.1 surface 2"), "{}", printed(&table));
    said(&seal(&site, name));
    // Here it is a run without a name from now on; its owner sees all.
    let sealed = keyless().remove(0);
    assert_eq!((&sealed["state"], &sealed["name"]), (&"sealed".into(), &serde_json::Value::Null), "{sealed}");
    assert_eq!((&sealed["bytes"], &sealed["files"]), (&here.into(), &over["files"]));
    let owners = || {
        let mut command = Command::new(runvault());
        command.arg("runs").arg("--json").arg("--identity").arg(&site.identity);
        let said = run(command.arg("--state").arg(&site.state).arg(&site.store));
        serde_json::from_slice::<serde_json::Value>(&said.stdout).expect("JSON")
    };
    let owned = owners();
    assert_eq!((&owned["name"], &owned["complete"]), (&name.into(), &false.into()), "{owned}");
    assert_eq!(owned["named"], over["named"]);
    mount.unmount();
    assert_eq!(keyless().remove(0)["state"], "sealed");
    // What is signed about it is verified before it is shown.
    let id = owned["run"].as_str().expect("an id");
    let note = site.store.join("runs").join(id).join("seal/seal.note");
    let text = fs::read_to_string(&note).expect("a note");
    fs::write(&note, text.replacen("\"bytes\":", "\"bytes\":1", 1)).expect("changed");
    for shown in [keyless().remove(0), owners()] {
        assert_eq!(
            (&shown["state"], &shown["bytes"]),
            (&"damaged".into(), &serde_json::Value::Null),
            "{shown}"
        );
    }
}

#[test]
fn what_an_incomplete_run_lacks_is_said_in_its_seal() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let lacking = "Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl";
    let mount = site.ingest().mount();
    fs::remove_file(mount.path(&name).join(lacking)).expect("removed");
    mount.unmount();
    // Without a mount it is sealed as well.
    let facts = said(&seal(&site, &name));
    assert_eq!(facts["complete"], false, "{facts}");
    assert_eq!(facts["named"], serde_json::json!(["L001 C3.1 surface 2"]));
    let verified = run(site.command(&["verify", "--json"]).arg(&site.store).arg(&name));
    let summary: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!((&summary["about"]["missing"], &summary["summary"]["findings"]), (&1.into(), &0.into()));
}

/// At the read, before anybody verifies: one file of the run is an error by pread and where it is mapped, and an event.
fn assert_unreadable(mount: &Mount, name: &str, stored: &str) {
    let read = |path: &PathBuf| fs::File::open(path).and_then(|file| file.read_at(&mut [0; 4096], 0));
    let failed = |path: &PathBuf| read(path).is_err_and(|e| e.raw_os_error() == Some(libc::EIO));
    let files = files_below(&mount.path(name));
    let bad: Vec<_> = files.iter().filter(|path| failed(path)).collect();
    assert_eq!(bad.len(), 1, "{bad:?} of {}", files.len());
    let program = "import mmap, sys; f = open(sys.argv[1], 'rb'); print(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[0])";
    let mapped = output(Command::new(tool("python/bin/python")).args(["-c", program]).arg(bad[0]));
    assert_eq!(mapped.status.signal(), Some(libc::SIGBUS), "{}", printed(&mapped));
    let log = mount.log();
    let event = log.lines().find(|line| line.contains("a sealed run is not as it was sealed"));
    // Where it is in the tree is not spelt out, its stored name is.
    let stored = Path::new(stored).file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(event.is_some_and(|line| line.contains(stored)), "{log}");
}

#[test]
fn who_changes_a_sealed_run_in_the_store_is_found_out_by_name() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let facts = said(&seal(&site, &name));
    let dir = site.store.join("runs").join(facts["run"].as_str().expect("an id"));
    let files = files_below(&dir.join("tree"));
    let file = files.iter().max_by_key(|file| fs::metadata(file).expect("stat").len()).expect("a file");
    let open = fs::OpenOptions::new().read(true).write(true).open(file).expect("a stored file");
    let before = open.metadata().and_then(|meta| meta.modified()).expect("its time");
    let mut byte = [0];
    open.read_exact_at(&mut byte, 2000).expect("read");
    open.write_all_at(&[byte[0] ^ 1], 2000).expect("written");
    let stored = file.strip_prefix(&dir).expect("below").display().to_string();
    let scrubbed =
        output(Command::new(runvault()).arg("scrub").arg(&site.store).arg("--state").arg(&site.state));
    assert_eq!(scrubbed.status.code(), Some(4), "{}", printed(&scrubbed));
    assert!(
        printed(&scrubbed).contains(&format!("{stored}: changed: stored bytes")),
        "{}",
        printed(&scrubbed)
    );
    let verified = output(site.command(&["verify"]).arg(&site.store).arg(&name));
    assert_eq!(verified.status.code(), Some(4), "{}", printed(&verified));
    assert!(printed(&verified).contains("damaged: chunk 0 does not authenticate"), "{}", printed(&verified));
    assert_unreadable(&site.mount_read_only(), &name, &stored);
    open.write_all_at(&byte, 2000).expect("put back");
    let late = printed(&output(site.command(&["verify"]).arg(&site.store).arg(&name)));
    assert!(late.contains("changed: time"), "{late}");
    open.set_modified(before).expect("its time too");
    run(site.command(&["verify"]).arg(&site.store).arg(&name));
}

/// Between write and seal the store is someone else's.
#[test]
fn a_run_that_was_changed_before_its_seal_is_not_signed() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let name = sequenced(&mount.at);
    mount.unmount();
    let runs: Vec<_> = fs::read_dir(site.store.join("runs")).expect("runs").flatten().collect();
    let file = files_below(&runs[0].path().join("tree"));
    let file = file.iter().max_by_key(|file| fs::metadata(file).expect("stat").len()).expect("a file");
    let mut bytes = fs::read(file).expect("stored");
    bytes[1500] ^= 1;
    fs::write(file, bytes).expect("changed");
    let refused = seal(&site, &name);
    assert_eq!(refused.status.code(), Some(4), "{}", printed(&refused));
    for says in ["was not sealed: 1 object", "does not authenticate", "MetricsOut.bin"] {
        assert!(printed(&refused).contains(says), "{says}: {}", printed(&refused));
    }
    assert!(!runs[0].path().join("seal").exists());
    let mount = site.ingest().mount();
    fs::write(mount.path(&name).join("more"), b"it is still open").expect("written");
    mount.unmount();
}

/// Every family, and the models that write otherwise: all through one gateway, at once.
#[test]
fn each_family_is_sealed_by_its_last_marker_once_it_is_quiet() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("-o").arg("quiet=3s,drained=8s").mount();
    let families = FAMILIES.map(|family| RunSpec::preset(family, Size::Tiny)).into_iter();
    let specs = families.chain(MODELS.iter().map(|model| model.preset(Size::Tiny)));
    let specs: Vec<_> = specs.map(of_few_cycles).collect();
    let begun = |spec: &RunSpec| {
        let done = Replay::new(spec.clone()).run(&mount.at, &mut |_| {}).expect("a run");
        // What is re-sent after the end belongs to it.
        let sent_late = done.folder.join("RunInfo.xml");
        let bytes = fs::read(&sent_late).expect("read");
        fs::write(&sent_late, bytes).expect("sent again");
        fs::write(done.folder.join("late.txt"), b"came late").expect("sent late");
    };
    std::thread::scope(|scope| specs.iter().for_each(|spec| drop(scope.spawn(move || begun(spec)))));
    mount.logged("is sealed: seal ", specs.len());
    assert!(mount.log().contains("complete; it is sealed when it was quiet for 3 s"), "{}", mount.log());
    mount.unmount();
    for spec in &specs {
        let (about, profile) = (site.verified(spec.name.as_ref()), spec.family.profile());
        let marked = profile.last.iter().find(|last| spec.markers.contains(last));
        let ended = marked.map_or_else(|| "silence".to_owned(), |marker| marker.file_name());
        assert_eq!((&about["complete"], &about["family"]), (&true.into(), &profile.name.into()), "{about}");
        assert_eq!(about["ended"], ended, "{}: {about}", spec.name);
    }
    let late = run(site.command(&["cat"]).arg(&site.store).arg(format!("{}/late.txt", specs[0].name)));
    assert_eq!(late.stdout, b"came late");
}

/// A run of one large file.
fn large(at: &Path, name: &str, mib: usize) {
    fs::create_dir(at.join(name)).expect("a run");
    let mut bytes = vec![0; mib << 20];
    rustix::rand::getrandom(&mut bytes[..256], rustix::rand::GetRandomFlags::empty()).expect("bytes");
    fs::write(at.join(name).join("large"), bytes).expect("a file");
}

/// `runs` says so of one.
fn await_sealing(site: &Site) {
    let until = Instant::now() + Duration::from_secs(30);
    while runs(Command::new(runvault()), site).iter().all(|run| run["state"] != "sealing") {
        assert!(Instant::now() < until, "nothing is sealed");
    }
}

#[test]
fn who_asks_while_a_run_is_sealed_is_told_and_ctrl_c_gives_it_up() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().args(["--quiet", "200ms", "--seal-limit", "8"]).mount();
    large(&mount.at, "by hand", 40);
    large(&mount.at, "by itself", 24);
    let begun = Instant::now();
    fs::write(mount.path("by itself/CopyComplete.txt"), b"").expect("a marker");
    await_sealing(&site);
    let refused = seal(&site, "by hand");
    assert_eq!(refused.status.code(), Some(5), "{}", printed(&refused));
    for says in ["is being sealed, and there is one seal at a time", "of by itself "] {
        assert!(printed(&refused).contains(says), "{}", printed(&refused));
    }
    mount.logged("is sealed: seal 1 of this gateway", 1);
    assert!(begun.elapsed() >= Duration::from_millis(2500), "24 MiB at 8 MiB/s, in {:?}", begun.elapsed());

    let mut command = Command::new(runvault());
    command.args(["seal", "--limit", "4", "--state"]).arg(&site.state).arg(&site.store).arg("by hand");
    let asking = command.stderr(Stdio::piped()).spawn().expect("seal");
    await_sealing(&site);
    let refused = seal(&site, "by hand");
    assert!(printed(&refused).contains("run by hand is being sealed"), "{}", printed(&refused));
    kill_process(Pid::from_child(&asking), Signal::INT).expect("Ctrl-C");
    let ended = asking.wait_with_output().expect("seal");
    assert_eq!(ended.status.code(), Some(1), "{}", printed(&ended));
    for says in ["interrupted", "nothing was signed", "The same command goes on"] {
        assert!(printed(&ended).contains(says), "{}", printed(&ended));
    }
    mount.logged("its seal is given up: whoever asked for it has gone", 1);
    // It is as it was.
    fs::write(mount.path("by hand/more"), b"it is still open").expect("written");
    let mut command = Command::new(runvault());
    command.args(["seal", "--json", "--limit", "4000", "--state"]).arg(&site.state);
    assert_eq!(said(&output(command.arg(&site.store).arg("by hand")))["files"], 2);
    mount.unmount();
}

#[test]
fn silence_seals_a_whole_run_and_never_half_of_one() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("-o").arg("quiet=1s,drained=3s").mount();
    let name = sequenced(&mount.at);
    let folder = mount.path(&name);
    fs::remove_file(folder.join("CopyComplete.txt")).expect("the last marker");
    let call = folder.join("Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl");
    let bytes = fs::read(&call).expect("read");
    fs::remove_file(&call).expect("half a run");
    mount.logged("base calling has ended; files are still sent", 1);
    mount.logged("it was quiet for long and is not complete", 1);
    // That it was not sealed changes nothing: who has to decide is told once.
    mount.logged("alarm incomplete raised", 1);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(mount.log().matches("alarm incomplete").count(), 1, "{}", mount.log());
    let waits = runs(Command::new(runvault()), &site).remove(0);
    assert!(waits["waits_for"].as_str().is_some_and(|what| what.starts_with("a person: ")), "{waits}");
    // Whoever names a key sees the same alarms.
    let mut owners = Command::new(runvault());
    owners.args(["runs", "--json", "--identity"]).arg(&site.identity).arg("--state").arg(&site.state);
    let owners = printed(&run(owners.arg(&site.store)));
    assert!(owners.contains("\"alarm\":\"incomplete\""), "{owners}");
    assert!(folder.join("RunInfo.xml").exists() && !mount.log().contains("is sealed"), "{}", mount.log());
    mount.unmount();
    let waits = runs(Command::new(runvault()), &site).remove(0);
    assert_eq!(waits["state"], "open", "{waits}");
    assert!(waits["waits_for"].as_str().is_some_and(|what| what.starts_with("a mount: ")), "{waits}");
    // The rest comes, and then nothing more.
    let mount = site.ingest().arg("-o").arg("quiet=1s,drained=3s").mount();
    fs::write(mount.path(&name).join("Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl"), bytes)
        .expect("sent");
    mount.logged("is sealed: seal 1 of this gateway", 1);
    mount.unmount();
    let about = site.verified(name.as_ref());
    assert_eq!((&about["complete"], &about["ended"]), (&true.into(), &"silence".into()));
}

#[test]
fn a_run_is_left_open_where_people_seal_by_hand_or_no_marker_came() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").arg("--quiet").arg("100ms").mount();
    let name = sequenced(&mount.at);
    std::thread::sleep(Duration::from_secs(2));
    assert!(mount.path(&name).join("RunInfo.xml").exists());
    mount.unmount();
    let mount = site.ingest().arg("--quiet").arg("100ms").arg("--drained").arg("100ms").mount();
    fs::create_dir(mount.path("240101_NB501_0001_AHXXX")).expect("a run");
    fs::write(mount.path("240101_NB501_0001_AHXXX/RunInfo.xml"), b"x").expect("its first file");
    mount.logged("is sealed: seal 1 of this gateway", 1);
    std::thread::sleep(Duration::from_secs(2));
    assert!(mount.path("240101_NB501_0001_AHXXX/RunInfo.xml").exists(), "it is being sequenced");
    assert_eq!(mount.log().matches("is sealed:").count(), 1, "{}", mount.log());
    mount.unmount();
}
