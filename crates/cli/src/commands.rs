//! One file a command; this one picks it.

mod audit;
mod cat;
mod check;
mod completions;
mod cp;
mod custody;
mod demo;
mod doctor;
mod exposure;
mod fingerprint;
mod gateway;
mod init;
mod key;
mod keygen;
mod ls;
mod man;
mod manifest;
mod mount;
mod passwd;
mod rekey;
mod retire;
mod runs;
mod scrub;
mod seal;
mod status;
mod takeover;
mod unmount;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Command;
use crate::exit::Exit;
use crate::mount_options::Call;
use crate::output;

/// Does what was asked.
///
/// # Errors
/// What [`crate::exit::report`] prints.
pub fn run(call: Call) -> Result<ExitCode> {
    let done = match call.cli.command {
        // In the background the code is that of the process which serves the mount.
        Command::Mount(args) => return mount::run(&args, call.fake),
        Command::Init(args) => init::run(&args),
        Command::Keygen(args) => keygen::run(&args),
        Command::Key(args) => key::run(&args),
        Command::Fingerprint(args) => fingerprint::run(&args),
        Command::Unmount(args) => unmount::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Cp(args) => cp::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Passwd(args) => passwd::run(&args),
        Command::Custody(args) => custody::run(args),
        Command::Audit(args) => audit::run(&args),
        Command::Exposure(args) => exposure::run(&args),
        Command::Gateway(args) => gateway::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Seal(args) => seal::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Scrub(args) => scrub::run(&args),
        Command::Manifest(args) => manifest::run(&args),
        Command::Takeover(args) => takeover::run(&args),
        Command::Retire(args) => retire::run(&args),
        Command::Rekey(args) => rekey::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    done?;
    output::flush()?;
    Ok(Exit::Done.into())
}
