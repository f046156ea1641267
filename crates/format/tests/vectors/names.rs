//! Sections 8 (a run's name) and 11.

use runvault_crypto::secrets::Secret;
use runvault_crypto::siv::SivKey;
use runvault_format::ids::{FileId, RunId};
use runvault_format::keys::NameKey;
use runvault_format::{Result, name};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{array, hex, pattern, secret, unhex};

pub const SET: Set = Set {
    file: "names.json",
    about: "Stored names, link targets, attributes and run names (sections 8, 11). id: of the directory, \
            the file or the run; for a value, name is the attribute's plaintext name; of a link's side file, \
            stored is the link's stored name, text its stored target, plain the side file's name.",
    make,
    run,
};

const DIR: FileId = FileId([0xd1; 32]);

fn key() -> NameKey {
    SivKey::new(Secret::copy_from(&[0x4e; 64]))
}

fn input(what: &str, stored: &[u8], side: Option<&[u8]>) -> Value {
    json!({
        "what": what, "key": hex([0x4e; 64]), "id": hex(DIR.0),
        "stored": hex(stored), "side": side.map(hex),
    })
}

fn with(mut input: Value, field: &str, value: Value) -> Value {
    input[field] = value;
    input
}

fn plain(len: usize) -> Vec<u8> {
    pattern(len).into_iter().map(|b| if b == 0 || b == b'/' { b'_' } else { b }).collect()
}

fn base32(bytes: &[u8]) -> Vec<u8> {
    data_encoding::BASE32_NOPAD.encode(bytes).to_lowercase().into_bytes()
}

fn make() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, of) in [
        ("name_one_byte", b"a".to_vec()),
        ("name_of_a_run_info", b"RunInfo.xml".to_vec()),
        ("name_not_utf8", vec![0xff, 0xfe]),
        ("name_longest_short", plain(140)),
        ("name_shortest_long", plain(141)),
        ("name_longest", plain(255)),
    ] {
        let stored = name::encrypt_name(&key(), &DIR, &of).unwrap();
        all.push(vector(name, "ok", input("name", &stored.text, stored.side.as_deref())));
    }
    let sealed = |name: &[u8]| key().seal(&[b"runvault/1 name", &DIR.0], name).unwrap();
    for (name, of) in [
        ("name_with_slash", &b"a/b"[..]),
        ("name_with_zero", b"a\0b"),
        ("name_dot", b"."),
        ("name_dot_dot", b".."),
    ] {
        all.push(vector(name, "bad-name", input("name", &base32(&sealed(of)), None)));
    }
    let short = name::encrypt_name(&key(), &DIR, b"a").unwrap().text;
    let long = name::encrypt_name(&key(), &DIR, &plain(200)).unwrap();
    let side = long.side.unwrap();
    let other = with(input("name", &short, None), "id", json!(hex([0; 32])));
    let mut bits = short.clone();
    *bits.last_mut().unwrap() += 1;
    let mut changed = short.clone();
    changed[3] = if changed[3] == b'a' { b'b' } else { b'a' };
    all.extend([
        vector("name_empty", "foreign-name", input("name", &base32(&sealed(b"")), None)),
        vector("name_in_another_directory", "not-authentic", other),
        vector("name_changed", "not-authentic", input("name", &changed, None)),
        vector("name_with_unused_bits", "foreign-name", input("name", &bits, None)),
        vector("name_upper_case", "foreign-name", input("name", &short.to_ascii_uppercase(), None)),
        vector("name_padded", "foreign-name", input("name", &[&short[..], b"===="].concat(), None)),
        vector("name_record", "foreign-name", input("name", b"_dir", None)),
        vector("name_of_a_file_server", "foreign-name", input("name", b".nfs0000000000000001", None)),
        vector(
            "name_over_140_bytes_as_short",
            "foreign-name",
            input("name", &base32(&sealed(&plain(141))), None),
        ),
        vector("long_name_without_side_file", "side-file", input("name", &long.text, None)),
        vector(
            "long_name_with_cut_side_file",
            "side-file",
            input("name", &long.text, Some(&side[..side.len() - 1])),
        ),
        vector(
            "long_name_with_side_file_of_another",
            "side-file",
            input("name", &long.text, Some(&sealed(&plain(201)))),
        ),
        vector("long_name_of_a_short_one", "side-file", {
            let text = [b"0", &base32(&runvault_crypto::digest::sha256(&[&sealed(b"a")])[..20])[..]].concat();
            input("name", &text, Some(&sealed(b"a")))
        }),
    ]);
    all.extend(links());
    all.extend(attributes());
    all.extend(run_names());
    all
}

fn links() -> Vec<Vector> {
    let of = |name: &'static str, len: usize| {
        let stored = name::encrypt_link(&key(), &vec![b'x'; len]).unwrap();
        vector(name, "ok", input("link", &stored.text, stored.side.as_deref()))
    };
    let sealed = |target: &[u8]| key().seal(&[b"runvault/1 link"], target).unwrap();
    vec![
        of("link_one_byte", 1),
        of("link_longest_short", 623),
        of("link_shortest_long", 624),
        vector(
            "link_over_623_bytes_as_short",
            "not-canonical",
            input("link", &base32(&sealed(&[b'x'; 624])), None),
        ),
        vector("link_with_zero", "bad-name", input("link", &base32(&sealed(b"a\0b")), None)),
        vector("link_empty", "bad-name", input("link", &base32(&sealed(b"")), None)),
        vector("link_in_the_clear", "foreign-name", input("link", b"/etc/passwd", None)),
        vector("link_side_file", "ok", {
            let text = name::encrypt_link(&key(), &[b'x'; 624]).unwrap().text;
            let link = name::encrypt_name(&key(), &DIR, b"a").unwrap().text;
            with(input("link-side", &link, None), "text", json!(hex(text)))
        }),
        vector("link_of_a_name", "not-authentic", {
            input("link", &name::encrypt_name(&key(), &DIR, b"a").unwrap().text, None)
        }),
    ]
}

fn attributes() -> Vec<Vector> {
    let stored = name::encrypt_xattr_name(&key(), &DIR, b"user.comment").unwrap();
    let empty = name::encrypt_xattr_value(&key(), &DIR, b"user.comment", b"").unwrap();
    let longest = name::encrypt_xattr_name(&key(), &DIR, &[b'u'; 130]).unwrap();
    let over = key().seal(&[b"runvault/1 xattr", &DIR.0], &[b'u'; 131]).unwrap();
    let value =
        |name: &str, stored: &[u8]| with(input("xattr-value", stored, None), "name", json!(hex(name)));
    let stored_value = name::encrypt_xattr_value(&key(), &DIR, b"user.comment", b"a value").unwrap();
    vec![
        vector("xattr_name", "ok", input("xattr-name", &stored, None)),
        vector("xattr_name_longest", "ok", input("xattr-name", &longest, None)),
        vector("xattr_name_too_long", "too-long", {
            input("xattr-name", &[b"user.rv.", &base32(&over)[..]].concat(), None)
        }),
        vector("xattr_name_foreign", "foreign-name", input("xattr-name", b"user.comment", None)),
        vector("xattr_name_of_another_file", "not-authentic", {
            with(input("xattr-name", &stored, None), "id", json!(hex([0; 32])))
        }),
        vector("xattr_value", "ok", value("user.comment", &stored_value)),
        vector("xattr_value_empty", "ok", value("user.comment", &empty)),
        vector("xattr_value_of_another_name", "not-authentic", value("user.other", &stored_value)),
    ]
}

fn run_names() -> Vec<Vector> {
    let id = RunId([0x52; 16]);
    let of = |stored: &[u8]| with(input("run-name", stored, None), "id", json!(hex(id.0)));
    let good = |name: &[u8]| of(&name::encrypt_run_name(&key(), &id, name).unwrap());
    let bad = |name: &[u8]| of(&key().seal(&[b"runvault/1 run", &id.0], name).unwrap());
    vec![
        vector("run_name", "ok", good(b"230405_NB551234_0042_AHABCDEFGX")),
        vector("run_name_in_a_folder", "ok", good(b"MiSeq01/230405_M01234_0042_000000000-ABCDE")),
        vector("run_name_with_dot_dot", "bad-name", bad(b"a/../b")),
        vector("run_name_absolute", "bad-name", bad(b"/a")),
        vector("run_name_of_another_run", "not-authentic", with(good(b"a"), "id", json!(hex([0; 16])))),
    ]
}

fn run(input: &Value) -> Outcome {
    plain_of(input).map(|plain| json!({ "plain": hex(plain) })).map_err(|e| e.name())
}

/// The plaintext; what it is stored as must be what it came from.
fn plain_of(input: &Value) -> Result<Vec<u8>> {
    let key = SivKey::new(secret(&input["key"]));
    let (stored, id) = (unhex(&input["stored"]), &input["id"]);
    let side = input["side"].as_str().map(|_| unhex(&input["side"]));
    match input["what"].as_str().unwrap() {
        "name" => {
            let plain = name::decrypt_name(&key, &FileId(array(id)), &stored, side.as_deref())?;
            let again = name::encrypt_name(&key, &FileId(array(id)), &plain)?;
            assert_eq!((again.text, again.side), (stored, side));
            Ok(plain)
        }
        "link" => {
            let plain = name::decrypt_link(&key, &stored, side.as_deref())?;
            let again = name::encrypt_link(&key, &plain)?;
            assert_eq!((again.text, again.side), (stored, side));
            Ok(plain)
        }
        "link-side" => Ok(name::side_link_of(&stored, &unhex(&input["text"]))),
        "xattr-name" => {
            let plain = name::decrypt_xattr_name(&key, &FileId(array(id)), &stored)?;
            assert_eq!(name::encrypt_xattr_name(&key, &FileId(array(id)), &plain)?, stored);
            Ok(plain)
        }
        "xattr-value" => name::decrypt_xattr_value(&key, &FileId(array(id)), &unhex(&input["name"]), &stored),
        _ => name::decrypt_run_name(&key, &RunId(array(id)), &stored),
    }
}
