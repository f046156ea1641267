//! A mount beside an instrument: it writes runs, and is given no key that opens one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::site::detach;
use runvault_tests::snapshot::snapshot;
use runvault_tests::tools::{output, printed, root_for, run, runvault};

/// What `ls` names at the top of the vault, for the owner.
fn runs_of(site: &Site) -> Vec<String> {
    let listed = run(site.command(&["ls"]).arg(&site.store)).stdout;
    String::from_utf8(listed).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn it_writes_what_the_owner_reads_and_sees_nothing_that_others_wrote() {
    let site = Site::new();
    let owner = site.builder().state(&site.dir().join("owner")).mount();
    fs::create_dir(owner.path("of the owner")).expect("a run");
    fs::write(owner.path("of the owner/file"), b"older").expect("a file");
    owner.unmount();
    site.enroll();
    let mount = site.ingest().mount();
    assert_eq!(fs::read_dir(&mount.at).expect("a mount").count(), 0, "what it did not make");
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/RunInfo.xml"), b"<RunInfo/>").expect("a file");
    assert_eq!(fs::read(mount.path("run/RunInfo.xml")).expect("its own open run"), b"<RunInfo/>");
    mount.unmount();
    assert_eq!(runs_of(&site), ["of the owner", "run"]);
    let read = run(site.command(&["cat"]).arg(&site.store).arg("run/RunInfo.xml"));
    assert_eq!(read.stdout, b"<RunInfo/>");
    run(site.command(&["check"]).arg(&site.store));
}

#[test]
fn its_status_says_of_each_run_what_runs_says() {
    let site = Site::new();
    let owner = site.builder().state(&site.dir().join("owner")).mount();
    fs::create_dir(owner.path("of the owner")).expect("a run");
    owner.unmount();
    site.enroll();
    let mount = site.ingest().mount();
    for name in ["sealed", "written"] {
        fs::create_dir(mount.path(name)).expect("a run");
    }
    run(Command::new(runvault()).args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg("sealed"));
    let said = run(Command::new(runvault()).args(["status", "--json"]).arg(&mount.at)).stdout;
    let said: serde_json::Value = serde_json::from_slice(&said).expect("JSON");
    let of = |key: &str| said["runs"].as_array().expect("runs").iter().filter(|run| run[key] == true).count();
    assert_eq!((of("sealed"), of("closed"), of("writing")), (1, 0, 1), "{said}");
    let text = printed(&run(Command::new(runvault()).arg("status").arg(&mount.at)));
    let mut states: Vec<&str> =
        text.lines().rev().take(3).filter_map(|line| line.split("  ").last()).collect();
    states.sort_unstable();
    assert_eq!(states, ["open", "sealed", "written here"], "{text}");
}

#[test]
fn a_killed_one_goes_on_with_the_same_run() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let log = fs::File::create(mount.path("run/log")).expect("a file");
    std::io::Write::write_all(&mut &log, b"before, ").expect("written");
    log.sync_all().expect("synced");
    drop(log);
    mount.kill();
    let mount = site.ingest().mount();
    let mut log = fs::OpenOptions::new().append(true).open(mount.path("run/log")).expect("the same run");
    std::io::Write::write_all(&mut log, b"after").expect("written");
    drop(log);
    assert_eq!(fs::read(mount.path("run/log")).expect("read"), b"before, after");
    mount.unmount();
    assert_eq!(runs_of(&site), ["run"]);
}

/// With --no-resume-key, in the middle of a run.
#[test]
fn a_killed_one_that_kept_no_key_has_closed_its_run_for_its_owner() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--no-resume-key").mount();
    let entries = || {
        let vault = fs::read_dir(&site.state).expect("state").flatten().next().expect("a vault").path();
        let folders = fs::read_dir(vault.join("resume")).expect("entries").flatten();
        folders.map(|folder| fs::read_dir(folder.path()).expect("entries").count()).sum::<usize>()
    };
    let status = site.status(&mount.at);
    assert_eq!((&status["keeps_keys"], &status["gateway_key"]["home"]), (&false.into(), &"file".into()));
    let mut name = String::new();
    let cut_short = Replay::new(RunSpec::preset(Family::NovaSeqX, Size::Tiny)).run(&mount.at, &mut |event| {
        if event.cycle == 40 && name.is_empty() {
            let folder = fs::read_dir(&mount.at).expect("a mount").flatten().next().expect("a run");
            name = folder.file_name().into_string().expect("UTF-8");
            assert_eq!(entries(), 0, "a key is kept");
            mount.signal(rustix::process::Signal::KILL);
        }
    });
    assert!(cut_short.is_err() && !name.is_empty());
    let at = mount.at.clone();
    mount.wait();
    detach(&at);

    let mount = site.ingest().arg("-o").arg("no-resume-key").mount();
    assert_eq!(fs::read_dir(&mount.at).expect("a mount").count(), 0, "it is not shown where it was written");
    mount.logged("is closed: no key of it was kept here", 1);
    let runs = |command: &mut Command| -> Vec<serde_json::Value> {
        let said =
            run(command.args(["runs", "--json"]).arg(&site.store).arg("--state").arg(&site.state)).stdout;
        String::from_utf8(said)
            .expect("UTF-8")
            .lines()
            .map(|l| serde_json::from_str(l).expect("JSON"))
            .collect()
    };
    let closed = runs(&mut Command::new(runvault())).remove(0);
    assert_eq!(closed["state"], "closed", "{closed}");
    assert!(closed["waits_for"].as_str().is_some_and(|what| what.contains("kept no key of it")), "{closed}");
    // The copy service tries again: a run of its own, which can be sealed.
    fs::create_dir(mount.path(&name)).expect("the same name");
    fs::write(mount.path(&name).join("RunInfo.xml"), b"again").expect("written");
    run(Command::new(runvault()).args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(&name));
    mount.unmount();
    assert_eq!(entries(), 0);

    // The owner sees both, each by its id, and reads what was written before the kill.
    let shown = runs_of(&site);
    let id = closed["run"].as_str().expect("an id");
    let of_closed = format!("{name}~{}", &id[..8]);
    assert_eq!((shown.len(), shown.contains(&of_closed)), (2, true), "{shown:?}");
    let info = run(site.command(&["cat"]).arg(&site.store).arg(format!("{of_closed}/RunInfo.xml")));
    assert!(printed(&info).contains("<RunInfo"), "{}", printed(&info));
    // What the kill left is put in order by whoever takes the run over.
    let owner = site.dir().join("owner");
    let taken = run(Command::new(runvault())
        .args(["takeover", "--yes", "--identity"])
        .arg(&site.identity)
        .arg("--state")
        .arg(&owner)
        .arg(&site.store)
        .arg(id));
    let mount = site.builder().state(&owner).mount();
    // The one that it holds now has the name alone.
    fs::write(mount.path(&name).join("a note of the owner"), b"x")
        .unwrap_or_else(|e| panic!("{e}: {}", printed(&taken)));
    mount.unmount();
    run(site.command(&["check"]).arg(&site.store));
}

/// What was kept before is not any more once nobody wants it kept.
#[test]
fn keys_that_were_kept_are_erased_where_none_are_to_be() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    mount.unmount();
    if rustix::process::geteuid().is_root() {
        // Not before it is mounted: one that may not mount has closed nothing.
        let mut refused = Command::new("setpriv");
        refused.args(["--bounding-set", "-sys_admin"]).arg(runvault()).args([
            "mount",
            "--ingest",
            "--no-resume-key",
        ]);
        let refused = output(refused.arg("--state").arg(&site.state).arg(&site.store).arg(&site.at));
        assert!(printed(&refused).contains("mount vault"), "{}", printed(&refused));
        let mount = site.ingest().mount();
        assert!(mount.path("run").exists());
        mount.unmount();
    }
    let mount = site.ingest().arg("--no-resume-key").mount();
    fs::write(mount.path("run/file"), b"it goes on").expect("written");
    mount.unmount();
    let mount = site.ingest().mount();
    assert!(!mount.path("run").exists());
    mount.logged("is closed: no key of it was kept here", 1);
    mount.unmount();
    let read = run(site.command(&["cat"]).arg(&site.store).arg("run/file"));
    assert_eq!(read.stdout, b"it goes on");
}

/// What keeps plaintext off the bare mount point is told by whoever ends the mount, with the way back.
#[test]
fn unmount_tells_that_the_mount_point_stays_closed() {
    let site = Site::new();
    site.enroll();
    let told = |args: &[&str]| output(Command::new(runvault()).arg("unmount").args(args).arg(&site.at));
    let way_back = format!("chmod 755 {}", site.at.display());
    let is_root = rustix::process::geteuid().is_root();
    let mount = site.ingest().mount();
    let (said, _) = (told(&[]), mount);
    assert!(said.status.success(), "{}", printed(&said));
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(text.contains("stays closed") && text.contains(&way_back), is_root, "{text}");
    let mount = site.ingest().mount();
    let (said, _) = (told(&["--json"]), mount);
    let json: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
    assert_eq!(json["stays_closed"], is_root, "{json}");
    assert_eq!(json["opened_by"].as_str().is_some_and(|way| way.ends_with(&way_back)), is_root, "{json}");
    if is_root {
        // As it says.
        let opened =
            Command::new("sh").arg("-c").arg(json["opened_by"].as_str().expect("a command")).status();
        assert!(opened.expect("sh").success());
    }
    let reading = site.builder().arg("--read-only").mount();
    let (said, _) = (told(&[]), reading);
    assert!(said.status.success() && said.stderr.is_empty(), "{}", printed(&said));
}

/// Someone puts another store in the place of the one that this machine writes to.
#[test]
fn another_vault_in_the_stores_place_is_refused_and_nothing_is_written() {
    let (site, other) = (Site::new(), Site::new());
    site.enroll();
    let (state, store) = (snapshot(&site.state, true), snapshot(&other.store, true));
    let refused = site.ingest().store(&other.store).try_mount().err().expect("refused");
    let id = |site: &Site| site.status(&site.store)["vault"].as_str().expect("a vault").to_owned();
    for says in [&id(&site), &id(&other), "nothing was written"] {
        assert!(refused.contains(says), "{says}: {refused}");
    }
    assert!(snapshot(&site.state, true) == state && snapshot(&other.store, true) == store);
}

#[test]
fn a_machine_without_an_identity_is_told_how_to_get_one() {
    let site = Site::new();
    let refused = site.ingest().try_mount().err().expect("refused");
    assert!(refused.contains("this machine is no gateway yet"), "{refused}");
    assert!(refused.contains("runvault gateway enroll"), "{refused}");
    for key in [vec!["-o", "ro"], vec!["--identity", "x.key"], vec!["-o", "passphrase-file=/x"]] {
        let builder = key.iter().fold(site.ingest(), |builder, arg| builder.arg(arg));
        let refused = builder.try_mount().err().expect("refused");
        assert!(refused.contains("ingest"), "{key:?}: {refused}");
    }
}

#[test]
fn one_that_is_revoked_makes_no_more_runs_and_does_not_mount_again() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("first")).expect("a run");
    let listed = run(site.command(&["gateway", "list", "--json"]).arg(&site.store)).stdout;
    let gateway: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
    let name = gateway["name"].as_str().expect("a name");
    // The state folder is the mount's: whoever revokes has another.
    let revoke = |name: &str| {
        let mut command = site.command(&["gateway", "revoke", "--reason", "stolen"]);
        printed(&run(command.arg(&site.store).arg(name)))
    };
    assert!(revoke(name).contains("is revoked: its runs count up to number 1"));
    let refused = fs::create_dir(mount.path("second")).expect_err("it is revoked");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert!(mount.log().contains("was revoked"), "{}", mount.log());
    fs::write(mount.path("first/file"), b"x").expect("a run that counts can be finished");
    let doctor = || {
        let mut command = Command::new(runvault());
        output(command.args(["doctor", "--state"]).arg(&site.state).arg(&site.store))
    };
    let said = doctor();
    assert_eq!(said.status.code(), Some(1), "its mount is up: {}", printed(&said));
    assert!(printed(&said).lines().any(|line| line.starts_with("bad      gateway:")), "{}", printed(&said));
    mount.unmount();
    assert_eq!(doctor().status.code(), Some(1));
    let refused = site.ingest().try_mount().err().expect("refused");
    assert!(refused.contains("was revoked"), "{refused}");
    let own = output(site.command(&["cp"]).arg(&site.identity).arg(format!("{}:/x", site.store.display())));
    assert_eq!(own.status.code(), Some(1), "{}", printed(&own));
    assert!(revoke(name).contains("was revoked before"));
    assert_eq!(runs_of(&site), ["first"]);
}

/// smbd goes on writing when the mount has gone: it must not fill the instrument PC's disk with plaintext.
#[test]
fn nothing_can_be_written_where_it_was_mounted() {
    if !root_for("closing a bare mount point") {
        return;
    }
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let at = mount.at.clone();
    mount.signal(rustix::process::Signal::KILL);
    mount.wait();
    let dead = fs::write(at.join("lost"), b"plaintext").expect_err("a dead mount");
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    detach(&at);
    let bare = fs::write(at.join("lost"), b"plaintext").expect_err("a bare mount point");
    assert_eq!(bare.raw_os_error(), Some(libc::EPERM), "root may not either");
    assert_eq!(fs::metadata(&at).expect("stat").permissions().mode() & 0o777, 0);
    let mount = site.ingest().mount();
    assert!(mount.path("run").is_dir(), "it mounts there again");
    mount.unmount();
}
