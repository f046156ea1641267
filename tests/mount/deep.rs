//! A tree that is deeper than the files that a process may have open, as relative steps make it.

use std::fs;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, run, runvault};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

const LEVELS: usize = 600;

#[test]
fn a_deep_tree_is_checked_listed_copied_and_removed() {
    let site = Site::in_memory();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let open = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = openat(CWD, mount.path("run"), open, Mode::empty()).expect("the run");
    for _ in 0..LEVELS {
        mkdirat(&at, "down", Mode::RWXU).expect("a level");
        mkdirat(&at, "side", Mode::RWXU).expect("what is left when it comes back up");
        at = openat(&at, "down", open, Mode::empty()).expect("the level");
    }
    let file = openat(&at, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).expect("a file");
    rustix::io::write(&file, b"at the bottom").expect("written");
    drop((at, file));
    mount.unmount();

    let few = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 550; exec \"$0\" \"$@\""]).arg(runvault()).args(args);
        command.arg("--identity").arg(&site.identity).arg("--state").arg(&site.state);
        command
    };
    run(few(&["check"]).arg(&site.store));
    let listed = run(few(&["ls", "-R"]).arg(&site.store));
    assert!(printed(&listed).contains("/down:\nfile\n"), "the bottom is missing");
    let run_of = |name: &str| format!("{}:/{name}", site.store.display());
    run(few(&["cp", "-r"]).arg(run_of("run")).arg(run_of("copy")));
    run(few(&["check"]).arg(&site.store));

    let mount = site.mount();
    let removed = output(Command::new("rm").arg("-r").arg(mount.path("run")).arg(mount.path("copy")));
    assert!(removed.status.success(), "{}", printed(&removed));
    assert_eq!(fs::read_dir(&mount.at).expect("the mount").count(), 0);
    mount.unmount();
}
