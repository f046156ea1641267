//! Sealing a run that a vault has open: by its name or id, with what its RunInfo.xml says of it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use runvault_format::ids::RunId;
use runvault_sequencer::completeness;
use runvault_sequencer::completion::{Observation, Patience, Seen, State, Why, state};
use runvault_sequencer::family::Family;
use runvault_sequencer::marker::Marker;
use runvault_sequencer::run_name::RunName;
use runvault_vault::Vault;
use runvault_vault::held::HeldRun;
use runvault_vault::seal::{Contents, Outcome};
use serde_json::{Map, Value, json};

use crate::exit::{self, Exit, refuse, refuse_with};
use crate::hint::hint;
use crate::output::{json_name, size, visible};
use crate::run_of_name::{below_a_folder, is_it};

/// What a run consists of.
pub const RUN_INFO: &str = "RunInfo.xml";
/// That of a real run is smaller by far.
pub const RUN_INFO_MAX: u64 = 4 << 20;
/// What is missing is counted; so much of it is named.
pub const NAMED: usize = 100;

/// What came of it, as it is printed.
pub enum Sealing {
    /// Facts of the seal.
    Sealed(Value),
    /// It was sealed by an earlier try, and its key is erased here now.
    Finished,
    /// An object for each thing that does not authenticate.
    Refused(Vec<Value>),
    /// It is not complete, and was to be sealed only if it is.
    Withheld,
}

/// How a run is sealed.
pub struct Wish {
    /// What ended the run: the marker's name, `silence` or `hand`.
    pub ended: String,
    /// Only if everything that RunInfo.xml promises is there.
    pub complete: bool,
}

impl Wish {
    /// Of a person.
    pub fn by_hand() -> Self {
        Self { ended: "hand".to_owned(), complete: false }
    }
}

/// Seals the run of that name or id.
///
/// # Errors
/// Exit 1: there is none, or not here; exit 5: something of it is open.
pub fn seal(vault: &Vault, run: &[u8], wish: &Wish, progress: &mut dyn FnMut(u64, u64)) -> Result<Sealing> {
    let (id, name) = find(vault, run)?;
    let mut facts = Map::new();
    let mut about = |contents: &mut Contents<'_>| {
        facts = about(&name, &wish.ended, contents)?;
        let wanted = !wish.complete || facts["complete"] == true;
        Ok(wanted.then(|| Value::Object(facts.clone()).to_string()))
    };
    match vault.seal(&id, &mut about, progress) {
        Err(runvault_vault::Error::Posix(runvault_vault::Posix::Busy)) => Err(refuse_with(
            Exit::Busy,
            format!("something of run {} is open", visible(run)),
            "whoever writes or reads it must close it first: fuser -vm MOUNTPOINT",
        )),
        Err(runvault_vault::Error::Sealing { run: other, done, total }) => {
            Err(being_sealed(vault, run, &other, (done, total)))
        }
        Err(runvault_vault::Error::Posix(runvault_vault::Posix::NotPermitted)) => {
            Err(refuse(Exit::Usage, "the files outside any run are not sealed"))
        }
        Err(other) => Err(other.into()),
        Ok(Outcome::Withheld) => Ok(Sealing::Withheld),
        Ok(Outcome::Finished) => Ok(Sealing::Finished),
        Ok(Outcome::Refused(faults)) => Ok(Sealing::Refused(faults.iter().map(fault).collect())),
        Ok(Outcome::Sealed(summary)) => {
            if facts["ledger"].is_null() {
                log::warn!("run {id}: sealed without a ledger: earlier states of its objects are not known");
            }
            facts.insert("run".into(), json!(summary.run));
            facts.insert("n".into(), json!(summary.n));
            facts.insert("files".into(), json!(summary.files));
            facts.insert("bytes".into(), json!(summary.bytes));
            facts.insert("read_bytes".into(), json!(summary.read));
            facts.insert("foreign".into(), json!(summary.foreign));
            Ok(Sealing::Sealed(Value::Object(facts)))
        }
    }
}

/// The log of a gateway has ids only, and says a thing once: the name, and how far it is, are for who asks.
fn being_sealed(vault: &Vault, run: &[u8], other: &str, (done, total): (u64, u64)) -> anyhow::Error {
    let known = vault.status().runs.into_iter().find(|known| known.run.to_string() == other);
    let name = known.and_then(|known| known.name).unwrap_or_else(|| other.as_bytes().to_vec());
    let what = if run == name || run == other.as_bytes() { visible(run) } else { other.to_owned() };
    refuse_with(
        Exit::Busy,
        format!("run {what} is being sealed, and there is one seal at a time"),
        format!(
            "of {} {} of {} are read back: runvault runs STORE shows when it is sealed",
            visible(&name),
            size(done),
            size(total)
        ),
    )
}

fn fault(fault: &runvault_vault::seal::Fault) -> Value {
    let mut object = Map::new();
    object.insert("object".into(), json!(fault.object));
    if let Some(path) = &fault.path {
        json_name(&mut object, "path", path);
    }
    let what = fault.damage.as_ref().map_or_else(|| "missing".to_owned(), ToString::to_string);
    object.insert("what".into(), json!(what));
    Value::Object(object)
}

/// An answer of a mount's process.
///
/// # Errors
/// What it could not do.
pub fn of_answer(answer: &Value) -> Result<Sealing> {
    if let Some(faults) = answer.get("refused").and_then(Value::as_array) {
        return Ok(Sealing::Refused(faults.clone()));
    }
    if let Some(sealed) = answer.get("sealed") {
        return Ok(Sealing::Sealed(sealed.clone()));
    }
    if answer.get("finished").is_some() {
        return Ok(Sealing::Finished);
    }
    let what = answer["error"].as_str().unwrap_or("the mount's process gave no answer that makes sense");
    let exit = match answer["exit"].as_u64() {
        Some(code) if code == Exit::Busy as u64 => Exit::Busy,
        Some(code) if code == Exit::Damaged as u64 => Exit::Damaged,
        Some(code) if code == Exit::Usage as u64 => Exit::Usage,
        _ => Exit::Failed,
    };
    match answer["hint"].as_str() {
        Some(hint) => Err(refuse_with(exit, what, hint)),
        None => Err(refuse(exit, what)),
    }
}

/// [`seal`] as such an answer.
pub fn answer(sealed: Result<Sealing>) -> Value {
    match sealed {
        Ok(Sealing::Sealed(said)) => json!({ "sealed": said }),
        Ok(Sealing::Refused(faults)) => json!({ "refused": faults }),
        Ok(Sealing::Finished) => json!({ "finished": true }),
        Ok(Sealing::Withheld) => json!({ "error": "the run is not complete" }),
        Err(error) => json!({
            "error": exit::chain(&error), "exit": exit::of(&error) as u8, "hint": hint(&error),
        }),
    }
}

/// A line of the log, and one on what is missing.
pub fn log_sealed(said: &Value) {
    let run = said["run"].as_str().unwrap_or_default();
    log::info!("run {run} is sealed: seal {} of this gateway", said["n"]);
    if said["complete"] == false {
        log::warn!("run {run} is incomplete: {} in all, {}", said["missing"], said["named"]);
    }
}

/// A line of the log for each thing that cannot be signed, without its plaintext name.
pub fn log_refused(run: &RunId, faults: &[Value]) {
    for fault in faults {
        let text = |key: &str| fault[key].as_str().unwrap_or_default();
        log::error!("run {run}: not sealed: {}: {}", text("object"), text("what"));
    }
}

/// Of the runs that are held here; with its name.
///
/// # Errors
/// There is none, or several.
pub fn find(vault: &Vault, run: &[u8]) -> Result<(RunId, Vec<u8>)> {
    let wanted: Option<RunId> = std::str::from_utf8(run).ok().and_then(|text| text.parse().ok());
    let runs = vault.status().runs;
    let found: Vec<_> = runs
        .iter()
        .filter(|r| !r.closed && (Some(r.run) == wanted || r.name.as_deref() == Some(run)))
        .collect();
    // What is sealed and what adds to it have one name.
    let writing: Vec<_> = found.iter().copied().filter(|r| found.len() == 1 || r.writing).collect();
    match writing.as_slice() {
        [one] => Ok((one.run, one.name.clone().unwrap_or_default())),
        [] => Err(refuse_with(
            Exit::Failed,
            format!("this machine holds no run {}", visible(run)),
            below_a_folder(&runs, run).map_or_else(
                || {
                    "it has another name, it was sealed already, or another gateway made it: runvault runs STORE shows \
                     them"
                        .to_owned()
                },
                is_it,
            ),
        )),
        _ => Err(refuse(Exit::Usage, format!("several runs are named {}: name one by its id", visible(run)))),
    }
}

/// The instrument's family, by the last component of the run's name.
pub fn family(run: &[u8]) -> Option<Family> {
    let last = run.rsplit(|b| *b == b'/').next().unwrap_or_default();
    Family::of_run(&std::str::from_utf8(last).ok().and_then(RunName::parse)?)
}

/// How far a run is, by the files in its top directory and the time since anything of it was changed. What `adds` to a
/// sealed run has no markers, and ends by silence alone.
pub fn progress_of(run: &[u8], adds: bool, top: &[Vec<u8>], quiet: Duration, patience: &Patience) -> State {
    if adds {
        return match quiet < patience.drained {
            true => State::Open,
            false => State::Complete { why: Why::Drained, quiet: true },
        };
    }
    let now = SystemTime::now();
    let markers = top.iter().filter_map(|name| {
        let marker = Marker::of_name(std::str::from_utf8(name).ok()?)?;
        // What counts is that it is there; how long it is quiet, the caller knows better.
        Some(Seen { marker, modified: now })
    });
    let last_write = now.checked_sub(quiet).unwrap_or(now);
    state(&Observation { family: family(run), markers: markers.collect(), last_write }, now, patience)
}

/// [`progress_of`] a run that this gateway holds.
pub fn progress_of_held(vault: &Vault, run: &HeldRun, top: &[Vec<u8>], patience: &Patience) -> State {
    let name = vault.held_name(&run.run).unwrap_or_default();
    progress_of(&name, run.continues, top, run.quiet, patience)
}

/// How it is called in `runs` and in metrics (docs/operations.md).
pub fn word(state: &State) -> &'static str {
    match state {
        State::Open => "open",
        State::Draining => "draining",
        State::Complete { why: Why::Abandoned, .. } => "silent",
        State::Complete { .. } => "complete",
    }
}

/// What so many missing things are told as, the first few by their names.
pub fn incomplete<'a>(count: u64, named: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<_> = named.take(SHOWN).collect();
    let more = count.saturating_sub(shown.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("incomplete: {}{more}", shown.join(", "))
}

/// The text on the run in its manifest (docs/format.md).
fn about(
    name: &[u8],
    ended: &str,
    contents: &mut Contents<'_>,
) -> runvault_vault::Result<Map<String, Value>> {
    let family = family(name);
    let run_info =
        contents.read(RUN_INFO.as_bytes(), RUN_INFO_MAX)?.and_then(|xml| String::from_utf8(xml).ok());
    let found: HashSet<String> =
        contents.files().filter_map(|(path, _)| String::from_utf8(path).ok()).collect();
    let compared = family.zip(run_info).and_then(|(family, xml)| {
        completeness::of_run(family, &xml, &found)
            .inspect_err(|error| log::warn!("whether the run is complete is not known: {error}"))
            .ok()
    });
    let mut about = Map::new();
    about.insert("ended".into(), json!(ended));
    about.insert("family".into(), json!(family.map(|family| family.profile().name)));
    about.insert("complete".into(), json!(compared.as_ref().map(|c| c.missing.is_empty())));
    about.insert("expected".into(), json!(compared.as_ref().map(|c| c.expected)));
    about.insert("missing".into(), json!(compared.as_ref().map(|c| c.missing.len())));
    let named: Vec<&String> = compared.iter().flat_map(|c| c.missing.iter().take(NAMED)).collect();
    about.insert("named".into(), json!(named));
    about.insert("ledger".into(), json!(contents.noted()));
    Ok(about)
}
