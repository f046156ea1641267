//! Arguments of the commands that make, lock and rotate keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::who::Apart;
use super::{NewPassphrase, Token, Unlock, Who};

/// Make a vault in an empty directory
///
/// Makes an owner identity, whose key file is locked by a passphrase and kept in the store, or written
/// to a file outside with --identity. Prints the vault's fingerprint and what to keep a copy of.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault init /srv/store                             asks for a passphrase
  runvault init /srv/store --passphrase-file pass.txt  for scripts
  runvault init /srv/store --identity ~/owner.key      no key in the store
  runvault init /tmp/t --identity t.key --no-lock      unlocked, for tests
  runvault init /srv/store --custodian alice=a.key.pub --custodian bob=b.key.pub \\
    --custodian carol=c.key.pub --quorum 2             two of three agree
  runvault init /srv/store --custody /keys/clinic      keys apart from data")]
pub struct Init {
    /// An empty directory, or one to be made
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The owner's label, as others will see it
    #[arg(long, default_value = "owner", value_parser = label)]
    pub label: String,
    /// Write the owner's key file here instead of into the store (0600; an existing file is refused)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub identity: Option<PathBuf>,
    /// A custodian by the name that others see, and its public key file (keygen): no owner is made then, and no
    /// key lies in the store. Once for each of them
    #[arg(
        long,
        value_name = "NAME=FILE",
        value_parser = named_file,
        requires = "quorum",
        conflicts_with_all = ["identity", "label", "no_lock", "passphrase_file", "passphrase_fd"]
    )]
    pub custodian: Vec<(String, PathBuf)>,
    /// How many of the custodians have to agree before anything is done with the vault's key
    #[arg(long, value_name = "M", requires = "custodian", value_parser = clap::value_parser!(u8).range(1..))]
    pub quorum: Option<u8>,
    /// Leave that key file unlocked
    #[arg(long, requires = "identity", conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    pub no_lock: bool,
    /// Make the vault's custody/ here instead of in the store; every command on the store needs it from then on
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub custody: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
}

/// Make a key: for a custodian or a reader
///
/// Writes FILE (0600), the key under a passphrase, and FILE.pub, which others need to let it in. Nobody else ever
/// needs FILE: keep it where only you can read it, and a copy elsewhere.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault keygen --out alice.key                              asks for a passphrase, twice
  runvault keygen --out alice.key --label alice --passphrase-file pass.txt
  runvault keygen --out service.key --no-lock                  for a service; its mode alone protects it
  runvault keygen --out alice.key --lock pkcs11 --pkcs11-module /usr/lib/opensc-pkcs11.so --token-key runvault
  runvault keygen --out bob.key --lock tpm2                    this machine's TPM, and a passphrase")]
pub struct Keygen {
    /// The key file to make (0600); FILE.pub comes beside it. Existing files are refused
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// What the key calls itself [default: the file's name without its end]
    #[arg(long, value_parser = label)]
    pub label: Option<String>,
    /// What is to open it [default: passphrase]
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "no_lock")]
    pub lock: Option<LockKind>,
    #[command(flatten)]
    pub options: LockOptions,
    /// Leave the key file unlocked, as --lock none
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    pub no_lock: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    #[command(flatten)]
    pub reach: Token,
}

impl Keygen {
    /// The lock that was chosen.
    pub fn lock_kind(&self) -> LockKind {
        if self.no_lock { LockKind::None } else { self.lock.unwrap_or(LockKind::Passphrase) }
    }
}

/// What opens a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockKind {
    /// Nothing: whoever reads the file has the key
    None,
    /// A passphrase
    Passphrase,
    /// A P-256 or RSA key in a PKCS#11 token, and its PIN
    Pkcs11,
    /// This machine's TPM 2.0, and a passphrase
    Tpm2,
}

/// What only some of the locks need.
#[derive(Args, Clone, Debug, Default)]
pub struct LockOptions {
    /// --lock pkcs11: the token, by its label or serial number [default: the only one]
    #[arg(long, value_name = "NAME", requires = "pkcs11_module")]
    pub token: Option<String>,
    /// --lock pkcs11: the key, by its label or hex id [default: the only private P-256 or RSA key]
    #[arg(long, value_name = "NAME", requires = "pkcs11_module")]
    pub token_key: Option<String>,
    /// --lock tpm2: only as long as these PCRs are what they are now, such as sha256:0,7. The TPM then counts no wrong
    /// passphrases
    #[arg(long, value_name = "sha256:N,...", value_parser = pcrs)]
    pub pcr: Option<Pcrs>,
    /// --lock tpm2: the TPM alone, for a service: whoever has this machine and the file has the key
    #[arg(long)]
    pub without_passphrase: bool,
}

/// Numbers of PCRs, in order.
pub type Pcrs = std::sync::Arc<[u8]>;

fn pcrs(text: &str) -> Result<Pcrs, String> {
    let wrong = || "give them as sha256:0,7: numbers from 0 to 23, each once, in order".to_owned();
    let numbers = text.strip_prefix("sha256:").ok_or_else(wrong)?.split(',').map(str::parse);
    let numbers: Vec<u8> = numbers.collect::<Result<_, _>>().map_err(|_| wrong())?;
    if runvault_format::hardware::is_pcrs(&numbers) { Ok(numbers.into()) } else { Err(wrong()) }
}

/// Key files: what is in one, whether it opens, another lock
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  runvault key show alice.key                      what it says of itself; no lock is opened
  runvault key check alice.key                     whether it opens
  runvault key relock alice.key --lock passphrase  the same key under another lock
  runvault key export /srv/store --out owner.key   the owner's, out of the store")]
pub struct Key {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    Show(KeyShow),
    Check(KeyCheck),
    Relock(KeyRelock),
    Export(KeyExport),
}

/// Print what a key file says of itself: label, id, lock, vault, and what a custodian keeps in it
///
/// Opens no lock, asks for nothing and prints no secret. What it says is not proven before the lock is opened (key
/// check); what a custodian keeps is signed by the key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault key show alice.key
  runvault key show --json alice.key | jq .lock.kind")]
pub struct KeyShow {
    /// The key file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Open the lock of a key file, once, and say whether it did
///
/// Changes nothing. Exit 3 where the passphrase, the PIN, the token or the TPM is not the one, or the key inside not
/// the one that the file names.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault key check alice.key
  runvault key check alice.key --passphrase-file pass.txt     for scripts
  runvault key check alice.key --pkcs11-module /usr/lib/opensc-pkcs11.so      asks for the token's PIN")]
pub struct KeyCheck {
    /// The key file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    #[command(flatten)]
    pub token: Token,
}

/// Put a key file under another lock; the key stays the same, and nobody else has to do anything
///
/// Opens the old lock once, then replaces the file: a crash leaves the old or the new one, whole. Copies of the file
/// keep the lock that they have.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault key relock alice.key --lock passphrase
  runvault key relock alice.key --lock passphrase --passphrase-file old.txt --new-passphrase-file new.txt
  runvault key relock service.key --lock none           its mode alone protects it then
  runvault key relock alice.key --lock pkcs11 --pkcs11-module /usr/lib/opensc-pkcs11.so
  runvault key relock bob.key --lock tpm2 --pcr sha256:7

From one token to another: by way of a passphrase, in two steps.")]
pub struct KeyRelock {
    /// The key file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// What is to open it from now on
    #[arg(long, value_enum, value_name = "KIND")]
    pub lock: LockKind,
    #[command(flatten)]
    pub options: LockOptions,
    #[command(flatten)]
    pub new: NewPassphrase,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    #[command(flatten)]
    pub reach: Token,
}

/// Copy the owner's key file out of the store, under the same lock
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault key export /srv/store --out owner.key
  runvault mount /srv/store /mnt/runs --identity owner.key     the copy opens the vault as well
  runvault key export /srv/store --out owner.key --remove      and nobody's key is in the store any more")]
pub struct KeyExport {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The file to make (0600; an existing file is refused)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Then take it out of the store: the file is the only one from then on. Asks for the passphrase, to see that it opens
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub apart: Apart,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub unlock: Unlock,
}

/// Print the vault's fingerprint: 12 words, and as the last line its id in hex
///
/// It is what tells this vault from every other one, and never changes. No key is needed: the chain of custody is
/// verified back to its beginning, whose hash the fingerprint is. That it is the vault that you mean, only the
/// comparison with what was written down when it was made can tell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault fingerprint /srv/store
  runvault fingerprint /srv/store | tail -n 1       the vault id alone, for scripts")]
pub struct Fingerprint {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub apart: Apart,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Change the owner's passphrase; takes as long for ten thousand runs as for one
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault passwd /srv/store
  runvault passwd /srv/store --passphrase-file old.txt --new-passphrase-file new.txt
  runvault passwd /srv/store --identity ~/owner.key      a key file that is kept outside

The vault may be mounted meanwhile. It stays the same key: whoever has an old copy of the key file
and the old passphrase still has it.")]
pub struct Passwd {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    #[command(flatten)]
    pub new: NewPassphrase,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// What a state of the chain takes (docs/format.md, kinds of values).
pub(super) fn label(text: &str) -> Result<String, String> {
    if runvault_format::custody_state::is_label(text) {
        return Ok(text.to_owned());
    }
    Err("a label has 1 to 128 bytes and no control characters".to_owned())
}

/// `NAME=FILE`.
pub(super) fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("give it as NAME=FILE")?;
    if file.is_empty() {
        return Err("there is no file behind the =".to_owned());
    }
    Ok((label(name)?, PathBuf::from(file)))
}
