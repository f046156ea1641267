//! tests/vectors: inputs and outcomes, made here from fixed seeds, checked in, and checked here.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod custody;
mod envelopes;
mod example;
mod files;
mod fixed;
mod headers;
mod keys;
mod lengths;
mod names;
mod notes;
mod records;
mod texts;

use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// What a refusal is called, or what comes out.
type Outcome = Result<Value, &'static str>;

/// One file of vectors.
struct Set {
    file: &'static str,
    about: &'static str,
    make: fn() -> Vec<Vector>,
    run: fn(&Value) -> Outcome,
}

/// One input, and the outcome that docs/format.md demands.
struct Vector {
    name: String,
    outcome: &'static str,
    input: Value,
}

fn vector(name: impl Into<String>, outcome: &'static str, input: Value) -> Vector {
    Vector { name: name.into(), outcome, input }
}

const SETS: [Set; 11] = [
    lengths::SET,
    keys::SET,
    names::SET,
    headers::SET,
    headers::CHUNKS,
    files::SET,
    records::SET,
    notes::SET,
    texts::SET,
    envelopes::SET,
    custody::SET,
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn made(set: &Set) -> String {
    let vectors: Vec<Value> = (set.make)().into_iter().map(|v| entry(set, v)).collect();
    let text = serde_json::to_string_pretty(&json!({ "about": set.about, "vectors": vectors })).unwrap();
    text + "\n"
}

fn entry(set: &Set, v: Vector) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), v.name.clone().into());
    entry.insert("outcome".into(), v.outcome.into());
    entry.insert("input".into(), v.input.clone());
    match (set.run)(&v.input) {
        Ok(output) => {
            assert_eq!(v.outcome, "ok", "{}: {}", set.file, v.name);
            entry.insert("output".into(), output);
        }
        Err(refusal) => assert_eq!(v.outcome, refusal, "{}: {}", set.file, v.name),
    }
    entry.into()
}

/// Writes tests/vectors and the example of docs/format.md anew.
#[test]
#[ignore = "writes into the source tree"]
fn make_vectors() {
    fs::create_dir_all(folder()).unwrap();
    for set in &SETS {
        fs::write(folder().join(set.file), made(set)).unwrap();
    }
    example::write();
}

#[test]
fn checked_in_files_are_current() {
    for set in &SETS {
        let found = fs::read_to_string(folder().join(set.file)).unwrap_or_default();
        assert!(found == made(set), "{} is stale: run make_vectors (docs/format.md, section 15)", set.file);
    }
    for found in fs::read_dir(folder()).unwrap() {
        let name = found.unwrap().file_name().into_string().unwrap();
        let known = SETS.iter().any(|s| s.file == name) || !name.ends_with(".json");
        assert!(known, "{name} belongs to no set");
    }
}

#[test]
fn the_example_of_the_page_is_current() {
    example::check();
}

/// The files as they are checked in, not as they would be made.
#[test]
fn outcomes() {
    for set in &SETS {
        let text = fs::read_to_string(folder().join(set.file)).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert!(!vectors.is_empty());
        let mut names = std::collections::BTreeSet::new();
        for v in vectors {
            let name = v["name"].as_str().unwrap();
            assert!(names.insert(name), "{}: {name} twice", set.file);
            match (set.run)(&v["input"]) {
                Ok(output) => assert_eq!((&v["outcome"], &v["output"]), (&json!("ok"), &output), "{name}"),
                Err(refusal) => assert_eq!(v["outcome"], refusal, "{}: {name}", set.file),
            }
        }
    }
}
