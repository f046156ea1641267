//! SIGTERM, SIGINT and SIGHUP end a mount in order; a second one changes nothing. No limit ends it.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Exit, refuse_with};

/// Calls `stop` once, at the first of the three signals, in a thread of its own. Later ones are taken
/// and dropped, so that an impatient second Ctrl-C cannot cut the flush short.
///
/// # Errors
/// The handlers could not be installed.
pub fn on_first(stop: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut stop = Some(stop);
        for signal in signals.forever() {
            if let Some(stop) = stop.take() {
                stop(name(signal));
            }
        }
    })?;
    Ok(())
}

/// Ends a command at the first of the three signals, where any point is as good as another; says how to go on.
///
/// # Errors
/// The handlers could not be installed.
pub fn end_with(hint: impl FnOnce() -> String + Send + 'static) -> anyhow::Result<()> {
    on_first(move |_| {
        let code = exit::report(&refuse_with(Exit::Failed, "interrupted", hint()));
        std::process::exit(code as i32);
    })?;
    Ok(())
}

/// A write past RLIMIT_FSIZE is to fail with EFBIG; by default its signal ends the process, and a mount
/// with it.
pub fn take_limits_as_errors() {
    // SAFETY: ignoring a signal calls nothing of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}
