//! PKCS#11 tokens (v2.40 and later): a smart card, an HSM, or SoftHSM in tests. Each is logged in to once, with one PIN.
//!
//! What reaches a token is a library that this process loads, and its code then runs with every key in memory. So the
//! path of a module comes from whoever runs the command, never from a key file or a store.

mod module;
mod silence;

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Said, RvError};
use cryptoki::mechanism::elliptic_curve::{EcKdf, Ecdh1DeriveParams};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::RawAuthPin;
use runvault_crypto::secrets::Secret;
use zeroize::Zeroizing;

use silence::Watch;
pub use silence::on_silence;

use crate::key_files::Prompt;
use crate::{Error, Result};

/// CKA_EC_PARAMS of P-256: the OID 1.2.840.10045.3.1.7 in DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Why a token does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another one is in the reader.
    #[error("is not there; there is {0}")]
    Absent(String),
    /// The name fits none, or several.
    #[error("{0} tokens fit that name; there is {1}")]
    Several(usize, String),
    /// Not a second try: the token counts.
    #[error("the PIN is wrong; it was tried once")]
    WrongPin,
    /// Nobody tries any more.
    #[error("its PIN is locked")]
    Locked,
    /// One more wrong PIN locks it.
    #[error("one more wrong PIN locks it: nothing was tried")]
    LastTry,
    /// It was deleted, or is another token with the same serial number.
    #[error("has no private key {0} that can open this")]
    NoKey(String),
    /// The name does not say which.
    #[error("{0} of its private keys fit: {1}")]
    Keys(usize, String),
    /// Its key gave something else than what the file was locked with.
    #[error("its key is another one than that which the file was locked with, or the file was changed")]
    OtherKey,
    /// Its module hangs.
    #[error("gave no answer within {} s: the process was ended", .0.as_secs())]
    Silent(Duration),
    /// What else it says.
    #[error("{0}")]
    Said(String),
}

/// How many wrong PINs a token still takes, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tries {
    /// It does not say that they are few.
    Enough,
    /// One was wrong since the last right one.
    Few,
    /// One more.
    Last,
}

/// Which token.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// The only one that is there.
    Only,
    /// The one with this label or serial number.
    Named(&'a str),
    /// The one that a key file names.
    Noted {
        /// For messages; it can be changed.
        label: &'a str,
        /// What decides.
        serial: &'a str,
    },
}

/// A token that is open, and logged in to once [`Token::log_in`] has been called.
pub struct Token {
    /// Closed before `context`.
    session: Option<Session>,
    context: Option<Pkcs11>,
    /// CK_TOKEN_INFO.label.
    pub label: String,
    /// CK_TOKEN_INFO.serialNumber.
    pub serial: String,
    tries: Option<Tries>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("label", &self.label)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// A session at work: see [`silence`].
struct Watched<'a> {
    session: &'a Session,
    _watch: Watch,
}

impl Deref for Watched<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

/// A private key in a token.
#[derive(Clone, Debug)]
pub struct Key {
    handle: ObjectHandle,
    kind: KeyType,
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID.
    pub id: Vec<u8>,
}

/// The public half of it.
#[derive(Debug)]
pub(crate) enum Public {
    /// A point of P-256, 65 bytes.
    P256(Vec<u8>),
    /// Modulus and exponent.
    Rsa(Vec<u8>, Vec<u8>),
}

impl Token {
    /// Loads a module and finds the token.
    ///
    /// # Errors
    /// [`Error::BadFile`] for a module that others could have put there, or none; [`Error::Token`].
    pub fn open(module: &Path, which: Which<'_>) -> Result<Self> {
        let path = module::checked(module)?;
        let _watch = Watch::of(which.to_string());
        let bad = |e: Said| Error::BadFile { path: path.clone(), why: format!("not a PKCS#11 module: {e}") };
        let context = Pkcs11::new(&path).map_err(bad)?;
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(bad)?;
        let mut token = Self {
            session: None,
            context: Some(context.clone()),
            label: String::new(),
            serial: String::new(),
            tries: None,
        };
        let (name, refused) = (which.to_string(), |e: Said| said(&which.to_string(), &e));
        let mut there = Vec::new();
        for slot in context.get_slots_with_token().map_err(refused)? {
            there.push((slot, context.get_token_info(slot).map_err(refused)?));
        }
        there.retain(|(_, info)| info.token_initialized());
        let list =
            listed(there.iter().map(|(_, info)| format!("{:?} ({})", info.label(), info.serial_number())));
        there.retain(|(_, info)| which.fits(info.label(), info.serial_number()));
        let [(slot, info)] = &there[..] else {
            let why =
                if there.is_empty() { Refused::Absent(list) } else { Refused::Several(there.len(), list) };
            return Err(Error::Token { token: name, why });
        };
        token.label = info.label().to_owned();
        token.serial = info.serial_number().to_owned();
        token.tries = match () {
            () if info.user_pin_locked() => None,
            () if info.user_pin_final_try() => Some(Tries::Last),
            () if info.user_pin_count_low() => Some(Tries::Few),
            () => Some(Tries::Enough),
        };
        token.session = Some(context.open_ro_session(*slot).map_err(|e| token.said(&e))?);
        Ok(token)
    }

    /// Asks for the PIN and tries it, once.
    ///
    /// # Errors
    /// [`Error::Token`]; what the prompt gives.
    pub fn log_in(&self, prompt: &mut dyn Prompt) -> Result<()> {
        let tries = self.tries.ok_or_else(|| self.refuses(Refused::Locked))?;
        let pin = prompt.pin(&self.name(), tries)?;
        let pin = RawAuthPin::new(Box::new(pin.to_vec()));
        self.session()?.login_with_raw(UserType::User, &pin).map_err(|e| match e {
            Said::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
                self.refuses(Refused::WrongPin)
            }
            Said::Pkcs11(RvError::PinLocked, _) => self.refuses(Refused::Locked),
            e => self.said(&e),
        })
    }

    /// The one private key (P-256 or RSA) with this label or hex id; without a name the only one.
    ///
    /// # Errors
    /// [`Error::Token`].
    pub fn key(&self, named: Option<&str>) -> Result<Key> {
        let keys = self.keys(&[])?;
        let list = listed(keys.iter().map(Key::name));
        let fits =
            |key: &Key| named.is_none_or(|name| key.label == name || hex(&key.id) == name.to_lowercase());
        self.one(keys.into_iter().filter(fits).collect(), &list, named.unwrap_or("for this"))
    }

    /// The one that a key file notes: by its id, where it has one.
    pub(crate) fn noted(&self, label: &str, id: &[u8]) -> Result<Key> {
        let name = name_of(label, id);
        self.one(self.keys(&[by(label, id)])?, &name, &name)
    }

    fn one(&self, mut keys: Vec<Key>, list: &str, named: &str) -> Result<Key> {
        match (keys.len(), keys.pop()) {
            (1, Some(key)) => Ok(key),
            (0, _) => Err(self.refuses(Refused::NoKey(named.to_owned()))),
            (n, _) => Err(self.refuses(Refused::Keys(n, list.to_owned()))),
        }
    }

    fn keys(&self, by: &[Attribute]) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for kind in [KeyType::EC, KeyType::RSA] {
            let mut like = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(kind)];
            like.extend_from_slice(by);
            for handle in self.session()?.find_objects(&like).map_err(|e| self.said(&e))? {
                let label = self.attribute(handle, AttributeType::Label)?.unwrap_or_default();
                let id = self.attribute(handle, AttributeType::Id)?.unwrap_or_default();
                keys.push(Key { handle, kind, label: String::from_utf8_lossy(&label).into_owned(), id });
            }
        }
        Ok(keys)
    }

    /// The public half, from the object beside the private one.
    pub(crate) fn public(&self, key: &Key) -> Result<Public> {
        let like = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::KeyType(key.kind),
            by(&key.label, &key.id),
        ];
        let none = || self.refuses(Refused::Said(format!("no usable public key beside {}", key.name())));
        let found = self.session()?.find_objects(&like).map_err(|e| self.said(&e))?;
        let [handle] = found[..] else { return Err(none()) };
        let get = |what| self.attribute(handle, what).and_then(|value| value.ok_or_else(none));
        if key.kind == KeyType::RSA {
            return Ok(Public::Rsa(get(AttributeType::Modulus)?, get(AttributeType::PublicExponent)?));
        }
        if get(AttributeType::EcParams)? != P256 {
            return Err(self.refuses(Refused::Said(format!("{} is on another curve than P-256", key.name()))));
        }
        let point = get(AttributeType::EcPoint)?;
        // By the standard an OCTET STRING of DER around the point; some tokens leave that out.
        Ok(Public::P256(point.strip_prefix(&[4, 65]).unwrap_or(&point).to_vec()))
    }

    /// x of the point that `key` and `point` share.
    pub(crate) fn shared(&self, key: &Key, point: &[u8]) -> Result<Secret<32>> {
        let session = self.session()?;
        let like = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Token(false),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::ValueLen(32.into()),
        ];
        let derive = |point: &[u8]| {
            let params = Ecdh1DeriveParams::new(EcKdf::null(), point);
            session.derive_key(&Mechanism::Ecdh1Derive(params), key.handle, &like)
        };
        // The standard wants the bare point; some tokens know it in DER alone.
        let derived = derive(point).or_else(|_| derive(&[&[4, 65], point].concat()));
        let derived = derived.map_err(|e| self.said(&e))?;
        let value = self.attribute(derived, AttributeType::Value)?.map(Zeroizing::new);
        // A session's object: it ends with the session, whatever is said here.
        let _ = session.destroy_object(derived);
        self.secret(value.as_deref().map_or(&[], Vec::as_slice))
    }

    /// What RSA-OAEP with SHA-1 sealed to `key`.
    pub(crate) fn decrypted(&self, key: &Key, sealed: &[u8]) -> Result<Secret<32>> {
        let params =
            PkcsOaepParams::new(MechanismType::SHA1, PkcsMgfType::MGF1_SHA1, PkcsOaepSource::empty());
        let plain = self.session()?.decrypt(&Mechanism::RsaPkcsOaep(params), key.handle, sealed);
        let plain = plain.map(Zeroizing::new).map_err(|e| match e {
            Said::Pkcs11(
                RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange | RvError::GeneralError,
                _,
            ) => self.refuses(Refused::OtherKey),
            e => self.said(&e),
        })?;
        self.secret(&plain)
    }

    fn secret(&self, bytes: &[u8]) -> Result<Secret<32>> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| self.refuses(Refused::OtherKey))?;
        Ok(Secret::copy_from(bytes))
    }

    /// `None` for an attribute that the object does not have.
    fn attribute(&self, of: ObjectHandle, what: AttributeType) -> Result<Option<Vec<u8>>> {
        let got = self.session()?.get_attributes(of, &[what]).map_err(|e| self.said(&e))?;
        Ok(got.into_iter().find_map(|attribute| match attribute {
            Attribute::Label(bytes)
            | Attribute::Id(bytes)
            | Attribute::EcParams(bytes)
            | Attribute::EcPoint(bytes)
            | Attribute::Modulus(bytes)
            | Attribute::PublicExponent(bytes)
            | Attribute::Value(bytes) => Some(bytes),
            _ => None,
        }))
    }

    fn session(&self) -> Result<Watched<'_>> {
        let session =
            self.session.as_ref().ok_or_else(|| self.refuses(Refused::Said("no session".to_owned())))?;
        Ok(Watched { session, _watch: Watch::of(self.name()) })
    }

    /// Label and serial number, as messages name it.
    pub fn name(&self) -> String {
        format!("{:?} ({})", self.label, self.serial)
    }

    pub(crate) fn refuses(&self, why: Refused) -> Error {
        Error::Token { token: self.name(), why }
    }

    fn said(&self, e: &Said) -> Error {
        said(&self.name(), e)
    }
}

/// Other code of this process may load the module again, and after a fork nothing of it may be left.
impl Drop for Token {
    fn drop(&mut self) {
        let _watch = Watch::of(self.name());
        drop(self.session.take());
        if let Some(context) = self.context.take() {
            // There is nobody to tell.
            let _ = context.finalize();
        }
    }
}

impl Key {
    fn name(&self) -> String {
        name_of(&self.label, &self.id)
    }
}

impl Which<'_> {
    fn fits(self, label: &str, serial: &str) -> bool {
        match self {
            Which::Only => true,
            Which::Named(name) => name == label || name == serial,
            Which::Noted { serial: noted, .. } => noted == serial,
        }
    }
}

impl fmt::Display for Which<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Which::Only => f.write_str("that is meant"),
            Which::Named(name) => write!(f, "{name:?}"),
            Which::Noted { label, serial } => write!(f, "{label:?} ({serial})"),
        }
    }
}

fn said(token: &str, e: &Said) -> Error {
    Error::Token { token: token.to_owned(), why: Refused::Said(e.to_string()) }
}

/// A key's id, where it has one.
fn by(label: &str, id: &[u8]) -> Attribute {
    if id.is_empty() { Attribute::Label(label.into()) } else { Attribute::Id(id.to_vec()) }
}

fn name_of(label: &str, id: &[u8]) -> String {
    format!("{label:?} (id {})", hex(id))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// As people and other programs write a CKA_ID.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
