//! Our primitives and those of Python's `cryptography` open what the other sealed.

use std::fs;

use runvault_crypto::aead::Engine;
use runvault_crypto::envelope::{self, ENC, KemPrivate, KemPublic};
use runvault_crypto::kdf::{hkdf_expand, hkdf_extract};
use runvault_crypto::passphrase::{self, Params};
use runvault_crypto::secrets::Secret;
use runvault_crypto::signature::{SigningKey, VerifyingKey};
use runvault_crypto::siv::SivKey;
use runvault_tests::Random;
use runvault_tests::tools::run;
use serde_json::{Value, json};

use crate::{python, random};

const LENGTHS: [usize; 8] = [0, 1, 15, 16, 17, 32, 255, 4096];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

/// Answers of `hpke_cross.py`, in the order of the requests.
fn ask(requests: &[Value]) -> Vec<Vec<u8>> {
    let dir = tempfile::Builder::new().prefix("runvault-cross-").tempdir().expect("a temporary directory");
    let file = dir.path().join("requests.json");
    fs::write(&file, Value::from(requests).to_string()).expect("requests");
    let done = run(python("hpke_cross.py").arg(&file));
    let answers: Vec<String> = serde_json::from_slice(&done.stdout).expect("answers");
    assert_eq!(answers.len(), requests.len());
    answers.iter().map(|a| unhex(a)).collect()
}

fn secret<const N: usize>(random: &mut Random) -> Secret<N> {
    Secret::copy_from(&random.bytes(N).try_into().expect("its length"))
}

#[test]
fn what_we_seal_to_an_x_wing_key_opens_in_python() {
    let mut random = random(1);
    let (mut requests, mut wanted) = (Vec::new(), Vec::new());
    for len in LENGTHS {
        let (seed, info, plain) = (secret::<32>(&mut random), random.bytes(len / 2), random.bytes(len));
        let key = KemPrivate::from_seed(&seed).expect("a key");
        let sealed = envelope::seal(key.public(), &info, &plain).expect("sealed");
        let whole = [&sealed.enc[..], &sealed.ciphertext].concat();
        let seed = hex(seed.expose());
        requests.push(json!({ "op": "kem_public", "seed": seed }));
        wanted.push(key.public().as_bytes().to_vec());
        requests.push(json!({ "op": "hpke_open", "seed": seed, "info": hex(&info), "sealed": hex(&whole) }));
        wanted.push(plain);
    }
    assert!(ask(&requests) == wanted);
}

#[test]
fn what_python_seals_to_an_x_wing_key_opens_here() {
    let mut random = random(2);
    let cases: Vec<_> = LENGTHS
        .map(|len| (secret::<32>(&mut random), random.bytes(len / 2), random.bytes(len)))
        .into_iter()
        .map(|(seed, info, plain)| (KemPrivate::from_seed(&seed).expect("a key"), info, plain))
        .collect();
    let requests: Vec<_> = cases
        .iter()
        .map(|(key, info, plain)| {
            let public: &KemPublic = key.public();
            json!({ "op": "hpke_seal", "public": hex(public.as_bytes()), "info": hex(info), "plain": hex(plain) })
        })
        .collect();
    for ((key, info, plain), sealed) in cases.iter().zip(ask(&requests)) {
        let (enc, ciphertext) = sealed.split_first_chunk::<ENC>().expect("an encapsulation");
        assert!(*key.open(info, enc, ciphertext).expect("opens") == *plain);
        assert!(key.open(b"another info", enc, ciphertext).is_err());
    }
}

#[test]
fn signatures_are_the_same_and_verify_both_ways() {
    let mut random = random(3);
    let (mut requests, mut wanted) = (Vec::new(), Vec::new());
    for len in LENGTHS {
        let (seed, message) = (secret::<32>(&mut random), random.bytes(len));
        let key = SigningKey::from_seed(&seed);
        let (signature, public): ([u8; 64], VerifyingKey) = (key.sign(&message), key.public());
        public.verify(&message, &signature).expect("ours");
        let (seed, message) = (hex(seed.expose()), hex(&message));
        requests.push(json!({ "op": "sign_public", "seed": seed }));
        wanted.push(public.to_bytes().to_vec());
        requests.push(json!({ "op": "sign", "seed": seed, "message": message }));
        wanted.push(signature.to_vec());
        for (signature, holds) in [(signature, 1), (changed(signature), 0)] {
            let (public, signature) = (hex(&public.to_bytes()), hex(&signature));
            requests.push(
                json!({ "op": "verify", "public": public, "message": message, "signature": signature }),
            );
            wanted.push(vec![holds]);
        }
    }
    assert!(ask(&requests) == wanted);
}

fn changed(mut signature: [u8; 64]) -> [u8; 64] {
    signature[5] ^= 1;
    signature
}

#[test]
fn names_are_sealed_alike() {
    let mut random = random(4);
    let (mut requests, mut wanted) = (Vec::new(), Vec::new());
    for len in LENGTHS {
        let key = secret::<64>(&mut random);
        let (associated, plain) = ([random.bytes(15), random.bytes(len / 3)], random.bytes(len));
        let parts: Vec<&[u8]> = associated.iter().map(Vec::as_slice).collect();
        let sealed = SivKey::new(key.clone()).seal(&parts, &plain).expect("sealed");
        let ours = hex(&sealed);
        let [key, plain_hex] = [hex(key.expose()), hex(&plain)];
        let associated = associated.map(|a| hex(&a));
        requests.push(json!({ "op": "siv_seal", "key": key, "associated": associated, "plain": plain_hex }));
        wanted.push(sealed);
        requests.push(json!({ "op": "siv_open", "key": key, "associated": associated, "sealed": ours }));
        wanted.push(plain);
    }
    assert!(ask(&requests) == wanted);
}

#[test]
fn chunks_that_python_seals_open_here() {
    let mut random = random(6);
    let cases = LENGTHS.map(|len| (secret::<32>(&mut random), random.bytes(12), random.bytes(len)));
    let requests = cases.each_ref().map(|(key, nonce, plain)| {
        let [key, nonce, plain] = [hex(key.expose()), hex(nonce), hex(plain)];
        json!({ "op": "gcm_seal", "key": key, "nonce": nonce, "associated": "0107", "plain": plain })
    });
    for ((key, nonce, plain), sealed) in cases.iter().zip(ask(&requests)) {
        let (text, tag) = sealed.split_last_chunk::<16>().expect("a tag");
        let nonce = nonce.as_slice().try_into().expect("12 bytes");
        let mut opened = vec![0; plain.len()];
        Engine::fastest().key(key).open(nonce, &[1, 7], text, tag, &mut opened).expect("opens");
        assert!(opened == *plain);
    }
}

#[test]
fn keys_are_derived_alike() {
    let mut random = random(5);
    let (salt, key, info) = (random.bytes(16), secret::<32>(&mut random), random.bytes(40));
    let ours: Secret<64> = hkdf_expand(&hkdf_extract(&salt, &key), &[&info]);
    let passphrase = "correct horse, batterie d'\u{e9}t\u{e9}".as_bytes();
    let params = Params { m_kib: 64 << 10, t: 3, p: 5 };
    let lock = passphrase::derive(params, passphrase, b"sixteen bytes of").expect("a key");
    let answers = ask(&[
        json!({ "op": "hkdf", "salt": hex(&salt), "key": hex(key.expose()), "info": hex(&info), "length": 64 }),
        json!({
            "op": "argon2id", "passphrase": hex(passphrase), "salt": hex(b"sixteen bytes of"),
            "m_kib": params.m_kib, "t": params.t, "p": params.p,
        }),
    ]);
    assert_eq!(answers, [ours.expose().to_vec(), lock.expose().to_vec()]);
}
