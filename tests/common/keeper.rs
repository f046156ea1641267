//! A program for `--exec` that keeps what it is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// It lies in a folder, and what it was told in another one.
pub struct Keeper {
    /// For `--exec`.
    pub program: PathBuf,
    /// A file for each change, named as in `stuck.raised`, with the environment of its call; `fds` and `arguments`
    /// of the last one.
    pub told: PathBuf,
}

impl Keeper {
    /// # Panics
    /// If it cannot be made.
    pub fn new(folder: &Path) -> Self {
        let (program, told) = (folder.join("keeper"), folder.join("told"));
        fs::create_dir(&told).expect("a folder");
        let script = format!(
            "#!/bin/sh\ncd '{}' || exit 9\nenv -0 > .new; ls -l /proc/self/fd > fds; printf '%s' \"$*\" > arguments\n\
             mv .new \"$RUNVAULT_ALARM.$RUNVAULT_ALARM_STATE\"\n",
            told.display()
        );
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("its mode");
        Self { program, told }
    }

    /// The environment of the call for that change, once there was one.
    pub fn environment(&self, change: &str) -> Option<Vec<u8>> {
        fs::read(self.told.join(change)).ok()
    }
}

/// What an environment says by that variable.
pub fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut lines = environment.split(|b| *b == 0);
    lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
