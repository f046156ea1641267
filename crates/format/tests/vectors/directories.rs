//! Section 11.1: directories and their records.

use runvault_crypto::aead::Engine;
use runvault_format::header::{Clear, Kind};
use runvault_format::ids::{FileId, RunId};
use runvault_format::keys::{Place, RunKey, RunKeys, place};
use runvault_format::size::Geometry;
use runvault_format::state_slot::SlotState;
use serde_json::{Value, json};

use super::files::states;
use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{self, FILE, RUN, array, hex, run_key, run_keys, secret, unhex};

pub const SET: Set = Set {
    file: "directories.json",
    about: "A directory below `tree/` (section 11.1), reached as `name` in the directory `dir`: its file `_dir`, or null, \
            and whether it holds anything else. output: its id, null where it has none and is empty.",
    make,
    run,
};

const LOG2: u8 = 13;
const NAME: &[u8] = b"InterOp";

fn clear() -> Clear {
    Clear::new(Kind::Directory, Geometry::new(LOG2).unwrap(), FILE, RUN)
}

/// The state of a record that was written so often, of the directory `name` in `tree/`.
fn state(seq: u64, name: &[u8]) -> SlotState {
    SlotState { writes: 0, place: place(&FileId::ROOT, Kind::Directory, name), ..fixed::state(seq, 0) }
}

fn copy(j: u8, clear: &Clear, state: &SlotState) -> Vec<u8> {
    fixed::copy(j, clear, &run_keys().slot_key(clear), state)
}

/// A record of one copy.
fn record(clear: &Clear, state: &SlotState) -> Vec<u8> {
    [copy(0, clear, state), vec![0; 512]].concat()
}

fn input(record: Option<&[u8]>, holds_more: bool) -> Value {
    json!({
        "run": hex(RUN.0), "rk": hex(run_key().0.expose()), "chunk_log2": LOG2, "dir": hex(FileId::ROOT.0),
        "name": hex(NAME), "record": record.map(hex), "holds_more": holds_more,
    })
}

fn make() -> Vec<Vector> {
    let of = |name: &str, outcome, record: &[u8]| vector(name, outcome, input(Some(record), true));
    let good = record(&clear(), &state(1, NAME));
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= byte;
        bytes
    };
    let renamed = SlotState { previous: state(1, b"before").place, ..state(2, NAME) };
    let on_its_way = SlotState { previous: state(1, NAME).place, ..state(2, b"behind") };
    let both = [copy(0, &clear(), &state(1, b"before")), copy(1, &clear(), &renamed)].concat();
    let torn = {
        let mut bytes = both.clone();
        bytes[300] ^= 1;
        bytes
    };
    let with = |change: &dyn Fn(&mut Clear)| {
        let mut clear = clear();
        change(&mut clear);
        record(&clear, &state(1, NAME))
    };
    let stranger = Clear { file_id: FileId([2; 32]), ..clear() };
    let below = SlotState { place: place(&FILE, Kind::Directory, NAME), ..state(1, NAME) };
    let as_file = SlotState { place: place(&FileId::ROOT, Kind::File, NAME), ..state(1, NAME) };
    vec![
        vector("empty_without_record", "ok", input(None, false)),
        vector("record_alone", "ok", input(Some(&good), false)),
        vector("full_without_record", "directory-record", input(None, true)),
        of("record", "ok", &good),
        of("renamed", "ok", &both),
        of("renamed_and_power_lost", "ok", &record(&clear(), &on_its_way)),
        of("one_copy_torn", "ok", &torn),
        of("both_copies_torn", "header", &changed(300, 1)),
        of("nothing_in_it", "header", &[]),
        of("zeros", "header", &[0; 1024]),
        of("cut", "header", &good[..1023]),
        of("not_ours", "header", &changed(0, 1)),
        of("copies_swapped", "header", &[vec![0; 512], good[..512].to_vec()].concat()),
        of("moved", "place", &record(&clear(), &state(1, b"other"))),
        of("moved_from_below_another", "place", &record(&clear(), &below)),
        of("place_of_a_file", "place", &record(&clear(), &as_file)),
        of("name_before_the_last", "place", &{
            let twice = SlotState { previous: state(1, b"between").place, ..state(3, b"behind") };
            [copy(0, &clear(), &renamed), copy(1, &clear(), &twice)].concat()
        }),
        of("header_of_a_file", "foreign", &with(&|c| c.kind = Kind::File)),
        of("of_another_run", "foreign", &with(&|c| c.run_id = RunId([9; 16]))),
        of("chunk_size_of_another_run", "foreign", &with(&|c| c.geometry = Geometry::new(9).unwrap())),
        of("version_of_tomorrow", "foreign", &changed(8, 2)),
        of("suite_unknown", "foreign", &changed(10, 2)),
        of("two_records_in_one", "foreign", &{
            [copy(0, &clear(), &state(1, NAME)), copy(1, &stranger, &state(2, NAME))].concat()
        }),
    ]
}

fn run(input: &Value) -> Outcome {
    let Some(record) = input["record"].as_str().map(|_| unhex(&input["record"])) else {
        let empty = input["holds_more"] == false;
        return if empty { Ok(json!({ "id": null })) } else { Err("directory-record") };
    };
    let run = RunId(array(&input["run"]));
    let keys = RunKeys::derive(&RunKey(secret(&input["rk"])), &run, Engine::Portable);
    let geometry = Geometry::new(input["chunk_log2"].as_u64().unwrap() as u8).unwrap();
    if record.len() < 1024 {
        return Err("header");
    }
    let (clear, states, damaged) = states(&record, &keys, run, geometry, Kind::Directory)?;
    let newest = states.into_iter().max_by_key(|s| s.seq).ok_or("header")?;
    let here: Place = place(&FileId(array(&input["dir"])), Kind::Directory, &unhex(&input["name"]));
    let stands = newest.place == here || newest.previous == here;
    let refusal = if damaged { "header-copy" } else { "place" };
    if stands { Ok(json!({ "id": clear.file_id })) } else { Err(refusal) }
}
