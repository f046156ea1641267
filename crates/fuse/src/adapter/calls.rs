//! How a call is made: its reply parked, watched over, answered once, and undone where that came too late.

use fuser::{ReplyEmpty, ReplyEntry};
use runvault_vault::api::Attr;
use runvault_vault::{Error, Result, Vault, registers};

use super::Adapter;
use crate::attributes::{file_attr, generation, kept};
use crate::complaints;
use crate::errno;
use crate::owed::Debt;
use crate::parked::{Park, Parked};
use crate::watchdog::{Outcome, Patience, Refuse, Slot};

impl Adapter {
    /// Makes `call`; gives what came of it with the reply, or has answered already. `undo` takes back
    /// what a call did that came too late.
    pub(super) fn call<R: Park, T>(
        &self,
        reply: R,
        patience: Patience,
        call: impl FnOnce(&Vault, &Slot<Parked>) -> Result<T>,
        undo: impl FnOnce(&Vault, T),
    ) -> Option<(R, T)> {
        let outcome = self.watchdog.call(reply.park(), patience, |slot| {
            call(&self.vault, slot).map_err(|error| self.vault.explained(error))
        });
        // The thread waits for a request next, perhaps for long.
        registers::wipe();
        match outcome {
            Outcome::Ended(reply, Ok(value)) => R::unpark(reply).map(|reply| (reply, value)),
            Outcome::Ended(reply, Err(error)) => {
                refuse(reply, &error);
                None
            }
            Outcome::Late(Ok(value)) => {
                undo(&self.vault, value);
                None
            }
            Outcome::Late(Err(_)) | Outcome::Refused | Outcome::Failed => None,
        }
    }

    /// Most calls: short, and with nothing to undo.
    pub(super) fn ask<R: Park, T>(&self, reply: R, call: impl FnOnce(&Vault) -> Result<T>) -> Option<(R, T)> {
        self.call(reply, Patience::Short, |vault, _| call(vault), |_, _| {})
    }

    /// Calls that answer nothing but success.
    pub(super) fn done(
        &self,
        reply: ReplyEmpty,
        patience: Patience,
        call: impl FnOnce(&Vault) -> Result<()>,
    ) {
        if let Some((reply, ())) = self.call(reply, patience, |vault, _| call(vault), |_, ()| {}) {
            reply.ok();
        }
    }

    /// Calls that answer a node, and so take a reference to it.
    pub(super) fn entry(&self, reply: ReplyEntry, call: impl FnOnce(&Vault) -> Result<Attr>) {
        let undo = |vault: &Vault, attr: Attr| vault.forget(attr.ino, 1);
        if let Some((reply, attr)) = self.call(reply, Patience::Short, |vault, _| call(vault), undo) {
            reply.entry(&kept(&attr), &file_attr(&attr), generation(&attr));
        }
    }

    /// Forgets a node or gives up a handle, now or when the store answers again.
    pub(super) fn give_up<R: Park>(&self, reply: R, debt: Debt) -> Option<R> {
        let outcome = self.watchdog.call(reply.park(), Patience::Long, |_| debt.pay(&self.vault));
        registers::wipe();
        match outcome {
            Outcome::Ended(reply, result) => {
                if let Err(error) = result {
                    refuse(reply, &error);
                    return None;
                }
                R::unpark(reply)
            }
            Outcome::Late(_) | Outcome::Failed => None,
            Outcome::Refused => {
                self.owed.add(debt);
                self.watchdog.want_probe();
                None
            }
        }
    }
}

fn refuse(reply: Parked, error: &Error) {
    if errno::is_trouble(error) {
        complaints::log(error);
    }
    reply.refuse(errno::of(error));
}
