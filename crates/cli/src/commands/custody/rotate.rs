//! `custody rotate`: a new vault key under the same runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use runvault_custody::chain::Chain;
use runvault_custody::rotate::{RotateSummary, resume, rotate};

use super::drill;
use crate::args::Rotate;
use crate::exit::{Exit, refuse_with};
use crate::given::given;
use crate::output::{self, count, quoted};
use crate::store::Store;
use crate::{progress, signals};

pub fn run(args: &Rotate) -> Result<()> {
    let mut store = Store::open(&args.store, &args.who)?;
    store.require_one_custodian("rotate the vault key")?;
    let owner = store.identity(&args.who)?;
    let bar = progress::items(0, "runs");
    let sealing = Arc::new(AtomicBool::new(args.resume));
    end_at_ctrl_c(args, &sealing)?;
    let act = if args.resume { resume } else { rotate };
    let summary = act(&store.root, &store.chain, &owner, &mut |done, total| {
        sealing.store(true, Ordering::Relaxed);
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    // Also after a failure: the new state may stand, and must not be taken back unseen.
    let chain = Chain::load(&store.root)?;
    store.pin(&chain)?;
    let other_first = matches!(summary, Err(runvault_custody::Error::ChangedMeanwhile));
    if summary.is_err() && !other_first && chain.epoch() > store.chain.epoch() {
        output::warn(&format!(
            "vault key {} was made, but not all runs are sealed to it: runvault custody rotate --resume {}{}",
            chain.epoch(),
            store.typed(),
            given(&args.who)
        ));
    }
    let before = store.chain.epoch();
    store.chain = chain;
    let summary = summary?;
    let told = tell(args, &summary, before);
    if !args.json {
        drill::tell_due(&store)?;
    }
    told
}

/// Any point is as good as another: every run stays readable.
fn end_at_ctrl_c(args: &Rotate, sealing: &Arc<AtomicBool>) -> Result<()> {
    let (store, options, sealing) = (quoted(&args.store), given(&args.who), Arc::clone(sealing));
    signals::end_with(move || {
        let resume = if sealing.load(Ordering::Relaxed) { "--resume " } else { "" };
        format!("every run stays readable; go on with: runvault custody rotate {resume}{store}{options}")
    })
}

/// `before`: the epoch when the command began.
fn tell(args: &Rotate, summary: &RotateSummary, before: u32) -> Result<()> {
    if args.json {
        let failed = summary
            .failed
            .iter()
            .map(|(run, why)| serde_json::json!({ "run": run.to_string(), "why": why }))
            .collect::<Vec<_>>();
        output::json(&serde_json::json!({
            "epoch": summary.epoch,
            "resumed": args.resume,
            "rotated": summary.rotated,
            "already": summary.already,
            "failed": failed,
        }))?;
    } else {
        let how = match summary.epoch.saturating_sub(before) {
            _ if args.resume && !summary.failed.is_empty() => "Made no new key; went on with the rotation to",
            _ if args.resume => "Made no new key; finished the rotation to",
            0 | 1 => "Made",
            _ => "Made a new key, and finished the rotation of someone else, who made a newer one meanwhile:",
        };
        let already = match summary.already {
            0 => String::new(),
            already => format!(", and {} that had been already", count(already, "run")),
        };
        output::line(&format!(
            "{how} vault key {}: {} sealed to it{already}.\n\n\
             What an old copy of the store still opens: the owner's key opens the runs that are in it, as before.\n\
             The vault key that was replaced opens them too, for whoever kept it, until a run gets a new key (runvault\n\
             custody rekey). It opens no run that is made from now on, where the gateway is shown this line.",
            summary.epoch,
            count(summary.rotated, "run"),
        ))?;
    }
    if summary.failed.is_empty() {
        return Ok(());
    }
    for (run, why) in &summary.failed {
        output::warn(&format!("run {run} was left as it was: {why}"));
    }
    Err(refuse_with(
        Exit::Damaged,
        format!("{} could not be sealed to the new key", count(summary.failed.len() as u64, "run")),
        format!(
            "they keep the envelopes that they have; those that still open are read as before. Where none opens or is\n\
             left: mount the store again on the machine that writes the run; it has the run's key still and makes the\n\
             envelope anew. runvault check {} says more",
            quoted(&args.store)
        ),
    ))
}
