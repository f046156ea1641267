//! Every decoder over encodings that are almost right: bits flipped, cut, grown, spliced from others.
//!
//! What is accepted encodes back to the same bytes; what a key protects is accepted unchanged or not at all; nothing
//! panics. Cases follow from a seed: RUNVAULT_MUTATIONS makes more of them (or fewer), RUNVAULT_SEED others.

mod decoders;

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use decoders::decoders;

/// A small generator: a case must repeat by its seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Changes bytes in one to four ways; `others` are what pieces are taken from.
fn mutated(from: &[u8], others: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = from.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 => drop(bytes.drain(at..(at + 1 + random.below(9)).min(bytes.len()).max(at))),
            3 => {
                let other = &others[random.below(others.len())];
                let start = random.below(other.len());
                let piece = &other[start..(start + 1 + random.below(64)).min(other.len())];
                let end = (at + piece.len() * random.below(2)).min(bytes.len());
                bytes.splice(at..end, piece.iter().copied());
            }
            4 => bytes.extend(vec![[0, b' ', b'\n', 0xff][random.below(4)]; 1 + random.below(600)]),
            // A number of any width at its bounds.
            5 => bytes.iter_mut().skip(at).take(1 << random.below(4)).for_each(|b| *b = [0, 0xff][at % 2]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn what_is_accepted_encodes_back() {
    let (cases, seed) = (number("RUNVAULT_MUTATIONS", 2000) as usize, number("RUNVAULT_SEED", 1));
    for (n, decoder) in decoders().into_iter().enumerate() {
        let about = decoder.of;
        for right in &decoder.right {
            assert_eq!((decoder.back)(right).as_ref(), Some(right), "{about:?} refuses what is right");
        }
        let mut random = Random(seed * 1000 + n as u64);
        for case in 0..cases * decoder.share / 1000 {
            let bytes = mutated(&decoder.right[case % decoder.right.len()], &decoder.right, &mut random);
            let back = catch_unwind(|| (decoder.back)(&bytes));
            let back = back.unwrap_or_else(|_| panic!("{about:?} panics at case {case}: {bytes:02x?}"));
            assert!(back.is_none_or(|back| back == bytes), "{about:?}, case {case}: {bytes:02x?}");
        }
    }
}

/// Each single bit of the structures that a key protects, and every length of all.
#[test]
fn every_bit_and_every_length_counts() {
    for decoder in decoders().into_iter().filter(|d| d.share == 1000) {
        for right in decoder.right.iter().filter(|right| right.len() <= 600) {
            for len in 0..right.len() {
                let back = (decoder.back)(&right[..len]);
                assert!(back.is_none_or(|back| back == right[..len]), "{:?}, {len} bytes", decoder.of);
            }
            for bit in 0..right.len() * 8 {
                let mut bytes = right.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let back = (decoder.back)(&bytes);
                assert!(back.is_none_or(|back| back == bytes), "{:?}, bit {bit}", decoder.of);
            }
        }
    }
}

/// What the crate's sources call a decoder is in the table, and nothing else is.
#[test]
fn every_decoder_is_in_the_table() {
    const DECODES: [&str; 7] = ["parse", "decode", "decrypt", "open", "take", "verify", "clear_of"];
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for function in source.split("pub fn ").skip(1) {
            let name: String = function.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if DECODES.iter().any(|prefix| name.starts_with(prefix)) {
                found.insert(format!("{module}::{name}"));
            }
        }
        if source.contains("impl FromStr for") {
            found.insert(format!("{module}::from_str"));
        }
    }
    // These take no bytes: what they compare was parsed by then.
    found.retain(|name| name != "audit_entry::verify" && name != "request::verify");
    let table: BTreeSet<_> = decoders().iter().flat_map(|d| d.of).map(|name| (*name).to_owned()).collect();
    let missing: Vec<_> = found.difference(&table).collect();
    assert!(missing.is_empty(), "without mutations: {missing:?}");
    let more = ["envelope_file::secret_of", "redo_record::session_claimed", "time::seconds"];
    let gone: Vec<_> = table.difference(&found).filter(|name| !more.contains(&name.as_str())).collect();
    assert!(gone.is_empty(), "not in the sources: {gone:?}");
}
