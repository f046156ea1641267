//! `custody rotate` over many runs: the CPU that each costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runvault_crypto::aead::Engine;
use runvault_crypto::secrets::Secret;
use runvault_custody::authority::Acting;
use runvault_custody::chain::Chain;
use runvault_custody::gateway::StateFolder;
use runvault_custody::identity::Identity;
use runvault_custody::{init, rotate};
use runvault_format::descriptor::RunKind;
use runvault_format::ids::{RunId, SessionId};
use runvault_format::keys::{RunKey, RunKeys};
use runvault_store::backend::Dir;
use runvault_store::posix;
use runvault_vault::authority::{Authority, Gateway, Resume};
use runvault_vault::runs::new_descriptor;
use rustix::time::{ClockId, clock_gettime};

use crate::home::Home;
use crate::machine;

/// The most CPU that a run may cost.
pub(crate) const TARGET: Duration = Duration::from_millis(5);

/// A vault with `runs` runs of no files at each place, and one rotation of its key: a table.
///
/// # Errors
/// The store's; runs that the rotation left out.
pub(crate) fn table(places: &[PathBuf], runs: u64) -> Result<String> {
    let mut table = format!(
        "| rotation of {runs} runs | ms of CPU a run | target | s of wall clock |\n|---|---|---|---|\n"
    );
    for place in places {
        let (cpu, wall) = measured(place, runs).with_context(|| format!("in {}", place.display()))?;
        let (name, kind) = (place.display(), machine::file_system(place));
        let each = cpu.as_secs_f64() * 1e3 / runs as f64;
        let (target, wall) = (TARGET.as_millis(), wall.as_secs_f64());
        table += &format!("| {name} ({kind}) | {each:.2} | under {target} | {wall:.1} |\n");
    }
    Ok(table)
}

fn measured(place: &Path, runs: u64) -> Result<(Duration, Duration)> {
    let home = Home::new(place, "rotation")?;
    let [store, state] = home.directories(["store", "state"])?;
    let root = posix::open_root(&store)?;
    let owner = Identity::generate("owner")?;
    init::init(&root, &owner, None)?;
    let mut chain = Chain::load(&root)?;
    let gateway = StateFolder::open(&state, chain.vault_id())?;
    gateway.enroll(&root, &mut chain, &owner)?;
    gateway.settle(&root)?;
    let authority = Acting::gateway_only(chain.clone());
    (0..runs).try_for_each(|_| make_run(&root, &*authority, &gateway))?;

    let (wall, before) = (Instant::now(), cpu());
    let summary = rotate::rotate(&root, &chain, &owner, &mut |_, _| {})?;
    let spent = (cpu() - before, wall.elapsed());
    ensure!(summary.rotated == runs, "{} of {runs} runs were rotated", summary.rotated);
    Ok(spent)
}

/// A run as the engine makes it, without name and files, which a rotation does not look at.
///
/// # Errors
/// The gateway's and the store's.
pub(crate) fn make_run(root: &Arc<dyn Dir>, authority: &dyn Authority, gateway: &StateFolder) -> Result<()> {
    let mut ids = [0; 32];
    runvault_crypto::random::fill(&mut ids)?;
    let (run, session) = ids.split_at(16);
    let (run, session) = (RunId(run.try_into()?), SessionId(session.try_into()?));
    let resume = Resume { key: RunKey(Secret::random()?), session };
    let keys = RunKeys::derive(&resume.key, &run, Engine::Portable);
    let sealed = authority.seal_run(&run, &resume.key)?;
    let mut text = |place| {
        let descriptor =
            new_descriptor(authority.vault_id(), &sealed, gateway.id(), place, run, RunKind::Run, &keys);
        Ok(descriptor.to_text()?)
    };
    let note = gateway.begin_run(&run, &resume, &mut text)?;
    let runs = root.open_dir(b"runs")?;
    let name = run.to_string();
    runs.create_dir(name.as_bytes(), 0o755)?;
    let dir = runs.open_dir(name.as_bytes())?;
    dir.create_file(b"run.json", 0o644)?.write_at(&note, 0)?;
    dir.create_dir(b"keys", 0o755)?;
    let keys = dir.open_dir(b"keys")?;
    for envelope in &sealed.envelopes {
        keys.create_file(envelope.name.as_bytes(), 0o644)?.write_at(&envelope.bytes, 0)?;
    }
    Ok(gateway.commit_run(&run)?)
}

/// What this process has spent, in user space and in the kernel.
fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), u32::try_from(spent.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a measurement: a program without optimisations, beside other tests. It tells when a run costs more than it
    /// may by far, such as one passphrase each.
    #[test]
    fn a_run_costs_little() {
        let (spent, _) = measured(Path::new("/dev/shm"), 300).unwrap();
        assert!(spent / 300 < 10 * TARGET, "{spent:?} for 300 runs");
    }
}
