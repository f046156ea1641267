//! Bytes sealed by a TPM under the primary key of its owner hierarchy, which it makes anew each time: nothing stays in
//! the TPM.
//!
//! The programs pass objects on in files. Those hold what the TPM encrypted and nothing in the clear, and lie in a
//! directory that only this user reads and that goes with this call, however it ends. Objects that a program leaves
//! in a TPM without a resource manager are flushed.

use std::path::Path;

use runvault_crypto::secrets::Secret;
use runvault_format::hardware::{TpmLock, auth};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::token::hex;
use crate::tpm2_tools::{AUTH, Refused, run};

/// No part of a sealed object is longer.
const PART: usize = 512;

/// The public and the private part of an object that holds `secret`. With `pcrs` it unseals as long as these of the
/// bank sha256 are as they are now; without, for the value that follows from `with`, whose wrong guesses the TPM
/// counts.
pub(crate) fn seal(
    secret: &Secret<32>,
    pcrs: &[u8],
    with: &Secret<32>,
) -> Result<(Vec<u8>, Vec<u8>), Refused> {
    let work = Work::new()?;
    let (public, private) = (work.path("public"), work.path("private"));
    let [parent, policy] = [work.path("primary"), work.path("policy")];
    let mut args = vec!["-Q", "-C", &parent, "-i", "-", "-u", &public, "-r", &private];
    let value = auth_of(pcrs, with);
    let list = pcr_list(pcrs);
    if value.is_some() {
        args.extend(["-a", "fixedtpm|fixedparent|userwithauth", "-p", AUTH]);
    } else {
        run("tpm2_createpolicy", &["-Q", "--policy-pcr", "-l", &list, "-L", &policy], None, &[])?;
        args.extend(["-a", "fixedtpm|fixedparent", "-L", &policy]);
    }
    work.primary()?;
    run("tpm2_create", &args, value.as_deref().map(String::as_str), secret.expose())?;
    flush();
    Ok((read(&public)?, read(&private)?))
}

/// What it holds.
pub(crate) fn unseal(lock: &TpmLock, with: &Secret<32>) -> Result<Secret<32>, Refused> {
    let work = Work::new()?;
    let [public, private, parent, object] =
        ["public", "private", "primary", "object"].map(|name| work.path(name));
    write(&public, &lock.public)?;
    write(&private, &lock.private)?;
    work.primary()?;
    run("tpm2_load", &["-Q", "-C", &parent, "-u", &public, "-r", &private, "-c", &object], None, &[])?;
    flush();
    let value = auth_of(&lock.pcrs, with);
    let policy = format!("pcr:{}", pcr_list(&lock.pcrs));
    let by = if value.is_some() { AUTH } else { &policy };
    let unsealed = run("tpm2_unseal", &["-c", &object, "-p", by], value.as_deref().map(String::as_str), &[]);
    flush();
    if unsealed.is_err() && value.is_none() {
        // A policy that failed leaves its session behind; a TPM without a resource manager has three.
        let _ = run("tpm2_flushcontext", &["-Q", "-l"], None, &[]);
    }
    let bytes = unsealed?;
    let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| Refused::OtherTpm)?;
    Ok(Secret::copy_from(bytes))
}

/// In hex. These programs take a value beside a policy on their command line alone, where others read it: with PCRs
/// there is none.
fn auth_of(pcrs: &[u8], with: &Secret<32>) -> Option<Zeroizing<String>> {
    pcrs.is_empty().then(|| Zeroizing::new(hex(auth(with).expose())))
}

fn pcr_list(pcrs: &[u8]) -> String {
    let numbers: Vec<String> = pcrs.iter().map(u8::to_string).collect();
    format!("sha256:{}", numbers.join(","))
}

/// Best effort: with a resource manager there is nothing to flush.
fn flush() {
    let _ = run("tpm2_flushcontext", &["-Q", "-t"], None, &[]);
}

/// A directory of mode 0700.
struct Work(TempDir);

impl Work {
    fn new() -> Result<Self, Refused> {
        let made = tempfile::Builder::new().prefix("runvault-tpm-").tempdir();
        made.map(Self).map_err(|e| failed("a temporary directory", &e))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn primary(&self) -> Result<(), Refused> {
        run("tpm2_createprimary", &["-Q", "-C", "o", "-G", "ecc", "-c", &self.path("primary")], None, &[])?;
        flush();
        Ok(())
    }
}

fn read(path: &str) -> Result<Vec<u8>, Refused> {
    let bytes = std::fs::read(Path::new(path)).map_err(|e| failed(path, &e))?;
    if (1..=PART).contains(&bytes.len()) { Ok(bytes) } else { Err(Refused::OtherTpm) }
}

fn write(path: &str, bytes: &[u8]) -> Result<(), Refused> {
    std::fs::write(path, bytes).map_err(|e| failed(path, &e))
}

fn failed(what: &str, e: &std::io::Error) -> Refused {
    Refused::Failed { tool: "tpm2-tools".to_owned(), said: format!("{what}: {e}") }
}
