//! The programs of Debian's `tpm2-tools`. Which TPM they use is in their own variable, TPM2TOOLS_TCTI.
//!
//! Secrets go to them by a pipe and by a file in memory that has no name; never on a command line. They have nothing that
//! is open here ([`apart`]).

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use runvault_store::apart::apart;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

/// What names the authorization value on a command line.
pub(crate) const AUTH: &str = "file:/dev/fd/3";
const AUTH_FD: i32 = 3;
/// How long one may take: a TPM that tests itself, or serves another program, needs some seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// How often its end is looked for, once it has said its last word.
const POLL: Duration = Duration::from_millis(1);
/// How long one that was killed is waited for.
const REAPED: Duration = Duration::from_secs(1);

/// Why a TPM does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The programs are missing.
    #[error("the programs of tpm2-tools are not installed")]
    NoTools,
    /// No TPM answers.
    #[error("no TPM answers: {0}")]
    NoTpm(String),
    /// Someone else's.
    #[error("this NV index, or the one after it, is in use already")]
    Taken,
    /// Odd, or outside the owner's range.
    #[error("not an even NV index from 0x01800000 to 0x01bffffe")]
    NotAnIndex,
    /// Another TPM, or one that was cleared.
    #[error(
        "the TPM has no such NV index: it is another TPM than the one of the enrolment, or it was cleared"
    )]
    Gone,
    /// Defined anew by someone else.
    #[error("the NV index does not open with this state folder's value: it was made by someone else")]
    NotOurs,
    /// It was made, and nothing written.
    #[error("nothing was written to the NV index")]
    NotWritten,
    /// It holds no key, or another than the one that is looked for.
    #[error("the NV index holds no key of this state folder")]
    NoKey,
    /// The TPM is in lockout mode.
    #[error("the TPM is locked, since someone guessed at values of it")]
    Locked,
    /// The owner hierarchy has a password.
    #[error("the TPM's owner hierarchy has a password, without which nothing can be made in it")]
    OwnerHasPassword,
    /// The TPM, or whoever has it, hangs.
    #[error("{tool} gave no answer within {} s, and was ended", .limit.as_secs())]
    Silent {
        /// Which program.
        tool: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// What was sealed was sealed by another one.
    #[error("it did not lock this: it is another TPM than the one that did, or it was cleared")]
    OtherTpm,
    /// What the machine started with is not what it was.
    #[error(
        "its PCRs are not what they were when this was locked: the machine started with other software or settings"
    )]
    PcrsChanged,
    /// What else they say.
    #[error("{tool}: {said}")]
    Failed {
        /// Which program.
        tool: String,
        /// Its last word.
        said: String,
    },
}

/// Runs one; once, whatever it says. `auth`: 64 hex digits, which [`AUTH`] names. Gives what it printed.
pub(crate) fn run(
    tool: &str,
    args: &[&str],
    auth: Option<&str>,
    stdin: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    run_within(LIMIT, tool, args, auth, stdin)
}

fn run_within(
    limit: Duration,
    tool: &str,
    args: &[&str],
    auth: Option<&str>,
    stdin: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut left = None;
    let said = apart(|| ask(limit, tool, args, auth, stdin, &mut left));
    if let Some(process) = left {
        log::warn!("a program of tpm2-tools does not end: process {process}");
    }
    said.unwrap_or_else(|e| Err(failed(tool, "start", &e)))
}

fn failed(tool: &str, what: &str, error: &std::io::Error) -> Refused {
    Refused::Failed { tool: tool.to_owned(), said: format!("{what}: {error}") }
}

/// `left`: one that was killed, and does not end.
fn ask(
    limit: Duration,
    tool: &str,
    args: &[&str],
    auth: Option<&str>,
    stdin: &[u8],
    left: &mut Option<u32>,
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let failed = |what: &str, e: std::io::Error| failed(tool, what, &e);
    let auth = auth.map(in_memory).transpose().map_err(|e| failed("a file in memory", e))?;
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what it starts ends with it.
    command.process_group(0);
    if let Some(auth) = &auth {
        let from = auth.as_raw_fd();
        // SAFETY: between fork and exec there is one dup2(2) or fcntl(2), both safe after a fork; the file is open
        // until the child has been waited for.
        unsafe { command.pre_exec(move || hand_down(from)) };
    }
    let mut child = command.spawn().map_err(|e| match e.kind() {
        ErrorKind::NotFound => Refused::NoTools,
        _ => failed("start", e),
    })?;
    if let Some(mut pipe) = child.stdin.take() {
        // Shorter than a pipe is long; one that has ended says more by its status.
        let _ = pipe.write_all(stdin);
    }
    let ended = last_words(&mut child, Instant::now() + limit);
    let (status, said, complained) = ended.map_err(|error| {
        *left = end(child);
        match error {
            Some(error) => failed("wait", error),
            None => Refused::Silent { tool: tool.to_owned(), limit },
        }
    })?;
    if status.success() { Ok(said) } else { Err(refusal(tool, &String::from_utf8_lossy(&complained))) }
}

type Words = Zeroizing<Vec<u8>>;

/// How it ended, and what it said on both pipes; `None` where it has not until then.
fn last_words(
    child: &mut Child,
    until: Instant,
) -> Result<(ExitStatus, Words, Words), Option<std::io::Error>> {
    let (said, complained) = (gather(child.stdout.take())?, gather(child.stderr.take())?);
    let word = |of: Receiver<Words>| match of.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(words) => Ok(words),
        Err(RecvTimeoutError::Timeout) => Err(None),
        Err(RecvTimeoutError::Disconnected) => Err(Some(std::io::Error::other("its words were lost"))),
    };
    let (said, complained) = (word(said)?, word(complained)?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, said, complained));
        }
        if Instant::now() >= until {
            return Err(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Reads a pipe to its end.
fn gather(pipe: Option<impl Read + Send + 'static>) -> std::io::Result<Receiver<Words>> {
    let (words, told) = channel();
    std::thread::Builder::new().name("tpm2-tools".into()).spawn(move || {
        let mut read = Zeroizing::new(Vec::with_capacity(1 << 12));
        // What was cut short is told by how it ended, and whoever does not listen any more knows why.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut read));
        let _ = words.send(read);
    })?;
    Ok(told)
}

/// One that hangs in the kernel does not even end by that: it is left behind, and told.
fn end(mut child: Child) -> Option<u32> {
    // Not reaped yet: the number is still its own.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let begun = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begun.elapsed() >= REAPED {
            return Some(child.id());
        }
        std::thread::sleep(POLL);
    }
    None
}

fn in_memory(auth: &str) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("auth", MemfdFlags::CLOEXEC)?);
    file.write_all(Zeroizing::new(format!("hex:{auth}")).as_bytes())?;
    Ok(file)
}

/// dup2(2) of a descriptor onto itself would leave it to be closed at the exec.
fn hand_down(from: i32) -> std::io::Result<()> {
    // SAFETY: plain system calls on descriptors of this process.
    let done = unsafe {
        if from == AUTH_FD { libc::fcntl(AUTH_FD, libc::F_SETFD, 0) } else { libc::dup2(from, AUTH_FD) }
    };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The TPM's own codes, which the tools print (TPM 2.0 Library, part 2, table "TPM_RC Constants").
fn refusal(tool: &str, said: &str) -> Refused {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let last =
        said.lines().rev().map(str::trim).find(|line| line.starts_with("ERROR")).unwrap_or(said.trim());
    let last = last.trim_start_matches("ERROR:").trim().to_owned();
    match () {
        () if has(&["Could not load tcti"]) => Refused::NoTpm(last),
        () if has(&["(0x921)"]) => Refused::Locked,
        () if has(&["(0x1DF)"]) => Refused::OtherTpm,
        () if has(&["(0x99D)"]) => Refused::PcrsChanged,
        () if has(&["(0x14C)"]) => Refused::Taken,
        () if has(&["(0x14A)"]) => Refused::NotWritten,
        () if has(&["(0x18B)", "(0x28B)"]) => Refused::Gone,
        () if has(&["(0x9A2)", "(0x98E)", "(0xA22)", "(0x149)"])
            && matches!(tool, "tpm2_nvdefine" | "tpm2_createprimary") =>
        {
            Refused::OwnerHasPassword
        }
        () if has(&["(0x9A2)", "(0x98E)", "(0x149)"]) => Refused::NotOurs,
        () => Refused::Failed { tool: tool.to_owned(), said: last },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_told_by_its_name() {
        let of = |said: &str| refusal("tpm2_nvread", said);
        assert_eq!(
            of("ERROR: Esys_NV_Read(0x921) - tpm:warn(2.0): DA lockout mode\nERROR: Failed"),
            Refused::Locked
        );
        assert_eq!(of("ERROR: Esys_TR_FromTPMPublic(0x18B) - tpm:handle(1)"), Refused::Gone);
        assert_eq!(of("ERROR: Esys_NV_Read(0x9A2) - tpm:session(1)"), Refused::NotOurs);
        let other = Refused::Failed { tool: "tpm2_nvread".into(), said: "what else".into() };
        assert_eq!(of("WARN: so\nERROR: what else\n"), other);
        let define = refusal("tpm2_nvdefine", "ERROR: Esys_NV_DefineSpace(0x9A2)");
        assert_eq!(define, Refused::OwnerHasPassword);
    }

    #[test]
    fn one_that_hangs_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let (tool, started) = (folder.path().join("tpm2_getcap"), folder.path().join("started"));
        let script = format!("#!/bin/sh\nsleep 600 & echo $! > {}\nwait\n", started.display());
        std::fs::write(&tool, script).unwrap();
        let limit = Duration::from_millis(500);
        let tool = format!("{}", tool.display());
        let hung = run_within(limit, "sh", &[&tool], None, &[]).err();
        assert_eq!(hung, Some(Refused::Silent { tool: "sh".into(), limit }));
        let pid: i32 = std::fs::read_to_string(started).unwrap().trim().parse().unwrap();
        // Whoever inherits it reaps it: what counts is that it runs no more.
        let until = Instant::now() + Duration::from_secs(10);
        let runs =
            || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while runs() {
            assert!(Instant::now() < until, "it still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that closes its pipes and stays.
        let hung = run_within(limit, "sh", &["-c", "exec >&- 2>&-; sleep 600"], None, &[]).err();
        assert!(matches!(hung, Some(Refused::Silent { .. })), "{hung:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_said_so() {
        assert_eq!(run("tpm2_no_such_program", &[], None, &[]).err(), Some(Refused::NoTools));
    }

    #[test]
    fn the_value_comes_by_a_file_and_the_bytes_by_a_pipe() {
        let auth = "ab".repeat(32);
        let said = run("sh", &["-c", "cat /dev/fd/3 -"], Some(&auth), b" and more").unwrap();
        assert_eq!(String::from_utf8_lossy(&said), format!("hex:{auth} and more"));
    }
}
