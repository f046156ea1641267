//! The genesis: what a vault was made with. Its SHA-256 is the vault id, which is why nobody signs it.

use runvault_crypto::digest::sha256;
use runvault_crypto::envelope::KemPublic;
use serde::{Deserialize, Serialize};

use crate::custody_state::{Custodian, check_custodians};
use crate::header::SUITE;
use crate::ids::{Digest, IdentityId, Salt, VaultId};
use crate::json;
use crate::{Error, Result};

const KIND: &str = "genesis";

/// A custodian's share of the first epoch's key, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstShare {
    /// The custodian.
    pub to: IdentityId,
    /// Where the polynomial is taken, 1 to 255.
    pub x: u8,
    /// [`crate::share::hash`].
    pub sha256: Digest,
}

/// What `custody/genesis` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    suite: u16,
    /// Custodians that an operation needs.
    pub quorum: u8,
    /// The first custodians.
    pub custodians: Vec<Custodian>,
    /// X-Wing key of epoch 1.
    #[serde(with = "json::kem")]
    pub kem: KemPublic,
    /// In the custodians' order.
    pub shares: Vec<FirstShare>,
    /// When, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub created: String,
    /// Random.
    pub salt: Salt,
}

impl Genesis {
    /// A genesis of this program's suite.
    pub fn new(
        quorum: u8,
        custodians: Vec<Custodian>,
        kem: KemPublic,
        shares: Vec<FirstShare>,
        created: String,
        salt: Salt,
    ) -> Self {
        Self { suite: SUITE, quorum, custodians, kem, shares, created, salt }
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`Error::State`] for custodians or shares that contradict each other, [`Error::Json`].
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        json::to_text(KIND, self)
    }

    /// Parses the file, and computes the vault id.
    ///
    /// # Errors
    /// Those of a text of two lines, [`Error::Suite`], [`Error::State`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, VaultId)> {
        let genesis: Self = json::parse_text(KIND, json::utf8(bytes)?)?;
        if genesis.suite != SUITE {
            return Err(Error::Suite(genesis.suite.into()));
        }
        genesis.check()?;
        Ok((genesis, vault_id(bytes)))
    }

    fn check(&self) -> Result<()> {
        check_custodians(self.quorum, &self.custodians)?;
        let shares = self.shares.iter().map(|s| (s.to, s.x));
        crate::custody_state::check_shares(&self.custodians, shares)
    }
}

/// SHA-256 of the genesis file.
pub fn vault_id(genesis: &[u8]) -> VaultId {
    VaultId(sha256(&[genesis]))
}
