//! Arguments of the three steps of an act: proposed, approved, executed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Subcommand, ValueHint};

use super::acts::{
    AddCustodian, AddReader, AdmitGateway, DismissGateway, EnrollGateway, NamedRuns, Person, Quorum,
    RevokeGateway, RunsAndPerson,
};
use crate::args::typed::reason;
use crate::args::who::{Seen, Token, Unlock};

/// Write down what is to be done, for custodians to approve
///
/// Writes REQ and REQ.executor, the key that approvals are made for: keep both on this machine, which executes the
/// request in the end, and give REQ to the custodians. Changes nothing in the store, and needs no key.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  runvault custody propose /srv/store rotate --out req --reason 'yearly rotation'
  runvault custody propose /srv/store add-custodian dave=dave.key.pub --out req
  runvault custody propose /srv/store grant RUN-ID RUN-ID guest --out req --expires-in 2days")]
#[command(mut_args(anywhere))]
pub struct Propose {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(subcommand)]
    pub what: Proposal,
    /// The request to write; REQ.executor (0600) comes beside it. Existing files are refused
    #[arg(long, value_name = "REQ", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Why, for those who approve and for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = reason)]
    pub reason: String,
    /// How long it can be executed
    #[arg(long, value_name = "TIME", default_value = "7days", value_parser = humantime::parse_duration)]
    pub expires_in: Duration,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options count behind what is proposed, too.
fn anywhere(arg: Arg) -> Arg {
    let is_option = !arg.is_positional();
    arg.global(is_option)
}

#[derive(Debug, Subcommand)]
pub enum Proposal {
    /// A new vault key; the people stay
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store rotate --out req")]
    Rotate,
    /// One more person holds a share of the vault key
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store add-custodian bob=bob.key.pub --out req"
    )]
    AddCustodian(AddCustodian),
    /// One custodian less; a new vault key
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store remove-custodian bob --out req")]
    RemoveCustodian(Person),
    /// Another number of custodians that has to agree; a new vault key
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store quorum 3 --out req")]
    Quorum(Quorum),
    /// A machine may write runs
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store enroll-gateway novaseq.req --out req"
    )]
    EnrollGateway(EnrollGateway),
    /// A machine's chains end
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store revoke-gateway novaseq --out req"
    )]
    RevokeGateway(RevokeGateway),
    /// A machine may add to runs of others, and seal what it took over
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store admit-gateway novaseq-2 RUN-ID --out req"
    )]
    AdmitGateway(AdmitGateway),
    /// What a machine was admitted to ends
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store dismiss-gateway analysis-1 --out req"
    )]
    DismissGateway(DismissGateway),
    /// Someone may read
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store add-reader bob=bob.key.pub --standing --out req"
    )]
    AddReader(AddReader),
    /// Someone may read no more
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store remove-reader bob --out req")]
    RemoveReader(Person),
    /// A reader gets the keys of runs that are there
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store grant RUN-ID bob --out req")]
    Grant(RunsAndPerson),
    /// A reader loses the keys of runs
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store revoke RUN-ID bob --out req")]
    Revoke(RunsAndPerson),
    /// Sealed runs get new keys
    #[command(after_help = "Examples:\n  runvault custody propose /srv/store rekey RUN-ID --out req")]
    Rekey(NamedRuns),
    /// Runs are not missed any more when they are gone from the store
    #[command(
        after_help = "Examples:\n  runvault custody propose /srv/store retire RUN-ID --out req --reason 'moved to tape'"
    )]
    Retire(NamedRuns),
}

/// Tell what a request does, in words
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody show req
  runvault custody show req --store /srv/store    with what is signed there about its runs")]
#[command(mut_args(of_store))]
pub struct Show {
    /// The request
    #[arg(value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
    /// Tell of each run what is signed about it there: whose, when, how large
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "json")]
    pub store: Option<PathBuf>,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is of use beside a store alone.
fn of_store(arg: Arg) -> Arg {
    let is_of_store = ["state", "accept_rollback", "custody"].contains(&arg.get_id().as_str());
    if is_of_store { arg.requires("store") } else { arg }
}

/// Say yes to a request; needs no store and no network
///
/// Shows what it does and asks. Before you say yes, have the one who executes it read the six words to you. Where the
/// request needs the vault key, your share goes into FILE, sealed to that machine's key for this request alone.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody approve req --identity alice.key --out alice.ok
  runvault custody approve req --identity alice.key --out alice.ok --yes --passphrase-file pass.txt")]
pub struct Approve {
    /// The request
    #[arg(value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
    /// The approval to write; an existing file is refused
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Your key file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub identity: PathBuf,
    /// Do not ask: you have compared the six words
    #[arg(long)]
    pub yes: bool,
    /// In the place of another request that you approved for the same line of the audit log
    #[arg(long)]
    pub instead: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    #[command(flatten)]
    pub token: Token,
}

/// Do what enough custodians approved
///
/// On the machine that proposed it: REQ.executor is erased once all is done. May be interrupted at any point: every
/// run stays readable, and --resume goes on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody execute /srv/store req --approval alice.ok --approval bob.ok
  runvault custody execute /srv/store req --approval alice.ok --approval bob.ok --resume")]
pub struct Execute {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The request
    #[arg(value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
    /// An approval; once for each
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required = true)]
    pub approval: Vec<PathBuf>,
    /// Go on with one that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// End a gateway where the request says, though it went on since: what it made meanwhile counts for nobody
    #[arg(long)]
    pub cut: bool,
    /// Make a new vault key though too few custodians have seen their shares open (confirm)
    #[arg(long)]
    pub unconfirmed: bool,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
