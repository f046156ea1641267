//! Acts that the audit log has by now: what an interruption left of them needs no new line, and no key.

use std::sync::Arc;

use runvault_format::ids::IdentityId;
use runvault_format::operation::Operation;
use runvault_store::backend::Dir;

use super::carry_out::carry_out;
use super::execute::Done;
use crate::Result;
use crate::chain::Chain;
use crate::rotate::RotateSummary;

/// The line that takes the same from the same reader, where nothing gave it back since.
pub fn already(chain: &Chain, op: &Operation) -> Option<u64> {
    let stands = match op {
        Operation::RemoveReader { reader } => chain.state().reader(reader).is_none(),
        Operation::Revoke { reader, runs } => {
            runs.iter().all(|run| chain.granted(reader, run) == Some(false))
        }
        _ => false,
    };
    let same = |said: &Operation| match (op, said) {
        (Operation::Revoke { reader, runs }, Operation::Revoke { reader: of, runs: taken }) => {
            of == reader && runs.iter().any(|run| chain.family(run).any(|one| taken.contains(one)))
        }
        _ => said == op,
    };
    if !stands {
        return None;
    }
    let lines = (1..).zip(chain.acts_behind(0));
    lines.filter(|(_, said)| same(said)).map(|(n, _)| n).last()
}

/// Who had that name or id, and is no reader any more.
pub fn removed(chain: &Chain, name: &str) -> Option<IdentityId> {
    let had = chain.acts_behind(0).into_iter().filter_map(|op| match op {
        Operation::AddReader { reader } => Some(reader),
        _ => None,
    });
    let of_name = had.filter(|reader| reader.label == name || reader.id.to_string() == name);
    of_name.map(|reader| reader.id).rfind(|id| chain.state().reader(id).is_none())
}

/// Does what is left of such an act. `progress` gets runs done and runs in all.
///
/// # Errors
/// The store's.
pub fn finish(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    op: &Operation,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RotateSummary> {
    carry_out(root, Done { chain: chain.clone(), keys: None, worker: None }, op, progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::quorum::tests::Vault;
    use crate::testing::{envelopes, put, reader_entry, run_dir};

    /// As a kill leaves it after the line.
    #[test]
    fn what_was_interrupted_is_finished_by_the_same_act() {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let guest = Identity::generate("guest").unwrap();
        let entry = reader_entry(&guest, false, None);
        vault.agree(Operation::AddReader { reader: entry.clone() });
        let (run, _) = vault.runs(&gateway, 1).remove(0);
        let (reader, runs) = (guest.id(), vec![run]);
        let grant = Operation::Grant { reader, runs: runs.clone() };
        let (revoke, remove) = (Operation::Revoke { reader, runs }, Operation::RemoveReader { reader });
        vault.agree(grant.clone());
        assert_eq!([&grant, &revoke, &remove].map(|op| already(&vault.chain(), op)), [None; 3]);
        let name = format!("reader-{reader}");
        for (op, line) in [(&revoke, 4), (&remove, 5)] {
            vault.agree(op.clone());
            let chain = vault.chain();
            assert_eq!(already(&chain, op), Some(line));
            put(&run_dir(&vault.root, &run).open_dir(b"keys").unwrap(), &name, b"left");
            let done = finish(&vault.root, &chain, op, &mut |_, _| {}).unwrap();
            assert_eq!((done.rotated, done.failed), (1, vec![]));
            let names: Vec<_> = envelopes(&vault.root, &run).into_iter().map(|file| file.name).collect();
            assert_eq!(names, ["vault-1"]);
            // Nothing was there: nothing is counted.
            assert_eq!(finish(&vault.root, &chain, op, &mut |_, _| {}).unwrap().rotated, 0);
        }
        assert_eq!(removed(&vault.chain(), "guest"), Some(reader));
        assert_eq!(removed(&vault.chain(), "nobody"), None);
        vault.agree(Operation::AddReader { reader: entry });
        assert_eq!((already(&vault.chain(), &remove), removed(&vault.chain(), "guest")), (None, None));
        vault.agree(grant);
        assert_eq!(already(&vault.chain(), &revoke), None);
    }
}
