//! What is so at the moment of asking: the gauges of `/metrics`, from the same facts as `/stats`.

use std::sync::atomic::Ordering;

use ferrypost_runtime::{
    metrics::{Attribute, Instrument, Kind, Levels, Values},
    telemetry,
};
use strum::VariantNames as _;
use tokio::time::Instant;

use super::stats::{ControlState, Stats};
use crate::{
    metrics::{self, PROTOCOL},
    registry::{SessionKind, Stage},
};

const DESTINATION: Attribute = Attribute {
    name: "destination",
    values: Values::Named("the destinations of the routing configuration"),
};

const LISTENER: Attribute = Attribute {
    name: "listener",
    values: Values::Named("the listeners of the data plane's configuration"),
};

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

static READY: Instrument = gauge(
    "ferrypost.dataplane.ready",
    "1",
    &[],
    "1 while clients are accepted, else 0.",
);
static CONTROL_CONNECTION: Instrument = gauge(
    "ferrypost.dataplane.control.connection",
    "1",
    &[Attribute {
        name: "state",
        values: Values::Words(ControlState::VARIANTS),
    }],
    "1 for the state in which the connection to the control plane is.",
);
static REWOUND: Instrument = gauge(
    "ferrypost.dataplane.rewound",
    "1",
    &[],
    "1 while the store is known to have been restored to an older state and nothing new is taken over.",
);
static TABLE_REVISION: Instrument = gauge(
    "ferrypost.dataplane.table.revision",
    "{revision}",
    &[Attribute {
        name: "part",
        values: Values::Words(&["base", "store"]),
    }],
    "The revision of the table in force: the store's, and the base that rises when a store is restored.",
);
static TABLE_AGE: Instrument = gauge(
    "ferrypost.dataplane.table.age",
    "s",
    &[],
    "How long ago the table in force was last known to be the truth.",
);
static TABLE_REJECTED: Instrument = gauge(
    "ferrypost.dataplane.table.rejected",
    "{entry}",
    &[],
    "Entries of the table that could not be taken over; their accounts are fenced here.",
);
static FENCED: Instrument = gauge(
    "ferrypost.dataplane.accounts.fenced",
    "{account}",
    &[],
    "Accounts whose logins are held here, by the table in force.",
);
static HELD: Instrument = gauge(
    "ferrypost.dataplane.logins.held",
    "{login}",
    &[],
    "Logins that wait because their account is fenced.",
);
static SESSIONS_OPEN: Instrument = gauge(
    "ferrypost.dataplane.sessions.open",
    "{session}",
    &[
        DESTINATION,
        PROTOCOL,
        Attribute {
            name: "kind",
            values: Values::Words(SessionKind::VARIANTS),
        },
        Attribute {
            name: "stage",
            values: Values::Words(Stage::VARIANTS),
        },
    ],
    "Sessions that have a route, by where they go and how far they have come.",
);
static UNCONFIRMED: Instrument = gauge(
    "ferrypost.dataplane.closes.unconfirmed",
    "{session}",
    &[],
    "Sessions since the start that ended without their server's own close being seen.",
);
static CONNECTIONS: Instrument = gauge(
    "ferrypost.dataplane.listener.connections",
    "{connection}",
    &[
        LISTENER,
        Attribute {
            name: "login",
            values: Values::Words(&["before", "after"]),
        },
    ],
    "Connections of clients that are open, before their login and after it.",
);
static KEPT: Instrument = gauge(
    "ferrypost.dataplane.relay.kept",
    "By",
    &[],
    "Octets that are kept for clients and servers that do not take them (`limits.connections.kept`).",
);
static REACHABLE: Instrument = gauge(
    "ferrypost.dataplane.backend.reachable",
    "1",
    &[DESTINATION, PROTOCOL],
    "1 where the last probe of a server found what sessions need, else 0; `/stats` says what is wrong.",
);

static BREAKER: Instrument = gauge(
    "ferrypost.dataplane.backend.breaker",
    "1",
    &[DESTINATION, PROTOCOL],
    "1 while a server fails one client after the other and logins are not tried but for one now and then, else 0.",
);

static GAUGES: &[&Instrument] = &[
    &READY,
    &CONTROL_CONNECTION,
    &REWOUND,
    &TABLE_REVISION,
    &TABLE_AGE,
    &TABLE_REJECTED,
    &FENCED,
    &HELD,
    &SESSIONS_OPEN,
    &UNCONFIRMED,
    &CONNECTIONS,
    &KEPT,
    &REACHABLE,
    &BREAKER,
];

/// Every instrument of the data plane.
pub fn instruments() -> Vec<&'static Instrument> {
    [metrics::TABLE, GAUGES, &[&telemetry::DROPPED]].concat()
}

impl Stats {
    /// What the gauges stand at.
    pub(super) fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        levels.say(&READY, &[], self.readiness.is_ready());
        self.say_control(&mut levels);
        self.say_sessions(&mut levels);
        for (target, health) in self.backends.all() {
            let values = [target.destination.as_str(), target.protocol.word()];
            let reachable = health.is_some_and(|health| health.reachable());
            levels.say(&REACHABLE, &values, reachable);
            let is_open = self.breakers.open_since(&target).is_some();
            levels.say(&BREAKER, &values, is_open);
        }
        levels
    }

    fn say_control(&self, levels: &mut Levels) {
        let feed = self.feed.borrow().clone();
        let state = ControlState::from(&feed.connection);
        levels.say(&CONTROL_CONNECTION, &[state.into_str()], true);
        levels.say(&REWOUND, &[], feed.rewound);
        levels.say(&TABLE_REJECTED, &[], feed.rejected);
        if let Some((position, confirmed)) = &feed.table {
            levels.say(&TABLE_REVISION, &["base"], position.revision.base());
            levels.say(&TABLE_REVISION, &["store"], position.revision.store());
            let age = Instant::now().saturating_duration_since(*confirmed);
            levels.say(&TABLE_AGE, &[], age);
        }
    }

    fn say_sessions(&self, levels: &mut Levels) {
        let fenced = self.tables.current().map(|table| table.fenced().count());
        levels.say(&FENCED, &[], fenced.unwrap_or_default());
        levels.say(&HELD, &[], self.registry.counts().held);
        levels.say(&UNCONFIRMED, &[], self.registry.unconfirmed());
        levels.say(&KEPT, &[], self.budget.kept());
        for (group, count) in self.registry.tally() {
            let values = [
                group.destination.as_str(),
                group.protocol.word(),
                group.kind.into_str(),
                group.stage.into_str(),
            ];
            levels.say(&SESSIONS_OPEN, &values, count);
        }
        for listener in &self.listeners {
            let (open, before) = (listener.counts.open(), listener.counts.not_logged_in());
            levels.say(&CONNECTIONS, &[&listener.name, "before"], before);
            let after = open.saturating_sub(before);
            levels.say(&CONNECTIONS, &[&listener.name, "after"], after);
        }
        // Who delivers has no login.
        for dock in &self.docks {
            let open = dock.open.load(Ordering::Relaxed);
            levels.say(&CONNECTIONS, &[&dock.name, "after"], open);
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_runtime::metrics::page;

    use super::*;

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_page_about_metrics_says_what_the_data_planes_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let found = std::fs::read_to_string(path).unwrap();
        let written = page(&found, "Data plane", &instruments());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &written).unwrap();
        }
        assert_eq!(found, written);
    }
}
