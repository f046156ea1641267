//! tests/vectors: inputs and outcomes, made here from fixed seeds, checked in, and checked here.

mod continuations;
mod custody;
mod directories;
mod envelopes;
mod example;
mod files;
mod headers;
mod keys;
mod lengths;
mod names;
mod notes;
mod quorum;
mod records;
mod runs;
mod seals;
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

const SETS: [Set; 16] = [
    lengths::SET,
    keys::SET,
    names::SET,
    headers::SET,
    headers::CHUNKS,
    files::SET,
    directories::SET,
    records::SET,
    notes::SET,
    runs::SET,
    seals::SET,
    continuations::SET,
    texts::SET,
    envelopes::SET,
    custody::SET,
    quorum::SET,
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn made(set: &Set) -> String {
    let mut vectors: Vec<Value> = (set.make)().into_iter().map(|v| entry(set, v)).collect();
    let texts = pooled(&mut vectors);
    let mut file = json!({ "about": set.about, "vectors": vectors });
    if !texts.is_empty() {
        file["texts"] = texts.into();
    }
    serde_json::to_string_pretty(&file).unwrap() + "\n"
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

/// Long strings that several inputs have, once: in an input `{"text": name}` stands for each.
fn pooled(vectors: &mut [Value]) -> Map<String, Value> {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for v in vectors.iter_mut() {
        each_string(&mut v["input"], &mut |s| *seen.entry(s.as_str().unwrap().into()).or_default() += 1);
    }
    seen.retain(|text, times| text.len() > 1000 && *times > 1);
    let named: Map<String, Value> =
        seen.into_keys().enumerate().map(|(i, text)| (format!("text-{i}"), text.into())).collect();
    for v in vectors {
        each_string(&mut v["input"], &mut |s| {
            if let Some((name, _)) = named.iter().find(|(_, text)| *text == s) {
                *s = json!({ "text": name });
            }
        });
    }
    named
}

fn each_string(value: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::String(_) => visit(value),
        Value::Array(all) => all.iter_mut().for_each(|v| each_string(v, visit)),
        Value::Object(all) => all.values_mut().for_each(|v| each_string(v, visit)),
        _ => {}
    }
}

/// The input with its texts in place.
fn resolved(input: &Value, texts: &Value) -> Value {
    match input {
        Value::Object(all) if all.len() == 1 && all.contains_key("text") && texts.is_object() => {
            texts[all["text"].as_str().unwrap()].clone()
        }
        Value::Object(all) => all.iter().map(|(k, v)| (k.clone(), resolved(v, texts))).collect(),
        Value::Array(all) => all.iter().map(|v| resolved(v, texts)).collect(),
        other => other.clone(),
    }
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
            match (set.run)(&resolved(&v["input"], &file["texts"])) {
                Ok(output) => assert_eq!((&v["outcome"], &v["output"]), (&json!("ok"), &output), "{name}"),
                Err(refusal) => assert_eq!(v["outcome"], refusal, "{}: {name}", set.file),
            }
        }
    }
}

/// Section 14 of the page, and what the vectors have: each refusal of a single structure is there.
#[test]
fn every_refusal_is_documented_and_has_a_vector() {
    let page = fs::read_to_string(example::page()).unwrap();
    let section = page.split("\n## 14.").nth(1).unwrap().split("\n## 15.").next().unwrap();
    let (single, whole) = section.split_once("Of a file, a directory or a run").unwrap();
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        text.lines()
            .filter_map(|l| l.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned()))
            .collect()
    };
    let mut shown = std::collections::BTreeSet::new();
    for set in &SETS {
        shown.extend((set.make)().into_iter().map(|v| v.outcome.to_owned()).filter(|o| o != "ok"));
    }
    let documented: std::collections::BTreeSet<_> = names(single).union(&names(whole)).cloned().collect();
    assert!(shown.is_subset(&documented), "not on the page: {:?}", shown.difference(&documented));
    let missing: Vec<_> = names(single).difference(&shown).cloned().collect();
    assert!(missing.is_empty(), "without a vector: {missing:?}");
}
