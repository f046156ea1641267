//! `runs`: how far each run is, from the mount that writes them where there is one.

use anyhow::Result;
use runvault_sequencer::completion::Patience;
use serde_json::Value;

use crate::args::Runs;
use crate::control::{Client, runs_request};
use crate::output::{self, size, visible};
use crate::run_report;
use crate::store::Store;

pub fn run(args: &Runs) -> Result<()> {
    let store = Store::open(&args.store, &args.who)?;
    let runs = of_store(args, &store)?;
    if args.json {
        return runs.iter().try_for_each(output::json);
    }
    output::bytes(as_text(&runs).as_bytes())
}

/// Whoever names a key wants to see what it opens.
fn of_store(args: &Runs, store: &Store) -> Result<Vec<Value>> {
    if !args.who.names_a_key()
        && let Ok(mut client) = Client::of_state(&store.state_of_vault()).map(Client::patient)
        && let Ok(mut answer) = client.ask(&runs_request())
        && let Some(Value::Array(runs)) = answer.get_mut("runs").map(Value::take)
    {
        return Ok(runs);
    }
    let open = if args.who.names_a_key() {
        store.read(&args.who, runvault_vault::Options::default())?
    } else {
        store.look()?
    };
    let runs = run_report::of_vault(&open.vault, &args.store, &Patience::default());
    open.close()?;
    Ok(runs)
}

fn as_text(runs: &[Value]) -> String {
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let head = ["RUN", "STATE", "FILES", "SIZE", "RATE", "CYCLE", "LAST WRITE", "WAITS FOR"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(row));
    output::table(&rows, &[2, 3, 4, 5])
}

fn row(run: &Value) -> Vec<String> {
    let text = |key: &str| run.get(key).and_then(Value::as_str).map(|text| visible(text.as_bytes()));
    let number = |key: &str| run.get(key).and_then(Value::as_u64);
    let dash = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let cycle = number("cycle").zip(number("cycles")).map(|(cycle, cycles)| format!("{cycle}/{cycles}"));
    vec![
        dash(text("name").or_else(|| text("run"))),
        dash(text("state")),
        dash(number("files").map(|n| n.to_string())),
        dash(number("bytes").map(size)),
        dash(number("bytes_per_second").map(|rate| format!("{}/s", size(rate)))),
        dash(cycle),
        dash(text("last_write").or_else(|| text("sealed"))),
        dash(text("trouble").or_else(|| incomplete(run)).or_else(|| text("waits_for"))),
    ]
}

/// What is missing of a run that is over.
fn incomplete(run: &Value) -> Option<String> {
    let missing = run.get("missing")?.as_u64().filter(|n| *n > 0)?;
    let named: Vec<&str> = run.get("named")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let shown = named.iter().take(3).map(|name| visible(name.as_bytes())).collect::<Vec<_>>().join(", ");
    let more = if missing > 3 { format!(" and {} more", missing - 3) } else { String::new() };
    Some(format!("incomplete: {shown}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_read_well() {
        let text = as_text(&[
            json!({ "run": "00", "name": "a\u{1b}", "state": "open", "files": 3, "bytes": 2048, "cycle": 2,
                "cycles": 151, "bytes_per_second": 1024, "last_write": "t", "waits_for": "cycle 3 of 151" }),
            json!({ "run": "01", "name": null, "state": "sealed", "files": 1, "bytes": 1, "sealed": "u",
                "missing": 5, "named": ["L003 C112.1", "b", "c", "d", "e"] }),
        ]);
        assert!(text.contains("a\\x1b  open        3  2.0 KiB  1.0 KiB/s  2/151  t"), "{text}");
        assert!(text.contains("incomplete: L003 C112.1, b, c and 2 more"), "{text}");
        assert_eq!(as_text(&[]), "no runs\n");
    }
}
