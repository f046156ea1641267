//! What an identity does while somebody else may rotate the vault key.

use std::sync::Arc;

use runvault_store::backend::Dir;
use runvault_vault::authority::Authority;

use crate::Error;
use crate::authority::Acting;
use crate::chain::Chain;
use crate::identity::Identity;

/// How many rotations may come first.
const ATTEMPTS: usize = 8;

/// Does `act` with all that the identity opens; again where it failed and a newer vault key was made since `chain`
/// was read: runs that were sealed to that key alone looked closed. `chain` is then the newer one.
///
/// # Errors
/// As [`Acting::open`]; `act`'s; [`Error::ChangedMeanwhile`] where keys are made again and again.
pub fn with_newest_keys<T, E: From<Error>>(
    root: &Arc<dyn Dir>,
    chain: &mut Chain,
    identity: &Identity,
    mut act: impl FnMut(&Arc<dyn Authority>) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..ATTEMPTS {
        let error = match act(&Acting::open(root, chain.clone(), identity)?) {
            Err(error) => error,
            done => return done,
        };
        match chain.continued(root) {
            Ok(Some(newer)) if newer.epoch() > chain.epoch() => *chain = newer,
            _ => return Err(error),
        }
    }
    Err(Error::ChangedMeanwhile.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;
    use crate::rotate::rotate;
    use crate::testing::{enrolled, envelopes, make_run, vault};

    #[test]
    fn a_run_that_a_rotation_seals_meanwhile_opens() {
        let (root, owner, mut chain) = vault();
        let gateway = enrolled(&root, &mut chain, &owner);
        let (run, _) = make_run(&root, &chain, &gateway);
        let mut rotations = 0;
        let mut open = |chain: &mut Chain, times| {
            with_newest_keys(&root, chain, &owner, |authority| {
                if rotations < times {
                    rotate(&root, &Chain::load(&root)?, &owner, &mut |_, _| {})?;
                    rotations += 1;
                }
                let key = authority.open_run(&run, &envelopes(&root, &run))?;
                key.map(drop).ok_or_else(|| runvault_vault::Error::WrongKey("closed".into()).into())
            })
        };
        open(&mut chain, 2).unwrap();
        assert_eq!(chain.epoch(), 3);
        let refused: Result<()> = open(&mut chain, usize::MAX);
        assert!(matches!(refused, Err(Error::ChangedMeanwhile)), "{refused:?}");
    }

    #[test]
    fn a_failure_of_its_own_is_told_at_once() {
        let (root, owner, mut chain) = vault();
        let mut asked = 0;
        let refused: Result<()> = with_newest_keys(&root, &mut chain, &owner, |_| {
            asked += 1;
            Err(Error::NoLock)
        });
        assert!(matches!(refused, Err(Error::NoLock)) && asked == 1);
    }
}
