//! Exit codes, and the one error that this crate makes itself.

use std::process::ExitCode;

use runvault_vault::Posix;

use crate::hint;

/// What scripts may rely on; documented in every man page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The command line, a mount point or a secret file is not usable.
    Usage = 2,
    /// The passphrase or key is not the right one.
    WrongKey = 3,
    /// Something was tampered with or is damaged.
    Damaged = 4,
    /// In use, or held by another process or host.
    Busy = 5,
}

/// A refusal of this crate's own: which exit code, what happened, what can be done.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// How the process ends.
    pub exit: Exit,
    /// What was found.
    pub what: String,
    /// What the person can do, where that is more than the message says.
    pub hint: Option<String>,
}

/// A refusal without further advice.
pub fn refuse(exit: Exit, what: impl Into<String>) -> anyhow::Error {
    Refusal { exit, what: what.into(), hint: None }.into()
}

/// A refusal with advice.
pub fn refuse_with(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Refusal { exit, what: what.into(), hint: Some(hint.into()) }.into()
}

/// Prints the error and its advice, and gives the code to end with. A reader that closed our standard
/// output has seen enough: no error, nothing printed.
pub fn report(error: &anyhow::Error) -> Exit {
    if is_broken_pipe(error) {
        return Exit::Done;
    }
    let message = format!("runvault: {}", chain(error));
    // A closed standard error is no reason to fail in another way.
    let _ = crate::output::error_line(&message);
    if let Some(hint) = hint::hint(error) {
        crate::output::advice(&hint);
    }
    of(error)
}

/// Reports an error and ends the process from any thread, and without the ends of libraries that are loaded.
pub fn at_once(error: runvault_custody::Error) -> ! {
    let code = report(&error.into());
    log::logger().flush();
    // SAFETY: no code of this process runs after it.
    unsafe { libc::_exit(code as i32) }
}

/// The messages from the outermost to the cause, without repeating one that quotes its source.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.is_empty() {
            text = part;
        } else if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<crate::output::StandardOutput>()
        .is_some_and(|e| e.0.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The exit code that an error stands for.
pub fn of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(of_cause).unwrap_or(Exit::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        return Some(refusal.exit);
    }
    if let Some(left_out) = cause.downcast_ref::<crate::left_out::LeftOut>() {
        return Some(left_out.exit());
    }
    if let Some(custody) = cause.downcast_ref::<runvault_custody::Error>() {
        return Some(of_custody(custody));
    }
    cause.downcast_ref::<runvault_vault::Error>().map(of_vault)
}

fn of_custody(error: &runvault_custody::Error) -> Exit {
    use runvault_custody::Error as E;
    use runvault_custody::kek_home::Refused as Tpm;
    use runvault_custody::token::Refused as Token;
    match error {
        E::WrongPassphrase { .. }
        | E::WrongKey { .. }
        | E::OtherVault { .. }
        | E::KeysOfTwoVaults { .. }
        | E::OtherExecutor => Exit::WrongKey,
        E::Tpm { why: Tpm::OtherTpm | Tpm::PcrsChanged, .. } => Exit::WrongKey,
        E::Token { why, .. } => match why {
            Token::WrongPin | Token::Locked | Token::Absent(_) | Token::NoKey(_) | Token::OtherKey => {
                Exit::WrongKey
            }
            Token::Several(..) | Token::Keys(..) => Exit::Usage,
            Token::LastTry | Token::Silent(_) | Token::Said(_) => Exit::Failed,
        },
        E::NoLock
        | E::KeyTwice { .. }
        | E::BadApproval { why: "is there twice", .. }
        | E::GivenFile { .. }
        | E::NoPassphrase(_)
        | E::NoModule(_)
        | E::Permissions { .. }
        | E::BadFile { .. }
        | E::KeyFile { .. }
        | E::FileExists(_)
        | E::KeyFileExists(_)
        | E::UnlockedInStore
        | E::LockInStore
        | E::KekElsewhere(_) => Exit::Usage,
        E::Damaged { .. }
        | E::NoCustody
        | E::SeenMore { .. }
        | E::BadPublicKey { .. }
        | E::BadRequest { .. }
        | E::BadApproval { .. }
        | E::WrongShare { .. }
        | E::ChainBroken { .. }
        | E::Forked { .. }
        | E::CutShort { .. }
        | E::RolledBack { .. }
        | E::OneNumber { .. }
        | E::LooseSeal { .. }
        | E::RunGone { .. } => Exit::Damaged,
        E::Busy { .. } | E::ChangedMeanwhile | E::LockChanged => Exit::Busy,
        E::Vault(error) => of_vault(error),
        E::Format(error) => of_format(error),
        _ => Exit::Failed,
    }
}

/// What does not parse is damaged, unless a newer program made it.
fn of_format(error: &runvault_format::Error) -> Exit {
    use runvault_format::Error as E;
    match error {
        E::Version(_) | E::Suite(_) => Exit::Failed,
        _ => Exit::Damaged,
    }
}

/// The exit code of the engine's errors.
pub fn of_vault(error: &runvault_vault::Error) -> Exit {
    use runvault_vault::Error as E;
    match error {
        E::Damaged { .. } => Exit::Damaged,
        E::Held { .. } | E::Sealing { .. } | E::Posix(Posix::Busy) => Exit::Busy,
        E::WrongKey(_) => Exit::WrongKey,
        E::Format(error) => of_format(error),
        _ => Exit::Failed,
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use runvault_vault::Damage;

    #[test]
    fn typed_causes_decide_the_code() {
        let damaged = runvault_vault::Error::damaged("runs/00", Damage::Header);
        let error = anyhow::Error::from(damaged).context("reading RunInfo.xml");
        assert_eq!(of(&error), Exit::Damaged);
        assert_eq!(of(&anyhow::anyhow!("anything else")), Exit::Failed);
        let refused = Err::<(), _>(refuse(Exit::Usage, "MNT is not empty")).context("mount").unwrap_err();
        assert_eq!(of(&refused), Exit::Usage);
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let io = std::io::Error::from_raw_os_error(2);
        let error = anyhow::Error::from(runvault_vault::Error::store("open", "runs/00", io));
        let text = chain(&error);
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
    }
}
