//! Deliberate defects, for the torture run alone: a checker that has never failed proves nothing.
//!
//! Without the cargo feature `sabotage` nothing here can be switched on and every call is the constant
//! `false`. With it the environment variable `FERRYPOST_SABOTAGE` names the defects, separated by commas.

/// A defect that the torture run's checker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// `fence-off`: every fence is reported as drained at once and its accounts go on being routed to
    /// their home.
    FenceOff,
    /// `register-after-dial`: a session enters the registry after its backend was dialled, so that a
    /// close in between misses it.
    RegisterAfterDial,
}

#[cfg(feature = "sabotage")]
impl Sabotage {
    const ALL: [Self; 2] = [Self::FenceOff, Self::RegisterAfterDial];

    /// As the environment variable spells it.
    const fn word(self) -> &'static str {
        match self {
            Self::FenceOff => "fence-off",
            Self::RegisterAfterDial => "register-after-dial",
        }
    }
}

/// True if this process was started with the defect.
#[cfg(feature = "sabotage")]
pub fn is(defect: Sabotage) -> bool {
    static ACTIVE: std::sync::OnceLock<Vec<Sabotage>> = std::sync::OnceLock::new();
    ACTIVE
        .get_or_init(|| {
            let words = std::env::var("FERRYPOST_SABOTAGE").unwrap_or_default();
            let active = words
                .split(',')
                .filter(|word| !word.is_empty())
                .map(|word| {
                    Sabotage::ALL
                        .into_iter()
                        .find(|defect| defect.word() == word)
                        // A misspelt defect would make a sound build look like a broken one that passed.
                        .unwrap_or_else(|| {
                            panic!("FERRYPOST_SABOTAGE: no defect is called {word:?}")
                        })
                });
            active.collect()
        })
        .contains(&defect)
}

/// True if this process was started with the defect: never, in a build without the feature.
#[cfg(not(feature = "sabotage"))]
pub const fn is(_: Sabotage) -> bool {
    false
}
