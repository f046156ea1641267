//! A request on its way: its text, and behind it the state that it follows, so that nobody needs the store to answer.
//!
//! The state is not signed here. Whoever approves opens the own share out of it, which no other could have made to
//! open and bear its hash, and sees who there was before; the request alone says what is approved.

use runvault_format::custody_state::State;
use runvault_format::ids::Digest;
use runvault_format::request::{Head, Request};
use runvault_format::words;

use crate::{Error, Result};

/// A request and the state before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFile {
    /// What is approved.
    pub request: Request,
    /// What it follows.
    pub before: State,
}

/// Longer files are refused.
pub const LEN_MAX: usize = 2 << 20;

impl RequestFile {
    /// The file's bytes.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok([self.request.to_text()?, self.before.to_text()?].concat().into_bytes())
    }

    /// Parses a file whose parts fit each other: the operation makes of the state before what the request says.
    ///
    /// # Errors
    /// [`Error::BadRequest`] with what does not fit.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::BadRequest { why };
        let end =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).map_or(0, |(at, _)| at + 1);
        let (request, before) = bytes.split_at(end);
        let request =
            Request::parse(request).map_err(|e| bad(format!("not a request, or a damaged one: {e}")))?;
        let before =
            State::parse(before).map_err(|e| bad(format!("the state that it follows is damaged: {e}")))?;
        let file = Self { request, before };
        file.check().map_err(|why| bad(why.to_string()))?;
        Ok(file)
    }

    fn check(&self) -> runvault_format::Result<()> {
        let (request, before) = (&self.request, &self.before);
        let follows = request.vault == before.vault && request.head.n == before.n;
        let start = before.n > 0 || request.head == Head::start(&before.vault);
        if !follows || !start || request.releases_share != request.op.releases_share() {
            return Err(runvault_format::Error::Chain("it does not follow the state beside it"));
        }
        let gateways = request.state.as_ref().map(|outline| outline.gateways.as_slice());
        let outline = crate::next_state::outline(before, &request.op, gateways)?;
        if request.state.as_ref() == Some(&outline) {
            Ok(())
        } else {
            Err(runvault_format::Error::Chain("the operation makes another state than the one it names"))
        }
    }

    /// What approvals sign.
    ///
    /// # Errors
    /// The format's.
    pub fn hash(&self) -> Result<Digest> {
        Ok(self.request.hash()?)
    }

    /// Six words of the hash: those who approve compare them with the one who executes.
    ///
    /// # Errors
    /// The format's.
    pub fn words(&self) -> Result<String> {
        Ok(words::of_request(&self.hash()?).join(" "))
    }
}
