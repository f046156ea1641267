//! HPKE (RFC 9180) in base mode: X-Wing (KEM 0x647a), HKDF-SHA-256 (0x0001), AES-256-GCM (0x0002).
//!
//! All context goes into `info`; `aad` stays empty, since the Python peer's interface has none.

use hpke::aead::{AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use zeroize::Zeroizing;

use crate::secrets::Secret;
use crate::{Error, Result};

/// Bytes of an encapsulated key.
pub const ENC: usize = 1120;
/// Bytes of a public key.
pub const PUBLIC: usize = 1216;
/// Bytes that a sealed message is longer than its plaintext.
pub const OVERHEAD: usize = 16;

/// An X-Wing public key, checked when it was parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublic(Box<[u8; PUBLIC]>);

impl std::fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KemPublic({:02x?}..)", &self.0[..4])
    }
}

impl KemPublic {
    /// Parses 1216 bytes.
    ///
    /// # Errors
    /// [`Error::PublicKey`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        <XWing as Kem>::PublicKey::from_bytes(bytes).map_err(|_| Error::PublicKey)?;
        bytes.try_into().map(|b| Self(Box::new(b))).map_err(|_| Error::PublicKey)
    }

    /// 1216 bytes.
    pub fn as_bytes(&self) -> &[u8; PUBLIC] {
        &self.0
    }
}

/// A message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key.
    pub enc: Box<[u8; ENC]>,
    /// The message, 16 bytes longer than its plaintext.
    pub ciphertext: Vec<u8>,
}

/// Seals `plain` to `to`.
///
/// # Errors
/// [`Error::PublicKey`], [`Error::Library`].
pub fn seal(to: &KemPublic, info: &[u8], plain: &[u8]) -> Result<Sealed> {
    let key = <XWing as Kem>::PublicKey::from_bytes(&to.0[..]).map_err(|_| Error::PublicKey)?;
    let (enc, context) = setup_sender::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &key, info)
        .map_err(|_| Error::Library)?;
    seal_in(&enc, context, plain)
}

fn seal_in(
    enc: &<XWing as Kem>::EncappedKey,
    mut context: AeadCtxS<AesGcm256, HkdfSha256, XWing>,
    plain: &[u8],
) -> Result<Sealed> {
    let ciphertext = context.seal(plain, &[]).map_err(|_| Error::Library)?;
    let mut bytes = Box::new([0u8; ENC]);
    enc.write_exact(&mut bytes[..]);
    Ok(Sealed { enc: bytes, ciphertext })
}

/// For vectors and worked examples only: an encapsulation that repeats gives its messages away.
#[cfg(any(test, feature = "hazmat"))]
pub mod hazmat {
    use std::convert::Infallible;

    use hpke::rand_core::{TryCryptoRng, TryRng};
    use hpke::setup_sender_with_rng;

    use super::*;

    /// [`super::seal`] with an encapsulation from 64 bytes of the caller's: ML-KEM's message 32,
    /// the ephemeral X25519 key 32.
    ///
    /// # Errors
    /// [`Error::PublicKey`], [`Error::Library`].
    pub fn seal(to: &KemPublic, info: &[u8], plain: &[u8], randomness: &[u8; 64]) -> Result<Sealed> {
        let key = <XWing as Kem>::PublicKey::from_bytes(&to.0[..]).map_err(|_| Error::PublicKey)?;
        let mut fixed = Fixed { bytes: *randomness, at: 0 };
        let (enc, context) =
            setup_sender_with_rng::<AesGcm256, HkdfSha256, XWing>(&OpModeS::Base, &key, info, &mut fixed)
                .map_err(|_| Error::Library)?;
        seal_in(&enc, context, plain)
    }

    struct Fixed {
        bytes: [u8; 64],
        at: usize,
    }

    impl TryRng for Fixed {
        type Error = Infallible;
        fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
            let mut word = [0; 4];
            self.try_fill_bytes(&mut word).map(|()| u32::from_le_bytes(word))
        }
        fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
            let mut word = [0; 8];
            self.try_fill_bytes(&mut word).map(|()| u64::from_le_bytes(word))
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), Infallible> {
            for byte in out {
                *byte = self.bytes[self.at % 64];
                self.at += 1;
            }
            Ok(())
        }
    }
    impl TryCryptoRng for Fixed {}
}

/// The private half: a 32-byte X-Wing seed, expanded once for many messages.
pub struct KemPrivate {
    key: <XWing as Kem>::PrivateKey,
    public: KemPublic,
}

impl std::fmt::Debug for KemPrivate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KemPrivate(of {:?})", self.public)
    }
}

impl KemPrivate {
    /// Expands a seed.
    ///
    /// # Errors
    /// [`Error::Library`].
    pub fn from_seed(seed: &Secret<32>) -> Result<Self> {
        let key = <XWing as Kem>::PrivateKey::from_bytes(seed.expose()).map_err(|_| Error::Library)?;
        let mut public = Box::new([0u8; PUBLIC]);
        <XWing as Kem>::sk_to_pk(&key).write_exact(&mut public[..]);
        Ok(Self { key, public: KemPublic(public) })
    }

    /// Its public half.
    pub fn public(&self) -> &KemPublic {
        &self.public
    }

    /// Opens a message sealed with the same `info`.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`].
    pub fn open(&self, info: &[u8], enc: &[u8; ENC], ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).map_err(|_| Error::NotAuthentic)?;
        let mut context =
            setup_receiver::<AesGcm256, HkdfSha256, XWing>(&OpModeR::Base, &self.key, &enc, info)
                .map_err(|_| Error::NotAuthentic)?;
        context.open(ciphertext, &[]).map(Zeroizing::new).map_err(|_| Error::NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use hpke::aead::AesGcm128;

    use super::*;

    #[test]
    fn opens_only_with_key_and_info() {
        let key = KemPrivate::from_seed(&Secret::random().unwrap()).unwrap();
        let other = KemPrivate::from_seed(&Secret::random().unwrap()).unwrap();
        let sealed = seal(key.public(), b"info", &[5; 32]).unwrap();
        assert_eq!(sealed.ciphertext.len(), 32 + OVERHEAD);
        assert_eq!(key.open(b"info", &sealed.enc, &sealed.ciphertext).unwrap()[..], [5; 32]);
        assert_eq!(key.open(b"inf0", &sealed.enc, &sealed.ciphertext), Err(Error::NotAuthentic));
        assert_eq!(other.open(b"info", &sealed.enc, &sealed.ciphertext), Err(Error::NotAuthentic));
        assert_eq!(KemPublic::from_bytes(&[0xff; PUBLIC]), Err(Error::PublicKey));
    }

    /// The vectors of draft-connolly-cfrg-xwing-kem: public key of the seed, and decapsulation.
    #[test]
    fn x_wing_draft() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../vectors/x-wing.json")).unwrap();
        for vector in file["vectors"].as_array().unwrap() {
            let hex = |name: &str| data_encoding::HEXLOWER.decode(vector[name].as_str().unwrap().as_bytes());
            let seed = Secret::copy_from(&hex("seed").unwrap().try_into().unwrap());
            let key = KemPrivate::from_seed(&seed).unwrap();
            assert_eq!(key.public().as_bytes()[..], hex("pk").unwrap());
            let enc = <XWing as Kem>::EncappedKey::from_bytes(&hex("ct").unwrap()).unwrap();
            let shared = XWing::decap(&key.key, None, &enc).unwrap();
            assert_eq!(shared.0[..], hex("ss").unwrap());
        }
    }

    /// The vector of draft-ietf-hpke-pq for X-Wing and HKDF-SHA-256. It has AES-128-GCM; none is published with
    /// AES-256-GCM, whose difference (key length, suite id) is compared with Python.
    #[test]
    fn hpke_draft() {
        let vector: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/hpke-x-wing.json")).unwrap();
        let hex = |value: &serde_json::Value| {
            data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
        };
        let seed = Secret::copy_from(&hex(&vector["sk"]).try_into().unwrap());
        let key = KemPrivate::from_seed(&seed).unwrap();
        assert_eq!(key.public().as_bytes()[..], hex(&vector["pk"]));
        let enc = <XWing as Kem>::EncappedKey::from_bytes(&hex(&vector["enc"])).unwrap();
        let info = hex(&vector["info"]);
        let randomness = hex(&vector["randomness"]).try_into().unwrap();
        let sealed = hazmat::seal(key.public(), &info, b"", &randomness).unwrap();
        assert_eq!(sealed.enc[..], hex(&vector["enc"]));
        let mut receiver =
            setup_receiver::<AesGcm128, HkdfSha256, XWing>(&OpModeR::Base, &key.key, &enc, &info).unwrap();
        for message in vector["encryptions"].as_array().unwrap() {
            let opened = receiver.open(&hex(&message["ct"]), &hex(&message["aad"])).unwrap();
            assert_eq!(opened, hex(&message["pt"]));
        }
        for export in vector["exports"].as_array().unwrap() {
            let mut value = [0; 32];
            receiver.export(&hex(&export["exporter_context"]), &mut value).unwrap();
            assert_eq!(value[..], hex(&export["exported_value"]));
        }
    }
}
