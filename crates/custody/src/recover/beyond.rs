//! What the store's runs name of lines that no copy of custody/ has: whoever signed them had seen more.

use std::sync::Arc;

use runvault_format::descriptor::RunDescriptor;
use runvault_format::envelope_file::EnvelopeName;
use runvault_format::ids::{Digest, IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::seal_note::SealNote;
use runvault_store::backend::Dir;
use runvault_vault::runs;
use runvault_vault::seal::origin;

use super::line_of_log;
use crate::chain::Chain;
use crate::layout::{self, RUNS};
use crate::settle::{OfRun, Signed, each_signed, envelopes, note_at};
use crate::{Error, Result};

/// What was seen beyond the copies: its number, who saw it, and what.
type Witness = (u64, String, String);

/// What the store shows beyond a chain.
#[derive(Default)]
pub(super) struct Beyond {
    /// The newest of what a gateway or a worker of the copies signed, as the refusal that names it.
    pub(super) signed: Option<Error>,
    /// What anybody can put there, likewise: the newest of what another one signed, a machine or a worker that a later line
    /// let in, or nobody; and the newest vault key by the name of an envelope, which is not signed.
    pub(super) unproven: Vec<Error>,
}

/// Looks for it.
///
/// # Errors
/// The store's.
pub(super) fn beyond(root: &Arc<dyn Dir>, chain: &Chain) -> Result<Beyond> {
    if !layout::exists(root, RUNS, RUNS)? {
        return Ok(Beyond::default());
    }
    let states = chain.executed_behind(0).map(|line| line.result.state).collect();
    let mut look = Look { chain, states, known: None, stranger: None, newer_key: None };
    let listed = runs::list_all(root)?;
    each_signed(root, &listed.runs, &mut |of| {
        look.at_run(&of);
        look.at_envelopes(root, &of.run);
        Ok(())
    })?;
    // Of re-keyings whose work is not done.
    for place in listed.coming().map(|run| runs::coming_place(&run)) {
        look.at_note(&format!("{RUNS}/{place}/run.json"), &note_at(root, &place)?);
    }
    let found = chain.head().n;
    let seen_more = |(_, who, seen)| Error::SeenMore { who, seen, found };
    let by_name = |(e, object)| (u64::from(e), format!("whoever wrote {object}"), format!("vault key {e}"));
    let unproven = look.stranger.into_iter().chain(look.newer_key.map(by_name));
    Ok(Beyond { signed: look.known.map(seen_more), unproven: unproven.map(seen_more).collect() })
}

struct Look<'a> {
    chain: &'a Chain,
    /// The hash of the state that each line made.
    states: Vec<Option<Digest>>,
    /// The newest that one of the copies' signers saw.
    known: Option<Witness>,
    /// And another one.
    stranger: Option<Witness>,
    /// The newest that the chain does not have, and the name that says so.
    newer_key: Option<(u32, String)>,
}

impl Look<'_> {
    fn at_run(&mut self, of: &OfRun) {
        let (run_json, seal_note) = match of.kept_by {
            None => (format!("{RUNS}/{}/run.json", of.run), format!("{RUNS}/{}/seal/seal.note", of.run)),
            Some(by) => {
                let kept = |name| format!("{RUNS}/{by}/seal/{name}");
                (kept(origin::RUN), kept(origin::NOTE))
            }
        };
        let Some(run_note) = self.at_note(&run_json, &of.run_note) else { return };
        let Some(Signed { note, said }) = Signed::parse(&of.seal_note, SealNote::parse_text) else { return };
        // It does not name the vault: by the run.json that it is for.
        if (said.run, said.run_note) == (of.run, run_note) {
            self.at_signed(&seal_note, &note, &said.gateway, &of.run, (said.state.n, said.state.hash));
        }
    }

    /// A run.json; gives its hash, where it is one of this vault.
    fn at_note(&mut self, object: &str, bytes: &Option<Vec<u8>>) -> Option<Digest> {
        let Signed { note, said } = Signed::parse(bytes, RunDescriptor::parse_text)?;
        if said.vault != self.chain.vault_id() {
            return None;
        }
        self.at_signed(object, &note, &said.signer, &said.run, (said.state.n, said.state.hash));
        Some(text_hash(note.text))
    }

    /// The state that a signer had seen. What a known one did not sign is somebody else's to name.
    fn at_signed(
        &mut self,
        object: &str,
        note: &Note<'_>,
        signer: &IdentityId,
        run: &RunId,
        (n, hash): (u64, Digest),
    ) {
        let Some(seen) = self.is_beyond(n, hash) else { return };
        let worker = self.chain.replacement(run).filter(|said| said.worker == *signer).map(|said| said.sign);
        let known = self.chain.gateway_key(signer).map(|known| known.sign).or(worker);
        let (newest, who) = match known {
            Some(key) if note.verify(signer, &key).is_err() => return,
            Some(_) => {
                let who = format!("{object}, signed by {},", self.named(signer));
                (&mut self.known, who)
            }
            None => {
                let who = format!("{object}, signed by {signer}, whom the copies do not know,");
                (&mut self.stranger, who)
            }
        };
        if newest.as_ref().is_none_or(|(than, ..)| *than < n) {
            *newest = Some((n, who, seen));
        }
    }

    /// Of a custody/ that was made anew before, runs may name lines that were lost then.
    fn is_beyond(&self, n: u64, hash: Digest) -> Option<String> {
        if n > self.chain.head().n {
            return Some(line_of_log(n));
        }
        let line = n.checked_sub(1).and_then(|i| usize::try_from(i).ok());
        let ours = self.states.get(line?).copied().flatten();
        (ours != Some(hash) && self.chain.recovered().is_none())
            .then(|| format!("another {}", line_of_log(n)))
    }

    fn named(&self, signer: &IdentityId) -> String {
        let gateways = self.chain.gateways();
        let label = gateways.iter().find(|(_, id)| id == signer).map(|(label, _)| label.as_str());
        crate::key_files::shown(label.unwrap_or("worker"), signer)
    }

    /// A run is sealed to a key of the vault's that a later line made, or somebody says so.
    fn at_envelopes(&mut self, root: &Arc<dyn Dir>, run: &RunId) {
        let names = layout::open_dir(root, RUNS, RUNS).and_then(|runs| envelopes(&runs, run));
        // What cannot be read is told by who opens the run.
        for name in names.ok().flatten().unwrap_or_default() {
            let EnvelopeName::Vault(e) = name else { continue };
            if e > self.newer_key.as_ref().map_or(self.chain.epoch(), |(e, _)| *e) {
                self.newer_key = Some((e, format!("{RUNS}/{run}/keys/{name}")));
            }
        }
    }
}
