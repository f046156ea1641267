//! The text of run.json: what a run is, signed by the gateway that made it.

use serde::{Deserialize, Serialize};

use crate::header::SUITE;
use crate::ids::{Digest, IdentityId, RunId, VaultId};
use crate::json;
use crate::size::Geometry;
use crate::{Error, Result};

/// The note's kind: its first line is `runvault/1 run`.
pub const KIND: &str = "run";

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A sequencing run.
    Run,
    /// A gateway's files outside any run.
    Loose,
}

/// How a run relates to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It adds to it.
    Continues,
    /// It stands for it, under a new key.
    Replaces,
}

/// The earlier run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Its id.
    pub run: RunId,
    /// The relation.
    pub how: How,
    /// SHA-256 of its seal note's text.
    pub seal: Digest,
}

/// Number and hash of a custody state, or of the newest seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateRef {
    /// n.
    #[serde(with = "json::int")]
    pub n: u64,
    /// SHA-256 of its text.
    pub hash: Digest,
}

/// A gateway's seals so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seals {
    /// How many.
    #[serde(with = "json::int")]
    pub n: u64,
    /// SHA-256 of the newest one's text; null before the first.
    pub hash: Option<Digest>,
}

/// What run.json says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDescriptor {
    /// The vault.
    pub vault: VaultId,
    /// The directory's name.
    pub run: RunId,
    /// Chunk size of every file in it.
    pub geometry: Geometry,
    /// What it is for.
    pub kind: RunKind,
    /// Tells a wrong run key from the right one.
    pub commitment: Digest,
    /// The vault epoch that its key was sealed to.
    pub epoch: u32,
    /// The custody state that the gateway knew.
    pub state: StateRef,
    /// The gateway, or the worker of a replacing run.
    pub signer: IdentityId,
    /// Counts the gateway's runs from 1; null for a replacing run.
    pub seq: Option<u64>,
    /// Text hash of the gateway's run before; null for the first and for a replacing run.
    pub prev: Option<Digest>,
    /// The gateway's seals when the run was made.
    pub seals: Seals,
    /// The run that it continues or replaces.
    pub after: Option<After>,
    /// When it was made, RFC 3339 in UTC.
    pub opened: String,
}

/// The fields in their order in the text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    vault: VaultId,
    run: RunId,
    suite: u16,
    chunk: u64,
    kind: RunKind,
    commitment: Digest,
    epoch: u32,
    state: StateRef,
    signer: IdentityId,
    #[serde(with = "json::maybe_int")]
    seq: Option<u64>,
    prev: Option<Digest>,
    seals: Seals,
    after: Option<After>,
    #[serde(with = "json::time")]
    opened: String,
}

impl RunDescriptor {
    /// Whether it stands for another run, under a new key.
    pub fn replaces(&self) -> bool {
        self.after.as_ref().is_some_and(|after| after.how == How::Replaces)
    }

    /// The note's text.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::NotCanonical`] for what [`RunDescriptor::parse_text`] refuses.
    pub fn to_text(&self) -> Result<String> {
        self.check()?;
        let d = self.clone();
        let fields = Fields {
            vault: d.vault,
            run: d.run,
            suite: SUITE,
            chunk: d.geometry.chunk(),
            kind: d.kind,
            commitment: d.commitment,
            epoch: d.epoch,
            state: d.state,
            signer: d.signer,
            seq: d.seq,
            prev: d.prev,
            seals: d.seals,
            after: d.after,
            opened: d.opened,
        };
        json::to_text(KIND, &fields)
    }

    /// Parses a note's text.
    ///
    /// # Errors
    /// [`Error::NoteKind`], [`Error::Version`], [`Error::Magic`], [`Error::Json`],
    /// [`Error::NotCanonical`], [`Error::Suite`], [`Error::ChunkSize`], [`Error::Trailing`],
    /// [`Error::Truncated`].
    pub fn parse_text(text: &str) -> Result<Self> {
        let f: Fields = json::parse_text(KIND, text)?;
        if f.suite != SUITE {
            return Err(Error::Suite(f.suite.into()));
        }
        let descriptor = Self {
            vault: f.vault,
            run: f.run,
            geometry: geometry_of(f.chunk)?,
            kind: f.kind,
            commitment: f.commitment,
            epoch: f.epoch,
            state: f.state,
            signer: f.signer,
            seq: f.seq,
            prev: f.prev,
            seals: f.seals,
            after: f.after,
            opened: f.opened,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Fields that depend on each other.
    fn check(&self) -> Result<()> {
        let replaces = self.after.as_ref().is_some_and(|a| a.how == How::Replaces);
        let chained = match (self.seq, self.prev) {
            (None, None) => replaces,
            (Some(1), None) => !replaces,
            (Some(seq), Some(_)) => !replaces && seq > 1,
            _ => false,
        };
        if !chained {
            return Err(Error::NotCanonical("seq and prev"));
        }
        if (self.seals.n == 0) != self.seals.hash.is_none() {
            return Err(Error::NotCanonical("seals"));
        }
        if self.epoch == 0 {
            return Err(Error::NotCanonical("epoch"));
        }
        Ok(())
    }
}

fn geometry_of(chunk: u64) -> Result<Geometry> {
    let log2 = chunk.checked_ilog2().and_then(|l| u8::try_from(l).ok()).unwrap_or_default();
    if chunk.is_power_of_two() { Geometry::new(log2) } else { Err(Error::ChunkSize(log2)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first() -> RunDescriptor {
        RunDescriptor {
            vault: VaultId([1; 32]),
            run: RunId([2; 16]),
            geometry: Geometry::default(),
            kind: RunKind::Run,
            commitment: Digest([3; 32]),
            epoch: 1,
            state: StateRef { n: 1, hash: Digest([4; 32]) },
            signer: IdentityId([5; 16]),
            seq: Some(1),
            prev: None,
            seals: Seals { n: 0, hash: None },
            after: None,
            opened: "2026-11-24T06:00:00Z".into(),
        }
    }

    #[test]
    fn refusals_by_name() {
        let text = first().to_text().unwrap();
        assert!(text.starts_with("runvault/1 run\n{\"vault\":\"0101"));
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            RunDescriptor::parse_text(&text.replacen(from, to, 1)).unwrap_err()
        };
        assert_eq!(with("runvault/1 run", "runvault/1 seal"), Error::NoteKind("seal".into()));
        assert_eq!(with("runvault/1 run", "runvault/2 run"), Error::Version(2));
        assert_eq!(with("runvault/1 run", "gocryptfs"), Error::Magic);
        assert_eq!(with("\"suite\":1", "\"suite\":2"), Error::Suite(2));
        assert_eq!(with("8192", "256"), Error::ChunkSize(8));
        assert_eq!(with("8192", "8193"), Error::ChunkSize(13));
        assert_eq!(with("8192", "0"), Error::ChunkSize(0));
        assert_eq!(with("}\n", "}\n\n"), Error::Trailing);
        assert_eq!(with("}\n", "}"), Error::Truncated);
        assert_eq!(with("\"suite\":1", "\"suite\": 1"), Error::NotCanonical("JSON"));
        assert_eq!(with("\"suite\":1", "\"suit\\u0065\":1"), Error::NotCanonical("JSON"));
        assert_eq!(with(",\"after\":null", ""), Error::NotCanonical("JSON"));
        assert_eq!(with("\"seq\":1", "\"seq\":2"), Error::NotCanonical("seq and prev"));
        assert_eq!(with("\"seq\":1", "\"seq\":null"), Error::NotCanonical("seq and prev"));
        assert_eq!(with("\"seals\":{\"n\":0", "\"seals\":{\"n\":1"), Error::NotCanonical("seals"));
        assert_eq!(with("\"epoch\":1", "\"epoch\":0"), Error::NotCanonical("epoch"));
        for (from, to) in [
            ("\"seq\":1", "\"seq\":9007199254740993"),
            ("\"seq\":1", "\"seq\":1.0"),
            ("\"seq\":1", "\"seq\":-1"),
            ("\"suite\":1", "\"suite\":1,\"suite\":1"),
            ("\"suite\":1", "\"suite\":1,\"more\":1"),
            ("0101", "0AB1"),
            ("\"kind\":\"run\"", "\"kind\":\"walk\""),
            ("2026-11-24T06", "2026-11-24 06"),
            ("\"vault\":\"0101", "\"vault\":\"01"),
        ] {
            assert!(matches!(with(from, to), Error::Json(_)), "{from} -> {to}");
        }
    }

    prop_compose! {
        fn descriptor()(
            ids in any::<([u8; 32], [u8; 16], [u8; 32], [u8; 32], [u8; 16])>(), log2 in 9u8..=20, loose in any::<bool>(),
            epoch in 1u32.., n in 0u64..=json::INTEGER_MAX, seq in 1u64..=json::INTEGER_MAX,
            prev in any::<[u8; 32]>(), seals in prop::option::of((1u64..=json::INTEGER_MAX, any::<[u8; 32]>())),
            after in prop::option::of(any::<([u8; 16], bool, [u8; 32])>()), at in 0u64..253_402_300_800,
        ) -> RunDescriptor {
            let after = after.map(|(run, replaces, seal)| After {
                run: RunId(run), how: if replaces { How::Replaces } else { How::Continues }, seal: Digest(seal),
            });
            let replaces = after.as_ref().is_some_and(|a| a.how == How::Replaces);
            RunDescriptor {
                vault: VaultId(ids.0), run: RunId(ids.1), geometry: Geometry::new(log2).unwrap(),
                kind: if loose { RunKind::Loose } else { RunKind::Run }, commitment: Digest(ids.2), epoch,
                state: StateRef { n, hash: Digest(ids.3) }, signer: IdentityId(ids.4),
                seq: (!replaces).then_some(seq), prev: (!replaces && seq > 1).then_some(Digest(prev)),
                seals: Seals { n: seals.map_or(0, |s| s.0), hash: seals.map(|s| Digest(s.1)) },
                after, opened: crate::time::text(at),
            }
        }
    }

    proptest! {
        #[test]
        fn what_parses_encodes_back(descriptor in descriptor()) {
            let text = descriptor.to_text().unwrap();
            prop_assert_eq!(RunDescriptor::parse_text(&text), Ok(descriptor));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}", flip in any::<(u16, u8)>()) {
            prop_assert!(RunDescriptor::parse_text(&text).is_err());
            let mut bytes = first().to_text().unwrap().into_bytes();
            let at = usize::from(flip.0) % bytes.len();
            bytes[at] = flip.1 & 0x7f;
            if let Ok(changed) = RunDescriptor::parse_text(std::str::from_utf8(&bytes).unwrap()) {
                prop_assert_eq!(changed.to_text().unwrap().into_bytes(), bytes);
            }
        }
    }
}
