//! What the data plane counts while it works. What is so at the moment of asking is in
//! [`admin::levels`](crate::admin::levels); `docs/metrics.md` is written from both tables.
//!
//! Every attribute's values are those of an enum ([`words`]); none of them can name an account.

use ferrypost_runtime::metrics::{Attribute, Counter, Instrument, Kind, Metrics, Values};
use ferrypost_wire::ProtocolKind;
use strum::VariantNames as _;

use words::{
    Blame, DeliveryOutcome, EndStage, ExchangeOutcome, LoginOutcome, LookupOutcome, SessionEnd,
    TokenOutcome, TokenWay,
};

pub mod words;

/// What mail systems speak with us.
pub const SMTP: &str = "smtp";

/// What is spoken with web clients.
pub const HTTP: &str = "http";

/// What is spoken on connections: what clients log in by, and how mail arrives.
pub(crate) const PROTOCOL: Attribute = Attribute {
    name: "protocol",
    values: Values::Words(&[
        "imap",
        "pop3",
        "managesieve",
        "submission",
        SMTP,
        "lmtp",
        HTTP,
    ]),
};

/// What clients log in by.
const LOGIN_PROTOCOL: Attribute = Attribute {
    name: "protocol",
    values: Values::Words(ProtocolKind::NAMES),
};

/// What mail systems deliver by.
const DELIVERED_BY: Attribute = Attribute {
    name: "protocol",
    values: Values::Words(&["lmtp"]),
};

const BLAME: Attribute = Attribute {
    name: "blame",
    values: Values::Words(Blame::VARIANTS),
};

/// Octets relayed, counted as they flow.
pub static RELAY_IO: Instrument = Instrument {
    name: "ferrypost.dataplane.relay.io",
    unit: "By",
    kind: Kind::Counter,
    description: "Octets relayed, behind the login where there is one, counted as they flow: up from clients to servers, \
                  down to clients.",
    attributes: &[
        PROTOCOL,
        Attribute {
            name: "direction",
            values: Values::Words(&["up", "down"]),
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
        LOGIN_PROTOCOL,
        Attribute {
            name: "outcome",
            values: Values::Words(LoginOutcome::VARIANTS),
        },
        BLAME,
    ],
};

/// Bearer tokens of which somebody was asked.
pub static TOKENS: Instrument = Instrument {
    name: "ferrypost.dataplane.tokens",
    unit: "{token}",
    kind: Kind::Counter,
    description: "Bearer tokens whose owner was asked for, by who was asked and what came of it.",
    attributes: &[
        Attribute {
            name: "owner",
            values: Values::Words(TokenWay::VARIANTS),
        },
        Attribute {
            name: "outcome",
            values: Values::Words(TokenOutcome::VARIANTS),
        },
    ],
};

/// Look-ups of mail systems.
pub static LOOKUPS: Instrument = Instrument {
    name: "ferrypost.dataplane.lookups",
    unit: "{lookup}",
    kind: Kind::Counter,
    description: "Ways of recipients that mail systems asked for, by what they were told.",
    attributes: &[Attribute {
        name: "outcome",
        values: Values::Words(LookupOutcome::VARIANTS),
    }],
};

/// Deliveries.
pub static DELIVERIES: Instrument = Instrument {
    name: "ferrypost.dataplane.deliveries",
    unit: "{delivery}",
    kind: Kind::Counter,
    description: "Recipients that mail systems named, by what became of the message for each and whose doing that was.",
    attributes: &[
        DELIVERED_BY,
        Attribute {
            name: "outcome",
            values: Values::Words(DeliveryOutcome::VARIANTS),
        },
        BLAME,
    ],
};

/// Requests by HTTP.
pub static EXCHANGES: Instrument = Instrument {
    name: "ferrypost.dataplane.exchange.duration",
    unit: "s",
    // From a request of a web interface to a long poll, and an event stream of a day.
    kind: Kind::Histogram(&[5, 20, 100, 500, 2000, 10_000, 60_000, 1_800_000, 86_400_000]),
    description: "How long requests by HTTP took, from the head of the request to the end of the response, by how each \
                  ended and whose fault it was if it failed.",
    attributes: &[
        Attribute {
            name: "outcome",
            values: Values::Words(ExchangeOutcome::VARIANTS),
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
            values: Values::Words(EndStage::VARIANTS),
        },
        Attribute {
            name: "end",
            values: Values::Words(SessionEnd::VARIANTS),
        },
        BLAME,
    ],
};

/// All of them.
pub const TABLE: &[&Instrument] = &[
    &RELAY_IO,
    &LOGINS,
    &TOKENS,
    &LOOKUPS,
    &DELIVERIES,
    &EXCHANGES,
    &SESSIONS,
];

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
    pub fn of(metrics: &Metrics, protocol: &'static str) -> Self {
        let counter = |direction| metrics.counter(&RELAY_IO, &[protocol, direction]);
        Self {
            up: counter("up"),
            down: counter("down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_logged_in_by_has_its_word_on_connections_too() {
        let Values::Words(words) = PROTOCOL.values else {
            panic!("they are words");
        };
        assert!(words.starts_with(ProtocolKind::NAMES));
    }
}
