//! A gateway's state folder is lost: its disk, or the machine. Nothing of its open run is.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::analysis::assert_as_generated;
use runvault_tests::tools::{output, printed, run, runvault};

/// `runvault ARGS` of whoever has the new state folder, on the store.
fn gateway(site: &Site, args: &[&str], more: &[&Path]) -> Output {
    output(Command::new(runvault()).args(args).arg("--state").arg(&site.state).arg(&site.store).args(more))
}

#[test]
fn the_owner_has_every_byte_and_another_gateway_brings_the_run_to_its_seal() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    let spec = RunSpec::preset(Family::MiSeq, Size::Tiny);
    let done = Replay::new(spec.clone()).run(&mount.at, &mut |_| {}).expect("a run");
    let name = Path::new(done.folder.file_name().expect("a name"));
    run(Command::new("find").arg(&done.folder).args(["-type", "f", "-exec", "sync", "--data", "{}", "+"]));
    mount.kill();
    fs::remove_dir_all(&site.state).expect("the state is lost");
    fs::create_dir(&site.state).expect("an empty one");

    // Safe under the vault's key.
    let refused = site.ingest().try_mount().err().expect("refused");
    assert!(refused.contains("this machine is no gateway yet"), "{refused}");
    let reader = site.builder().args(["--read-only", "--open"]).state(&site.dir().join("elsewhere")).mount();
    assert_as_generated(&reader.path(name), &spec);
    reader.unmount();
    run(site.command(&["check"]).arg(&site.store));

    // A new identity in the same place starts runs, has nothing of the old one, and says whose that is.
    site.enroll();
    let mount = site.ingest().arg("--seal").arg("hand").mount();
    assert!(!mount.path(name).exists(), "it has no key to it");
    fs::create_dir(mount.path("next")).expect("a new run");
    mount.unmount();
    let refused = gateway(&site, &["seal"], &[name]);
    assert!(printed(&refused).contains("another gateway made it: runvault runs"), "{}", printed(&refused));
    let listed = printed(&run(site.command(&["runs"]).arg(&site.store)));
    assert!(listed.contains("its seal by the gateway that made it, or runvault takeover"), "{listed}");

    run(site.command(&["takeover", "--yes"]).arg(&site.store).arg(name));
    // Its own end is the lost gateway's to sign; its seal is this one's now, by the owner's word.
    let mount = site.ingest().arg("--quiet").arg("3s").mount();
    let refused = fs::remove_dir(mount.path(name)).expect_err("the lost gateway's");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert!(mount.log().contains("only that one can remove it"), "{}", mount.log());
    mount.logged("is sealed: seal 1 of this gateway", 1);
    mount.unmount();
    let verified = run(site.command(&["verify", "--json"]).arg(&site.store).arg(name));
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(
        (&said["about"]["complete"], &said["summary"]["findings"]),
        (&true.into(), &0.into()),
        "{said}"
    );
    run(site.command(&["check"]).arg(&site.store));
    let scrubbed = printed(&gateway(&site, &["scrub"], &[]));
    assert!(scrubbed.contains("1 sealed run as signed"), "{scrubbed}");
    let reader = site.builder().arg("--read-only").state(&site.dir().join("elsewhere")).mount();
    assert_as_generated(&reader.path(name), &spec);
    reader.unmount();
}
