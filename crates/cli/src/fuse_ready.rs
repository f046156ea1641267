//! Whether this machine and user can mount at all, said before anything is asked or opened.

use runvault_fuse::Error;

const DEVICE: &str = "/dev/fuse";
const CONFIGURATION: &str = "/etc/fuse.conf";

/// Refuses where the mount is bound to fail.
///
/// # Errors
/// Exit 1: no /dev/fuse, or not for this user, no fusermount3, `allow_other` that is not allowed.
pub fn check(allow_other: bool) -> Result<(), Error> {
    // fusermount3 opens it as the user who calls it.
    std::fs::File::options().read(true).write(true).open(DEVICE).map_err(Error::NoDevice)?;
    // Root mounts by itself.
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if !in_path("fusermount3") {
        return Err(Error::NoFusermount);
    }
    let configuration = std::fs::read_to_string(CONFIGURATION).unwrap_or_default();
    if allow_other && !allows_other(&configuration) {
        return Err(Error::AllowOtherForbidden);
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn allows_other(configuration: &str) -> bool {
    configuration.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_allows_nothing() {
        assert!(allows_other("mount_max = 10\n user_allow_other \n"));
        assert!(!allows_other("#user_allow_other\n"));
        assert!(!allows_other(""));
    }
}
