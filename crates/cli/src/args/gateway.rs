//! Arguments of the commands about the machines that write.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use runvault_custody::ends::{LastKnown, Which};
use runvault_custody::kek_home::Wish;

use super::Who;
use super::keys::label;

/// The machines that write runs
#[derive(Args, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  runvault gateway list /srv/store
  runvault gateway enroll --help         let one in: with the owner's passphrase, or by a request
  runvault gateway admit --help          let one add to runs of others
  runvault gateway dismiss --help        and no longer
  runvault gateway revoke --help         end one whose key was stolen")]
pub struct Gateway {
    #[command(subcommand)]
    pub command: GatewayCommand,
}

#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    Admit(GatewayAdmit),
    Dismiss(GatewayDismiss),
    Enroll(GatewayEnroll),
    List(GatewayList),
    Revoke(GatewayRevoke),
}

/// Let this machine, or one whose request is at hand, write runs
///
/// Makes this machine's identity in its state folder (--state) and has the owner sign for it. Where the owner's
/// passphrase must not be typed, --out writes a request instead; the owner signs that on another machine with
/// --request. Then the machine mounts with --ingest, and needs no passphrase.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault gateway enroll /srv/store --fingerprint 2f6c... --name novaseq-1
                                           on the machine itself; asks for the owner's passphrase
  runvault gateway enroll /srv/store --fingerprint 2f6c... --name novaseq-1 --out novaseq-1.req
                                           on a machine where that must not be typed; prints an id
  runvault gateway enroll /srv/store --fingerprint 2f6c... --kek tpm
                                           a copy of the state folder is then nothing without this machine
  runvault gateway enroll /srv/store --request novaseq-1.req
                                           the owner, elsewhere; compare the id that it prints
  runvault mount --ingest /srv/store /mnt/runs")]
pub struct GatewayEnroll {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The vault that is meant: the last line of `runvault fingerprint`, or its twelve words
    #[arg(long, value_name = "HEX|WORDS", required_unless_present = "request")]
    pub fingerprint: Option<String>,
    /// What people will call it [default: the host's name]
    #[arg(long, value_name = "LABEL", value_parser = label, conflicts_with = "request")]
    pub name: Option<String>,
    /// Write a request for the owner to this file, and sign nothing (an existing file is refused)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "request")]
    pub out: Option<PathBuf>,
    /// Where a new state folder keeps the key that seals the keys of its open runs, replaced at every seal: in a file of
    /// its own (file), or in the TPM, by tpm2-tools (tpm, or tpm:0x01800010 for that NV index and the next) [default: file]
    #[arg(long, value_name = "HOME", value_parser = kek, conflicts_with = "request")]
    pub kek: Option<Wish>,
    /// Sign for the machine that wrote this request
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub request: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Let a machine add to the sealed runs of others, or seal one that it took over
///
/// A run that was sealed can be added to: results of an analysis become a run of their own with its own seal, shown in
/// the same folder. The machine that made the run may do that anyway; any other must be admitted by the owner, to one
/// run or, without RUN, to all. It never changes what was sealed. `takeover` admits this machine to the run by itself.
/// Who was admitted to a run that is open may also seal it: admit only machines that you trust with that.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault gateway admit /srv/store analysis-1                       an analysis server, to every run
  runvault gateway admit /srv/store analysis-1 240131_A01234_0042_AHXYZ")]
pub struct GatewayAdmit {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The machine's name or id
    pub name: String,
    /// The run, by its name (with --run-depth 2 INSTRUMENT/RUN) or id [default: it may add to every run, and seal none of others]
    pub run: Option<OsString>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// End what a machine was admitted to: it adds to that run, or to any, no more
///
/// What it added and sealed by its admission until now goes on counting, or what it made up to --last-run and
/// --last-seal; what no longer does is named, and shown as a run of its own. It still writes its own runs: to end that
/// too, revoke it. Admitting it again lets all count that it has made.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault gateway dismiss /srv/store analysis-1                     from every run, and from each single one
  runvault gateway dismiss /srv/store analysis-1 240131_A01234_0042_AHXYZ
  runvault gateway dismiss /srv/store analysis-1 --last-run 42       what it made after that one may be forged")]
pub struct GatewayDismiss {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// The machine's name or id
    pub name: String,
    /// The run, by its name (with --run-depth 2 INSTRUMENT/RUN) or id [default: all that it was admitted to]
    pub run: Option<OsString>,
    #[command(flatten)]
    pub last: LastOf,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// List the machines that may write, and those that no longer may; asks for no passphrase
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault gateway list /srv/store
  runvault gateway list --json /srv/store | jq -r 'select(.last_run == null) | .name'")]
pub struct GatewayList {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Print JSON: an object for each gateway, one a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

/// Where a machine's chains end.
#[derive(Args, Clone, Copy, Debug)]
pub struct LastOf {
    /// Its last run that counts, by its number or its id [default: the newest that the store has; needed where numbers are
    /// missing below that one, since a stolen key can give a run any number]
    #[arg(long, value_name = "N|RUN")]
    pub last_run: Option<Which>,
    /// Its last seal that counts, by its number or the id of the run that was sealed [default: as far as seals name each
    /// other, from the one that its last run names; needed where one does not follow, or two do]
    #[arg(long, value_name = "N|RUN")]
    pub last_seal: Option<Which>,
}

impl LastOf {
    /// As custody takes it.
    pub fn known(&self) -> LastKnown {
        LastKnown { run: self.last_run, seal: self.last_seal }
    }
}

/// End a machine's right to write: runs that it makes from now on are refused
///
/// The runs that the store has of it now go on counting, or those up to --last-run; what no longer does is named. Where
/// two runs, or seals, bear the last number, name the genuine one by its id. It cannot be enrolled again: give the
/// machine a new state folder first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  runvault gateway revoke /srv/store novaseq-1
  runvault gateway revoke /srv/store novaseq-1 --last-run 42              what came after that one may be forged
  runvault gateway revoke /srv/store 5d0c8e4f6a1b2c3d4e5f60718293a4b5      by its id")]
pub struct GatewayRevoke {
    /// The store
    #[arg(value_hint = ValueHint::DirPath)]
    pub store: PathBuf,
    /// Its name or id
    pub name: String,
    #[command(flatten)]
    pub last: LastOf,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub who: Who,
}

fn kek(text: &str) -> Result<Wish, String> {
    let unknown = || format!("{text}: neither file nor tpm nor tpm:0xNV");
    match text.split_once(':') {
        None if text == "file" => Ok(Wish::File),
        None if text == "tpm" => Ok(Wish::Tpm(None)),
        Some(("tpm", index)) => {
            let digits = index.strip_prefix("0x").ok_or_else(unknown)?;
            u32::from_str_radix(digits, 16).map(|index| Wish::Tpm(Some(index))).map_err(|_| unknown())
        }
        _ => Err(unknown()),
    }
}
