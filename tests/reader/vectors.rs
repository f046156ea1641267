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
