//! Where the chains of a gateway end, and what of them counts.

use runvault_format::ids::Digest;

/// The end of a gateway's chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// Its last run that counts.
    pub run: Last,
    /// Its last seal that counts.
    pub seal: Last,
}

/// The last of a gateway's runs, or seals, that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// Its number; 0: none counts.
    pub n: u64,
    /// Text hash of its note.
    pub hash: Option<Digest>,
}

impl Last {
    /// Why a `run` or `seal` of that number and text hash does not count; `None`: it does. One without a number
    /// cannot show that it was made before the end.
    pub(crate) fn refuses(
        &self,
        what: &str,
        n: Option<u64>,
        hash: impl FnOnce() -> Digest,
    ) -> Option<String> {
        let end = self.n;
        match n {
            Some(n) if n < end => None,
            // Whoever has the key can number a note as he likes.
            Some(n) if n == end && self.hash == Some(hash()) => None,
            Some(n) if n == end => {
                Some(format!("it is not the {what} number {end} with which those of its signer end"))
            }
            _ => Some(format!("the {what}s of its signer end at number {end}")),
        }
    }
}

/// What a gateway may do beside the maker of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Where it was ended: what the gateway made up to there counts.
    pub until: Option<Until>,
}

impl Admission {
    /// Whether a run of that number and text hash was made by it.
    pub(crate) fn counts_run(&self, n: Option<u64>, hash: Digest) -> bool {
        self.until.is_none_or(|until| until.run.refuses("run", n, || hash).is_none())
    }

    /// Whether a seal was.
    pub(crate) fn counts_seal(&self, n: u64, hash: Digest) -> bool {
        self.until.is_none_or(|until| until.seal.refuses("seal", Some(n), || hash).is_none())
    }
}
