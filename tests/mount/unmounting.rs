//! `unmount` and mounts that come and go at the same time: device numbers are given again at once, and
//! what a killed process left must not be taken for the one that serves the mount.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use runvault_tests::Site;
use runvault_tests::site::detach;
use runvault_tests::tools::{output, printed, root_for, run, runvault};

const ROUNDS: usize = 12;
const AT_A_TIME: usize = 4;

fn come_and_go(seed: usize) {
    let site = Site::in_memory();
    for round in 0..ROUNDS {
        let mount = site.mount();
        if (round + seed).is_multiple_of(3) {
            mount.kill();
            continue;
        }
        // No pause: the table shows the mount before its process listens.
        let written = (round + seed) % 3 == 1;
        if written {
            let _ = fs::create_dir(mount.path("run"));
            fs::write(mount.path("run/file"), vec![round as u8; 1 << 20]).expect("a file");
        }
        let log = mount.log_path();
        mount.unmount();
        let said = fs::read_to_string(log).expect("the log");
        assert!(said.contains("everything is durable"), "round {round}: unmount did not wait:\n{said}");
    }
}

#[test]
fn fifty_unmounts_beside_each_other_and_beside_killed_ones() {
    std::thread::scope(|scope| {
        for seed in 0..AT_A_TIME {
            scope.spawn(move || come_and_go(seed));
        }
    });
}

#[test]
fn a_mount_that_somebody_else_unmounted_is_none() {
    let site = Site::new();
    let mount = site.mount();
    runvault_tests::site::detach(&mount.at);
    assert_eq!(mount.wait().code(), Some(0));
    let mut again = std::process::Command::new(runvault_tests::tools::runvault());
    let done = runvault_tests::tools::output(again.arg("unmount").arg(&site.at));
    assert_eq!(done.status.code(), Some(2), "{}", runvault_tests::tools::printed(&done));
}

#[test]
fn a_mount_whose_process_is_stopped_is_not_waited_for_without_limit() {
    let site = Site::new();
    let mount = site.mount();
    std::fs::create_dir(mount.path("run")).expect("a run");
    mount.signal(rustix::process::Signal::STOP);
    let mut unmount = std::process::Command::new(runvault_tests::tools::runvault());
    let done = runvault_tests::tools::output(unmount.args(["unmount", "--timeout", "1"]).arg(&site.at));
    let said = runvault_tests::tools::printed(&done);
    mount.signal(rustix::process::Signal::CONT);
    assert_eq!(done.status.code(), Some(5), "{said}");
    assert!(said.contains(&format!("kill -CONT {}", mount.pid())), "{said}");
    // As it says: the request is still there.
    assert_eq!(mount.wait().code(), Some(0));
}

/// The kernel tells nobody that a mount is gone while another namespace has a copy.
#[test]
fn a_mount_that_a_container_has_too_is_named_with_the_way_out() {
    if !root_for("a mount namespace") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    // What other tests have mounted would not end while it is there.
    let others =
        "findmnt -rno TARGET -t fuse.runvault | grep -vxF \"$0\" | xargs -rn 1 umount -l; echo; read end";
    let mut container = Command::new("unshare")
        .args(["--mount", "sh", "-c", others])
        .arg(&mount.at)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let mut begun = [0];
    container.stdout.as_mut().expect("a pipe").read_exact(&mut begun).expect("it has its mounts");
    let said = output(Command::new(runvault()).arg("unmount").arg(&mount.at));
    let way_out = format!("nsenter -m -t {} umount {}", container.id(), mount.at.display());
    let all = format!("kill {}", mount.pid());
    let told =
        said.status.code() == Some(5) && [&way_out, &all].iter().all(|way| printed(&said).contains(*way));
    run(Command::new("sh").arg("-c").arg(&way_out));
    assert!(told, "{}", printed(&said));
    assert_eq!(mount.wait().code(), Some(0));
    drop(container.stdin.take());
    container.wait().expect("its end");
}

/// What a service manager does after a crash: the killed process may still be exiting.
#[test]
fn a_mount_that_follows_a_killed_one_at_once_writes() {
    let site = Site::new();
    for round in 0..3u8 {
        let mount = site.mount();
        let _ = fs::create_dir(mount.path("run"));
        fs::write(mount.path("run/file"), vec![round; 20 << 20]).expect("a file");
        mount.signal(rustix::process::Signal::KILL);
        runvault_tests::site::detach(&mount.at);
        let again = site.mount();
        fs::write(again.path("run/after"), [round]).expect("it is the writer at once");
        again.unmount();
    }
}

#[test]
fn the_status_of_a_mount_whose_process_was_killed_names_the_command_that_takes_it_away() {
    let site = Site::new();
    let mount = site.mount();
    let at = mount.at.clone();
    mount.signal(rustix::process::Signal::KILL);
    mount.wait();
    let said = output(Command::new(runvault()).arg("status").arg(&at));
    let way_out = format!("runvault unmount {}", at.display());
    assert!(said.status.code() == Some(1) && printed(&said).contains(&way_out), "{}", printed(&said));
    detach(&at);
}
