//! HPKE's `info`: what a sealed message is for, so that none opens in another's place.
//!
//! Four lines, each ended by a newline: `runvault/1 <purpose>`, `vault <hex>`, the scope
//! (`run <hex>`, `state <n>` or `request <hex>`), `to <recipient>`.

use std::fmt;

use crate::ids::{Digest, IdentityId, RunId, VaultId};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A run's key, in the run's `keys/`.
    RunKey,
    /// A custodian's share of a vault epoch's key.
    Share,
    /// The key of the epoch before, sealed to its successor.
    Previous,
    /// A share released to the executor of a request.
    Approval,
    /// A key for the worker of a re-keying: a run's, or its own seed.
    Worker,
}

impl Purpose {
    fn text(self) -> &'static str {
        match self {
            Purpose::RunKey => "run-key",
            Purpose::Share => "share",
            Purpose::Previous => "previous",
            Purpose::Approval => "approval",
            Purpose::Worker => "worker",
        }
    }
}

/// What a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A run.
    Run(RunId),
    /// The custody state that the message was made for.
    State(u64),
    /// A request, by the hash of its text.
    Request(Digest),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Run(run) => write!(f, "run {run}"),
            Scope::State(n) => write!(f, "state {n}"),
            Scope::Request(hash) => write!(f, "request {hash}"),
        }
    }
}

/// Who opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The vault key of an epoch: `vault-<e>`.
    Epoch(u32),
    /// A custodian, reader or executor: its id.
    Identity(IdentityId),
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipient::Epoch(e) => write!(f, "vault-{e}"),
            Recipient::Identity(id) => write!(f, "{id}"),
        }
    }
}

/// The `info` of a message.
pub fn info(purpose: Purpose, vault: &VaultId, scope: &Scope, to: &Recipient) -> Vec<u8> {
    format!("runvault/1 {}\nvault {vault}\n{scope}\nto {to}\n", purpose.text()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_text() {
        let text =
            info(Purpose::RunKey, &VaultId([1; 32]), &Scope::Run(RunId([2; 16])), &Recipient::Epoch(3));
        let expected =
            format!("runvault/1 run-key\nvault {}\nrun {}\nto vault-3\n", "01".repeat(32), "02".repeat(16));
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let text = info(
            Purpose::Share,
            &VaultId([1; 32]),
            &Scope::State(0),
            &Recipient::Identity(IdentityId([4; 16])),
        );
        assert!(text.ends_with(format!("state 0\nto {}\n", "04".repeat(16)).as_bytes()));
        let text = info(
            Purpose::Approval,
            &VaultId([1; 32]),
            &Scope::Request(Digest([5; 32])),
            &Recipient::Identity(IdentityId([4; 16])),
        );
        assert!(text.starts_with(b"runvault/1 approval\n"));
    }
}
