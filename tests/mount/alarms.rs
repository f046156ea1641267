//! Alarms of a gateway's mount, by all the ways in which they are told: log, program, `runs`, metrics.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::image::Image;
use runvault_tests::keeper::{Keeper, variable};
use runvault_tests::making::of_few_cycles;
use runvault_tests::tools::{output, printed, root_for, run, runvault, tool};
use runvault_tests::{Mount, Site};
use serde_json::Value;

/// What a run may be named by someone who means harm.
const HOSTILE: &[u8] = b"240101_Mueller_$(touch made)_\x1b[2J\xff\n'\"";

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn logged(mount: &Mount, says: &str) -> String {
    let said = || mount.log().lines().find(|line| line.contains(says)).map(str::to_owned);
    eventually(&format!("{says:?} was never logged"), said)
}

/// `runvault runs` on the gateway, to be completed.
fn runs(site: &Site) -> Command {
    let mut command = Command::new(runvault());
    command.args(["runs", "--state"]).arg(&site.state).arg(&site.store);
    command
}

/// What `runs --json` says that is an alarm about a run; this machine may be slow, or full, too.
fn alarms(site: &Site) -> Vec<Value> {
    let said = run(runs(site).arg("--json"));
    let lines = String::from_utf8(said.stdout).expect("UTF-8");
    let objects = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    objects.filter(|object| object.get("alarm").is_some() && object["run"].is_string()).collect()
}

fn id_of_the_run(site: &Site) -> String {
    let runs: Vec<_> = fs::read_dir(site.store.join("runs")).expect("runs").flatten().collect();
    assert_eq!(runs.len(), 1);
    runs[0].file_name().to_string_lossy().into_owned()
}

/// What the program was told by that variable.
fn told(keeper: &Keeper, change: &str, name: &str) -> Option<Vec<u8>> {
    let what = format!("the program was never told of {change}");
    let environment = eventually(&what, || keeper.environment(change));
    variable(&environment, name).map(<[u8]>::to_vec)
}

/// The samples of a file of metrics, as Prometheus' own parser reads them: name, labels, value.
fn samples(file: &Path) -> Vec<(String, Value, f64)> {
    let program = "import json, sys\n\
                   from prometheus_client.parser import text_string_to_metric_families as parse\n\
                   for family in parse(open(sys.argv[1]).read()):\n    \
                       assert family.documentation and family.type in ('gauge', 'counter'), family\n    \
                       for s in family.samples: print(json.dumps([s.name, s.labels, s.value]))\n";
    let said = run(Command::new(tool("python/bin/python")).args(["-c", program]).arg(file)).stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn sample(file: &Path, name: &str, labels: &Value) -> Option<f64> {
    samples(file)
        .into_iter()
        .find(|(found, with, _)| found == name && with == labels)
        .map(|(_, _, value)| value)
}

#[test]
fn a_run_that_gets_stuck_is_told_by_every_way_and_by_its_name_in_one() {
    let site = Site::new();
    site.enroll();
    let metrics = site.dir().join("runvault.prom");
    let keeper = Keeper::new(site.dir());
    let mount = site
        .ingest()
        .arg("--exec")
        .arg(&keeper.program)
        .arg("--metrics")
        .arg(&metrics)
        .args(["--alarm-stuck", "2s", "--alarm-unsealed", "3s", "--alarm-free", "0"])
        .mount();
    let folder = mount.path(std::ffi::OsStr::from_bytes(HOSTILE));
    fs::create_dir(&folder).expect("a run");
    fs::write(folder.join("RunInfo.xml"), b"<RunInfo/>").expect("a file");
    let run_id = id_of_the_run(&site);

    let line = logged(&mount, "alarm stuck raised: ");
    assert!(line.contains(&format!("run {run_id}: nothing was written for 2")), "{line}");
    logged(&mount, "alarm unsealed raised: ");
    assert_eq!(told(&keeper, "stuck.raised", "RUNVAULT_ALARM_RUN"), Some(run_id.clone().into_bytes()));
    assert_eq!(told(&keeper, "stuck.raised", "RUNVAULT_ALARM_NAME"), Some(HOSTILE.to_vec()));
    assert_eq!(fs::read(keeper.told.join("arguments")).expect("arguments"), b"");
    let fds = fs::read_to_string(keeper.told.join("fds")).expect("its files");
    assert!(!fds.contains("/dev/fuse") && !fds.contains(site.store.to_str().expect("UTF-8")), "{fds}");

    let raised = alarms(&site);
    let words: Vec<_> = raised.iter().filter_map(|alarm| alarm["alarm"].as_str()).collect();
    assert_eq!(words, ["unsealed", "stuck"], "{raised:?}");
    assert!(raised.iter().all(|alarm| alarm["run"] == *run_id), "{raised:?}");
    let table = run(Command::new(runvault()).args(["runs", "--state"]).arg(&site.state).arg(&site.store));
    let table = printed(&table);
    assert!(
        table.contains("\nALARM     RUN") && table.contains("\\x1b[2J\u{fffd}\\x0a'\"  nothing was"),
        "{table}"
    );

    let labels = serde_json::json!({ "alarm": "stuck" });
    eventually("the metrics have no alarm", || {
        sample(&metrics, "runvault_alarms", &labels).filter(|n| *n == 1.0)
    });
    let of_run = serde_json::json!({ "run": run_id });
    assert!(sample(&metrics, "runvault_run_quiet_seconds", &of_run).is_some_and(|quiet| quiet >= 2.0));
    assert_eq!(sample(&metrics, "runvault_written_bytes_total", &serde_json::json!({})), Some(10.0));
    assert_eq!(fs::metadata(&metrics).expect("a file").permissions().mode() & 0o777, 0o644);

    // It goes on, for as long as somebody writes: once raised, once cleared.
    assert_eq!(mount.log().matches("alarm stuck raised").count(), 1, "{}", mount.log());
    eventually("the alarm was never cleared", || {
        fs::write(folder.join("more"), b"more").expect("a file");
        mount.log().contains("alarm stuck cleared").then_some(())
    });
    assert_eq!(told(&keeper, "stuck.cleared", "RUNVAULT_ALARM_STATE"), Some(b"cleared".to_vec()));
    fs::remove_dir_all(&folder).expect("the run goes");
    logged(&mount, "alarm unsealed cleared");
    eventually("alarms stay", || alarms(&site).is_empty().then_some(()));

    // Where the name must not be.
    let text = fs::read_to_string(&metrics).expect("metrics");
    for text in [&mount.log(), &text] {
        assert!(!text.contains("Mueller"), "{text}");
    }
    assert!(!keeper.told.join("made").exists() && !Path::new("made").exists());
    mount.unmount();
    assert!(!metrics.exists(), "metrics of a mount that has ended");
}

#[test]
fn a_program_that_stays_is_ended_with_all_that_it_started() {
    let site = Site::new();
    site.enroll();
    let (program, pid) = (site.dir().join("stays"), site.dir().join("pid"));
    let script =
        format!("#!/bin/sh\nsleep 600 &\necho $! > '{0}.new'\nmv '{0}.new' '{0}'\nwait\n", pid.display());
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("its mode");
    let mount = site.ingest().arg("--exec").arg(&program);
    let mount = mount.args(["--exec-limit", "1s", "--alarm-stuck", "1s", "--alarm-free", "0"]).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    logged(&mount, "alarm stuck raised: ");
    let started = eventually("the program was not run", || fs::read_to_string(&pid).ok());
    let line = logged(&mount, "the alarm program failed, for ");
    assert!(line.contains("it took too long: it was killed"), "{line}");
    let stat = PathBuf::from(format!("/proc/{}/stat", started.trim()));
    let has_ended = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    eventually("what it started lives on", || has_ended().then_some(()));
    mount.unmount();
}

#[test]
fn a_run_that_lacks_files_is_told_before_its_seal_and_after() {
    let site = Site::new();
    site.enroll();
    let metrics = site.dir().join("metrics.sock");
    let to = format!("unix:{}", metrics.display());
    let mount = site.ingest().args(["--quiet", "8s", "--metrics", &to]).mount();
    let spec = of_few_cycles(RunSpec::preset(Family::NovaSeqX, Size::Tiny));
    let done = Replay::new(spec).run(&mount.at, &mut |_| {}).expect("a run");
    let name = done.folder.file_name().expect("a name").to_owned();
    fs::remove_file(mount.path(&name).join("Data/Intensities/BaseCalls/L001/C3.1/L001_2.cbcl"))
        .expect("removed");
    let run_id = id_of_the_run(&site);
    let line = logged(&mount, "alarm incomplete raised: ");
    assert!(line.ends_with(&format!("run {run_id}: incomplete: L001 C3.1 surface 2")), "{line}");
    logged(&mount, "is sealed: seal 1 of this gateway");
    // Nobody here can look into it any more.
    std::thread::sleep(Duration::from_secs(5));
    let left = alarms(&site);
    assert_eq!(
        (left.len(), &left[0]["alarm"], &left[0]["run"]),
        (1, &"incomplete".into(), &run_id.clone().into())
    );
    assert!(!mount.log().contains("alarm incomplete cleared"), "{}", mount.log());
    let mut told = String::new();
    let mut peer = UnixStream::connect(&metrics).expect("a socket");
    peer.read_to_string(&mut told).expect("its text");
    let file = site.dir().join("told.prom");
    fs::write(&file, &told).expect("written");
    let labels = serde_json::json!({ "alarm": "incomplete" });
    assert_eq!(sample(&file, "runvault_alarms", &labels), Some(1.0), "{told}");
    mount.unmount();
    assert!(!metrics.exists());
    // Also after a restart, and by who asks the store.
    let seen = printed(&run(runs(&site).arg("--json")));
    assert!(seen.contains("\"missing\":1") && seen.contains("L001 C3.1 surface 2"), "{seen}");
    let mount = site.ingest().mount();
    let line = logged(&mount, "alarm incomplete raised: ");
    assert!(line.ends_with(&format!("run {run_id}: incomplete: L001 C3.1 surface 2")), "{line}");
    let seen = printed(&run(&mut runs(&site)));
    assert!(seen.matches("incomplete: L001 C3.1 surface 2").count() == 2, "{seen}");
    mount.unmount();

    // Someone takes its seal away.
    let seal = site.store.join("runs").join(&run_id).join("seal");
    fs::rename(&seal, site.dir().join("seal")).expect("taken");
    let mount = site.ingest().mount();
    let line = logged(&mount, "alarm damaged raised: ");
    assert!(line.contains(&run_id) && line.contains("its seal was removed"), "{line}");
    mount.unmount();
}

#[test]
fn a_run_that_was_changed_before_its_seal_is_an_alarm() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().args(["--seal", "hand"]).mount();
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let done = Replay::new(spec).run(&mount.at, &mut |_| {}).expect("a run");
    let name = done.folder.file_name().expect("a name").to_owned();
    mount.unmount();
    let tree = site.store.join("runs").join(id_of_the_run(&site)).join("tree");
    let stored = files_below(&tree).into_iter().max_by_key(|file| fs::metadata(file).expect("stat").len());
    let stored = stored.expect("a stored file");
    let good = fs::read(&stored).expect("stored");
    let mut bad = good.clone();
    bad[1500] ^= 1;
    fs::write(&stored, bad).expect("changed");
    let mount = site.ingest().args(["--quiet", "1s"]).mount();
    let line = logged(&mount, "alarm refused raised: ");
    assert!(
        line.contains("1 objects of it do not authenticate") && line.contains(&id_of_the_run(&site)),
        "{line}"
    );
    // What was put back is sealed, and that is the end of it.
    fs::write(&stored, good).expect("put back");
    let mut seal = Command::new(runvault());
    run(seal.args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(name));
    logged(&mount, "alarm refused cleared: ");
    mount.unmount();
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_run_that_another_machine_holds_is_an_alarm() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let file = fs::File::create(mount.path("run/file")).expect("a file");
    std::io::Write::write_all(&mut &file, &[1; 20_000]).expect("written");
    file.sync_all().expect("synced");
    // Written over, so that its journal asks the next mount to look at the run.
    std::os::unix::fs::FileExt::write_all_at(&file, b"within", 5_000).expect("written");
    file.sync_all().expect("synced");
    mount.kill();
    let lease = site.store.join("runs").join(id_of_the_run(&site)).join("lease");
    let text = fs::read_to_string(&lease).expect("a lease");
    let at = text.find("\"host\":\"").expect("a host") + 8;
    fs::write(&lease, format!("{}{}{}", &text[..at], "07".repeat(32), &text[at + 64..])).expect("written");
    let mount = site.ingest().args(["--alarm-lease", "1s", "--alarm-stuck", "10s"]).mount();
    let line = logged(&mount, "alarm lease raised: ");
    assert!(line.contains("host 07070707"), "{line}");
    mount.unmount();
}

#[test]
fn a_store_that_fills_is_an_alarm_until_there_is_room() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 96);
    let site = Site::below(image.path());
    site.enroll();
    let mount =
        site.ingest().args(["--alarm-free", "40", "--alarm-full", "0s", "--alarm-stuck", "2s"]).mount();
    fs::create_dir(mount.path("run")).expect("a run");
    std::thread::sleep(Duration::from_secs(2));
    assert!(!mount.log().contains("alarm filling"), "{}", mount.log());
    fs::write(mount.path("run/large"), vec![7; 50 << 20]).expect("a file");
    let line = logged(&mount, "alarm filling raised: ");
    assert!(line.contains(" %) left"), "{line}");
    fs::remove_file(mount.path("run/large")).expect("removed");
    logged(&mount, "alarm filling cleared: ");
    mount.unmount();
}

#[test]
fn what_cannot_be_an_alarms_way_is_refused_at_once() {
    let site = Site::new();
    site.enroll();
    let refused = |args: &[&str]| {
        let mut command = Command::new(runvault());
        command.args(["mount", "--ingest", "--state"]).arg(&site.state).args(args);
        let refused = output(command.arg(&site.store).arg(&site.at));
        assert_eq!(refused.status.code(), Some(2), "{}", printed(&refused));
        printed(&refused)
    };
    assert!(refused(&["--exec", "/nowhere/alarm"]).contains("--exec /nowhere/alarm: No such file"));
    assert!(refused(&["--exec", "/dev/null"]).contains("not an executable file"));
    let inside = site.at.join("x.prom");
    assert!(refused(&["--metrics", inside.to_str().expect("UTF-8")]).contains("--metrics "));
    let inside = format!("unix:{}", site.store.join("x.sock").display());
    assert!(refused(&["--metrics", &inside]).contains("--metrics "));
    assert!(refused(&["--alarm-free", "91"]).contains("alarm-free"));
    let owner = output(site.command(&["mount", "--alarm-stuck", "1h"]).arg(&site.store).arg(&site.at));
    assert!(owner.status.code() == Some(2) && printed(&owner).contains("ingest"), "{}", printed(&owner));
}
