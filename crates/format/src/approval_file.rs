//! A custodian's answer to a request, on its way to the one who executes it: the approval, and the share where the
//! request releases any.

use runvault_crypto::digest::sha256;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::request::Approval;
use crate::{Error, Result, json};

const KIND: &str = "approval";

/// What the file says; nothing in it is to be believed before [`Approval::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalFile {
    /// Hash of the request.
    pub request: Digest,
    /// As the audit line keeps it.
    pub approval: Approval,
    /// The envelope (purpose `approval`) that it names; null where none is released.
    #[serde(with = "json::maybe_bytes")]
    pub env: Option<Vec<u8>>,
}

impl ApprovalFile {
    /// The file's text.
    ///
    /// # Errors
    /// [`Error::Share`] for an envelope that the approval does not name.
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        json::to_text(KIND, self)
    }

    /// Parses the file.
    ///
    /// # Errors
    /// Those of a text of two lines, [`Error::Share`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let file: Self = json::parse_text(KIND, json::utf8(bytes)?)?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        let named = self.env.as_ref().map(|env| Digest(sha256(&[env])));
        if named == self.approval.env_sha256 { Ok(()) } else { Err(Error::Share) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use runvault_crypto::secrets::Secret;

    use super::*;
    use crate::keys::IdentityKeys;

    proptest! {
        #[test]
        fn what_parses_encodes_back(request in any::<[u8; 32]>(), env in any::<Option<Vec<u8>>>()) {
            let keys = IdentityKeys::from_seed(&Secret::copy_from(&[3; 32])).unwrap();
            let request = Digest(request);
            let approval = Approval::sign(keys.public().id(), &keys.sign, &request, env.as_deref());
            let file = ApprovalFile { request, approval, env };
            prop_assert_eq!(ApprovalFile::parse(file.to_text().unwrap().as_bytes()), Ok(file.clone()));
            let other = ApprovalFile { env: Some(b"another".to_vec()), ..file };
            prop_assert_eq!(other.to_text(), Err(Error::Share));
        }

        #[test]
        fn any_text_is_answered(text in "(runvault/1 approval\n)?[{}\\[\\]\",:a-z0-9]{0,200}\n?") {
            prop_assert!(ApprovalFile::parse(text.as_bytes()).is_err());
        }
    }
}
