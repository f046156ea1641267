//! The lock that a key file is to get: what was chosen, and what it needs of a person.

use anyhow::Result;
use runvault_crypto::passphrase::Params;
use runvault_custody::key_files::{NewLock, Prompt};
use runvault_custody::token::{Key, Token, Which};
use zeroize::Zeroizing;

use crate::args::{LockKind, LockOptions};
use crate::exit::{Exit, refuse};
use crate::prompt::{Asker, Source};

/// A lock to be made.
pub enum Chosen {
    /// By nothing.
    None,
    /// By this passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// By a key in a token that is logged in.
    Pkcs11(Token, Key),
    /// By the TPM, with PCRs and a passphrase if wanted.
    Tpm2(Vec<u8>, Option<Zeroizing<Vec<u8>>>),
}

/// Where the new passphrase comes from.
pub struct Passphrase {
    /// If one is needed.
    pub source: Source,
    /// The option that names a file with it.
    pub option: &'static str,
    /// Whether the command line says so.
    pub named: bool,
}

impl Chosen {
    /// Asks for what this kind of lock needs. `label` is the key's.
    ///
    /// # Errors
    /// Exit 2: as [`Source::new_one`]; those of a token.
    pub fn ask(
        kind: LockKind,
        options: &LockOptions,
        passphrase: &Passphrase,
        asker: &mut Asker,
        label: &str,
    ) -> Result<Self> {
        Ok(match kind {
            LockKind::None => Self::None,
            LockKind::Passphrase => Self::Passphrase(passphrase.source.new_one(label, passphrase.option)?),
            LockKind::Pkcs11 => {
                let (token, key) = asker.told(|asker| in_token(options, asker))?;
                Self::Pkcs11(token, key)
            }
            LockKind::Tpm2 => {
                let with = !options.without_passphrase;
                let passphrase =
                    with.then(|| passphrase.source.new_one(label, passphrase.option)).transpose()?;
                Self::Tpm2(options.pcr.as_deref().unwrap_or_default().to_vec(), passphrase)
            }
        })
    }

    /// As custody wants it.
    pub fn lock(&self) -> NewLock<'_> {
        let params = Params::DEFAULT;
        match self {
            Self::None => NewLock::None,
            Self::Passphrase(passphrase) => NewLock::Passphrase { passphrase, params },
            Self::Pkcs11(token, key) => NewLock::Pkcs11 { token, key },
            Self::Tpm2(pcrs, passphrase) => {
                NewLock::Tpm2 { pcrs, passphrase: passphrase.as_ref().map(|p| (p.as_slice(), params)) }
            }
        }
    }
}

fn in_token(options: &LockOptions, asker: &mut Asker) -> runvault_custody::Result<(Token, Key)> {
    let named = options.token.as_deref();
    let module = asker.module(named.unwrap_or("that is wanted"))?;
    let token = Token::open(&module, named.map_or(Which::Only, Which::Named))?;
    token.log_in(asker)?;
    let key = token.key(options.token_key.as_deref())?;
    Ok((token, key))
}

/// What would be left unused, or is missing, is a mistake: told before anything is asked or tried.
///
/// # Errors
/// Exit 2.
pub fn check(kind: LockKind, options: &LockOptions, passphrase: &Passphrase, asker: &Asker) -> Result<()> {
    if kind == LockKind::Pkcs11 && !asker.names_a_module() {
        let what = "--lock pkcs11 needs --pkcs11-module FILE, which reaches the token";
        return Err(refuse(Exit::Usage, what));
    }
    let no_passphrase = matches!(kind, LockKind::None | LockKind::Pkcs11) || options.without_passphrase;
    for (given, fits, option) in [
        (passphrase.named, !no_passphrase, "a passphrase"),
        (options.token.is_some(), kind == LockKind::Pkcs11, "--token"),
        (options.token_key.is_some(), kind == LockKind::Pkcs11, "--token-key"),
        (options.pcr.is_some(), kind == LockKind::Tpm2, "--pcr"),
        (options.without_passphrase, kind == LockKind::Tpm2, "--without-passphrase"),
    ] {
        if given && !fits {
            return Err(refuse(Exit::Usage, format!("{option} does not belong to this --lock")));
        }
    }
    Ok(())
}
