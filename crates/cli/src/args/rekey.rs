//! Arguments of the work that a re-keying is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueHint};
use runvault_vault::seal::rekey::Shard;

use super::Who;
use super::sealing::Pace;

/// Do the work of a re-keying that was agreed on: copy sealed runs under their new keys
///
/// Before it: `runvault custody rekey`, or `custody propose ... rekey`, whose `execute` writes the key for this
/// (REQ.worker). Each file is read, encrypted anew, written; then all of it is read back and sealed, the new run takes the
/// place of the old one, and the old one is removed. Mounts stay up. May be interrupted at any point and started again: it
/// goes on with the files that are missing. Any number of processes, also on several machines, may work at once, each on
/// its part (--shard). Needs the space of the run once more.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault rekey /srv/store --identity req.worker              all its runs
  runvault rekey /srv/store 240101_NB501                       one owner
  runvault rekey /srv/store --identity req.worker --shard 2/8  one of eight
  sbatch --array=1-8 --wrap 'runvault rekey /srv/store --identity req.worker \\
    --shard $SLURM_ARRAY_TASK_ID/8'")]
pub struct Rekey {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Runs, by the name, the old id or the new one [default: all that wait for this key]
    #[arg(value_name = "RUN")]
    pub runs: Vec<OsString>,
    /// Copy part I of N of the files; whoever finds all files there makes the seal
    #[arg(long, value_name = "I/N")]
    pub shard: Option<ShardOf>,
    /// How long the old run stays beside the new one, so that mounts find that before the old one goes
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    #[command(flatten)]
    pub pace: Pace,
    /// Print JSON: an object for each run, and one more where the worker's key was erased
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// I/N as it is typed.
#[derive(Clone, Copy, Debug)]
pub struct ShardOf(pub Shard);

impl FromStr for ShardOf {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self(Shard { number, of })),
            _ => Err("I/N: a number from 1 to N, and N"),
        }
    }
}
