//! Two of three custodians agree.

use super::{Outcome, Scratch};

/// Runs a command line; arguments hold no spaces.
pub fn run(scratch: &Scratch, line: &str) -> Outcome {
    scratch.run(&line.split(' ').collect::<Vec<_>>())
}

/// Keys of these people, unlocked, and a vault in `store` of which the first three are custodians, two of whom agree.
pub fn vault(people: &[&str]) -> Scratch {
    let scratch = Scratch::new();
    for one in people {
        run(&scratch, &format!("keygen --out {one}.key --no-lock")).done();
    }
    let custodians: String =
        people.iter().take(3).map(|one| format!(" --custodian {one}={one}.key.pub")).collect();
    run(&scratch, &format!("init store{custodians} --quorum 2")).done();
    scratch
}

/// The drill of each.
pub fn confirm(scratch: &Scratch, people: &[&str]) {
    for one in people {
        run(scratch, &format!("custody confirm store --identity {one}.key")).done();
    }
}

/// Proposed, and approved by these; gives the command that executes it.
pub fn approved(scratch: &Scratch, what: &str, who: [&str; 2]) -> String {
    for old in ["req", "req.executor"] {
        let _ = std::fs::remove_file(scratch.path(old));
    }
    run(scratch, &format!("custody propose store {what} --out req")).done();
    for one in who {
        let _ = std::fs::remove_file(scratch.path(&format!("{one}.ok")));
        let approve = format!("custody approve req --identity {one}.key --out {one}.ok --yes");
        run(scratch, &approve).done();
    }
    let [one, two] = who;
    format!("custody execute store req --approval {one}.ok --approval {two}.ok")
}

/// Proposed, approved by these, executed; gives what `execute` says.
pub fn agree(scratch: &Scratch, what: &str, who: [&str; 2]) -> String {
    let execute = approved(scratch, what, who);
    run(scratch, &execute).done().out()
}

/// A machine is let in by two of them.
pub fn enroll(scratch: &Scratch, name: &str) {
    let said = run(scratch, "fingerprint store").done().out();
    let fingerprint = said.lines().last().expect("an id");
    let ask = format!("gateway enroll store --fingerprint {fingerprint} --name {name} --out {name}.req");
    run(scratch, &ask).done();
    agree(scratch, &format!("enroll-gateway {name}.req"), ["alice", "bob"]);
}
