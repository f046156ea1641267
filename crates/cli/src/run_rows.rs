//! Runs and alarms as people see them: the same cells in the table of `runs` and in its live view.

use serde_json::Value;

use crate::given::with_store;
use crate::output::{size, visible};
use crate::sealing;

/// What `runs` has found out at one moment, as JSON.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// An object for each run.
    pub runs: Vec<Value>,
    /// An object for each alarm that is raised.
    pub alarms: Vec<Value>,
}

/// A text of an object that came from elsewhere, safe for a terminal.
pub fn text(object: &Value, key: &str) -> Option<String> {
    object.get(key).and_then(Value::as_str).map(|text| visible(text.as_bytes()))
}

/// A text for a terminal that may quote what came from elsewhere.
pub fn safe(text: &str) -> String {
    visible(text.as_bytes())
}

pub fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key).and_then(Value::as_u64)
}

/// Its name where it opens here, else its id.
pub fn name(run: &Value) -> Option<String> {
    text(run, "name").or_else(|| text(run, "run"))
}

pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

pub fn cycle(run: &Value) -> Option<String> {
    number(run, "cycle").zip(number(run, "cycles")).map(|(cycle, cycles)| format!("{cycle}/{cycles}"))
}

pub fn last_write(run: &Value) -> Option<String> {
    text(run, "last_write").or_else(|| text(run, "sealed"))
}

/// What stands in its way, what it lacks, or what it waits for.
pub fn waits_for(run: &Value) -> Option<String> {
    text(run, "trouble")
        .map(|why| with_store(&why))
        .or_else(|| incomplete(run))
        .or_else(|| text(run, "waits_for"))
}

/// What is missing of a run that is over.
fn incomplete(run: &Value) -> Option<String> {
    let missing = run.get("missing")?.as_u64().filter(|n| *n > 0)?;
    let named = run.get("named")?.as_array()?.iter().filter_map(Value::as_str);
    Some(safe(&sealing::incomplete(missing, named)))
}

/// `stuck  RUN  what it says`, the run by its name where `seen` has it.
pub fn alarm(seen: &Seen, alarm: &Value) -> [String; 3] {
    let of_run = seen.runs.iter().find(|run| !alarm["run"].is_null() && run["run"] == alarm["run"]);
    let about = of_run.and_then(name).or_else(|| text(alarm, "run"));
    [text(alarm, "alarm"), about, text(alarm, "text")].map(Option::unwrap_or_default)
}
