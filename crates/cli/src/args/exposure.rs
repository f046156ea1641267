//! Arguments of `exposure`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::typed::time;
use super::who::Seen;

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
