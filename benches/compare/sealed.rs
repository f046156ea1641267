//! Reading a sealed run beside an open one of the same files, through one mount.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::home::Home;
use crate::report::{grouped, line, median, share};
use crate::subjects::Programs;
use crate::vault::Vault;
use crate::workload::{self, Load, Row};
use crate::{machine, rate};

/// Shares of an open run's rate.
const READS: f64 = 0.95;
const WALK: f64 = 1.0;

/// Runs of each state: a large file in one, many small ones in another, as the rows that write leave them.
const STATES: [&str; 2] = ["open", "sealed"];

/// Medians of `rounds`, as a table.
///
/// # Errors
/// The program's and the store's.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load, rounds: usize) -> Result<String> {
    let home = Home::new(place, "sealed")?;
    let vault = Vault::new(programs, &home)?;
    let gateway = vault.gateways_mount()?;
    let (writing, reading) = (workload::writes_of_a_run(), workload::reads_of_a_run());
    for state in STATES {
        for row in &writing {
            let dir = gateway.at.join(run_of(row, state));
            std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
            (row.run)(&dir, load)?;
        }
    }
    writing.iter().try_for_each(|row| vault.seal(&run_of(row, "sealed")))?;
    gateway.stop()?;
    let mount = vault.owners_mount()?;
    let mut text = line(&[
        format!("{} ({})", place.display(), machine::file_system(place)),
        "unit".into(),
        "open run".into(),
        "sealed run".into(),
        "sealed of open".into(),
    ]) + "\n|---|---|---|---|---|\n";
    for row in &reading {
        let mut rates = [Vec::new(), Vec::new()];
        for turn in 0..rounds * row.times() * STATES.len() {
            // Who comes first changes from one pair to the next.
            let which = (turn + turn / STATES.len()) % STATES.len();
            let (Some(state), Some(rates)) = (STATES.get(which), rates.get_mut(which)) else {
                bail!("no run")
            };
            rates.push(rate(row, &mount.at.join(run_of(row, state)), load)?);
        }
        let [Some(open), Some(sealed)] = rates.each_ref().map(|rates| median(rates)) else {
            bail!("no rounds")
        };
        let wanted = if row.name.starts_with("walk") { WALK } else { READS };
        let cells =
            [row.name.into(), row.unit.into(), grouped(open), grouped(sealed), share(sealed / open, wanted)];
        text += &(line(&cells) + "\n");
    }
    mount.stop()?;
    Ok(text)
}

/// The run that a row works on: each has one kind of files.
fn run_of(row: &Row, state: &str) -> String {
    let files = if row.of_large_file { "stream" } else { "tiles" };
    format!("{files}-{state}")
}
