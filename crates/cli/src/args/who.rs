//! Who acts: the options that every command with a key has.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Who acts, and how the lock of that key file opens.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Who acts")]
pub struct Who {
    /// Key file of the acting identity [default: the owner's, kept in the store]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub identity: Option<PathBuf>,
    /// Where this machine keeps its writing identity and what it has seen of vaults
    /// [default: /var/lib/runvault for root, else $XDG_STATE_HOME/runvault or ~/.local/state/runvault]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Accept that custody/ ends at line N, though this machine has seen a newer one: it was put back from a
    /// backup on purpose. Undoes what the lines after N did
    #[arg(long, value_name = "N")]
    pub accept_rollback: Option<u64>,
    #[command(flatten)]
    pub apart: Apart,
    #[command(flatten)]
    pub unlock: Unlock,
    #[command(flatten)]
    pub token: Token,
}

/// Where `custody/` lies.
#[derive(Args, Clone, Debug, Default)]
pub struct Apart {
    /// The store's custody/ is this directory: keys kept apart from the data [default: in the store]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub custody: Option<PathBuf>,
}

/// What this machine has seen of vaults, for commands without a key.
#[derive(Args, Clone, Debug, Default)]
pub struct Seen {
    /// Where this machine keeps what it has seen of vaults
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: Option<PathBuf>,
    /// Accept that custody/ ends at line N, though this machine has seen a newer one: it was put back from a
    /// backup on purpose
    #[arg(long, value_name = "N")]
    pub accept_rollback: Option<u64>,
    #[command(flatten)]
    pub apart: Apart,
}

impl Seen {
    /// Nobody acts.
    pub fn who(&self) -> Who {
        Who {
            state: self.state.clone(),
            accept_rollback: self.accept_rollback,
            apart: self.apart.clone(),
            ..Who::default()
        }
    }
}

impl Who {
    /// Whether the command line says which key to use, or where its passphrase is.
    pub fn names_a_key(&self) -> bool {
        self.identity.is_some() || self.unlock.names_a_passphrase()
    }
}

/// Where the passphrase comes from; never from an argument or the environment.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Who acts")]
pub struct Unlock {
    /// Read the passphrase from the first line of FILE [default: systemd's credential
    /// runvault.passphrase where there is one, else the terminal]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "passphrase_fd")]
    pub passphrase_file: Option<PathBuf>,
    /// Read the passphrase from the first line of file descriptor N
    #[arg(long, value_name = "N")]
    pub passphrase_fd: Option<u32>,
    /// Accept secret files that group or others may read
    #[arg(long)]
    pub allow_readable_secret: bool,
}

/// How a PKCS#11 token is reached that locks the key file; nothing of it is ever taken from the file.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Who acts")]
pub struct Token {
    /// The library that reaches the token that locks the key file, by its whole path; its code runs in this
    /// process, so nobody else may be able to write it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub pkcs11_module: Option<PathBuf>,
    /// Read the token's PIN from the first line of FILE [default: the terminal]. It is tried once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "pin_fd", requires = "pkcs11_module")]
    pub pin_file: Option<PathBuf>,
    /// Read the token's PIN from the first line of file descriptor N
    #[arg(long, value_name = "N", requires = "pkcs11_module")]
    pub pin_fd: Option<u32>,
    /// Try the PIN though the token says that one more wrong one locks it
    #[arg(long, requires = "pkcs11_module")]
    pub last_pin_try: bool,
}

/// Where a new passphrase comes from, beside the old one.
#[derive(Args, Clone, Debug, Default)]
pub struct NewPassphrase {
    /// Read the new passphrase from the first line of FILE [default: the terminal, twice]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "new_passphrase_fd")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Read the new passphrase from the first line of file descriptor N
    #[arg(long, value_name = "N")]
    pub new_passphrase_fd: Option<u32>,
}

impl Unlock {
    /// Whether the command line says where the passphrase is.
    pub fn names_a_passphrase(&self) -> bool {
        self.passphrase_file.is_some() || self.passphrase_fd.is_some()
    }
}
