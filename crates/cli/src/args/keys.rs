//! Arguments of the commands that make, lock and rotate keys.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{Unlock, Who};

/// Make a vault in an empty directory
///
/// Makes an owner identity, whose key file is locked by a passphrase and kept in the store, or written
/// to a file outside with --identity. Prints the vault's fingerprint and what to keep a copy of.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault init /srv/store                             asks for a passphrase, twice
  runvault init /srv/store --passphrase-file pass.txt  for scripts
  runvault init /srv/store --identity ~/owner.key      no key in the store: keep it elsewhere
  runvault init /tmp/t --identity t.key --no-lock      an unlocked key, for tests
  runvault init /srv/store --custodian alice=a.key.pub --custodian bob=b.key.pub \\
    --custodian carol=c.key.pub --quorum 2             two of three have to agree")]
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
    #[command(flatten)]
    pub unlock: Unlock,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
  runvault keygen --out service.key --no-lock                  for a service; its mode alone protects it")]
pub struct Keygen {
    /// The key file to make (0600); FILE.pub comes beside it. Existing files are refused
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// What the key calls itself [default: the file's name without its end]
    #[arg(long, value_parser = label)]
    pub label: Option<String>,
    /// Leave the key file unlocked
    #[arg(long, conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    pub no_lock: bool,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The owner's key file
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Examples:\n  runvault key export /srv/store --out owner.key")]
pub struct Key {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    Export(KeyExport),
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
    /// Then take it out of the store: the file is the only one from then on
    #[arg(long)]
    pub remove: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
    /// Read the new passphrase from the first line of FILE [default: the terminal, twice]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "new_passphrase_fd")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Read the new passphrase from the first line of file descriptor N
    #[arg(long, value_name = "N")]
    pub new_passphrase_fd: Option<u32>,
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
