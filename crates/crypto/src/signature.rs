//! Ed25519 (RFC 8032): canonical S, small-order keys refused.

use ed25519_dalek::{Signature, Signer};

use crate::secrets::Secret;
use crate::{Error, Result};

/// A signing key, zeroized on drop.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    /// 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// Its public half.
    pub fn public(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// A public key that is not of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Parses 32 bytes.
    ///
    /// # Errors
    /// [`Error::PublicKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| Error::PublicKey)?;
        if key.is_weak() { Err(Error::PublicKey) } else { Ok(Self(key)) }
    }

    /// 32 bytes.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Strict verification.
    ///
    /// # Errors
    /// [`Error::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<()> {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).map_err(|_| Error::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(s: &str) -> [u8; N] {
        data_encoding::HEXLOWER.decode(s.as_bytes()).unwrap().try_into().unwrap()
    }

    /// RFC 8032, 7.1, tests 1 and 3.
    #[test]
    fn rfc_8032() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[][..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82][..],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let key = SigningKey::from_seed(&Secret::copy_from(&hex(seed)));
            assert_eq!(key.public().to_bytes(), hex(public));
            assert_eq!(key.sign(message), hex(signature));
            key.public().verify(message, &hex(signature)).unwrap();
        }
    }

    #[test]
    fn small_order_keys_are_refused() {
        // The identity, and the point of order two.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(VerifyingKey::from_bytes(&identity), Err(Error::PublicKey));
        assert_eq!(
            VerifyingKey::from_bytes(&hex(
                "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
            )),
            Err(Error::PublicKey)
        );
    }

    #[test]
    fn a_non_canonical_s_is_refused() {
        let key = SigningKey::from_seed(&Secret::copy_from(&[3; 32]));
        let mut signature = key.sign(b"m");
        // S + L, L = 2^252 + 27742317777372353535851937790883648493.
        let order: [u8; 32] = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut carry = 0u16;
        for (s, l) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*s) + u16::from(l) + carry;
            *s = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(key.public().verify(b"m", &signature), Err(Error::Signature));
    }
}
