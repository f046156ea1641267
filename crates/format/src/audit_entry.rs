//! A line of `custody/audit.log`: one executed operation, by whom it was approved, what came of it.
//!
//! With one custodian of one the request, the approval and the execution are made at once, by one
//! command and with a fresh executor key as ever.

use runvault_crypto::digest::sha256;
use runvault_crypto::signature::SigningKey;
use serde::{Deserialize, Serialize};

use crate::custody_state::State;
use crate::ids::{Digest, IdentityId};
use crate::json;
use crate::operation::Operation;
use crate::replacement::{self, Replacement};
use crate::request::{Approval, Head, Request};
use crate::{Error, Result, labels};

/// What an operation changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Hash of the state that the line names; null where it stays.
    pub state: Option<Digest>,
    /// Runs that it has re-keyed, as its request names them.
    pub runs: Vec<Replacement>,
}

/// The newest run and seal of a gateway that the executor saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayHead {
    /// The gateway.
    pub gateway: IdentityId,
    /// Its newest run; 0 for none.
    #[serde(with = "json::int")]
    pub seq: u64,
    /// Text hash of that run's run.json.
    pub hash: Option<Digest>,
    /// Its newest seal; 0 for none.
    #[serde(with = "json::int")]
    pub seals: u64,
    /// Text hash of that seal's note.
    pub seals_hash: Option<Digest>,
}

/// All of a line but the executor's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Executed {
    /// Number of the line, from 1.
    #[serde(with = "json::int")]
    pub n: u64,
    /// Hash of the line before; of line 1, the vault id.
    pub prev: Digest,
    /// When, by the executor's clock, RFC 3339 in UTC.
    #[serde(with = "json::time")]
    pub time: String,
    /// What was asked for.
    pub request: Request,
    /// What came of it.
    pub result: Outcome,
    /// What the executor saw of the gateways.
    pub heads: Vec<GatewayHead>,
    /// Of distinct custodians, at least the quorum.
    pub approvals: Vec<Approval>,
}

/// A line; nothing in it is to be believed before [`Line::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was done.
    pub executed: Executed,
    /// By the key that the request names.
    pub executor_sig: [u8; 64],
}

/// The line's fields in their order. Serde cannot flatten and refuse unknown fields at once.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(with = "json::int")]
    n: u64,
    prev: Digest,
    #[serde(with = "json::time")]
    time: String,
    request: Request,
    result: Outcome,
    heads: Vec<GatewayHead>,
    approvals: Vec<Approval>,
    #[serde(with = "json::signature")]
    executor_sig: [u8; 64],
}

impl Executed {
    /// Signs the line with the request's executor key.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::TooLong`].
    pub fn sign(self, executor: &SigningKey) -> Result<Line> {
        let executor_sig = executor.sign(&self.message()?);
        Ok(Line { executed: self, executor_sig })
    }

    /// label ‖ SHA-256 of the line's JSON without its last field.
    fn message(&self) -> Result<Vec<u8>> {
        Ok([labels::EXECUTED, &sha256(&[json::to_line(self)?.as_bytes()])].concat())
    }
}

impl Line {
    /// The line, without its newline.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::TooLong`].
    pub fn to_line(&self) -> Result<String> {
        let e = self.executed.clone();
        json::to_line(&Fields {
            n: e.n,
            prev: e.prev,
            time: e.time,
            request: e.request,
            result: e.result,
            heads: e.heads,
            approvals: e.approvals,
            executor_sig: self.executor_sig,
        })
    }

    /// Parses a line, without its newline.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::Json`], [`Error::NotCanonical`].
    pub fn parse(line: &[u8]) -> Result<Self> {
        let f: Fields = json::parse_line(json::utf8(line)?)?;
        let executed = Executed {
            n: f.n,
            prev: f.prev,
            time: f.time,
            request: f.request,
            result: f.result,
            heads: f.heads,
            approvals: f.approvals,
        };
        Ok(Self { executed, executor_sig: f.executor_sig })
    }

    /// Checks the line against the chain before it, and gives the new head.
    ///
    /// `before` is the newest state so far; `after` the state that the line names, read from
    /// `custody/state-<n>`, where it names one.
    ///
    /// # Errors
    /// [`Error::Chain`] with what does not follow, [`Error::Signature`], [`Error::State`].
    pub fn verify(&self, head: &Head, before: &State, after: Option<&State>) -> Result<Head> {
        let (e, request) = (&self.executed, &self.executed.request);
        demand(head.n.checked_add(1) == Some(e.n), "number")?;
        demand(e.prev == head.hash, "line before")?;
        demand(request.head == *head, "the request is for another head")?;
        demand(request.vault == before.vault, "vault")?;
        demand(request.before == before.hash()?, "the request is for another state")?;
        let rekeyed = match &request.op {
            Operation::Rekey { runs } => runs.as_slice(),
            _ => &[],
        };
        demand(e.heads.is_empty() && replacement::are_of(&e.result.runs, rekeyed), "heads and runs")?;
        demand(request.created <= e.time && e.time <= request.expires, "time")?;
        demand(request.releases_share == request.op.releases_share(), "release of shares")?;
        self.verify_approvals(before)?;
        request.executor.sign.verify(&e.message()?, &self.executor_sig)?;
        self.verify_state(before, after)?;
        Ok(Head { n: e.n, hash: self.hash()? })
    }

    /// What the next line and pins name it by: SHA-256 of the line without its newline.
    ///
    /// # Errors
    /// Those of [`Line::to_line`].
    pub fn hash(&self) -> Result<Digest> {
        Ok(Digest(sha256(&[self.to_line()?.as_bytes()])))
    }

    fn verify_approvals(&self, before: &State) -> Result<()> {
        let (approvals, request) = (&self.executed.approvals, &self.executed.request);
        let hash = request.hash()?;
        for (i, approval) in approvals.iter().enumerate() {
            let twice = approvals.iter().take(i).any(|a| a.custodian == approval.custodian);
            demand(!twice, "approved twice by one custodian")?;
            let custodian =
                before.custodian(&approval.custodian).ok_or(Error::Chain("approved by someone else"))?;
            demand(approval.env_sha256.is_some() == request.releases_share, "release of shares")?;
            approval.verify(custodian, &hash)?;
        }
        demand(approvals.len() >= usize::from(before.quorum), "quorum")
    }

    fn verify_state(&self, before: &State, after: Option<&State>) -> Result<()> {
        let e = &self.executed;
        // Every operation so far makes a state.
        let after = after.ok_or(Error::Chain("state missing"))?;
        demand(after.n == e.n, "number of the state")?;
        demand(e.result.state == Some(after.hash()?), "hash of the state")?;
        demand(e.request.state == Some(after.outline()), "state of the request")?;
        before.check_epochs(after)?;
        e.request.op.verify(before, after)
    }
}

fn demand(holds: bool, what: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Chain(what)) }
}
