//! Every refusal by its name; docs/format.md lists them.

/// What the bytes of a store can be refused for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("not a runvault object: the magic is wrong")]
    Magic,
    #[error("format version {0} is not known to this program")]
    Version(u64),
    #[error("cipher suite {0} is not known to this program")]
    Suite(u64),
    #[error("chunk size 2^{0} is out of bounds")]
    ChunkSize(u8),
    #[error("object kind {0} is not known to this program")]
    Kind(u8),
    #[error("a reserved field is not zero")]
    Reserved,
    #[error("cut short")]
    Truncated,
    #[error("bytes follow the end")]
    Trailing,
    #[error("longer than is allowed")]
    TooLong,
    #[error("a stored length that no file can have")]
    ImpossibleLength,
    #[error("the list of holes is not in order")]
    Holes,
    #[error("does not authenticate")]
    NotAuthentic,
    #[error("no file can have this name")]
    Name,
    #[error("the name is not one that this program writes")]
    ForeignName,
    #[error("the name's side file is missing or does not fit")]
    SideFile,
    #[error("a field is not written in its one form: {0}")]
    NotCanonical(&'static str),
    #[error("not the JSON that is expected: {0}")]
    Json(String),
    #[error("not a signed note")]
    Note,
    #[error("the note is of another kind: {0}")]
    NoteKind(String),
    #[error("no signature of the expected key")]
    Unsigned,
    #[error("the signature is not valid")]
    Signature,
    #[error("the key file's lock is not known to this program: {0}")]
    Lock(String),
    #[error("the key file's lock opens by {0} alone, not by a passphrase")]
    Hardware(&'static str),
    #[error("the custody state contradicts itself: {0}")]
    State(&'static str),
    #[error("the share is not the one that the custody state names")]
    Share,
    #[error("the audit line does not follow from the chain before it: {0}")]
    Chain(&'static str),
    #[error("the sealed key is not the one that the key file names")]
    OtherKey,
    #[error("the manifest contradicts itself: {0}")]
    Manifest(&'static str),
    #[error("not a list of digests: {0}")]
    Digests(&'static str),
    #[error("no random bytes or no memory: {0}")]
    Crypto(runvault_crypto::Error),
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The refusal's name in docs/format.md and in the vectors.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Magic => "magic",
            Error::Version(_) => "version",
            Error::Suite(_) => "suite",
            Error::ChunkSize(_) => "chunk-size",
            Error::Kind(_) => "kind",
            Error::Reserved => "reserved",
            Error::Truncated => "truncated",
            Error::Trailing => "trailing",
            Error::TooLong => "too-long",
            Error::ImpossibleLength => "impossible-length",
            Error::Holes => "holes",
            Error::NotAuthentic => "not-authentic",
            Error::Name => "bad-name",
            Error::ForeignName => "foreign-name",
            Error::SideFile => "side-file",
            Error::NotCanonical(_) => "not-canonical",
            Error::Json(_) => "json",
            Error::Note => "note",
            Error::NoteKind(_) => "note-kind",
            Error::Unsigned => "unsigned",
            Error::Signature => "signature",
            Error::Lock(_) => "lock",
            Error::Hardware(_) => "hardware",
            Error::State(_) => "state",
            Error::Share => "share",
            Error::Chain(_) => "chain",
            Error::OtherKey => "other-key",
            Error::Manifest(_) => "manifest",
            Error::Digests(_) => "digests",
            Error::Crypto(_) => "crypto",
        }
    }
}

impl From<runvault_crypto::Error> for Error {
    fn from(error: runvault_crypto::Error) -> Self {
        match error {
            runvault_crypto::Error::NotAuthentic => Error::NotAuthentic,
            runvault_crypto::Error::Signature => Error::Signature,
            other => Error::Crypto(other),
        }
    }
}
