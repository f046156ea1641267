//! Help, man pages and completions: one source, and every command teaches by example.

use std::path::Path;

use crate::common::Scratch;

const COMMANDS: [&[&str]; 74] = [
    &["init"],
    &["keygen"],
    &["key"],
    &["key", "show"],
    &["key", "check"],
    &["key", "relock"],
    &["key", "export"],
    &["fingerprint"],
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
    &["custody", "list"],
    &["custody", "propose"],
    &["custody", "show"],
    &["custody", "approve"],
    &["custody", "execute"],
    &["custody", "confirm"],
    &["custody", "recover"],
    &["custody", "retire"],
    &["custody", "add-custodian"],
    &["custody", "remove-custodian"],
    &["custody", "quorum"],
    &["custody", "enroll-gateway"],
    &["custody", "revoke-gateway"],
    &["custody", "admit-gateway"],
    &["custody", "dismiss-gateway"],
    &["custody", "add-reader"],
    &["custody", "remove-reader"],
    &["custody", "grant"],
    &["custody", "revoke"],
    &["custody", "rekey"],
    &["custody", "propose", "rotate"],
    &["custody", "propose", "add-custodian"],
    &["custody", "propose", "remove-custodian"],
    &["custody", "propose", "quorum"],
    &["custody", "propose", "enroll-gateway"],
    &["custody", "propose", "revoke-gateway"],
    &["custody", "propose", "admit-gateway"],
    &["custody", "propose", "dismiss-gateway"],
    &["custody", "propose", "add-reader"],
    &["custody", "propose", "remove-reader"],
    &["custody", "propose", "grant"],
    &["custody", "propose", "revoke"],
    &["custody", "propose", "rekey"],
    &["custody", "propose", "retire"],
    &["audit"],
    &["audit", "show"],
    &["audit", "verify"],
    &["exposure"],
    &["gateway"],
    &["gateway", "admit"],
    &["gateway", "dismiss"],
    &["gateway", "enroll"],
    &["gateway", "list"],
    &["gateway", "revoke"],
    &["doctor"],
    &["runs"],
    &["seal"],
    &["verify"],
    &["scrub"],
    &["manifest"],
    &["takeover"],
    &["retire"],
    &["rekey"],
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
        // What is proposed stands behind the store.
        let (begins, then) = command.split_at(command.len().min(2));
        assert!(examples.contains(&format!("runvault {}", begins.join(" "))), "{text}");
        assert!(then.iter().all(|word| examples.contains(word)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        // Below a heading of its own stands what is meant by that heading alone.
        let who = text.split("Who acts:").nth(1).unwrap_or_default();
        assert!(!who.lines().any(|line| line.trim_start().starts_with("--json")), "{text}");
    }
    let top = scratch.run(&["--help"]);
    assert!(top.done().out().contains("Exit status: 0 done, 1 failed, 2 usage, 3 wrong key, 4"));
}

#[test]
fn only_what_makes_a_new_vault_key_passes_over_drills() {
    let scratch = Scratch::new();
    for (act, does) in [("rekey", false), ("grant", false), ("add-reader", false), ("quorum", true)] {
        let help = scratch.run(&["custody", act, "--help"]).done().out();
        assert_eq!(help.contains("--unconfirmed"), does, "{act}");
    }
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

#[test]
fn a_standard_output_that_is_closed_is_one() {
    let scratch = Scratch::new();
    for redirected in [">&-", "<&- >&- 2>&-"] {
        let completions = scratch.command(&["completions", "bash"]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("\"$@\" {redirected}"), "sh"]).arg(completions.get_program());
        let ended = shell.args(completions.get_args()).output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{redirected}: {ended:?}");
    }
    let mut nowhere = scratch.command(&["completions", "bash"]);
    assert_eq!(nowhere.stdout(std::process::Stdio::null()).status().unwrap().code(), Some(0));
}

/// What the system says, not this program.
const OF_THE_SYSTEM: [&str; 7] = [
    "No space left on device",
    "Input/output error",
    "Directory not empty",
    "Too many open files",
    "Permission denied",
    "Stale file handle",
    "Transport endpoint is not connected",
];

/// All sources of the crates, without line breaks inside of texts.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("sources").flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let lines = std::fs::read_to_string(&path).expect("a source");
            lines.lines().for_each(|line| text.push_str(line.trim_start().trim_end_matches('\\')));
        }
    }
}

#[test]
fn the_messages_that_the_manual_explains_are_said() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manual = std::fs::read_to_string(root.join("docs/operations.md")).expect("the manual");
    let mut said = String::new();
    sources(&root.join("crates"), &mut said);
    let rows = manual.lines().skip_while(|line| !line.starts_with("| message |")).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let messages =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter(|text| text.contains(' '));
    let mut checked = 0;
    for message in messages.filter(|text| !OF_THE_SYSTEM.contains(text)) {
        // N, R, H and MNT stand for what differs, and so do numbers and `...`.
        let differs = |word: &&str| {
            let bare = word.trim_matches([':', ',', '.']);
            bare.is_empty()
                || bare.starts_with("runs/")
                || bare.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
        };
        let words: Vec<&str> = message.split(' ').collect();
        let parts = words.split(differs).filter(|part| part.len() > 1);
        for part in parts.filter(|part| !OF_THE_SYSTEM.contains(&part.join(" ").as_str())) {
            // After a number the first word is what is counted.
            let said_so = said.contains(&part.join(" ")) || said.contains(&part[1..].join(" "));
            assert!(said_so, "nothing says {part:?} of {message:?}");
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked} parts of messages");
}
