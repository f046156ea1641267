//! Arguments of `custody recover`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::args::typed::reason;
use crate::args::who::Apart;

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
