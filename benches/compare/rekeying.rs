//! `rekey` of a sealed run beside `cp` of the same run through the mount, until all is durable.
//!
//! `cp -r` reads the sealed run and writes another one, which is open, through the owner's mount; then the store is synced.
//! `rekey` is the whole command: it also reads back what it wrote, seals it, and removes the old run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::home::Home;
use crate::machine;
use crate::mounted::run;
use crate::proofs::{FILES, timed, write};
use crate::report::{line, median, share};
use crate::subjects::Programs;
use crate::vault::Vault;
use crate::workload::Load;

/// Of cp's speed.
const WANTED: f64 = 0.8;
const RUN: &str = "rekeying";

/// Medians of `rounds`, each with a vault of its own, as a table.
///
/// # Errors
/// The programs'.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load, rounds: usize) -> Result<String> {
    let (mut copied, mut rekeyed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let [cp, rekey] = one_round(place, programs, load)?;
        copied.push(cp);
        rekeyed.push(rekey);
    }
    let head = format!(
        "{} ({}), a sealed run of {} MiB in {FILES} files",
        place.display(),
        machine::file_system(place),
        load.mib
    );
    let mut text =
        line(&[head, "s".into(), "MiB/s".into(), "of cp's speed".into()]) + "\n|---|---|---|---|\n";
    let [cp, rekey] = [&copied, &rekeyed].map(|seconds| median(seconds).context("no rounds"));
    let (cp, rekey) = (cp?, rekey?);
    let row = |what: &str, took: f64, reached: String| {
        line(&[what.to_owned(), format!("{took:.2}"), format!("{:.0}", load.mib as f64 / took), reached])
            + "\n"
    };
    text += &row("cp through the mount, and sync", cp, String::new());
    text += &row("rekey, read back", rekey, share(cp / rekey, WANTED));
    Ok(text)
}

/// Seconds of both.
fn one_round(place: &Path, programs: &Programs, load: &Load) -> Result<[f64; 2]> {
    let home = Home::new(place, RUN)?;
    let vault = Vault::new(programs, &home)?;
    let gateway = vault.gateways_mount()?;
    let dir = gateway.at.join(RUN);
    write(&dir, load).with_context(|| dir.display().to_string())?;
    vault.seal(RUN)?;
    gateway.stop()?;
    vault.agree_to_rekey(RUN)?;
    let owner = vault.owners_mount()?;
    let both = "cp -r \"$0/$1\" \"$0/copy\" && sync -f \"$2\"";
    let copied =
        timed(|| run(Command::new("sh").args(["-c", both]).arg(&owner.at).arg(RUN).arg(vault.store())))?;
    let rekeyed = timed(|| vault.rekey(RUN))?;
    owner.stop()?;
    Ok([copied, rekeyed])
}
