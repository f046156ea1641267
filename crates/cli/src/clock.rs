//! What this machine's clock says of itself.

use std::time::Duration;

/// No clock of a machine that has this program is right before 2026; seconds since 1970.
pub const BUILT: u64 = 1_767_225_600;

/// Whether a time service keeps it right, by the kernel's word.
pub fn is_synchronised() -> bool {
    // SAFETY: with modes = 0 it only reads, into a structure that is ours.
    unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut state) >= 0 && state.status & libc::STA_UNSYNC == 0
    }
}

/// Time since the machine started, suspended or not: a clock that nobody sets.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}
