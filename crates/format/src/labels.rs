//! Every label once. No key signs or seals bytes without one; each ends with a zero byte.

macro_rules! labels {
    ($($name:ident = $text:literal;)*) => {
        $(#[doc = concat!("`", $text, "` and a zero byte.")] pub const $name: &[u8] = concat!($text, "\0").as_bytes();)*
    };
}

labels! {
    COMMIT = "runvault/1 commit";
    NAMES = "runvault/1 names";
    SLOT = "runvault/1 slot";
    FILE = "runvault/1 file";
    JOURNAL = "runvault/1 journal";
    PLACE = "runvault/1 place";
    IDENTITY = "runvault/1 id";
    KEM = "runvault/1 kem";
    SIGN = "runvault/1 sign";
    RESUME = "runvault/1 resume";
    KEK = "runvault/1 kek";
    APPROVAL = "runvault/1 approval";
    EXECUTED = "runvault/1 executed";
    SHARE = "runvault/1 share";
    CONTINUE = "runvault/1 continue";
    LEDGER = "runvault/1 ledger";
    LEDGER_SUM = "runvault/1 ledger sum";
    INDEX = "runvault/1 index";
    WORKER = "runvault/1 worker";
    REKEY_DIR = "runvault/1 rekey dir";
    PKCS11 = "runvault/1 pkcs11";
    TPM_AUTH = "runvault/1 tpm2 auth";
    TPM_LOCK = "runvault/1 tpm2 lock";
}

/// First associated string of an encrypted name.
pub const SIV_NAME: &[u8] = b"runvault/1 name";
/// Of a link target.
pub const SIV_LINK: &[u8] = b"runvault/1 link";
/// Of an extended attribute's name, and with it of its value.
pub const SIV_XATTR: &[u8] = b"runvault/1 xattr";
/// Of a run's name.
pub const SIV_RUN: &[u8] = b"runvault/1 run";
