//! The copy of `custody/` behind a key file: all that is needed to make it anew, and nothing that is secret.
//!
//! The texts as they lie in the store: the genesis, state 0 with its envelopes, and each line of the audit log. Behind
//! a line comes the state that it names where the operation alone does not give it: where the vault key was changed.

use crate::{Error, Result};

/// Some ten thousand lines.
pub const LEN_MAX: usize = 64 << 20;

/// How it begins: what stands before it in a key file ends there.
pub(crate) const FIRST_LINE: &str = "runvault/1 genesis\n";
const STATE_LINE: &str = "runvault/1 state\n";

/// The copy: whether its parts follow from each other is for the chain to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustodyCopy {
    /// The text of `custody/genesis`.
    pub genesis: String,
    /// The text of `custody/state-0`.
    pub first: String,
    /// In order.
    pub lines: Vec<CopiedLine>,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedLine {
    /// Without its newline.
    pub line: String,
    /// The text of the state that it names; `None`: the one that its operation makes of the state before.
    pub state: Option<String>,
}

impl CustodyCopy {
    /// The copy's bytes.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = format!("{}{}", self.genesis, self.first);
        for line in &self.lines {
            text += &line.line;
            text.push('\n');
            text += line.state.as_deref().unwrap_or_default();
        }
        if text.len() > LEN_MAX { Err(Error::TooLong) } else { Ok(text.into_bytes()) }
    }

    /// Takes the copy apart.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::NotCanonical`] for what is no UTF-8, [`Error::Magic`] for another beginning or text,
    /// [`Error::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > LEN_MAX {
            return Err(Error::TooLong);
        }
        let mut rest = std::str::from_utf8(bytes).map_err(|_| Error::NotCanonical("UTF-8"))?;
        let genesis = two_lines(&mut rest, FIRST_LINE)?.ok_or(Error::Magic)?;
        let first = two_lines(&mut rest, STATE_LINE)?.ok_or(Error::Magic)?;
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let line = line(&mut rest)?;
            if !line.starts_with('{') {
                return Err(Error::Magic);
            }
            lines.push(CopiedLine { line, state: two_lines(&mut rest, STATE_LINE)? });
        }
        Ok(Self { genesis, first, lines })
    }
}

/// A text of two lines, the first of them this; `None` where something else begins.
fn two_lines(rest: &mut &str, first: &str) -> Result<Option<String>> {
    let Some(after) = rest.strip_prefix(first) else { return Ok(None) };
    *rest = after;
    Ok(Some(format!("{first}{}\n", line(rest)?)))
}

fn line(rest: &mut &str) -> Result<String> {
    let (line, after) = rest.split_once('\n').ok_or(Error::Truncated)?;
    *rest = after;
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &str = "runvault/1 genesis\n{}\nrunvault/1 state\n{}\n";

    proptest! {
        #[test]
        fn what_parses_encodes_back(lines in prop::collection::vec((r"\{[a-z ]{0,9}", any::<bool>()), 0..5)) {
            let state = |there: bool| there.then(|| format!("{STATE_LINE}{{}}\n"));
            let lines = lines.into_iter().map(|(line, with)| CopiedLine { line, state: state(with) }).collect();
            let copy = CustodyCopy { lines, ..CustodyCopy::parse(TWO.as_bytes()).unwrap() };
            prop_assert_eq!(CustodyCopy::parse(&copy.to_bytes().unwrap()), Ok(copy));
        }
    }

    #[test]
    fn refusals_by_name() {
        let refused = |text: &str| CustodyCopy::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused(""), Error::Magic);
        assert_eq!(refused("runvault/1 genesis\n{}\n"), Error::Magic);
        assert_eq!(refused(&TWO[..TWO.len() - 1]), Error::Truncated);
        assert_eq!(refused(&format!("{TWO}{{}}")), Error::Truncated);
        assert_eq!(refused(&format!("{TWO}x\n")), Error::Magic);
        assert_eq!(
            refused(&format!("{TWO}{{}}\nrunvault/1 state\n{{}}\nrunvault/1 state\n{{}}\n")),
            Error::Magic
        );
    }
}
