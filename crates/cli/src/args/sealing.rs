//! Arguments of the commands about runs, from the first byte to the seal and after.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Who;

/// How fast whole runs are read.
#[derive(Args, Clone, Copy, Debug)]
pub struct Pace {
    /// Read no faster than that, to leave the store to those who work [default: as fast as it goes]
    #[arg(long, value_name = "MIB/S", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Whether what an earlier command has read counts.
#[derive(Args, Clone, Copy, Debug)]
pub struct Resuming {
    /// Read everything, also what the same command had found as it was sealed before it was interrupted. Without this it
    /// goes on from there, for up to 7 days
    #[arg(long)]
    pub fresh: bool,
}

/// Look for what would spoil a run, before it begins
///
/// Which vault it is, whether this machine is enrolled, space, write speed (128 MiB in a file without a name, which is
/// gone at once), clocks, swap, memory, permissions, FUSE. Exits with 1 if something is in the way; a warning is none.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault doctor /srv/store
  runvault doctor --need 6000 /srv/store                  a NovaSeq X flow cell is 5.2 TB of base calls
  runvault doctor --json /srv/store | jq -r 'select(.verdict != \"good\") | .what'")]
pub struct Doctor {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Space that the run will need, in GiB
    #[arg(long, value_name = "GIB")]
    pub need: Option<u64>,
    /// Print JSON: an object for each thing, one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Show how far each run is, and what it waits for
///
/// Beside an instrument the mount's process is asked, and no key is needed for the runs that are being written. With a
/// key, each run that it opens is looked at. Without either, what is signed is shown: which runs there are, and which
/// of them are sealed, with how many files and bytes.
/// A gateway's mount also says which alarms are raised.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault runs /srv/store                                        on the gateway: what is written, and how far
  runvault runs --passphrase-file /root/pass /srv/store           all runs, by name
  runvault runs --json /srv/store | jq -r 'select(.complete == false) | .name'
  runvault runs --watch /srv/store                                the same, live, until q is typed")]
pub struct Runs {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// A live view on this terminal: runs, cycles, rates, states, alarms. It goes with q or Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// Print JSON: an object for each run, then one for each alarm (with the key `alarm`), one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Seal a run: read it back, sign what is there, erase its key on this machine
///
/// The gateway that made the run can, or one that was admitted to it (`gateway admit`, `takeover`); no passphrase is
/// asked for. Every file is read back from the store and must authenticate; nothing of the run may be open. What RunInfo.xml promises and is not there is said in the seal. From
/// then on this machine can neither read nor change the run; the owner and its readers can read it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault seal /srv/store 240101_NB501
  runvault seal --state /var/lib/runvault /srv/store 240101_NB501      also while it is mounted
  runvault seal --limit 200 /srv/store 240101_NB501                    200 MiB a second
  runvault seal --json /srv/store 240101_NB501 | jq .missing")]
pub struct Seal {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The run's name (with --run-depth 2 INSTRUMENT/RUN) or id
    pub run: OsString,
    #[command(flatten)]
    pub pace: Pace,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Compare a sealed run with its seal: every name, attribute, byte and version
///
/// Names each file that is damaged, missing, added, changed, swapped or older than it was sealed, and exits with 4 if
/// there is one. Says all that `scrub` says of this run, and more. Writes nothing to the store. Interrupted and started
/// again it goes on: what it had found as sealed is not read again, what it had found otherwise is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault verify /srv/store 240101_NB501
  runvault verify --limit 100 /srv/store 240101_NB501     while an instrument writes: 100 MiB a second
  runvault verify --json /srv/store 240101_NB501 | jq -r 'select(.change) | .path'")]
pub struct Verify {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The run's name (with --run-depth 2 INSTRUMENT/RUN), which takes what was added to it and sealed too, or
    /// the id of one part
    pub run: OsString,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub resuming: Resuming,
    /// Print JSON: an object for each finding, and one for the summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Compare the store with its signatures, without any key
///
/// Verifies the chain of custody, the signature of every run and of every seal, and the hash of everything that a
/// seal lists, on all cores. For whoever keeps or moves the store. Names each stored file that is missing, added or
/// changed, and exits with 4 if there is one. Interrupted and started again it goes on: what it had found as sealed is not
/// read again, what it had found otherwise is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault scrub /srv/store                               again after Ctrl-C or a power cut: it goes on
  runvault scrub --fresh /srv/store                       reads all of it, whatever was read before
  runvault scrub --limit 50 /srv/store                    50 MiB a second
  runvault scrub --json /backup/store | jq -r 'select(.change) | .object'")]
pub struct Scrub {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub pace: Pace,
    #[command(flatten)]
    pub resuming: Resuming,
    /// Print JSON: an object for each finding, and one for the summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Print the signed list of a sealed run's files
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault manifest /srv/store 240101_NB501
  runvault manifest --sha256sums /srv/store 240101_NB501 > sums
  cd /mnt/runs/240101_NB501 && sha256sum -c ~/sums      in a mount of the run, or a copy")]
pub struct ManifestOf {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The run's name (with --run-depth 2 INSTRUMENT/RUN), which takes what was added to it and sealed too, or
    /// the id of one part
    pub run: OsString,
    /// Hashes and paths as sha256sum(1) prints them
    #[arg(long, conflicts_with = "json")]
    pub sha256sums: bool,
    /// Print JSON: an object for each entry, one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Say, as the owner, that a run is not missed when it is gone from this store
///
/// A run that is taken out of a store leaves a gap that `scrub` names, and machines that have seen it refuse the store
/// where it was its gateway's newest. For one that goes on purpose, moved to other storage or deleted, or of a gateway
/// that is lost, this signs a note. It removes nothing: move or remove STORE/runs/ID afterwards. An empty run that this
/// machine made needs none: remove its folder in the mount. What was added to a run is runs of their own, each with its
/// id.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault retire /srv/store 240101_NB501 --reason \"moved to tape 17\"
  runvault retire --json /srv/store 240101_NB501 | jq -r .run        the folder that can go")]
pub struct Retire {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The run's name or id
    pub run: OsString,
    /// Why, for who finds the note
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}
