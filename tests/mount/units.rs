//! The systemd units that ship with the program.

use std::fs;
use std::path::Path;
use std::process::Command;

use runvault_tests::tools::{leave_out, printed, run, runvault};

#[test]
fn the_gateways_unit_is_sound_and_confined() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        leave_out("systemd-analyze is missing (package systemd)");
        return;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd/runvault-ingest@.service");
    let text = fs::read_to_string(shipped).expect("the unit");
    let installed = "/usr/local/bin/runvault";
    assert!(text.contains(installed), "{text}");
    let dir = tempfile::tempdir().expect("a folder");
    let unit = dir.path().join("runvault-ingest@novaseq.service");
    // Verifying looks for the program.
    fs::write(&unit, text.replace(installed, runvault().to_str().expect("UTF-8"))).expect("a unit");
    let said = printed(&run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit)));
    assert!(!said.contains("novaseq"), "{said}");
    // Of 10; what mounts for others can have no mount namespace of its own.
    run(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold=50"]).arg(&unit));
}
