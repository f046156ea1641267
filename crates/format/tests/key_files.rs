//! Key files: what opens, and each refusal by its name.

use crate::common::{identity, seed};
use proptest::prelude::*;
use runvault_crypto::passphrase::Params;
use runvault_format::Error;
use runvault_format::ids::{Salt, VaultId};
use runvault_format::key_file::{KeyFile, Lock};

fn unlocked() -> KeyFile {
    let key = Lock::None.key(b"").unwrap();
    KeyFile::seal(&seed(1), "owner", Some(VaultId([7; 32])), Lock::None, &key).unwrap()
}

#[test]
fn a_passphrase_opens_its_file_only() {
    let lock = Lock::argon2id(Salt([1; 16]), Params::FLOOR);
    let key = lock.key(b"correct horse").unwrap();
    let file = KeyFile::seal(&seed(1), "owner", None, lock, &key).unwrap();
    let back = KeyFile::parse(&file.to_bytes().unwrap()).unwrap();
    assert_eq!(back.open(&key).unwrap().expose(), seed(1).expose());
    assert_eq!(back.public, identity(1).public());
    let wrong = back.lock.key(b"correct house").unwrap();
    assert_eq!(back.open(&wrong).err(), Some(Error::NotAuthentic));
}

#[test]
fn refusals_by_name() {
    let text = String::from_utf8(unlocked().to_bytes().unwrap()).unwrap();
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        KeyFile::parse(text.replacen(from, to, 1).as_bytes())
    };
    let with = |from: &str, to: &str| parse(from, to).unwrap_err();
    assert_eq!(with("runvault/1 key", "runvault/3 key"), Error::Version(3));
    assert_eq!(with("runvault/1 key", "runvault/1 run"), Error::NoteKind("run".into()));
    assert_eq!(with("\"none\"", "\"fido2\""), Error::Lock("fido2".into()));
    assert_eq!(with("\"none\"", "\"yubikey\",\"slot\":1"), Error::Lock("yubikey".into()));
    assert_eq!(with("\"kind\":\"none\"", "\"kind\":\"none\",\"salt\":1"), Error::NotCanonical("JSON"));
    assert_eq!(with("\"vault\":\"", "\"vault\":null,\"more\":\""), {
        let Err(error) = parse("\"vault\":\"", "\"vault\":null,\"more\":\"") else { panic!() };
        assert!(matches!(error, Error::Json(_)));
        error
    });
    let id = identity(1).public().id().to_string();
    assert_eq!(with(&id, &"00".repeat(16)), Error::OtherKey);
    assert_eq!(with("\"sealed\":\"", "\"sealed\":\"AAAA"), Error::Trailing);
    assert_eq!(KeyFile::parse(&[b' '; 20_000]).err(), Some(Error::TooLong));

    // What is authenticated beside the seed.
    let key = Lock::None.key(b"").unwrap();
    for (from, to) in [("\"label\":\"owner", "\"label\":\"other"), ("0707", "0708")] {
        assert_eq!(parse(from, to).unwrap().open(&key).err(), Some(Error::NotAuthentic), "{to}");
    }
    // Costs that a store demands are bounded before anything is allocated.
    for costs in ["4294967295,\"t\":3", "65535,\"t\":3", "65536,\"t\":2", "65536,\"t\":17"] {
        let lock = format!("\"argon2id\",\"salt\":\"{}\",\"m_kib\":{costs},\"p\":4", "01".repeat(16));
        let file = parse("\"none\"", &lock).unwrap();
        let refused = Error::Crypto(runvault_crypto::Error::PassphraseParameters);
        assert_eq!(file.lock.key(b"x").err(), Some(refused), "{costs}");
    }
    let file = unlocked();
    assert!(!format!("{file:?}").contains("sealed"));
    assert!(matches!(KeyFile::seal(&seed(1), "", None, Lock::None, &key).unwrap_err(), Error::Json(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_parses_encodes_back(
        n in any::<u8>(), label in "[^\\p{C}]{1,30}", vault in any::<Option<[u8; 32]>>(),
        lock in prop::option::of(any::<([u8; 16], u32, u32, u32)>()),
    ) {
        let lock = lock.map_or(Lock::None, |(salt, m_kib, t, p)| Lock::Argon2id { salt: Salt(salt), m_kib, t, p });
        let file = KeyFile::seal(&seed(n), &label, vault.map(VaultId), lock, &seed(9)).unwrap();
        let bytes = file.to_bytes().unwrap();
        let back = KeyFile::parse(&bytes).unwrap();
        let opened = back.open(&seed(9)).unwrap();
        prop_assert!(opened.expose() == &[n; 32]);
        prop_assert_eq!(back.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_answered(bytes in any::<Vec<u8>>()) {
        prop_assert!(KeyFile::parse(&bytes).is_err());
    }
}
