//! Keyed hashes: whoever may choose names must not be able to aim them.

use std::hash::{BuildHasher, Hasher as _};

use ferrypost_proto::Name;
use ferrypost_runtime::Random;
use siphasher::{sip::SipHasher13, sip128};

/// A random key for hash maps (SipHash-1-3).
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

/// A random key for names whose hash stands for their text.
#[derive(Clone)]
pub(super) struct NameKey {
    hasher: sip128::SipHasher13,
    /// What is left of a hash, so that tests can have collisions.
    #[cfg(test)]
    mask: u64,
}

/// What stands for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameHash {
    /// What a table keeps.
    pub(super) hash: u64,
    /// More of the same, kept only while a table is built: tells two names with one hash from one name
    /// that is there twice.
    pub(super) check: u32,
}

impl NameKey {
    pub(super) fn new(random: &Random) -> Self {
        Self {
            hasher: sip128::SipHasher13::new_with_key(&random.bytes()),
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    /// A key under which many names have the same hash.
    #[cfg(test)]
    pub(super) fn weak(random: &Random) -> Self {
        Self {
            mask: 0xff << 56,
            ..Self::new(random)
        }
    }

    pub(super) fn hash(&self, name: &Name) -> NameHash {
        self.hash_bytes(name.as_str().as_bytes())
    }

    /// The same for what is no name.
    pub(super) fn hash_bytes(&self, bytes: &[u8]) -> NameHash {
        use sip128::Hasher128 as _;
        let mut hasher = self.hasher;
        hasher.write(bytes);
        let sum = hasher.finish128();
        let hash = NameHash {
            hash: sum.h1,
            check: u32::try_from(sum.h2 >> 32).expect("32 bits"),
        };
        #[cfg(test)]
        let hash = NameHash {
            hash: hash.hash & self.mask,
            ..hash
        };
        hash
    }
}

impl std::fmt::Debug for NameKey {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey")
    }
}
