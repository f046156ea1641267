//! `tests/vectors`, checked in Python.

use std::path::Path;

use runvault_tests::tools::{printed, run};

use crate::python;

#[test]
fn every_vector_has_its_outcome_in_python_too() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let done = run(python("reader.py").arg("vectors").arg(vectors));
    println!("{}", printed(&done));
}

#[test]
fn the_reader_and_the_test_tools_pin_one_version() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(here.join(name)).expect("a file");
    let pin = read("reader/requirements.txt");
    assert!(pin.starts_with("cryptography=="), "{pin}");
    assert!(read("requirements.txt").lines().any(|line| line == pin.trim()), "tests/requirements.txt");
    assert!(read("reader/reader.py").contains(&format!("pip install {}\"", pin.trim())), "reader.py");
}
