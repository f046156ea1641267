//! What a machine lacks is said before anything is made, with what to install or to write where.

use std::fs;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{output, printed, root_for, run, runvault};

/// A shell in a mount namespace of its own, in which `prepare` was done; then `mount` with `options`
/// as `user`. Gives the exit code and what was printed.
fn mount_where(site: &Site, prepare: &str, user: u32, options: &[&str]) -> (Option<i32>, String) {
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    shell.arg(format!("{prepare}; exec setpriv --reuid {user} --clear-groups \"$@\"")).arg("sh");
    shell.arg(runvault()).args(["mount", "--allow-readable-secret"]).args(options);
    shell.arg("--identity").arg(&site.identity).arg("--state").arg(&site.state);
    let done = output(shell.arg(&site.store).arg(&site.at));
    (done.status.code(), printed(&done))
}

/// A vault whose every part an ordinary user may reach.
fn open_to_all() -> Site {
    let site = Site::new();
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(site.dir()));
    site
}

/// Exit 1, and a message that has all of `words`.
fn is_refused(prepare: &str, user: u32, options: &[&str], words: [&str; 2]) {
    if !root_for("another machine than this") {
        return;
    }
    let (code, says) = mount_where(&open_to_all(), prepare, user, options);
    assert_eq!(code, Some(1), "{says}");
    assert!(words.iter().all(|word| says.contains(word)), "{says}");
}

#[test]
fn without_dev_fuse_it_names_the_device() {
    is_refused("mount -t tmpfs none /dev", 0, &[], ["/dev/fuse", "modprobe fuse"]);
}

#[test]
fn without_fusermount3_it_names_the_package() {
    let prepare = "mount --bind /dev/null \"$(command -v fusermount3)\"";
    is_refused(prepare, 65534, &[], ["fusermount3", "fuse3"]);
}

#[test]
fn allow_other_that_is_not_allowed_names_the_line() {
    let prepare = "mount --bind /dev/null /etc/fuse.conf";
    is_refused(prepare, 65534, &["--allow-other"], ["user_allow_other", "/etc/fuse.conf"]);
}

#[test]
fn without_fuse_and_without_root_the_commands_that_need_no_mount_work() {
    if !root_for("another machine than this") {
        return;
    }
    let site = open_to_all();
    run(Command::new("chown").args(["-R", "65534:65534"]).arg(site.dir()));
    let script = r#"mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9
cd "$DIR"; exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec '
me="--allow-readable-secret --identity $IDENTITY"
test ! -e /dev/fuse
mkdir run; echo content > run/file
"$PROGRAM" cp -r $me run "$STORE:/"
"$PROGRAM" ls $me "$STORE" run
"$PROGRAM" cat $me "$STORE" run/file
"$PROGRAM" cp $me "$STORE:/run/file" back; cmp back run/file
"$PROGRAM" check $me "$STORE"'"#;
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-ec", script]);
    shell.env("DIR", site.dir()).env("HOME", site.dir()).env("PROGRAM", runvault()).env("STORE", &site.store);
    let done = run(shell.env("IDENTITY", &site.identity));
    assert!(printed(&done).contains("content"), "{}", printed(&done));
}

/// A rename, a link and a sync of the whole store would each stop at the border.
#[test]
fn a_store_across_two_file_systems_is_refused_where_it_is_entered() {
    if !root_for("a file system within a store") {
        return;
    }
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    fs::create_dir(mount.path("run/below")).expect("a directory");
    mount.unmount();
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    shell.arg("mount --bind \"$1/runs\" \"$1/runs\"; exec \"$2\" ls --identity \"$3\" \"$1\"").arg("sh");
    let done = output(shell.arg(&site.store).arg(runvault()).arg(&site.identity));
    let says = printed(&done);
    assert_eq!(done.status.code(), Some(1), "{says}");
    assert!(says.contains("open runs") && says.contains("one file system"), "{says}");
}

#[test]
fn the_demo_shows_the_main_job_and_leaves_nothing() {
    let home = tempfile::TempDir::with_prefix("runvault-test-").expect("a temporary directory");
    let demo = run(Command::new(runvault()).args(["demo", "--size", "8"]).env("TMPDIR", home.path()));
    let says = printed(&demo);
    for word in ["fingerprint", "NovaSeq X", "thief", "/s through the mount", "all as written", "Cleaned up"]
    {
        assert!(says.contains(word), "the demo does not say {word:?}:\n{says}");
    }
    let demo =
        run(Command::new(runvault()).args(["demo", "--size", "1", "--json"]).env("TMPDIR", home.path()));
    let figures: serde_json::Value = serde_json::from_slice(&demo.stdout).expect("JSON alone");
    for step in ["written", "searched", "verified"] {
        assert!(figures[step]["files"].as_u64().is_some_and(|files| files > 0), "{step}: {figures}");
    }
    let [written, sent, verified] = [("written", "files"), ("written", "sent"), ("verified", "files")]
        .map(|(step, key)| figures[step][key].as_u64());
    assert!(written == verified && sent > written, "a file that is sent again is one file: {figures}");
    assert!(figures["written"]["bytes_per_second"].as_u64().is_some_and(|rate| rate > 0), "{figures}");
    assert_eq!(fs::read_dir(home.path()).expect("a directory").count(), 0, "something stays");
}
