//! Letting gateways in, and ending their chains. No share is released for either.

use std::sync::Arc;

use runvault_format::custody_state::Until;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::operation::Operation;
use runvault_format::public_key::PublicKey;
use runvault_store::backend::Dir;
use runvault_vault::authority::GatewayKey;

use crate::authority::check_bound;
use crate::chain::Chain;
use crate::ends::{CutOff, LastKnown};
use crate::epochs::wrong_key;
use crate::execute::{Act, execute};
use crate::identity::Identity;
use crate::{Error, Result, ends};

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
            op: Operation::EnrolGateway { gateway: chain.machine(gateway) },
            reason,
            share: None,
        }))
    })
}

/// Whether this key alone may enrol.
pub(crate) fn is_sole_custodian(chain: &Chain, owner: &Identity) -> bool {
    chain.quorum().0 == 1 && require_custodian(chain, owner).is_ok()
}

pub(crate) fn require_custodian(chain: &Chain, owner: &Identity) -> Result<()> {
    check_bound(chain, owner)?;
    let known = chain.custodians().iter().any(|(_, id)| *id == owner.id());
    if known { Ok(()) } else { Err(wrong_key(chain, owner)) }
}

fn known(chain: &Chain, gateway: &IdentityId) -> Result<GatewayKey> {
    chain.gateway_key(gateway).ok_or_else(|| Error::NoGateway(gateway.to_string()))
}

/// Ends a gateway's chains where `last` says, and gives what the store has of it that no longer counts. Nothing if they
/// have ended.
///
/// # Errors
/// [`Error::WrongKey`], [`Error::NeedsQuorum`], [`Error::NoGateway`], [`Error::ChangedMeanwhile`]; those where the end
/// is not clear, [`Error::OneNumber`], [`Error::LooseSeal`], [`Error::NotThere`]; the store's.
pub fn revoke(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    gateway: &IdentityId,
    last: &LastKnown,
    reason: &str,
) -> Result<(Chain, CutOff)> {
    require_custodian(chain, owner)?;
    let mut cut_off = CutOff::default();
    let chain = execute(root, chain, owner, |chain| {
        if known(chain, gateway)?.until.is_some() {
            return Ok(None);
        }
        let (until, gone) = ended(root, chain, gateway, last)?;
        cut_off = gone;
        Ok(Some(Act { op: Operation::RevokeGateway { gateway: *gateway, until }, reason, share: None }))
    })?;
    Ok((chain, cut_off))
}

/// Where a gateway's chains end as `last` says, and what the store has of it that no longer counts then.
///
/// # Errors
/// [`Error::NoGateway`]; those of an end that is not clear, as of [`revoke`]; the store's.
pub fn ended(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    gateway: &IdentityId,
    last: &LastKnown,
) -> Result<(Until, CutOff)> {
    let end = ends::of(root, chain, (gateway, &known(chain, gateway)?.sign), last)?;
    Ok((end.until, end.cut_off))
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
        }))
    })
}

/// Ends what a gateway was admitted to, one run or, with `None`, all; what it made up to where `last` says counts, and
/// what the store has beyond that is given. Nothing if it may do nothing of that any more.
///
/// # Errors
/// As of [`revoke`]; [`Error::Revoked`].
pub fn dismiss(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    owner: &Identity,
    (gateway, run): (&IdentityId, Option<&RunId>),
    last: &LastKnown,
    reason: &str,
) -> Result<(Chain, CutOff)> {
    require_custodian(chain, owner)?;
    let mut cut_off = CutOff::default();
    let chain = execute(root, chain, owner, |chain| {
        if known(chain, gateway)?.until.is_some() {
            return Err(revoked(gateway));
        }
        let admissions = chain.admissions(gateway);
        if !admissions.iter().any(|to| run.is_none() || to.as_ref() == run) {
            return Ok(None);
        }
        let (until, gone) = ended(root, chain, gateway, last)?;
        cut_off = gone;
        Ok(Some(Act {
            op: Operation::DismissGateway { gateway: *gateway, run: run.copied(), until },
            reason,
            share: None,
        }))
    })?;
    Ok((chain, cut_off))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::{self, Enrolled};
    use crate::settle::{self, Newest};
    use crate::testing::{custody, enrolled, get, make_run, run_dir, seal, vault};
    use runvault_format::note::{Note, text_hash};
    use runvault_vault::authority::{Admission, Gateway, Last, Until};
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
        let newest = LastKnown::default();
        let (chain, cut_off) = revoke(&root, &chain, &owner, &id, &newest, "its disk was stolen").unwrap();
        assert_eq!(cut_off, CutOff::default());
        let (again, _) = revoke(&root, &chain, &owner, &id, &newest, "").unwrap();
        assert_eq!(again.head(), chain.head(), "once is enough");

        let (third, _) = make_run(&root, &chain, &gateway);
        let acting = crate::authority::Acting::gateway_only(chain.clone());
        let read = |run| runs::read_descriptor(&root, run, &*acting);
        assert!(read(&first).is_ok() && read(&second).is_ok());
        let refused = read(&third).unwrap_err().to_string();
        assert!(refused.contains("end at number 2"), "{refused}");

        let until = chain.gateway_key(&id).unwrap().until.unwrap();
        let sign = chain.gateway_key(&id).unwrap().sign;
        let newest =
            settle::newest_besides(&root, (id, sign), Newest::default(), &Default::default()).unwrap();
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
        let ended = Enrolled { label: label.clone(), id, newest_run: 3, last_run: Some(2), admitted: vec![] };
        let lasting = Enrolled {
            label: format!("{label}-2"),
            id: other.id(),
            newest_run: 0,
            last_run: None,
            admitted: vec![],
        };
        assert_eq!(listed, [ended, lasting]);
        assert_eq!(gateways::named(&chain, &label).unwrap(), id);
        assert_eq!(gateways::named(&chain, &other.id().to_string()).unwrap(), other.id());
        assert!(matches!(gateways::named(&chain, "nobody"), Err(Error::NoGateway(_))));

        // One that made nothing ends before its first run.
        let (chain, _) = revoke(&root, &chain, &owner, &other.id(), &LastKnown::default(), "").unwrap();
        let known = chain.gateway_key(&other.id()).unwrap();
        let none = Last { n: 0, hash: None };
        assert_eq!(known.until, Some(Until { run: none, seal: none }));
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
        // What it made until it is dismissed counts, and nothing after.
        let (made, _) = make_run(&root, &chain, &gateway);
        let note = get(&run_dir(&root, &made), "run.json");
        let hash = text_hash(Note::parse(&note).unwrap().text);
        let newest = LastKnown::default();
        let dismiss_from =
            |chain: &Chain, run| dismiss(&root, chain, &owner, (&id, run), &newest, "").unwrap().0;
        let dismissed = dismiss_from(&chain, Some(&run));
        assert_eq!(dismissed.admissions(&id), [None]);
        let chain = dismiss_from(&dismissed, None);
        let until = Until { run: Last { n: 1, hash: Some(hash) }, seal: Last { n: 0, hash: None } };
        for run in [None, Some(&run)] {
            assert_eq!(chain.admission(&id, run), Some(Admission { until: Some(until) }));
            assert!(!chain.is_admitted(&id, run));
        }
        assert_eq!(dismiss_from(&chain, None).head(), chain.head(), "once is enough");
        let again = admit(&root, &chain, &owner, &id, None, "").unwrap();
        assert_eq!(again.admissions(&id), [None]);
        let chain = dismiss_from(&again, None);
        let read = Chain::load(&root).unwrap();
        assert_eq!(read.admission(&id, None), chain.admission(&id, None));
        let stranger = Identity::generate("stranger").unwrap();
        assert!(matches!(admit(&root, &chain, &stranger, &id, None, ""), Err(Error::WrongKey { .. })));
        assert!(matches!(admit(&root, &chain, &owner, &stranger.id(), None, ""), Err(Error::NoGateway(_))));
        let (chain, _) = revoke(&root, &chain, &owner, &id, &LastKnown::default(), "").unwrap();
        assert!(matches!(admit(&root, &chain, &owner, &id, None, ""), Err(Error::Revoked { .. })));
    }

    #[test]
    fn only_an_owner_revokes_and_only_what_is_enrolled() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let before = get(&custody(&root), "audit.log");
        let stranger = Identity::generate("stranger").unwrap();
        let refused = revoke(&root, &chain, &stranger, &gateway.id(), &LastKnown::default(), "").unwrap_err();
        assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
        let refused = revoke(&root, &chain, &owner, &stranger.id(), &LastKnown::default(), "").unwrap_err();
        assert!(matches!(refused, Error::NoGateway(_)), "{refused}");
        assert_eq!(get(&custody(&root), "audit.log"), before, "nothing was written");
    }
}
