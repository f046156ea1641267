//! Arguments of `custody`: what custodians agree on.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::keys::named_file;
use super::who::{Apart, Seen};
use super::{LastOf, Who};

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

/// A custodian to be.
#[derive(Args, Debug)]
pub struct AddCustodian {
    /// The name that others see, and the public key file (keygen)
    #[arg(value_name = "NAME=FILE", value_parser = named_file)]
    pub key: (String, PathBuf),
}

/// Someone who is known.
#[derive(Args, Debug)]
pub struct Person {
    /// Name or id
    pub name: String,
}

/// How many have to agree.
#[derive(Args, Debug)]
pub struct Quorum {
    /// The number
    #[arg(value_name = "M", value_parser = clap::value_parser!(u8).range(1..))]
    pub quorum: u8,
}

/// A reader to be, or other terms for one.
#[derive(Args, Debug)]
pub struct AddReader {
    /// The name that others see, and the public key file (keygen)
    #[arg(value_name = "NAME=FILE", value_parser = named_file)]
    pub key: (String, PathBuf),
    /// Every run that is made from now on is sealed to it, too
    #[arg(long)]
    pub standing: bool,
    /// No run is sealed to it, and no mount of ours opens for it, from then on: a date (its beginning), or a time, in UTC,
    /// such as 2027-01-31 or 2027-01-31T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub expires: Option<String>,
}

/// Runs, then a reader.
#[derive(Args, Debug)]
pub struct RunsAndPerson {
    /// Runs by name or id. By name only for whoever can open them, and with what was added to them. That is runs of their
    /// own, each with its id: where ids are named, name them all
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<OsString>,
    /// The reader's name or id
    pub reader: String,
}

/// Runs that an act is about.
#[derive(Args, Debug)]
pub struct NamedRuns {
    /// Runs by name or id. By name only for whoever can open them. What was added to a run is runs of their own, each
    /// with its id: name them all (rekey by a name takes them along)
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<OsString>,
}

/// A gateway's request.
#[derive(Args, Debug)]
pub struct EnrollGateway {
    /// The request that `gateway enroll --out` wrote on that machine
    #[arg(value_name = "REQUEST", value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
}

/// A gateway whose chains end.
#[derive(Args, Debug)]
pub struct RevokeGateway {
    /// Name or id
    pub name: String,
    #[command(flatten)]
    pub last: LastOf,
}

/// A gateway that may do more.
#[derive(Args, Debug)]
pub struct AdmitGateway {
    /// Name or id
    pub name: String,
    /// The run, by its id [default: it may add to every sealed run, and seal none]
    pub run: Option<OsString>,
}

/// A gateway that may do less.
#[derive(Args, Debug)]
pub struct DismissGateway {
    /// Name or id
    pub name: String,
    /// The run, by its id [default: all that it was admitted to]
    pub run: Option<OsString>,
    #[command(flatten)]
    pub last: LastOf,
}

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
pub struct Propose {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(subcommand)]
    pub what: Proposal,
    /// The request to write; REQ.executor (0600) comes beside it. Existing files are refused
    #[arg(long, value_name = "REQ", value_hint = ValueHint::FilePath, global = true)]
    pub out: Option<PathBuf>,
    /// Why, for those who approve and for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = reason, global = true)]
    pub reason: String,
    /// How long it can be executed
    #[arg(long, value_name = "TIME", default_value = "7days", value_parser = humantime::parse_duration, global = true)]
    pub expires_in: Duration,
    /// Where this machine keeps what it has seen of vaults
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true)]
    pub state: Option<PathBuf>,
    /// Accept that custody/ ends at line N, though this machine has seen a newer one
    #[arg(long, value_name = "N", global = true)]
    pub accept_rollback: Option<u64>,
    /// The store's custody/ is this directory [default: in the store]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, global = true)]
    pub custody: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
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
#[command(after_help = "Examples:\n  runvault custody show req")]
pub struct Show {
    /// The request
    #[arg(value_hint = ValueHint::FilePath)]
    pub request: PathBuf,
    /// Tell of each run what is signed about it there: whose, when, how large
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "json")]
    pub store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
    #[command(flatten)]
    pub unlock: super::Unlock,
    #[command(flatten)]
    pub token: super::Token,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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

/// Make a lost custody/ anew, from the key files of as many custodians as the quorum
///
/// Each key file that did its drill (confirm), or was taken out of the store (key export), keeps a copy of custody/. The
/// newest of them is put in place, verified from the genesis on, with a line of its own that says from whose files. Every
/// run is seen to open. What was done after that copy is undone. A custody/ that is there is never touched.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault custody recover /srv/store --identity alice.key --identity bob.key
  runvault custody recover /srv/store --identity owner.key --key-in-store    one custodian of one
  runvault custody recover /srv/store --identity alice.key --identity bob.key \\
    --pkcs11-module /usr/lib/opensc-pkcs11.so --pin-file alice.pin")]
pub struct Recover {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// A custodian's key file; once for each
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required = true)]
    pub identity: Vec<PathBuf>,
    /// Read a passphrase from the first line of FILE [default: the terminal]. Once for each key file that has one, in
    /// their order
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Vec<PathBuf>,
    /// The library that reaches a token that locks a key file, by its whole path. Once for each token, or one for all
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pkcs11_module: Vec<PathBuf>,
    /// Read a token's PIN from the first line of FILE [default: the terminal]. Once for each token, in their order. It is
    /// tried once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "pkcs11_module")]
    pub pin_file: Vec<PathBuf>,
    /// Read a passphrase from the first line of file descriptor N; once for each, in the order of the key files, behind
    /// those of --passphrase-file
    #[arg(long, value_name = "N")]
    pub passphrase_fd: Vec<u32>,
    /// Read a token's PIN from the first line of file descriptor N; once for each, behind those of --pin-file
    #[arg(long, value_name = "N", requires = "pkcs11_module")]
    pub pin_fd: Vec<u32>,
    /// Try the PIN though a token says that one more wrong one locks it
    #[arg(long, requires = "pkcs11_module")]
    pub last_pin_try: bool,
    /// Accept secret files that group or others may read
    #[arg(long)]
    pub allow_readable_secret: bool,
    /// Then keep the single owner's key file, under its passphrase, in custody/, where `init` puts it
    #[arg(long)]
    pub key_in_store: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = reason)]
    pub reason: String,
    /// Where this machine keeps what it has seen of vaults
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Accept that the newest copy ends at line N, though a key file, a run or this machine has seen a newer one
    #[arg(long, value_name = "N")]
    pub accept_rollback: Option<u64>,
    #[command(flatten)]
    pub apart: Apart,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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

/// Tell which runs a lost key could have opened; needs no key
///
/// The first question after a breach. A reader's key, a custodian's, or a machine's: from the audit log, from what is signed
/// about each run, and from the envelopes that are there. Told apart: what opens now, and what opened then, and still does
/// for whoever copied the store. Where something cannot be told, it counts as exposed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault exposure /srv/store --key guest.key.pub
  runvault exposure /srv/store --key guest --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z
  runvault exposure /srv/store --key 4f0c... --json | jq -r '.runs[].run'")]
pub struct Exposure {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The key: its public key file, its id, or the name that it has in this vault now
    #[arg(long, value_name = "PUB|ID|NAME", value_hint = ValueHint::FilePath)]
    pub key: String,
    /// In wrong hands from then on: what had ended before opens in old copies alone [default: always]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,
    /// And until then: what came later is left out [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<String>,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The trail: who did what to the vault, when, why, by whose approvals
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Examples:\n  runvault audit show /srv/store\n  runvault audit verify /srv/store")]
pub struct Audit {
    #[command(subcommand)]
    pub command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    Show(AuditShow),
    Verify(AuditVerify),
}

/// Print the trail, verified from the genesis on; needs no key
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  runvault audit show /srv/store\n  runvault audit show /srv/store --json"
)]
pub struct AuditShow {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub seen: Seen,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Verify the trail, and that it goes on from a head that was written down; needs no key
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault audit verify /srv/store                       prints the head: keep it, on paper or in a log
  runvault audit verify /srv/store --since 12:5f3a...    the head that was kept must be in this trail")]
pub struct AuditVerify {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// A head that was printed before: N:HASH
    #[arg(long, value_name = "HEAD", value_parser = head)]
    pub since: Option<(u64, runvault_format::ids::Digest)>,
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

/// What a request takes (docs/format.md, requests).
fn reason(text: &str) -> Result<String, String> {
    if text.len() <= 1024 && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err("a reason has at most 1,024 bytes and no control characters".to_owned())
}

fn time(text: &str) -> Result<String, String> {
    let midnight = format!("{text}T00:00:00Z");
    let given = [text, &midnight].into_iter().find(|time| runvault_format::time::is_time(time));
    given.map(str::to_owned).ok_or_else(|| "give it as 2027-01-31, or 2027-01-31T08:00:00Z".to_owned())
}

fn head(text: &str) -> Result<(u64, runvault_format::ids::Digest), String> {
    let parsed = text.split_once(':').and_then(|(n, hash)| Some((n.parse().ok()?, hash.parse().ok()?)));
    parsed.ok_or_else(|| "give it as it was printed: N:HASH".to_owned())
}
