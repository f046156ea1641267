//! `--exec`: a program of the operator's that hears of each alarm. One runs at a time, for a bounded time, and the
//! mount never waits for it, and it has nothing that is open here ([`apart`]).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use runvault_format::ids::RunId;
use runvault_vault::apart;
use rustix::process::{Pid, Signal, kill_process_group};

use super::await_end;
use super::board::Change;
use super::facts::unix_seconds;
use crate::exit::{Exit, refuse};
use crate::output::{shown, utc};

/// How long it may run.
const LIMIT: Duration = Duration::from_secs(30);
/// Changes that wait for their turn.
const QUEUE: usize = 256;
/// How often is looked whether it has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long one that was killed may take to go.
const REAPED: Duration = Duration::from_secs(2);
/// Of this process's environment, what a program may need; nothing of a service manager's.
const KEPT: [&str; 3] = ["PATH", "HOME", "LANG"];

/// A program that is there and can be run.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// How long it may run.
    limit: Duration,
}

impl Program {
    /// # Errors
    /// Exit 2: it cannot be run.
    pub fn at(path: &Path) -> Result<Program> {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() && meta.mode() & 0o111 != 0 => {
                Ok(Program { path: path.to_owned(), limit: LIMIT })
            }
            Ok(_) => Err(refuse(Exit::Usage, format!("--exec {}: not an executable file", shown(path)))),
            Err(error) => Err(refuse(Exit::Usage, format!("--exec {}: {error}", shown(path)))),
        }
    }

    /// With another time than the usual one.
    #[must_use]
    pub fn within(self, limit: Option<Duration>) -> Program {
        Program { limit: limit.unwrap_or(self.limit), ..self }
    }

    /// No argument and no shell: whatever a run's name holds, it is a value.
    fn command(&self, change: &Change, name: Option<&[u8]>) -> Command {
        let alarm = &change.alarm;
        let mut command = Command::new(&self.path);
        command.env_clear();
        for name in KEPT {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("RUNVAULT_ALARM", alarm.kind.word());
        command.env("RUNVAULT_ALARM_STATE", if change.raised { "raised" } else { "cleared" });
        command.env("RUNVAULT_ALARM_TEXT", &alarm.text);
        command.env("RUNVAULT_ALARM_SINCE", utc(unix_seconds(alarm.since)));
        command.envs(alarm.run.map(|run| ("RUNVAULT_ALARM_RUN", run.to_string())));
        command.envs(name.map(|name| ("RUNVAULT_ALARM_NAME", OsStr::from_bytes(name))));
        // A group of its own, so that what it starts ends with it.
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    fn start(&self, change: &Change, name: Option<&[u8]>) -> io::Result<Child> {
        apart(|| self.command(change, name).spawn()).flatten()
    }
}

/// Tells the plaintext name of a run that is open here.
pub type Names = Box<dyn Fn(&RunId) -> Option<Vec<u8>> + Send>;

/// Runs it, in a thread of its own.
pub struct Runner {
    queue: Option<SyncSender<Change>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// # Errors
    /// The thread could not be started.
    pub fn start(program: Program, names: Names) -> Result<Runner> {
        let (queue, changes) = sync_channel(QUEUE);
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let run = move || run_all(&program, &names, &changes, &told);
        let thread = Builder::new().name("alarm-exec".into()).spawn(run)?;
        Ok(Runner { queue: Some(queue), ended, thread: Some(thread) })
    }

    /// Has it run for this change, when it is its turn.
    pub fn run(&self, change: &Change) {
        let sent = self.queue.as_ref().map(|queue| queue.try_send(change.clone()));
        if let Some(Err(TrySendError::Full(_))) = sent {
            log::error!("the alarm program is too slow: it was not told of {}", about(change));
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.queue.take();
        self.thread.take().into_iter().for_each(await_end);
    }
}

fn run_all(program: &Program, names: &Names, changes: &Receiver<Change>, ended: &AtomicBool) {
    keep_umask();
    for change in changes.iter().take_while(|_| !ended.load(Ordering::SeqCst)) {
        // No earlier, and no longer than it takes to start the program: a sealed run's name is gone from here.
        let started = program.start(&change, change.alarm.run.and_then(|run| names(&run)).as_deref());
        let failed = match started {
            Ok(child) => failure(child, ended, program.limit),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            log::error!("the alarm program failed, for {}: {why}", about(&change));
        }
    }
}

/// The mount's process has none, for the modes of what it writes; what the program makes is not for all to write.
fn keep_umask() {
    // SAFETY: this thread shares no file system state with others afterwards, and none of them relies on it.
    let own = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) };
    match own {
        Ok(()) => drop(rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077))),
        Err(error) => log::warn!("the alarm program has no umask: {error}"),
    }
}

/// Waits for its end, or makes one; why it was none that was good.
fn failure(mut child: Child, ended: &AtomicBool, limit: Duration) -> Option<String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return (!status.success()).then(|| status.to_string()),
            Ok(None) => {}
            Err(error) => return Some(error.to_string()),
        }
        let stopped = ended.load(Ordering::SeqCst);
        if stopped || begun.elapsed() >= limit {
            // Not reaped yet: the number is still its own.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            reap(child);
            let why = if stopped { "the mount ends" } else { "it took too long" };
            return Some(format!("{why}: it was killed"));
        }
        std::thread::sleep(POLL);
    }
}

/// One that waits for a store that hangs does not even end by that: it is left behind.
fn reap(mut child: Child) {
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() >= REAPED {
            return log::warn!("the alarm program does not end: process {}", child.id());
        }
        std::thread::sleep(POLL);
    }
}

fn about(change: &Change) -> String {
    let mut text = change.alarm.kind.word().to_owned();
    if let Some(run) = change.alarm.run {
        let _ = write!(text, " of run {run}");
    }
    text + if change.raised { ", raised" } else { ", cleared" }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use runvault_format::ids::RunId;

    use super::super::{Alarm, Kind};
    use super::*;

    const NAME: &[u8] = b"$(touch made); \xff 'x\"\n";

    /// A script, and a change that it is told of.
    fn script(folder: &Path, lines: &str) -> (Program, Change) {
        let path = folder.join("script");
        std::fs::write(&path, format!("#!/bin/sh\ncd '{}'\n{lines}\n", folder.display())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let alarm = Alarm {
            kind: Kind::Stuck,
            run: Some(RunId([7; 16])),
            text: "silent".to_owned(),
            since: SystemTime::UNIX_EPOCH,
        };
        (Program::at(&path).unwrap(), Change { alarm, raised: true })
    }

    /// A file that is not written by one process while another is started: else it could not be executed.
    fn spawn(program: &Program, change: &Change) -> Child {
        loop {
            match program.start(change, Some(NAME)) {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => std::thread::sleep(POLL),
                spawned => break spawned.unwrap(),
            }
        }
    }

    #[test]
    fn a_program_is_told_by_its_environment_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (program, change) = script(
            folder.path(),
            "env -0 > env; printf '%s' \"$#\" > arguments; printf '%s' \"$RUNVAULT_ALARM_NAME\" > name",
        );
        assert_eq!(failure(spawn(&program, &change), &AtomicBool::new(false), LIMIT), None);
        let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read("arguments"), b"0");
        assert_eq!(read("name"), NAME);
        let env = read("env");
        let mut told: Vec<&[u8]> =
            env.split(|b| *b == 0).filter(|line| line.starts_with(b"RUNVAULT")).collect();
        told.sort_unstable();
        let name = [b"RUNVAULT_ALARM_NAME=", NAME].concat();
        let expected: [&[u8]; 6] = [
            b"RUNVAULT_ALARM=stuck",
            &name,
            b"RUNVAULT_ALARM_RUN=07070707070707070707070707070707",
            b"RUNVAULT_ALARM_SINCE=1970-01-01T00:00:00Z",
            b"RUNVAULT_ALARM_STATE=raised",
            b"RUNVAULT_ALARM_TEXT=silent",
        ];
        assert_eq!(told, expected);
        assert!(!folder.path().join("made").exists());
        let others = env.split(|b| *b == 0).filter_map(|line| line.split(|b| *b == b'=').next());
        let known = |name: &[u8]| {
            name.starts_with(b"RUNVAULT_ALARM") || KEPT.iter().any(|kept| kept.as_bytes() == name)
        };
        // A shell adds its own.
        let foreign: Vec<_> = others
            .filter(|name| !known(name) && ![&b""[..], b"PWD", b"OLDPWD", b"SHLVL", b"_"].contains(name))
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    }

    #[test]
    fn one_that_fails_or_stays_is_told_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (program, change) = script(folder.path(), "exit 3");
        let ended = AtomicBool::new(false);
        assert_eq!(failure(spawn(&program, &change), &ended, LIMIT).unwrap(), "exit status: 3");
        let (program, change) =
            script(folder.path(), "sleep 600 & echo $! > pid.new; mv pid.new pid; sleep 600");
        for stop in [false, true] {
            let child = spawn(&program, &change);
            let pid = folder.path().join("pid");
            while !pid.exists() {
                std::thread::sleep(POLL);
            }
            ended.store(stop, Ordering::SeqCst);
            let limit = if stop { LIMIT } else { Duration::ZERO };
            let why = failure(child, &ended, limit).unwrap();
            assert_eq!(
                why,
                if stop { "the mount ends: it was killed" } else { "it took too long: it was killed" }
            );
            let sleeper = std::fs::read_to_string(&pid).unwrap();
            let stat = format!("/proc/{}/stat", sleeper.trim());
            // Whoever adopts it may leave it as a zombie.
            let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
            let begun = Instant::now();
            while lives() {
                assert!(begun.elapsed() < Duration::from_secs(20), "what it started lives on");
                std::thread::sleep(POLL);
            }
            std::fs::remove_file(pid).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_run_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        for path in [&plain, &folder.path().join("none"), &folder.path().to_owned()] {
            assert_eq!(crate::exit::of(&Program::at(path).unwrap_err()), Exit::Usage, "{}", path.display());
        }
    }

    #[test]
    fn nobody_waits_for_a_program_that_is_slow() {
        let folder = tempfile::tempdir().unwrap();
        let (program, change) = script(folder.path(), "umask > umask; sleep 600");
        let runner = Runner::start(program, Box::new(|_| None)).unwrap();
        let begun = Instant::now();
        for _ in 0..2 * QUEUE {
            runner.run(&change);
        }
        while !folder.path().join("umask").exists() {
            std::thread::sleep(POLL);
        }
        drop(runner);
        assert!(begun.elapsed() < LIMIT, "it was waited for");
        assert_eq!(std::fs::read_to_string(folder.path().join("umask")).unwrap().trim(), "0077");
    }
}
