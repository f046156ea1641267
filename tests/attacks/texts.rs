//! Texts that are cut, too long, said twice, of no encoding, or followed by more: each in its own refusal, wherever it
//! lies.

use crate::vault::{SEALED, Vault};

type Change = fn(&[u8]) -> Vec<u8>;

/// What is done to a text of one or more lines.
const CHANGES: [(&str, Change); 9] = [
    ("nothing left", |_| Vec::new()),
    ("cut in half", |text| text[..text.len() / 2].to_vec()),
    ("its last byte missing", |text| text[..text.len() - 1].to_vec()),
    ("bytes behind it", |text| [text, b"{}\n"].concat()),
    ("a first field twice", twice),
    ("a field that nobody knows", |text| with(text, b"{", b"{\"zzz\":1,")),
    ("a byte that is no UTF-8", |text| with(text, b"\":\"", b"\":\"\xff")),
    ("a space where none is", |text| with(text, b"\":", b"\": ")),
    ("a mark of byte order", |text| [b"\xef\xbb\xbf", text].concat()),
];

/// `to` in the place of the first `from`.
fn with(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = text.windows(from.len()).position(|part| part == from).expect("it is there");
    [&text[..at], to, &text[at + from.len()..]].concat()
}

/// The object's first field said again before it.
fn twice(text: &[u8]) -> Vec<u8> {
    let object = text.iter().position(|byte| *byte == b'{').expect("an object");
    let field = text[object + 1..].split(|byte| *byte == b',').next().expect("a field");
    [&text[..object + 1], field, b",", &text[object + 1..]].concat()
}

/// Longer than any text, and of no use to read: a file of zeros that takes no room, and one that looks right.
const GIANT: u64 = 1 << 40;

/// Each change of a text, and the giants, is refused by `line` with this exit code, naming the text; a version that is
/// not known by its number, where a first line says one.
#[track_caller]
fn refuses(vault: &Vault, name: &str, line: &str, code: i32, says: &str) {
    let genuine = vault.read(name);
    for (what, change) in CHANGES {
        println!("{name}: {what}");
        vault.write(name, change(&genuine));
        vault.refused(line, code, says);
    }
    vault.write(name, b"");
    let file = std::fs::File::options().write(true).open(vault.path(name)).expect("a file");
    file.set_len(GIANT).expect("a size");
    let said = vault.run(line);
    assert!(said.code == code || said.code == 2, "{name}, a giant: {}\n{}", said.code, said.text);
    assert!(said.text.contains(says), "{name}, a giant: {}", said.text);
    let end = genuine.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    vault.write(name, [&genuine[..end], &vec![b'['; 900 << 10]].concat());
    let said = vault.run(line);
    assert!(
        [code, 2].contains(&said.code) && said.text.contains(says),
        "{name}, deep: {}\n{}",
        said.code,
        said.text
    );
    if genuine.starts_with(b"runvault/1 ") {
        vault.write(name, with(&genuine, b"runvault/1 ", b"runvault/9 "));
        let said = vault.run(line);
        assert!(said.code != 0 && said.text.contains("version 9"), "{name}, a later version: {}", said.text);
        vault.write(name, with(&genuine, b"runvault/1 ", b"runvault/1 x"));
        vault.refused(line, code, says);
    }
    vault.write(name, &genuine);
}

/// Row "truncated, oversized, trailing, non-canonical": what every command reads of custody/.
#[test]
fn the_texts_of_custody_are_refused_by_name() {
    let vault = Vault::new();
    let newest = format!("custody/state-{}", vault.lines());
    for name in ["custody/genesis", "custody/state-0", &newest] {
        refuses(&vault, &format!("store/{name}"), "audit verify store", 4, name);
    }
    // What the log lacks is read from the claims of the last day.
    for n in 1..=vault.lines() {
        std::fs::remove_file(vault.path(format!("store/custody/line-{n}"))).expect("a claim");
    }
    refuses(&vault, "store/custody/audit.log", "audit verify store", 4, "custody/audit.log");
    vault.done("audit verify store");
}

/// The claim of a line that is not in the log.
#[test]
fn a_claim_of_the_next_line_is_refused_by_name() {
    let vault = Vault::new();
    vault.copy("store", "before");
    vault.agree("remove-reader guest");
    let (n, claim) = (vault.lines(), format!("store/custody/line-{}", vault.lines()));
    for name in ["audit.log", "genesis"] {
        vault.copy(&format!("before/custody/{name}"), &format!("store/custody/{name}"));
    }
    assert!(vault.lines() < n);
    refuses(&vault, &claim, "audit verify store --state elsewhere", 4, &format!("line-{n}"));
    vault.done("audit verify store --state elsewhere");
}

/// A reminder for people: what is none says nothing.
#[test]
fn a_drills_note_that_is_none_counts_as_none() {
    let vault = Vault::new();
    let name = format!("store/custody/confirmed-{}", vault.identity("alice").id());
    let genuine = vault.read(&name);
    assert!(!vault.done("custody list store").contains("due: alice"));
    for (what, change) in CHANGES {
        vault.write(&name, change(&genuine));
        let said = vault.done("custody list store");
        assert!(said.contains("due: alice"), "{what}");
    }
    vault.write(&name, vault.read(&format!("store/custody/confirmed-{}", vault.identity("bob").id())));
    assert!(vault.done("custody list store").contains("due: alice"), "of another custodian");
    vault.write(&name, &genuine);
    assert!(!vault.done("custody list store").contains("due: alice"));
}

/// What custodians send each other.
#[test]
fn requests_and_approvals_are_refused_by_name() {
    let vault = Vault::new();
    vault.propose("rotate", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    let execute = "custody execute store req.req --approval alice.req.ok --approval bob.req.ok";
    refuses(&vault, "req.req", "custody show req.req", 4, "req.req");
    refuses(&vault, "req.req", execute, 4, "req.req");
    refuses(&vault, "bob.req.ok", execute, 4, "bob.req.ok");
    vault.done(execute);
}

/// Keys of people and machines.
#[test]
fn key_files_are_refused_by_name() {
    let vault = Vault::new();
    vault.propose("rotate", "req");
    // Hers has nothing behind it: a copy of custody/, which others have, is looked at by those who need it.
    refuses(
        &vault,
        "carol.key",
        "custody approve req.req --identity carol.key --out x.ok --yes",
        2,
        "carol.key",
    );
    vault.propose("rotate", "req");
    refuses(
        &vault,
        "mallory.key.pub",
        "custody propose store add-reader m=mallory.key.pub --out x",
        4,
        "mallory.key.pub",
    );
    let enroll = "gateway enroll store --state second --name second --out second.req --fingerprint";
    vault.done(&format!("{enroll} {}", vault.id()));
    refuses(&vault, "second.req", "custody propose store enroll-gateway second.req --out x", 4, "second.req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    let execute = "custody execute store req.req --approval alice.req.ok --approval bob.req.ok";
    refuses(&vault, "req.req.executor", execute, 2, "req.req.executor");
}

/// A run's description, which its machine signed.
#[test]
fn a_runs_text_is_refused_by_name() {
    let vault = Vault::new();
    let (id, at) = (vault.run_id(SEALED), vault.run_at(SEALED));
    let check = "check store --identity lab.key";
    refuses(&vault, &format!("{at}/run.json"), check, 4, &id);
    refuses(&vault, &format!("{at}/seal/seal.note"), "scrub store", 4, &id);
    vault.change(&format!("{at}/run.json"), "\"suite\":1", "\"suite\":7");
    vault.refused(check, 4, &id);
}

/// Suites that this program does not have.
#[test]
fn suites_that_are_not_known_are_named() {
    let vault = Vault::new();
    let genuine = vault.read("store/custody/genesis");
    vault.change("store/custody/genesis", "\"suite\":1", "\"suite\":2");
    vault.refused("audit verify store", 1, "cipher suite 2 is not known to this program");
    vault.write("store/custody/genesis", genuine);
    for (version, says) in [("4", "version 4"), ("99", "version 99")] {
        vault.copy("store/vault.json", "kept");
        vault.change("store/vault.json", "\"version\":3", &format!("\"version\":{version}"));
        vault.refused("audit verify store", 1, says);
        vault.copy("kept", "store/vault.json");
    }
}
