//! A gateway whose key is kept by the TPM: a real one in software, by tpm2-tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use runvault_tests::tools::{output, printed, run, runvault};
use runvault_tests::{Site, SwTpm};

const TCTI: &str = "TPM2TOOLS_TCTI";

fn enroll(site: &Site, tpm: &SwTpm, kek: &str) -> Output {
    output(site.enrolling().args(["--kek", kek]).env(TCTI, tpm.tcti()))
}

/// `kek/home`: the NV index and what opens it.
fn home(state: &Path) -> (u32, String) {
    let vault = fs::read_dir(state).expect("state").flatten().next().expect("a vault").path();
    let said: serde_json::Value =
        serde_json::from_slice(&fs::read(vault.join("kek/home")).expect("the home")).expect("JSON");
    let index = said["nv_index"].as_u64().expect("an index") as u32;
    (index, said["auth"].as_str().expect("a value").to_owned())
}

fn seal(site: &Site, tpm: &SwTpm, name: &str) -> Command {
    let mut command = Command::new(runvault());
    command.args(["seal", "--state"]).arg(&site.state).arg(&site.store).arg(name).env(TCTI, tpm.tcti());
    command
}

/// That it ends with this code and says these words.
fn refuses(output: &Output, code: i32, words: &[&str]) {
    let says = printed(output);
    assert_eq!(output.status.code(), Some(code), "{says}");
    assert!(words.iter().all(|word| says.contains(word)), "{words:?}: {says}");
}

#[test]
fn the_tpm_keeps_the_key_and_a_copy_of_the_state_folder_opens_no_open_run() {
    let (site, tpm) = (Site::new(), SwTpm::new());
    let enrolled = enroll(&site, &tpm, "tpm");
    assert!(enrolled.status.success(), "{}", printed(&enrolled));
    let (index, auth) = home(&site.state);
    let mount = site.ingest().env(TCTI, tpm.tcti()).mount();
    fs::create_dir(mount.path("open")).expect("a run");
    fs::write(mount.path("open/file"), b"before").expect("written");
    fs::create_dir(mount.path("sealed")).expect("a run");
    let status = site.status(&mount.at);
    assert_eq!(status["gateway_key"]["home"], "tpm", "{status}");
    assert_eq!(status["gateway_key"]["nv_index"], format!("{index:#010x}"));
    assert_eq!(status["keeps_keys"], true);
    // The folder as a thief has it, also of a machine that is running.
    let copied = site.dir().join("copied");
    run(Command::new("cp").arg("-a").arg(&site.state).arg(&copied));
    mount.kill();
    let text = printed(&run(site.command(&["status"]).arg(&site.store)));
    assert!(text.contains(&format!("in the TPM, NV index {index:#010x}")), "{text}");
    let doctor = output(site.command(&["doctor", "--json"]).arg(&site.store).env(TCTI, tpm.tcti()));
    assert!(
        printed(&doctor).contains(&format!("in the TPM, NV indices {index:#010x}")),
        "{}",
        printed(&doctor)
    );

    let mount = site.ingest().env(TCTI, tpm.tcti()).mount();
    assert_eq!(fs::read(mount.path("open/file")).expect("the same run"), b"before");
    mount.unmount();
    let (before, index_before) = (tpm.read(index + 1, &auth), index + 1);
    assert_eq!((&before[..8], before.len()), (&b"rvkek/1\0"[..], 64));
    run(&mut seal(&site, &tpm, "sealed"));
    // What was there is nowhere in the TPM, and the other index has another key.
    let after = [tpm.read(index_before, &auth), tpm.read(index, &auth)];
    assert_eq!(after[0], [0; 64]);
    assert!(after[1].starts_with(b"rvkek/1\0") && after[1][16..48] != before[16..48]);
    let mount = site.ingest().env(TCTI, tpm.tcti()).mount();
    fs::write(mount.path("open/file"), b"after").expect("written on");
    mount.unmount();

    let other = SwTpm::new();
    let refused = site.ingest().state(&copied).env(TCTI, other.tcti()).try_mount().err().expect("refused");
    assert!(refused.contains("another TPM than the one of the enrolment"), "{refused}");
    let nowhere = site.ingest().state(&copied).env(TCTI, "swtpm:path=/nonexistent").try_mount();
    let nowhere = nowhere.err().expect("refused");
    assert!(nowhere.contains("no TPM answers") && nowhere.contains(TCTI), "{nowhere}");
}

#[test]
fn what_a_tpm_refuses_is_said_by_its_name_and_tried_once() {
    let (site, tpm) = (Site::new(), SwTpm::new());
    let define = |index: &str| {
        let mut define = tpm.command("tpm2_nvdefine");
        run(define.args([index, "-C", "o", "-s", "64", "-a", "authread|authwrite", "-p", "of another"]));
    };
    define("0x01800011");
    refuses(&enroll(&site, &tpm, "tpm:0x01800010"), 1, &["in use already", "handles-nv-index"]);
    refuses(&enroll(&site, &tpm, "tpm:0x01800013"), 1, &["not an even NV index"]);
    refuses(&enroll(&site, &tpm, "tpm:01800013"), 2, &["neither file nor tpm"]);
    let mut without = site.enrolling();
    refuses(
        &output(without.args(["--kek", "tpm"]).env("PATH", "/nonexistent")),
        1,
        &["apt-get install tpm2-tools"],
    );
    // Nothing of that was kept: a file is still possible elsewhere, and here the TPM.
    let enrolled = enroll(&site, &tpm, "tpm:0x01800020");
    assert!(enrolled.status.success(), "{}", printed(&enrolled));
    refuses(&enroll(&site, &tpm, "file"), 2, &["keeps its key in the TPM", "chosen once"]);
    let plain = Site::new();
    plain.enroll();
    refuses(&enroll(&plain, &tpm, "tpm"), 2, &["keeps its key in a file"]);

    // Someone makes the index anew, with a value of their own and the TPM's protection against guessing.
    let mount = site.ingest().env(TCTI, tpm.tcti()).mount();
    fs::create_dir(mount.path("open")).expect("a run");
    mount.unmount();
    run(tpm.command("tpm2_nvundefine").args(["-C", "o", "0x01800021"]));
    define("0x01800021");
    let counted = || {
        let said = run(tpm.command("tpm2_getcap").arg("properties-variable")).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().find(|line| line.contains("LOCKOUT_COUNTER")).expect("a counter").to_owned()
    };
    let none = counted();
    let refused = site.ingest().env(TCTI, tpm.tcti()).try_mount().err().expect("refused");
    assert!(refused.contains("made by someone else"), "{refused}");
    // Each command that a person gives tries once.
    assert_eq!((none.ends_with("0x0"), counted().ends_with("0x1")), (true, true), "{none}: {}", counted());
    run(tpm.command("tpm2_dictionarylockout").args(["-s", "-n", "1"]));
    let refused = site.ingest().env(TCTI, tpm.tcti()).try_mount().err().expect("refused");
    assert!(refused.contains("the TPM is locked"), "{refused}");
}

#[test]
fn a_tpm_that_refuses_an_enrolment_is_not_its_home() {
    let (site, tpm) = (Site::new(), SwTpm::new());
    let owner = |args: &[&str]| run(tpm.command("tpm2_changeauth").args(["-c", "owner"]).args(args));
    owner(&["secret"]);
    refuses(&enroll(&site, &tpm, "tpm"), 1, &["owner hierarchy has a password"]);
    let vault = fs::read_dir(&site.state).expect("state").flatten().next().expect("a vault").path();
    assert!(!vault.join("kek/home").exists());
    owner(&["-p", "secret"]);
    // One index is made, and the key does not come into it: neither stays.
    let script = "#!/bin/sh\necho 'ERROR: Esys_NV_Write(0x921)' >&2; exit 1\n";
    let (path, _) = instead(&tpm, "tpm2_nvwrite", script);
    let locked = output(site.enrolling().args(["--kek", "tpm"]).env(TCTI, tpm.tcti()).env("PATH", path));
    refuses(&locked, 1, &["the TPM is locked"]);
    let left = run(tpm.command("tpm2_getcap").arg("handles-nv-index")).stdout;
    assert_eq!(String::from_utf8_lossy(&left), "");
    let enrolled = enroll(&site, &tpm, "file");
    assert!(enrolled.status.success(), "{}", printed(&enrolled));
}

/// One program of tpm2-tools that is another one here, first in this PATH; and where it lies.
fn instead(tpm: &SwTpm, program: &str, script: &str) -> (String, PathBuf) {
    let programs = tpm.path("bin");
    fs::create_dir(&programs).expect("a directory");
    let at = programs.join(program);
    fs::write(&at, script).expect("a script");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("a mode");
    (format!("{}:{}", programs.display(), std::env::var("PATH").expect("PATH")), at)
}

#[test]
fn a_run_sealed_while_the_tpm_was_away_loses_its_key_by_itself_when_it_is_back() {
    let (site, tpm) = (Site::new(), SwTpm::new());
    assert!(enroll(&site, &tpm, "tpm").status.success());
    let (path, away) = instead(&tpm, "tpm2_nvwrite", "#!/bin/sh\necho 'ERROR: no TPM' >&2; exit 1\n");
    let mount = site.ingest().args(["--quiet", "2s"]).env(TCTI, tpm.tcti()).env("PATH", path).mount();
    let kept = "is sealed, but its key is not erased here yet";
    let gone = "its seal was complete; its key is erased here";
    fs::create_dir(mount.path("run")).expect("a run");
    fs::write(mount.path("run/CopyComplete.txt"), b"").expect("written");
    mount.logged(kept, 1);
    fs::remove_file(away).expect("the TPM is back");
    mount.logged(gone, 1);
    assert_eq!(mount.log().matches(kept).count(), 1, "said once: {}", mount.log());
    let again = output(&mut seal(&site, &tpm, "run"));
    refuses(&again, 1, &["this machine holds no run"]);
    mount.unmount();
}

/// A `tpm2_nvwrite` that kills whoever calls it, at its call number AT of this process.
const DEADLY: &str = r#"#!/bin/sh
n=$(($(cat "$CALLS") + 1)); echo $n > "$CALLS"; echo "$@" >> "$CALLS.args"
if [ "$n" = "$AT" ]; then
  case "$WHEN" in
    before) kill -9 $PPID; exit 1;;
    torn) head -c 40 | "$REAL" "$@"; kill -9 $PPID; exit 1;;
    after) "$REAL" "$@"; kill -9 $PPID; exit 1;;
  esac
fi
exec "$REAL" "$@"
"#;

#[test]
fn one_killed_while_the_key_is_replaced_keeps_every_open_run_and_no_sealed_one() {
    let (site, tpm) = (Site::new(), SwTpm::new());
    assert!(enroll(&site, &tpm, "tpm").status.success());
    let (index, auth) = home(&site.state);
    let (deadly, _) = instead(&tpm, "tpm2_nvwrite", DEADLY);
    let path = std::env::var("PATH").expect("PATH");
    let real = path.split(':').map(|dir| Path::new(dir).join("tpm2_nvwrite")).find(|p| p.exists());
    let (real, calls): (PathBuf, PathBuf) = (real.expect("tpm2-tools"), tpm.path("calls"));
    let mount = |site: &Site| site.ingest().arg("--seal").arg("hand").env(TCTI, tpm.tcti()).mount();
    let first = mount(&site);
    fs::create_dir(first.path("open")).expect("a run");
    fs::write(first.path("open/file"), b"kept").expect("written");
    first.unmount();
    // The new key is written, then the old one written over.
    for (at, when) in [(1, "before"), (1, "torn"), (1, "after"), (2, "before"), (2, "torn"), (2, "after")] {
        let name = format!("{when}-{at}");
        let making = mount(&site);
        fs::create_dir(making.path(&name)).expect("a run");
        making.unmount();
        let keys =
            |of: &SwTpm| [index, index + 1].map(|i| of.read(i, &auth)).map(|bytes| bytes[16..48].to_vec());
        let before = keys(&tpm);
        fs::write(&calls, "0").expect("a file");
        let mut sealing = seal(&site, &tpm, &name);
        sealing.env("PATH", &deadly).env("REAL", &real);
        let killed = output(sealing.env("CALLS", &calls).env("AT", at.to_string()).env("WHEN", when));
        assert_eq!(killed.status.code(), None, "{name}: {}", printed(&killed));
        let after = mount(&site);
        assert_eq!(fs::read(after.path("open/file")).expect("still open"), b"kept", "{name}");
        // Until the new key is whole the seal is not finished, and the next process does that.
        let finished = after.log().contains("its seal was complete; its key is erased here");
        assert_eq!(finished, at == 1 && when != "after", "{name}: {}", after.log());
        let runs = output(seal(&site, &tpm, &name).arg("--json"));
        assert!(printed(&runs).contains("this machine holds no run"), "{name}: {}", printed(&runs));
        after.unmount();
        let left = keys(&tpm);
        let old = before.iter().find(|key| key.iter().any(|b| *b != 0)).expect("the key before");
        assert!(!left.contains(old), "{name}: the key before is there");
        assert_eq!(left.iter().filter(|key| key.iter().any(|b| *b != 0)).count(), 1, "{name}");
    }
    let typed = fs::read_to_string(calls.with_extension("args")).expect("what was typed");
    assert!(typed.lines().count() >= 6 && !typed.contains(&auth), "{typed}");
}
