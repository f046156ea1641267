//! What sites do without runvault: the run lies there in plaintext until it is over, then `tar | pigz | gpg`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runvault_sequencer::replay::Summary;
use runvault_sequencer::{Family, Mode, Replay, RunSpec, Size};

use crate::home::Home;
use crate::machine;
use crate::mounted::run;
use crate::report::{grouped, line};
use crate::subjects::Programs;
use crate::vault::Vault;
use crate::workload::Load;

/// A NovaSeq X flow cell 25B: bytes, and how long the instrument writes them.
const REAL_BYTES: f64 = 5.2e12;
const REAL_HOURS: f64 = 42.0;

/// The same generated run of about `load`'s size in MiB, in both ways: a table.
///
/// # Errors
/// The programs'; tar, pigz or gpg are missing.
pub(crate) fn table(place: &Path, programs: &Programs, load: &Load) -> Result<String> {
    let home = Home::new(place, "afterwards")?;
    let [plain, keys] = home.directories(["plain", "gnupg"])?;
    fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let spec = RunSpec::preset(Family::NovaSeqX, Size::Demo);
    let spec = spec.clone().scaled((load.mib << 20) as f64 / spec.estimated_bytes() as f64);
    let written = Replay::new(spec.clone()).run(&plain, &mut |_| {})?;
    let vault = Vault::new(programs, &home)?;
    let mount = vault.gateways_mount()?;
    // The same files again, so that none of them is made while the clock runs.
    let replay = Replay::new(spec).originals(&written.folder).mode(Mode::Sequential);
    let while_written = replay.run(&mount.at, &mut |_| {})?;
    mount.stop()?;
    let archive = home.0.join("archive");
    let took = encrypt(&written, &archive, &keys)?;
    let archived = fs::metadata(&archive)?.len();
    Ok(shown(place, &while_written, took, archived))
}

fn encrypt(written: &Summary, archive: &Path, keys: &Path) -> Result<Duration> {
    let to = "runvault-compare@example.org";
    let gpg = || {
        let mut gpg = Command::new("gpg");
        gpg.env("GNUPGHOME", keys).args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--trust-model",
            "always",
        ]);
        gpg
    };
    run(gpg().args(["--quick-generate-key", to, "rsa3072", "encrypt"]))?;
    let pipe = "set -e -o pipefail; tar -C \"$1\" -cf - . | pigz | gpg --batch --quiet --trust-model always \
                --compress-algo none -r \"$2\" -o \"$3\" -e";
    machine::drop_caches();
    let begin = Instant::now();
    let mut shell = Command::new("bash");
    shell.env("GNUPGHOME", keys).args(["-c", pipe, "bash"]).arg(&written.folder).arg(to).arg(archive);
    let piped = run(&mut shell).context("tar, pigz and gpg are needed");
    let took = begin.elapsed();
    // Its agent would outlive the keys.
    let _ = run(Command::new("gpgconf").env("GNUPGHOME", keys).args(["--kill", "gpg-agent"]));
    piped?;
    ensure!(archive.exists(), "nothing was written");
    Ok(took)
}

fn shown(place: &Path, through_mount: &Summary, took: Duration, archived: u64) -> String {
    let bytes = through_mount.bytes as f64;
    let hours = |seconds: f64| seconds / bytes * REAL_BYTES / 3600.0;
    let (writing, packing) = (hours(through_mount.writing.as_secs_f64()), hours(took.as_secs_f64()));
    let (mb, times) = (|bytes: f64| grouped(bytes / 1e6), |moved: f64| moved / bytes * REAL_BYTES / 1e12);
    let head = format!(
        "{} ({}), a run of {} MB in {} files",
        place.display(),
        machine::file_system(place),
        mb(bytes),
        through_mount.files
    );
    // The run is written, read again for the archive, which is written; the originals are then overwritten or kept.
    let moved = 2.0 * bytes + archived as f64;
    let rows = [
        [head, "tar, pigz, gpg afterwards".into(), "runvault while it is written".into()],
        [
            "s for this run".into(),
            format!("{:.1}", took.as_secs_f64()),
            format!("{:.1} of writing", through_mount.writing.as_secs_f64()),
        ],
        ["MB moved for this run".into(), mb(moved), mb(bytes)],
        [
            "hours after the last cycle, of 5.2 TB".into(),
            format!("{packing:.1}"),
            format!("0 ({writing:.1} of the run's {REAL_HOURS:.0} spent in writes)"),
        ],
        ["TB moved, of 5.2 TB".into(), format!("{:.1}", times(moved)), format!("{:.1}", times(bytes))],
        ["minutes in plaintext, of 5.2 TB".into(), grouped((REAL_HOURS + packing) * 60.0), "0".into()],
    ];
    let mut lines = rows.iter().map(|row| line(row) + "\n");
    lines.next().unwrap_or_default() + "|---|---|---|\n" + &lines.collect::<String>()
}
