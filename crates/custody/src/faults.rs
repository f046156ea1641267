//! What is wrong in custody/ though the vault opens without it.

use std::sync::Arc;

use runvault_store::backend::Dir;

use crate::chain::Chain;
use crate::{Error, Result, layout, locks};

/// What is wrong, by what mends it.
#[derive(Debug, Default)]
pub struct Faults {
    /// Of the two copies of the owner's key file one: a new passphrase writes both.
    pub locks: Vec<Error>,
    /// A backup has it.
    pub others: Vec<Error>,
}

/// What a verified chain does not need: a first state whose envelopes later ones carry, and of the two
/// copies of the owner's key file one.
///
/// # Errors
/// The store's.
pub fn faults(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Faults> {
    let mut found = Faults { locks: locks::faults(root), others: Vec::new() };
    let first = layout::state_name(0);
    let object = format!("custody/{first}");
    if chain.head().n > 0 && !layout::exists(&layout::custody_dir(root)?, &first, &object)? {
        found
            .others
            .push(Error::Damaged { object, why: "missing; later states carry what was in it".to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{custody, enrolled, vault};

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
}
