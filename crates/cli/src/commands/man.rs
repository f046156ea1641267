//! `man`: one page a command, from the same source as the help.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man as Page;

use crate::args::{Cli, EXIT_STATUS, Man};
use crate::output::{self, count, shown};

pub fn run(args: &Man) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    match &args.out {
        None => output::bytes(&page(&root, "runvault")?),
        Some(folder) => {
            fs::create_dir_all(folder).with_context(|| shown(folder))?;
            let pages = write_all(&root, "runvault", folder)?;
            output::line(&format!("{} in {}", count(pages, "man page"), shown(folder)))
        }
    }
}

/// The command's own page and those below it; how many.
fn write_all(command: &Command, name: &str, folder: &Path) -> Result<u64> {
    let file = folder.join(format!("{name}.1"));
    fs::write(&file, page(command, name)?).with_context(|| shown(&file))?;
    let mut pages = 1;
    for sub in command.get_subcommands() {
        pages += write_all(sub, &format!("{name}-{}", sub.get_name()), folder)?;
    }
    Ok(pages)
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>> {
    // A `Command` keeps only names that live as long as the program.
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let page =
        Page::new(command.clone().name(name)).title(name.to_uppercase()).section("1").manual("runvault");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        page.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = command.get_after_help() {
        section(&mut text, "EXAMPLES", &preformatted(&examples.to_string()));
    }
    section(&mut text, "EXIT STATUS", &exit_status());
    Ok(text)
}

fn section(page: &mut Vec<u8>, title: &str, body: &str) {
    page.extend_from_slice(format!(".SH \"{title}\"\n{body}").as_bytes());
}

fn preformatted(text: &str) -> String {
    let body = text.strip_prefix("Examples:\n").unwrap_or(text);
    format!(".nf\n{}\n.fi\n", escape(body))
}

fn exit_status() -> String {
    EXIT_STATUS.iter().map(|(code, meaning)| format!(".TP\n{code}\n{}\n", escape(meaning))).collect()
}

/// What troff would take for its own: backslashes, and dots and quotes that begin a line.
fn escape(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}
