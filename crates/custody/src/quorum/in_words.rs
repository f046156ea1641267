//! A request as people read it: what it does, who may do what afterwards, what is released, what stays open.

use runvault_format::custody_state::{NamedReader, Outline, State};
use runvault_format::ids::IdentityId;
use runvault_format::operation::{KeyChange, Operation, SeenBy};
use runvault_format::removed::GoneRun;

use super::request_file::RequestFile;
use super::signed_runs;
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
            let known = before.reader(&reader.id);
            let runs = match (reader.standing, known) {
                (true, _) => "reads every run that is made from now on, and those that are granted",
                (false, Some(known)) if known.standing => {
                    "is no standing reader any more: it keeps what it has by now (revoke takes that away), and reads \
                     what is granted"
                }
                (false, Some(_)) => "reads the runs that are granted, and keeps what it has by now",
                (false, None) => "reads the runs that are granted, and no others",
            };
            let until = reader.expires.as_deref().map_or(String::new(), |at| format!(", until {at}"));
            let until = match known.filter(|known| known.expires.is_some() && reader.expires.is_none()) {
                Some(_) => ", without an end".to_owned(),
                None => until,
            };
            let called = known.filter(|known| known.label != reader.label);
            let called = called.map_or(String::new(), |known| {
                format!(" (the key that was called {:?} so far)", known.label)
            });
            format!("{}{called} {runs}{until}", named(Some(&reader.label), &reader.id))
        }
        Operation::RemoveReader { reader: id } => {
            format!("{} is no reader any more: what is sealed to it is removed from all runs", reader(id))
        }
        Operation::Grant { reader: id, runs } => {
            let sealed = if runs.len() == 1 { "its key is" } else { "their keys are" };
            format!("{} may read {}: {sealed} sealed to it", reader(id), count(runs.len(), "run"))
        }
        Operation::Revoke { reader: id, runs } => {
            let runs = count(runs.len(), "run");
            format!("{} may not read {runs} any more: what is sealed to it there is removed", reader(id))
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

/// The runs that it names, one a line.
pub fn runs(op: &Operation) -> Vec<String> {
    match op {
        Operation::Retire { runs } => runs.iter().map(gone_run).collect(),
        op => signed_runs::named(op).iter().map(ToString::to_string).collect(),
    }
}

/// Which run, in which state: a run that is open may be another one by the time that it goes.
fn gone_run(gone: &GoneRun) -> String {
    let seal = gone.seal.as_ref().map_or("not sealed".to_owned(), |seal| {
        format!("sealed by gateway {} as its number {}, seal {}", seal.gateway, seal.n, seal.hash)
    });
    format!("{}, number {} of gateway {}, {seal}", gone.run, gone.seq, gone.gateway)
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

/// The honest sentence: what an old copy of the store, or of a key, still opens. `act`: the command that begins the act of
/// that name in this vault, with what follows it.
pub fn stays_open(op: &Operation, act: &dyn Fn(&str, &str) -> String) -> String {
    let rekey = || act("rekey", "RUN...");
    let ends = |reader: &IdentityId| {
        format!(
            "What a reader has read cannot be taken back later. What it may read from now on ends with:\n  {}\n\
             or, of single runs:\n  {}",
            act("remove-reader", &reader.to_string()),
            act("revoke", &format!("RUN... {reader}"))
        )
    };
    match op {
        Operation::RemoveCustodian { .. } | Operation::ChangeQuorum { .. } | Operation::Rotate { .. } => format!(
            "Enough shares of the key before still open every run that was made before, in old copies of the store, and\n\
             runs that are sealed also in this one, until those get new keys:\n  {}\n\
             Runs made from now on do not open for them, where their gateway sees this line (runvault scrub names those\n\
             that it did not).",
            rekey()
        ),
        Operation::AddCustodian { .. } => format!(
            "The vault key is the same: enough of the shares before still make it, with an old copy of custody/. They open\n\
             this store and what is made from now on, until:\n  {}",
            act("rotate", "")
        ),
        Operation::RemoveReader { .. } | Operation::Revoke { .. } => format!(
            "Whoever kept a copy of the envelopes, or of what was read, still has it, and reads every copy of those runs,\n\
             this store's too, until they get new keys:\n  {}",
            rekey()
        ),
        Operation::Grant { reader, .. } => ends(reader),
        Operation::AddReader { reader } => ends(&reader.id),
        Operation::Recover { .. } => format!(
            "What was done after the newest of those lines is undone: whoever was removed since counts again, whoever was\n\
             let in since has to be let in again. The machine that did this learned the vault key, until:\n  {}\n\
             Each custodian does the drill anew.",
            act("rotate", "")
        ),
        Operation::Rekey { .. } => {
            "Old copies of these runs open as before, for whoever had their keys. Until the work is done (runvault rekey)\n\
             the runs in this store do too. Each custodian does the drill then: without that line the runs cannot be read."
                .to_owned()
        }
        Operation::RevokeGateway { .. } | Operation::DismissGateway { .. } => {
            "Runs and seals up to there count as before.".to_owned()
        }
        Operation::EnrolGateway { .. } => "It may do so until it is revoked.".to_owned(),
        Operation::AdmitGateway { .. } => "It may do so until it is dismissed, or revoked.".to_owned(),
        Operation::Retire { .. } => {
            "Nothing was removed: move or remove the runs now; a mount that has one open ends first. Copies of them\n\
             elsewhere stay readable."
                .to_owned()
        }
    }
}

/// Who may do what afterwards, one a line: what is new is marked, and what is no more comes last.
pub fn changed(before: &State, after: &Outline) -> Vec<String> {
    let (before, after) = (people(&before.outline()), people(after));
    let marked = after.iter().map(|line| match before.contains(line) {
        true => line.clone(),
        false => format!("{line}   <- new"),
    });
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("no more: {line}"));
    marked.chain(gone).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::quorum::tests::Vault;
    use crate::testing::reader_entry;
    use runvault_format::custody_state::{Custodian, ReaderEntry};
    use runvault_format::ids::RunId;

    fn said(vault: &Vault, op: &Operation) -> String {
        let before = vault.chain().state().clone();
        sentence(op, &before, &op.outline(&before).unwrap())
    }

    /// Each act that leaves something open says by what that ends.
    #[test]
    fn what_stays_open_names_the_command_that_ends_it() {
        let (vault, one) = (Vault::of(2, 3), Identity::generate("one").unwrap());
        let (reader, runs) = (one.id(), vec![RunId([1; 16])]);
        let entry = reader_entry(&one, false, None);
        let custodian = Custodian::new("one", &one.public());
        let (removed, revoked) = (format!("<remove-reader {reader}>"), format!("<revoke RUN... {reader}>"));
        let rekey = "get new keys: <rekey RUN...>";
        for (op, ends) in [
            (Operation::Rotate { epoch: 2 }, &[rekey, "runvault scrub"][..]),
            (Operation::RemoveCustodian { custodian: vault.people[0].id() }, &[rekey]),
            (Operation::ChangeQuorum { quorum: 3 }, &[rekey]),
            (Operation::AddCustodian { custodian }, &["until: <rotate >", "made from now on"]),
            (Operation::RemoveReader { reader }, &[rekey]),
            (Operation::Revoke { reader, runs: runs.clone() }, &[rekey]),
            (Operation::Grant { reader, runs: runs.clone() }, &[&removed, &revoked]),
            (Operation::AddReader { reader: entry }, &[&removed, &revoked]),
            (Operation::Recover { copies: Vec::new() }, &["the vault key, until: <rotate >"]),
            (Operation::Rekey { runs }, &["Old copies of these runs open as before", "runvault rekey"]),
        ] {
            let text = stays_open(&op, &|act, rest| format!("<{act} {rest}>"));
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(ends.iter().all(|end| text.contains(end)), "{op:?}: {text}");
        }
    }

    /// Of a key that is let in already: what it keeps, and whose it is under another name.
    #[test]
    fn other_terms_for_a_reader_say_what_it_keeps() {
        let vault = Vault::of(2, 3);
        let (lab, guest) = (Identity::generate("lab").unwrap(), Identity::generate("guest").unwrap());
        let new = Operation::AddReader { reader: reader_entry(&lab, false, None) };
        assert!(said(&vault, &new).ends_with(" reads the runs that are granted, and no others"));
        vault.agree(Operation::AddReader { reader: reader_entry(&lab, true, None) });
        let stands_no_more = said(&vault, &new);
        assert!(
            stands_no_more.contains("is no standing reader any more: it keeps what it has"),
            "{stands_no_more}"
        );
        vault.agree(Operation::AddReader {
            reader: reader_entry(&guest, false, Some("2999-01-01T00:00:00Z")),
        });
        let entry = ReaderEntry { label: "visitor".into(), ..reader_entry(&guest, false, None) };
        let renamed = said(&vault, &Operation::AddReader { reader: entry });
        assert!(
            renamed.starts_with("\"visitor\" (") && renamed.contains("called \"guest\" so far"),
            "{renamed}"
        );
        assert!(renamed.ends_with("keeps what it has by now, without an end"), "{renamed}");
    }

    #[test]
    fn what_changes_is_marked() {
        let vault = Vault::of(2, 3);
        let before = vault.chain().state().clone();
        let op = Operation::RemoveCustodian { custodian: vault.people[2].id() };
        let lines = changed(&before, &op.outline(&before).unwrap());
        let marked: Vec<_> = lines.iter().filter(|line| line.ends_with("<- new")).collect();
        assert_eq!(marked, ["quorum 2 of 2   <- new"]);
        let gone: Vec<_> = lines.iter().filter(|line| line.starts_with("no more: ")).collect();
        assert_eq!(gone.len(), 2, "{lines:?}");
        assert!(gone[1].contains("custodian-2"), "{gone:?}");
    }
}
