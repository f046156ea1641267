//! What a primitive can refuse.

/// The crate's one error. None says which byte was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the system gives no random bytes")]
    Random,
    #[error("the bytes do not authenticate under this key")]
    NotAuthentic,
    #[error("a buffer has the wrong length")]
    Length,
    #[error("the public key is not a valid one")]
    PublicKey,
    #[error("the signature is not valid")]
    Signature,
    #[error("Argon2id parameters are below the floor or above the bound")]
    PassphraseParameters,
    #[error("these are not so many distinct shares as the secret needs")]
    Threshold,
    #[error("there is not enough memory to derive a key from the passphrase")]
    Memory,
    #[error("the primitive's library failed")]
    Library,
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;
