//! Sections 10.2 and 10.3.

use runvault_crypto::aead::AeadKey;
use runvault_format::state_slot::{Extent, SlotState};
use runvault_format::{Error, chunk, header};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{aead, array, clear, copy, copy_of, hex, pattern, seal, secret, state, unhex};

pub const SET: Set = Set {
    file: "headers.json",
    about: "One header copy under its slot key (section 10.2). j: which copy.",
    make,
    run,
};

pub const CHUNKS: Set = Set {
    file: "chunks.json",
    about: "One chunk under its file key (section 10.3). i: its number.",
    make: make_chunks,
    run: run_chunk,
};

const KEY: [u8; 32] = [0x51; 32];

fn key() -> AeadKey {
    aead(&runvault_crypto::secrets::Secret::copy_from(&KEY))
}

fn input(j: u8, copy: &[u8]) -> Value {
    json!({ "slot_key": hex(KEY), "j": j, "copy": hex(copy) })
}

fn holes(n: u64) -> SlotState {
    SlotState { holes: (0..n).map(|i| Extent { first: 3 * i, count: 2 }).collect(), ..state(9, 8192 * 70) }
}

fn make() -> Vec<Vector> {
    let full = SlotState {
        jskip: 77,
        jsession: [7; 8],
        writes: 1 << 31,
        epoch: 3,
        previous: runvault_format::keys::Place([0x9b; 16]),
        ..holes(21)
    };
    let several = SlotState { flags: 1, ..state(2, 5) };
    let mut all = vec![
        vector("copy_0", "ok", input(0, &copy(0, &clear(13), &key(), &state(1, 0)))),
        vector("copy_1_full", "ok", input(1, &copy(1, &clear(13), &key(), &full))),
        vector("copy_with_several_links", "ok", input(0, &copy(0, &clear(9), &key(), &several))),
        vector("copy_never_written", "not-authentic", input(0, &[0; 512])),
        vector(
            "copy_in_the_other_place",
            "not-authentic",
            input(1, &copy(0, &clear(13), &key(), &state(1, 0))),
        ),
    ];
    let good = copy(0, &clear(13), &key(), &state(1, 0));
    for (name, at, outcome) in [
        ("magic_changed", 0, "magic"),
        ("version_of_tomorrow", 8, "version"),
        ("suite_unknown", 10, "suite"),
        ("kind_unknown", 13, "kind"),
        ("zero_field_not_zero", 14, "reserved"),
        ("nonce_changed", 64, "not-authentic"),
        ("state_changed", 200, "not-authentic"),
        ("tag_changed", 511, "not-authentic"),
    ] {
        let mut changed = good.clone();
        changed[at] ^= 0x40;
        all.push(vector(name, outcome, input(0, &changed)));
    }
    for (name, log2) in [("chunk_too_small", 8), ("chunk_too_large", 21)] {
        let mut changed = good.clone();
        changed[12] = log2;
        all.push(vector(name, "chunk-size", input(0, &changed)));
    }
    all.extend(states());
    all
}

/// States that authenticate and are refused all the same.
fn states() -> Vec<Vector> {
    let sealed = |change: &dyn Fn(&mut [u8])| {
        let mut plain = holes(2).encode().unwrap();
        change(&mut plain);
        input(0, &copy_of(0, &clear(13).encode(), &key(), &plain))
    };
    let put = |at: usize, value: u64| {
        move |plain: &mut [u8]| plain[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    vec![
        vector("flag_unknown", "reserved", sealed(&|plain| plain[44] = 2)),
        vector("holes_too_many", "holes", sealed(&|plain| plain[46] = 22)),
        vector("hole_empty", "holes", sealed(&put(88, 0))),
        vector("holes_touch", "holes", sealed(&put(96, 2))),
        vector("holes_out_of_order", "holes", sealed(&put(80, 9))),
        vector("hole_without_end", "holes", sealed(&put(104, u64::MAX))),
        vector("bytes_behind_the_holes", "reserved", sealed(&|plain| plain[112] = 1)),
        vector("bytes_at_the_end", "reserved", sealed(&|plain| plain[419] = 1)),
    ]
}

fn run(input: &Value) -> Outcome {
    let copy: [u8; 512] = array(&input["copy"]);
    let opened = (|| {
        let clear = header::clear_of(&copy)?.ok_or(Error::NotAuthentic)?;
        let j = input["j"].as_u64().unwrap() as u8;
        let state = header::open_copy(j, &copy, &aead(&secret(&input["slot_key"])))?;
        Ok::<_, Error>((clear, state))
    })();
    let (clear, s) = opened.map_err(|e| e.name())?;
    assert_eq!(clear.encode(), copy[..64]);
    let holes: Vec<_> = s.holes.iter().map(|h| json!([h.first, h.count])).collect();
    Ok(json!({
        "log2": clear.geometry.log2(), "kind": clear.kind as u8, "file_id": clear.file_id, "run_id": clear.run_id,
        "seq": s.seq, "size": s.size, "jskip": s.jskip, "jsession": hex(s.jsession), "writes": s.writes,
        "epoch": s.epoch, "flags": s.flags, "place": hex(s.place.0), "previous": hex(s.previous.0), "holes": holes,
    }))
}

fn make_chunks() -> Vec<Vector> {
    let input = |i: u64, stored: &[u8]| json!({ "file_key": hex(KEY), "i": i, "stored": hex(stored) });
    let sealed = |i: u64, plain: &[u8]| seal(&key(), 1, &[&[1][..], &i.to_le_bytes()].concat(), plain);
    let mut all: Vec<_> = [1usize, 15, 16, 17, 511, 512]
        .into_iter()
        .map(|n| vector(format!("chunk_of_{n}"), "ok", input(n as u64, &sealed(n as u64, &pattern(n)))))
        .collect();
    let good = sealed(5, &pattern(40));
    let flipped = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        input(5, &changed)
    };
    all.extend([
        vector("chunk_number_of_64_bits", "ok", input(u64::MAX >> 1, &sealed(u64::MAX >> 1, b"far"))),
        vector("chunk_at_another_number", "not-authentic", input(6, &good)),
        vector("chunk_nonce_changed", "not-authentic", flipped(0)),
        vector("chunk_text_changed", "not-authentic", flipped(12)),
        vector("chunk_tag_changed", "not-authentic", flipped(67)),
        vector("chunk_cut", "not-authentic", input(5, &good[..67])),
        vector("chunk_of_zeros", "not-authentic", input(5, &[0; 68])),
        vector("chunk_without_label", "not-authentic", input(5, &seal(&key(), 1, &5u64.to_le_bytes(), b"x"))),
        vector("chunk_shorter_than_nonce_and_tag", "truncated", input(5, &good[..27])),
    ]);
    all
}

fn run_chunk(input: &Value) -> Outcome {
    let (key, stored) = (aead(&secret(&input["file_key"])), unhex(&input["stored"]));
    let mut plain = vec![0; stored.len().saturating_sub(chunk::OVERHEAD)];
    chunk::open(&key, input["i"].as_u64().unwrap(), &stored, &mut plain).map_err(|e| e.name())?;
    Ok(json!({ "plain": hex(plain) }))
}
