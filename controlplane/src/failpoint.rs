//! Named places at which a test can kill, stop, fail or slow the program: before and after every
//! transition of a move, around the hook and around what data planes have written for them.
//!
//! Without the feature `failpoints` all of it compiles to nothing. With it, a process reads
//! `FERRYPOST_FAILPOINTS`, a list of `<name>=<action>` with `;` between:
//!
//! | action | what happens there |
//! |---|---|
//! | `kill` | the process is killed with SIGKILL |
//! | `error` | the step fails |
//! | `sleep(<ms>)` | the step is late |
//! | `pause(<file>)` | the step waits until the file exists |

#[cfg(any(test, feature = "failpoints"))]
mod armed;

#[cfg(any(test, feature = "failpoints"))]
pub use armed::{Action, Failpoints};

/// Every name, in the order in which a move with a hook passes them; a move that is not aborted and has one
/// leader passes all but those of `withdrawn` and `aborted`.
pub const ALL: &[&str] = &[
    "registration.before",
    "registration.after",
    "copying.before",
    "copying.after",
    "fencing.before",
    "fencing.after",
    "drained.before",
    "drained.after",
    "quiesced.before",
    "quiesced.after",
    "delta.before",
    "delta.after",
    "hook.before",
    "hook.after",
    "flipped.before",
    "flipped.after",
    "released.before",
    "released.after",
    "settled.before",
    "settled.after",
    "withdrawn.before",
    "withdrawn.after",
    "aborted.before",
    "aborted.after",
];

/// Those that finding a restore out and resolving it passes, in order; `chosen` and `resolving` only where the
/// fleet's word is kept.
pub const OF_A_RESTORE: &[&str] = &[
    "rewound.before",
    "rewound.after",
    "chosen.before",
    "chosen.after",
    "resolving.before",
    "resolving.after",
    "resolved.before",
    "resolved.after",
];

/// A failpoint said `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failed on purpose at {0}")]
pub struct Injected(pub &'static str);

/// What is armed: nothing, without the feature.
#[cfg(not(any(test, feature = "failpoints")))]
#[derive(Debug, Clone, Copy, Default)]
pub struct Failpoints;

#[cfg(not(any(test, feature = "failpoints")))]
impl Failpoints {
    /// Nothing is armed.
    pub fn from_environment() -> Self {
        Self
    }

    /// Does nothing.
    #[expect(clippy::unused_async, reason = "the armed one waits")]
    pub async fn reach(&self, _name: &'static str) -> Result<(), Injected> {
        Ok(())
    }
}

/// True in a build that was broken on purpose to flip before data planes are drained; the torture run must
/// notice. Chosen by `FERRYPOST_SABOTAGE=release-early` under the feature `sabotage`.
pub fn releases_early() -> bool {
    #[cfg(feature = "sabotage")]
    return std::env::var("FERRYPOST_SABOTAGE").is_ok_and(|what| what == "release-early");
    #[cfg(not(feature = "sabotage"))]
    false
}
