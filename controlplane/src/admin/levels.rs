//! What is so at the moment of asking: the gauges of `/metrics`.

use std::collections::BTreeMap;

use ferrypost_proto::v1;
use ferrypost_runtime::{
    metrics::{Attribute, Instrument, Kind, Levels, Values},
    telemetry,
};
use strum::{IntoStaticStr, VariantNames};

use super::Facts;
use crate::{domain::state::State, metrics, mirror::Standing, service::stats::DataPlaneStanding};

/// Where a move stands that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
enum MovePhase {
    /// Behind others, or copying: its users are served.
    Copying,
    Fencing,
    Quiesced,
    Delta,
    Verified,
    Flipped,
    Released,
    /// The records have ended; the bookkeeping is to follow.
    Settled,
    Retired,
    /// Written by another version.
    Unknown,
}

impl From<v1::Phase> for MovePhase {
    fn from(phase: v1::Phase) -> Self {
        match phase {
            v1::Phase::Copying => Self::Copying,
            v1::Phase::Fencing => Self::Fencing,
            v1::Phase::Quiesced => Self::Quiesced,
            v1::Phase::Delta => Self::Delta,
            v1::Phase::Verified => Self::Verified,
            v1::Phase::Flipped => Self::Flipped,
            v1::Phase::Released => Self::Released,
            v1::Phase::Settled => Self::Settled,
            v1::Phase::Retired => Self::Retired,
            v1::Phase::Unspecified => Self::Unknown,
        }
    }
}

/// How this replica stands to its store.
#[derive(Debug, Clone, Copy, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
enum StoreState {
    Loading,
    Following,
    Interrupted,
}

impl From<Standing> for StoreState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Loading => Self::Loading,
            Standing::Following => Self::Following,
            Standing::Interrupted => Self::Interrupted,
        }
    }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    attributes: &'static [Attribute],
    description: &'static str,
) -> Instrument {
    Instrument {
        name,
        unit,
        kind: Kind::Gauge,
        description,
        attributes,
    }
}

static LEADER: Instrument = gauge(
    "ferrypost.controlplane.leader",
    "1",
    &[],
    "1 while this replica drives migrations, else 0: over all replicas exactly one has 1.",
);
static STORE_STATE: Instrument = gauge(
    "ferrypost.controlplane.store.state",
    "1",
    &[Attribute {
        name: "state",
        values: Values::Words(StoreState::VARIANTS),
    }],
    "1 for how this replica stands to its store; it answers while it is following.",
);
static REVISION: Instrument = gauge(
    "ferrypost.controlplane.store.revision",
    "{revision}",
    &[],
    "The store revision that this replica has.",
);
static REWOUND: Instrument = gauge(
    "ferrypost.controlplane.rewound",
    "1",
    &[],
    "1 while the store is known to have been restored to an older state and no move goes on.",
);
static ACCOUNTS: Instrument = gauge(
    "ferrypost.controlplane.accounts",
    "{account}",
    &[Attribute {
        name: "destination",
        values: Values::Named("the destinations at which accounts with a record live"),
    }],
    "Accounts with a record, by where they live.",
);
static MOVES: Instrument = gauge(
    "ferrypost.controlplane.migrations.unfinished",
    "{migration}",
    &[Attribute {
        name: "phase",
        values: Values::Words(MovePhase::VARIANTS),
    }],
    "Moves that have not ended, by phase.",
);
static DATA_PLANES: Instrument = gauge(
    "ferrypost.controlplane.data_planes",
    "{data_plane}",
    &[Attribute {
        name: "standing",
        values: Values::Words(DataPlaneStanding::VARIANTS),
    }],
    "Registered data planes by how each stands; while one is not `synced`, moves may wait for it.",
);

static GAUGES: &[&Instrument] = &[
    &LEADER,
    &STORE_STATE,
    &REVISION,
    &REWOUND,
    &ACCOUNTS,
    &MOVES,
    &DATA_PLANES,
];

/// Every instrument of the control plane.
pub(crate) fn instruments() -> Vec<&'static Instrument> {
    [metrics::TABLE, GAUGES, &[&telemetry::DROPPED]].concat()
}

impl Facts {
    /// What the gauges stand at.
    pub(super) fn levels(&self) -> Levels {
        let state = self.mirror.read();
        let mut levels = Levels::default();
        let leads = state
            .leader()
            .is_some_and(|(leader, _)| *leader == self.replica);
        levels.say(&LEADER, &[], leads);
        let standing = StoreState::from(*self.mirror.standing().borrow());
        levels.say(&STORE_STATE, &[standing.into_str()], true);
        levels.say(&REVISION, &[], state.revision());
        levels.say(&REWOUND, &[], state.rewound().is_some());
        for (destination, accounts) in &state.counts().homes {
            levels.say(&ACCOUNTS, &[destination.as_str()], *accounts);
        }
        for (phase, count) in unfinished(&state) {
            levels.say(&MOVES, &[phase.into_str()], count);
        }
        let standings = self.stats.standings(&state);
        for word in DataPlaneStanding::VARIANTS {
            let so = standings
                .iter()
                .filter(|standing| standing.into_str() == *word);
            levels.say(&DATA_PLANES, &[word], so.count());
        }
        levels
    }
}

/// Moves that have not ended, by phase: those whose turn it is one by one, the others are all waiting.
fn unfinished(state: &State) -> BTreeMap<MovePhase, usize> {
    let mut phases = BTreeMap::new();
    let mut seen = 0;
    for id in state.moves().active() {
        if let Some(migration) = state.migration(id) {
            seen += 1;
            *phases.entry(migration.value.phase().into()).or_default() += 1;
        }
    }
    *phases.entry(MovePhase::Copying).or_default() += state.moves().len().saturating_sub(seen);
    phases
}

#[cfg(test)]
mod tests {
    use ferrypost_runtime::metrics::page;

    use super::*;

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_page_about_metrics_says_what_the_control_planes_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let found = std::fs::read_to_string(path).unwrap();
        let written = page(&found, "Control plane", &instruments());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &written).unwrap();
        }
        assert_eq!(found, written);
    }
}
