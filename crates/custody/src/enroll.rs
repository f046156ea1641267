//! Enrolling a gateway: its public key goes into the next state. No share is released for it.

use std::sync::Arc;

use runvault_format::request::Operation;
use runvault_store::backend::Dir;

use crate::authority::check_bound;
use crate::chain::Chain;
use crate::execute::{Act, execute};
use crate::identity::Identity;
use crate::{Error, Result, next_state};

/// Which request to propose for this gateway.
pub(crate) fn not_enrolled(gateway: &Identity) -> Error {
    let id = gateway.id();
    Error::NotEnrolled {
        gateway: id.to_string(),
        request: format!("enrol-gateway {id} ({:?})", gateway.label),
    }
}

/// One line of the audit log, signed by a custodian; [`Error::NotEnrolled`] where this key alone
/// cannot.
pub(crate) fn enroll(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    gateway: &Identity,
) -> Result<Chain> {
    check_bound(chain, owner)?;
    let alone = chain.quorum().0 == 1 && chain.custodians().iter().any(|(_, id)| *id == owner.id());
    if !alone {
        return Err(not_enrolled(gateway));
    }
    execute(root, chain, owner, |chain| {
        let known = chain.gateway_key(&gateway.id()).is_some();
        Ok((!known).then(|| Act {
            op: Operation::EnrolGateway { gateway: gateway.id() },
            reason: "first use of its state folder",
            share: None,
            state: next_state::with_gateway(chain, gateway),
        }))
    })
}
