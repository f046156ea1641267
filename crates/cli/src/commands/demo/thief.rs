//! What somebody who has the store, and no key, finds in it.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use runvault_sequencer::RunSpec;
use serde_json::{Value, json};

use super::Voice;
use super::stage::{Stage, files_below};
use crate::exit::{Exit, refuse};
use crate::output::{count, size};

/// Files that are shown by name.
const SHOWN: usize = 5;
/// Bytes of the largest one that are shown.
const BYTES: usize = 96;
/// The most characters of a path that are shown.
const WIDTH: usize = 100;

/// Shows names and bytes, then looks for anything readable.
pub(super) fn look(stage: &Stage, spec: &RunSpec, voice: Voice) -> Result<Value> {
    let store = &stage.store;
    let files = files_below(store)?;
    let mut sized: Vec<(u64, &str)> = files
        .iter()
        .filter(|path| path.contains("/tree/"))
        .map(|path| (std::fs::metadata(store.join(path)).map_or(0, |m| m.len()), path.as_str()))
        .collect();
    sized.sort_unstable();
    let Some((_, largest)) = sized.last().copied() else {
        return Err(refuse(Exit::Failed, "the store holds no files"));
    };
    let step = (sized.len() / SHOWN).max(1);
    for (bytes, path) in sized.iter().rev().step_by(step).take(SHOWN) {
        voice.line(&format!("  {:>10}  {}", size(*bytes), shortened(path)))?;
    }
    voice.line(&format!("\n  {} begins with", shortened(largest)))?;
    voice.line(dump(&head(&store.join(largest))?).trim_end())?;
    search(stage, &files, spec, voice)
}

fn shortened(path: &str) -> String {
    if path.chars().count() <= WIDTH {
        return path.to_owned();
    }
    path.chars().take(WIDTH).chain("...".chars()).collect()
}

fn head(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As `hexdump -C` shows it.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (n, line) in bytes.chunks(16).enumerate() {
        let hex = line.iter().fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x} ");
            hex
        });
        let plain: String = line
            .iter()
            .map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' })
            .collect();
        let _ = writeln!(text, "  {:08x}  {hex:48} |{plain}|", n * 16);
    }
    text
}

/// Every byte and every name of the store, for what a thief would look for first.
fn search(stage: &Stage, files: &[String], spec: &RunSpec, voice: Voice) -> Result<Value> {
    let words = [spec.name.as_str(), "RunInfo", "SampleSheet", "BaseCalls", "InterOp", "<?xml"];
    let mut bytes = 0u64;
    for path in files {
        stage.go_on()?;
        let content = std::fs::read(stage.store.join(path))?;
        bytes += content.len() as u64;
        let found = words.iter().find(|word| contains(&content, word) || contains(path.as_bytes(), word));
        if let Some(word) = found {
            return Err(refuse(Exit::Damaged, format!("{path} shows {word}: this must never be")));
        }
    }
    voice.line(&format!(
        "\n  Searched {} and all names ({}) for {}: nothing.",
        size(bytes),
        count(files.len() as u64, "file"),
        words.join(", ")
    ))?;
    Ok(json!({ "files": files.len(), "bytes": bytes, "found": 0 }))
}

fn contains(bytes: &[u8], word: &str) -> bool {
    let word = word.as_bytes();
    let Some(first) = word.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(word) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_looks_like_one() {
        let text = dump(b"runvault\x01\x00\xff 3456789");
        assert_eq!(
            text.lines().next().unwrap(),
            "  00000000  72 75 6e 76 61 75 6c 74 01 00 ff 20 33 34 35 36  |runvault... 3456|"
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn words_are_found_where_they_are() {
        assert!(contains(b"xxRunRunInfo", "RunInfo"));
        assert!(!contains(b"RunInf", "RunInfo"));
    }
}
