//! Every key of a run from its one secret, and an identity's from its seed (docs/format.md, "Keys").

use runvault_crypto::aead::{AeadKey, Engine};
use runvault_crypto::digest::{hmac_sha256, sha256};
use runvault_crypto::envelope::{KemPrivate, KemPublic};
use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::secrets::Secret;
use runvault_crypto::signature::{SigningKey, VerifyingKey};
use runvault_crypto::siv::SivKey;

use crate::Result;
use crate::header::{Clear, Kind};
use crate::ids::{DirId, FileId, IdentityId, RunId, SessionId};
use crate::labels;

/// RK: 32 random bytes, the only secret of a run.
#[derive(Clone, Debug)]
pub struct RunKey(pub Secret<32>);

/// Encrypts names, link targets, attributes and the run's name.
pub type NameKey = SivKey;

/// Everything that follows from a run key.
#[derive(Debug)]
pub struct RunKeys {
    prk: Secret<32>,
    names: NameKey,
    engine: Engine,
}

impl RunKeys {
    /// PRK = HKDF-Extract(salt = run id, RK).
    pub fn derive(key: &RunKey, run: &RunId, engine: Engine) -> Self {
        let prk = hkdf_extract(&run.0, &key.0);
        let names = SivKey::new(hkdf_expand(&prk, &[labels::NAMES]));
        Self { prk, names, engine }
    }

    /// What run.json shows, so that a wrong key is known for one.
    pub fn commitment(&self) -> [u8; 32] {
        *hkdf_expand::<32>(&self.prk, &[labels::COMMIT]).expose()
    }

    /// For [`crate::name`].
    pub fn name_key(&self) -> &NameKey {
        &self.names
    }

    /// Seals the header states of the file with this clear part.
    pub fn slot_key(&self, clear: &Clear) -> AeadKey {
        self.engine.key(&hkdf_expand(&self.prk, &[labels::SLOT, &clear.encode()]))
    }

    /// Seals the chunks of the file with this clear part, since its truncation number `epoch`.
    pub fn file_key(&self, clear: &Clear, epoch: u32) -> AeadKey {
        self.engine.key(&hkdf_expand(&self.prk, &[labels::FILE, &clear.encode(), &epoch.to_le_bytes()]))
    }

    /// Authenticates the redo records of one session.
    pub fn journal_key(&self, session: &SessionId) -> JournalKey {
        JournalKey(hkdf_expand(&self.prk, &[labels::JOURNAL, &session.0]))
    }

    /// Authenticates the ledger of the open run, and sums up what files hold.
    pub fn ledger_key(&self) -> LedgerKey {
        let expand = |label| hkdf_expand(&self.prk, &[label]);
        LedgerKey { frames: expand(labels::LEDGER), sums: expand(labels::LEDGER_SUM) }
    }

    /// The id of a directory in a run that replaces another, by its number in the manifest: all who copy that run at
    /// once make the same one, and nobody else can tell it from a random one.
    pub fn directory_id(&self, entry: u32) -> DirId {
        FileId(*hkdf_expand::<32>(&self.prk, &[labels::REKEY_DIR, &entry.to_le_bytes()]).expose())
    }

    /// The engine that its keys are expanded for.
    pub fn engine(&self) -> Engine {
        self.engine
    }
}

/// HMAC-SHA-256 key of a session's redo records.
#[derive(Debug)]
pub struct JournalKey(Secret<32>);

impl JournalKey {
    /// The first 16 bytes of the HMAC.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        tag(&self.0, parts)
    }
}

/// Keys of a run's ledger.
#[derive(Debug)]
pub struct LedgerKey {
    frames: Secret<32>,
    pub(crate) sums: Secret<32>,
}

impl LedgerKey {
    /// The first 16 bytes of the HMAC.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> [u8; 16] {
        tag(&self.frames, parts)
    }
}

fn tag(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 16] {
    let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = hmac_sha256(key.expose(), parts);
    tag
}

/// Binds a file or directory to its name in its directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place(pub [u8; 16]);

/// SHA-256("runvault/1 place" ‖ directory id ‖ kind ‖ name), cut to 16 bytes.
pub fn place(dir: &DirId, kind: Kind, name: &[u8]) -> Place {
    let [place @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
        sha256(&[labels::PLACE, &dir.0, &[kind as u8], name]);
    Place(place)
}

/// The private keys of a custodian, reader or gateway.
#[derive(Debug)]
pub struct IdentityKeys {
    /// Opens what is sealed to it.
    pub kem: KemPrivate,
    /// Signs for it.
    pub sign: SigningKey,
}

impl IdentityKeys {
    /// Both keys of a 32-byte seed: HKDF with no salt, labels "kem" and "sign".
    ///
    /// # Errors
    /// The library's.
    pub fn from_seed(seed: &Secret<32>) -> Result<Self> {
        let prk = hkdf_extract(&[], seed);
        let kem = KemPrivate::from_seed(&hkdf_expand(&prk, &[labels::KEM]))?;
        let sign = SigningKey::from_seed(&hkdf_expand(&prk, &[labels::SIGN]));
        Ok(Self { kem, sign })
    }

    /// The public half.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic { sign: self.sign.public(), kem: self.kem.public().clone() }
    }
}

/// The public keys of a custodian, reader or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityPublic {
    /// Ed25519.
    pub sign: VerifyingKey,
    /// X-Wing.
    pub kem: KemPublic,
}

impl IdentityPublic {
    /// SHA-256("runvault/1 id" ‖ Ed25519 key ‖ X-Wing key), cut to 16 bytes.
    pub fn id(&self) -> IdentityId {
        let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            sha256(&[labels::IDENTITY, &self.sign.to_bytes(), self.kem.as_bytes()]);
        IdentityId(id)
    }
}
