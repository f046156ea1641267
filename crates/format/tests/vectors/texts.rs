//! Sections 4 (vault.json), 6.1 (key files), 6.2 (public key files), 13 (lease, retired, removed).

use runvault_crypto::passphrase::Params;
use runvault_crypto::secrets::Secret;
use runvault_format::Result;
use runvault_format::hardware;
use runvault_format::ids::{Digest, Salt, VaultId};
use runvault_format::key_file::{KeyFile, Lock};
use runvault_format::lease::Lease;
use runvault_format::note;
use runvault_format::public_key::PublicKey;
use runvault_format::removed::{Removed, RemovedSeal};
use runvault_format::retired::Retired;
use runvault_format::vault_file;
use serde_json::{Value, json};

use super::{Outcome, Set, Vector, vector};
use crate::common::fixed::{RUN, aead, array, hex, seal, text, unhex};
use crate::common::{CREATED, GATEWAY, OWNER, identity, seed};

pub const SET: Set = Set {
    file: "texts.json",
    about: "vault.json (section 4), key files with their passphrase and what follows from a token's or a TPM's answer (6.1), public key files (6.2), leases and \
            retired and removed runs (13).",
    make,
    run,
};

const VAULT: VaultId = VaultId([0x7a; 32]);

fn make() -> Vec<Vector> {
    [vault_files(), key_files(), hardware_locks(), public_key_files(), others()]
        .into_iter()
        .flatten()
        .collect()
}

fn vault_files() -> Vec<Vector> {
    let good = format!("{{\"magic\":\"runvault\",\"version\":3,\"vault\":\"{VAULT}\"}}\n");
    let input = |text: &str| json!({ "what": "vault.json", "text": text });
    let with = |name: &str, outcome, from: &str, to: &str| {
        vector(format!("vault_file_{name}"), outcome, input(&good.replacen(from, to, 1)))
    };
    vec![
        with("good", "ok", "", ""),
        with("of_another_program", "magic", "\"runvault\"", "\"gocryptfs\""),
        with("version_of_tomorrow", "version", ":3,", ":4,\"more\":{},"),
        with("version_of_an_older_draft", "version", ":3,", ":2,"),
        with("field_unknown", "json", ":3,", ":3,\"more\":0,"),
        with("white_space", "not-canonical", ":3,", ": 3,"),
        with("without_newline", "truncated", "\n", ""),
        vector("vault_file_empty", "json", input("")),
        vector("vault_file_too_long", "too-long", input(&" ".repeat(4097))),
    ]
}

/// The text of a key file, put together by docs/format.md, not by the code under test.
fn key_file(lock: &str, lock_key: &Secret<32>, vault: bool) -> String {
    let public = identity(1).public();
    let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
    let vault = if vault { format!(",\"vault\":\"{VAULT}\"") } else { String::new() };
    let named = format!(
        "runvault/1 key\n{{\"id\":\"{}\",\"label\":\"owner\",\"sign\":\"{}\",\"kem\":\"{}\"{vault}",
        public.id(),
        base64(&public.sign.to_bytes()),
        base64(public.kem.as_bytes()),
    );
    let sealed = seal(&aead(lock_key), 3, format!("{named}}}\n").as_bytes(), seed(1).expose());
    format!("{named},\"lock\":{lock},\"sealed\":\"{}\"}}\n", base64(&sealed))
}

fn key_files() -> Vec<Vector> {
    let input =
        |text: &str, passphrase: &str| json!({ "what": "key", "text": text, "passphrase": hex(passphrase) });
    let zeros = Secret::copy_from(&[0; 32]);
    let open = key_file("{\"kind\":\"none\"}", &zeros, true);
    let lock = Lock::argon2id(Salt([0x5a; 16]), Params::FLOOR);
    let lock_text = |m: u64, t: u32, p: u32| {
        format!(
            "{{\"kind\":\"argon2id\",\"salt\":\"{}\",\"m_kib\":{m},\"t\":{t},\"p\":{p}}}",
            "5a".repeat(16)
        )
    };
    let locked = key_file(&lock_text(65536, 3, 4), &lock.key(b"correct horse battery").unwrap(), false);
    let id = identity(1).public().id().to_string();
    let with = |name: &str, outcome, from: &str, to: &str| {
        assert!(open.contains(from), "{from}");
        vector(format!("key_file_{name}"), outcome, input(&open.replacen(from, to, 1), ""))
    };
    let costs = |name: &str, m, t, p| {
        let text = key_file(&lock_text(m, t, p), &zeros, false);
        vector(format!("key_file_{name}"), "crypto", input(&text, "x"))
    };
    let sealed = open.split("\"sealed\":\"").nth(1).unwrap().to_owned();
    let head = format!("{{\"n\":2,\"hash\":\"{}\"}}", "6e".repeat(32));
    let kept = format!(
        "runvault/1 kept\n{{\"vault\":\"{VAULT}\",\"head\":{head},\"share\":null,\"approved\":\
         {{\"request\":\"{}\",\"head\":{head},\"expires\":\"2026-12-01T06:00:00Z\"}}}}\n",
        "7b".repeat(32)
    );
    let keeps = |name: &str, outcome, by: u8, text: &str, behind: &str| {
        let keys = identity(by);
        let note = String::from_utf8(note::sign(text, &keys.public().id(), &keys.sign)).unwrap();
        vector(format!("key_file_{name}"), outcome, input(&format!("{open}{note}{behind}"), ""))
    };
    // Only the shape is a key file's: what is in it is for section 7.
    let state = "runvault/1 state\n{}\n";
    let copy = format!("runvault/1 genesis\n{{}}\n{state}");
    let with_copy = |name: &str, outcome, copy: &str| {
        vector(format!("key_file_copy_{name}"), outcome, input(&format!("{open}{copy}"), ""))
    };
    vec![
        keeps("with_what_is_kept", "ok", 1, &kept, ""),
        keeps("with_a_note_by_another_key", "unsigned", GATEWAY, &kept, ""),
        keeps("with_a_note_of_another_kind", "note-kind", 1, &kept.replacen("kept", "seal", 1), ""),
        keeps(
            "with_a_note_of_unknown_fields",
            "json",
            1,
            &kept.replacen("\"share\"", "\"more\":0,\"share\"", 1),
            "",
        ),
        keeps("with_something_behind_the_note", "note", 1, &kept, "more"),
        with_copy("alone", "ok", &copy),
        with_copy("with_a_line", "ok", &format!("{copy}{{\"n\":1}}\n")),
        with_copy("with_a_line_and_a_state", "ok", &format!("{copy}{{\"n\":1}}\n{state}")),
        with_copy("without_a_state", "magic", "runvault/1 genesis\n{}\n"),
        with_copy("with_two_states", "magic", &format!("{copy}{state}")),
        with_copy("cut_short", "truncated", &format!("{copy}{{\"n\":1}}")),
        keeps("with_what_is_kept_and_a_copy", "ok", 1, &kept, &copy),
        vector("key_file_without_lock", "ok", input(&open, "")),
        vector("key_file_with_passphrase", "ok", input(&locked, "correct horse battery")),
        vector("key_file_with_wrong_passphrase", "not-authentic", input(&locked, "correct horse batterY")),
        with("of_another_kind", "note-kind", "1 key", "1 run"),
        with("version_of_tomorrow", "version", "1 key", "2 key"),
        with("lock_of_tomorrow", "lock", "\"none\"", "\"fido2\",\"handle\":1"),
        with("label_changed", "not-authentic", "\"owner\"", "\"other\""),
        with("vault_changed", "not-authentic", "7a7a", "7a7b"),
        with("vault_null", "not-canonical", &format!("\"{VAULT}\""), "null"),
        with("id_of_another", "other-key", &id, &"00".repeat(16)),
        with("sealed_cut", "truncated", &sealed, "AAAA\"}\n"),
        with("sealed_longer", "trailing", "\"sealed\":\"", "\"sealed\":\"AAAA"),
        with("field_unknown", "json", "\"lock\":", "\"more\":0,\"lock\":"),
        costs("memory_below_the_floor", 65_535, 3, 4),
        costs("memory_above_the_bound", 4_194_305, 3, 4),
        costs("passes_below_the_floor", 65_536, 2, 4),
        costs("passes_above_the_bound", 65_536, 17, 4),
        costs("no_lanes", 65_536, 3, 0),
        costs("too_many_lanes", 65_536, 3, 17),
    ]
}

/// Locks that parse, and that a reader without the hardware refuses to open.
fn hardware_locks() -> Vec<Vector> {
    let base64 = |byte: u8, n: usize| data_encoding::BASE64.encode(&vec![byte; n]);
    let token = |sealed: &str| {
        format!(
            "{{\"kind\":\"pkcs11\",\"token\":\"site\",\"serial\":\"0123456789abcdef\",\"key\":\"runvault\",\
             \"id\":\"{}\",\"sealed\":{sealed}}}",
            base64(1, 1)
        )
    };
    let ecdh =
        format!("{{\"mechanism\":\"ecdh-p256\",\"public\":\"{0}\",\"ephemeral\":\"{0}\"}}", base64(4, 65));
    let oaep = |n| format!("{{\"mechanism\":\"rsa-oaep-sha1\",\"sealed\":\"{}\"}}", base64(2, n));
    let tpm = |public: usize, pcrs: &str, with: &str| {
        format!(
            "{{\"kind\":\"tpm2\",\"public\":\"{}\",\"private\":\"{}\",\"pcrs\":[{pcrs}],\"with\":{with}}}",
            base64(3, public),
            base64(5, 160)
        )
    };
    let value = format!("{{\"kind\":\"value\",\"value\":\"{}\"}}", base64(6, 32));
    let argon =
        format!("{{\"kind\":\"argon2id\",\"salt\":\"{}\",\"m_kib\":65536,\"t\":3,\"p\":4}}", "5a".repeat(16));
    let of = |name: &str, outcome, lock: &str| {
        let text = key_file(lock, &Secret::copy_from(&[0; 32]), true);
        let input = json!({ "what": "key", "text": text, "passphrase": "" });
        vector(format!("key_file_{name}"), outcome, input)
    };
    let point = |from: &str, to: &str| token(&ecdh.replacen(from, to, 1));
    let long = token(&ecdh).replacen("site", &"s".repeat(129), 1);
    vec![
        of("of_a_token_by_ecdh", "hardware", &token(&ecdh)),
        of("of_a_token_by_oaep", "hardware", &token(&oaep(256))),
        of(
            "of_a_token_and_a_module",
            "json",
            &token(&ecdh).replacen("\"token\"", "\"module\":\"/x\",\"token\"", 1),
        ),
        of("of_a_token_of_a_long_name", "json", &long),
        of("of_a_token_without_id", "hardware", &token(&ecdh).replacen(&base64(1, 1), "", 1)),
        of("of_a_token_of_a_long_id", "json", &token(&ecdh).replacen(&base64(1, 1), &base64(1, 65), 1)),
        of("of_a_token_point_compressed", "json", &point(&base64(4, 65), &base64(2, 65))),
        of("of_a_token_point_cut", "json", &point(&base64(4, 65), &base64(4, 64))),
        of("of_a_token_rsa_too_short", "json", &token(&oaep(255))),
        of("of_a_token_rsa_too_long", "json", &token(&oaep(513))),
        of("of_a_token_mechanism_unknown", "json", &point("ecdh-p256", "ecdh-p384")),
        of("of_a_tpm", "hardware", &tpm(48, "", &value)),
        of("of_a_tpm_with_pcrs_and_a_passphrase", "hardware", &tpm(80, "0,7", &argon)),
        of("of_a_tpm_pcrs_not_in_order", "json", &tpm(80, "7,0", &argon)),
        of("of_a_tpm_pcr_24", "json", &tpm(80, "24", &argon)),
        of("of_a_tpm_part_empty", "json", &tpm(0, "", &value)),
        of("of_a_tpm_part_too_long", "json", &tpm(513, "", &value)),
        of("of_a_tpm_value_cut", "json", &tpm(48, "", &value.replacen(&base64(6, 32), &base64(6, 31), 1))),
        vector(
            "lock_key_of_a_token",
            "ok",
            json!({
                "what": "token", "text": "", "shared": "11".repeat(32),
                "public": format!("04{}", "22".repeat(64)), "ephemeral": format!("04{}", "33".repeat(64)),
            }),
        ),
        vector(
            "lock_key_of_a_tpm",
            "ok",
            json!({
                "what": "tpm", "text": "", "unsealed": "44".repeat(32), "with": "55".repeat(32),
            }),
        ),
    ]
}

fn public_key_files() -> Vec<Vector> {
    let public = identity(GATEWAY).public();
    let of = |vault: Option<VaultId>| PublicKey::of("novaseq", &public, vault);
    let signed = |by: u8, text: &str| {
        let keys = identity(by);
        String::from_utf8(note::sign(text, &keys.public().id(), &keys.sign)).unwrap()
    };
    let good = String::from_utf8(of(Some(VAULT)).to_note(&identity(GATEWAY)).unwrap()).unwrap();
    let text = format!("{}\n", good.split("\n\n").next().unwrap());
    let with = |name: &str, outcome, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let note = signed(GATEWAY, &text.replacen(from, to, 1));
        vector(format!("public_key_file_{name}"), outcome, json!({ "what": "public", "text": note }))
    };
    let raw = |name: &str, outcome, note: &str| {
        vector(format!("public_key_file_{name}"), outcome, json!({ "what": "public", "text": note }))
    };
    let for_any = of(None).to_note(&identity(GATEWAY)).unwrap();
    vec![
        raw("of_one_vault", "ok", &good),
        raw("of_any_vault", "ok", &String::from_utf8(for_any).unwrap()),
        raw("label_changed", "signature", &good.replacen("novaseq", "nextseq", 1)),
        raw("signed_by_another", "unsigned", &signed(7, &text)),
        raw("too_long", "too-long", &format!("{good}{}", " ".repeat(16 << 10))),
        with("of_another_kind", "note-kind", "1 public", "1 run"),
        with("version_of_tomorrow", "version", "1 public", "2 public"),
        with("id_of_another", "other-key", &public.id().to_string(), &"00".repeat(16)),
        with("vault_null", "not-canonical", &format!("\"{VAULT}\""), "null"),
        with("field_unknown", "json", "\"label\":", "\"more\":0,\"label\":"),
    ]
}

fn others() -> Vec<Vector> {
    let lease = Lease {
        holder: identity(GATEWAY).public().id().to_string(),
        host: Digest([1; 32]),
        boot: "7d2c3c8e-0f5e-4f3a-9b43-6d5f0a1b2c3d".into(),
        pid: 4242,
        start: 1,
        seq: 3,
    };
    let lease = String::from_utf8(lease.to_bytes().unwrap()).unwrap();
    let retired = Retired {
        vault: VAULT,
        run: RUN,
        gateway: identity(GATEWAY).public().id(),
        seq: 2,
        run_note: Digest([2; 32]),
        prev: Some(Digest([3; 32])),
        time: CREATED.into(),
    };
    let removed = Removed {
        vault: VAULT,
        run: RUN,
        gateway: retired.gateway,
        seq: 2,
        run_note: retired.run_note,
        prev: retired.prev,
        seal: Some(RemovedSeal { gateway: retired.gateway, n: 1, hash: Digest([4; 32]), prev: None }),
        custodian: identity(OWNER).public().id(),
        reason: "moved".into(),
        time: CREATED.into(),
    };
    let unsealed = Removed { seal: None, ..removed.clone() }.to_text().unwrap();
    let (retired, removed) = (retired.to_text().unwrap(), removed.to_text().unwrap());
    let of = |what: &str, text: &str| json!({ "what": what, "text": text });
    vec![
        vector("lease_good", "ok", of("lease", &lease)),
        vector("lease_cut", "truncated", of("lease", lease.trim_end())),
        vector("lease_of_zeros", "truncated", of("lease", &"\0".repeat(100))),
        vector("lease_too_long", "too-long", of("lease", &format!("{lease}{}", " ".repeat(4096)))),
        vector("lease_label_with_escape", "json", of("lease", &lease.replacen("7d2c", "\\u001b[2J", 1))),
        vector("retired_good", "ok", of("retired", &retired)),
        vector("retired_of_another_kind", "note-kind", of("retired", &retired.replacen("retired", "run", 1))),
        vector("removed_sealed", "ok", of("removed", &removed)),
        vector("removed_unsealed", "ok", of("removed", &unsealed)),
        vector("removed_by_a_note_of_its_gateway", "note-kind", of("removed", &retired)),
        vector(
            "removed_without_reason",
            "json",
            of("removed", &removed.replacen("\"reason\":\"moved\",", "", 1)),
        ),
    ]
}

fn run(input: &Value) -> Outcome {
    let bytes = text(&input["text"]).as_bytes();
    let read = || -> Result<Value> {
        Ok(match text(&input["what"]) {
            "vault.json" => {
                let vault = vault_file::parse(bytes)?;
                assert_eq!(vault_file::to_bytes(&vault)?, bytes);
                json!({ "vault": vault })
            }
            "key" => {
                let file = KeyFile::parse(bytes)?;
                assert_eq!(file.to_bytes()?, bytes);
                let key = file.lock.key(&unhex(&input["passphrase"]))?;
                json!({ "id": file.public.id(), "seed": hex(file.open(&key)?.expose()) })
            }
            "token" => {
                let shared = Secret::copy_from(&array(&input["shared"]));
                let key = hardware::ecdh_key(&shared, &unhex(&input["public"]), &unhex(&input["ephemeral"]));
                json!({ "lock_key": hex(key.expose()) })
            }
            "tpm" => {
                let [unsealed, with] =
                    ["unsealed", "with"].map(|name| Secret::copy_from(&array(&input[name])));
                let key = hardware::tpm_key(&unsealed, &with);
                json!({ "lock_key": hex(key.expose()), "auth": hex(hardware::auth(&with).expose()) })
            }
            "lease" => {
                let lease = Lease::parse(bytes)?;
                assert_eq!(lease.to_bytes()?, bytes);
                json!({ "holder": lease.holder, "seq": lease.seq })
            }
            "public" => {
                let public = PublicKey::parse(bytes)?;
                assert_eq!(public.to_note(&identity(GATEWAY))?, bytes);
                json!({ "id": public.id, "label": public.label, "vault": public.vault })
            }
            "removed" => {
                let removed = Removed::parse_text(text(&input["text"]))?;
                assert_eq!(removed.to_text()?.as_bytes(), bytes);
                json!({ "run": removed.run, "seq": removed.seq, "seal": removed.seal.map(|seal| seal.n) })
            }
            _ => {
                let retired = Retired::parse_text(text(&input["text"]))?;
                assert_eq!(retired.to_text()?.as_bytes(), bytes);
                json!({ "run": retired.run, "seq": retired.seq })
            }
        })
    };
    read().map_err(|e| e.name())
}
