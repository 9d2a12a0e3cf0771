//! Deliberate defects, for the tests alone: a checker that has never failed proves nothing.
//!
//! Compiled only with the cargo feature `sabotage`, in which these functions stand in for sound ones. The
//! environment variable `FERRYPOST_SABOTAGE` names the defects, separated by commas; without it the sound
//! functions are called.

use std::{collections::BTreeSet, sync::OnceLock};

use ferrypost_proto::Name;

use crate::registry::Registry;

static ACTIVE: OnceLock<Vec<Sabotage>> = OnceLock::new();

/// A defect that a test must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    /// `fence-off`: every fence is reported as drained at once and its accounts go on being routed to
    /// their home.
    FenceOff,
    /// `register-after-dial`: a session enters the registry after its backend was dialled, so that a
    /// close in between misses it.
    RegisterAfterDial,
    /// `announcement-off`: servers are told of no client, as if each login were a probe of our own.
    AnnouncementOff,
}

impl Sabotage {
    const ALL: [Self; 3] = [
        Self::FenceOff,
        Self::RegisterAfterDial,
        Self::AnnouncementOff,
    ];

    /// As the environment variable spells it.
    const fn word(self) -> &'static str {
        match self {
            Self::FenceOff => "fence-off",
            Self::RegisterAfterDial => "register-after-dial",
            Self::AnnouncementOff => "announcement-off",
        }
    }

    fn parse(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|defect| defect.word() == word);
        // A misspelt defect would make a sound build look like a broken one that passed.
        known.unwrap_or_else(|| panic!("FERRYPOST_SABOTAGE: no defect is called {word:?}"))
    }

    fn is_active(self) -> bool {
        ACTIVE.get().is_some_and(|active| active.contains(&self))
    }
}

/// Takes the defects from the environment. To be called at the start of the process.
///
/// # Panics
/// If one is not known.
pub fn begin() {
    let words = std::env::var("FERRYPOST_SABOTAGE").unwrap_or_default();
    let words = words.split(',').filter(|word| !word.is_empty());
    let active = ACTIVE.get_or_init(|| words.map(Sabotage::parse).collect());
    if active.contains(&Sabotage::FenceOff) {
        ferrypost_routing::sabotage::ignore_fences();
    }
}

/// Stands in for the count that a fence waits for.
pub(crate) fn sessions_left(registry: &Registry, names: &BTreeSet<Name>) -> usize {
    if Sabotage::FenceOff.is_active() {
        return 0;
    }
    registry.routed_under(names)
}

/// Whether a session registers after its backend was dialled.
pub(crate) fn registers_after_dial() -> bool {
    Sabotage::RegisterAfterDial.is_active()
}

/// Whether servers are told of no client.
pub(crate) fn announces_nobody() -> bool {
    Sabotage::AnnouncementOff.is_active()
}
