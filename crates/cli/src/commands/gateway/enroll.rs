//! `gateway enroll`: a machine is let in, or asks for it.

use std::path::Path;

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::gateway::StateFolder;
use runvault_custody::{enroll, public_file};
use runvault_format::ids::IdentityId;
use serde_json::json;

use crate::args::GatewayEnroll;
use crate::exit::{Exit, refuse_with};
use crate::output::{self, option, quoted, shown, visible};
use crate::store::{Store, load_chain, open_store};

pub fn run(args: &GatewayEnroll) -> Result<()> {
    check_fingerprint(args)?;
    let store = Store::open(&args.store, &args.who)?;
    let vault = store.chain.vault_id();
    let public = match &args.request {
        Some(request) => public_file::read(request, vault)?,
        None => {
            let folder = StateFolder::open_with(&store.state, vault, args.kek.unwrap_or_default())?;
            let public = folder.public(args.name.as_deref());
            refuse_other_name(&store, args, &public.id)?;
            if let Some(out) = &args.out {
                folder.write_public(out, args.name.as_deref())?;
                return tell_request(args, &store, out, &public.id);
            }
            public
        }
    };
    if store.chain.is_enrolled(&public.id) {
        return tell_enrolled(args, &store.chain, &public.id, true);
    }
    require_owner(&store, args)?;
    let owner = store.identity(&args.who)?;
    let chain = enroll::enroll(&store.root, &store.chain, &owner, &public, "gateway enroll")?;
    store.pin(&chain)?;
    tell_enrolled(args, &chain, &public.id, false)
}

/// Refuses where one key alone lets nobody in, with the request that several agree to.
fn require_owner(store: &Store, args: &GatewayEnroll) -> Result<()> {
    let (acts, (quorum, custodians)) = (store.acts(), store.chain.quorum());
    if acts.alone() {
        return Ok(());
    }
    let name = args.name.as_deref().map_or_else(String::new, |name| format!(" --name {}", quoted(name)));
    let advice = match &args.request {
        Some(request) => acts.command("enroll-gateway", &quoted(request)),
        None => format!(
            "runvault gateway enroll {} --fingerprint {}{name} --out FILE\n{}",
            store.typed(),
            store.chain.vault_id(),
            acts.command("enroll-gateway", "FILE")
        ),
    };
    let what = format!(
        "{quorum} of {custodians} custodians have to agree before a machine is let in; nothing was signed"
    );
    Err(refuse_with(Exit::Failed, what, advice))
}

fn label_of(chain: &Chain, id: &IdentityId) -> String {
    chain.gateways().into_iter().find(|(_, g)| g == id).map_or_else(String::new, |(label, _)| label)
}

/// Nobody is called otherwise by being let in once more.
fn refuse_other_name(store: &Store, args: &GatewayEnroll, id: &IdentityId) -> Result<()> {
    let Some(asked) = args.name.as_deref().filter(|_| store.chain.is_enrolled(id)) else { return Ok(()) };
    let label = label_of(&store.chain, id);
    // It got a number where another had the name.
    let number = label.strip_prefix(asked).and_then(|end| end.strip_prefix('-'));
    if label == asked || number.is_some_and(|n| n.parse::<u32>().is_ok()) {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Failed,
        format!(
            "this machine is enrolled already, as gateway {} ({id}), and that name stays; nothing was written",
            visible(label.as_bytes())
        ),
        format!(
            "go on without --name. Under another name it is another gateway, with a state folder of its own:\n\
             runvault gateway enroll {} --fingerprint {} --name {} --state DIR",
            store.typed(),
            store.chain.vault_id(),
            quoted(asked)
        ),
    ))
}

/// Before anything is written: the store that is there may be another one than the one that is meant.
fn check_fingerprint(args: &GatewayEnroll) -> Result<()> {
    let Some(meant) = &args.fingerprint else { return Ok(()) };
    let meant = meant.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    // What was mistyped says nothing against the store.
    let is_id = meant.len() == 64 && meant.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id && meant.split(' ').count() != 12 {
        return Err(refuse_with(
            Exit::Usage,
            format!(
                "--fingerprint {}: no fingerprint, which is 64 hex digits or twelve words",
                visible(meant.as_bytes())
            ),
            "give all of it, in quotes, as it was written down when the vault was made",
        ));
    }
    let chain = load_chain(&open_store(&args.store, &args.who.apart)?, &args.store)?;
    if [chain.vault_id().to_string(), chain.words()].contains(&meant) {
        return Ok(());
    }
    Err(refuse_with(
        Exit::Damaged,
        format!(
            "the store {} is vault {}, not {}; nothing was written",
            shown(&args.store),
            chain.vault_id(),
            visible(meant.as_bytes())
        ),
        format!(
            "compare all of it with what was written down when the vault was made, not with what this store says now\n\
             ({}). If it differs there too, this is another vault, or someone has exchanged it",
            chain.words()
        ),
    ))
}

fn tell_request(args: &GatewayEnroll, store: &Store, out: &Path, id: &IdentityId) -> Result<()> {
    let enrolled = store.chain.is_enrolled(id);
    if args.json {
        let request = out.to_string_lossy();
        return output::json(&json!({ "gateway": id, "request": request, "enrolled": enrolled }));
    }
    let file = shown(out);
    if enrolled {
        let name = label_of(&store.chain, id);
        return output::line(&format!(
            "{file}: the request of gateway {id}, which is enrolled already as {}: nobody needs to sign it.",
            visible(name.as_bytes())
        ));
    }
    let (who, command) = match store.acts() {
        acts if acts.alone() => {
            ("the owner does", format!("runvault gateway enroll {} --request {}", store.typed(), quoted(out)))
        }
        acts => ("custodians do", acts.command("enroll-gateway", &quoted(out))),
    };
    output::line(&format!(
        "{file}: the request of gateway {id}. Nothing was signed yet: {who} that with (the store as it is named there)\n  \
         {command}\n\
         and whoever does compares this id with the one that it prints."
    ))
}

/// `already`: it was before.
fn tell_enrolled(args: &GatewayEnroll, chain: &Chain, id: &IdentityId, already: bool) -> Result<()> {
    let label = label_of(chain, id);
    if args.json {
        return output::json(&json!({ "gateway": id, "name": label, "enrolled": true, "already": already }));
    }
    let custody = args.who.apart.custody.as_deref();
    let (state, place) = match args.request {
        Some(_) => (None, " (the store as it is named there)"),
        None => (args.who.state.as_deref(), ""),
    };
    let given = format!("{}{} {}", option("custody", custody), option("state", state), quoted(&args.store));
    let name = visible(label.as_bytes());
    let what = match already {
        true => format!("gateway {id} is enrolled already as {name}; nothing was written"),
        false => format!("gateway {name} ({id}) may write runs from now on"),
    };
    output::line(&format!("{what}. It mounts with{place}:\n  runvault mount --ingest{given} MNT"))
}
