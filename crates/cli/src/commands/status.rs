//! `status`: from the live mount where there is one, from the store where there is none.

use std::path::Path;

use anyhow::Result;
use runvault_custody::Error as Custody;
use runvault_custody::authority::Acting;
use runvault_custody::gateway::StateFolder;
use serde_json::{Map, Value};

use crate::args::{Status, Who};
use crate::control::{Client, PATIENCE, Silent, deadline, status_request};
use crate::exit::{self, Exit, refuse, refuse_with};
use crate::hint::hint;
use crate::mount_point::absolute;
use crate::mount_table::{self, Entry};
use crate::output::{self, quoted, shown, warn};
use crate::store::Store;
use crate::vault_status::{add, add_engine, add_gateway_key, as_text, of_space, of_vault};

pub fn run(args: &Status) -> Result<()> {
    let Some(target) = &args.target else { return every_mount(args.json) };
    let path = absolute(target)?;
    let table = mount_table::read()?;
    if let Some(entry) = table.iter().rev().find(|entry| entry.is_vault() && entry.at == path) {
        return tell(args.json, &of_mount(entry)?);
    }
    let real = path.canonicalize().unwrap_or_else(|_| path.clone());
    let of_it: Vec<&Entry> =
        table.iter().filter(|entry| entry.is_vault() && (entry.source == real || entry.at == real)).collect();
    // The one that writes knows more.
    match of_it.iter().find(|entry| !entry.read_only()).or(of_it.last()) {
        Some(entry) => tell(args.json, &of_mount(entry)?),
        None => tell(args.json, &of_store(target, &args.who).map_err(|error| of_neither(target, error))?),
    }
}

/// Of what is no store: it may be a mount point.
fn of_neither(target: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Custody::NotAVault { .. }) => refuse_with(
            Exit::Failed,
            format!("{}: no vault is mounted there, and it is none", shown(target)),
            "runvault status lists the mounts",
        ),
        _ => error,
    }
}

fn every_mount(json: bool) -> Result<()> {
    let own = Some(rustix::process::geteuid().as_raw());
    let vaults: Vec<Entry> =
        mount_table::read()?.into_iter().filter(|entry| entry.is_vault() && entry.user() == own).collect();
    if vaults.is_empty() && !json {
        return output::line("no vault is mounted");
    }
    let mut first = true;
    for entry in &vaults {
        match of_mount(entry) {
            Ok(status) => {
                if !std::mem::take(&mut first) && !json {
                    output::line("")?;
                }
                tell(json, &status)?;
            }
            Err(error) => {
                warn(&exit::chain(&error));
                output::advice(&hint(&error).unwrap_or_default());
            }
        }
    }
    Ok(())
}

fn tell(json: bool, status: &Value) -> Result<()> {
    if json { output::json(status) } else { output::bytes(as_text(status).as_bytes()) }
}

fn of_mount(entry: &Entry) -> Result<Value> {
    Client::ask_mount(entry, &status_request(), deadline(PATIENCE)).map(|(_, status)| status).map_err(
        |error| {
            let what = format!(
                "{}: the process that serves this mount does not answer: {}",
                shown(&entry.at),
                exit::chain(&error)
            );
            match error.downcast_ref::<Silent>() {
                Some(_) => refuse(Exit::Failed, what),
                // Whether it has gone the mount itself would say: to ask it may hang.
                None => {
                    let way_out =
                        format!("if it has ended: runvault unmount {}, then mount again", quoted(&entry.at));
                    refuse_with(Exit::Failed, what, way_out)
                }
            }
        },
    )
}

/// A writing mount in another namespace still has its socket in the state folder.
fn of_store(path: &Path, who: &Who) -> Result<Value> {
    let store = Store::open(path, who)?;
    if let Ok(status) =
        Client::of_state(&store.state_of_vault()).and_then(|mut client| client.ask(&status_request()))
    {
        return Ok(status);
    }
    let mut object = if who.names_a_key() {
        let open = store.read(who, runvault_vault::Options::default())?;
        let object = of_vault(&open.vault);
        open.close()?;
        object
    } else {
        without_key(&store)?
    };
    // What cannot be read is told by whoever uses it.
    if let Ok(Some(home)) = StateFolder::kek_home_of(&store.state, store.chain.vault_id()) {
        add_gateway_key(&mut object, home, true);
    }
    add(&mut object, "mount_point", Value::Null);
    add(&mut object, "store", path.to_string_lossy());
    add(&mut object, "vault", store.chain.vault_id().to_string());
    add(&mut object, "words", store.chain.words());
    Ok(Value::Object(object))
}

fn without_key(store: &Store) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    let mut runs = Vec::new();
    // Opens nothing, and knows who may have signed a run.
    let authority = Acting::gateway_only(store.chain.clone());
    for run in runvault_vault::runs::list(&store.root)? {
        let mut of_run = Map::new();
        add(&mut of_run, "run", run.to_string());
        // What cannot be read is the run's own trouble, not this command's.
        let verified = runvault_vault::runs::read_descriptor(&store.root, &run, &*authority);
        let looked = verified.and_then(|_| {
            let sealed = runvault_vault::seal::find(&store.root, &run, &*authority)?.is_some();
            let holder = if sealed { None } else { runvault_vault::takeover::holder(&store.root, &run)? };
            Ok((sealed, holder))
        });
        match looked {
            Ok((sealed, holder)) => {
                add(&mut of_run, "sealed", sealed);
                add(&mut of_run, "holder", holder);
            }
            Err(error) => add(&mut of_run, "trouble", error.to_string()),
        }
        runs.push(Value::Object(of_run));
    }
    add(&mut object, "runs", runs);
    add(&mut object, "space", of_space(&store.root.space()?));
    add_engine(&mut object);
    Ok(object)
}
