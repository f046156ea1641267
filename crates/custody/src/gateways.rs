//! The gateways of a vault, as custody/ and the store tell of them; no key is needed.

use std::collections::HashMap;
use std::sync::Arc;

use runvault_format::ids::{IdentityId, RunId};
use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::settle::{self, Newest};
use crate::{Error, Result};

/// A gateway that was ever enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// For people; distinct, unless older programs enrolled it.
    pub label: String,
    /// Its id.
    pub id: IdentityId,
    /// Number of the newest run that the store has of it; 0: none.
    pub newest_run: u64,
    /// Number of its last run that counts, where it was revoked.
    pub last_run: Option<u64>,
    /// Runs of others that it may add to and seal; `None`: it may add to all.
    pub admitted: Vec<Option<RunId>>,
}

/// All of them, in the order of their enrolment.
///
/// # Errors
/// The store's.
pub fn list(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Vec<Enrolled>> {
    let gateways = &chain.state().gateways;
    let keys: HashMap<_, _> = gateways.iter().map(|g| (g.id, g.sign)).collect();
    let newest = settle::newest(root, &keys, Newest::default())?;
    let enrolled = gateways.iter().map(|g| Enrolled {
        label: g.label.clone(),
        id: g.id,
        newest_run: newest.get(&g.id).and_then(|newest| newest.run).map_or(0, |head| head.seq),
        last_run: g.until.as_ref().map(|until| until.seq),
        admitted: chain.admissions(&g.id),
    });
    Ok(enrolled.collect())
}

/// The gateway of that label or id.
///
/// # Errors
/// [`Error::NoGateway`]; [`Error::SeveralGateways`] where two have the label.
pub fn named(chain: &Chain, name: &str) -> Result<IdentityId> {
    let id: Option<IdentityId> = name.parse().ok();
    let gateways = chain.gateways();
    let found: Vec<_> = gateways.iter().filter(|(label, g)| Some(*g) == id || label == name).collect();
    match found.as_slice() {
        [] => Err(Error::NoGateway(name.to_owned())),
        [(_, id)] => Ok(*id),
        several => Err(Error::SeveralGateways {
            label: name.to_owned(),
            ids: several.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>().join(", "),
        }),
    }
}
