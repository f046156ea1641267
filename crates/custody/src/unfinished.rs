//! What acts of custody have left to do: runs that lack an envelope which the audit log gives them, or have one that it
//! takes away. Told from the names in each `keys/`, without any key; an act that was interrupted leaves no other trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::operation::Operation;
use runvault_store::backend::Dir;
use runvault_vault::runs;

use crate::chain::Chain;
use crate::layout::RUNS;
use crate::settle::envelopes;
use crate::{Result, clock, layout};

/// A reader, and the runs where an act is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfReader {
    /// Its id.
    pub reader: IdentityId,
    /// The newest name that it had; `None`: no line ever let it in.
    pub label: Option<String>,
    /// Whether it is one still.
    pub known: bool,
    /// In ascending order.
    pub runs: Vec<RunId>,
}

/// What is left to do, by what does it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Runs that are not sealed to the newest vault key.
    pub older_key: Vec<RunId>,
    /// Envelopes to who is no reader, or from whom the run was taken.
    pub not_taken: Vec<OfReader>,
    /// Envelopes that were granted and are not there.
    pub not_given: Vec<OfReader>,
}

/// What the audit log says of readers.
#[derive(Default)]
struct Said {
    labels: BTreeMap<IdentityId, String>,
    /// Granted or taken away, whichever was last, by reader and the first of the run's [`Chain::family`].
    runs: BTreeMap<(IdentityId, RunId), bool>,
}

impl Said {
    fn of(chain: &Chain) -> Self {
        let mut said = Self::default();
        for op in chain.acts_behind(0) {
            match op {
                Operation::AddReader { reader } => _ = said.labels.insert(reader.id, reader.label),
                // Who comes back has what is granted then.
                Operation::RemoveReader { reader } => said.runs.retain(|(of, _), _| *of != reader),
                Operation::Grant { reader, runs } => said.take(chain, reader, &runs, true),
                Operation::Revoke { reader, runs } => said.take(chain, reader, &runs, false),
                _ => {}
            }
        }
        said
    }

    fn take(&mut self, chain: &Chain, reader: IdentityId, runs: &[RunId], granted: bool) {
        self.runs.extend(runs.iter().map(|run| ((reader, first(chain, run)), granted)));
    }
}

fn first(chain: &Chain, run: &RunId) -> RunId {
    *chain.family(run).next().unwrap_or(run)
}

/// Looks into each run. `progress` gets runs done and runs in all.
///
/// # Errors
/// The store's.
pub fn unfinished(
    root: &Arc<dyn Dir>,
    chain: &Chain,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Unfinished> {
    let said = Said::of(chain);
    let (newest, now) = (EnvelopeName::Vault(chain.epoch()), clock::now());
    let readers: BTreeMap<IdentityId, bool> =
        chain.reader_terms().iter().map(|reader| (reader.id, reader.lasts(&now))).collect();
    let (mut older_key, mut not_taken, mut not_given) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let (there, runs_dir) = (runs::list(root)?, layout::open_dir(root, RUNS, RUNS)?);
    let total = there.len() as u64;
    for (run, done) in there.iter().zip(1..) {
        if let Some(names) = envelopes(&runs_dir, run)? {
            let said = |reader: &IdentityId| said.runs.get(&(*reader, first(chain, run))).copied();
            if !names.contains(&newest) {
                older_key.push(*run);
            }
            for name in &names {
                match name {
                    EnvelopeName::Reader(id) if !readers.contains_key(id) || said(id) == Some(false) => {
                        not_taken.entry(*id).or_insert_with(Vec::new).push(*run);
                    }
                    _ => {}
                }
            }
            for (id, _) in readers.iter().filter(|(id, lasts)| **lasts && said(id) == Some(true)) {
                if !names.contains(&EnvelopeName::Reader(*id)) {
                    not_given.entry(*id).or_insert_with(Vec::new).push(*run);
                }
            }
        }
        progress(done, total);
    }
    let of = |found: BTreeMap<IdentityId, Vec<RunId>>| {
        let one = |(reader, runs)| OfReader {
            reader,
            label: said.labels.get(&reader).cloned(),
            known: readers.contains_key(&reader),
            runs,
        };
        found.into_iter().map(one).collect()
    };
    Ok(Unfinished { older_key, not_taken: of(not_taken), not_given: of(not_given) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::quorum::tests::Vault;
    use crate::testing::{envelopes as files, put, reader_entry, run_dir};

    fn left(vault: &Vault) -> Unfinished {
        unfinished(&vault.root, &vault.chain(), &mut |_, _| {}).unwrap()
    }

    fn name(reader: &Identity) -> String {
        EnvelopeName::Reader(reader.id()).to_string()
    }

    #[test]
    fn what_was_interrupted_is_named_until_it_is_done() {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let [lab, guest] = ["lab", "guest"].map(|label| Identity::generate(label).unwrap());
        vault.agree(Operation::AddReader { reader: reader_entry(&lab, true, None) });
        vault.agree(Operation::AddReader { reader: reader_entry(&guest, false, None) });
        let mut made: Vec<RunId> = vault.runs(&gateway, 3).iter().map(|(run, _)| *run).collect();
        made.sort();
        let granted = vec![made[0], made[1]];
        vault.agree(Operation::Grant { reader: guest.id(), runs: granted.clone() });
        assert_eq!(left(&vault), Unfinished::default());
        // As it is when nothing of the work is done yet, and when some of it is.
        let put_back = |run: &RunId, name: &str, bytes: &[u8]| {
            put(&run_dir(&vault.root, run).open_dir(b"keys").unwrap(), name, bytes);
        };
        let take = |run: &RunId, name: &str| {
            run_dir(&vault.root, run).open_dir(b"keys").unwrap().unlink(name.as_bytes()).unwrap();
        };
        let before: Vec<_> = made.iter().map(|run| (*run, files(&vault.root, run))).collect();
        take(&made[1], &name(&guest));
        let of = |reader: &Identity, known, runs: &[RunId]| {
            let label = Some(reader.label.clone());
            vec![OfReader { reader: reader.id(), label, known, runs: runs.to_vec() }]
        };
        let not_given = of(&guest, true, &made[1..2]);
        assert_eq!(left(&vault), Unfinished { not_given, ..Unfinished::default() });
        vault.agree(Operation::Revoke { reader: guest.id(), runs: granted });
        vault.agree(Operation::RemoveReader { reader: lab.id() });
        vault.agree(Operation::Rotate { epoch: 2 });
        assert_eq!(left(&vault), Unfinished::default());
        for (run, envelopes) in &before[1..] {
            for file in envelopes {
                put_back(run, &file.name, &file.bytes);
            }
        }
        put_back(&made[0], &name(&guest), b"x");
        take(&made[2], "vault-2");
        let found = left(&vault);
        assert_eq!(found.older_key, made[2..]);
        let mut expected = of(&lab, false, &made[1..]);
        expected.extend(of(&guest, true, &made[..2]));
        expected.sort_by_key(|one| one.reader);
        assert_eq!(found.not_taken, expected);
        assert_eq!(found.not_given, []);
    }

    /// Who was removed and comes back has nothing of before, and nothing is due of it.
    #[test]
    fn a_reader_that_comes_back_is_owed_nothing() {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let (run, _) = vault.runs(&gateway, 1).remove(0);
        let guest = Identity::generate("guest").unwrap();
        let let_in = || vault.agree(Operation::AddReader { reader: reader_entry(&guest, false, None) });
        let_in();
        vault.agree(Operation::Grant { reader: guest.id(), runs: vec![run] });
        vault.agree(Operation::RemoveReader { reader: guest.id() });
        let_in();
        assert_eq!(left(&vault), Unfinished::default());
    }

    #[test]
    fn what_nobody_was_ever_given_is_named_by_its_id() {
        let vault = Vault::of(2, 3);
        let gateway = vault.gateway();
        let (run, _) = vault.runs(&gateway, 1).remove(0);
        let nobody = Identity::generate("nobody").unwrap();
        put(&run_dir(&vault.root, &run).open_dir(b"keys").unwrap(), &name(&nobody), b"x");
        let found = left(&vault).not_taken;
        assert_eq!((found[0].label.as_deref(), found[0].known, &found[0].runs), (None, false, &vec![run]));
    }
}
