//! What is signed about a run, which needs no key, and the text of its manifest, which does.

use runvault_format::descriptor::{RunDescriptor, RunKind};
use runvault_format::ids::RunId;
use runvault_format::note::Verified;
use runvault_format::seal_note::SealNote;

use crate::run_table::Entry;
use crate::seal::Origin;
use crate::{Result, Vault, runs, seal};

/// A run as its gateway signed it.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// run.json.
    pub descriptor: Verified<RunDescriptor>,
    /// `seal/seal.note`; `None` while it is open.
    pub seal: Option<SealNote>,
    /// What the manifest says of a sealed run that opens here, as JSON text.
    pub about: Option<String>,
    /// The run that was sealed first, where this one replaces it.
    pub origin: Option<Box<Origin>>,
}

impl RunFacts {
    /// Whether these are a gateway's files outside any run.
    pub fn is_loose(&self) -> bool {
        self.descriptor.kind == RunKind::Loose
    }
}

impl Vault {
    /// What is known of a run, whether or not it opens here.
    ///
    /// # Errors
    /// Damage of what is signed; the store's.
    pub fn run_facts(&self, run: &RunId) -> Result<RunFacts> {
        let descriptor = runs::read_descriptor(&self.root, run, &*self.authority)?.descriptor;
        let seal = seal::find(&self.root, run, &*self.authority)?;
        let entry = self.table().entries.get(run).cloned();
        let about = match entry {
            Some(Entry::Run(run)) if run.is_sealed() => Some(self.sealed_about(&run)?),
            _ => None,
        };
        let (seal, origin) = seal.map_or((None, None), |seal| (Some(seal.note), seal.origin));
        Ok(RunFacts { descriptor, seal, about, origin })
    }
}
