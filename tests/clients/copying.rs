//! `rsync -aHAX` and `runvault cp -r` there and back.

use std::fs;
use std::os::unix::fs::MetadataExt;

use runvault_tests::Site;
use runvault_tests::rsync::{a_tree, left_to_do, there_and_back};
use runvault_tests::tools::run;

#[test]
fn cp_keeps_what_rsync_keeps() {
    let (site, other) = (Site::new(), Site::new());
    let (plain, back) = (site.dir().join("plain"), site.dir().join("back"));
    fs::create_dir(&plain).expect("a directory");
    a_tree(&plain);
    let in_vault = |site: &Site, path: &str| format!("{}:/{path}", site.store.display());
    run(site.command(&["cp", "-r"]).arg(&plain).arg(in_vault(&site, "run")));
    let across = |args: &[&str]| {
        let mut command = other.command(args);
        command.arg("--from-identity").arg(&site.identity).args([in_vault(&site, ""), in_vault(&other, "")]);
        command
    };
    run(&mut across(&["cp", "-r"]));
    run(&mut across(&["cp", "-r", "--force"]));
    run(other.command(&["cp", "-r"]).arg(in_vault(&other, "run")).arg(&back));
    assert_eq!(left_to_do(&plain, &back), "");
    assert_eq!(left_to_do(&back, &plain), "");
    assert!(back.join("sparse").metadata().expect("metadata").blocks() < 2048, "holes stay holes");
    for vault in [&site, &other] {
        let mount = vault.mount_read_only();
        assert_eq!(left_to_do(&plain, &mount.path("run")), "");
        mount.unmount();
        run(vault.command(&["check"]).arg(&vault.store));
    }
}

#[test]
fn rsync_there_and_back() {
    there_and_back(&Site::new());
}
