//! SHA-256 (FIPS 180-4), HMAC-SHA-256 (RFC 2104) and a comparison that takes constant time.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// SHA-256 of the concatenated parts.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Bytes that are hashed at a time.
const BLOCK: usize = 64;

/// SHA-256 of a stream.
#[derive(Clone, Default)]
pub struct Stream {
    hash: Sha256,
    /// Bytes of a block that is not full.
    begun: usize,
}

impl Stream {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.begun = (self.begun + bytes.len()) % BLOCK;
    }

    /// The digest of all of them; what comes next is another stream.
    pub fn finish(&mut self) -> [u8; 32] {
        self.begun = 0;
        self.hash.finalize_reset().into()
    }

    /// Takes the bytes up to the next block, and gives the others.
    fn fill_block<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let missing = (BLOCK - self.begun) % BLOCK;
        let (first, others) = bytes.split_at(missing.min(bytes.len()));
        self.update(first);
        others
    }
}

/// The next bytes of two streams, block by block in turn: each instruction of a hash waits for the one before it, and
/// the processor works at the other hash meanwhile. A third faster than one after the other.
pub fn update_both((a, of_a): (&mut Stream, &[u8]), (b, of_b): (&mut Stream, &[u8])) {
    let (of_a, of_b) = (a.fill_block(of_a), b.fill_block(of_b));
    let paired = of_a.len().min(of_b.len()) / BLOCK * BLOCK;
    let ((blocks_a, rest_a), (blocks_b, rest_b)) = (of_a.split_at(paired), of_b.split_at(paired));
    for (block_a, block_b) in blocks_a.chunks_exact(BLOCK).zip(blocks_b.chunks_exact(BLOCK)) {
        a.hash.update(block_a);
        b.hash.update(block_b);
    }
    a.update(rest_a);
    b.update(rest_b);
}

/// HMAC-SHA-256 of the concatenated parts.
pub fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC pads a short key with zeros to the hash's block; done here, no length can fail.
    let mut block = Zeroizing::new([0u8; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Equality whose time tells nothing but the lengths.
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_streams_at_once_are_as_each_alone() {
        let bytes: Vec<u8> = (0..700u32).map(|i| (i * i % 251) as u8).collect();
        for (step_a, step_b) in [(1, 64), (28, 64), (64, 64), (63, 65), (220, 192), (0, 130), (700, 7)] {
            let (mut a, mut b) = (Stream::default(), Stream::default());
            let (mut at_a, mut at_b) = (0, 0);
            for _ in 0..3 {
                let (end_a, end_b) = ((at_a + step_a).min(700), (at_b + step_b).min(700));
                update_both((&mut a, &bytes[at_a..end_a]), (&mut b, &bytes[at_b..end_b]));
                (at_a, at_b) = (end_a, end_b);
            }
            assert_eq!(a.finish(), sha256(&[&bytes[..at_a]]), "{step_a} {step_b}");
            assert_eq!(b.finish(), sha256(&[&bytes[..at_b]]), "{step_a} {step_b}");
            assert_eq!(a.finish(), sha256(&[]), "another stream");
        }
    }

    /// FIPS 180-4 example; RFC 4231 uses keys of other lengths, so its case 2 is padded with zeros
    /// as HMAC itself does.
    #[test]
    fn published_values() {
        let hex = |b: &[u8]| data_encoding::HEXLOWER.encode(b);
        assert_eq!(
            hex(&sha256(&[b"a", b"bc"])),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            hex(&hmac_sha256(&key, &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
