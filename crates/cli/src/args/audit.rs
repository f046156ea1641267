//! Arguments of `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::typed::head;
use super::who::Seen;

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
