//! Who writes to the store: what can be done to a run that is sealed, to one that is open, and by a machine's key.

use std::fs;
use std::path::{Path, PathBuf};

use runvault_format::ids::IdentityId;
use runvault_format::note;

use crate::vault::{CONTENT, FILE, OPEN, SEALED, Vault};

/// The stored files of a run's tree, the largest first.
fn stored(vault: &Vault, run: &str) -> Vec<PathBuf> {
    let tree = vault.path(format!("{}/tree", vault.run_at(run)));
    let files = fs::read_dir(tree).expect("a tree").flatten().map(|entry| entry.path());
    let is_file =
        |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 1024);
    let mut files: Vec<PathBuf> = files.filter(is_file).filter(|path| !path.ends_with("_dir")).collect();
    files.sort_by_key(|path| std::cmp::Reverse(path.metadata().expect("stat").len()));
    assert_eq!(files.len(), 2, "{files:?}");
    files
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("stored");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).expect("changed");
}

fn put(from: &Path, to: &Path) {
    fs::copy(from, to).expect("a copy");
}

const SCRUB: &str = "scrub store --fresh";

/// Row "write access to the store, a run that is sealed": a change, an exchange, an older state, a removal and an
/// addition are errors at the read, and named with a key and without one.
#[test]
fn nothing_is_done_to_a_sealed_run_unnoticed() {
    let vault = Vault::new();
    let at = vault.run_at(SEALED);
    let id = at.rsplit('/').next().expect("an id");
    let verify = format!("verify store {SEALED} --identity lab.key --fresh");
    let read = format!("cat store {SEALED}/{FILE} --identity lab.key");
    let [large, small] = &stored(&vault, SEALED)[..] else { panic!("two files") };
    let foreign = stored(&vault, OPEN)[1].clone();
    let within = |name: &str| vault.path(format!("{at}/{name}"));
    let vaults = within("keys/vault-2");
    let attacks: [(&str, &dyn Fn(), bool); 11] = [
        ("added in the run's folder", &|| put(small, &within("more")), false),
        ("added among the envelopes", &|| put(&vaults, &within("keys/vault-7")), false),
        ("a link in the seal", &|| std::os::unix::fs::symlink("x", within("seal/more")).unwrap(), false),
        (
            "the vault's envelope cut",
            &|| fs::File::options().write(true).open(&vaults).unwrap().set_len(1170).unwrap(),
            false,
        ),
        ("the vault's envelope taken away", &|| fs::remove_file(&vaults).unwrap(), false),
        ("a bit flipped", &|| flip(small), true),
        ("cut", &|| fs::File::options().write(true).open(small).unwrap().set_len(1030).unwrap(), true),
        ("taken away", &|| fs::remove_file(small).unwrap(), true),
        ("exchanged for another of the run", &|| put(large, small), true),
        ("the same file of another run", &|| put(&foreign, small), true),
        ("added beside it", &|| put(small, &small.with_file_name("aaaaaaaaaaaaaaaa")), false),
    ];
    vault.copy(&at, "kept");
    for (what, attack, breaks) in attacks {
        attack();
        let said = vault.run(&read);
        assert_eq!(said.text.contains("GATTACA"), !breaks, "{what}: {}", said.text);
        assert!(!breaks || [1, 4].contains(&said.code), "{what}: {} {}", said.code, said.text);
        for (line, says) in [(SCRUB, id), (&verify, "is not as it was sealed")] {
            vault.refused(line, 4, says);
        }
        fs::remove_dir_all(vault.path(&at)).expect("removed");
        vault.copy("kept", &at);
    }
    vault.done(SCRUB);
    assert_eq!(vault.done(&read), CONTENT);
}

/// The same row: un-sealing, and a run that is gone, by a machine that has seen it.
#[test]
fn a_seal_or_a_run_that_was_taken_away_is_missed_where_it_was_seen() {
    let vault = Vault::new();
    let at = vault.run_at(SEALED);
    vault.done(SCRUB);
    fs::rename(vault.path(format!("{at}/seal")), vault.path("kept")).expect("moved");
    vault.refused(SCRUB, 4, "seal");
    vault.refused(&format!("cat store {SEALED}/{FILE} --identity lab.key"), 4, "seal");
    fs::rename(vault.path("kept"), vault.path(format!("{at}/seal"))).expect("moved back");
    // The newest run of its machine.
    let open = vault.run_at(OPEN);
    fs::rename(vault.path(&open), vault.path("kept")).expect("moved");
    vault.refused(SCRUB, 4, "gone; this machine has seen it");
    fs::rename(vault.path("kept"), vault.path(&open)).expect("moved back");
    // An older one leaves a gap in the chain, for everybody.
    fs::rename(vault.path(&at), vault.path("kept")).expect("moved");
    let said = vault.run("scrub store --fresh --state elsewhere");
    assert_eq!(said.code, 4, "{}", said.text);
}

/// Row "write access to the store, a run that is open": the gateway's ledger tells at the seal what was deleted, brought
/// back or exchanged, and nothing is signed.
#[test]
fn a_deletion_in_an_open_run_is_noticed_at_the_seal() {
    let vault = Vault::new();
    let [large, small] = &stored(&vault, OPEN)[..] else { panic!("two files") };
    let (seal, at) = (format!("seal store {OPEN}"), vault.run_at(OPEN));
    let kept = fs::read(small).expect("stored");
    let attacks: [(&str, &dyn Fn()); 4] = [
        ("deleted", &|| fs::remove_file(small).unwrap()),
        ("emptied", &|| fs::write(small, b"").unwrap()),
        ("exchanged", &|| put(large, small)),
        ("a link of the run in its place", &|| {
            fs::remove_file(small).unwrap();
            std::os::unix::fs::symlink("x", small).unwrap();
        }),
    ];
    for (what, attack) in attacks {
        attack();
        let said = vault.run(&seal);
        assert!(
            said.code == 4 && said.text.contains("was not sealed"),
            "{what}: {} {}",
            said.code,
            said.text
        );
        assert!(!vault.path(format!("{at}/seal")).exists(), "{what}");
        let _ = fs::remove_file(small);
        fs::write(small, &kept).expect("put back");
    }
    vault.done(&seal);
}

/// Row "only public keys": a run is its gateway's; and row "run header of run A copied onto run B".
#[test]
fn a_run_that_no_gateway_signed_is_refused() {
    let vault = Vault::new();
    let (id, at) = (vault.run_id(OPEN), vault.run_at(OPEN));
    let check = "check store --identity lab.key";
    let genuine = vault.read(&format!("{at}/run.json"));
    let text = String::from_utf8(genuine.clone()).expect("a note");
    let text = text.rsplit_once("\n\n").map(|(text, _)| format!("{text}\n")).expect("its text");
    let gateway: IdentityId = vault.state().gateways[0].id;
    let mallory = vault.identity("mallory");
    // Signed by nobody who may; under the gateway's name; with another field.
    let own = text.replace(&gateway.to_string(), &mallory.id().to_string());
    for (forged, signer) in [(&own, mallory.id()), (&text, mallory.id()), (&text, gateway)] {
        vault.write(&format!("{at}/run.json"), note::sign(forged, &signer, &mallory.keys.sign));
        vault.refused(check, 4, &id);
        vault.refused(SCRUB, 4, &id);
    }
    vault.write(&format!("{at}/run.json"), &genuine);
    vault.change(&format!("{at}/run.json"), "\"kind\":\"run\"", "\"kind\":\"loose\"");
    vault.refused(check, 4, &id);
    // That of another run, genuine; with its key's envelopes, too.
    let sealed = vault.run_at(SEALED);
    vault.write(&format!("{at}/run.json"), vault.read(&format!("{sealed}/run.json")));
    vault.refused(check, 4, &id);
    vault.refused(SCRUB, 4, &id);
    vault.write(&format!("{at}/run.json"), &genuine);
    fs::remove_dir_all(vault.path(format!("{at}/keys"))).expect("removed");
    vault.copy(&format!("{sealed}/keys"), &format!("{at}/keys"));
    let said = vault.run(&format!("cat store {OPEN}/{FILE} --identity lab.key"));
    assert!(said.code != 0 && !said.text.contains("GATTACA"), "{}", said.text);
}

/// Rows "the writing machine as root, now" and "the state folder of a gateway, copied": its identity opens nothing.
#[test]
fn a_machines_identity_opens_no_run() {
    let vault = Vault::new();
    let identity = format!("state/{}/identity", vault.id());
    for line in ["ls store", "check store", &format!("cat store {SEALED}/{FILE}")] {
        let said = vault.run(&format!("{line} --identity {identity} --state elsewhere"));
        assert!(said.code == 3 && !said.text.contains("GATTACA"), "{line}: {} {}", said.code, said.text);
    }
    vault.propose("rotate", "req");
    vault.refused(&format!("custody approve req.req --identity {identity} --out x.ok --yes"), 3, "wrong key");
}

/// Row "the key of a gateway, stolen": until it is revoked it signs runs as that machine; from then on none counts.
#[test]
fn a_revoked_machine_makes_no_more_runs() {
    let vault = Vault::new();
    for copy in ["stolen", "hidden"] {
        vault.copy("state", copy);
    }
    fs::create_dir(vault.path("late")).expect("a folder");
    vault.write("late/file", CONTENT);
    // One of a number behind the last that counts, made where nobody sees it.
    vault.copy("store", "elsewhere-store");
    vault.done("cp -r late elsewhere-store:/ --identity lab.key --state hidden");
    vault.agree("revoke-gateway machine");
    vault.refused("cp -r late store:/ --identity lab.key --state stolen", 1, "revoked");
    let runs = |store: &str| fs::read_dir(vault.path(format!("{store}/runs"))).expect("runs").flatten();
    let known: Vec<_> = runs("store").map(|run| run.file_name()).collect();
    let late = runs("elsewhere-store").map(|run| run.file_name()).find(|run| !known.contains(run));
    let late = late.and_then(|run| run.into_string().ok()).expect("what was made late");
    vault.copy(&format!("elsewhere-store/runs/{late}"), &format!("store/runs/{late}"));
    vault.refused(SCRUB, 4, &format!("{late}/run.json: damaged: the runs of its signer end at number"));
    fs::remove_dir_all(vault.path(format!("store/runs/{late}"))).expect("removed");
    // What it made before counts.
    assert_eq!(
        vault.done(&format!("cat store {SEALED}/{FILE} --identity lab.key --state elsewhere")),
        CONTENT
    );
}
