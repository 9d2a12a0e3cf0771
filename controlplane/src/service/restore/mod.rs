//! After a restore: what the store says beside what the data planes have acknowledged, and the operator's
//! decision between the two (G16).
//!
//! ```text
//!   GetRewound ── every data plane's doubts, put together ──▶ list, digest
//!   ResolveRewound ─▶ hold (every data plane, drained) ─▶ the fleet's word into the records, one by one
//!                       └────────────── the store's word ──────────┴─▶ /meta/rewound goes, `base` rises
//! ```
//!
//! Until the last of these writes nothing has happened that anybody acts on: data planes are told nothing
//! while `/meta/rewound` exists. So whatever dies on the way, the call is repeated.

mod doubts;
mod hold;
mod resolve;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ferrypost_proto::v1;

pub use doubts::{Doubtful, Missing, Picture, PlaneWord};
pub use resolve::{Keep, Resolution, ResolveOrder};

use super::Core;
use crate::{
    domain::state::State,
    fleet::Fleet,
    refusal::{Answer, Reason, Refusal},
};

/// What operators do about a restored store.
#[derive(Debug, Clone)]
pub struct RestoreUseCases {
    core: Arc<Core>,
    fleet: Fleet,
}

impl RestoreUseCases {
    /// A desk over a store and its fleet.
    pub fn new(core: Arc<Core>, fleet: Fleet) -> Self {
        Self { core, fleet }
    }

    /// What every answer says about itself.
    pub fn header(&self, state: &State, unreachable: Vec<String>) -> v1::ResponseHeader {
        self.core.header(state, unreachable)
    }

    /// What the store and the data planes disagree about. Nothing, while the store is not `rewound`.
    ///
    /// # Errors
    /// When the store does not answer, or more is in doubt than a person can decide.
    pub async fn picture(&self) -> Answer<(Arc<State>, Picture)> {
        let state = self.core.caught_up().await?;
        if state.rewound().is_none() {
            return Ok((state, Picture::default()));
        }
        let picture = self.look().await?;
        Ok((state, picture))
    }
}

fn silent(missing: &[Missing]) -> Refusal {
    let names: Vec<_> = missing.iter().map(|it| it.instance.as_str()).collect();
    let silent: Vec<_> = missing.iter().filter(|it| it.why.is_empty()).collect();
    let text = match missing.iter().find(|it| !it.why.is_empty()) {
        Some(said) if silent.is_empty() => format!(
            "{} cannot say yet what it has acknowledged: {}; repeat the call when every data plane in service is \
             connected and of this version",
            said.instance, said.why
        ),
        _ => format!(
            "{}: registered, and does not say what it has acknowledged; it may be serving: start it, or expel what \
             is gone for good",
            names.join(", ")
        ),
    };
    Refusal::new(Reason::DataPlaneSilent, text).with("data_planes", names.join(", "))
}
