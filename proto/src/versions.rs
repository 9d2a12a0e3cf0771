//! What two sides that were built at different times can speak to each other (decision 0017).
//!
//! Each side states a range; the highest version that is in both is spoken. A side that drops an old
//! version raises the lower end of its range, which is an upgrade note of its own.

use std::fmt;

use crate::v1;

/// Versions that one side speaks or reads, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versions {
    oldest: u32,
    newest: u32,
}

/// A range that holds no version, or version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a range of versions: it must begin at 1 or above and not end before it begins")]
pub struct EmptyRange;

impl Versions {
    /// What a side speaks that says nothing about versions: it was built before there were ranges.
    pub const FIRST: Self = Self::only(1);

    /// One version.
    ///
    /// # Panics
    /// On version 0. It is meant for constants.
    pub const fn only(version: u32) -> Self {
        Self::new(version, version)
    }

    /// From `oldest` to `newest`.
    ///
    /// # Panics
    /// When there is no such version. It is meant for constants; what a peer says is read by `TryFrom`.
    pub const fn new(oldest: u32, newest: u32) -> Self {
        assert!(oldest > 0 && oldest <= newest, "a range of versions");
        Self { oldest, newest }
    }

    /// The first of them.
    pub const fn oldest(self) -> u32 {
        self.oldest
    }

    /// The last of them.
    pub const fn newest(self) -> u32 {
        self.newest
    }

    /// Whether `version` is one of them.
    pub const fn contains(self, version: u32) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The highest version that is in both.
    pub fn highest_common(self, other: Self) -> Option<u32> {
        let highest = self.newest.min(other.newest);
        (self.contains(highest) && other.contains(highest)).then_some(highest)
    }

    /// What a peer or a stored value states; [`Versions::FIRST`] when it states nothing.
    pub fn stated(range: Option<v1::VersionRange>) -> Result<Self, EmptyRange> {
        range.map_or(Ok(Self::FIRST), Self::try_from)
    }
}

impl TryFrom<v1::VersionRange> for Versions {
    type Error = EmptyRange;

    fn try_from(wire: v1::VersionRange) -> Result<Self, EmptyRange> {
        let v1::VersionRange { oldest, newest } = wire;
        if oldest == 0 || oldest > newest {
            return Err(EmptyRange);
        }
        Ok(Self { oldest, newest })
    }
}

impl From<Versions> for v1::VersionRange {
    fn from(versions: Versions) -> Self {
        Self {
            oldest: versions.oldest,
            newest: versions.newest,
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "{}", self.oldest)
        } else {
            write!(f, "{} to {}", self.oldest, self.newest)
        }
    }
}

/// What this process speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaks {
    /// Versions of the stream's contract.
    pub contracts: Versions,
    /// Schemas of the routing configuration.
    pub schemas: Versions,
}

impl Speaks {
    /// All that this code knows.
    const ALL: Self = Self {
        contracts: crate::CONTRACTS,
        schemas: crate::SCHEMAS,
    };

    /// What this process speaks: all that it knows.
    #[cfg(not(feature = "previous-contract"))]
    pub const fn here() -> Self {
        Self::ALL
    }

    /// What this process speaks. Under the feature `previous-contract`, which is for tests alone,
    /// `FERRYPOST_SPEAKS=previous` makes it speak one version less: as a build of the version before does.
    #[cfg(feature = "previous-contract")]
    pub fn here() -> Self {
        static HERE: std::sync::OnceLock<Speaks> = std::sync::OnceLock::new();
        *HERE.get_or_init(|| match std::env::var("FERRYPOST_SPEAKS").as_deref() {
            Err(_) => Self::ALL,
            Ok("previous") => Self {
                contracts: without_newest(Self::ALL.contracts),
                schemas: without_newest(Self::ALL.schemas),
            },
            // A misspelt word would make a test of one version look like one of two.
            Ok(other) => panic!("FERRYPOST_SPEAKS: nothing is called {other:?}"),
        })
    }
}

#[cfg(feature = "previous-contract")]
const fn without_newest(versions: Versions) -> Versions {
    Versions::new(versions.oldest, versions.newest - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_of_both_sides_is_spoken_whichever_is_older() {
        let common = |a: (u32, u32), b: (u32, u32)| {
            let (a, b) = (Versions::new(a.0, a.1), Versions::new(b.0, b.1));
            assert_eq!(a.highest_common(b), b.highest_common(a), "{a} and {b}");
            a.highest_common(b)
        };
        assert_eq!(common((1, 2), (1, 2)), Some(2));
        assert_eq!(common((1, 1), (1, 2)), Some(1));
        assert_eq!(common((1, 3), (3, 9)), Some(3));
        assert_eq!(common((1, 5), (2, 3)), Some(3));
        assert_eq!(common((1, 2), (3, 4)), None);
    }

    #[test]
    fn a_side_that_states_nothing_is_of_the_first_version() {
        assert_eq!(Versions::stated(None), Ok(Versions::only(1)));
        let range = |oldest, newest| Versions::stated(Some(v1::VersionRange { oldest, newest }));
        assert_eq!(range(1, 2), Ok(Versions::new(1, 2)));
        for (oldest, newest) in [(0, 0), (0, 2), (3, 2)] {
            assert_eq!(
                range(oldest, newest),
                Err(EmptyRange),
                "{oldest} to {newest}"
            );
        }
    }

    /// The mixed-version tests speak one version less: there must be one.
    #[test]
    fn the_version_before_is_spoken_too() {
        assert!(crate::CONTRACTS.oldest() < crate::CONTRACTS.newest());
        assert!(crate::SCHEMAS.oldest() < crate::SCHEMAS.newest());
        assert_eq!(Versions::new(1, 2).to_string(), "1 to 2");
        assert_eq!(Versions::only(2).to_string(), "2");
    }
}
