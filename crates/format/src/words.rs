//! Digests as words that two people can compare over a telephone: the English list of BIP-39.

use bip39::Language;

use crate::ids::{Digest, VaultId};

const BITS: usize = 11;

/// The twelve words of a vault's fingerprint.
pub fn of_vault(vault: &VaultId) -> Vec<&'static str> {
    words(&vault.0, 12)
}

/// The six words of a request.
pub fn of_request(hash: &Digest) -> Vec<&'static str> {
    words(&hash.0, 6)
}

/// `n` words of 11 bits each, from the first byte's high bit on.
fn words(bytes: &[u8; 32], n: usize) -> Vec<&'static str> {
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |b| usize::from(b >> (7 - i % 8) & 1));
    let index = |w: usize| (w * BITS..(w + 1) * BITS).fold(0, |acc, i| acc << 1 | bit(i));
    let list = Language::English.word_list();
    (0..n).filter_map(|w| list.get(index(w)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_words() {
        assert_eq!(of_vault(&VaultId([0; 32])), ["abandon"; 12]);
        assert_eq!(of_vault(&VaultId([0xff; 32])), ["zoo"; 12]);
        let mut hash = [0; 32];
        // 00000000001 00000000010 ...: the second and the third word of the list.
        (hash[1], hash[2]) = (0b0010_0000, 0b0000_1000);
        assert_eq!(of_request(&Digest(hash))[..3], ["ability", "able", "abandon"]);
        assert_eq!(of_request(&Digest(hash)).len(), 6);
        // BIP-39's vector for the entropy 7f7f...: the words before its checksum.
        let words = of_vault(&VaultId([0x7f; 32]));
        assert_eq!(
            words[..11].join(" "),
            "legal winner thank year wave sausage worth useful legal winner thank"
        );
    }
}
