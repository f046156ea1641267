//! Records of what the program prints, with everything that differs from day to day in its place.

use std::path::Path;

/// Compares a conversation with the record of that name; `RUNVAULT_RECORD=1` writes the record anew.
pub fn compare(record: &Path, printed: &str, folder: &Path) {
    let folder = folder.to_str().expect("UTF-8").trim_end_matches('/');
    let text = settled(&printed.replace(folder, "/tmp/x"));
    if std::env::var_os("RUNVAULT_RECORD").is_some() {
        std::fs::write(record, &text).expect("the record");
    }
    let recorded = std::fs::read_to_string(record).unwrap_or_default();
    if recorded != text {
        let (was, is): (Vec<_>, Vec<_>) = (recorded.lines().collect(), text.lines().collect());
        let n = was.iter().zip(&is).take_while(|(was, is)| was == is).count();
        let [was, is] = [was, is].map(|lines| lines.get(n).copied().unwrap_or_default());
        panic!(
            "{} differs from what is printed now from line {} on, where it has\n{was}\nand now\n{is}\n\
             RUNVAULT_RECORD=1 writes it anew. All that is printed now:\n{text}",
            record.display(),
            n + 1
        );
    }
}

/// Lines that are other words each time: what stands before the words, and their place.
const WORDS: [&str; 4] = ["in words", "six words", "Six words:", "request:"];

const FINGERPRINT_WORDS: usize = 12;

fn settled(text: &str) -> String {
    text.lines().map(settled_line).collect::<Vec<String>>().join("\n") + "\n"
}

fn settled_line(line: &str) -> String {
    let label = WORDS.iter().find(|label| line.trim_start().starts_with(**label));
    if let Some((label, (before, _))) = label.and_then(|label| Some((label, line.split_once(label)?))) {
        return format!("{before}{label} <words>");
    }
    for (label, place) in [("space ", "<space>"), ("cipher ", "<engine>"), ("made anew in ", "<time>")] {
        if line.starts_with(label) {
            return format!("{label}{place}");
        }
    }
    let is_plain = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase());
    if line.split(' ').count() == FINGERPRINT_WORDS && line.split(' ').all(is_plain) {
        return "<words>".to_owned();
    }
    line.split_inclusive([' ', '(', ')', '/', '"', ',', ':']).map(settled_word).collect()
}

/// Ids, fingerprints, and the parts of an instant that a colon ends.
fn settled_word(word: &str) -> String {
    let bare = word.trim_end_matches([' ', '(', ')', '/', '"', ',', ':', '.', ';']);
    let tail = &word[bare.len()..];
    let is_hex = |n: usize| bare.len() == n && bare.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex(64) || is_hex(32) {
        return format!("<id>{tail}");
    }
    let is_date = bare.len() == 13 && bare.as_bytes()[10] == b'T';
    let is_seconds = bare.len() == 3 && bare.ends_with('Z') || bare.len() == 2 && tail == ":";
    if is_date || is_seconds && bare.bytes().take(2).all(|b| b.is_ascii_digit()) {
        return format!("00{tail}");
    }
    word.to_owned()
}
