//! The one source of random numbers: injected, so that a whole system can run from one seed.

use std::sync::{Arc, Mutex, PoisonError};

use rand::{Rng as _, SeedableRng as _, rngs::ChaCha20Rng};

/// A shared source of random bytes. Both planes take one at start and draw every identifier, nonce,
/// key and jitter from it.
#[derive(Clone)]
pub struct Random(Arc<Mutex<ChaCha20Rng>>);

impl Random {
    /// Seeds from the operating system: what the programs use.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where entropy enters"
    )]
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// A reproducible source for tests and simulation. Never for anything that must be unguessable.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(ChaCha20Rng::seed_from_u64(seed))))
    }

    /// Fresh random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(&mut bytes);
        bytes
    }

    /// A fresh 64-bit number.
    pub fn number(&self) -> u64 {
        u64::from_ne_bytes(self.bytes())
    }

    /// A number in `[0, 1)`, for jitter.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit an f64 exactly")]
    pub fn fraction(&self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_two_seeds_differ() {
        assert_eq!(Random::seeded(7).number(), Random::seeded(7).number());
        assert_ne!(Random::seeded(7).number(), Random::seeded(8).number());
        assert_ne!(Random::from_os().number(), Random::from_os().number());
    }

    #[test]
    fn fractions_stay_below_one() {
        let random = Random::seeded(1);
        assert!(
            (0..1000)
                .map(|_| random.fraction())
                .all(|f| (0.0..1.0).contains(&f))
        );
    }
}
