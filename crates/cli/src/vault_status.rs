//! What `status` shows, as JSON and as a table; made in the process that has the vault open.

use std::path::Path;
use std::time::Duration;

use runvault_crypto::aead::Engine;
use runvault_custody::kek_home::KekHome;
use runvault_vault::Vault;
use runvault_vault::vault::RunStatus;
use serde_json::{Map, Value, json};

use crate::given::in_place;
use crate::output::{self, json_name, size};

/// How long the cipher engine is measured.
const MEASURE: Duration = Duration::from_millis(40);

/// The facts of an open vault.
pub fn of_vault(vault: &Vault) -> Map<String, Value> {
    let status = vault.status();
    let mut object = Map::new();
    add(&mut object, "read_only", vault.read_only());
    add(&mut object, "open_runs_left_out", vault.open_runs_left_out());
    add(&mut object, "runs", status.runs.iter().map(|run| of_run(vault, run)).collect::<Vec<_>>());
    add(&mut object, "files_written", status.files_written);
    add(&mut object, "bytes_written", status.bytes_written);
    add(&mut object, "bytes_read", status.bytes_read);
    add(&mut object, "open_handles", status.open_handles);
    add(&mut object, "known_nodes", status.known_nodes);
    add(&mut object, "foreign_names", status.foreign_names);
    let (line, lost) = vault.custody();
    let lost = lost.map(|lost| lost.to_string());
    add(&mut object, "custody", json!({ "line": line, "lost": lost, "revoked": vault.is_revoked() }));
    add(&mut object, "last_sync_seconds", status.last_sync_seconds);
    if let Ok(space) = vault.statfs() {
        add(&mut object, "space", of_space(&space));
    }
    add_engine(&mut object);
    object
}

/// One more fact.
pub fn add(object: &mut Map<String, Value>, key: &str, value: impl serde::Serialize) {
    object.insert(key.to_owned(), json!(value));
}

/// The cipher engine of this machine and what it does on one core, measured now.
pub fn add_engine(object: &mut Map<String, Value>) {
    let engine = Engine::fastest();
    let measured = json!({ "name": engine.name(), "bytes_per_second": engine.measure(MEASURE) as u64 });
    object.insert("engine".into(), measured);
    add(object, "memory_locked", runvault_crypto::secrets::memory_locked());
}

/// Where this machine keeps the key that seals the keys of its open runs, and whether it keeps those.
pub fn add_gateway_key(object: &mut Map<String, Value>, home: KekHome, keeps_keys: bool) {
    let home = match home {
        KekHome::File => json!({ "home": "file" }),
        KekHome::Tpm { nv_index } => json!({ "home": "tpm", "nv_index": format!("{nv_index:#010x}") }),
    };
    add(object, "gateway_key", home);
    add(object, "keeps_keys", keeps_keys);
}

/// Size and room of the file system that holds the store, in bytes.
pub fn of_space(space: &runvault_store::backend::Space) -> Value {
    json!({
        "bytes": space.blocks.saturating_mul(space.block),
        "available": space.available.saturating_mul(space.block),
        "files_free": space.files_free,
    })
}

fn of_run(vault: &Vault, run: &RunStatus) -> Value {
    let (mut sealed, mut trouble) = (run.sealed, run.trouble.clone());
    if run.closed {
        match vault.run_facts(&run.run) {
            Ok(facts) => sealed = facts.seal.is_some(),
            Err(error) => trouble = Some(error.to_string()),
        }
    }
    let mut object = Map::new();
    add(&mut object, "run", run.run.to_string());
    match &run.name {
        Some(name) => json_name(&mut object, "name", name),
        None => add(&mut object, "name", Value::Null),
    }
    add(&mut object, "writing", run.writing);
    add(&mut object, "holder", &run.holder);
    add(&mut object, "closed", run.closed && vault.is_lost_here(&run.run));
    add(&mut object, "sealed", sealed);
    add(&mut object, "left_out", run.left_out);
    add(&mut object, "trouble", trouble);
    Value::Object(object)
}

/// The same for people.
pub fn as_text(status: &Value) -> String {
    let mut rows = Vec::new();
    if status.get("mount_point") == Some(&Value::Null) {
        rows.push(("mounted at", "nowhere here".to_owned()));
    }
    for (label, key) in
        [("mounted at", "mount_point"), ("store", "store"), ("vault", "vault"), ("in words", "words")]
    {
        if let Some(value) = status.get(key).and_then(Value::as_str) {
            rows.push((label, output::visible(value.as_bytes())));
        }
    }
    rows.extend(of_process(status).unwrap_or_default());
    rows.extend(of_machine(status));
    output::pairs(&rows) + &runs_as_text(status)
}

type Row = (&'static str, String);

/// What only a live mount has.
fn of_process(status: &Value) -> Option<Vec<Row>> {
    let number = |key: &str| status.get(key).and_then(Value::as_u64);
    let pid = number("pid")?;
    let mode = if status["read_only"] == true { "read-only" } else { "read-write" };
    let (files, bytes) = (number("files_written")?, number("bytes_written")?);
    let (read, open) = (number("bytes_read")?, number("open_handles")?);
    let synced = number("last_sync_seconds").map_or("never".to_owned(), |seconds| format!("{seconds} s ago"));
    let opening = number("runs_to_open").filter(|left| *left > 0);
    let opening = opening.map(|left| ("opening", format!("{} to go", output::count(left, "run"))));
    let rows = vec![
        ("process", format!("{pid}, {mode}")),
        ("written", format!("{}, {}", output::count(files, "file"), size(bytes))),
        ("read", size(read)),
        ("in use", format!("{} open", output::count(open, "file"))),
        ("last sync", synced),
    ];
    Some(rows.into_iter().chain(opening).collect())
}

fn of_machine(status: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(lost) = status["custody"]["lost"].as_str() {
        rows.push(("identity", format!("reads nothing any more: {}", output::visible(lost.as_bytes()))));
    }
    if status["custody"]["revoked"] == true {
        rows.push(("gateway", "REVOKED: it starts no run and seals none".to_owned()));
    }
    if let Some(open) = status["open_runs_left_out"].as_u64().filter(|n| *n > 0) {
        let (count, them) = (output::count(open, "open run"), if open == 1 { "it" } else { "them" });
        let text = format!("{count}: no seal proves {them} yet; mount with --open to see {them}");
        rows.push(("left out", text));
    }
    if let Some(names) = status.get("foreign_names").and_then(Value::as_u64).filter(|n| *n > 0) {
        let names = output::count(names, "name");
        rows.push(("foreign", format!("{names} in the store that are not ours, hidden")));
    }
    if let Some(space) = status.get("space") {
        let of = |key: &str| size(space[key].as_u64().unwrap_or(0));
        rows.push(("space", format!("{} of {} free", of("available"), of("bytes"))));
    }
    if let Some(engine) = status.get("engine") {
        let rate = size(engine["bytes_per_second"].as_u64().unwrap_or(0));
        let name = engine["name"].as_str().unwrap_or("?");
        rows.push(("cipher", format!("AES-256-GCM by {name}, {rate}/s a core")));
    }
    if let Some(key) = status.get("gateway_key") {
        let mut text = match key["nv_index"].as_str() {
            Some(index) => format!("in the TPM, NV index {index} and the next"),
            None => {
                "in a file of the state folder: best effort, keep it out of backups and snapshots".to_owned()
            }
        };
        if status.get("keeps_keys") == Some(&Value::Bool(false)) {
            text.push_str("; keys of open runs in memory alone: they are closed when the mount ends");
        }
        rows.push(("key home", text));
    }
    if status.get("memory_locked") == Some(&Value::Bool(false)) {
        rows.push(("memory", "NOT LOCKED: keys may be swapped out; raise RLIMIT_MEMLOCK".to_owned()));
    }
    rows
}

fn runs_as_text(status: &Value) -> String {
    let Some(runs) = status.get("runs").and_then(Value::as_array) else { return String::new() };
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let mut rows = vec![vec!["RUN".to_owned(), "NAME".to_owned(), "STATE".to_owned()]];
    let store = status["store"].as_str();
    for run in runs {
        let text = |key: &str| run.get(key).and_then(Value::as_str).map(|v| output::visible(v.as_bytes()));
        let left_out = (run["left_out"] == true).then(|| "open, left out: no seal proves it yet".to_owned());
        let state = left_out
            .or_else(|| {
                text("trouble").map(|why| store.map_or(why.clone(), |store| in_place(&why, Path::new(store))))
            })
            .map(|why| if run["name"].is_null() { format!("left out: {why}") } else { why })
            .or_else(|| text("holder").map(|who| format!("written by {who}")))
            .unwrap_or_else(|| without_holder(run).to_owned());
        rows.push(vec![text("run").unwrap_or_default(), text("name").unwrap_or_else(|| "-".into()), state]);
    }
    format!("\n{}", output::table(&rows, &[]))
}

fn without_holder(run: &Value) -> &'static str {
    if run["closed"] == true {
        "closed: this machine made it, and has no key of it"
    } else if run["sealed"] == true {
        "sealed"
    } else if run["writing"] == true {
        "written here"
    } else {
        "open"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_well() {
        let status = json!({
            "mount_point": "/mnt/runs", "store": "/srv/store", "vault": "ab", "pid": 7, "read_only": false,
            "files_written": 1, "bytes_written": 2048, "bytes_read": 0, "open_handles": 0, "last_sync_seconds": 3,
            "foreign_names": 0, "space": { "bytes": 1024, "available": 512 },
            "engine": { "name": "aes-gcm", "bytes_per_second": 1073741824u64 }, "memory_locked": true,
            "gateway_key": { "home": "tpm", "nv_index": "0x01800010" }, "keeps_keys": false,
            "custody": { "line": 3, "lost": "it was removed", "revoked": true },
            "runs": [{ "run": "03", "name": "b", "writing": false, "sealed": true, "holder": null, "trouble": null },
                { "run": "00", "name": "a\u{1b}", "writing": true, "holder": null, "trouble": null },
                { "run": "01", "name": null, "writing": false, "holder": null, "closed": true, "trouble": null },
                { "run": "02", "name": null, "writing": false, "holder": null, "trouble": "it is missing" }],
        });
        let text = as_text(&status);
        assert!(text.contains("written     1 file, 2.0 KiB\n"), "{text}");
        assert!(text.contains("AES-256-GCM by aes-gcm, 1.0 GiB/s a core"), "{text}");
        assert!(
            text.contains("key home    in the TPM, NV index 0x01800010 and the next; keys of open"),
            "{text}"
        );
        assert!(text.contains("00   a\\x1b  written here\n"), "{text}");
        assert!(text.contains("03   b      sealed\n"), "{text}");
        assert!(text.contains("01   -      closed: this machine"), "{text}");
        assert!(text.contains("02   -      left out: it is missing\n"), "{text}");
        assert!(text.contains("identity    reads nothing any more: it was removed\n"), "{text}");
        assert!(text.contains("gateway     REVOKED: it starts"), "{text}");
        assert!(!text.contains("NOT LOCKED") && !text.contains("foreign"), "{text}");
    }
}
