//! A word that stands where an act is expected: behind a positional argument clap takes it for one argument too many.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};

use crate::args::Cli;

/// What is said of it, with the acts that there are; `None`: it is another mistake.
pub fn of(error: &clap::Error, typed: &[OsString]) -> Option<String> {
    let kind = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else { return None };
    let command = before(word, typed);
    if word.starts_with('-') || command.get_positionals().next().is_none() {
        return None;
    }
    let acts: Vec<&str> =
        command.get_subcommands().map(Command::get_name).filter(|name| *name != "help").collect();
    (!acts.is_empty()).then(|| format!("unknown act '{word}'; acts: {}", acts.join(", ")))
}

/// The command that the words in front of that one name.
fn before(word: &str, typed: &[OsString]) -> Command {
    let mut command = Cli::command();
    for name in typed.iter().skip(1).take_while(|name| *name != word) {
        if let Some(found) = command.find_subcommand(name) {
            command = found.clone();
        }
    }
    command
}
