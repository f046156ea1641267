//! A key in a PKCS#11 token: on P-256 by ECDH with a key made for this lock alone, or RSA by OAEP.

use runvault_crypto::secrets::Secret;
use runvault_crypto::to_hardware;
use runvault_format::hardware::{TokenLock, TokenSealed, ecdh_key};
use runvault_format::key_file::Lock;

use super::{Kind, NewLock, Shown};
use crate::key_files::Prompt;
use crate::token::{Key, Public, Refused, Token, Which, hex};
use crate::{Error, Result};

pub(super) struct Pkcs11;

impl Kind for Pkcs11 {
    fn make(&self, new: &NewLock) -> Option<Result<(Lock, Secret<32>)>> {
        let NewLock::Pkcs11 { token, key } = *new else { return None };
        Some(make(token, key))
    }

    fn key(&self, lock: &Lock, _label: &str, prompt: &mut dyn Prompt) -> Option<Result<Secret<32>>> {
        let Lock::Pkcs11(lock) = lock else { return None };
        Some(open(lock, prompt))
    }

    fn misfit(&self, lock: &Lock, _file: String) -> Option<Error> {
        let Lock::Pkcs11(lock) = lock else { return None };
        let token = Which::Noted { label: &lock.token, serial: &lock.serial }.to_string();
        Some(Error::Token { token, why: Refused::OtherKey })
    }

    fn shown(&self, lock: &Lock) -> Option<Shown> {
        let Lock::Pkcs11(TokenLock { token, serial, key, id, sealed }) = lock else { return None };
        let (by, mechanism) = match sealed {
            TokenSealed::Ecdh { .. } => ("ECDH on P-256", "ecdh-p256"),
            TokenSealed::Oaep { .. } => ("RSA-OAEP", "rsa-oaep-sha1"),
        };
        let id = hex(id);
        Some(Shown {
            words: format!("the PKCS#11 token {token:?} ({serial}), key {key:?} (id {id}), by {by}"),
            parameters: serde_json::json!({
                "kind": "pkcs11", "token": token, "serial": serial, "key": key, "id": id, "mechanism": mechanism,
            }),
        })
    }
}

fn make(token: &Token, key: &Key) -> Result<(Lock, Secret<32>)> {
    let (sealed, lock_key) = match token.public(key)? {
        Public::P256(public) => {
            let (ephemeral, shared) = to_hardware::share_with(&public)?;
            let lock_key = ecdh_key(&shared, &public, &ephemeral);
            (TokenSealed::Ecdh { public, ephemeral }, lock_key)
        }
        Public::Rsa(modulus, exponent) => {
            let lock_key = Secret::random()?;
            (TokenSealed::Oaep { sealed: to_hardware::encrypt_to(&modulus, &exponent, &lock_key)? }, lock_key)
        }
    };
    // The token may not be allowed to do with this key what opening needs: better now than on the day.
    if unseal(token, key, &sealed)?.expose() != lock_key.expose() {
        return Err(token.refuses(Refused::OtherKey));
    }
    let lock = TokenLock {
        token: token.label.clone(),
        serial: token.serial.clone(),
        key: key.label.clone(),
        id: key.id.clone(),
        sealed,
    };
    Ok((Lock::Pkcs11(lock), lock_key))
}

fn open(lock: &TokenLock, prompt: &mut dyn Prompt) -> Result<Secret<32>> {
    let module = prompt.module(&lock.token)?;
    let token = Token::open(&module, Which::Noted { label: &lock.token, serial: &lock.serial })?;
    token.log_in(prompt)?;
    unseal(&token, &token.noted(&lock.key, &lock.id)?, &lock.sealed)
}

fn unseal(token: &Token, key: &Key, sealed: &TokenSealed) -> Result<Secret<32>> {
    match sealed {
        TokenSealed::Ecdh { public, ephemeral } => {
            Ok(ecdh_key(&token.shared(key, ephemeral)?, public, ephemeral))
        }
        TokenSealed::Oaep { sealed } => token.decrypted(key, sealed),
    }
}
