//! Other things in the place of the store's files: none is followed, waited for or read whole.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use runvault_tests::tools::{is_root, run};

use crate::vault::{FILE, SEALED, Vault};

const PLANTS: [&str; 6] = ["a link to it", "a link elsewhere", "a pipe", "a folder", "a socket", "a device"];

fn plant(vault: &Vault, what: &str, name: &str) {
    let at = vault.path(name);
    let kept = vault.path("kept");
    match what {
        "a link to it" => symlink(kept, at).expect("a link"),
        "a link elsewhere" => symlink("/etc/passwd", at).expect("a link"),
        "a pipe" => drop(run(Command::new("mkfifo").arg(at))),
        "a folder" => fs::create_dir(at).expect("a folder"),
        "a socket" => {
            // Bound where the path is short, as it has to be.
            let short = vault.path("s");
            drop(std::os::unix::net::UnixListener::bind(&short).expect("a socket"));
            fs::rename(short, at).expect("put in place");
        }
        _ => drop(run(Command::new("mknod").arg(at).args(["c", "1", "5"]))),
    }
}

/// Each of them in the place of a file: the exit code of damage, which names it.
#[track_caller]
fn refuses(vault: &Vault, name: &str, line: &str, says: &str) {
    let plants = PLANTS.iter().filter(|what| **what != "a device" || is_root());
    for what in plants {
        fs::rename(vault.path(name), vault.path("kept")).expect("moved aside");
        plant(vault, what, name);
        let said = vault.run(line);
        assert!(said.code == 4 && said.text.contains(says), "{what} as {name}: {}\n{}", said.code, said.text);
        assert!(!said.text.contains("root:"), "{what} was followed");
        match *what {
            "a folder" => fs::remove_dir(vault.path(name)).expect("removed"),
            _ => fs::remove_file(vault.path(name)).expect("removed"),
        }
        fs::rename(vault.path("kept"), vault.path(name)).expect("moved back");
    }
    vault.done(line);
}

/// Row "symlinks, fifos in custody/".
#[test]
fn what_is_planted_in_custody_is_refused_by_name() {
    let vault = Vault::new();
    let newest = format!("custody/state-{}", vault.lines());
    for name in ["custody/genesis", "custody/state-0", &newest, "custody/audit.log", "vault.json"] {
        refuses(&vault, &format!("store/{name}"), "audit verify store", name);
    }
    let claim = format!("custody/line-{}", vault.lines() + 1);
    vault.write(&format!("store/{claim}"), b"");
    for what in PLANTS.iter().filter(|what| **what != "a device" || is_root()) {
        let _ = fs::remove_file(vault.path(format!("store/{claim}")));
        let _ = fs::remove_dir(vault.path(format!("store/{claim}")));
        plant(&vault, what, &format!("store/{claim}"));
        let said = vault.run("audit verify store");
        assert!(said.code == 4 && said.text.contains(&claim), "{what}: {}", said.text);
    }
}

/// custody/ itself elsewhere: RESOLVE_BENEATH follows no link.
#[test]
fn a_link_in_the_place_of_a_folder_is_not_followed() {
    let vault = Vault::new();
    for folder in ["custody", "custody/locks", "runs"] {
        fs::rename(vault.path(format!("store/{folder}")), vault.path("kept")).expect("moved aside");
        symlink(vault.path("kept"), vault.path(format!("store/{folder}"))).expect("a link");
        let line =
            if folder == "custody/locks" { "custody list store" } else { "ls store --identity lab.key" };
        vault.refused(line, 4, folder);
        fs::remove_file(vault.path(format!("store/{folder}"))).expect("removed");
        fs::rename(vault.path("kept"), vault.path(format!("store/{folder}"))).expect("moved back");
    }
}

/// The same in a run.
#[test]
fn what_is_planted_in_a_run_is_refused_by_name() {
    let vault = Vault::new();
    let (id, at) = (vault.run_id(SEALED), vault.run_at(SEALED));
    for name in ["run.json", "name", "seal/seal.note", "seal/manifest"] {
        refuses(
            &vault,
            &format!("{at}/{name}"),
            &format!("verify store {SEALED} --identity lab.key --fresh"),
            &id,
        );
    }
    let guest = format!("{at}/keys/reader-{}", vault.identity("guest").id());
    fs::rename(vault.path(&guest), vault.path("kept")).expect("moved aside");
    for what in PLANTS.iter().filter(|what| **what != "a device" || is_root()) {
        plant(&vault, what, &guest);
        let said = vault.run(&format!("cat store {SEALED}/{FILE} --identity guest.key"));
        assert!(said.code != 0 && !said.text.contains("GATTACA"), "{what}: {}", said.text);
        let _ = fs::remove_file(vault.path(&guest));
        let _ = fs::remove_dir(vault.path(&guest));
    }
}

/// What people name on the command line may be hostile, too: a request or an approval that never ends.
#[test]
fn files_that_people_name_are_files() {
    let vault = Vault::new();
    vault.propose("rotate", "req");
    ["alice", "bob"].iter().for_each(|one| vault.approve(one, "req"));
    for what in ["a pipe", "a folder"] {
        for name in ["req.req", "bob.req.ok", "req.req.executor"] {
            fs::rename(vault.path(name), vault.path("kept")).expect("moved aside");
            plant(&vault, what, name);
            let execute = "custody execute store req.req --approval alice.req.ok --approval bob.req.ok";
            vault.refused(execute, 2, name);
            let _ = fs::remove_file(vault.path(name));
            let _ = fs::remove_dir(vault.path(name));
            fs::rename(vault.path("kept"), vault.path(name)).expect("moved back");
        }
    }
}
