//! A mount that is alive: from attaching to the last answer.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Filesystem, SessionACL};
use runvault_vault::Vault;

use crate::adapter::Adapter;
use crate::mount::{Mount, attach};
use crate::notices;
use crate::parked::Parked;
use crate::watchdog::{Health, Watchdog};
use crate::{Error, MountOptions};

/// How long programs that still use a mount may go on after it was unmounted.
const BUSY_GRACE: Duration = Duration::from_secs(2);

/// A live mount. Dropping it unmounts, without waiting.
pub struct Session {
    mount: Mount,
    ended: Arc<Ended>,
    watchdog: Option<Arc<Watchdog<Parked>>>,
    /// Ends the thread of notices when it is dropped.
    _notices: Option<Sender<()>>,
}

impl Session {
    /// Mounts and answers in threads of its own; the mount answers when this returns.
    ///
    /// # Errors
    /// All of [`Error`].
    pub fn mount(vault: Arc<Vault>, at: &Path, options: &MountOptions) -> Result<Session, Error> {
        let told = Arc::clone(&vault);
        let watchdog = Watchdog::new(threads(options), options.stuck_after);
        let adapter = Adapter::new(vault, Arc::clone(&watchdog), options.local_store);
        let (owed, at_open) = (adapter.owed(), adapter.at_open());
        let (mut session, device) = Self::begin(adapter, at, options)?;
        at_open.by(device.try_clone().map_err(Error::Mount)?);
        watchdog.start(move || owed.settle()).map_err(Error::Mount)?;
        session._notices = Some(notices::start(told, device, options.max_nodes).map_err(Error::Mount)?);
        session.watchdog = Some(watchdog);
        Ok(session)
    }

    /// The same for any file system of fuser's, with nothing to watch over it: the yardstick in `benches`.
    ///
    /// # Errors
    /// All of [`Error`].
    #[doc(hidden)]
    pub fn serve(filesystem: impl Filesystem, at: &Path, options: &MountOptions) -> Result<Session, Error> {
        Ok(Self::begin(filesystem, at, options)?.0)
    }

    fn begin(
        filesystem: impl Filesystem,
        at: &Path,
        options: &MountOptions,
    ) -> Result<(Session, OwnedFd), Error> {
        let (device, mount) = attach(at, options)?;
        let mut config = Config::default();
        config.n_threads = Some(threads(options));
        // Whom to let in is the kernel's decision, made with allow_other; asking twice gains nothing.
        let begun = device.try_clone().and_then(|second| {
            fuser::Session::from_fd(filesystem, device, SessionACL::All, config)
                .and_then(fuser::Session::spawn)
                .and_then(Ended::when)
                .map(|ended| (ended, second))
        });
        match begun {
            Ok((ended, device)) => {
                mount.raise_read_ahead();
                Ok((Session { mount, ended, watchdog: None, _notices: None }, device))
            }
            Err(e) => {
                let _ = mount.detach(false);
                Err(Error::Mount(e))
            }
        }
    }

    /// Blocks until it was unmounted from outside or by [`Session::unmount`], and nothing uses it.
    pub fn wait(&self) {
        self.ended.wait();
    }

    /// How the store has answered since this was asked last.
    pub fn health(&self) -> Health {
        self.watchdog.as_ref().map(|watchdog| watchdog.health()).unwrap_or_default()
    }

    /// For a session that has lost a thread: every request from now on gets EIO, and none is under way when
    /// this returns. The mount stays, so that nothing is written below it; it dies with the process.
    pub fn refuse_all(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.shut();
        }
    }

    /// Unmounts (lazily if busy) and waits for requests under way, but not for those that hang in the
    /// store, nor long for programs that keep files open. The vault is closed by the caller.
    pub fn unmount(&self) {
        if let Err(e) = self.mount.detach(self.ended.has()) {
            log::warn!("unmount: {e}");
        }
        let begin = Instant::now();
        while !self.ended.wait_for(Duration::from_millis(20)) {
            let under_way = self.watchdog.as_ref().map_or(0, |watchdog| watchdog.under_way());
            if under_way == 0 && begin.elapsed() > BUSY_GRACE {
                log::warn!("unmounted while in use: programs that have files open there will get errors");
                break;
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.mount.detach(self.ended.has());
        if let Some(watchdog) = &self.watchdog {
            watchdog.stop();
        }
    }
}

/// One of them stays out of the store.
fn threads(options: &MountOptions) -> usize {
    options.threads.max(2)
}

/// Whether fuser's threads have all ended.
struct Ended {
    state: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn when(session: fuser::BackgroundSession) -> io::Result<Arc<Self>> {
        let ended = Arc::new(Self { state: Mutex::new(false), changed: Condvar::new() });
        let told = Arc::clone(&ended);
        thread::Builder::new().name("fuse-end".into()).spawn(move || {
            if let Err(e) = session.join() {
                log::error!("the session ended: {e}");
            }
            *told.lock() = true;
            told.changed.notify_all();
        })?;
        Ok(ended)
    }

    fn has(&self) -> bool {
        *self.lock()
    }

    fn wait(&self) {
        let mut state = self.lock();
        while !*state {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_for(&self, time: Duration) -> bool {
        let state = self.lock();
        *self
            .changed
            .wait_timeout_while(state, time, |ended| !*ended)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
