//! Section 17: notes of seals, manifests, pins, digests.

use runvault_format::Result;
use runvault_format::descriptor::StateRef;
use runvault_format::digests::{self, Kind as Digested, Line};
use runvault_format::ids::{Digest, FileId};
use runvault_format::manifest::{self, Entry, Kind, Manifest, Record};
use runvault_format::pins::{self, HOLE, Pinned};
use runvault_format::seal_note::SealNote;
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, hex, text, unhex};
use crate::common::{CREATED, GATEWAY, identity, manifest_record};

pub const SET: Set = Set {
    file: "seals.json",
    about: "Of a sealed run (section 17): the text of a note, the plaintext of a manifest and of pins, digests. output: \
            what stands in it.",
    make,
    run,
};

fn make() -> Vec<Vector> {
    [notes(), manifests(), all_pins(), lists()].into_iter().flatten().collect()
}

fn notes() -> Vec<Vector> {
    let note = SealNote {
        run: RUN,
        run_note: Digest([1; 32]),
        gateway: identity(GATEWAY).public().id(),
        n: 2,
        prev: Some(Digest([2; 32])),
        state: StateRef { n: 1, hash: Digest([3; 32]) },
        files: 3,
        bytes: 70_000,
        manifest_sha256: Digest([4; 32]),
        manifest_id: FileId([5; 32]),
        pins_id: FileId([6; 32]),
        digests_sha256: Digest([7; 32]),
        sealed: CREATED.into(),
    };
    let good = note.to_text().unwrap();
    let of = |name: &str, outcome, from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let input = json!({ "what": "note", "text": good.replacen(from, to, 1) });
        vector(format!("note_{name}"), outcome, input)
    };
    let prev = format!("\"{}\"", "02".repeat(32));
    vec![
        of("good", "ok", "", ""),
        of("of_another_kind", "note-kind", "1 seal", "1 run"),
        of("without_the_seal_before", "not-canonical", &prev, "null"),
        of("number_of_none", "not-canonical", "\"n\":2", "\"n\":0"),
        of("first_with_one_before", "not-canonical", "\"n\":2", "\"n\":1"),
        of("field_unknown", "json", "\"files\":3", "\"files\":3,\"more\":0"),
        of("time_without_seconds", "json", CREATED, "2026-11-24T06:00Z"),
    ]
}

fn record(kind: Kind) -> Record {
    Record { mtime: 1_790_000_000, mtime_ns: 5, ..manifest_record(kind) }
}

/// A top with a directory, two names of one file, a link, and a device in the directory.
fn tree() -> Manifest {
    let entry = |kind, name: &[u8]| Entry {
        record: record(kind),
        name: name.to_vec(),
        target: Vec::new(),
        xattrs: Vec::new(),
    };
    let mut entries = vec![
        entry(Kind::Dir, b""),
        entry(Kind::Dir, b"Data"),
        entry(Kind::File, b"a.xml"),
        entry(Kind::File, b"b.xml"),
        entry(Kind::Symlink, b"link"),
        entry(Kind::CharDevice, b"null"),
    ];
    for (i, entry) in (0u32..).zip(&mut entries) {
        entry.record.object = i;
    }
    (entries[0].record.first, entries[0].record.children) = (1, 4);
    (entries[1].record.first, entries[1].record.children) = (5, 1);
    (entries[5].record.parent, entries[5].record.rdev) = (1, 0x103);
    (entries[2].record.size, entries[2].record.sha256, entries[2].record.nlink) = (9, [8; 32], 2);
    entries[2].xattrs = vec![(b"user.sample".to_vec(), b"NA12878".to_vec())];
    entries[3] = Entry { name: b"b.xml".to_vec(), xattrs: Vec::new(), ..entries[2].clone() };
    (entries[4].target, entries[4].record.size) = (b"Data".to_vec(), 4);
    Manifest { salt: [9; 32], name: b"240101_NB501".to_vec(), about: "{\"complete\":null}".into(), entries }
}

fn manifests() -> Vec<Vector> {
    let good = tree().encode().unwrap();
    let input = |bytes: &[u8]| json!({ "what": "manifest", "bytes": hex(bytes) });
    let with = |name: &str, outcome, at: usize, byte: u8| {
        let mut bytes = good.clone();
        assert_ne!(bytes[at], byte, "{name}");
        bytes[at] = byte;
        vector(format!("manifest_{name}"), outcome, input(&bytes))
    };
    let of = |i: usize, field: usize| (i + 1) * manifest::LEN + field;
    vec![
        vector("manifest_good", "ok", input(&good)),
        vector("manifest_cut", "truncated", input(&good[..good.len() - 1])),
        vector("manifest_longer", "trailing", input(&[&good[..], b"x"].concat())),
        vector("manifest_without_header", "truncated", input(&good[..100])),
        with("of_another_program", "magic", 0, b'R'),
        with("header_reserved", "reserved", 127, 1),
        with("without_entries", "manifest", 40, 0),
        with("kind_unknown", "kind", of(2, 0), 8),
        with("record_reserved", "reserved", of(2, 127), 1),
        with("mode_too_high", "manifest", of(2, 3), 0xff),
        with("top_is_a_file", "manifest", of(0, 0), 1),
        with("child_of_another", "manifest", of(5, 20), 0),
        with("children_too_many", "manifest", of(1, 28), 2),
        with("first_child_of_another", "manifest", of(1, 24), 4),
        with("link_to_a_later_one", "manifest", of(3, 16), 4),
        with("second_name_says_another_size", "manifest", of(3, 40), 8),
        with("hash_of_a_directory", "manifest", of(1, 80), 1),
        with("size_of_a_device", "manifest", of(5, 40), 1),
        with("heap_with_a_gap", "manifest", of(4, 68), 0xff),
        with("name_out_of_order", "manifest", good.len() - 4 - 8 - 5, b'0'),
    ]
}

fn all_pins() -> Vec<Vector> {
    let pinned = [
        Pinned::NOTHING,
        Pinned { id: FileId([1; 32]), epoch: 2, first: 0, chunks: 2 },
        Pinned { id: FileId([2; 32]), epoch: 0, first: 2, chunks: 1 },
    ];
    let nonces = [[5; 12], HOLE, [6; 12]];
    let header = pins::Header { entries: 3, nonces: 3 }.encode();
    let table = pinned.map(|p| p.encode()).concat();
    let good = [&header[..], &nonces.concat(), &table].concat();
    let input = |bytes: &[u8]| json!({ "what": "pins", "bytes": hex(bytes) });
    let with = |name: &str, outcome, at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        vector(format!("pins_{name}"), outcome, input(&bytes))
    };
    vec![
        vector("pins_good", "ok", input(&good)),
        vector("pins_cut", "truncated", input(&good[..good.len() - 1])),
        with("of_another_program", "magic", 7),
        with("header_reserved", "reserved", 12),
        with("header_reserved_end", "reserved", 127),
        with("nonces_too_many", "truncated", 16),
        with("entry_reserved", "reserved", 128 + 36 + 36),
        with("entry_reserved_end", "reserved", good.len() - 1),
    ]
}

fn lists() -> Vec<Vector> {
    let line = |path: &str, kind| Line { path: path.into(), kind };
    let file = |path: &str, n| line(path, Digested::File(Digest([n; 32])));
    let good = digests::encode(vec![
        file("name", 1),
        file("run.json", 1),
        file("seal/manifest", 2),
        file("seal/vault-1", 2),
        file("tree/abc/_dir", 3),
        line("tree/abc", Digested::Dir),
        line("tree/def", Digested::Link(Digest([4; 32]))),
        line("tree/ghi", Digested::Fifo),
    ]);
    let good = String::from_utf8(good).unwrap();
    let of = |name: &str, outcome, from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        let input = json!({ "what": "digests", "text": good.replacen(from, to, 1) });
        vector(format!("digests_{name}"), outcome, input)
    };
    vec![
        of("good", "ok", "", ""),
        of("cut", "truncated", "ghi\n", "ghi"),
        of("out_of_order", "digests", "tree/ghi", "tree/aaa"),
        of("twice", "digests", "# fifo tree/ghi", "# dir tree/def"),
        of("way_out", "digests", "tree/ghi", "tree/../ghi"),
        of("capitals", "digests", "tree/ghi", "tree/gHi"),
        of("kind_unknown", "digests", "# fifo", "# door"),
        of("hash_cut", "digests", "0101  run", "01  run"),
        of("empty_line", "digests", "# fifo", "\n# fifo"),
    ]
}

fn run(input: &Value) -> Outcome {
    let read = || -> Result<Value> {
        Ok(match text(&input["what"]) {
            "note" => {
                let note = SealNote::parse_text(text(&input["text"]))?;
                assert_eq!(note.to_text()?, text(&input["text"]));
                json!({ "n": note.n, "files": note.files, "manifest_id": note.manifest_id })
            }
            "manifest" => {
                let bytes = unhex(&input["bytes"]);
                let found = Manifest::parse(&bytes)?;
                assert_eq!(found.encode()?, bytes);
                let names: Vec<String> = found.entries.iter().map(|entry| hex(&entry.name)).collect();
                let sizes: Vec<u64> = found.entries.iter().map(|entry| entry.record.size).collect();
                json!({ "name": hex(&found.name), "about": found.about, "names": names, "sizes": sizes })
            }
            "pins" => {
                let bytes = unhex(&input["bytes"]);
                let header = bytes.first_chunk().ok_or(runvault_format::Error::Truncated)?;
                let header = pins::Header::decode(header)?;
                if header.pins_len() != bytes.len() as u64 {
                    return Err(runvault_format::Error::Truncated);
                }
                let entry = |i| {
                    let at = header.entry_offset(i) as usize;
                    let pinned = Pinned::decode(bytes[at..at + pins::LEN].try_into().unwrap())?;
                    Ok(json!([hex(pinned.id.0), pinned.epoch, pinned.first, pinned.chunks]))
                };
                let entries = (0..header.entries).map(entry).collect::<Result<Vec<_>>>()?;
                json!({ "entries": entries, "nonces": header.nonces })
            }
            _ => {
                let lines = digests::parse(text(&input["text"]).as_bytes())?;
                assert_eq!(digests::encode(lines.clone()), text(&input["text"]).as_bytes());
                json!({ "paths": lines.iter().map(|line| line.path.clone()).collect::<Vec<_>>() })
            }
        })
    };
    read().map_err(|e| e.name())
}
