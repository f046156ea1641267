//! What can be typed: the one source of help texts, man pages and completions.

mod alarms;
mod audit;
mod custody;
mod exposure;
mod gateway;
mod keys;
mod rekey;
mod sealing;
mod typed;
mod who;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

pub use alarms::{Alarms, MetricsTo};
pub use audit::{Audit, AuditCommand, AuditShow, AuditVerify};
pub use custody::{
    Approve, Confirm, Custody, CustodyCommand, Direct, Execute, List, Proposal, Propose, Recover, Renewing,
    Rotate, RunsAndPerson, Show,
};
pub use exposure::Exposure;
pub use gateway::{
    Gateway, GatewayAdmit, GatewayCommand, GatewayDismiss, GatewayEnroll, GatewayList, GatewayRevoke, LastOf,
};
pub use keys::{
    Fingerprint, Init, Key, KeyCheck, KeyCommand, KeyExport, KeyRelock, KeyShow, Keygen, LockKind,
    LockOptions, Passwd,
};
pub use rekey::Rekey;
pub use sealing::{Doctor, ManifestOf, Resuming, Retire, Runs, Scrub, Seal, Verify};
pub use who::{Apart, NewPassphrase, Token, Unlock, Who};

/// What each exit code means: the man pages' EXIT STATUS.
pub const EXIT_STATUS: [(u8, &str); 6] = [
    (0, "done"),
    (
        1,
        "failed, or interrupted while it wrote (cp, custody, demo); the message says why, and what can be done",
    ),
    (2, "usage: the command line, a mount point, a secret file; a file that is to be made exists"),
    (3, "wrong passphrase or key"),
    (
        4,
        "tampered with or damaged, in the store or what others handed over (a request, an approval, a public key); it is named",
    ),
    (5, "busy, or held by another process or host"),
];

const ABOUT: &str = "\
A directory that encrypts what a DNA sequencer writes into it, as it is written.

What lies in the store (any directory: a disk, an NFS or SMB share) is only authenticated ciphertext, \
names included.";

const EXAMPLES: &str = "\
Examples:
  runvault demo                              see all of it on a throw-away vault
  runvault init /srv/store                   make a vault
  runvault mount /srv/store /mnt/runs        write and read runs in /mnt/runs
  runvault unmount /mnt/runs                 everything durable, process gone
  runvault ls -l /srv/store                  look inside without a mount

Exit status: 0 done, 1 failed, 2 usage, 3 wrong key, 4 tampered or damaged, 5 busy or held
elsewhere.
`runvault COMMAND --help` has examples for each command; `runvault man --out DIR` writes man pages.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "runvault", version, about = "Encrypts sequencing runs as they are written", long_about = ABOUT)]
#[command(after_help = EXAMPLES, max_term_width = 100, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// One variant a command; their order is that of a first day.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(Init),
    Keygen(Keygen),
    Key(Key),
    Fingerprint(Fingerprint),
    Mount(Box<Mount>),
    Unmount(Unmount),
    Status(Status),
    Ls(Ls),
    Cat(Cat),
    Cp(Cp),
    Check(Check),
    Passwd(Passwd),
    Custody(Custody),
    Audit(Audit),
    Exposure(Exposure),
    Gateway(Gateway),
    Doctor(Doctor),
    Runs(Runs),
    Seal(Seal),
    Verify(Verify),
    Scrub(Scrub),
    Manifest(ManifestOf),
    Takeover(Takeover),
    Retire(Retire),
    Rekey(Rekey),
    Demo(Demo),
    Completions(Completions),
    Man(Man),
}

/// Mount a vault: plaintext in MNT, ciphertext in STORE
///
/// Returns when the mount answers. A read-write mount uses a state folder, one writer each, and enrols
/// itself in the vault at its first use; with --ingest it must have been enrolled before.
///
/// A mount with a reader's key, or with --read-only, writes nothing. It shows the runs that are sealed: each of their
/// bytes is as its gateway signed it. A run that is still open is under no seal: whoever can write to the store could take
/// files of it away, or put earlier ones back, unseen. Such runs, and what lies outside runs, are shown with --open
/// alone. A run appears within seconds of its seal.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  runvault mount /srv/store /mnt/runs                        asks for the passphrase
  runvault mount --read-only /srv/store /mnt/runs            also for a read-only store
  runvault mount --identity lab.key /srv/store /mnt/runs     a reader: the sealed runs granted to that key
  runvault mount --identity lab.key --open /srv/store /mnt/runs
                                                             and those being written, as they grow
  runvault mount -o allow_other,passphrase-file=/root/pass /srv/store /mnt/runs
  runvault mount --run-depth 2 /srv/store /mnt/runs          runs are MNT/<instrument>/<run>
  runvault mount --ingest /srv/store /mnt/runs               beside an instrument: no passphrase
  runvault mount --ingest --exec /etc/runvault/alarm /srv/store /mnt/runs
  runvault mount -f --log stderr /srv/store /mnt/runs        in front; for systemd (Type=notify)

In /etc/fstab, once scripts/install has linked /sbin/mount.runvault to the program:
  /srv/store /mnt/runs runvault _netdev,x-systemd.automount,passphrase-file=/root/pass 0 0")]
pub struct Mount {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// An empty directory, not inside the store
    #[arg(value_name = "MNT", value_hint = ValueHint::DirPath)]
    pub mount_point: PathBuf,
    /// Stay in front; tells systemd when the mount is ready
    #[arg(short, long)]
    pub foreground: bool,
    /// Mount options as in fstab: ro, rw, `[no]atime`, nodiratime, noexec, nosuid, nodev, allow_other,
    /// uid=, gid=, umask= (mounts that only read), and this command's own without their dashes: open, identity=,
    /// passphrase-file=, passphrase-fd=, allow-readable-secret, pkcs11-module=, pin-file=, state=, custody=,
    /// run-depth=, log=, ingest, seal=, quiet=, drained=, abandoned=, seal-limit=, no-resume-key, exec=,
    /// metrics=, alarm-stuck= and the other alarms
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Write nothing to the store; any number of these at a time
    #[arg(long)]
    pub read_only: bool,
    /// Of a mount that only reads: runs that are still open too, which no seal proves yet, and what lies outside runs
    #[arg(long, conflicts_with = "ingest")]
    pub open: bool,
    /// As a gateway that was enrolled: no passphrase, no key that opens what is sealed. Shows the runs that it
    /// made and still holds
    #[arg(long, conflicts_with_all = ["read_only", "identity", "passphrase_file", "passphrase_fd"])]
    pub ingest: bool,
    /// With --ingest: seal runs by themselves when their markers say that they are over (auto), or not (hand)
    /// [default: auto]
    #[arg(long, value_name = "WHEN", requires = "ingest")]
    pub seal: Option<SealWhen>,
    /// How long a run must have been quiet after its end before it is sealed [default: 30m]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub quiet: Option<Duration>,
    /// How long silence after base calling must last to count as the end, where the last marker never comes; and how
    /// long what was added to a sealed run must be silent before it is sealed [default: 6h]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub drained: Option<Duration>,
    /// How long silence without any marker must last before the log says that the run may have been aborted
    /// [default: 3d]
    #[arg(long, value_name = "TIME", requires = "ingest", value_parser = humantime::parse_duration)]
    pub abandoned: Option<Duration>,
    /// How fast a run is read back for its seal, to leave the store to those that are written [default: as fast as it
    /// goes]
    #[arg(long, value_name = "MIB/S", requires = "ingest", value_parser = clap::value_parser!(u64).range(1..))]
    pub seal_limit: Option<u64>,
    /// With --ingest: keep the keys of open runs in memory alone. Who has the machine later opens no run, but a run
    /// that is open when this ends, in whatever way, is closed: its owner reads it, nobody writes it any more
    #[arg(long, requires = "ingest")]
    pub no_resume_key: bool,
    /// Let other users in (needs root, or user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    pub allow_other: bool,
    /// Depth at which a directory is a run: 1 for `MNT/<run>`, 2 for `MNT/<instrument>/<run>` [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub run_depth: Option<u32>,
    /// Where events go: FILE, journal, syslog, or with -f stderr [default: the journal, else syslog]
    #[arg(long, value_name = "WHERE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub log: Option<String>,
    /// Names above which the kernel is asked to forget some (for tests)
    #[arg(long, value_name = "N", hide = true)]
    pub max_nodes: Option<u64>,
    #[command(flatten)]
    pub alarms: Alarms,
    #[command(flatten)]
    pub who: Who,
}

/// Who decides that a run is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SealWhen {
    Auto,
    Hand,
}

/// Unmount: returns when everything is durable and the process has gone
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault unmount /mnt/runs
  runvault unmount --timeout 600 /mnt/runs
                                      a slow store, and much that is not durable yet
  fuser -vm /mnt/runs                 who still uses it, when this says it is busy")]
pub struct Unmount {
    /// Give up, with exit 5, when the mount's process has not answered or ended after so many seconds;
    /// 0 waits without limit
    #[arg(long, value_name = "SECONDS", default_value_t = crate::control::PATIENCE.as_secs())]
    pub timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The mount point
    #[arg(value_name = "MNT", value_hint = ValueHint::DirPath)]
    pub mount_point: PathBuf,
}

/// Show what is mounted, open runs, cipher engine and its measured speed, last sync, space
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault status                     every mount of this user
  runvault status /mnt/runs           one mount, from the process that serves it
  runvault status /srv/store          a store, mounted or not; asks for no passphrase
  runvault status /srv/store --passphrase-file pass.txt      and names its runs
  runvault status --json /mnt/runs | jq .bytes_written")]
pub struct Status {
    /// A mount point or a store [default: every mount of this user]
    #[arg(value_name = "MNT|STORE", value_hint = ValueHint::DirPath)]
    pub target: Option<PathBuf>,
    /// Print JSON: an object for each mount or store, one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// List a vault's content without a mount
///
/// Runs that are still open too, as cat and cp read them: `-l` and `--json` say which those are.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault ls /srv/store                                    the runs
  runvault ls -l /srv/store 240101_NB501/InterOp            modes, sizes, times
  runvault ls -R --json /srv/store | jq -r .path            every path, one JSON object a line")]
pub struct Ls {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// A path inside the vault
    #[arg(default_value = "/", hide_default_value = true)]
    pub path: OsString,
    /// Mode, links, owner, group, size and time of each entry; of a run also whether it is open, and so under no seal
    #[arg(short, long)]
    pub long: bool,
    /// Directories too, all the way down
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Write a file of a vault to standard output
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault cat /srv/store 240101_NB501/RunInfo.xml
  runvault cat /srv/store 240101_NB501/reads.bam | samtools view -c")]
pub struct Cat {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Files inside the vault
    #[arg(required = true)]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub who: Who,
}

/// Copy into, out of or between vaults without a mount
///
/// A vault's side is STORE:/PATH. Copying a directory to the top of a vault makes a run of it, as a mount
/// does. Existing files are overwritten only with --force, each once its copy is complete; one that fails
/// leaves the old file.
///
/// Keeps modes, times, holes, symlinks, hard links among what one command copies (in a vault within a run),
/// user attributes and ACLs; as root also owners by their numbers, and trusted attributes. What the other side
/// does not take of these is named, the rest is copied, and the exit status is 1. Left out on purpose: out of
/// a vault set-id bits and devices, since a store does not decide what runs as whom here; into it capabilities.
#[derive(Args, Debug)]
#[command(override_usage = "runvault cp [OPTIONS] SRC... DST")]
#[command(after_help = "\
Examples:
  runvault cp -r 240101_NB501 /srv/store:/              a run into the vault
  runvault cp -r /srv/store:/240101_NB501 /scratch/     and out of it
  runvault cp /srv/store:/240101_NB501/RunInfo.xml .    one file
  runvault cp -r --force Analysis /srv/store:/240101_NB501/
  runvault cp -r /srv/old:/ /srv/new:/                  every run into another vault
  runvault cp -r --from-identity old.key --identity new.key /srv/old:/ /srv/new:/")]
pub struct Cp {
    /// Sources, then the destination
    #[arg(required = true, num_args = 2.., value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<OsString>,
    /// Directories with all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    /// Depth at which a directory is a run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub run_depth: u32,
    /// Key file for the vaults that are copied from, where --identity is the target's alone
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from_identity: Option<PathBuf>,
    /// Their passphrase, likewise
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from_passphrase_file: Option<PathBuf>,
    /// Their custody/, where it is not in the store; --custody is the target's
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub from_custody: Option<PathBuf>,
    /// Print JSON: what was copied, and what was not
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

impl Cp {
    /// Who opens the vaults that are only copied from.
    pub fn from(&self) -> Who {
        let mut who = self.who.clone();
        if self.from_identity.is_some() || self.from_passphrase_file.is_some() {
            who.identity.clone_from(&self.from_identity);
            who.unlock.passphrase_file.clone_from(&self.from_passphrase_file);
            who.unlock.passphrase_fd = None;
        }
        if self.from_custody.is_some() {
            who.apart.custody.clone_from(&self.from_custody);
        }
        who
    }
}

/// Check everything that the key opens: headers, chunks, names, journals, signatures
///
/// Names each damaged file and exits with 4 if there is one. Writes nothing to the store.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault check /srv/store
  runvault check --json /srv/store | jq -r 'select(.damage) | .path'")]
pub struct Check {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Print a JSON object a damaged object, and one for the summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Take over a run whose writer, on another host, is gone
///
/// Two writers of one run destroy what they write. So this asks a person to confirm that the other
/// host does not write it any more, and then watches the run's lease for 75 seconds, with --yes too: who
/// renews it is alive, and the run stays its own. A host that cannot renew for 60 seconds writes no more. One
/// that is cut off may have writes under way that arrive later: power it off before.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault status /srv/store                          which run, and who holds it
  runvault takeover /srv/store 240101_NB501
  runvault takeover --yes /srv/store 240101_NB501     in a script that knows the host to be gone")]
pub struct Takeover {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The run's name (with --run-depth 2 INSTRUMENT/RUN) or id
    pub run: OsString,
    /// The other host is known not to write this run any more
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Show all of it on a throw-away vault
///
/// Mounts a new vault in a temporary directory, writes a generated run into it as an instrument does,
/// shows what a thief sees in the store, mounts it again, verifies every file, and cleans up.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault demo
  runvault demo --size 1024             a larger run, in MiB
  runvault demo --json | jq .written.bytes_per_second
  TMPDIR=/scratch runvault demo         on another disk")]
pub struct Demo {
    /// About how much the generated run holds, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub size: u64,
    /// Print nothing but the figures, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault completions bash > /etc/bash_completion.d/runvault
  runvault completions zsh > ~/.zfunc/_runvault
  runvault completions fish > ~/.config/fish/completions/runvault.fish")]
pub struct Completions {
    /// The shell
    pub shell: Shell,
}

/// Shells that completions exist for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print the man page, or write one for each command
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault man | man -l -
  runvault man --out /usr/local/share/man/man1")]
pub struct Man {
    /// Write runvault.1, runvault-mount.1, ... into DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}
