//! Letting gateways in, and ending their chains. No share is released for either.

use std::sync::Arc;

use runvault_format::custody_state::GatewayEntry;
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::note::Note;
use runvault_format::public_key::PublicKey;
use runvault_format::request::Operation;
use runvault_store::backend::Dir;
use runvault_vault::authority::GatewayKey;

use crate::authority::check_bound;
use crate::chain::Chain;
use crate::epochs::wrong_key;
use crate::execute::{Act, execute};
use crate::identity::Identity;
use crate::settle::{self, Bounds, Newest};
use crate::{Error, Result, next_state};

/// Why a gateway that no state names writes nothing.
pub(crate) fn not_enrolled(gateway: &IdentityId) -> Error {
    Error::NotEnrolled { gateway: gateway.to_string() }
}

/// Why a gateway whose chain was ended writes nothing more.
pub(crate) fn revoked(gateway: &IdentityId) -> Error {
    Error::Revoked { gateway: gateway.to_string() }
}

/// Enrols a gateway: one line of the audit log, signed by a custodian who needs nobody else. Nothing if it is
/// enrolled; its label gets a number where another gateway has it.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`], [`Error::Revoked`], [`Error::ChangedMeanwhile`]; the store's.
pub fn enroll(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    gateway: &PublicKey,
    reason: &str,
) -> Result<Chain> {
    require_custodian(chain, owner)?;
    if chain.gateway_key(&gateway.id).is_some_and(|known| known.until.is_some()) {
        return Err(revoked(&gateway.id));
    }
    execute(root, chain, owner, |chain| {
        let known = chain.gateway_key(&gateway.id).is_some();
        Ok((!known).then(|| Act {
            op: Operation::EnrolGateway { gateway: gateway.id },
            reason,
            share: None,
            state: next_state::with_gateway(chain, gateway),
        }))
    })
}

/// Whether this key alone may enrol.
pub(crate) fn is_sole_custodian(chain: &Chain, owner: &Identity) -> bool {
    chain.quorum().0 == 1 && require_custodian(chain, owner).is_ok()
}

fn require_custodian(chain: &Chain, owner: &Identity) -> Result<()> {
    check_bound(chain, owner)?;
    let known = chain.custodians().iter().any(|(_, id)| *id == owner.id());
    if known { Ok(()) } else { Err(wrong_key(chain, owner)) }
}

fn known(chain: &Chain, gateway: &IdentityId) -> Result<GatewayKey> {
    chain.gateway_key(gateway).ok_or_else(|| Error::NoGateway(gateway.to_string()))
}

/// Ends a gateway's chains with the newest run, up to number `last_run`, and the newest seal that the store has of it.
/// Nothing if they have ended.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`], [`Error::NoGateway`], [`Error::ChangedMeanwhile`]; the store's.
pub fn revoke(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    gateway: &IdentityId,
    last_run: Option<u64>,
    reason: &str,
) -> Result<Chain> {
    require_custodian(chain, owner)?;
    execute(root, chain, owner, |chain| {
        let known = known(chain, gateway)?;
        if known.until.is_some() {
            return Ok(None);
        }
        let last = last_of(root, chain, gateway, last_run)?;
        Ok(Some(Act {
            op: Operation::RevokeGateway { gateway: *gateway },
            reason,
            share: None,
            state: next_state::without_gateway(chain, gateway, last),
        }))
    })
}

/// The gateways as they are once this one's chains have ended with the newest run, up to number `last_run`, and the
/// newest seal that the store has of it: what a request says of them.
///
/// # Errors
/// [`Error::NoGateway`]; the store's.
pub fn ended(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    gateway: &IdentityId,
    last_run: Option<u64>,
) -> Result<Vec<GatewayEntry>> {
    let last = last_of(root, chain, gateway, last_run)?;
    Ok(next_state::without_gateway(chain, gateway, last).gateways)
}

fn last_of(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    gateway: &IdentityId,
    last_run: Option<u64>,
) -> Result<Newest> {
    let took_over = |note: &Note<'_>, run: &RunDescriptor| {
        let maker = chain.gateway_key(&run.signer);
        let genuine = maker.is_some_and(|maker| note.verify(&run.signer, &maker.sign).is_ok());
        genuine && chain.is_admitted(gateway, Some(&run.run))
    };
    let bounds = Bounds { last_run: last_run.unwrap_or(u64::MAX), took_over: &took_over };
    settle::newest_of(root, *gateway, known(chain, gateway)?.sign, Newest::default(), &bounds)
}

/// Lets a gateway add to a run of another one once it is sealed, and seal it; `None`: add to any. Nothing if it may.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`], [`Error::NoGateway`], [`Error::Revoked`], [`Error::ChangedMeanwhile`];
/// the store's.
pub fn admit(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    gateway: &IdentityId,
    run: Option<&RunId>,
    reason: &str,
) -> Result<Chain> {
    require_custodian(chain, owner)?;
    execute(root, chain, owner, |chain| {
        if known(chain, gateway)?.until.is_some() {
            return Err(revoked(gateway));
        }
        Ok((!chain.is_admitted(gateway, run)).then(|| Act {
            op: Operation::AdmitGateway { gateway: *gateway, run: run.copied() },
            reason,
            share: None,
            state: next_state::unchanged(chain),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::{self, Enrolled};
    use crate::testing::{custody, enrolled, get, make_run, seal, vault};
    use runvault_vault::authority::{Gateway, Last, Until};
    use runvault_vault::runs;

    #[test]
    fn a_revoked_gateway_is_refused_from_its_newest_run_on() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let other = enrolled(&root, &mut chain, &owner);
        let (first, _) = make_run(&root, &chain, &gateway);
        let (second, _) = make_run(&root, &chain, &gateway);
        seal(&root, &gateway, &first);
        let id = gateway.id();
        let chain = revoke(&root, &chain, &owner, &id, None, "its disk was stolen").unwrap();
        let again = revoke(&root, &chain, &owner, &id, None, "").unwrap();
        assert_eq!(again.head(), chain.head(), "once is enough");

        let (third, _) = make_run(&root, &chain, &gateway);
        let acting = crate::authority::Acting::gateway_only(chain.clone());
        let read = |run| runs::read_descriptor(&root, run, &*acting);
        assert!(read(&first).is_ok() && read(&second).is_ok());
        let refused = read(&third).unwrap_err().to_string();
        assert!(refused.contains("end at number 2"), "{refused}");

        let until = chain.gateway_key(&id).unwrap().until.unwrap();
        let newest = settle::newest_of(
            &root,
            id,
            chain.gateway_key(&id).unwrap().sign,
            Newest::default(),
            &Bounds::ALL,
        )
        .unwrap();
        assert_eq!((until.run.n, until.seal.n, until.seal.hash), (2, 1, newest.seal.map(|seal| seal.hash)));
        assert!(until.seal.hash.is_some());

        assert!(matches!(gateway.require_enrolled(&chain), Err(Error::Revoked { .. })));
        let mut now = chain.clone();
        assert!(matches!(gateway.enroll(&root, &mut now, &owner), Err(Error::Revoked { .. })));
        let request = gateway.public(None);
        assert!(matches!(enroll(&root, &chain, &owner, &request, ""), Err(Error::Revoked { .. })));
        other.require_enrolled(&chain).unwrap();

        let listed = gateways::list(&root, &chain).unwrap();
        let label = listed[0].label.clone();
        let ended = Enrolled { label: label.clone(), id, newest_run: 3, last_run: Some(2) };
        let lasting = Enrolled { label: format!("{label}-2"), id: other.id(), newest_run: 0, last_run: None };
        assert_eq!(listed, [ended, lasting]);
        assert_eq!(gateways::named(&chain, &label).unwrap(), id);
        assert_eq!(gateways::named(&chain, &other.id().to_string()).unwrap(), other.id());
        assert!(matches!(gateways::named(&chain, "nobody"), Err(Error::NoGateway(_))));

        // One that made nothing ends before its first run.
        let chain = revoke(&root, &chain, &owner, &other.id(), None, "").unwrap();
        let known = chain.gateway_key(&other.id()).unwrap();
        let none = Last { n: 0, hash: None };
        assert_eq!(known.until, Some(Until { run: none, seal: none }));
    }

    /// Whoever has the key can number a run as he likes.
    #[test]
    fn a_person_says_which_run_is_the_last() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let runs: Vec<_> = (0..3).map(|_| make_run(&root, &chain, &gateway).0).collect();
        [&runs[0], &runs[2]].into_iter().for_each(|run| seal(&root, &gateway, run));
        let id = gateway.id();
        let chain = revoke(&root, &chain, &owner, &id, Some(2), "").unwrap();
        let until = chain.gateway_key(&id).unwrap().until.unwrap();
        assert_eq!((until.run.n, until.seal.n), (2, 1), "the seal of a run that does not count is none");
    }

    #[test]
    fn an_admission_is_one_line_and_says_for_what() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let other = enrolled(&root, &mut chain, &owner);
        let (run, _) = make_run(&root, &chain, &other);
        let head = chain.head().n;
        let id = gateway.id();
        let chain = admit(&root, &chain, &owner, &id, Some(&run), "taken over").unwrap();
        assert!(chain.is_admitted(&id, Some(&run)) && !chain.is_admitted(&id, None));
        let again = admit(&root, &chain, &owner, &id, Some(&run), "").unwrap();
        assert_eq!((again.head().n, head + 1), (head + 1, chain.head().n));
        let chain = admit(&root, &chain, &owner, &id, None, "results").unwrap();
        let read = Chain::load(&root).unwrap();
        assert!(read.is_admitted(&id, None) && read.is_admitted(&id, Some(&run)));
        assert!(!read.is_admitted(&other.id(), None));
        let stranger = Identity::generate("stranger").unwrap();
        assert!(matches!(admit(&root, &chain, &stranger, &id, None, ""), Err(Error::WrongKey { .. })));
        assert!(matches!(admit(&root, &chain, &owner, &stranger.id(), None, ""), Err(Error::NoGateway(_))));
        let chain = revoke(&root, &chain, &owner, &id, None, "").unwrap();
        assert!(matches!(admit(&root, &chain, &owner, &id, None, ""), Err(Error::Revoked { .. })));
    }

    #[test]
    fn only_an_owner_revokes_and_only_what_is_enrolled() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let before = get(&custody(&root), "audit.log");
        let stranger = Identity::generate("stranger").unwrap();
        let refused = revoke(&root, &chain, &stranger, &gateway.id(), None, "").unwrap_err();
        assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
        let refused = revoke(&root, &chain, &owner, &stranger.id(), None, "").unwrap_err();
        assert!(matches!(refused, Error::NoGateway(_)), "{refused}");
        assert_eq!(get(&custody(&root), "audit.log"), before, "nothing was written");
    }
}
