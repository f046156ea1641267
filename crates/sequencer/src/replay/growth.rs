//! What files that grow hold up to now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::layout::File;
use crate::spec::RunSpec;
use crate::synthetic;

/// Content of each, which what is on disk never runs ahead of.
#[derive(Clone)]
pub struct Growth {
    spec: RunSpec,
    files: Arc<Mutex<HashMap<String, Grown>>>,
}

#[derive(Default)]
struct Grown {
    cycle: u32,
    bytes: Vec<u8>,
}

impl Growth {
    pub fn new(spec: RunSpec) -> Self {
        Self { spec, files: Arc::default() }
    }

    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Content after a cycle; cycles come in order.
    pub fn up_to(&self, path: &str, file: &File, cycle: u32) -> Vec<u8> {
        let mut files = self.lock();
        let grown = files.entry(path.to_owned()).or_default();
        while grown.cycle < cycle {
            grown.cycle += 1;
            grown.bytes.extend(synthetic::gain(&self.spec, file, grown.cycle));
        }
        grown.bytes.clone()
    }

    /// All files that have been sent.
    pub fn paths(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Offset of the first byte that the file has never held; `None` if all are its own.
    pub fn first_wrong(&self, path: &str, seen: &[u8]) -> Option<usize> {
        let files = self.lock();
        let known = files.get(path).map_or(&[][..], |grown| &grown.bytes);
        let differs = seen.iter().zip(known).position(|(seen, known)| seen != known);
        differs.or((seen.len() > known.len()).then_some(known.len()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Grown>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
