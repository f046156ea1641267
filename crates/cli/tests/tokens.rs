//! Key files that a PKCS#11 token locks: SoftHSM, with keys that OpenSC's pkcs11-tool makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::pty::converse;
use crate::common::{Outcome, STRONG, Scratch, faketime, text};
use serde_json::Value;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "482915";

/// Tokens in a folder of their own.
struct Tokens {
    scratch: Scratch,
    spied: PathBuf,
}

impl Tokens {
    fn new() -> Self {
        let scratch = Scratch::new();
        let tokens = scratch.folder("tokens");
        scratch.secret("softhsm.conf", format!("directories.tokendir = {}\n", tokens.display()));
        scratch.secret("pin", format!("{PIN}\n"));
        scratch.secret("wrong-pin", "000000\n");
        scratch.secret("pass", STRONG);
        let spied = scratch.path("calls");
        let new = Self { scratch, spied };
        new.token("site");
        new.key("EC:prime256v1", "ec", "a1", "--usage-derive");
        new.key("rsa:2048", "rsa", "b2", "--usage-decrypt");
        new
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.scratch.path("softhsm.conf"));
        command
    }

    fn token(&self, label: &str) {
        let init = ["--init-token", "--free", "--so-pin", "999999", "--pin", PIN, "--label", label];
        done(self.tool("softhsm2-util").args(init));
    }

    fn pkcs11_tool(&self, args: &[&str]) {
        let login = ["--module", SOFTHSM, "--token-label", "site", "--login", "--pin", PIN];
        done(self.tool("pkcs11-tool").args(login).args(args));
    }

    fn key(&self, kind: &str, label: &str, id: &str, usage: &str) {
        self.pkcs11_tool(&["--keypairgen", "--key-type", kind, "--label", label, "--id", id, usage]);
    }

    /// runvault with this module; every call to SoftHSM is written down.
    fn by(&self, module: &str, pin: &str, args: &[&str]) -> Outcome {
        let mut command = self.scratch.command(args);
        command.args(["--pkcs11-module", module, "--pin-file", pin]);
        command.env("SOFTHSM2_CONF", self.scratch.path("softhsm.conf"));
        command.env("PKCS11SPY", SOFTHSM).env("PKCS11SPY_OUTPUT", &self.spied);
        Outcome::of(command)
    }

    /// runvault with SoftHSM, its PIN asked for.
    fn asking(&self, args: &[&str]) -> Command {
        let mut command = self.scratch.command(args);
        command.args(["--pkcs11-module", SOFTHSM]).env("SOFTHSM2_CONF", self.scratch.path("softhsm.conf"));
        command
    }

    fn run(&self, pin: &str, args: &[&str]) -> Outcome {
        let _ = std::fs::remove_file(&self.spied);
        self.by(&spy(), pin, args)
    }

    fn logins(&self) -> usize {
        let calls = std::fs::read_to_string(&self.spied).expect("the calls");
        calls.lines().filter(|line| line.ends_with(": C_Login")).count()
    }

    fn show(&self, file: &str) -> Value {
        let shown = self.scratch.run(&["key", "show", "--json", file]);
        serde_json::from_str(&shown.done().out()).expect("JSON")
    }
}

/// OpenSC's library that writes down what goes to the real one.
fn spy() -> String {
    let multiarch = format!("/usr/lib/{}-linux-gnu/pkcs11-spy.so", std::env::consts::ARCH);
    assert!(Path::new(&multiarch).exists(), "{multiarch}: Debian's opensc-pkcs11");
    multiarch
}

fn done(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_key_in_a_token_opens_the_file_by_ecdh_and_by_oaep() {
    let tokens = Tokens::new();
    let made = ["keygen", "--out", "a.key", "--lock", "pkcs11", "--token", "site", "--token-key", "A1"];
    tokens.run("pin", &made).done();
    assert_eq!(tokens.logins(), 1);
    let lock = tokens.show("a.key")["lock"].clone();
    assert_eq!((&lock["key"], &lock["id"]), (&"ec".into(), &"a1".into()));
    assert_eq!((&lock["token"], &lock["mechanism"]), (&"site".into(), &"ecdh-p256".into()));
    tokens.run("pin", &["key", "check", "a.key"]).done();
    assert_eq!(tokens.logins(), 1);
    // By a file descriptor, and by a terminal, which shows none of it.
    let mut by_fd = tokens.asking(&["key", "check", "a.key", "--pin-fd", "0"]);
    by_fd.stdin(std::fs::File::open(tokens.scratch.path("pin")).expect("the PIN"));
    Outcome::of(by_fd).done();
    let serial = lock["serial"].as_str().expect("a serial");
    let question = format!("PIN of the token \"site\" ({serial}): ");
    let (shown, code) = converse(tokens.asking(&["key", "check", "a.key"]), &[(&question, PIN)]);
    assert!(code == 0 && shown.contains("opens") && !shown.contains(PIN), "{shown}");
    Outcome::of(tokens.asking(&["key", "check", "a.key"])).refused(2, "--pin-file FILE");
    let file = std::fs::read_to_string(tokens.scratch.path("a.key")).expect("the file");
    assert!(!file.contains(".so") && !file.contains(PIN), "{file}");

    // A vault of whom the token's holder is the owner.
    tokens.scratch.run(&["init", "store", "--custodian", "a=a.key.pub", "--quorum", "1"]).done();
    tokens.run("pin", &["custody", "confirm", "store", "--identity", "a.key"]).done();
    let kept = tokens.show("a.key");
    assert_eq!(kept["kept"]["share_epoch"], 1, "{kept}");
    tokens.run("pin", &["ls", "store", "--identity", "a.key"]).done();
    assert_eq!(tokens.logins(), 1);
    let passwd = ["passwd", "store", "--identity", "a.key"];
    tokens.run("pin", &passwd).refused(2, "runvault key relock");

    // To a passphrase and back to the token, by its RSA key.
    let relock = ["key", "relock", "a.key", "--lock", "passphrase", "--new-passphrase-file", "pass"];
    tokens.run("pin", &relock).done();
    let relock =
        ["key", "relock", "a.key", "--lock", "pkcs11", "--token-key", "rsa", "--passphrase-file", "pass"];
    tokens.run("pin", &relock).done();
    let after = tokens.show("a.key");
    assert_eq!((&after["id"], &after["kept"]), (&kept["id"], &kept["kept"]));
    assert_eq!(after["lock"]["mechanism"], "rsa-oaep-sha1");
    tokens.run("pin", &["key", "check", "a.key"]).done();
    tokens.run("pin", &["key", "relock", "a.key", "--lock", "pkcs11"]).refused(2, "by way of a passphrase");

    // A lost custody/ is made anew from a file that wants a PIN, and one that wants a passphrase.
    let scratch = &tokens.scratch;
    tokens.run("pin", &["keygen", "--out", "c.key", "--lock", "pkcs11", "--token-key", "ec"]).done();
    scratch.run(&["keygen", "--out", "b.key", "--passphrase-file", "pass"]).done();
    let custodians = ["--custodian", "b=b.key.pub", "--custodian", "c=c.key.pub", "--quorum", "2"];
    scratch.run(&[&["init", "two"][..], &custodians].concat()).done();
    tokens.run("pin", &["custody", "confirm", "two", "--identity", "c.key"]).done();
    std::fs::remove_dir_all(scratch.path("two/custody")).expect("custody/ is lost");
    let recover =
        ["custody", "recover", "two", "--passphrase-file", "pass", "--identity", "b.key", "--identity"];
    // The first vault's.
    tokens.run("pin", &[&recover[..], &["a.key"]].concat()).refused(3, "wrong key");
    tokens.run("pin", &[&recover[..], &["c.key"]].concat()).done();
    assert_eq!(tokens.logins(), 1);
}

#[test]
fn what_a_token_refuses_is_named_and_no_pin_is_tried_twice() {
    let tokens = Tokens::new();
    let made = ["keygen", "--out", "a.key", "--lock", "pkcs11"];
    tokens.run("pin", &made).refused(2, "2 of its private keys fit");
    tokens.run("pin", &[&made[..], &["--token-key", "none"]].concat()).refused(3, "has no private key");
    tokens.run("pin", &[&made[..], &["--pcr", "sha256:7"]].concat()).refused(2, "does not belong");
    tokens.scratch.run(&made).refused(2, "needs --pkcs11-module");
    let others = ["keygen", "--out", "a.key", "--lock", "none"];
    tokens.run("pin", &others).refused(2, "belongs to --lock pkcs11");
    assert!(!tokens.scratch.path("a.key").exists());
    tokens.run("pin", &[&made[..], &["--token-key", "ec"]].concat()).done();
    let check = ["key", "check", "a.key"];

    tokens.run("wrong-pin", &check).refused(3, "the PIN is wrong; it was tried once");
    assert_eq!(tokens.logins(), 1);
    let warned = tokens.run("pin", &check);
    assert!(warned.done().stderr.contains("it takes few more"), "{}", warned.stderr);

    // A mistake on the command line costs no try.
    let mistake = ["key", "relock", "a.key", "--lock", "none", "--pcr", "sha256:7"];
    tokens.run("pin", &mistake).refused(2, "does not belong");
    assert!(!tokens.spied.exists());

    // Modules: none, by a relative path, one that others could have put there, no module at all.
    tokens.scratch.run(&check).refused(2, "no module was named");
    for (module, says) in [
        ("libsofthsm2.so", "whole path"),
        ("/usr/lib/none.so", "No such file"),
        ("/usr/lib", "regular file"),
        ("/etc/passwd", "not a PKCS#11 module"),
    ] {
        tokens.by(module, "pin", &check).refused(2, says);
    }
    let open = tokens.scratch.path("open.so");
    std::fs::copy(SOFTHSM, &open).expect("a copy");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("a mode");
    tokens.by(text(&open), "pin", &check).refused(2, "others may write");
    // A hostile file cannot name one.
    let file = std::fs::read_to_string(tokens.scratch.path("a.key")).expect("the file");
    tokens.scratch.secret("hostile.key", file.replace("\"token\":", "\"module\":\"/tmp/x.so\",\"token\":"));
    tokens.run("pin", &["key", "check", "hostile.key"]).refused(2, "unknown field");
    // Another token with the label of the right one.
    let serial = tokens.show("a.key")["lock"]["serial"].as_str().expect("a serial").to_owned();
    tokens.scratch.secret("other.key", file.replace(&serial, "0123456789abcdef"));
    tokens.run("pin", &["key", "check", "other.key"]).refused(3, "is not there; there is \"site\"");
    assert!(!std::fs::read_to_string(&tokens.spied).expect("calls").contains("C_Login"));

    // A new key under the same name is another key.
    tokens.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", "a1"]);
    tokens.run("pin", &check).refused(3, "has no private key");
    tokens.pkcs11_tool(&["--delete-object", "--type", "pubkey", "--id", "a1"]);
    tokens.key("EC:prime256v1", "ec", "a1", "--usage-derive");
    tokens.run("pin", &check).refused(3, "its key is another one");
}

/// SoftHSM, whose token says what the file FLAGS holds.
const FLAGS: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long rv;
struct list { unsigned char version[2]; void *f[68]; };
static struct list ours;
static rv (*info)(unsigned long, unsigned char *);
static rv flagged(unsigned long slot, unsigned char *out) {
    rv r = info(slot, out);
    unsigned long flags, more = strtoul(getenv("FLAGS"), 0, 16);
    memcpy(&flags, out + 96, sizeof flags);
    flags |= more;
    memcpy(out + 96, &flags, sizeof flags);
    return r;
}
rv C_GetFunctionList(struct list **out) {
    void *real = dlopen(getenv("REAL"), RTLD_NOW);
    rv (*get)(struct list **) = dlsym(real, "C_GetFunctionList");
    struct list *theirs;
    rv r = get(&theirs);
    memcpy(&ours, theirs, sizeof ours);
    /* C_Initialize, C_Finalize, C_GetInfo, C_GetFunctionList, C_GetSlotList, C_GetSlotInfo, C_GetTokenInfo */
    info = ours.f[6];
    ours.f[6] = flagged;
    *out = &ours;
    return r;
}
"#;

#[test]
fn a_token_that_is_near_its_lockout_is_left_alone() {
    let tokens = Tokens::new();
    tokens.run("pin", &["keygen", "--out", "a.key", "--lock", "pkcs11", "--token-key", "ec"]).done();
    tokens.scratch.secret("flags.c", FLAGS);
    let module = tokens.scratch.path("flags.so");
    done(
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(tokens.scratch.path("flags.c")),
    );
    let check = |flags: &str, pin: &str, more: &[&str]| {
        let mut command = tokens.scratch.command(&["key", "check", "a.key", "--pin-file", pin]);
        command.args(["--pkcs11-module", text(&module)]).args(more);
        command.env("SOFTHSM2_CONF", tokens.scratch.path("softhsm.conf"));
        Outcome::of({
            command.env("REAL", SOFTHSM).env("FLAGS", flags);
            command
        })
    };
    // CKF_USER_PIN_LOCKED, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_COUNT_LOW.
    check("40000", "pin", &[]).refused(3, "its PIN is locked");
    check("20000", "wrong-pin", &[]).refused(1, "one more wrong PIN locks it: nothing was tried");
    assert!(!check("0", "pin", &[]).done().stderr.contains("few more"), "the wrong PIN was tried");
    let last = check("20000", "pin", &["--last-pin-try"]);
    assert!(last.done().stderr.contains("one more wrong PIN locks the token"), "{}", last.stderr);
    assert!(check("10000", "pin", &[]).done().stderr.contains("it takes few more"));
}

/// A module that does not come back from its first call.
const HANGING: &str = r#"
#include <unistd.h>
int C_GetFunctionList(void **out) {
    (void)out;
    for (;;) pause();
}
/* The end of a library that waits for what hangs. */
__attribute__((destructor)) static void end(void) { for (;;) pause(); }
"#;

/// By a clock that goes a hundred times as fast.
#[test]
fn a_module_that_hangs_ends_the_command_and_nothing_is_written() {
    let scratch = Scratch::new();
    scratch.secret("hanging.c", HANGING);
    scratch.secret("pin", PIN);
    let module = scratch.path("hanging.so");
    done(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(scratch.path("hanging.c")));
    let mut keygen = scratch.command(&["keygen", "--out", "a.key", "--lock", "pkcs11", "--pin-file", "pin"]);
    keygen.args(["--pkcs11-module", text(&module)]);
    faketime(&mut keygen, "+0 x100");
    Outcome::of(keygen).refused(1, "gave no answer within 60 s").refused(1, "run the same");
    for name in ["a.key", "a.key.pub"] {
        assert!(!scratch.path(name).exists(), "{name}");
    }
}
