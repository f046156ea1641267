//! Options as they were typed, for the command that a message tells to run next.

use crate::args::Who;
use crate::output::option;

/// Who acts, and where: whatever else the command is, it needs these again. A passphrase is asked for.
pub fn given(who: &Who) -> String {
    let files = [
        ("custody", &who.apart.custody),
        ("identity", &who.identity),
        ("state", &who.state),
        ("passphrase-file", &who.unlock.passphrase_file),
        ("pkcs11-module", &who.token.pkcs11_module),
        ("pin-file", &who.token.pin_file),
    ];
    files.into_iter().map(|(name, path)| option(name, path.as_deref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_given_again() {
        assert_eq!(given(&Who::default()), "");
        let mut who = Who { identity: Some("o.key".into()), state: Some("s".into()), ..Who::default() };
        who.apart.custody = Some("apart".into());
        who.unlock.passphrase_file = Some("pass".into());
        assert_eq!(given(&who), " --custody apart --identity o.key --state s --passphrase-file pass");
    }
}
