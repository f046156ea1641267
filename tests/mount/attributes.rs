//! ACLs and attributes that need root: the same through a mount as on the plain directory beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::tools::{again_as, is_root, output, printed, root_for, run};

/// nobody
const USER: u32 = 65534;

/// What a script prints in a directory, as an ordinary user where this is root.
fn says(script: &str, at: &Path) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(at);
    if is_root() {
        command.uid(USER).gid(USER);
    }
    printed(&output(&mut command))
}

/// A directory on a mount and a plain one, both made ready by `prepare`; what `script` prints in them is the same.
fn assert_same(prepare: &str, script: &str, must_say: &[&str]) {
    let site = Site::new();
    // An ordinary user must get there.
    fs::set_permissions(site.dir(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let builder = site.builder();
    let mount = if is_root() { builder.arg("--allow-other") } else { builder }.mount();
    let (plain, ours) = (site.dir().join("plain"), mount.path("run"));
    let [wanted, got] = [&plain, &ours].map(|at| {
        fs::create_dir(at).expect("a directory");
        run(Command::new("sh").args(["-ec", prepare]).current_dir(at));
        says(script, at)
    });
    assert_eq!(got, wanted);
    for part in must_say {
        assert!(wanted.contains(part), "{part:?} is not in\n{wanted}");
    }
    mount.unmount();
}

/// Made under a default ACL, with a umask that it overrides, in directories that pass it on.
const MAKE: &str = "umask 027; mkdir -p d/e; echo x > d/e/f; echo y > g; mkfifo d/p; ln -s g l; cp g d/copy
    mkdir -m 700 d/private; echo z > d/private/h; chmod 640 d/copy
    find . ! -type l | sort | xargs getfacl -n
    stat -c '%n %a %F' d d/e d/e/f g d/p d/copy d/private d/private/h; cat d/e/f d/private/h";

#[test]
fn default_acls_are_inherited_as_on_a_plain_directory() {
    let prepare =
        "chmod 777 . && setfacl -d -m u:daemon:rwX,g:daemon:r-X,o::-,m::rwx . && setfacl -m u:daemon:x .";
    assert_same(prepare, MAKE, &["default:user:1:rwx", "user:1:rwx", "d/e/f 660 regular file"]);
}

#[test]
fn default_acls_are_inherited_on_an_ordinary_users_mount() {
    if root_for("becoming another user") {
        again_as(USER, USER, "attributes::default_acls_are_inherited_as_on_a_plain_directory");
    }
}

#[test]
fn trusted_attributes_are_roots() {
    if !root_for("a trusted attribute") {
        return;
    }
    let prepare = "touch f && mkdir d && chmod 666 f && chmod 777 d . &&
        setfattr -n trusted.note -v roots f && setfattr -n trusted.note -v roots d && setfattr -n user.note -v all f &&
        getfattr --only-values -n trusted.note f | grep -q roots && getfattr -d -m - f | grep -q trusted.note";
    let script = "for o in f d; do getfattr -n trusted.note $o; setfattr -n trusted.note -v changed $o
        setfattr -x trusted.note $o; getfattr -d -m - $o; done; setfattr -n user.note -v mine f; getfattr -n user.note f";
    assert_same(prepare, script, &["Operation not permitted", "user.note=\"mine\""]);
}
