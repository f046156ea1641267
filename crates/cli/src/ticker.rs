//! Threads of an open vault: one lets waiting bytes out, the other renews leases, whatever the first one waits for.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use runvault_vault::Vault;

const EVERY: Duration = Duration::from_millis(250);

/// Acts every 250 ms until it is dropped.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Lets out what waits.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn of_bytes(vault: &Arc<Vault>) -> Result<Ticker> {
        let mut said = String::new();
        let vault = Arc::clone(vault);
        Self::start("tick", move || {
            let now = vault.tick().err().map(|e| e.to_string()).unwrap_or_default();
            // The same trouble is one line, not four a second.
            if now != said && !now.is_empty() {
                log::warn!("{now}");
            }
            said = now;
        })
    }

    /// Renews leases; to be dropped when the vault is closed.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn of_leases(vault: &Arc<Vault>) -> Result<Ticker> {
        let vault = Arc::clone(vault);
        Self::start("lease", move || vault.renew_leases())
    }

    fn start(name: &str, mut act: impl FnMut() + Send + 'static) -> Result<Ticker> {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                act();
            }
        };
        let thread = Builder::new().name(name.into()).spawn(run)?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A tick that panicked has been reported by the panic itself.
            let _ = thread.join();
        }
    }
}
