//! The text of a public key file: who asks to be let in, signed by the keys that it names.
//!
//! The signature shows that whoever wrote the file holds the signing key. That it is who it says it is, only
//! the comparison of its id can tell.

use runvault_crypto::envelope::KemPublic;
use runvault_crypto::signature::VerifyingKey;
use serde::{Deserialize, Serialize};

use crate::ids::{IdentityId, VaultId};
use crate::json;
use crate::keys::{IdentityKeys, IdentityPublic};
use crate::note::{self, Note};
use crate::{Error, Result};

/// The note's kind: its first line is `runvault/1 public`.
pub const KIND: &str = "public";
/// Longer files are refused.
pub const LEN_MAX: usize = 16 << 10;

/// An identity's public side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The hash of both keys.
    pub id: IdentityId,
    /// For people.
    #[serde(with = "json::label")]
    pub label: String,
    /// Ed25519.
    #[serde(with = "json::sign")]
    pub sign: VerifyingKey,
    /// X-Wing.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
    /// The vault that it is for; left out for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultId>,
}

impl PublicKey {
    /// Of an identity whose keys are open.
    pub fn of(label: &str, keys: &IdentityPublic, vault: Option<VaultId>) -> Self {
        Self { id: keys.id(), label: label.into(), sign: keys.sign, kem: keys.kem.clone(), vault }
    }

    /// Both keys.
    pub fn keys(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign, kem: self.kem.clone() }
    }

    /// The file's bytes, signed by its own key.
    ///
    /// # Errors
    /// [`Error::Json`] for a label that is none.
    pub fn to_note(&self, keys: &IdentityKeys) -> Result<Vec<u8>> {
        Ok(note::sign(&json::to_text(KIND, self)?, &self.id, &keys.sign))
    }

    /// Parses a file and verifies that its own key signed it.
    ///
    /// # Errors
    /// [`Error::TooLong`]; those of a note and of a text of two lines; [`Error::OtherKey`] for an id that
    /// is not its keys'.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > LEN_MAX {
            return Err(Error::TooLong);
        }
        let note = Note::parse(bytes)?;
        // Its keys are believed before the signature holds, only to verify it with.
        let claimed: Self = json::parse_text(KIND, note.text)?;
        if claimed.keys().id() != claimed.id {
            return Err(Error::OtherKey);
        }
        note.verify(&claimed.id, &claimed.sign)?;
        Ok(claimed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::secrets::Secret;

    use super::*;

    fn keys(n: u8) -> IdentityKeys {
        IdentityKeys::from_seed(&Secret::copy_from(&[n; 32])).unwrap()
    }

    fn file(label: &str, vault: Option<[u8; 32]>) -> (PublicKey, Vec<u8>) {
        let keys = keys(4);
        let public = PublicKey::of(label, &keys.public(), vault.map(VaultId));
        let bytes = public.to_note(&keys).unwrap();
        (public, bytes)
    }

    #[test]
    fn another_id_and_another_signer_are_refused() {
        let (public, bytes) = file("novaseq", Some([1; 32]));
        assert_eq!(PublicKey::parse(&bytes), Ok(public.clone()));
        let forged = PublicKey { id: IdentityId([9; 16]), ..public.clone() };
        assert_eq!(PublicKey::parse(&forged.to_note(&keys(4)).unwrap()), Err(Error::OtherKey));
        assert_eq!(PublicKey::parse(&public.to_note(&keys(5)).unwrap()), Err(Error::Unsigned));
        let relabelled = String::from_utf8(bytes).unwrap().replacen("novaseq", "nextseq", 1);
        assert!(matches!(PublicKey::parse(relabelled.as_bytes()), Err(Error::Crypto(_) | Error::Signature)));
        assert_eq!(PublicKey::parse(&[b'x'; LEN_MAX + 1]), Err(Error::TooLong));
        assert_eq!(
            PublicKey::parse(b"runvault/1 run\n{}\n\n\xe2\x80\x94 a AAAAAAA=\n"),
            Err(Error::NoteKind("run".into()))
        );
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(label in "[a-zé0-9 ]{1,60}", vault in any::<Option<[u8; 32]>>(), flip in any::<(u16, u8)>()) {
            let (public, bytes) = file(&label, vault);
            prop_assert_eq!(PublicKey::parse(&bytes), Ok(public));
            let mut changed = bytes.clone();
            let at = usize::from(flip.0) % changed.len();
            changed[at] = flip.1 & 0x7f;
            prop_assert!(changed == bytes || PublicKey::parse(&changed).is_err());
        }
    }
}
