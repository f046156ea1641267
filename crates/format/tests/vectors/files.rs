//! Sections 10.2 to 10.4: whole files of an open run, by a reader that is written here after the
//! page and reads slowly and plainly.

use std::ops::Range;

use runvault_crypto::aead::{AeadKey, Engine};
use runvault_crypto::digest::sha256;
use runvault_format::chunk;
use runvault_format::header::{self, Clear, Kind};
use runvault_format::ids::{FileId, RunId};
use runvault_format::keys::{Place, RunKey, RunKeys, place};
use runvault_format::size::Geometry;
use runvault_format::state_slot::{Extent, SlotState};
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{self, FILE, RUN, array, hex, pattern, run_key, run_keys, secret, unhex};

pub const SET: Set = Set {
    file: "files.json",
    about: "Whole files of an open run (sections 10.2 to 10.4), reached as `name` in the directory `dir`. \
            chunk_log2: what run.json says. output: the plaintext's size and SHA-256.",
    make,
    run,
};

const LOG2: u8 = 9;
const C: usize = 512;
const NAME: &[u8] = b"file";
const DIR: FileId = FileId([0xd1; 32]);

/// A file that is put together piece by piece.
struct Made {
    copies: [Vec<u8>; 2],
    body: Vec<u8>,
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        [&self.copies[0][..], &self.copies[1], &self.body].concat()
    }
}

fn clear() -> Clear {
    Clear::new(Kind::File, Geometry::new(LOG2).unwrap(), FILE, RUN)
}

fn state(seq: u64, size: u64) -> SlotState {
    SlotState { place: place(&DIR, Kind::File, NAME), ..fixed::state(seq, size) }
}

fn copy(j: u8, state: &SlotState) -> Vec<u8> {
    fixed::copy(j, &clear(), &run_keys().slot_key(&clear()), state)
}

/// The chunks of `plain` under `epoch`; those in `zeros` are stored as zeros.
fn body(plain: &[u8], epoch: u32, zeros: Range<usize>) -> Vec<u8> {
    let key = run_keys().file_key(&clear(), epoch);
    let sealed = |(i, piece): (usize, &[u8])| {
        if zeros.contains(&i) { vec![0; piece.len() + 28] } else { fixed::chunk(i as u64, &key, piece) }
    };
    plain.chunks(C).enumerate().flat_map(sealed).collect()
}

fn file(size: usize, slot: &SlotState) -> Made {
    Made { copies: [copy(0, slot), vec![0; 512]], body: body(&pattern(size), slot.epoch, 0..0) }
}

fn input(bytes: &[u8]) -> Value {
    json!({
        "run": hex(RUN.0), "rk": hex(run_key().0.expose()), "chunk_log2": LOG2,
        "dir": hex(DIR.0), "name": hex(NAME), "stored": hex(bytes),
    })
}

fn make() -> Vec<Vector> {
    let mut all = vec![vector("nothing", "ok", input(&[]))];
    for size in [0, 1, 511, 512, 513, 1400] {
        let name = format!("whole_file_of_{size}");
        all.push(vector(name, "ok", input(&file(size, &state(1, size as u64)).bytes())));
    }
    all.extend(copies());
    all.extend(ends());
    all.extend(holes());
    all.extend(damage());
    all
}

fn copies() -> Vec<Vector> {
    let two = |a: SlotState, b: SlotState, size: usize| {
        let body = body(&pattern(size), 0, 0..0);
        input(&Made { copies: [copy(0, &a), copy(1, &b)], body }.bytes())
    };
    let torn = {
        let mut made = file(600, &state(4, 600));
        made.copies = [copy(0, &state(4, 600)), copy(1, &state(3, 600))];
        made.copies[0][300] ^= 1;
        made
    };
    // The copy of the greater seq is damaged: of `b` alone nobody knows what it lacks.
    let damaged = |b: &SlotState, size: usize, zeros: Range<usize>| {
        let mut copies = [copy(0, &state(4, size as u64)), copy(1, b)];
        copies[0][300] ^= 1;
        input(&Made { copies, body: body(&pattern(size), 0, zeros) }.bytes())
    };
    let one_hole = |first, size| SlotState { holes: vec![Extent { first, count: 1 }], ..state(3, size) };
    let stranger = Clear { file_id: FileId([2; 32]), ..clear() };
    let other = fixed::copy(1, &stranger, &run_keys().slot_key(&stranger), &state(3, 600));
    let older_of_epoch = SlotState { epoch: 1, ..state(5, 0) };
    vec![
        vector("newer_copy_counts", "ok", two(state(1, 0), state(2, 600), 600)),
        vector("older_copy_where_the_newer_does_not_fit", "ok", two(state(2, 2000), state(1, 600), 600)),
        vector("one_copy_damaged", "ok", input(&torn.bytes())),
        vector("one_copy_damaged_of_a_file_that_has_grown", "ok", damaged(&state(3, 600), 1400, 0..0)),
        vector("one_copy_damaged_of_a_file_that_has_grown_behind_a_hole", "chunk", {
            damaged(&state(3, 512), 1900, 1..2)
        }),
        vector(
            "one_copy_damaged_and_the_other_lists_holes",
            "header-copy",
            damaged(&one_hole(1, 1900), 1900, 1..2),
        ),
        vector("first_copy_zeroed_of_a_file_that_has_grown_behind_a_hole", "chunk", {
            let copies = [vec![0; 512], copy(1, &state(3, 512))];
            input(&Made { copies, body: body(&pattern(1900), 0, 1..2) }.bytes())
        }),
        vector("one_copy_damaged_and_the_other_of_another_place", "header-copy", {
            let elsewhere = place(&DIR, Kind::File, b"elsewhere");
            damaged(&SlotState { place: elsewhere, ..state(3, 600) }, 600, 0..0)
        }),
        vector("no_copy_fits", "short", two(state(2, 2000), state(1, 1500), 600)),
        vector("cut_to_nothing_and_written_again", "ok", {
            let made = Made {
                copies: [copy(0, &state(4, 900)), copy(1, &older_of_epoch)],
                body: body(&pattern(100), 1, 0..0),
            };
            input(&made.bytes())
        }),
        vector("chunks_of_an_older_epoch", "chunk", {
            let slot = SlotState { epoch: 1, ..state(5, 600) };
            let body = body(&pattern(600), 0, 0..0);
            input(&Made { copies: [copy(0, &slot), vec![0; 512]], body }.bytes())
        }),
        vector("two_files_in_one_header", "foreign", {
            let mut made = file(600, &state(2, 600));
            made.copies[1] = other;
            input(&made.bytes())
        }),
        vector("no_copy_written", "header", input(&[0; 1024])),
        vector("shorter_than_a_header", "header", input(&copy(0, &state(1, 0)))),
        vector("both_copies_damaged", "header", {
            let mut made = file(600, &state(2, 600));
            made.copies[0][400] ^= 1;
            input(&made.bytes())
        }),
        vector("header_of_another_run", "header", {
            let mut input = input(&file(600, &state(2, 600)).bytes());
            input["rk"] = json!(hex([0; 32]));
            input
        }),
    ]
}

fn ends() -> Vec<Vector> {
    let longer = |slot: u64, size: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = file(size, &state(1, slot)).bytes();
        change(&mut bytes);
        input(&bytes)
    };
    // A state that lists chunks from `first` on, and claims no more than `size`; data only in the last chunk.
    let longer_behind = |first: u64, size: u64| {
        let slot = SlotState { holes: vec![Extent { first, count: 3 }], ..state(1, size) };
        let body = body(&pattern(1900), 0, first as usize..3);
        input(&Made { copies: [copy(0, &slot), vec![0; 512]], body }.bytes())
    };
    let at = |i: usize| 1024 + i * (C + 28);
    vec![
        vector("longer_than_its_state_and_authentic", "ok", longer(0, 1400, &|_| {})),
        vector("longer_within_a_chunk", "ok", longer(600, 900, &|_| {})),
        vector("longer_by_garbage", "ok", longer(512, 512, &|b| b.extend([7; 300]))),
        vector("longer_by_zeros", "ok", longer(512, 512, &|b| b.extend([0; 4096]))),
        vector(
            "longer_by_a_torn_last_chunk",
            "ok",
            longer(512, 1500, &|b| {
                let last = b.len() - 1;
                b[last] ^= 1;
            }),
        ),
        vector(
            "longer_by_a_torn_chunk_and_a_torn_last",
            "ok",
            longer(512, 1900, &|b| {
                b[at(2) + 50] ^= 1;
                let last = b.len() - 1;
                b[last] ^= 1;
            }),
        ),
        vector(
            "longer_with_a_torn_chunk_before_a_whole_last",
            "chunk",
            longer(512, 1900, &|b| b[at(2) + 50] ^= 1),
        ),
        vector(
            "longer_by_a_page_aligned_piece",
            "ok",
            longer(512, 1024, &|b| b.truncate(1024 + C + 28 + 20)),
        ),
        vector("longer_behind_a_hole", "ok", longer_behind(1, 512)),
        vector("longer_by_a_hole", "ok", {
            let slot = SlotState { holes: vec![Extent { first: 1, count: 3 }], ..state(1, 512) };
            input(
                &Made { copies: [copy(0, &slot), vec![0; 512]], body: body(&pattern(1900), 0, 1..4) }.bytes(),
            )
        }),
        vector("longer_behind_a_hole_and_not_grown_in_its_last_chunk", "ok", longer_behind(0, 500)),
        vector("half_a_chunk_cut_off", "short", longer(1024, 1024, &|b| b.truncate(1024 + C + 28 + 20))),
    ]
}

fn holes() -> Vec<Vector> {
    let slot = |first, count| SlotState { holes: vec![Extent { first, count }], ..state(1, 1900) };
    let with = |slot: &SlotState, zeros: Range<usize>| {
        input(&Made { copies: [copy(0, slot), vec![0; 512]], body: body(&pattern(1900), 0, zeros) }.bytes())
    };
    let garbage = {
        let mut made =
            Made { copies: [copy(0, &slot(1, 1)), vec![0; 512]], body: body(&pattern(1900), 0, 0..0) };
        made.body[C + 28 + 40] ^= 1;
        made
    };
    vec![
        vector("hole_in_the_middle", "ok", with(&slot(1, 2), 1..3)),
        vector("hole_with_data_in_it", "ok", with(&slot(1, 2), 1..2)),
        vector("hole_with_garbage_in_it", "ok", input(&garbage.bytes())),
        vector("hole_at_the_end", "ok", with(&slot(3, 1), 3..4)),
        vector("all_hole", "ok", with(&slot(0, 4), 0..4)),
        vector("hole_longer_than_the_file", "ok", with(&slot(2, 1 << 40), 2..4)),
        vector("longer_over_a_hole_at_the_end", "ok", {
            let slot = SlotState { size: 1800, ..slot(3, 1) };
            with(&slot, 3..4)
        }),
        vector("zeros_outside_the_hole", "chunk", with(&slot(1, 1), 1..3)),
    ]
}

fn damage() -> Vec<Vector> {
    let changed = |at: usize, byte: u8| {
        let mut bytes = file(1400, &state(1, 1400)).bytes();
        bytes[at] ^= byte;
        input(&bytes)
    };
    let swapped = {
        let mut made = file(1024, &state(1, 1024));
        made.body.rotate_left(C + 28);
        made
    };
    let elsewhere = SlotState { place: place(&DIR, Kind::File, b"other"), ..state(1, 600) };
    let bridged = SlotState { previous: state(1, 0).place, ..elsewhere.clone() };
    let several = SlotState { flags: 1, place: Place([0; 16]), ..state(1, 600) };
    let mut of_another_size = input(&file(600, &state(1, 600)).bytes());
    of_another_size["chunk_log2"] = json!(13);
    vec![
        vector("bit_in_the_first_chunk", "chunk", changed(1024 + 100, 1)),
        vector("bit_in_the_last_chunk", "chunk", changed(1024 + 2 * (C + 28) + 100, 0x80)),
        vector("chunks_swapped", "chunk", input(&swapped.bytes())),
        vector("moved", "place", input(&file(600, &elsewhere).bytes())),
        vector("renamed_and_power_lost", "ok", input(&file(600, &bridged).bytes())),
        vector("several_links", "ok", input(&file(600, &several).bytes())),
        vector("chunk_size_of_another_run", "foreign", of_another_size),
        vector("version_of_tomorrow", "foreign", changed(8, 2)),
    ]
}

struct Reader<'a> {
    stored: &'a [u8],
    key: AeadKey,
    geometry: Geometry,
    holes: Vec<Extent>,
}

impl Reader<'_> {
    /// The plaintext of chunk `i` in a file of `size` bytes, where it authenticates.
    fn chunk(&self, i: u64, size: u64) -> Option<Vec<u8>> {
        let from = self.geometry.chunk_offset(i) as usize;
        let mut plain = vec![0; self.geometry.chunk_len(i, size)];
        let stored = self.stored.get(from..from + plain.len() + 28)?;
        chunk::open(&self.key, i, stored, &mut plain).ok().map(|()| plain)
    }

    fn is_hole(&self, i: u64) -> bool {
        self.holes.iter().any(|h| (h.first..h.first + h.count).contains(&i))
    }

    fn fine(&self, i: u64, size: u64) -> bool {
        self.is_hole(i) || self.chunk(i, size).is_some()
    }

    /// Section 10.4, step 3.
    fn size(&self, claimed: u64, longest: u64) -> u64 {
        let c = self.geometry.chunk();
        let in_hole = claimed.is_multiple_of(c) && self.is_hole(claimed / c);
        if longest <= claimed || !(in_hole || self.chunk(claimed / c, longest).is_some()) {
            return claimed;
        }
        if self.fine((longest - 1) / c, longest) {
            return longest;
        }
        let torn = (claimed / c..longest.div_ceil(c)).find(|i| !self.fine(*i, longest));
        torn.map_or(longest, |i| claimed.max(i * c))
    }

    fn read(&self, size: u64) -> Result<Vec<u8>, &'static str> {
        let mut plain = Vec::new();
        for i in 0..size.div_ceil(self.geometry.chunk()) {
            match self.chunk(i, size) {
                Some(piece) => plain.extend(piece),
                None if self.is_hole(i) => plain.resize(plain.len() + self.geometry.chunk_len(i, size), 0),
                None => return Err("chunk"),
            }
        }
        Ok(plain)
    }
}

fn run(input: &Value) -> Outcome {
    let run = RunId(array(&input["run"]));
    let keys = RunKeys::derive(&RunKey(secret(&input["rk"])), &run, Engine::Portable);
    let geometry = Geometry::new(input["chunk_log2"].as_u64().unwrap() as u8).unwrap();
    let stored = unhex(&input["stored"]);
    let plain = if stored.is_empty() { Vec::new() } else { read(&stored, &keys, run, geometry, input)? };
    Ok(json!({ "size": plain.len(), "sha256": hex(sha256(&[&plain])) }))
}

fn read(
    stored: &[u8],
    keys: &RunKeys,
    run: RunId,
    geometry: Geometry,
    input: &Value,
) -> Result<Vec<u8>, &'static str> {
    let longest = geometry.plain_len_floor(stored.len() as u64).ok_or("header")?;
    let (clear, mut states, damaged) = states(stored, keys, run, geometry, Kind::File)?;
    states.sort_by_key(|s| std::cmp::Reverse(s.seq));
    let slot = states.into_iter().find(|s| s.size <= longest).ok_or("short")?;
    let here = place(&FileId(array(&input["dir"])), Kind::File, &unhex(&input["name"]));
    if slot.flags & 1 == 0 && slot.place != here && slot.previous != here {
        return Err(if damaged { "header-copy" } else { "place" });
    }
    if damaged && !slot.holes.is_empty() {
        return Err("header-copy");
    }
    let key = keys.file_key(&clear, slot.epoch);
    let reader = Reader { stored, key, geometry, holes: slot.holes };
    reader.read(if damaged { longest } else { reader.size(slot.size, longest) })
}

/// The copies that count, and whether the other one is damaged.
pub fn states(
    stored: &[u8],
    keys: &RunKeys,
    run: RunId,
    geometry: Geometry,
    kind: Kind,
) -> Result<(Clear, Vec<SlotState>, bool), &'static str> {
    let (mut states, mut clear, mut foreign, mut damaged) = (Vec::new(), None, false, false);
    for j in 0..2u8 {
        let copy: [u8; 512] = stored[usize::from(j) * 512..][..512].try_into().unwrap();
        let found = match header::clear_of(&copy) {
            Ok(Some(found)) if (found.run_id, found.geometry, found.kind) == (run, geometry, kind) => found,
            Ok(None) => {
                damaged |= j == 0;
                continue;
            }
            other => {
                foreign |= !matches!(other, Err(runvault_format::Error::Magic));
                damaged = true;
                continue;
            }
        };
        let Ok(state) = header::open_copy(j, &copy, &keys.slot_key(&found)) else {
            damaged = true;
            continue;
        };
        if clear.as_ref().is_some_and(|first| *first != found) {
            return Err("foreign");
        }
        clear = Some(found);
        states.push(state);
    }
    let none = if foreign { "foreign" } else { "header" };
    clear.map(|clear| (clear, states, damaged)).ok_or(none)
}
