//! `runvault`: arguments, questions, progress, tables. Never knows: policy, bytes, a key that it keeps.

mod acts;
mod alarms;
mod args;
mod clock;
mod commands;
mod control;
mod copy;
mod daemon;
mod exit;
mod files;
mod fuse_ready;
mod given;
mod hint;
mod left_out;
mod lines;
mod log;
mod memory;
mod mount_options;
mod mount_point;
mod mount_table;
mod mounted;
mod new_lock;
mod output;
mod panics;
mod progress;
mod prompt;
mod resuming;
mod run_of_name;
mod run_report;
mod run_rows;
mod run_source;
mod sealer;
mod sealing;
mod secret_file;
mod service;
mod signals;
mod store;
mod store_ended;
mod terminal;
mod ticker;
mod trees;
mod undone;
mod unknown_act;
mod vault_status;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let _flushed = Flushed;
    runvault_crypto::secrets::harden_process();
    signals::take_limits_as_errors();
    runvault_custody::token::on_silence(exit::at_once);
    let typed: Vec<OsString> = std::env::args_os().collect();
    let called_by_mount = typed.first().is_some_and(|name| mount_options::is_helper(name));
    let parsed = if called_by_mount {
        mount_options::parse_helper(typed.clone())
    } else {
        args::Cli::try_parse_from(&typed).map(|cli| mount_options::Call { cli, fake: false })
    };
    let done = parsed.map(commands::run);
    memory::warn_of_unlocked();
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => exit::report(&error).into(),
        Err(usage) => clap_exit(&usage, &typed),
    }
}

/// When it is dropped, what others write has been written, as far as that takes no longer than a moment.
struct Flushed;

impl Drop for Flushed {
    fn drop(&mut self) {
        ::log::logger().flush();
        output::flush_errors();
    }
}

/// Help and version are no errors; a command line that is not understood is exit 2.
fn clap_exit(error: &clap::Error, typed: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        let printed = output::check_open().and_then(|()| error.print());
        return match printed {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
                exit::report(&output::StandardOutput(e).into()).into()
            }
            _ => exit::Exit::Done.into(),
        };
    }
    if let Some(what) = unknown_act::of(error, typed) {
        return exit::report(&exit::refuse(exit::Exit::Usage, what)).into();
    }
    // Line by line: it quotes what was typed.
    for line in error.render().to_string().lines() {
        let _ = output::error_line(line);
    }
    exit::Exit::Usage.into()
}
