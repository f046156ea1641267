//! What gateways signed about the runs of a request: it goes with the request, so that whoever approves without the
//! store reads whose each run is, when it was made and how large it is. The gateways' keys are in the state that goes
//! with it too, so nobody's word is taken for it; a proposer can only leave it out.

use std::sync::Arc;

use runvault_format::custody_state::{GatewayEntry, State};
use runvault_format::descriptor::RunDescriptor;
use runvault_format::ids::{IdentityId, RunId};
use runvault_format::note::{Note, text_hash};
use runvault_format::operation::Operation;
use runvault_format::seal_note::SealNote;
use runvault_format::{Error, Result};
use runvault_store::backend::Dir;
use runvault_store::read_whole::read_whole;

/// A longer note is left out.
const NOTE_MAX: usize = 1 << 20;
const BEGINS: &str = "runvault/1 ";

/// A run by what its gateways signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRun {
    /// Its run.json.
    pub made: RunDescriptor,
    /// Its seal; none came along where it is not sealed, and where somebody left that out.
    pub seal: Option<SealNote>,
    notes: String,
}

impl SignedRun {
    fn parse(made: &str, seal: Option<&str>, before: &State) -> Result<Self> {
        let mut notes = made.to_owned();
        let note = Note::parse(made.as_bytes())?;
        let (made, by) = signed(&note, before, RunDescriptor::parse_text, |made| &made.signer)?;
        let counts = |seq| by.until.as_ref().is_none_or(|until| seq <= until.seq);
        if made.vault != before.vault || !made.seq.is_some_and(counts) {
            return Err(Error::Chain("a run.json of another vault, or behind its gateway's end"));
        }
        let seal = seal.map(|seal| {
            notes.push_str(seal);
            let (seal, by) =
                signed(&Note::parse(seal.as_bytes())?, before, SealNote::parse_text, |seal| &seal.gateway)?;
            let of_run = seal.run == made.run && seal.run_note == text_hash(note.text);
            if of_run && by.until.as_ref().is_none_or(|until| seal.n <= until.seals) {
                Ok(seal)
            } else {
                Err(Error::Chain("a seal of another run, or behind its gateway's end"))
            }
        });
        Ok(Self { seal: seal.transpose()?, made, notes })
    }
}

/// What a note says, and the gateway that signed it.
fn signed<'a, T>(
    note: &Note<'_>,
    before: &'a State,
    parse: fn(&str) -> Result<T>,
    by: fn(&T) -> &IdentityId,
) -> Result<(T, &'a GatewayEntry)> {
    // The signer's name is read before its signature holds, and only to find the key to check with.
    let signer = before.gateway(by(&parse(note.text)?)).ok_or(Error::Unsigned)?;
    let said = note.verify(&signer.id, &signer.sign)?.parse(parse)?.into_inner();
    Ok((said, signer))
}

/// The runs that an operation names, in its order.
pub fn named(op: &Operation) -> Vec<RunId> {
    match op {
        Operation::Grant { runs, .. } | Operation::Revoke { runs, .. } | Operation::Rekey { runs } => {
            runs.clone()
        }
        Operation::Retire { runs } => runs.iter().map(|gone| gone.run).collect(),
        Operation::AdmitGateway { run: Some(run), .. } | Operation::DismissGateway { run: Some(run), .. } => {
            vec![*run]
        }
        _ => Vec::new(),
    }
}

/// Of the runs that an operation names those that are in the store, as their gateways signed them, in at most `max`
/// bytes. A run that was re-keyed is not among them: who signed it is in the audit log, which does not go along.
pub(super) fn read(root: &Arc<dyn Dir>, before: &State, op: &Operation, max: usize) -> Vec<SignedRun> {
    let mut left = max;
    let read = |run: RunId| {
        let dir = root.open_dir(b"runs").and_then(|runs| runs.open_dir(run.to_string().as_bytes())).ok()?;
        let made = String::from_utf8(read_whole(&*dir, b"run.json", NOTE_MAX).ok()?).ok()?;
        let seal = dir.open_dir(b"seal").and_then(|seal| read_whole(&*seal, b"seal.note", NOTE_MAX)).ok();
        let seal = seal.and_then(|seal| String::from_utf8(seal).ok());
        let with = |seal: Option<&str>| SignedRun::parse(&made, seal, before).ok();
        with(seal.as_deref()).or_else(|| with(None)).filter(|signed| signed.made.run == run)
    };
    named(op)
        .into_iter()
        .map_while(|run| {
            let signed = read(run);
            left = left.checked_sub(signed.as_ref().map_or(0, |signed| signed.notes.len()))?;
            Some(signed)
        })
        .flatten()
        .collect()
}

/// As they stand in the file.
pub(super) fn to_text(signed: &[SignedRun]) -> String {
    signed.iter().map(|run| run.notes.as_str()).collect()
}

/// # Errors
/// What a note is refused by; [`Error::Chain`] for one that does not belong there.
pub(super) fn parse(text: &str, before: &State, op: &Operation) -> Result<Vec<SignedRun>> {
    if !text.is_empty() && !text.starts_with(BEGINS) {
        return Err(Error::Note);
    }
    let starts = text.match_indices(BEGINS).map(|(at, _)| at);
    let starts = starts.filter(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'));
    let starts: Vec<usize> = starts.chain([text.len()]).collect();
    let notes = starts.windows(2).filter_map(|pair| match pair {
        [from, to] => text.get(*from..*to),
        _ => None,
    });
    let (mut signed, mut notes) = (Vec::new(), notes.peekable());
    while let Some(made) = notes.next() {
        let seal = notes.next_if(|next| next.starts_with("runvault/1 seal\n"));
        signed.push(SignedRun::parse(made, seal, before)?);
    }
    let mut asked = named(op).into_iter();
    if signed.iter().all(|run| asked.any(|asked| asked == run.made.run)) {
        Ok(signed)
    } else {
        Err(Error::Chain("a run that the request does not name, or out of order"))
    }
}
