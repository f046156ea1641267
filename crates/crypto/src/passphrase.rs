//! Argon2id (RFC 9106) for passphrases.

use argon2::{Algorithm, Argon2, Block, Params as Argon2Params, Version};
use zeroize::Zeroize;

use crate::secrets::Secret;
use crate::{Error, Result};

/// Cost of one derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Memory in KiB.
    pub m_kib: u32,
    /// Passes.
    pub t: u32,
    /// Lanes.
    pub p: u32,
}

impl Params {
    /// What a new lock takes: 256 MiB, 3 passes, 4 lanes (about 0.9 s).
    pub const DEFAULT: Params = Params { m_kib: 256 << 10, t: 3, p: 4 };
    /// RFC 9106's second recommended option: 64 MiB, 3 passes, 4 lanes. Nothing below is accepted.
    pub const FLOOR: Params = Params { m_kib: 64 << 10, t: 3, p: 4 };
    /// What a store may demand at most: 4 GiB, 16 passes, 16 lanes.
    pub const BOUND: Params = Params { m_kib: 4 << 20, t: 16, p: 16 };

    /// Checks floor and bound, before anything is allocated.
    ///
    /// # Errors
    /// [`Error::PassphraseParameters`].
    pub fn checked(self) -> Result<Self> {
        let within = |value: u32, floor: u32, bound: u32| (floor..=bound).contains(&value);
        let fine = within(self.m_kib, Self::FLOOR.m_kib, Self::BOUND.m_kib)
            && within(self.t, Self::FLOOR.t, Self::BOUND.t)
            && within(self.p, Self::FLOOR.p, Self::BOUND.p);
        if fine { Ok(self) } else { Err(Error::PassphraseParameters) }
    }
}

/// A 32-byte key from a passphrase.
///
/// # Errors
/// [`Error::PassphraseParameters`], [`Error::Memory`].
pub fn derive(params: Params, passphrase: &[u8], salt: &[u8; 16]) -> Result<Secret<32>> {
    let params = params.checked()?;
    let argon = Argon2Params::new(params.m_kib, params.t, params.p, Some(32))
        .map_err(|_| Error::PassphraseParameters)?;
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(argon.block_count()).map_err(|_| Error::Memory)?;
    memory.resize(argon.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, argon);
    let mut result = Ok(());
    let key = Secret::from_fn(|out: &mut [u8; 32]| {
        result = argon
            .hash_password_into_with_memory(passphrase, salt, out, &mut memory)
            .map_err(|_| Error::Library);
    });
    for block in &mut memory {
        block.zeroize();
    }
    result.map(|()| key)
}

#[cfg(test)]
mod tests {
    use argon2::{AssociatedData, ParamsBuilder};

    use super::*;

    /// RFC 9106, 5.3 (its 32 KiB are below our floor, so the library is asked directly).
    #[test]
    fn rfc_9106_argon2id() {
        let params = ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .data(AssociatedData::new(&[4; 12]).unwrap())
            .output_len(32)
            .build()
            .unwrap();
        let argon = Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params).unwrap();
        let mut tag = [0; 32];
        argon.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&tag),
            "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
        );
    }

    #[test]
    fn weak_and_absurd_parameters_are_refused() {
        for params in [
            Params { m_kib: (64 << 10) - 1, ..Params::FLOOR },
            Params { t: 2, ..Params::FLOOR },
            Params { m_kib: u32::MAX, ..Params::FLOOR },
            Params { t: 17, ..Params::FLOOR },
            Params { p: 0, ..Params::FLOOR },
            Params { p: 3, ..Params::FLOOR },
            Params { p: 17, ..Params::FLOOR },
        ] {
            assert_eq!(derive(params, b"x", &[0; 16]).err(), Some(Error::PassphraseParameters));
        }
    }
}
