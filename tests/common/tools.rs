//! Programs that tests run: ours, and those that scripts/setup installs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

/// RUNVAULT_PROGRAM, which `scripts/run-tests` has just built; else the `runvault` beside this test, which running the
/// test does not build.
///
/// # Panics
/// Where the latter is missing, or one of its sources is newer: `cargo build -p runvault`.
pub fn runvault() -> PathBuf {
    if let Some(program) = std::env::var_os("RUNVAULT_PROGRAM") {
        return program.into();
    }
    static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let beside = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let built = beside.join("runvault");
        current(&built).map(|()| built)
    });
    BUILT.clone().unwrap_or_else(|why| panic!("{why}: cargo build -p runvault"))
}

/// Whether a program is as new as all that cargo made it of, which cargo writes down in a file beside it.
fn current(program: &Path) -> Result<(), String> {
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified());
    let built = changed(program).map_err(|e| format!("{}: {e}", program.display()))?;
    let list = program.with_extension("d");
    let list = std::fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let (_, sources) = list.split_once(": ").ok_or("cargo's list of sources is none")?;
    let sources = sources.trim_end().replace("\\ ", "\0");
    let sources = sources.split(' ').map(|path| PathBuf::from(path.replace('\0', " ")));
    let newer = |path: &PathBuf| changed(path).map_or(true, |at| at > built);
    sources.into_iter().find(newer).map_or(Ok(()), |path| {
        Err(format!("{} is newer than {}, or gone", path.display(), program.display()))
    })
}

/// A program that scripts/setup put into the test tools, such as `bin/fsx` or `python/bin/python`.
///
/// # Panics
/// Without it: `scripts/setup test`.
pub fn tool(name: &str) -> PathBuf {
    let root = std::env::var_os("RUNVAULT_TEST_TOOLS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-tools")),
        PathBuf::from,
    );
    let tool = root.join(name);
    assert!(tool.exists(), "{} is missing: run scripts/setup test", tool.display());
    tool
}

/// The real run folders, where they are at hand; `None` leaves a test out, and says so.
///
/// # Panics
/// Where they are missing and RUNVAULT_REQUIRE_ALL is set.
pub fn real_runs() -> Option<PathBuf> {
    let runs = std::env::var_os("RUNVAULT_RUNS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/runs")),
        PathBuf::from,
    );
    if runs.is_dir() {
        return Some(runs);
    }
    leave_out(&format!("no real run folders at {}", runs.display()));
    None
}

/// Says that a test, or a part of one, is left out.
///
/// # Panics
/// Where RUNVAULT_REQUIRE_ALL is set: then nothing may be.
pub fn leave_out(why: &str) {
    assert!(std::env::var_os("RUNVAULT_REQUIRE_ALL").is_none(), "may not be left out: {why}");
    println!("left out: {why}");
}

/// The library that moves a process's wall clock, where it is installed; else a test is left out, and says so.
pub fn faketime() -> Option<PathBuf> {
    let architectures = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = architectures.map(|dir| dir.path().join("faketime/libfaketimeMT.so.1"));
    let found = libraries.find(|library| library.exists());
    if found.is_none() {
        leave_out("there is no libfaketime");
    }
    found
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this test runs as root, which `what` needs; else it is left out.
pub fn root_for(what: &str) -> bool {
    if !is_root() {
        leave_out(&format!("{what} needs root"));
    }
    is_root()
}

/// Runs a command to its end.
///
/// # Panics
/// With all that it printed, if it fails.
pub fn run(command: &mut Command) -> Output {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, printed(&output));
    output
}

/// Runs a command to its end, however that is.
///
/// # Panics
/// If it cannot be started.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Both streams of a command, for a message.
pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs one test of this binary again as another user, with a temporary directory of its own.
///
/// # Panics
/// With what it printed, if it fails.
pub fn again_as(uid: u32, gid: u32, test: &str) {
    let home = tempfile::Builder::new().prefix("runvault-user-").tempdir().expect("a temporary directory");
    run(Command::new("chown").arg(format!("{uid}:{gid}")).arg(home.path()));
    let test_binary = std::env::current_exe().expect("a test has a path");
    let mut command = Command::new(test_binary);
    command.args(["--exact", test, "--nocapture"]).env("TMPDIR", home.path()).env("HOME", home.path());
    std::os::unix::process::CommandExt::uid(&mut command, uid);
    std::os::unix::process::CommandExt::gid(&mut command, gid);
    let done = run(&mut command);
    assert!(printed(&done).contains("1 passed"), "{}", printed(&done));
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::current;

    #[test]
    fn a_program_older_than_a_source_of_it_is_refused() {
        let dir = tempfile::TempDir::with_prefix("runvault built ").expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let (program, source) = (path("program"), path("source.rs"));
        let listed = |path: &std::path::Path| path.display().to_string().replace(' ', "\\ ");
        assert!(current(&program).is_err(), "there is no program");
        fs::write(&program, b"").expect("a file");
        fs::write(&source, b"").expect("a file");
        let list = format!("{}: {} {}\n", listed(&program), listed(&source), listed(&program));
        fs::write(path("program.d"), list).expect("a file");
        let dated = |seconds| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::options().write(true).open(&source).and_then(|f| f.set_modified(at)).expect("a time");
        };
        dated(1_000);
        assert_eq!(current(&program), Ok(()));
        dated(10_000_000_000);
        assert!(current(&program).expect_err("stale").contains("source.rs is newer"));
        fs::remove_file(&source).expect("removed");
        assert!(current(&program).is_err(), "a source is gone");
    }
}
