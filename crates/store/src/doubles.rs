//! Stand-ins for the real directory, for tests of this crate and of those above it.
//!
//! * [`memory`]: a POSIX tree without a disk.
//! * [`observe`]: a hook around every call; the other doubles are made of it.
//! * [`recording`]: notes every change and every sync.
//! * [`crash`]: from such notes, the stores that a power cut may leave.
//! * [`faulty`]: calls that fail or hang.
//! * [`delaying`]: calls that take their time, and are counted.

pub mod crash;
pub mod delaying;
pub mod faulty;
pub mod memory;
pub mod observe;
pub mod recording;

use std::io::{Error, Result};

/// A name that no directory can hold, or that leaves it, as the real directory refuses it.
fn component(name: &[u8]) -> Result<&[u8]> {
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
        return Err(errno(libc::EINVAL));
    }
    if name.len() > 255 { Err(errno(libc::ENAMETOOLONG)) } else { Ok(name) }
}

fn errno(number: i32) -> Error {
    Error::from_raw_os_error(number)
}
