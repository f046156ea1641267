//! The worked example of docs/format.md, section 2.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::secrets::Secret;
use runvault_format::header::{Clear, Kind};
use runvault_format::ids::FileId;
use runvault_format::keys::place;
use runvault_format::name;
use runvault_format::size::Geometry;

use crate::common::fixed::{self, FILE, RUN, aead, hex, run_key, run_keys, state};

const BEGIN: &str = "<!-- example: made by make_vectors, see section 15 -->\n";
const END: &str = "<!-- end of example -->\n";

pub fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md")
}

fn parts(page: &str) -> (&str, &str, &str) {
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (example, after) = rest.split_once(END).unwrap();
    (before, example, after)
}

pub fn write() {
    let found = fs::read_to_string(page()).unwrap();
    let (before, _, after) = parts(&found);
    fs::write(page(), format!("{before}{BEGIN}{}{END}{after}", text())).unwrap();
}

pub fn check() {
    let found = fs::read_to_string(page()).unwrap();
    assert!(parts(&found).1 == text(), "the example is stale: run make_vectors");
}

/// Bytes as lines of 32, indented as a block.
fn block(out: &mut String, title: &str, bytes: &[u8]) {
    writeln!(out, "    {title}").unwrap();
    for line in bytes.chunks(32) {
        writeln!(out, "        {}", hex(line)).unwrap();
    }
}

fn text() -> String {
    let (dir, name, plain) = (FileId::ROOT, b"RunInfo.xml", b"<RunInfo/>\n");
    let clear = Clear::new(Kind::File, Geometry::default(), FILE, RUN);
    let prk = hkdf_extract(&RUN.0, &run_key().0);
    let encoded = clear.encode();
    let slot_key: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 slot\0", &encoded]);
    let file_key: Secret<32> = hkdf_expand(&prk, &[b"runvault/1 file\0", &encoded, &[0; 4]]);
    let names: Secret<64> = hkdf_expand(&prk, &[b"runvault/1 names\0"]);
    let mut slot = state(1, plain.len() as u64);
    slot.place = place(&dir, Kind::File, name);
    let copy = fixed::copy(0, &clear, &aead(&slot_key), &slot);
    let chunk = fixed::chunk(0, &aead(&file_key), plain);
    let stored = name::encrypt_name(run_keys().name_key(), &dir, name).unwrap();

    let mut out = String::from(
        "A run with the id and key below holds one file, `RunInfo.xml`, of the 11 bytes `<RunInfo/>` and a\n\
         newline. Random values are fixed here. The file lies in `tree/` under its stored name and has\n\
         1,024 + 28 + 11 = 1,063 bytes: header copy 0, 512 zero bytes (copy 1 was never written), chunk 0.\n\n",
    );
    block(&mut out, "run id", &RUN.0);
    block(&mut out, "run key RK", run_key().0.expose());
    block(&mut out, "PRK = Extract(run id, RK)", prk.expose());
    block(
        &mut out,
        "commitment = Expand(PRK, lb(\"runvault/1 commit\")), in run.json",
        &run_keys().commitment(),
    );
    block(&mut out, "name key", names.expose());
    writeln!(
        out,
        "    stored name = base32(AES-SIV(name key; \"runvault/1 name\", 32 zero bytes; \"RunInfo.xml\"))"
    )
    .unwrap();
    writeln!(out, "        {}", String::from_utf8(stored.text).unwrap()).unwrap();
    block(&mut out, "clear part: file id f1…, kind 1, C = 2^13", &encoded);
    block(&mut out, "slot key = Expand(PRK, lb(\"runvault/1 slot\") ‖ clear part)", slot_key.expose());
    block(
        &mut out,
        "place = SHA-256(lb(\"runvault/1 place\") ‖ 32 zero bytes ‖ 01 ‖ \"RunInfo.xml\")[..16]",
        &slot.place.0,
    );
    block(
        &mut out,
        "state: seq 1, size 11, writes 1, epoch 0, no holes, that place (first 96 of 420 bytes)",
        &slot.encode().unwrap()[..96],
    );
    block(
        &mut out,
        "header copy 0: clear part ‖ nonce ‖ sealed state ‖ tag (associated data 02, 8 zero bytes)",
        &copy,
    );
    block(
        &mut out,
        "file key = Expand(PRK, lb(\"runvault/1 file\") ‖ clear part ‖ 4 zero bytes)",
        file_key.expose(),
    );
    block(&mut out, "chunk 0: nonce ‖ ciphertext ‖ tag (associated data 01, 8 zero bytes)", &chunk);
    out.push('\n');
    out
}
