//! Random bytes from getrandom(2), which reseeds after a virtual machine was cloned.

use crate::{Error, Result};

/// Fills `buf`.
///
/// # Errors
/// [`Error::Random`].
pub fn fill(buf: &mut [u8]) -> Result<()> {
    getrandom::fill(buf).map_err(|_| Error::Random)
}

/// Bytes of a nonce of AES-GCM.
const NONCE: usize = 12;
/// Nonces drawn at a time, at most.
const AHEAD: usize = 256;

/// The 96-bit nonces of one request, drawn together when the first is needed: a system call for each
/// would cost more than the sealing of a small chunk. They must not outlive the request: a machine
/// that is cloned, or set back to a snapshot, would use those that waited a second time.
pub struct Nonces {
    ahead: usize,
    /// Those not used yet.
    drawn: Vec<u8>,
}

impl Nonces {
    /// For a request that needs about `ahead`.
    pub fn new(ahead: usize) -> Self {
        Self { ahead: ahead.clamp(1, AHEAD), drawn: Vec::new() }
    }

    /// The next one; each is handed out once.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub(crate) fn draw(&mut self) -> Result<[u8; NONCE]> {
        if self.drawn.is_empty() {
            self.drawn.resize(self.ahead * NONCE, 0);
            fill(&mut self.drawn).inspect_err(|_| self.drawn.clear())?;
        }
        let nonce = *self.drawn.last_chunk().ok_or(Error::Random)?;
        self.drawn.truncate(self.drawn.len() - NONCE);
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_do_not_repeat() {
        let mut seen = std::collections::HashSet::new();
        for ahead in [0, 1, 7, AHEAD, AHEAD + 1] {
            let mut nonces = Nonces::new(ahead);
            assert!((0..2_000).all(|_| seen.insert(nonces.draw().unwrap())), "{ahead} ahead");
        }
    }
}
