//! Programs that are started while files of the store are open.
//!
//! A new program has all descriptors of who starts it, until its exec closes them; and each of these closes is one for the
//! file system. sshfs tells the failure of a write to whoever closes a descriptor of that file first, so that nobody hears
//! of it; and it lets a close wait for what is under way, so that nothing can be started while a share hangs.

use std::{io, panic, thread};

/// Those behind standard input, output and error.
const FIRST: u32 = 3;

/// Runs `act` on a thread of its own, which has no descriptor of this process but the standard ones: what is started there
/// has none either. Nothing that is open elsewhere may be used in it, the log included, and nothing that is open may come
/// out of it.
///
/// # Errors
/// The thread could not be started; the kernel's, before Linux 5.9.
pub fn apart<T: Send>(act: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let act = || forget_descriptors().map(|()| act());
        let thread = thread::Builder::new().name("apart".into()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

/// This thread's table of descriptors becomes one of its own, into which the others are not even copied: no file is closed.
fn forget_descriptors() -> io::Result<()> {
    // SAFETY: the thread was just made, and owns no descriptor; those of the process stay open in its own table.
    let done = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_started_apart_never_had_a_descriptor() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("file");
        let file = File::create(&path).unwrap();
        // Without close-on-exec, so that only who never had it does not have it.
        // SAFETY: a flag of a descriptor that is this test's.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        let listed = || Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap().stdout;
        let names_it = |listed: Vec<u8>| String::from_utf8(listed).unwrap().contains(path.to_str().unwrap());
        assert!(names_it(listed()), "the control");
        assert!(!names_it(apart(listed).unwrap()));
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(fs::read_link(own).unwrap(), path, "it is open as before");
    }
}
