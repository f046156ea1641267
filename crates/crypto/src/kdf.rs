//! HKDF-SHA-256 (RFC 5869).

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::secrets::Secret;

/// HKDF-Extract.
pub fn hkdf_extract(salt: &[u8], input: &Secret<32>) -> Secret<32> {
    extract(salt, input.expose())
}

pub(crate) fn extract(salt: &[u8], input: &[u8]) -> Secret<32> {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    extract.input_ikm(input);
    let (mut prk, _) = extract.finalize();
    let secret = Secret::from_fn(|out: &mut [u8; 32]| out.copy_from_slice(&prk));
    prk.as_mut_slice().zeroize();
    secret
}

/// HKDF-Expand of `N` <= 64 bytes; `info` is the concatenation of its parts.
pub fn hkdf_expand<const N: usize>(prk: &Secret<32>, info: &[&[u8]]) -> Secret<N> {
    Secret::from_fn(|out| {
        let hkdf = Hkdf::<Sha256>::from_prk(prk.expose());
        let expanded = hkdf.map(|h| h.expand_multi_info(info, out).is_ok());
        // 32 bytes are a valid PRK and 64 bytes are below 255 * 32: RFC 5869 leaves no failure.
        assert!(matches!(expanded, Ok(true)), "HKDF-Expand within its bounds");
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(s: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(s.as_bytes()).unwrap()
    }

    /// RFC 5869, A.1 and A.3.
    #[test]
    fn rfc_5869() {
        let prk = extract(&hex("000102030405060708090a0b0c"), &[0x0b; 22]);
        assert_eq!(prk.expose()[..], hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
        let okm = hkdf_expand::<42>(&prk, &[&hex("f0f1f2f3f4"), &hex("f5f6f7f8f9")]);
        assert_eq!(
            okm.expose()[..],
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
        );
        let prk = extract(&[], &[0x0b; 22]);
        let okm = hkdf_expand::<42>(&prk, &[]);
        assert_eq!(
            okm.expose()[..],
            hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
        );
    }
}
