//! What happens to the chain of custody beside a mount: a rotation that was killed, an older copy put back.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, run, runvault};

const RUNS: usize = 120;

/// How many runs have an envelope to that vault key.
fn sealed_to(store: &Path, key: u32) -> usize {
    let runs = fs::read_dir(store.join("runs")).expect("runs").flatten();
    runs.filter(|run| run.path().join(format!("keys/vault-{key}")).exists()).count()
}

/// Starts a rotation and kills it when some of the runs are sealed to the new key.
fn kill_a_rotation(site: &Site) {
    let mut rotate = site.command(&["custody", "rotate"]);
    rotate.arg(&site.store).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut rotate = rotate.spawn().expect("it starts");
    let until = Instant::now() + Duration::from_secs(60);
    while sealed_to(&site.store, 2) == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    rotate.kill().expect("kill -9");
    rotate.wait().expect("a child");
}

#[test]
fn a_rotation_that_was_killed_is_resumed_while_a_mount_goes_on() {
    let site = Site::in_memory();
    let mount = site.mount();
    let path = |n: usize| mount.path(format!("run-{n}"));
    for n in 0..RUNS {
        fs::create_dir(path(n)).expect("a run");
        fs::write(path(n).join("file"), format!("before {n}")).expect("a file");
    }
    let open = OpenOptions::new().read(true).write(true).open(path(7).join("file")).expect("a file");
    kill_a_rotation(&site);
    let sealed = sealed_to(&site.store, 2);
    assert!((1..RUNS).contains(&sealed), "killed too early or too late: {sealed} of {RUNS}");

    let go_on = |round: &str| {
        open.write_all_at(round.as_bytes(), 0).and_then(|()| open.sync_all()).expect("it goes on");
        fs::create_dir(mount.path(round)).expect("a new run");
        fs::write(mount.path(round).join("file"), round).expect("a new file");
        for n in 0..RUNS {
            let file = path(n).join("file");
            assert!(fs::read_to_string(&file).is_ok_and(|text| n == 7 || text == format!("before {n}")));
            fs::write(path(n).join(round), round).expect("another file");
        }
    };
    go_on("killed");
    let refused = output(site.command(&["check"]).arg(&site.store));
    assert!(refused.status.success(), "every run stays readable: {}", printed(&refused));
    run(site.command(&["custody", "rotate", "--resume"]).arg(&site.store));
    go_on("resumed");
    let (old, new) = (sealed_to(&site.store, 1), sealed_to(&site.store, 2));
    assert_eq!((old, new), (0, RUNS + 2), "the old envelopes went, and new runs are sealed to the new key");
    drop(open);
    mount.unmount();

    let again = site.mount_read_only();
    for n in 0..RUNS {
        let file = fs::read_to_string(again.path(format!("run-{n}/file"))).expect("a file");
        assert_eq!(file, if n == 7 { "resumed7".into() } else { format!("before {n}") });
        assert_eq!(fs::read(again.path(format!("run-{n}/resumed"))).expect("a file"), b"resumed");
    }
    again.unmount();
    run(site.command(&["check"]).arg(&site.store));
}

fn copy_custody(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run(Command::new("cp").arg("-r").arg(from).arg(to));
}

#[test]
fn a_mount_refuses_an_older_custody_until_a_person_accepts_it() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/file"), b"contents").expect("a file");
    mount.unmount();
    let (custody, older): (PathBuf, PathBuf) = (site.store.join("custody"), site.dir().join("older"));
    copy_custody(&custody, &older);
    // A second machine is enrolled, and this one sees it.
    let mut elsewhere = Command::new(runvault());
    elsewhere
        .args(["mount", "--identity"])
        .arg(&site.identity)
        .arg("--state")
        .arg(site.dir().join("elsewhere"));
    run(elsewhere.arg(&site.store).arg(&site.at));
    run(Command::new(runvault()).arg("unmount").arg(&site.at));
    run(site.command(&["ls"]).arg(&site.store));
    copy_custody(&older, &custody);

    let refused = output(site.command(&["mount"]).arg(&site.store).arg(&site.at));
    assert_eq!(refused.status.code(), Some(4), "{}", printed(&refused));
    assert!(printed(&refused).contains("--accept-rollback 1"), "{}", printed(&refused));
    let other = output(site.command(&["mount", "--accept-rollback", "2"]).arg(&site.store).arg(&site.at));
    assert_eq!(other.status.code(), Some(4), "only the line that is there: {}", printed(&other));
    let accepted = site.builder().arg("--accept-rollback").arg("1").mount();
    assert!(accepted.log().contains("accepted by --accept-rollback 1"), "{}", accepted.log());
    assert_eq!(fs::read(accepted.path("run/file")).expect("read"), b"contents");
    fs::write(accepted.path("run/new"), b"written").expect("written");
    accepted.unmount();
    // From now on that is the newest: no option is needed, and one that is left over says so.
    let again = site.mount();
    assert_eq!(fs::read(again.path("run/new")).expect("read"), b"written");
    again.unmount();
    let needless = output(site.command(&["ls", "--accept-rollback", "99"]).arg(&site.store));
    assert!(
        needless.status.success() && printed(&needless).contains("not rolled back"),
        "{}",
        printed(&needless)
    );
}

/// Where custody/ is elsewhere the mount is told; a chain that was made anew under it goes on.
#[test]
fn a_mount_with_its_custody_elsewhere() {
    let site = Site::in_memory();
    let apart = site.dir().join("keys");
    {
        let mount = site.mount();
        fs::create_dir(mount.path("run")).expect("a run");
        fs::write(mount.path("run/file"), "bytes").expect("a file");
    }
    run(site.command(&["custody", "confirm"]).arg(&site.store));
    fs::rename(site.store.join("custody"), &apart).expect("it moves");
    let custody = format!("custody={}", apart.display());
    let with = |options: &str| site.builder().args(["-o", options]);
    let refused = with("ro").try_mount().err().expect("custody/ is not there");
    assert!(refused.contains("--custody DIR"), "{refused}");
    let mount = with(&custody).mount();
    fs::write(mount.path("run/second"), "more").expect("written");
    mount.unmount();
    fs::remove_dir_all(&apart).expect("lost");
    run(site.command(&["custody", "recover"]).arg("--custody").arg(&apart).arg(&site.store));
    let mount = with(&format!("{custody},ro,open")).mount();
    let read = fs::read_to_string(mount.path("run/second"));
    assert_eq!(read.expect("read"), "more");
}
