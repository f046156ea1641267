//! What was typed, for the command that a message tells to run next.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::args::Who;
use crate::output::{option, quoted};

/// The stores that this command was given, and the options that each needs: advice is written where no path is known.
static STORES: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// This command was given that store.
pub fn note_store(path: &Path, custody: Option<&Path>) {
    let typed = (quoted(path), option("custody", custody));
    STORES.lock().unwrap_or_else(PoisonError::into_inner).insert(typed);
}

/// The text with that store in place of STORE; of two stores it could be either.
pub fn with_store(text: &str) -> String {
    let stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    match (stores.len(), stores.first()) {
        (1, Some((path, options))) => named(text, path, options),
        _ => text.to_owned(),
    }
}

/// The text with this store in place of STORE.
pub fn in_place(text: &str, store: &Path) -> String {
    named(text, &quoted(store), "")
}

fn named(text: &str, path: &str, options: &str) -> String {
    let (mut told, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("STORE") {
        told += before;
        let begins = told.chars().next_back().is_none_or(|c| c.is_whitespace() || c == '(');
        match after.chars().next() {
            Some('/') if begins => told += path,
            next if begins && next.is_none_or(|c| c.is_whitespace() || ",;.:)".contains(c)) => {
                told += path;
                told += options;
            }
            _ => told += "STORE",
        }
        rest = after;
    }
    told + rest
}

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
    fn advice_names_the_store_that_was_typed() {
        assert_eq!(
            named("runvault check STORE says\nmv STORE/runs/x (STORE)", "'a b'", " --custody c"),
            "runvault check 'a b' --custody c says\nmv 'a b'/runs/x ('a b' --custody c)"
        );
        for other in ["chmod 600 /data/STORE/owner.key", "STORED", "a STORE-2", "STORESTORE"] {
            assert_eq!(named(other, "x", ""), other);
        }
    }

    #[test]
    fn what_was_given_is_given_again() {
        assert_eq!(given(&Who::default()), "");
        let mut who = Who { identity: Some("o.key".into()), state: Some("s".into()), ..Who::default() };
        who.apart.custody = Some("apart".into());
        who.unlock.passphrase_file = Some("pass".into());
        assert_eq!(given(&who), " --custody apart --identity o.key --state s --passphrase-file pass");
    }
}
