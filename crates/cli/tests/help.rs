//! Help, man pages and completions: one source, and every command teaches by example.

mod common;

use common::Scratch;

const COMMANDS: [&[&str]; 17] = [
    &["init"],
    &["key"],
    &["key", "export"],
    &["mount"],
    &["unmount"],
    &["status"],
    &["ls"],
    &["cat"],
    &["cp"],
    &["check"],
    &["passwd"],
    &["custody"],
    &["custody", "rotate"],
    &["takeover"],
    &["demo"],
    &["completions"],
    &["man"],
];

#[test]
fn every_help_has_an_example_of_its_command() {
    let scratch = Scratch::new();
    for command in COMMANDS {
        let mut args = command.to_vec();
        args.push("--help");
        let help = scratch.run(&args);
        let text = help.done().out();
        let examples = text.split("Examples:").nth(1).unwrap_or_else(|| panic!("{command:?}: no examples"));
        assert!(examples.contains(&format!("runvault {}", command.join(" "))), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
    let top = scratch.run(&["--help"]);
    assert!(top.done().out().contains("Exit status: 0 done, 1 failed, 2 usage, 3 wrong key, 4"));
}

#[test]
fn the_first_column_lists_every_command() {
    let scratch = Scratch::new();
    let top = scratch.run(&["--help"]).out();
    for command in COMMANDS.iter().filter(|command| command.len() == 1) {
        assert!(top.contains(&format!("\n  {:12}", command[0])), "{command:?} is missing:\n{top}");
    }
}

#[test]
fn man_pages_exist_for_all_and_say_how_the_program_ends() {
    let scratch = Scratch::new();
    scratch.run(&["man", "--out", "man"]).done();
    for command in COMMANDS {
        let file = scratch.path("man").join(format!("runvault-{}.1", command.join("-")));
        let page = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for part in [".TH ", ".SH NAME", ".SH \"EXAMPLES\"", ".SH \"EXIT STATUS\"", "wrong passphrase or key"]
        {
            assert!(page.contains(part), "{command:?}: {part}");
        }
    }
    let pages = std::fs::read_dir(scratch.path("man")).unwrap().count();
    assert_eq!(pages, COMMANDS.len() + 1);
    assert!(scratch.run(&["man"]).done().out().contains(".TH RUNVAULT 1"));
}

#[test]
fn completions_know_the_commands() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = scratch.run(&["completions", shell]).done().out();
        for word in ["unmount", "passphrase-file", "takeover"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    scratch.run(&["completions", "csh"]).refused(2, "csh");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let scratch = Scratch::new();
    let mut command = scratch.command(&["completions", "bash"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer);
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}
