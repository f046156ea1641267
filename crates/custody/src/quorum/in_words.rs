//! A request as people read it: what it does, who may do what afterwards, what is released, what stays open.

use runvault_format::custody_state::{NamedReader, Outline, State};
use runvault_format::ids::IdentityId;
use runvault_format::operation::{KeyChange, Operation, SeenBy};
use runvault_format::removed::GoneRun;

use super::request_file::RequestFile;
use crate::chain::Chain;

/// What the operation does, in one sentence.
pub fn sentence(op: &Operation, before: &State, after: &Outline) -> String {
    let custodian = |id: &IdentityId| named(before.custodian(id).map(|c| c.label.as_str()), id);
    let reader = |id: &IdentityId| named(before.reader(id).map(|r| r.label.as_str()), id);
    let gateway = |id: &IdentityId| named(before.gateway(id).map(|g| g.label.as_str()), id);
    match op {
        Operation::EnrolGateway { gateway } => {
            format!("gateway {} may write runs into this vault", named(Some(&gateway.label), &gateway.id))
        }
        Operation::RevokeGateway { gateway: id, until } => format!(
            "gateway {} ends: nothing after its run {} and its seal {} counts",
            gateway(id),
            until.seq,
            until.seals
        ),
        Operation::AdmitGateway { gateway: id, run: Some(run) } => {
            format!("gateway {} may add to run {run} of another gateway, and seal it", gateway(id))
        }
        Operation::AdmitGateway { gateway: id, run: None } => {
            format!("gateway {} may add to every sealed run", gateway(id))
        }
        Operation::DismissGateway { gateway: id, run, until } => {
            let what = run.map_or_else(|| "runs of others".to_owned(), |run| format!("run {run}"));
            let (runs, seals) = (until.seq, until.seals);
            format!(
                "gateway {} adds to {what} no more: nothing after its run {runs} and its seal {seals}",
                gateway(id)
            )
        }
        Operation::Rotate { epoch } => format!("a new vault key, number {epoch}; the people stay"),
        Operation::AddCustodian { custodian } => format!(
            "{} becomes a custodian, one of {}; the vault key is shared anew among them",
            named(Some(&custodian.label), &custodian.id),
            after.custodians.len()
        ),
        Operation::RemoveCustodian { custodian: id } => format!(
            "{} is no custodian any more; a new vault key, number {}, is shared among the other {}",
            custodian(id),
            after.epoch,
            after.custodians.len()
        ),
        Operation::ChangeQuorum { quorum } => format!(
            "from now on {quorum} of {} custodians have to agree, not {}; a new vault key, number {}",
            after.custodians.len(),
            before.quorum,
            after.epoch
        ),
        Operation::AddReader { reader } => {
            let runs = if reader.standing {
                "reads every run that is made from now on, and those that are granted"
            } else {
                "reads the runs that are granted, and no others"
            };
            let until = reader.expires.as_deref().map_or(String::new(), |at| format!(", until {at}"));
            format!("{} {runs}{until}", named(Some(&reader.label), &reader.id))
        }
        Operation::RemoveReader { reader: id } => {
            format!("{} is no reader any more: its envelopes of all runs are removed", reader(id))
        }
        Operation::Grant { reader: id, runs } => {
            format!("{} gets the keys of {}", reader(id), count(runs.len(), "run"))
        }
        Operation::Revoke { reader: id, runs } => {
            format!("{} loses its envelopes of {}", reader(id), count(runs.len(), "run"))
        }
        Operation::Rekey { runs } => {
            let what = match runs.len() {
                1 => "gets a new key: another run takes its place",
                _ => "get new keys: other runs take their places",
            };
            format!("{} {what}", count(runs.len(), "run"))
        }
        Operation::Retire { runs } => {
            format!("{} not missed any more when gone from the store", are(runs.len(), "run"))
        }
        Operation::Recover { copies } => {
            let seen = |seen: &SeenBy| format!("{} (line {})", custodian(&seen.custodian), seen.n);
            let mut files: Vec<String> = copies.iter().map(seen).collect();
            files.sort();
            format!("custody/ was lost, and is made anew from the key files of {}", files.join(", "))
        }
    }
}

/// The same of an act that is done.
pub fn of_act(op: &Operation, before: &Chain, after: &Chain) -> String {
    sentence(op, before.state(), &after.state().outline())
}

/// The runs that it is about, one a line.
pub fn runs(op: &Operation) -> Vec<String> {
    match op {
        Operation::Grant { runs, .. } | Operation::Revoke { runs, .. } | Operation::Rekey { runs } => {
            runs.iter().map(ToString::to_string).collect()
        }
        Operation::Retire { runs } => {
            let line =
                |gone: &GoneRun| format!("{}, number {} of gateway {}", gone.run, gone.seq, gone.gateway);
            runs.iter().map(line).collect()
        }
        _ => Vec::new(),
    }
}

/// What custodians give to the executor.
pub fn released(op: &Operation) -> &'static str {
    match (op.releases_share(), op.key_change()) {
        (true, KeyChange::New) => {
            "your share: the machine that executes this learns the vault key, of now and of before, and makes the next one"
        }
        (true, _) => "your share: the machine that executes this learns the vault key, of now and of before",
        (false, _) => "a signature only: no share of the vault key leaves your key file",
    }
}

/// The honest sentence: what an old copy of the store, or of a key, still opens.
pub fn stays_open(op: &Operation) -> &'static str {
    match op {
        Operation::RemoveCustodian { .. } | Operation::ChangeQuorum { .. } | Operation::Rotate { .. } => {
            "Enough shares of the key before still open every run that was made before, in old copies of the store, and\n\
             runs that are sealed also in this one. Runs made from now on do not open for them."
        }
        Operation::AddCustodian { .. } => {
            "The shares before go on counting for old copies of the store: the vault key is the same."
        }
        Operation::RemoveReader { .. } | Operation::Revoke { .. } => {
            "Whoever kept a copy of the envelopes, or of what was read, still has it."
        }
        Operation::Grant { .. } | Operation::AddReader { .. } => {
            "What a reader has read cannot be taken back later."
        }
        Operation::Rekey { .. } => {
            "Old copies of these runs open as before, for whoever had their keys. Until the work is done (runvault rekey)\n\
             the runs in this store do too. Each custodian does the drill then: without that line the runs cannot be read."
        }
        Operation::RevokeGateway { .. } | Operation::DismissGateway { .. } => {
            "Runs and seals up to there count as before."
        }
        Operation::EnrolGateway { .. } => "It may do so until it is revoked.",
        Operation::AdmitGateway { .. } => "It may do so until it is dismissed, or revoked.",
        Operation::Retire { .. } => {
            "Nothing was removed: move or remove the runs now; a mount that has one open ends first. Copies of them\n\
             elsewhere stay readable."
        }
        Operation::Recover { .. } => {
            "What was done after the newest of those lines is undone: whoever was removed since counts again, whoever was\n\
             let in since has to be let in again. The machine that did this learned the vault key: rotate. Each custodian\n\
             does the drill anew."
        }
    }
}

/// Who may do what afterwards, one a line.
pub fn people(after: &Outline) -> Vec<String> {
    let custodians = after.custodians.iter().map(|c| format!("custodian {}", named(Some(&c.label), &c.id)));
    let readers = after.readers.iter().map(reader_line);
    let gateways = after.gateways.iter().map(|g| {
        let ended = g.until.as_ref().map_or(String::new(), |until| format!(", ended with run {}", until.seq));
        format!("gateway {}{ended}", named(Some(&g.label), &g.id))
    });
    let quorum = format!("quorum {} of {}", after.quorum, after.custodians.len());
    std::iter::once(quorum).chain(custodians).chain(readers).chain(gateways).collect()
}

fn reader_line(reader: &NamedReader) -> String {
    let kind = if reader.standing { "standing reader" } else { "reader" };
    let until = reader.expires.as_deref().map_or(String::new(), |at| format!(", until {at}"));
    format!("{kind} {}{until}", named(Some(&reader.label), &reader.id))
}

fn named(label: Option<&str>, id: &IdentityId) -> String {
    label.map_or_else(|| id.to_string(), |label| crate::key_files::shown(label, id))
}

fn are(n: usize, what: &str) -> String {
    format!("{} {}", count(n, what), if n == 1 { "is" } else { "are" })
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl RequestFile {
    /// What the operation does, in one sentence.
    pub fn sentence(&self) -> String {
        match &self.request.state {
            Some(after) => sentence(&self.request.op, &self.before, after),
            None => String::new(),
        }
    }
}
