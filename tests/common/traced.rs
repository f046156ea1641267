//! A program that is stopped at system calls of its first thread, and what its memory holds there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use memchr::memmem;
use rustix::process::{Pid, Signal, WaitOptions, waitpid};

/// All that a process may write to: heap, stacks, what is locked, what is left out of core dumps, and the registers of
/// its first thread; each with what /proc calls it.
pub struct Image(Vec<(String, Vec<u8>)>);

impl Image {
    /// Of a process of this machine. Needs root where it is not dumpable.
    ///
    /// # Panics
    /// If it cannot be looked at.
    pub fn of(pid: u32) -> Self {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("mem");
        let writable = maps.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).expect("hex");
            fields.next()?.starts_with("rw").then(|| (line.to_owned(), number(from), number(to)))
        });
        let read = |(line, from, to): (String, u64, u64)| {
            let mut bytes = vec![0; (to - from) as usize];
            memory.read_exact_at(&mut bytes, from).ok().map(|()| (line, bytes))
        };
        Self(writable.filter_map(read).collect())
    }

    /// Whether these bytes are somewhere in it.
    pub fn holds(&self, what: &[u8]) -> bool {
        self.0.iter().any(|(_, piece)| memmem::find(piece, what).is_some())
    }

    /// Where they are, each with what stands around it.
    pub fn places(&self, what: &[u8]) -> Vec<String> {
        const AROUND: usize = 64;
        let of = |(line, piece): &(String, Vec<u8>)| {
            let found = memmem::find_iter(piece, what).map(|at| {
                let around = &piece[at.saturating_sub(AROUND)..piece.len().min(at + what.len() + AROUND)];
                format!("{line} +{at:#x}: {}", around.escape_ascii())
            });
            found.collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Bytes of it.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(_, piece)| piece.len()).sum()
    }
}

/// Runs a program to its end, and shows `look` what it has in memory at each of these `calls` of its first thread. Gives
/// its exit code, and the image at its very last call, exit_group(2).
///
/// # Panics
/// If it cannot be traced, or ends otherwise than by exit_group(2).
#[expect(clippy::zombie_processes, reason = "waitpid(2) tells its stops and its end")]
pub fn traced(command: &mut Command, calls: &[i64], look: &mut dyn FnMut(Image)) -> (i32, Image) {
    let trace_me = || {
        // SAFETY: ptrace(2) of this very process, between fork and exec, allocates nothing.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    let child = unsafe { command.pre_exec(trace_me) }.stdin(Stdio::null()).spawn().expect("it starts");
    let pid = Pid::from_raw(child.id() as i32).expect("a pid");
    let stopped = || waitpid(Some(pid), WaitOptions::empty()).expect("a child").expect("its state").1;
    assert!(stopped().stopped(), "the stop of exec");
    go_on(libc::PTRACE_SETOPTIONS, pid, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL);
    let (mut last, mut signal) = (None, 0);
    loop {
        go_on(libc::PTRACE_SYSCALL, pid, signal);
        let state = stopped();
        if let Some(code) = state.exit_status() {
            return (code, last.expect("exit_group"));
        }
        assert!(!state.signaled(), "it was killed");
        let by = state.stopping_signal().expect("stopped");
        if by != Signal::TRAP.as_raw() | 0x80 {
            signal = by;
            continue;
        }
        signal = 0;
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).expect("its call");
        let call: i64 = call.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(-1);
        if call == libc::SYS_exit_group {
            last = Some(image_with_registers(pid));
        } else if calls.contains(&call) {
            look(image_with_registers(pid));
        }
    }
}

fn go_on(how: libc::c_uint, pid: Pid, data: i32) {
    // SAFETY: ptrace(2) with a number as its data touches no memory of ours.
    let done = unsafe { libc::ptrace(how, pid.as_raw_nonzero().get(), 0, libc::c_long::from(data)) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}

fn image_with_registers(pid: Pid) -> Image {
    /// What the vector registers are kept in (NT_X86_XSTATE of elf.h); others have none of that number.
    const XSTATE: libc::c_long = 0x202;
    let mut image = Image::of(pid.as_raw_nonzero().get() as u32);
    let mut registers = vec![0u8; 16 << 10];
    let mut filled = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: registers.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes, which are ours, and how many it wrote.
    let read =
        unsafe { libc::ptrace(libc::PTRACE_GETREGSET, pid.as_raw_nonzero().get(), XSTATE, &raw mut filled) };
    if read == 0 {
        registers.truncate(filled.iov_len);
        image.0.push(("registers".to_owned(), registers));
    }
    image
}
