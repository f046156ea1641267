//! docs/ceremonies: each script of docs/custody.md goes through.

use std::path::Path;
use std::process::Command;

use runvault_tests::tools::{printed, run, runvault};

fn ceremony(name: &str, ends_with: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ceremonies").join(name);
    let program = runvault();
    let path = format!("{}:/usr/bin:/bin", program.parent().expect("its folder").display());
    let said = printed(&run(Command::new(script).arg(folder.path()).env("PATH", path)));
    for wanted in ends_with {
        assert!(said.contains(wanted), "{wanted}:\n{said}");
    }
    let last = said.rsplit("quorum ").next().expect("what list says");
    assert!(!last.contains("due: "), "{last}");
}

#[test]
fn first_day() {
    ceremony("first-day.sh", &["novaseq-1", "standing reader"]);
}

#[test]
fn a_custodian_leaves() {
    ceremony("custodian-leaves.sh", &["number 2", "custodian  dave"]);
}

#[test]
fn a_laptop_is_stolen() {
    ceremony("laptop-stolen.sh", &["wrong key", "custodian  bob"]);
}

#[test]
fn a_key_was_exposed() {
    ceremony("key-exposed.sh", &["has a new key, as run", "sealed run as signed", "no such file"]);
}

#[test]
fn everything_burnt() {
    ceremony(
        "everything-burnt.sh",
        &[
            "1 run done",
            "made anew in",
            "custody/ was lost, and is made anew from the key files of",
            "<RunInfo/>",
        ],
    );
}

#[test]
fn a_yearly_rotation() {
    ceremony("yearly-rotation.sh", &["a new vault key, number 2", "\n1:"]);
}
