//! What can lock a key file: one file and one line each.

use runvault_crypto::passphrase::Params;

/// How a key file is to be locked.
#[derive(Clone, Copy)]
pub enum NewLock<'a> {
    /// By nothing but its mode: whoever reads the file has the key.
    None,
    /// By Argon2id of a passphrase.
    Passphrase {
        /// The bytes as typed, no line end.
        passphrase: &'a [u8],
        /// Cost; [`Params::DEFAULT`] but in tests.
        params: Params,
    },
}

impl std::fmt::Debug for NewLock<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NewLock::None => "None",
            NewLock::Passphrase { .. } => "Passphrase(..)",
        })
    }
}
