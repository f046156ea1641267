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
    #[error("no random bytes or no memory: {0}")]
    Crypto(runvault_crypto::Error),
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<runvault_crypto::Error> for Error {
    fn from(error: runvault_crypto::Error) -> Self {
        match error {
            runvault_crypto::Error::NotAuthentic => Error::NotAuthentic,
            runvault_crypto::Error::Signature => Error::Signature,
            other => Error::Crypto(other),
        }
    }
}
