//! What the kernel has let go of while the store did not answer.

use std::sync::{Arc, Mutex, PoisonError};

use runvault_vault::api::{Handle, Ino};
use runvault_vault::{Result, Vault};

/// Something that the kernel has let go of.
#[derive(Clone, Copy)]
pub(crate) enum Debt {
    Node(Ino, u64),
    File(Handle),
    Directory(Handle),
}

impl Debt {
    pub(crate) fn pay(self, vault: &Vault) -> Result<()> {
        match self {
            Debt::Node(ino, n) => {
                vault.forget(ino, n);
                Ok(())
            }
            Debt::File(handle) => vault.release(handle),
            Debt::Directory(handle) => vault.releasedir(handle),
        }
    }
}

/// What could not be let go of while the breaker was open.
pub(crate) struct Owed {
    vault: Arc<Vault>,
    debts: Mutex<Vec<Debt>>,
}

impl Owed {
    pub(crate) fn new(vault: Arc<Vault>) -> Self {
        Self { vault, debts: Mutex::default() }
    }

    pub(crate) fn add(&self, debt: Debt) {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner).push(debt);
    }

    /// Asks the store for its space, and pays when it answers. Whether it did.
    pub(crate) fn settle(&self) -> bool {
        if self.vault.statfs().is_err() {
            return false;
        }
        let debts = std::mem::take(&mut *self.debts.lock().unwrap_or_else(PoisonError::into_inner));
        for debt in debts {
            if let Err(error) = debt.pay(&self.vault) {
                log::warn!("{error}");
            }
        }
        true
    }
}
