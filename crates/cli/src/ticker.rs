//! The thread that lets waiting bytes out while a vault is open.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use runvault_vault::Vault;

const EVERY: Duration = Duration::from_millis(250);

/// Ticks until it is dropped.
pub struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts ticking.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(vault: &Arc<Vault>) -> Result<Ticker> {
        let (stop, stopped) = channel();
        let vault = Arc::clone(vault);
        let thread = Builder::new().name("tick".into()).spawn(move || run(&vault, &stopped))?;
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

fn run(vault: &Vault, stopped: &Receiver<()>) {
    let mut said = String::new();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
        let now = vault.tick().err().map(|e| e.to_string()).unwrap_or_default();
        // The same trouble is one line, not four a second.
        if now != said && !now.is_empty() {
            log::warn!("{now}");
        }
        said = now;
    }
}
