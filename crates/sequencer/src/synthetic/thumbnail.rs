//! Thumbnails: small pictures in numbers. The frame of a JPEG around random bytes; nothing decodes them here.

use crate::random::Stream;
use crate::spec::RunSpec;

const START: [u8; 20] = [0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0];
const END: [u8; 2] = [0xff, 0xd9];

/// A picture of a tile: 4 to 12 KiB.
#[must_use]
pub fn encode(spec: &RunSpec, lane: u32, tile: u32, cycle: u32, channel: &str) -> Vec<u8> {
    let channel = channel.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut stream = Stream::new(spec.seed, &[4, lane.into(), tile.into(), cycle.into(), channel]);
    let size = 4096 + (stream.next_u64() % 8192) as usize;
    let mut bytes = START.to_vec();
    bytes.extend(stream.bytes(size).into_iter().map(|byte| byte & 0x7f));
    bytes.extend(END);
    bytes
}
