//! Signed notes in C2SP's form: text, an empty line, signature lines; the text's bytes are signed.
//!
//! ```text
//! — <identity id, hex> <base64 of key hash 4 | Ed25519 signature 64>
//! ```

use data_encoding::BASE64;
use runvault_crypto::digest::sha256;
use runvault_crypto::signature::{SigningKey, VerifyingKey};

use crate::ids::{Digest, IdentityId};
use crate::json::{TEXT_MAX, utf8};
use crate::{Error, Result};

const DASH: &str = "\u{2014} ";
const ED25519: u8 = 0x01;
/// More signature lines than this are refused.
pub const SIGNATURES_MAX: usize = 16;

/// A thing whose signature was checked. Only the check makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The same, without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// What follows from a verified thing is verified.
    ///
    /// # Errors
    /// Those of `parse`.
    pub fn parse<U>(self, parse: impl FnOnce(T) -> Result<U>) -> Result<Verified<U>> {
        parse(self.0).map(Verified)
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A note that was parsed; nothing in it is to be believed before [`Note::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// What is signed; ends with a newline.
    pub text: &'a str,
    /// In their order.
    pub signatures: Vec<Signature<'a>>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Whose it says it is.
    pub name: &'a str,
    /// Which key and algorithm it says it is of.
    pub key_hash: [u8; 4],
    /// The rest; 64 bytes for Ed25519.
    pub bytes: Vec<u8>,
}

/// The note of `text`, which ends with a newline, with one signature.
pub fn sign(text: &str, signer: &IdentityId, key: &SigningKey) -> Vec<u8> {
    let name = signer.to_string();
    let signature = key.sign(text.as_bytes());
    let line = BASE64.encode(&[&key_hash(&name, &key.public())[..], &signature].concat());
    format!("{text}\n{DASH}{name} {line}\n").into_bytes()
}

/// SHA-256 of a note's text: how one note names another, whatever signature lines it gains.
pub fn text_hash(text: &str) -> Digest {
    Digest(sha256(&[text.as_bytes()]))
}

/// SHA-256(name ‖ newline ‖ 0x01 ‖ key), cut to 4 bytes.
fn key_hash(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256(&[name.as_bytes(), b"\n", &[ED25519], &key.to_bytes()]);
    [a, b, c, d]
}

impl<'a> Note<'a> {
    /// Splits a note.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::NotCanonical`] for bytes that are not UTF-8, [`Error::Note`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let note = utf8(bytes)?;
        if note.chars().any(|c| c.is_ascii_control() && c != '\n') {
            return Err(Error::Note);
        }
        let (head, lines) = note.rsplit_once("\n\n").ok_or(Error::Note)?;
        let text = note.get(..head.len() + 1).ok_or(Error::Note)?;
        let lines = lines.strip_suffix('\n').ok_or(Error::Note)?;
        let signatures =
            lines.split('\n').take(SIGNATURES_MAX + 1).map(parse_line).collect::<Result<Vec<_>>>()?;
        let twice = |(i, s): (usize, &Signature<'_>)| {
            signatures.iter().take(i).any(|earlier| (earlier.name, earlier.key_hash) == (s.name, s.key_hash))
        };
        if signatures.len() > SIGNATURES_MAX || signatures.iter().enumerate().any(twice) {
            return Err(Error::Note);
        }
        Ok(Self { text, signatures })
    }

    /// The note's bytes again.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.text);
        for s in &self.signatures {
            let line = BASE64.encode(&[&s.key_hash[..], &s.bytes].concat());
            out.push_str(&format!("{DASH}{} {line}\n", s.name));
        }
        out.into_bytes()
    }

    /// The first line: which kind of note it says it is.
    pub fn kind(&self) -> &'a str {
        self.text.split('\n').next().unwrap_or_default()
    }

    /// The text, if `signer`'s key signed it. Lines of other keys are left alone.
    ///
    /// # Errors
    /// [`Error::Unsigned`], [`Error::Signature`].
    pub fn verify(&self, signer: &IdentityId, key: &VerifyingKey) -> Result<Verified<&'a str>> {
        let name = signer.to_string();
        let hash = key_hash(&name, key);
        let line =
            self.signatures.iter().find(|s| s.name == name && s.key_hash == hash).ok_or(Error::Unsigned)?;
        let signature = line.bytes.as_slice().try_into().map_err(|_| Error::Signature)?;
        key.verify(self.text.as_bytes(), signature)?;
        Ok(Verified(self.text))
    }
}

fn parse_line(line: &str) -> Result<Signature<'_>> {
    let (name, base64) = line.strip_prefix(DASH).and_then(|l| l.split_once(' ')).ok_or(Error::Note)?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c == '+') || base64.len() > TEXT_MAX {
        return Err(Error::Note);
    }
    let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| Error::Note)?;
    // The decoder takes padding in the middle too.
    if BASE64.encode(&bytes) != base64 {
        return Err(Error::Note);
    }
    let (key_hash, bytes) = bytes.split_first_chunk::<4>().ok_or(Error::Note)?;
    if bytes.is_empty() {
        return Err(Error::Note);
    }
    Ok(Signature { name, key_hash: *key_hash, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::secrets::Secret;

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&Secret::copy_from(&[4; 32]))
    }

    const ID: IdentityId = IdentityId([0xab; 16]);
    const TEXT: &str = "runvault/1 run\n{}\n";

    #[test]
    fn a_note_verifies_under_its_key_only() {
        let bytes = sign(TEXT, &ID, &key());
        let note = Note::parse(&bytes).unwrap();
        assert_eq!(note.kind(), "runvault/1 run");
        assert_eq!(*note.verify(&ID, &key().public()).unwrap(), TEXT);
        assert_eq!(note.verify(&IdentityId([1; 16]), &key().public()), Err(Error::Unsigned));
        let other = SigningKey::from_seed(&Secret::copy_from(&[5; 32])).public();
        assert_eq!(note.verify(&ID, &other), Err(Error::Unsigned));
        let changed = String::from_utf8(bytes.clone()).unwrap().replace("{}", "{ }");
        assert_eq!(
            Note::parse(changed.as_bytes()).unwrap().verify(&ID, &key().public()),
            Err(Error::Signature)
        );
        // A signature of a kind that is not known yet is no reason to refuse.
        let more = [&bytes[..], "\u{2014} other AAAAAAA=\n".as_bytes()].concat();
        let note = Note::parse(&more).unwrap();
        assert_eq!(*note.verify(&ID, &key().public()).unwrap(), TEXT);
        assert_eq!(note.encode(), more);
    }

    #[test]
    fn refusals_by_name() {
        let good = String::from_utf8(sign(TEXT, &ID, &key())).unwrap();
        let line = good.lines().last().unwrap();
        for bad in [
            String::new(),
            TEXT.to_owned(),
            format!("{TEXT}\n"),
            good.trim_end().to_owned(),
            good.replace('\u{2014}', "-"),
            good.replace("\n{}", "\r\n{}"),
            format!("{good}{line}\n"),
            format!("{good}\u{2014} name AAAA\n"),
            format!("{good}\u{2014} name AAAAAAA\n"),
            format!("{good}\u{2014} na+me AAAAAAA=\n"),
            // Base64 that was padded twice, which a decoder may take for two parts.
            format!("{good}\u{2014} name AAAAAA==AAAAAAA=\n"),
            format!("{good}{}", (0..16).map(|i| format!("\u{2014} n{i} AAAAAAA=\n")).collect::<String>()),
        ] {
            assert_eq!(Note::parse(bad.as_bytes()).err(), Some(Error::Note), "{bad}");
        }
        assert_eq!(Note::parse(&vec![b'a'; TEXT_MAX + 1]), Err(Error::TooLong));
        assert_eq!(Note::parse(b"\xff\n\n"), Err(Error::NotCanonical("UTF-8")));
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(text in "[ -~é]{0,40}(\n[ -~]{1,40}){0,3}", flip in any::<(u16, u8)>()) {
            let text = format!("{text}\n");
            let mut bytes = sign(&text, &ID, &key());
            let note = Note::parse(&bytes).unwrap();
            prop_assert_eq!(*note.verify(&ID, &key().public()).unwrap(), text.as_str());
            prop_assert_eq!(note.encode(), bytes.clone());
            let at = usize::from(flip.0) % bytes.len();
            bytes[at] ^= flip.1;
            if let Ok(note) = Note::parse(&bytes) {
                prop_assert_eq!(note.encode(), bytes.clone());
            }
        }

        #[test]
        fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
            prop_assert!(Note::parse(&bytes).is_err());
        }
    }
}
