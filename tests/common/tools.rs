//! Programs that tests run: ours, and those that scripts/setup installs.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The `runvault` that was built beside this test.
///
/// # Panics
/// Without one: `cargo build -p runvault`.
pub fn runvault() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps").join("runvault");
    assert!(built.exists(), "{} is missing: cargo build -p runvault", built.display());
    built
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
/// Where RUNVAULT_REQUIRE_ALL is set and they are missing.
pub fn real_runs() -> Option<PathBuf> {
    let runs = std::env::var_os("RUNVAULT_RUNS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/runs")),
        PathBuf::from,
    );
    if runs.is_dir() {
        return Some(runs);
    }
    assert!(std::env::var_os("RUNVAULT_REQUIRE_ALL").is_none(), "{} is missing", runs.display());
    println!("left out: no real run folders at {}", runs.display());
    None
}

/// Whether this test runs as root; most of what needs it says that it was left out.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
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
