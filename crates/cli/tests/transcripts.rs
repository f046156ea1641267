//! Recorded conversations: a changed word shows in review. `RUNVAULT_RECORD=1 cargo test` writes them
//! anew.

mod common;

use std::path::Path;

use common::{STRONG, Scratch};

#[test]
fn a_first_day() {
    let scratch = Scratch::new();
    scratch.secret("pass.txt", STRONG);
    scratch.secret("new.txt", "other seven words nobody guesses zither quagmire");
    scratch.folder("run/InterOp");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>");
    scratch.secret("run/InterOp/EventMetricsOut.bin", "0123456789");
    play(
        &scratch,
        "first_day",
        &[
            "init store --passphrase-file pass.txt",
            "init store --passphrase-file pass.txt",
            "key export store --out owner.key",
            "passwd store --passphrase-file pass.txt --new-passphrase-file new.txt",
            "status store",
        ],
    );
}

#[test]
fn work_without_a_mount() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("run/InterOp");
    scratch.secret("run/RunInfo.xml", "<RunInfo/>\n");
    scratch.secret("run/InterOp/EventMetricsOut.bin", "0123456789");
    play(
        &scratch,
        "without_a_mount",
        &[
            "cp -r run store:/ --identity owner.key",
            "cp run/RunInfo.xml store:/run/ --identity owner.key",
            "cp --force run/RunInfo.xml store:/run/ --identity owner.key",
            "ls store --identity owner.key",
            "ls -R store --identity owner.key",
            "cat store run/RunInfo.xml --identity owner.key",
            "cat store run/none --identity owner.key",
            "cp -r store:/run out --identity owner.key",
            "check store --identity owner.key",
            "check store --json --identity owner.key",
            "custody rotate store --identity owner.key",
            "status store --identity owner.key",
            "takeover store run --identity owner.key",
            "takeover store none --identity owner.key",
        ],
    );
}

#[test]
fn refusals() {
    let scratch = Scratch::new();
    scratch.vault();
    scratch.folder("mnt");
    scratch.folder("full/holiday");
    scratch.folder("empty");
    play(
        &scratch,
        "refusals",
        &[
            "ls none",
            "ls full",
            "ls empty",
            "ls store",
            "init full --no-lock --identity new.key",
            "init store --no-lock --identity new.key",
            "init new --no-lock --identity owner.key",
            "mount none mnt",
            "mount store none",
            "mount store full",
            "mount store store",
            "mount -o frobnicate store mnt",
            "cp -r full store:/",
            "cp owner.key full",
            "unmount mnt",
        ],
    );
}

/// Runs each line and compares what is printed with the record of that name.
fn play(scratch: &Scratch, name: &str, lines: &[&str]) {
    let mut text = String::new();
    for line in lines {
        let outcome = scratch.run(&line.split(' ').collect::<Vec<_>>());
        text += &format!("$ runvault {line}\n{}{}", outcome.out(), outcome.stderr);
        if outcome.code != 0 {
            text += &format!("[exit {}]\n", outcome.code);
        }
        text.push('\n');
    }
    let text =
        settled(&text.replace(scratch.path("").to_str().expect("UTF-8").trim_end_matches('/'), "/tmp/x"));
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(format!("{name}.txt"));
    if std::env::var_os("RUNVAULT_RECORD").is_some() {
        std::fs::write(&record, &text).expect("the record");
    }
    let recorded = std::fs::read_to_string(&record).unwrap_or_default();
    assert!(recorded == text, "{} differs from what is printed now:\n{text}", record.display());
}

/// Everything that differs from day to day in its place.
fn settled(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if let Some((label, _)) = line.split_once("in words").filter(|(before, _)| before.trim().is_empty()) {
            return format!("{label}in words <words>");
        }
        if line.starts_with("space ") {
            return "space <space>".to_owned();
        }
        if line.starts_with("cipher ") {
            return "cipher <engine>".to_owned();
        }
        line.split_inclusive([' ', '(', ')', '/', '"', ',', ':']).map(settled_word).collect()
    });
    lines.collect::<Vec<String>>().join("\n") + "\n"
}

/// Ids, fingerprints, and the parts of an instant that a colon ends.
fn settled_word(word: &str) -> String {
    let bare = word.trim_end_matches([' ', '(', ')', '/', '"', ',', ':']);
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
