//! What is wrong in custody/ though the vault opens without it.

use std::sync::Arc;

use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::layout::OBJECT_MAX;
use crate::{Error, Result, claim, layout, locks};

/// What is wrong, by what mends it.
#[derive(Debug, Default)]
pub struct Faults {
    /// Of the two copies of the owner's key file one: a new passphrase writes both.
    pub locks: Vec<Error>,
    /// A backup has it.
    pub others: Vec<Error>,
}

/// What a verified chain does not need: a first state whose envelopes later ones carry, of the two copies of
/// the owner's key file one, and the claims of lines that are in the log.
///
/// # Errors
/// The store's.
pub fn faults(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Faults> {
    let mut found = Faults { locks: locks::faults(root), others: Vec::new() };
    let custody = layout::custody_dir(root)?;
    let first = layout::state_name(0);
    let object = format!("custody/{first}");
    if chain.head().n > 0 && !layout::exists(&custody, &first, &object)? {
        found
            .others
            .push(Error::Damaged { object, why: "missing; later states carry what was in it".to_owned() });
    }
    let claims = claim::numbers(&custody)?;
    // One that came since the chain was read is in the chain as it is now.
    let newer = if claims.iter().any(|n| *n > chain.head().n) { chain.continued(root)? } else { None };
    let chain = newer.as_ref().unwrap_or(chain);
    for n in claims {
        found.others.extend(claim_fault(&custody, chain, n)?);
    }
    Ok(found)
}

/// What is wrong with `custody/line-<n>`; the log and the state count.
fn claim_fault(custody: &Arc<dyn Dir>, chain: &Chain, n: u64) -> Result<Option<Error>> {
    let claim = match claim::read(custody, n) {
        // Tidied away meanwhile.
        Ok(None) => return Ok(None),
        Ok(Some(claim)) => claim,
        Err(fault @ Error::Damaged { .. }) => return Ok(Some(fault)),
        Err(error) => return Err(error),
    };
    let line = n.checked_sub(1).and_then(|before| {
        let lines = chain.log().split(|b| *b == b'\n');
        lines.filter(|line| !line.is_empty()).nth(usize::try_from(before).ok()?)
    });
    let Some(line) = line else {
        let why = format!("audit.log ends at line {}; this one follows none", chain.head().n);
        return Ok(Some(Error::Damaged { object: claim::object(n), why }));
    };
    let (state, object) = (layout::state_name(n), format!("custody/{}", layout::state_name(n)));
    let state = layout::read_if_there(custody, &state, &object, OBJECT_MAX)?;
    if claim.line() == line && state.is_none_or(|state| state == claim.state()) {
        return Ok(None);
    }
    let why = "differs from audit.log and its state, which count: it may be removed".to_owned();
    Ok(Some(Error::Damaged { object: claim::object(n), why }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{custody, enrolled, get, put, vault};

    #[test]
    fn a_first_state_that_is_not_needed_any_more_is_missed() {
        let (root, owner, mut chain) = vault();
        enrolled(&root, &mut chain, &owner);
        assert!(faults(&root, &chain).unwrap().others.is_empty());
        custody(&root).unlink(b"state-0").unwrap();
        let chain = Chain::load(&root).unwrap();
        let found = faults(&root, &chain).unwrap();
        assert!(found.locks.is_empty());
        assert!(matches!(&found.others[..], [Error::Damaged { object, .. }] if object == "custody/state-0"));
    }

    #[test]
    fn a_claim_of_a_line_that_is_in_the_log_is_compared_with_it() {
        let (root, owner, mut chain) = vault();
        enrolled(&root, &mut chain, &owner);
        let custody = custody(&root);
        let claim = get(&custody, "line-1");
        let named = || {
            let found = faults(&root, &chain).unwrap().others;
            found
                .into_iter()
                .map(|fault| match fault {
                    Error::Damaged { object, .. } => object,
                    other => panic!("{other}"),
                })
                .collect::<Vec<_>>()
        };
        assert!(named().is_empty());
        for at in [0, claim.len() / 4, claim.len() - 2] {
            let mut flipped = claim.clone();
            flipped[at] ^= 1;
            put(&custody, "line-1", &flipped);
            assert_eq!(named(), ["custody/line-1"], "byte {at}");
        }
        put(&custody, "line-1", b"");
        assert_eq!(named(), ["custody/line-1"]);
        put(&custody, "line-1", &claim);
        put(&custody, "line-9", &claim);
        assert_eq!(named(), ["custody/line-9"]);
        custody.unlink(b"line-1").unwrap();
        custody.unlink(b"line-9").unwrap();
        assert!(named().is_empty());
    }
}
