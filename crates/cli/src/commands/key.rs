//! `key`: what is done with a key file.

mod check;
mod export;
mod relock;
mod show;

use anyhow::Result;

use crate::args::{Key, KeyCommand};

pub fn run(args: &Key) -> Result<()> {
    match &args.command {
        KeyCommand::Export(args) => export::run(args),
        KeyCommand::Show(args) => show::run(args),
        KeyCommand::Check(args) => check::run(args),
        KeyCommand::Relock(args) => relock::run(args),
    }
}
