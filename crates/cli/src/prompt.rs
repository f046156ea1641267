//! Questions: where a passphrase comes from, and a person's yes.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use anyhow::Result;
use runvault_custody::identity::Identity;
use runvault_custody::key_files::{self, KeyFile, Prompt};
use runvault_custody::token::{self, Tries};
use zeroize::Zeroizing;
use zxcvbn::matching::Match;
use zxcvbn::matching::patterns::MatchPattern;

use crate::args::{NewPassphrase, Token, Unlock};
use crate::exit::{Exit, refuse, refuse_with};
use crate::output::{visible, warn};
use crate::secret_file::{passphrase_from_fd, passphrase_from_file};
use crate::terminal;

/// Below this many bits of estimated strength a new passphrase is warned about.
const WEAK_BITS: f64 = 80.0;

/// Where a passphrase comes from, decided before anything is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The first line of a file; whether group or others may read it.
    File(PathBuf, bool),
    /// The first line of a file descriptor.
    Fd(u32),
    /// A person.
    Terminal,
}

impl Source {
    /// A named file or descriptor, else systemd's credential, else the terminal.
    pub fn of(unlock: &Unlock) -> Source {
        let allow = unlock.allow_readable_secret;
        match (&unlock.passphrase_file, unlock.passphrase_fd) {
            (Some(path), _) => Source::File(path.clone(), allow),
            (None, Some(fd)) => Source::Fd(fd),
            (None, None) => credential().map_or(Source::Terminal, |path| Source::File(path, allow)),
        }
    }

    /// A new passphrase beside an old one: without a choice of its own it is asked for, since a credential holds
    /// the old one.
    pub fn of_new(new: &NewPassphrase, allow_readable: bool) -> Source {
        match (&new.new_passphrase_file, new.new_passphrase_fd) {
            (Some(path), _) => Source::File(path.clone(), allow_readable),
            (None, Some(fd)) => Source::Fd(fd),
            (None, None) => Source::Terminal,
        }
    }

    /// The passphrase of an existing lock.
    ///
    /// # Errors
    /// Exit 2: no usable file, no terminal.
    pub fn existing(&self, label: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.read(&format!("Passphrase of {}: ", visible(label.as_bytes())), "--passphrase-file")
    }

    /// The PIN of a token.
    ///
    /// # Errors
    /// As [`Source::existing`].
    pub fn pin(&self, token: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.read(&format!("PIN of the token {}: ", visible(token.as_bytes())), "--pin-file")
    }

    fn read(&self, question: &str, option: &str) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Source::File(path, allow) => passphrase_from_file(path, *allow),
            Source::Fd(fd) => passphrase_from_fd(*fd),
            Source::Terminal => ask(question, option),
        }
    }

    /// A new passphrase: asked twice on a terminal; empty refused, a weak one warned about. `option` names a file that
    /// holds it.
    ///
    /// # Errors
    /// Exit 2: as above, empty, or the two differ.
    pub fn new_one(&self, label: &str, option: &str) -> Result<Zeroizing<Vec<u8>>> {
        let label = visible(label.as_bytes());
        let passphrase = match self {
            Source::Terminal => {
                let first = ask(&format!("New passphrase for {label}: "), option)?;
                if first.is_empty() {
                    return Err(refuse(Exit::Usage, "an empty passphrase locks nothing"));
                }
                let again = ask("The same again: ", option)?;
                if *first != *again {
                    return Err(refuse(Exit::Usage, "the two passphrases differ"));
                }
                first
            }
            other => other.existing(&label)?,
        };
        let bits = strength_bits(&passphrase);
        if bits < WEAK_BITS {
            warn(&weak(bits));
        }
        Ok(passphrase)
    }
}

/// Rounded down, since what is below a bound must not be told as the bound.
fn weak(bits: f64) -> String {
    format!(
        "this passphrase has about {:.0} bits; whoever copies the key file, or the store that it lies in, can guess it offline. Seven random words have 90",
        bits.floor()
    )
}

/// systemd's credential, where the service was given one.
fn credential() -> Option<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    Some(PathBuf::from(folder).join("runvault.passphrase")).filter(|path| path.exists())
}

fn ask(question: &str, option: &str) -> Result<Zeroizing<Vec<u8>>> {
    let _guard = terminal::Guard::new();
    let answer = rpassword::prompt_password(question).map_err(|e| {
        refuse_with(
            Exit::Usage,
            format!("there is no terminal to ask for the passphrase or PIN on ({e})"),
            format!("name a file that holds it: {option} FILE"),
        )
    })?;
    Ok(Zeroizing::new(answer.into_bytes()))
}

/// The sum of what zxcvbn finds in each word of the first 100 characters: its own total ends at 64 bits.
/// A word that comes again counts nothing.
fn strength_bits(passphrase: &[u8]) -> f64 {
    let text = Zeroizing::new(String::from_utf8_lossy(passphrase).chars().take(100).collect::<String>());
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    words.into_iter().map(word_bits).sum()
}

/// Halves what is beyond zxcvbn's 64 bits.
fn word_bits(word: &str) -> f64 {
    let found = zxcvbn::zxcvbn(word, &["runvault"]);
    let middle = word.char_indices().nth(word.chars().count() / 2).map_or(0, |(at, _)| at);
    if let (u64::MAX, 1.., Some((first, second))) = (found.guesses(), middle, word.split_at_checked(middle)) {
        return word_bits(first) + word_bits(second);
    }
    found.sequence().iter().map(part_bits).sum()
}

/// zxcvbn counts ten guesses for each character that fits no pattern. That is right for letters (they
/// may be a word that it does not know) and far too low for what only a generator makes.
fn part_bits(part: &Match) -> f64 {
    let counted = part.guesses.map_or(0.0, |guesses| (guesses.max(1) as f64).log2());
    match part.pattern {
        MatchPattern::BruteForce => {
            counted.max(part.token.chars().count() as f64 * generated_bits(&part.token))
        }
        _ => counted,
    }
}

/// Bits of a character of a text with at least three kinds of them; else 0.
fn generated_bits(text: &str) -> f64 {
    let has = |kind: fn(char) -> bool, size: f64| text.chars().any(kind).then_some(size);
    let used: Vec<f64> = [
        has(|c| c.is_ascii_lowercase(), 26.0),
        has(|c| c.is_ascii_uppercase(), 26.0),
        has(|c| c.is_ascii_digit(), 10.0),
        has(|c| !c.is_ascii_alphanumeric(), 33.0),
    ]
    .into_iter()
    .flatten()
    .collect();
    if used.len() >= 3 { used.iter().sum::<f64>().log2() } else { 0.0 }
}

/// Custody asks for the passphrase of a lock through this; the source is asked once.
pub struct Asker {
    source: Source,
    token: Token,
    /// Whether secret files may be readable by others.
    allow_readable: bool,
    given: Option<Zeroizing<Vec<u8>>>,
    /// Whether a token was wanted.
    reached: bool,
    /// What went wrong on our side, for the caller to report instead of custody's error.
    pub failed: Option<anyhow::Error>,
}

impl Asker {
    /// Asks where these options say.
    pub fn of(unlock: &Unlock, token: &Token) -> Self {
        Self {
            source: Source::of(unlock),
            token: token.clone(),
            allow_readable: unlock.allow_readable_secret,
            given: None,
            reached: false,
            failed: None,
        }
    }

    fn fails(&mut self, error: anyhow::Error) -> runvault_custody::Error {
        let text = error.to_string();
        self.failed = Some(error);
        runvault_custody::Error::NoPassphrase(text)
    }

    /// Opens the lock of a key file.
    ///
    /// # Errors
    /// Custody's; exit 2 where nobody can be asked.
    pub fn unlock(&mut self, file: &KeyFile) -> Result<Identity> {
        self.told(|asker| key_files::unlock(file, asker))
    }

    /// Does what asks; our own refusal says more than custody's "no passphrase".
    ///
    /// # Errors
    /// As [`Asker::unlock`].
    pub fn told<T>(&mut self, ask: impl FnOnce(&mut Self) -> runvault_custody::Result<T>) -> Result<T> {
        let done = ask(self);
        self.failed.take().map_or_else(|| done.map_err(Into::into), Err)
    }

    /// Whether the command line says how a token is reached.
    pub fn names_a_module(&self) -> bool {
        self.token.pkcs11_module.is_some()
    }

    /// Whether a passphrase was wanted.
    pub fn asked_passphrase(&self) -> bool {
        self.given.is_some()
    }

    /// Whether a token was.
    pub fn reached_token(&self) -> bool {
        self.reached
    }

    /// Tells what the command line named and the lock did not want.
    pub fn warn_of_unused(&self, unlock: &Unlock) {
        if unlock.names_a_passphrase() && self.given.is_none() {
            warn("the key file is not locked by a passphrase: the one that was named was not read");
        }
        if self.token.pkcs11_module.is_some() && !self.reached {
            warn("the key file is not locked by a token: --pkcs11-module was not used");
        }
    }
}

impl Prompt for Asker {
    fn passphrase(&mut self, label: &str) -> runvault_custody::Result<Zeroizing<Vec<u8>>> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        match self.source.existing(label) {
            Ok(passphrase) => {
                self.given = Some(passphrase.clone());
                Ok(passphrase)
            }
            Err(error) => Err(self.fails(error)),
        }
    }

    fn module(&mut self, token: &str) -> runvault_custody::Result<PathBuf> {
        self.reached = true;
        self.token.pkcs11_module.clone().ok_or_else(|| runvault_custody::Error::NoModule(token.to_owned()))
    }

    fn pin(&mut self, token: &str, tries: Tries) -> runvault_custody::Result<Zeroizing<Vec<u8>>> {
        let shown = visible(token.as_bytes());
        match tries {
            Tries::Enough => {}
            Tries::Few => warn(&format!("a wrong PIN was tried on the token {shown}: it takes few more")),
            Tries::Last if self.token.last_pin_try => {
                warn(&format!("one more wrong PIN locks the token {shown}"));
            }
            Tries::Last => {
                let why = token::Refused::LastTry;
                return Err(runvault_custody::Error::Token { token: token.to_owned(), why });
            }
        }
        let source = match (&self.token.pin_file, self.token.pin_fd) {
            (Some(path), _) => Source::File(path.clone(), self.allow_readable),
            (None, Some(fd)) => Source::Fd(fd),
            (None, None) => Source::Terminal,
        };
        source.pin(token).map_err(|error| self.fails(error))
    }
}

/// A person's consent to something that cannot be taken back.
///
/// # Errors
/// Exit 1 without a terminal (naming what `--yes` would accept) and for any answer but `yes`.
pub fn confirm(question: &str, yes_accepts: &str) -> Result<()> {
    let no_terminal = |e: std::io::Error| {
        refuse_with(
            Exit::Failed,
            format!("this needs a person's yes, and there is no terminal ({e})"),
            format!("--yes accepts: {yes_accepts}"),
        )
    };
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    write!(terminal, "{question}\nType yes to go on: ").map_err(no_terminal)?;
    let mut answer = String::new();
    BufReader::new(terminal).read_line(&mut answer).map_err(no_terminal)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(refuse(Exit::Failed, "not confirmed; nothing was done")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_source_wins() {
        let mut unlock = Unlock { passphrase_fd: Some(3), ..Unlock::default() };
        assert_eq!(Source::of(&unlock), Source::Fd(3));
        unlock.passphrase_file = Some("p".into());
        assert_eq!(Source::of(&unlock), Source::File("p".into(), false));
    }

    #[test]
    fn strength_tells_weak_from_strong() {
        let bits = |text: &str| strength_bits(text.as_bytes());
        assert!(bits("password") < 10.0);
        assert!(bits("correct horse battery staple") < WEAK_BITS);
        assert!(bits("Passw0rd!2024runvault") < WEAK_BITS);
        assert!(bits("donaudampfschifffahrt") < WEAK_BITS);
        assert!(bits("xk7%Qp2!mZr9@Lw4") > WEAK_BITS);
        assert!(bits("outlet gravel sublime tanker veneer mossy pelican") > WEAK_BITS);
        assert!(strength_bits(&[0xff; 4000]).is_finite());
        assert!(weak(WEAK_BITS - 0.1).contains("about 79 bits"));
    }
}
