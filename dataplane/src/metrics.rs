//! The data plane's instruments. `docs/metrics.md` is written from this table.
//!
//! Every attribute's values are listed here or come from a list beside the type that has the words; none of
//! them can name an account.

use ferrypost_runtime::metrics::{Attribute, Counter, Instrument, Kind, Metrics};
use ferrypost_wire::ProtocolKind;

pub mod words;

const PROTOCOL: Attribute = Attribute {
    name: "protocol",
    values: &[&["imap"]],
};

const BLAME: Attribute = Attribute {
    name: "blame",
    values: &[words::BLAMES],
};

/// Octets relayed, counted as they flow.
pub static RELAY_IO: Instrument = Instrument {
    name: "ferrypost.dataplane.relay.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Octets relayed after the login, counted as they flow: up from clients to servers, down to clients.",
    attributes: &[
        PROTOCOL,
        Attribute {
            name: "direction",
            values: &[&["up", "down"]],
        },
    ],
};

/// Logins.
pub static LOGINS: Instrument = Instrument {
    name: "ferrypost.dataplane.logins",
    unit: "{login}",
    kind: Kind::Counter,
    description: "Logins that clients tried, by how each ended and whose fault it was if it failed.",
    attributes: &[
        PROTOCOL,
        Attribute {
            name: "outcome",
            values: &[words::LOGIN_OUTCOMES, words::TOLD],
        },
        BLAME,
    ],
};

/// Sessions that are over.
pub static SESSIONS: Instrument = Instrument {
    name: "ferrypost.dataplane.session.duration",
    unit: "s",
    // From a scanner's to an IDLE of a day.
    kind: Kind::Histogram(&[
        100, 1000, 10_000, 60_000, 600_000, 3_600_000, 14_400_000, 86_400_000,
    ]),
    description: "How long sessions lasted from the connection on, by the stage in which they ended, by what ended \
                  them and whose fault that was.",
    attributes: &[
        PROTOCOL,
        Attribute {
            name: "stage",
            values: &[&["tls", "preauth", "relay"]],
        },
        Attribute {
            name: "end",
            values: &[words::SESSION_ENDS, words::RELAY_ENDS, words::TOLD],
        },
        BLAME,
    ],
};

/// All of them.
pub const TABLE: &[&Instrument] = &[&RELAY_IO, &LOGINS, &SESSIONS];

/// The two counters of a relay, fetched once.
#[derive(Debug, Clone)]
pub struct RelayIo {
    /// From the client to the server.
    pub up: Counter,
    /// From the server to the client.
    pub down: Counter,
}

impl RelayIo {
    /// Those of a protocol.
    pub fn of(metrics: &Metrics, protocol: ProtocolKind) -> Self {
        let counter = |direction| metrics.counter(&RELAY_IO, &[protocol.as_str(), direction]);
        Self {
            up: counter("up"),
            down: counter("down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1 cargo test -p ferrypost-dataplane --lib metrics` writes it.
    #[test]
    fn the_page_about_metrics_says_what_the_table_says() {
        const HEAD: &str = "# Metrics\n\n\
            Written from the tables in the code (`dataplane/src/metrics.rs`); a test holds it current. `/metrics` on the\n\
            admin endpoint shows them in Prometheus' text format, to callers with the token. Every attribute has the\n\
            values that are listed, and no other; none can name an account.\n\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = ferrypost_runtime::metrics::page("Data plane", TABLE);
        let page = format!("{HEAD}{page}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page);
    }
}
