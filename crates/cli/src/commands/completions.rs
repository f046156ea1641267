//! `completions`: for bash, zsh and fish, from the same source as the help.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::args::{Cli, Completions, Shell};
use crate::output;

pub fn run(args: &Completions) -> Result<()> {
    let mut command = Cli::command();
    let mut text = Vec::new();
    let name = "runvault";
    match args.shell {
        Shell::Bash => clap_complete::generate(Bash, &mut command, name, &mut text),
        Shell::Zsh => clap_complete::generate(Zsh, &mut command, name, &mut text),
        Shell::Fish => clap_complete::generate(Fish, &mut command, name, &mut text),
    }
    output::bytes(&text)
}
