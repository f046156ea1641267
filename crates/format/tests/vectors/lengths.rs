//! Section 10.1.

use runvault_format::size::Geometry;
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};

pub const SET: Set = Set {
    file: "lengths.json",
    about: "Stored length of a file to its plaintext size (section 10.1). log2: of the chunk size.",
    make,
    run,
};

fn make() -> Vec<Vector> {
    let mut all = Vec::new();
    for log2 in [9u8, 13, 20] {
        let c = 1u64 << log2;
        let case = |name: &str, outcome, stored: u64| {
            vector(format!("{name}_2_{log2}"), outcome, json!({ "log2": log2, "stored": stored }))
        };
        all.extend([
            case("nothing", "ok", 0),
            case("header_alone", "ok", 1024),
            case("one_byte", "ok", 1024 + 29),
            case("chunk_but_one", "ok", 1024 + c + 27),
            case("one_chunk", "ok", 1024 + c + 28),
            case("chunk_and_one", "ok", 1024 + c + 28 + 29),
            case("a_thousand_chunks", "ok", 1024 + 1000 * (c + 28)),
            case("half_a_header", "impossible-length", 512),
            case("header_but_one", "impossible-length", 1023),
            case("header_and_one", "impossible-length", 1025),
            case("nonce_and_tag_alone", "impossible-length", 1024 + 28),
            case("chunk_and_nonce_and_tag", "impossible-length", 1024 + c + 28 + 28),
        ]);
    }
    all.push(vector("chunk_too_small", "chunk-size", json!({ "log2": 8, "stored": 0 })));
    all.push(vector("chunk_too_large", "chunk-size", json!({ "log2": 21, "stored": 0 })));
    all
}

fn run(input: &Value) -> Outcome {
    let log2 = input["log2"].as_u64().unwrap() as u8;
    let geometry = Geometry::new(log2).map_err(|e| e.name())?;
    let size = geometry.plain_len(input["stored"].as_u64().unwrap()).map_err(|e| e.name())?;
    Ok(json!({ "size": size }))
}
