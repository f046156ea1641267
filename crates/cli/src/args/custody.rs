//! Arguments of `custody`: what custodians agree on.

mod acts;
mod recover;
mod steps;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

pub use self::acts::RunsAndPerson;
use self::acts::{
    AddCustodian, AddReader, AdmitGateway, DismissGateway, EnrollGateway, NamedRuns, Person, Quorum,
    RevokeGateway,
};
pub use self::recover::Recover;
pub use self::steps::{Approve, Execute, Proposal, Propose, Show};
use super::Who;
use super::typed::reason;
use super::who::Seen;

/// Who holds the vault's key, and what they agree on
///
/// With one custodian of one, rotate, add-reader and the others act at once. With more, an act is proposed, approved
/// by each custodian where he is, and executed on the machine that proposed it.
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  runvault custody list /srv/store
  runvault custody rotate /srv/store                                one custodian of one
  runvault custody propose /srv/store rotate --out req              with more: this,
  runvault custody approve req --identity alice.key --out alice.ok  this by each of them,
  runvault custody execute /srv/store req --approval alice.ok --approval bob.ok")]
pub struct Custody {
    #[command(subcommand)]
    pub command: CustodyCommand,
}

#[derive(Debug, Subcommand)]
pub enum CustodyCommand {
    List(List),
    Propose(Propose),
    Show(Show),
    Approve(Approve),
    Execute(Execute),
    Confirm(Confirm),
    Recover(Recover),
    Rotate(Rotate),
    /// Let one more person hold a share of the vault key
    #[command(after_help = "Examples:\n  runvault custody add-custodian /srv/store bob=bob.key.pub")]
    AddCustodian(Direct<AddCustodian>),
    /// End a custodian's part; a new vault key is made
    #[command(after_help = "Examples:\n  runvault custody remove-custodian /srv/store bob")]
    RemoveCustodian(Direct<Renewing<Person>>),
    /// Change how many custodians have to agree; a new vault key is made
    #[command(after_help = "Examples:\n  runvault custody quorum /srv/store 2")]
    Quorum(Direct<Renewing<Quorum>>),
    /// Let a machine write runs
    #[command(after_help = "Examples:\n  runvault custody enroll-gateway /srv/store novaseq.req")]
    EnrollGateway(Direct<EnrollGateway>),
    /// End a machine's chains
    #[command(after_help = "Examples:\n  runvault custody revoke-gateway /srv/store novaseq")]
    RevokeGateway(Direct<RevokeGateway>),
    /// Let a machine add to runs of others, and seal what it took over
    #[command(after_help = "Examples:\n  runvault custody admit-gateway /srv/store novaseq-2 RUN-ID")]
    AdmitGateway(Direct<AdmitGateway>),
    /// End what a machine was admitted to
    #[command(after_help = "Examples:\n  runvault custody dismiss-gateway /srv/store analysis-1")]
    DismissGateway(Direct<DismissGateway>),
    /// Let someone read runs
    #[command(after_help = "\
Examples:
  runvault custody add-reader /srv/store pipeline=pipeline.key.pub --standing
  runvault custody add-reader /srv/store guest=guest.key.pub --expires 2027-01-31")]
    AddReader(Direct<AddReader>),
    /// End a reader's access: its envelopes of all runs go
    #[command(after_help = "Examples:\n  runvault custody remove-reader /srv/store guest")]
    RemoveReader(Direct<Person>),
    /// Give a reader the keys of runs that are there
    #[command(after_help = "Examples:\n  runvault custody grant /srv/store 260101_A01234_0042_AHXXX guest")]
    Grant(Direct<RunsAndPerson>),
    /// Take a reader's keys of runs away
    #[command(after_help = "Examples:\n  runvault custody revoke /srv/store 260101_A01234_0042_AHXXX guest")]
    Revoke(Direct<RunsAndPerson>),
    /// Have sealed runs get new keys: `runvault rekey` then does the work
    #[command(after_help = "Examples:\n  runvault custody rekey /srv/store 260101_A01234_0042_AHXXX")]
    Rekey(Direct<NamedRuns>),
    /// Say in the audit log that runs are not missed when they are gone
    ///
    /// As `runvault retire`, and it goes on counting when several have to agree: also runs that were retired by it.
    #[command(
        after_help = "Examples:\n  runvault custody retire /srv/store 260101_A01234_0042_AHXXX --reason 'moved to tape'"
    )]
    Retire(Direct<NamedRuns>),
}

/// An act of one custodian of one.
#[derive(Args, Debug)]
pub struct Direct<T: Args> {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub act: T,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = reason)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// An act that makes a new vault key.
#[derive(Args, Debug)]
pub struct Renewing<T: Args> {
    #[command(flatten)]
    pub act: T,
    /// Make a new vault key though too few custodians have seen their shares open (confirm)
    #[arg(long)]
    pub unconfirmed: bool,
}

/// The drill: your share opens, and a copy of it is kept in your key file
///
/// Opens no data. Do it after every change of custodians, after every re-keying, and once a year. The key file also gets a
/// copy of custody/, for the day that it is lost: people's labels, reasons and ids in clear.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  runvault custody confirm /srv/store --identity alice.key")]
pub struct Confirm {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Who may do what, how old the vault key is, and what is due
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody list /srv/store
  runvault custody list /srv/store --json | jq .due")]
pub struct List {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Make a new vault key; every run gets an envelope to it, then the old one goes
///
/// Rewrites no data. May be interrupted at any point: every run stays readable, and --resume goes on where
/// it stopped. Without it, a further key is made. The vault may be mounted meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody rotate /srv/store
  runvault custody rotate /srv/store --resume      finish one that was interrupted; makes no key
  runvault custody rotate /srv/store --passphrase-file pass.txt --json")]
pub struct Rotate {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Only seal the runs that an interrupted rotation left; the newest vault key stays
    #[arg(long)]
    pub resume: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}
