//! Keyed hashes: whoever may choose names must not be able to aim them.

use std::hash::BuildHasher;

use ferrypost_proto::Random;
use siphasher::sip::SipHasher13;

/// SipHash-1-3 under a random key.
#[derive(Clone)]
pub struct KeyedState(SipHasher13);

impl KeyedState {
    /// A fresh key.
    pub fn new(random: &Random) -> Self {
        Self(SipHasher13::new_with_key(&random.bytes()))
    }

    /// The hash of some bytes.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.0.hash(bytes)
    }
}

impl BuildHasher for KeyedState {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

impl std::fmt::Debug for KeyedState {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedState")
    }
}
