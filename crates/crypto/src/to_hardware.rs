//! Sealing to a key that hardware keeps: ECDH on P-256 (SEC 1, SP 800-56A) and RSA-OAEP (RFC 8017) with SHA-1, by
//! AWS-LC. What hardware needs to open, it does itself.

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents};

use crate::secrets::Secret;
use crate::{Error, Result};

/// An uncompressed point of P-256: 4, x 32, y 32.
pub const POINT: usize = 65;
/// Bytes of an RSA modulus that are accepted: 2,048 to 4,096 bits.
pub const MODULUS: std::ops::RangeInclusive<usize> = 256..=512;

/// A fresh P-256 key's point, and what it and `public` share: x, 32 bytes.
///
/// # Errors
/// [`Error::PublicKey`] for what is no point of the curve, [`Error::Library`].
pub fn share_with(public: &[u8]) -> Result<(Vec<u8>, Secret<32>)> {
    let ephemeral = PrivateKey::generate(&ECDH_P256).map_err(|_| Error::Library)?;
    let point = ephemeral.compute_public_key().map_err(|_| Error::Library)?.as_ref().to_vec();
    let peer = UnparsedPublicKey::new(&ECDH_P256, public);
    let shared = agree(&ephemeral, peer, Error::PublicKey, |shared| {
        let x: &[u8; 32] = shared.try_into().map_err(|_| Error::Length)?;
        Ok(Secret::copy_from(x))
    })?;
    Ok((point, shared))
}

/// A secret under an RSA key, as long as its modulus. OAEP's proof does not rest on its hash being free of
/// collisions.
///
/// # Errors
/// [`Error::PublicKey`] for a modulus out of its bounds or a bad exponent, [`Error::Library`].
pub fn encrypt_to(modulus: &[u8], exponent: &[u8], secret: &Secret<32>) -> Result<Vec<u8>> {
    let n: &[u8] = strip(modulus);
    if !MODULUS.contains(&n.len()) {
        return Err(Error::PublicKey);
    }
    let key: PublicEncryptingKey =
        PublicKeyComponents { n, e: strip(exponent) }.try_into().map_err(|_| Error::PublicKey)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| Error::PublicKey)?;
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA1_MGF1SHA1, secret.expose(), &mut out, None).map_err(|_| Error::Library)?;
    Ok(out)
}

/// Integers of a token may have zeros in front.
fn strip(integer: &[u8]) -> &[u8] {
    &integer[integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_share_the_same() {
        let token = PrivateKey::generate(&ECDH_P256).unwrap();
        let (point, shared) = share_with(token.compute_public_key().unwrap().as_ref()).unwrap();
        assert_eq!((point.len(), point[0]), (POINT, 4));
        let peer = UnparsedPublicKey::new(&ECDH_P256, &point);
        let same = agree(&token, peer, (), |x| Ok(x == shared.expose()));
        assert_eq!(same, Ok(true));
        assert_eq!(share_with(&[4; POINT]).err(), Some(Error::PublicKey));
        assert_eq!(share_with(&[]).err(), Some(Error::PublicKey));
    }

    #[test]
    fn a_modulus_out_of_its_bounds_is_refused() {
        let secret = Secret::copy_from(&[1; 32]);
        for modulus in [&[0xff; 128][..], &[0; 256], &[0xff; 513], &[]] {
            assert_eq!(encrypt_to(modulus, &[1, 0, 1], &secret).err(), Some(Error::PublicKey));
        }
    }
}
