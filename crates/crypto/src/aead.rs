//! AES-256-GCM (NIST SP 800-38D) with fresh random 96-bit nonces, in two engines of equal bytes.
//!
//! A key seals and *returns* the nonce it drew, so that a validated module may draw its own.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::engines::{fast, portable};
use crate::secrets::Secret;
use crate::{Result, random::Nonces};

/// 96 bits, drawn at random for every message.
pub type Nonce = [u8; 12];
/// 128 bits.
pub type Tag = [u8; 16];

/// Which implementation seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// RustCrypto's `aes-gcm`: pure Rust, always there.
    Portable,
    /// AWS-LC by `aws-lc-rs`: assembly.
    Fast,
}

impl Engine {
    /// Every engine of this build.
    pub const ALL: [Engine; 2] = [Engine::Portable, Engine::Fast];

    /// The library's name, as `status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Portable => "aes-gcm",
            Engine::Fast => "aws-lc-rs",
        }
    }

    /// The faster one on this machine, by a self-timing of a few milliseconds at first use.
    pub fn fastest() -> Engine {
        static FASTEST: OnceLock<Engine> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let of = |engine: Engine| engine.measure(Duration::from_millis(3));
            if of(Engine::Fast) >= of(Engine::Portable) { Engine::Fast } else { Engine::Portable }
        })
    }

    /// Bytes a second that one core seals in messages of 8 KiB: the best of many short timings, since
    /// whatever else the machine does meanwhile says nothing of the engine.
    pub fn measure(self, time: Duration) -> f64 {
        const TOGETHER: usize = 8;
        const TIMINGS: usize = 32;
        let key = self.key(&Secret::from_fn(|bytes| bytes.fill(7)));
        let plain = [0u8; 8192];
        let mut out = [0u8; 8192];
        let (start, mut best, mut timings) = (Instant::now(), Duration::MAX, 0);
        // A busy machine may give this thread no more than a moment of that time.
        while timings < TIMINGS || start.elapsed() < time {
            timings += 1;
            let mut nonces = Nonces::new(TOGETHER);
            let begin = Instant::now();
            for _ in 0..TOGETHER {
                if key.seal_drawing(&mut nonces, &[0; 9], &plain, &mut out).is_err() {
                    return 0.0;
                }
            }
            best = best.min(begin.elapsed());
        }
        (TOGETHER * plain.len()) as f64 / best.as_secs_f64()
    }

    /// Expands a key for this engine.
    pub fn key(self, key: &Secret<32>) -> AeadKey {
        match self {
            Engine::Portable => AeadKey::Portable(Box::new(portable::Key::new(key))),
            Engine::Fast => fast::Key::new(key)
                .map_or_else(|| AeadKey::Portable(Box::new(portable::Key::new(key))), AeadKey::Fast),
        }
    }
}

/// An expanded AES-256-GCM key.
pub enum AeadKey {
    /// See [`Engine::Portable`].
    Portable(Box<portable::Key>),
    /// See [`Engine::Fast`].
    Fast(fast::Key),
}

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

impl AeadKey {
    /// Seals `plain` into `out` (the same length) and returns the nonce it drew and the tag.
    ///
    /// # Errors
    /// [`crate::Error::Random`], [`crate::Error::Length`].
    pub fn seal(&self, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<(Nonce, Tag)> {
        self.seal_drawing(&mut Nonces::new(1), aad, plain, out)
    }

    /// [`AeadKey::seal`] for one of several that a request seals.
    ///
    /// # Errors
    /// As of [`AeadKey::seal`].
    pub fn seal_drawing(
        &self,
        nonces: &mut Nonces,
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<(Nonce, Tag)> {
        let nonce = nonces.draw()?;
        let tag = self.seal_with_nonce(&nonce, aad, plain, out)?;
        Ok((nonce, tag))
    }

    /// Opens `sealed` into `out` (the same length); on failure `out` holds no plaintext.
    ///
    /// # Errors
    /// [`crate::Error::NotAuthentic`], [`crate::Error::Length`].
    pub fn open(&self, nonce: &Nonce, aad: &[u8], sealed: &[u8], tag: &Tag, out: &mut [u8]) -> Result<()> {
        if sealed.len() != out.len() {
            return Err(crate::Error::Length);
        }
        let opened = match self {
            AeadKey::Portable(key) => key.open(nonce, aad, sealed, tag, out),
            AeadKey::Fast(key) => key.open(nonce, aad, sealed, tag, out),
        };
        if opened.is_err() {
            out.fill(0);
        }
        opened
    }

    fn seal_with_nonce(&self, nonce: &Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<Tag> {
        if plain.len() != out.len() {
            return Err(crate::Error::Length);
        }
        match self {
            AeadKey::Portable(key) => key.seal(nonce, aad, plain, out),
            AeadKey::Fast(key) => key.seal(nonce, aad, plain, out),
        }
    }
}

/// For vectors and worked examples only: a nonce that repeats under a key gives the key away.
#[cfg(any(test, feature = "hazmat"))]
pub mod hazmat {
    use super::{AeadKey, Nonce, Tag};
    use crate::Result;

    /// [`AeadKey::seal`] with a nonce of the caller's.
    ///
    /// # Errors
    /// [`crate::Error::Length`].
    pub fn seal(key: &AeadKey, nonce: &Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<Tag> {
        key.seal_with_nonce(nonce, aad, plain, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    /// Sizes where blocks, SIMD widths, chunks and requests begin and end.
    const EDGES: [usize; 19] =
        [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 8191, 8192, 8193, 65535, 65537];

    #[test]
    fn engines_give_the_same_bytes() {
        for len in EDGES {
            // Prime period: blocks that swap places cannot cancel.
            let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let secret = Secret::<32>::from_fn(|k| k.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8));
            let sealed: Vec<_> = Engine::ALL
                .iter()
                .map(|engine| {
                    let mut out = vec![0; len];
                    let tag = hazmat::seal(&engine.key(&secret), &[9; 12], b"aad", &plain, &mut out).unwrap();
                    (out, tag)
                })
                .collect();
            assert_eq!(sealed[0], sealed[1], "{len} bytes");
            for engine in Engine::ALL {
                let mut back = vec![1; len];
                let key = engine.key(&secret);
                key.open(&[9; 12], b"aad", &sealed[0].0, &sealed[0].1, &mut back).unwrap();
                assert_eq!(back, plain);
                let mut wrong = sealed[0].1;
                wrong[3] ^= 1;
                let refused = key.open(&[9; 12], b"aad", &sealed[0].0, &wrong, &mut back);
                assert_eq!(refused, Err(Error::NotAuthentic));
                assert!(back.iter().all(|b| *b == 0), "no plaintext after a refusal");
            }
        }
    }
}
