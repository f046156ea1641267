//! `runs`: how far each run is, from the mount that writes them where there is one.

use anyhow::Result;

use crate::args::Runs;
use crate::output;
use crate::run_rows::{self, Seen, cycle, last_write, name, number, rate, text, waits_for};
use crate::run_source::Source;
use crate::store::Store;
use crate::{undone, watch};

pub fn run(args: &Runs) -> Result<()> {
    if args.watch {
        watch::require_terminal()?;
    }
    let store = Store::open(&args.store, &args.who)?;
    let source = Source::of(args, &store)?;
    if args.watch {
        return watch::run(source, &args.store);
    }
    let mut seen = Seen { runs: source.runs()?, alarms: source.alarms() };
    source.close()?;
    let undone = undone::of(&store)?;
    for one in &undone {
        let id = one.of.run.to_string();
        for run in seen.runs.iter_mut().filter(|run| run["run"] == id.as_str()) {
            run["state"] = "damaged".into();
            run["trouble"] = one.to_string().into();
        }
    }
    if args.json {
        seen.runs.iter().chain(&seen.alarms).try_for_each(output::json)?;
    } else {
        output::bytes(as_text(&seen).as_bytes())?;
    }
    undone::end(&undone, &args.store)
}

fn as_text(seen: &Seen) -> String {
    if seen.runs.is_empty() && seen.alarms.is_empty() {
        return "no runs\n".to_owned();
    }
    let head = ["RUN", "STATE", "FILES", "SIZE", "RATE", "CYCLE", "LAST WRITE", "WAITS FOR"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(seen.runs.iter().map(row));
    output::table(&rows, &[2, 3, 4, 5]) + &alarms_as_text(seen)
}

fn alarms_as_text(seen: &Seen) -> String {
    if seen.alarms.is_empty() {
        return String::new();
    }
    let mut rows = vec![["ALARM", "RUN", "SAYS"].map(str::to_owned).to_vec()];
    rows.extend(seen.alarms.iter().map(|alarm| run_rows::alarm(seen, alarm).to_vec()));
    format!("\n{}", output::table(&rows, &[]))
}

fn row(run: &serde_json::Value) -> Vec<String> {
    let cells = [
        name(run),
        text(run, "state"),
        number(run, "files").map(|n| n.to_string()),
        number(run, "bytes").map(output::size),
        number(run, "bytes_per_second").map(rate),
        cycle(run),
        last_write(run),
        waits_for(run),
    ];
    cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_read_well() {
        let mut seen = Seen {
            runs: vec![
                json!({ "run": "00", "name": "a\u{1b}", "state": "open", "files": 3, "bytes": 2048, "cycle": 2,
                    "cycles": 151, "bytes_per_second": 1024, "last_write": "t", "waits_for": "cycle 3 of 151" }),
                json!({ "run": "01", "name": null, "state": "sealed", "files": 1, "bytes": 1, "sealed": "u",
                    "missing": 5, "named": ["L003 C112.1", "b", "c", "d", "e"] }),
            ],
            alarms: Vec::new(),
        };
        let text = as_text(&seen);
        assert!(text.contains("a\\x1b  open        3  2.0 KiB  1.0 KiB/s  2/151  t"), "{text}");
        assert!(text.contains("incomplete: L003 C112.1, b, c and 2 more"), "{text}");
        assert!(!text.contains("ALARM"), "{text}");
        seen.alarms = vec![
            json!({ "alarm": "stuck", "run": "00", "text": "silent" }),
            json!({ "alarm": "slow", "run": null, "text": "\u{1b}" }),
        ];
        let text = as_text(&seen);
        assert!(
            text.ends_with("\n\nALARM  RUN    SAYS\nstuck  a\\x1b  silent\nslow          \\x1b\n"),
            "{text}"
        );
        assert_eq!(as_text(&Seen::default()), "no runs\n");
    }
}
