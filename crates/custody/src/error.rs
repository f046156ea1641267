//! What custody refuses, each by its name. Labels, ids and places in the store may be shown;
//! secrets and plaintext names never are.

use std::io;
use std::path::PathBuf;

use runvault_format::ids::{IdentityId, RunId, VaultId};

use crate::ends::Which;
use crate::kek_home::{KekHome, Refused};
use crate::token;

/// The crate's one error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lock did not open; which byte was wrong is not said.
    #[error("the passphrase does not open the key of {custodian}")]
    WrongPassphrase {
        /// Label and id of the key file.
        custodian: String,
    },
    /// Another key is needed.
    #[error("wrong key: needed is {needed}, given was {given}")]
    WrongKey {
        /// Labels and ids of those who could.
        needed: String,
        /// Label and id of the key that was given.
        given: String,
    },
    /// A reader whose time is over.
    #[error("the time of reader {reader} is over: it ended at {at}")]
    ReaderExpired {
        /// Label and id.
        reader: String,
        /// RFC 3339 in UTC.
        at: String,
    },
    /// The key file is bound to another vault.
    #[error("wrong key: needed is {needed}, given was {given}, of vault {bound}; the store is vault {found}")]
    OtherVault {
        /// Labels and ids of those who could.
        needed: String,
        /// Label and id of the key that was given.
        given: String,
        /// The vault that the key file names.
        bound: VaultId,
        /// The vault of the store.
        found: VaultId,
    },
    /// The owner's key file is not in the store.
    #[error("the store holds no key file (custody/locks)")]
    NoLock,
    /// A gateway's chains were ended.
    #[error("gateway {gateway} was revoked: nothing that it makes from then on counts")]
    Revoked {
        /// Its id.
        gateway: String,
    },
    /// No gateway of this vault has that name or id.
    #[error("no gateway {0:?} is enrolled in this vault")]
    NoGateway(String),
    /// A key that was never let into the vault.
    #[error("the key {0} was never a reader's, a custodian's or a gateway's of this vault")]
    UnknownKey(IdentityId),
    /// A label that several gateways have.
    #[error("{label:?} is the name of several gateways: {ids}")]
    SeveralGateways {
        /// The label.
        label: String,
        /// Their ids.
        ids: String,
    },
    /// The directory holds no vault.
    #[error("not a vault: {found}")]
    NotAVault {
        /// What was found instead.
        found: String,
    },
    /// A killed `init` left this.
    #[error(
        "an `init` was killed here before it had finished; it holds no runs: remove {left} and start again"
    )]
    KilledInit {
        /// The names that it left.
        left: String,
    },
    /// `init` wants an empty directory.
    #[error("the directory is not empty: {}", .0.join(", "))]
    NotEmpty(Vec<String>),
    /// A newer program made this.
    #[error("{object}: version {version} is not known to this program")]
    UnknownVersion {
        /// Its place in the store.
        object: String,
        /// What it says.
        version: u64,
    },
    /// A suite that this program does not have.
    #[error("{object}: cipher suite {suite} is not known to this program")]
    UnknownSuite {
        /// Its place in the store.
        object: String,
        /// What it says.
        suite: u64,
    },
    /// The store's custody/ is not where it was looked for.
    #[error("custody/ is not in the store")]
    NoCustody,
    /// A custody/ is never written over.
    #[error("custody/ is there, and not empty; nothing was changed")]
    CustodyThere,
    /// Nothing to make custody/ anew from.
    #[error("none of the key files keeps a copy of custody/")]
    NoCopy,
    /// Keys of one vault are no keys of another.
    #[error("two vaults: {one} and {other}; nothing was changed")]
    KeysOfTwoVaults {
        /// The vault of the newest copy, or of the store.
        one: VaultId,
        /// Another one.
        other: VaultId,
    },
    /// One custodian counts once.
    #[error("the key of {key} is there twice")]
    KeyTwice {
        /// Label and id.
        key: String,
    },
    /// Less than the vault's quorum.
    #[error("{given} of the {needed} keys that the vault needs")]
    TooFewKeys {
        /// How many there are.
        given: usize,
        /// How many it takes.
        needed: usize,
    },
    /// What is lost with custody/ was seen by a key file, or by who signed a run of the store.
    #[error("{who} has seen {seen}; the newest copy of custody/ in the key files ends at line {found}")]
    SeenMore {
        /// Which key file, or which file of the store and whose.
        who: String,
        /// Which line of the audit log, or which vault key.
        seen: String,
        /// Number of the copy's last line.
        found: u64,
    },
    /// An object of custody/ or of the state folder is damaged or forged.
    #[error("{object}: {why}")]
    Damaged {
        /// Its place.
        object: String,
        /// What was found.
        why: String,
    },
    /// A line of the audit log does not verify.
    #[error("custody/audit.log: line {line}: {why}")]
    ChainBroken {
        /// Counted from 1.
        line: u64,
        /// Which check failed.
        why: String,
    },
    /// Another history than this machine has seen.
    #[error("custody/audit.log: forked at line {line}: this machine has seen another one")]
    Forked {
        /// The line that differs.
        line: u64,
    },
    /// Lines are gone whose states are still there.
    #[error("custody/audit.log: audit log cut: it ends at line {found}, this machine has seen line {pinned}")]
    CutShort {
        /// The newest line that this machine has seen.
        pinned: u64,
        /// The last line found.
        found: u64,
    },
    /// The whole of custody/ is older than this machine has seen it.
    #[error("custody/: rolled back to line {found}; this machine has seen line {pinned}")]
    RolledBack {
        /// The newest line that this machine has seen.
        pinned: u64,
        /// The last line found.
        found: u64,
    },
    /// A gateway's newest run that this machine has seen.
    #[error("runs/{run}: gone; this machine has seen it, number {seq} of gateway {gateway}")]
    RunGone {
        /// Its signer.
        gateway: IdentityId,
        /// Counts that gateway's runs.
        seq: u64,
        /// The run.
        run: RunId,
    },
    /// Of a gateway whose chains are to be ended.
    #[error("two {what}s bear the number {n}, of runs {runs}: whoever has the gateway's key can forge one")]
    OneNumber {
        /// run or seal.
        what: &'static str,
        /// Their number.
        n: u64,
        /// The runs, by their ids.
        runs: String,
    },
    /// Of a gateway whose chains are to be ended.
    #[error("seal number {n}, of run {run}, does not go on from seal number {last}: it may be forged")]
    LooseSeal {
        /// Its number.
        n: u64,
        /// What it seals.
        run: RunId,
        /// The last one that follows from those before.
        last: u64,
    },
    /// Of a gateway whose chains are to be ended.
    #[error("the store has no {what} of this gateway that counts, {which}")]
    NotThere {
        /// run or seal.
        what: &'static str,
        /// What was named.
        which: Which,
    },
    /// The chain grew or changed while this command worked on it.
    #[error("custody/audit.log changed meanwhile: someone else executes an operation; start again")]
    ChangedMeanwhile,
    /// Another `passwd` came first, or is at work.
    #[error("someone else changes the passphrase at this moment: the one that was given here does not count")]
    LockChanged,
    /// Another writing mount has this state folder.
    #[error("the state folder is used by process {pid}{}", mounted_at(.mountpoint))]
    Busy {
        /// Its process.
        pid: u32,
        /// Where it is mounted, once it is.
        mountpoint: Option<PathBuf>,
    },
    /// This machine may not write here yet.
    #[error("gateway {gateway} is not enrolled")]
    NotEnrolled {
        /// Id of this state folder's identity.
        gateway: String,
    },
    /// This act needs more approvals than one person can give.
    #[error("this vault's quorum is {quorum} of {custodians}: one key alone cannot {what}")]
    NeedsQuorum {
        /// m.
        quorum: u32,
        /// n.
        custodians: usize,
        /// The act.
        what: &'static str,
    },
    /// A file that is no request, or one whose parts do not fit.
    #[error("the request: {why}")]
    BadRequest {
        /// What does not fit.
        why: String,
    },
    /// One custodian said that a run is gone, and that would count no more.
    #[error(
        "run {run} was retired by one custodian's word, which would count no more: its absence would be missed again"
    )]
    RetiredByOne {
        /// The run.
        run: RunId,
    },
    /// An act that does not fit the vault as it is.
    #[error("this cannot be done: {why}")]
    CannotBe {
        /// What does not fit.
        why: String,
    },
    /// The executor's clock is behind that of who proposed.
    #[error("the request was made at {created}, and it is {now} here: one of the two clocks is wrong")]
    ClockBehind {
        /// RFC 3339 in UTC.
        created: String,
        /// RFC 3339 in UTC.
        now: String,
    },
    /// A gateway went on since its end was proposed.
    #[error(
        "the gateway's end was proposed at its run {run} and seal {seal}; the store has run {newest} and seal \
         {newest_seal} of it by now, which would count for nobody"
    )]
    EndCuts {
        /// Of the request.
        run: u64,
        /// In the store.
        newest: u64,
        /// Of the request.
        seal: u64,
        /// In the store.
        newest_seal: u64,
    },
    /// The trail is about to be longer than programs read.
    #[error("{object}: {len} bytes, of {max} that programs read: nothing more can be added")]
    Full {
        /// Its place in the store.
        object: String,
        /// With what was to be added.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A request for another vault.
    #[error("the request is for vault {bound}; the store is vault {found}")]
    RequestOfOtherVault {
        /// The vault that it names.
        bound: VaultId,
        /// The vault of the store.
        found: VaultId,
    },
    /// Another request came first.
    #[error(
        "the request follows line {line} of the audit log, which is at line {newest} by now: it was overtaken"
    )]
    Overtaken {
        /// The line that it follows.
        line: u64,
        /// The newest one.
        newest: u64,
    },
    /// Its time is over.
    #[error("the request could be executed until {at}")]
    Expired {
        /// RFC 3339 in UTC.
        at: String,
    },
    /// It was executed.
    #[error("the request was executed: it is line {line} of the audit log")]
    RequestUsed {
        /// Which.
        line: u64,
    },
    /// There is nothing to go on with.
    #[error("the request was not executed yet")]
    RequestNotUsed,
    /// The key beside the request is of another one.
    #[error("the executor key is not the one that the request names")]
    OtherExecutor,
    /// This custodian's yes to another request still counts.
    #[error(
        "this key approved another request on the same line of the audit log ({words}), which can be executed until {until}"
    )]
    ApprovedAnother {
        /// Six of that one.
        words: String,
        /// RFC 3339 in UTC.
        until: String,
    },
    /// An approval that does not count.
    #[error("the approval of {custodian} {why}")]
    BadApproval {
        /// Label and id.
        custodian: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Fewer than the quorum.
    #[error("{given} of {needed} approvals: too few")]
    TooFewApprovals {
        /// That count.
        given: usize,
        /// The quorum.
        needed: usize,
    },
    /// A run that is still written is not re-keyed.
    #[error("run {run} is not sealed: only what is finished gets a new key")]
    NotSealed {
        /// The run.
        run: RunId,
    },
    /// Another line of the audit log is not done yet.
    #[error("run {run} is being re-keyed already, as run {new}")]
    UnderWay {
        /// The run.
        run: RunId,
        /// The one that is made in its place.
        new: RunId,
    },
    /// Another run has taken its place, under another key.
    #[error("run {run} was re-keyed: it is run {new}")]
    Rekeyed {
        /// The run.
        run: RunId,
        /// The one in its place.
        new: RunId,
    },
    /// A share that is not the one that the newest state names.
    #[error("the share of {custodian} is a wrong or an older one")]
    WrongShare {
        /// Label and id.
        custodian: String,
    },
    /// A secret that others can read.
    #[error("{}: mode {mode:04o} lets others read this secret", .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What is written for others to take is not written over something else.
    #[error("{}: exists, and is not overwritten", .0.display())]
    FileExists(PathBuf),
    /// Key files are never overwritten.
    #[error("{}: exists; a key file is never overwritten", .0.display())]
    KeyFileExists(PathBuf),
    /// No key file: not a regular file, absurdly long, or something else.
    #[error("{}: {why}", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another file that was named and cannot be opened.
    #[error("{what} {}: {source}", .path.display())]
    GivenFile {
        /// What it should be.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A key file that cannot be opened: whoever named it can mend that.
    #[error("key file {}: {source}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What somebody handed over as a public key, or as the request of a machine, is none.
    #[error("{}: not a public key file, or a damaged one: {why}", .path.display())]
    BadPublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: runvault_format::Error,
    },
    /// An unlocked key must not lie in the store.
    #[error("in the store a key is kept under a passphrase alone")]
    UnlockedInStore,
    /// Where several have to agree nobody's key lies in the store: its passphrase could be guessed at.
    #[error(
        "custody/locks holds the owner's key file: where two or more have to agree, nobody's lies in the store"
    )]
    LockInStore,
    /// The one who was asked gave no passphrase.
    #[error("no passphrase: {0}")]
    NoPassphrase(String),
    /// A token's lock, and no module was named.
    #[error("the key is locked by the PKCS#11 token {0:?}, and no module was named that reaches it")]
    NoModule(String),
    /// A PKCS#11 token.
    #[error("the token {token}: {why}")]
    Token {
        /// Label and serial number.
        token: String,
        /// What is in the way.
        why: token::Refused,
    },
    /// The TPM that keeps the key of a state folder, or that locked a key file.
    #[error("the TPM{}: {why}", nv(.nv_index))]
    Tpm {
        /// Which NV index, where it is about one.
        nv_index: Option<u32>,
        /// What is in the way.
        why: Refused,
    },
    /// A state folder keeps its key where it was made to.
    #[error("this state folder keeps its key in {0}")]
    KekElsewhere(KekHome),
    /// The store's or the machine's own error.
    #[error("{operation} {object}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The errno is in here.
        source: io::Error,
    },
    /// The engine's refusal.
    #[error(transparent)]
    Vault(#[from] runvault_vault::Error),
    /// Bytes of the format.
    #[error(transparent)]
    Format(#[from] runvault_format::Error),
    /// Randomness, memory or Argon2 parameters.
    #[error(transparent)]
    Crypto(#[from] runvault_crypto::Error),
}

/// Shorthand of the crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the operation and the object of a system's error.
    pub(crate) fn io(operation: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Error::Io { operation, object: object.into(), source }
    }

    /// Names damage; a version or a suite that is not known keeps its own name.
    pub(crate) fn damaged(object: impl Into<String>, why: runvault_format::Error) -> Self {
        let object = object.into();
        match why {
            runvault_format::Error::Version(version) => Error::UnknownVersion { object, version },
            runvault_format::Error::Suite(suite) => Error::UnknownSuite { object, suite },
            why => Error::Damaged { object, why: why.to_string() },
        }
    }
}

fn nv(index: &Option<u32>) -> String {
    index.map_or(String::new(), |index| format!(", NV index {index:#010x}"))
}

fn mounted_at(mountpoint: &Option<PathBuf>) -> String {
    mountpoint.as_ref().map_or(String::new(), |m| format!(", mounted at {}", m.display()))
}

/// Inside the engine custody's refusals keep their texts; the store's errors keep their errno.
impl From<Error> for runvault_vault::Error {
    fn from(error: Error) -> Self {
        use runvault_vault::{Damage, Error as Engine};
        match error {
            Error::Vault(e) => e,
            Error::Format(e) => Engine::Format(e),
            Error::Crypto(e) => Engine::Crypto(e),
            Error::Io { operation, object, source } => Engine::Store { operation, object, source },
            Error::Tpm { nv_index, why } => Engine::Store {
                operation: "use",
                object: format!("the TPM{}", nv(&nv_index)),
                source: io::Error::other(why),
            },
            Error::Damaged { object, why } => Engine::damaged(object, Damage::Run(why)),
            other => Engine::WrongKey(other.to_string()),
        }
    }
}
