//! Key files that a TPM locks: a real one in software, by tpm2-tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use runvault_tests::SwTpm;
use runvault_tests::tools::{output, printed, run, runvault};

const TCTI: &str = "TPM2TOOLS_TCTI";
const STRONG: &str = "outlet gravel sublime tanker veneer mossy pelican";

struct Place {
    tpm: SwTpm,
}

impl Place {
    fn new() -> Self {
        let place = Self { tpm: SwTpm::new() };
        for (name, text) in [("pass", STRONG), ("wrong", "another seven words that nobody guesses xylophone")]
        {
            fs::write(place.tpm.path(name), text).expect("a file");
            fs::set_permissions(place.tpm.path(name), fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        fs::create_dir(place.tpm.path("tmp")).expect("a directory");
        place
    }

    fn command(&self, args: &[&str], tpm: &SwTpm) -> Command {
        let mut command = Command::new(runvault());
        command.args(args).current_dir(self.tpm.path("")).env(TCTI, tpm.tcti());
        command.env("TMPDIR", self.tpm.path("tmp"));
        command
    }

    fn done(&self, args: &[&str]) -> String {
        printed(&run(&mut self.command(args, &self.tpm)))
    }

    /// Refused, and nothing left where the programs work.
    fn refused(&self, tpm: &SwTpm, args: &[&str], code: i32, says: &str) -> Output {
        let refused = output(&mut self.command(args, tpm));
        let all = printed(&refused);
        assert_eq!(refused.status.code(), Some(code), "{all}");
        assert!(all.contains(says), "{says}: {all}");
        assert_eq!(fs::read_dir(self.tpm.path("tmp")).expect("the directory").count(), 0, "{all}");
        refused
    }

    fn lockouts(&self) -> u32 {
        let said = run(self.tpm.command("tpm2_getcap").arg("properties-variable")).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let line = said.lines().find(|line| line.contains("LOCKOUT_COUNTER")).expect("a counter");
        u32::from_str_radix(line.rsplit("0x").next().expect("a number").trim(), 16).expect("hex")
    }
}

#[test]
fn a_tpm_opens_the_file_that_it_locked_and_no_other_one_does() {
    let place = Place::new();
    let made = place.done(&["keygen", "--out", "a.key", "--lock", "tpm2", "--passphrase-file", "pass"]);
    assert!(made.contains("this machine's TPM"), "{made}");
    let shown = place.done(&["key", "show", "a.key"]);
    assert!(shown.contains("the TPM of the machine that locked it, and a passphrase"), "{shown}");
    let check = ["key", "check", "a.key", "--passphrase-file", "pass"];
    place.done(&check);
    let wrong = ["key", "check", "a.key", "--passphrase-file", "wrong"];
    assert_eq!(place.lockouts(), 0);
    place.refused(&place.tpm, &wrong, 3, "the passphrase does not open the key of");
    assert_eq!(place.lockouts(), 1, "one try");
    let other = SwTpm::new();
    place.refused(&other, &check, 3, "another TPM than the one that did");

    // The TPM alone, and back.
    let relock = ["key", "relock", "a.key", "--lock", "tpm2", "--without-passphrase"];
    place.done(&[&relock[..], &["--passphrase-file", "pass"]].concat());
    place.done(&["key", "check", "a.key"]);
    place.refused(&other, &["key", "check", "a.key"], 3, "another TPM than the one that did");
    place.done(&["key", "relock", "a.key", "--lock", "none"]);
    place.done(&["key", "check", "a.key"]);
    place.refused(
        &place.tpm,
        &["key", "relock", "a.key", "--lock", "none", "--pcr", "sha256:0"],
        2,
        "does not belong",
    );
    for bad in ["sha256:", "sha256:24", "sha256:7,0", "sha1:0", "sha256:0,0"] {
        place.refused(
            &place.tpm,
            &["key", "relock", "a.key", "--lock", "tpm2", "--pcr", bad],
            2,
            "give them as",
        );
    }
    assert_eq!(fs::read_dir(place.tpm.path("tmp")).expect("the directory").count(), 0);
}

/// A program of tpm2-tools that writes down how it was called.
const WRITTEN_DOWN: &str = "#!/bin/sh\necho \"$0\" \"$@\" >> \"$CALLS\"\nexec \"/usr/bin/${0##*/}\" \"$@\"\n";

#[test]
fn pcrs_that_changed_close_it_and_no_secret_is_on_a_command_line() {
    let place = Place::new();
    let bin = place.tpm.path("bin");
    fs::create_dir(&bin).expect("a directory");
    for tool in ["tpm2_create", "tpm2_unseal", "tpm2_load", "tpm2_createprimary", "tpm2_createpolicy"] {
        fs::write(bin.join(tool), WRITTEN_DOWN).expect("a script");
        fs::set_permissions(bin.join(tool), fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let calls = place.tpm.path("calls");
    let spied = |args: &[&str]| {
        let mut command = place.command(args, &place.tpm);
        let path = std::env::var("PATH").expect("PATH");
        run(command.env("PATH", format!("{}:{path}", bin.display())).env("CALLS", &calls));
    };
    spied(&["keygen", "--out", "a.key", "--lock", "tpm2", "--without-passphrase"]);
    spied(&["key", "check", "a.key"]);
    spied(&["keygen", "--out", "b.key", "--lock", "tpm2", "--without-passphrase", "--pcr", "sha256:7"]);
    spied(&["key", "check", "b.key"]);
    let pcrs = ["--lock", "tpm2", "--pcr", "sha256:0,7"];
    spied(&[&["key", "relock", "a.key", "--new-passphrase-file", "pass"][..], &pcrs].concat());
    spied(&["key", "check", "a.key", "--passphrase-file", "pass"]);
    let typed = fs::read_to_string(&calls).expect("what was typed");
    assert!(typed.contains("pcr:sha256:0,7") && typed.contains("file:/dev/fd/3"), "{typed}");
    // Anything of 32 bytes in hex or base64 would be longer.
    let longest = typed
        .split_whitespace()
        .filter(|word| !word.contains('/') && !word.contains('|'))
        .map(str::len)
        .max();
    assert!(longest < Some(24), "{typed}");

    place.refused(
        &place.tpm,
        &["key", "check", "a.key", "--passphrase-file", "wrong"],
        3,
        "does not open the key of",
    );
    let extend = format!("7:sha256={}", "11".repeat(32));
    run(place.tpm.command("tpm2_pcrextend").arg(extend));
    let check = ["key", "check", "a.key", "--passphrase-file", "pass"];
    place.refused(&place.tpm, &check, 3, "its PCRs are not what they were");
    // More often than a TPM has sessions.
    for _ in 0..4 {
        place.refused(&place.tpm, &["key", "check", "b.key"], 3, "its PCRs are not what they were");
    }
}
