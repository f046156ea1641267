//! docs/custody.md, "A machine is lost in the middle of a run": where several have to agree, they have another one go on.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use runvault_tests::tools::{output, printed, run, runvault};

use crate::live::Custody;

const NAME: &str = "240101_A00123_0001_A";

#[test]
fn custodians_have_another_machine_go_on_with_its_run() {
    let custody = Custody::of_three();
    let lost = custody.gateway();
    fs::create_dir(lost.path(NAME)).expect("a run");
    let mut file = File::create(lost.path(NAME).join("file")).expect("a file");
    file.write_all(b"before").and_then(|()| file.sync_all()).expect("durable");
    drop(file);
    lost.kill();
    fs::remove_dir_all(&custody.site.state).expect("its state is gone");
    let runs = fs::read_dir(custody.site.store.join("runs")).expect("runs").flatten();
    let ids: Vec<String> = runs.map(|run| run.file_name().into_string().expect("an id")).collect();
    let [id] = &ids[..] else { panic!("{ids:?}") };

    let state = custody.site.dir().join("second");
    custody.enroll("second", &state);
    let taker = custody.named_key("taker");
    custody.act(&["add-reader", &taker]);
    let takeover = || {
        let mut takeover = Command::new(runvault());
        takeover.args(["takeover", "--yes", "--state"]).arg(&state).arg(&custody.site.store).arg(id);
        output(takeover.arg("--identity").arg(custody.key("taker")))
    };
    let refused = takeover();
    assert!(!refused.status.success(), "nothing was granted: {}", printed(&refused));
    custody.act(&["grant", id, "taker"]);
    custody.act(&["admit-gateway", "second", id]);
    let taken = takeover();
    assert!(taken.status.success() && !printed(&taken).contains("cannot seal"), "{}", printed(&taken));
    custody.act(&["remove-reader", "taker"]);
    custody.act(&["revoke-gateway", "novaseq"]);

    let goes_on = custody.site.ingest().state(&state).mount();
    let at = goes_on.path(NAME);
    assert_eq!(fs::read(at.join("file")).expect("what was durable"), b"before");
    fs::write(at.join("more"), b"after").expect("it goes on");
    let mut seal = Command::new(runvault());
    run(seal.args(["seal", "--state"]).arg(&state).arg(&custody.site.store).arg(NAME));
    goes_on.unmount();
}
