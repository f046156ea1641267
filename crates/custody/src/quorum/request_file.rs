//! A request on its way: its text, and behind it the state that it follows, so that nobody needs the store to answer.
//!
//! The request names that state by its hash: whoever approves sees who there was before, and opens the own share. Behind
//! them stands what gateways of that state signed about the runs that it names.

use std::sync::Arc;

use runvault_format::custody_state::State;
use runvault_format::ids::{Digest, RunId};
use runvault_format::request::{Head, Request};
use runvault_format::words;
use runvault_store::backend::Dir;

use super::signed_runs::{self, SignedRun};
use crate::{Error, Result};

/// A request and the state before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFile {
    /// What is approved.
    pub request: Request,
    /// What it follows.
    pub before: State,
    /// Those of its runs that came with what is signed about them, in the request's order.
    pub signed: Vec<SignedRun>,
}

/// A request and a state.
const TEXTS_MAX: usize = 2 << 20;
/// What is signed about some 10,000 runs.
const SIGNED_MAX: usize = 32 << 20;
/// Longer files are refused.
pub const LEN_MAX: usize = TEXTS_MAX + SIGNED_MAX;

impl RequestFile {
    /// The file's bytes.
    ///
    /// # Errors
    /// The format's.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (request, before) = (self.request.to_text()?, self.before.to_text()?);
        Ok([request, before, signed_runs::to_text(&self.signed)].concat().into_bytes())
    }

    /// Parses a file whose parts fit each other: the operation makes of the state before what the request says.
    ///
    /// # Errors
    /// [`Error::BadRequest`] with what does not fit.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::BadRequest { why };
        let (request, rest) = bytes.split_at(two_lines(bytes));
        let (before, signed) = rest.split_at(two_lines(rest));
        let request =
            Request::parse(request).map_err(|e| bad(format!("not a request, or a damaged one: {e}")))?;
        let before =
            State::parse(before).map_err(|e| bad(format!("the state that it follows is damaged: {e}")))?;
        let signed = std::str::from_utf8(signed)
            .map_err(|_| runvault_format::Error::NotCanonical("UTF-8"))
            .and_then(|text| signed_runs::parse(text, &before, &request.op))
            .map_err(|e| bad(format!("what is signed about its runs: {e}")))?;
        let file = Self { request, before, signed };
        file.check().map_err(|why| bad(why.to_string()))?;
        Ok(file)
    }

    /// Takes along what is signed in the store about the runs that it names.
    pub fn take_along(&mut self, root: &Arc<dyn Dir>) {
        self.signed = signed_runs::read(root, &self.before, &self.request.op, SIGNED_MAX);
    }

    /// What came along about a run that it names.
    pub fn signed_run(&self, run: &RunId) -> Option<&SignedRun> {
        self.signed.iter().find(|signed| signed.made.run == *run)
    }

    fn check(&self) -> runvault_format::Result<()> {
        let (request, before) = (&self.request, &self.before);
        let follows = request.vault == before.vault && request.head.n == before.n;
        let start = before.n > 0 || request.head == Head::start(&before.vault);
        if !follows || !start || request.releases_share != request.op.releases_share() {
            return Err(runvault_format::Error::Chain("it does not follow the state beside it"));
        }
        if request.before != before.hash()? {
            return Err(runvault_format::Error::Chain("it is for another state than the one beside it"));
        }
        if request.state.as_ref() == Some(&request.op.outline(before)?) {
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

/// Where the second line ends; 0 where there are no two.
fn two_lines(bytes: &[u8]) -> usize {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).map_or(0, |(at, _)| at + 1)
}
