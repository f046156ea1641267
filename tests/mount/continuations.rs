//! What comes after a run's seal: an instrument's own analysis, and a pipeline's results.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use runvault_sequencer::{Family, Replay, RunSpec, Size};
use runvault_tests::Site;
use runvault_tests::tools::{output, printed, run, runvault};

fn seal(site: &Site, run_or_name: &str) {
    run(Command::new(runvault())
        .args(["seal", "--json", "--state"])
        .arg(&site.state)
        .arg(&site.store)
        .arg(run_or_name));
}

#[test]
fn what_is_added_to_a_sealed_run_is_shown_in_its_folder_and_sealed_by_itself() {
    let site = Site::new();
    site.enroll();
    let mount = site.ingest().mount();
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Tiny);
    let done = Replay::new(spec).run(&mount.at, &mut |_| {}).expect("a run");
    let name = done.folder.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    seal(&site, &name);
    // Hours later the instrument's analysis comes through the same gateway, which no longer knows the run.
    let until = Instant::now() + Duration::from_secs(20);
    while mount.path(&name).exists() {
        assert!(Instant::now() < until, "the kernel still shows the sealed run");
        std::thread::sleep(Duration::from_millis(50));
    }
    let analysis = mount.path(&name).join("Analysis/1");
    fs::create_dir_all(&analysis).expect("a folder");
    fs::write(analysis.join("Secondary_Analysis_Complete.txt"), "done").expect("a file");
    // A name that was sealed, which the gateway cannot know.
    fs::write(mount.path(&name).join("RunInfo.xml"), "another").expect("a file");
    let added = counted(&site);
    assert_eq!((&added["files"], &added["bytes"]), (&2.into(), &11.into()), "its own alone: {added}");
    seal(&site, &name);
    mount.unmount();

    // A pipeline's results, on a machine that the owner has let do that.
    let server = site.dir().join("server");
    let mount = site.builder().state(&server).mount();
    let results = mount.path(&name).join("Analysis/2");
    let refused = fs::create_dir(&results).expect_err("not admitted yet");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let said = run(site.command(&["gateway", "list", "--json"]).arg(&site.store)).stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    let listed: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let id = listed[1]["gateway"].as_str().expect("an id");
    let admit = || run(site.command(&["gateway", "admit"]).arg(&site.store).arg(id));
    assert!(printed(&admit()).contains("may from now on add to every sealed run"));
    assert!(printed(&admit()).contains("may already add"));
    fs::create_dir(&results).expect("a folder of its own");
    fs::write(results.join("sample.vcf"), "variants").expect("a file");
    for (what, done) in [
        ("written", fs::write(mount.path(&name).join("RunInfo.xml"), "forged")),
        ("removed", fs::remove_file(mount.path(&name).join("RunInfo.xml"))),
        ("renamed", fs::rename(mount.path(&name).join("Data"), mount.path(&name).join("data"))),
    ] {
        assert_eq!(done.expect_err(what).raw_os_error(), Some(libc::EROFS), "{what}");
    }
    let read = |path: &str| fs::read_to_string(mount.path(&name).join(path)).expect(path);
    assert_eq!(read("Analysis/1/Secondary_Analysis_Complete.txt"), "done");
    assert_eq!(read("Analysis/2/sample.vcf"), "variants");
    let shown = run(Command::new("ls").arg(mount.path(&name).join("Analysis"))).stdout;
    assert_eq!(String::from_utf8_lossy(&shown), "1\n2\n");
    mount.unmount();
    run(Command::new(runvault())
        .args(["seal", "--state"])
        .arg(&server)
        .arg(&site.store)
        .arg(open_part(&site)));

    // All of it is verified by one name, and by sha256sum(1) in a mount.
    let verified = run(site.command(&["verify"]).arg(&site.store).arg(&name));
    assert_eq!(printed(&verified).matches("is as gateway").count(), 3, "{}", printed(&verified));
    let hidden: Vec<_> =
        printed(&verified).lines().filter(|line| line.contains("is not shown")).map(str::to_owned).collect();
    assert!(hidden.len() == 1 && hidden[0].starts_with("RunInfo.xml: that of run "), "{hidden:?}");
    let sums = run(site.command(&["manifest", "--sha256sums"]).arg(&site.store).arg(&name)).stdout;
    let text = String::from_utf8_lossy(&sums).into_owned();
    assert!(text.contains("  Analysis/2/sample.vcf\n") && text.contains("  RunInfo.xml\n"), "{text}");
    let list = site.dir().join("sums");
    fs::write(&list, &sums).expect("a file");
    let reader = site.mount_read_only();
    let checked =
        output(Command::new("sha256sum").args(["--quiet", "-c"]).arg(&list).current_dir(reader.path(&name)));
    assert!(checked.status.success(), "{}", printed(&checked));
    let found = run(Command::new("find").arg(reader.path(&name)).args(["-type", "f"])).stdout;
    assert_eq!(String::from_utf8_lossy(&found).lines().count(), text.lines().count());
    reader.unmount();
    let scrubbed =
        run(Command::new(runvault()).arg("scrub").arg(&site.store).arg("--state").arg(&site.state));
    assert!(printed(&scrubbed).contains("3 sealed runs as signed"), "{}", printed(&scrubbed));
}

/// The run that is not sealed, as its owner sees it.
fn counted(site: &Site) -> serde_json::Value {
    let said = run(site.command(&["runs", "--json"]).arg(&site.store)).stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    let runs = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let open: Vec<_> = runs.filter(|run| run["state"] != "sealed").collect();
    assert_eq!(open.len(), 1, "{open:?}");
    assert!(open[0]["continues"].is_string(), "{open:?}");
    open[0].clone()
}

fn open_part(site: &Site) -> String {
    counted(site)["run"].as_str().expect("an id").to_owned()
}

/// A machine is gone, and with it the gateway that could seal its runs.
#[test]
fn a_run_whose_gateway_is_lost_is_taken_over_and_sealed() {
    let site = Site::new();
    let mount = site.mount();
    fs::create_dir_all(mount.path("run/Data")).expect("a folder");
    fs::write(mount.path("run/Data/1.cbcl"), "bases").expect("a file");
    mount.unmount();
    fs::remove_dir_all(&site.state).expect("a state folder to lose");
    let refused = output(site.command(&["seal"]).arg(&site.store).arg("run"));
    assert!(!refused.status.success(), "{}", printed(&refused));
    run(site.command(&["takeover", "--yes"]).arg(&site.store).arg("run"));
    seal(&site, "run");
    let verified = run(site.command(&["verify"]).arg(&site.store).arg("run"));
    assert!(printed(&verified).contains("is as gateway"), "{}", printed(&verified));
    let reader = site.mount_read_only();
    assert_eq!(fs::read_to_string(reader.path("run/Data/1.cbcl")).expect("a file"), "bases");
    reader.unmount();
}
