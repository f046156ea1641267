//! Shamir's secret sharing (Shamir, "How to share a secret", 1979) over GF(2^8), each byte for itself.
//!
//! The field is that of the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d); share x is the polynomial at x, the secret
//! its value at 0. Nothing in a share says whether it is the right one: callers keep a hash of each.

use std::convert::Infallible;

use blahaj::Sharks;
use hpke::rand_core::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

use crate::secrets::Secret;
use crate::{Error, Result, random};

/// A point of the polynomials.
#[derive(Clone, Debug)]
pub struct Share {
    /// Where they are taken, 1 to 255.
    pub x: u8,
    /// Their values there.
    pub y: Secret<32>,
}

/// Shares at x = 1, 2, ... of which any `threshold` give the secret, and fewer nothing.
///
/// # Errors
/// [`Error::Random`]; [`Error::Threshold`] for one of 0, or above the number of shares.
pub fn split(secret: &Secret<32>, threshold: u8, shares: u8) -> Result<Vec<Share>> {
    if threshold == 0 || threshold > shares {
        return Err(Error::Threshold);
    }
    let mut system = System { failed: false };
    let points: Vec<_> =
        Sharks(threshold).dealer_rng(secret.expose(), &mut system).take(usize::from(shares)).collect();
    if system.failed {
        return Err(Error::Random);
    }
    points.iter().map(|point| of_bytes(&Zeroizing::new(Vec::from(point)))).collect()
}

/// The secret of which these are `threshold` shares or more. Shares of another secret give another one.
///
/// # Errors
/// [`Error::Threshold`] for too few, for two at one x, and for one at 0.
pub fn combine(threshold: u8, shares: &[Share]) -> Result<Secret<32>> {
    let twice = |i: usize, share: &Share| shares.iter().take(i).any(|other| other.x == share.x);
    let odd = shares.iter().enumerate().any(|(i, share)| share.x == 0 || twice(i, share));
    if threshold == 0 || odd || shares.len() < usize::from(threshold) {
        return Err(Error::Threshold);
    }
    let points = shares.iter().map(to_point).collect::<Result<Vec<_>>>()?;
    let secret = Zeroizing::new(Sharks(threshold).recover(&points).map_err(|_| Error::Threshold)?);
    secret.as_slice().try_into().map(Secret::copy_from).map_err(|_| Error::Length)
}

/// x, then y.
fn of_bytes(bytes: &[u8]) -> Result<Share> {
    let (x, y) = bytes.split_first().ok_or(Error::Length)?;
    Ok(Share { x: *x, y: Secret::copy_from(y.try_into().map_err(|_| Error::Length)?) })
}

fn to_point(share: &Share) -> Result<blahaj::Share> {
    let mut bytes = Zeroizing::new([share.x; 33]);
    bytes.iter_mut().skip(1).zip(share.y.expose()).for_each(|(to, from)| *to = *from);
    blahaj::Share::try_from(&bytes[..]).map_err(|_| Error::Length)
}

/// getrandom(2) for a library that cannot be told of an error: whoever asked looks at `failed`.
struct System {
    failed: bool,
}

impl TryRng for System {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word).map(|()| u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word).map(|()| u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.failed |= random::fill(out).is_err();
        Ok(())
    }
}

impl TryCryptoRng for System {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(byte: u8) -> Secret<32> {
        Secret::from_fn(|bytes| bytes.iter_mut().enumerate().for_each(|(i, b)| *b = byte ^ i as u8))
    }

    #[test]
    fn a_threshold_of_one_gives_the_secret_itself() {
        for share in split(&secret(7), 1, 3).unwrap() {
            assert_eq!(share.y.expose(), secret(7).expose());
        }
    }

    #[test]
    fn the_field_is_that_of_0x11d() {
        // 2 * 0x80 = 0x100 = 0x1d in this field (0x1b in that of AES).
        let share = |x, y: u8| Share { x, y: Secret::copy_from(&[y; 32]) };
        let secret = combine(2, &[share(1, 0x80), share(2, 0x1d)]).unwrap();
        assert_eq!(secret.expose(), &[0; 32], "f(x) = 0x80 x");
    }

    #[test]
    fn what_is_no_set_of_shares_is_refused() {
        let shares = split(&secret(1), 2, 3).unwrap();
        assert_eq!(split(&secret(1), 0, 3).unwrap_err(), Error::Threshold);
        assert_eq!(split(&secret(1), 4, 3).unwrap_err(), Error::Threshold);
        assert_eq!(combine(2, &shares[..1]).unwrap_err(), Error::Threshold);
        assert_eq!(combine(2, &[shares[0].clone(), shares[0].clone()]).unwrap_err(), Error::Threshold);
        assert_eq!(combine(0, &shares).unwrap_err(), Error::Threshold);
        let zero = Share { x: 0, y: secret(1) };
        assert_eq!(combine(2, &[zero, shares[0].clone()]).unwrap_err(), Error::Threshold);
    }

    /// A biased coefficient would show in the shares of a secret of zeros: RUSTSEC-2024-0398 was such a one.
    #[test]
    fn every_byte_is_as_likely_as_another_in_a_share() {
        let zeros = Secret::from_fn(|bytes| bytes.fill(0));
        let mut seen = [0u32; 256];
        for _ in 0..800 {
            for share in split(&zeros, 2, 2).unwrap() {
                share.y.expose().iter().for_each(|byte| seen[usize::from(*byte)] += 1);
            }
        }
        // 51,200 bytes, 200 of each: seven standard deviations either way.
        assert!(seen.iter().all(|n| (100..300).contains(n)), "{seen:?}");
    }

    proptest! {
        #[test]
        fn any_of_them_give_the_secret_and_fewer_another(
            byte in any::<u8>(),
            (threshold, shares) in (2u8..=5).prop_flat_map(|t| (Just(t), t..=9)),
            turn in any::<usize>(),
        ) {
            let known = secret(byte);
            let mut all = split(&known, threshold, shares).unwrap();
            prop_assert_eq!(all.iter().map(|share| share.x).collect::<Vec<_>>(), (1..=shares).collect::<Vec<_>>());
            let turn = turn % all.len();
            all.rotate_left(turn);
            let some = &all[..usize::from(threshold)];
            let found = combine(threshold, some).unwrap();
            prop_assert_eq!(found.expose(), known.expose());
            let more = combine(threshold, &all).unwrap();
            prop_assert_eq!(more.expose(), known.expose());
            let fewer = combine(threshold - 1, &some[1..]).unwrap();
            prop_assert_ne!(fewer.expose(), known.expose());
        }
    }
}
