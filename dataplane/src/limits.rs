//! Every limit in one place: what a stranger, a server or a move may cost.
//!
//! Each field says its unit, its default, why it is that, and what the peer sees when it is hit. A
//! stage is given its own small group by copy.
//!
//! All protocols have these, and each may have others of its own: `[limits.<protocol>.preauth]` and
//! `[limits.<protocol>.relay]` ([`OwnLimits`]), which inherit from here what they do not say. `docs/limits.md` has
//! the table.

use std::time::Duration;

use ferrypost_proto::v1::DataPlaneLimits;
use ferrypost_wire::{BackLimits, FrontLimits, ProtocolKind, lmtp::LmtpLimits};

use crate::network::Network;

/// All limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// `[limits.connections]`
    pub connections: ConnectionLimits,
    /// `[limits.preauth]`
    pub preauth: PreauthLimits,
    /// `[limits.backend]`
    pub backend: BackendLimits,
    /// `[limits.breaker]`
    pub breaker: BreakerLimits,
    /// `[limits.relay]`
    pub relay: RelayLimits,
    /// `[limits.pass_through]`
    pub pass_through: PassThroughLimits,
    /// `[limits.hold]`
    pub hold: HoldLimits,
    /// `[limits.probe]`
    pub probe: ProbeLimits,
    /// `[limits.tokens]`
    pub tokens: TokenLimits,
    /// `[limits.deliveries]`
    pub deliveries: DeliveryLimits,
    /// `[limits.web]`
    pub web: WebLimits,
    /// `[limits.shutdown]`
    pub shutdown: ShutdownLimits,
    /// `[limits.<protocol>]`
    pub own: [OwnLimits; ProtocolKind::ALL.len()],
}

/// What the clients of one protocol have in place of what all have; `None`: nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnLimits {
    /// `[limits.<protocol>.preauth]`. Its two times of a failure mean nothing: failures are counted over all
    /// protocols.
    pub preauth: Option<PreauthLimits>,
    /// `[limits.<protocol>.relay]`. Its `drain` and `close` mean nothing: a move waits for all protocols.
    pub relay: Option<RelayLimits>,
}

impl Limits {
    /// What a client of this protocol may do until it is logged in.
    pub fn preauth_of(&self, protocol: ProtocolKind) -> PreauthLimits {
        self.own[protocol as usize].preauth.unwrap_or(self.preauth)
    }

    /// How a session of this protocol is relayed and closed.
    pub fn relay_of(&self, protocol: ProtocolKind) -> RelayLimits {
        let inherited = RelayLimits {
            idle: most_idle(protocol).map_or(self.relay.idle, |most| self.relay.idle.min(most)),
            ..self.relay
        };
        let own = self.own[protocol as usize].relay.unwrap_or(inherited);
        RelayLimits {
            drain: self.relay.drain,
            close: self.relay.close,
            ..own
        }
    }

    /// How a connection is relayed that is passed through.
    pub fn relay_passed_through(&self) -> RelayLimits {
        RelayLimits {
            idle: self.pass_through.idle,
            ..self.relay
        }
    }

    /// What the control plane is told: how long the logins and sessions of a fenced account may take here.
    pub fn of_fence(&self) -> DataPlaneLimits {
        let time = |time| prost_types::Duration::try_from(time).ok();
        DataPlaneLimits {
            hold: time(self.hold.timeout),
            drain: time(self.relay.drain),
            close: time(self.relay.close),
        }
    }
}

/// The most time without a byte that a session of this protocol inherits from `[limits.relay]`: a little more than its
/// servers have by default, so that the server's own words come first.
const fn most_idle(protocol: ProtocolKind) -> Option<Duration> {
    match protocol {
        ProtocolKind::Imap | ProtocolKind::ManageSieve => None,
        ProtocolKind::Pop3 => Some(Duration::from_mins(11)),
        ProtocolKind::Submission => Some(Duration::from_mins(6)),
    }
}

/// Time without a byte that a client of this protocol may count on, and the section that says so: nothing below it is
/// taken.
pub const fn least_idle(protocol: ProtocolKind) -> (Duration, &'static str) {
    match protocol {
        // Half an hour, and the time that the client takes to break off and renew its IDLE just before.
        ProtocolKind::Imap => (Duration::from_mins(31), "RFC 9051 §5.4"),
        ProtocolKind::Pop3 => (Duration::from_mins(10), "RFC 1939 §3"),
        ProtocolKind::ManageSieve => (Duration::from_mins(30), "RFC 5804"),
        ProtocolKind::Submission => (Duration::from_mins(5), "RFC 5321 §4.5.3.2.7"),
    }
}

/// How many clients may be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Client connections at once, on all listeners. Default 20000: two descriptors each (40256 with our
    /// own) fit the usual hard limit of open files, which the process takes for itself at its start, and
    /// an idle session costs about ten KiB. Past it a client reads a temporary farewell (on a listener with
    /// implicit TLS it sees the connection closed).
    pub total: usize,
    /// Client connections at once from one address (IPv6: one /64, which is what one customer gets).
    /// Default 500: an office behind one address with a hundred people and five connections each.
    /// Past it as above.
    pub per_address: usize,
    /// Octets that all sessions together keep for clients and servers that do not take what there is for them. A
    /// direction keeps at most 32 KiB, but for 64 that may stop in the middle of a larger piece. Default 256 MiB:
    /// 8000 directions that are stuck at the same time, of 40000. Past it a session that would have to keep more is closed
    /// at once, where `relay.stalled` would have closed it later.
    pub kept: usize,
    /// Client connections at once from one network: the /24 of an IPv4 address, the /48 of an IPv6 address, which
    /// is what one site gets. Default 2000: four addresses at their own limit, a tenth of all connections, and
    /// fewer than logins may be held, so that whoever has a network to himself locks nobody else out. Past it as
    /// above. For a network that is many people's (a web mailer, a provider's address translation) there is
    /// [`KnownNetwork`].
    pub per_network: usize,
}

/// A network whose connections are limited by a number of its own, in place of those for an address and for a
/// network: `[[limits.connections.networks]]`. An address in several of them counts in the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownNetwork {
    /// Who they are, as `192.0.2.10` or `2001:db8:1::/48`.
    pub network: Network,
    /// Client connections at once from all of it. No default: it is what its owner is known to need. Past it the
    /// client reads what it does past any limit on connections.
    pub connections: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 20_000,
            per_address: 500,
            kept: 256 << 20,
            per_network: 2000,
        }
    }
}

/// What a client may do until it is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreauthLimits {
    /// Time for a PROXY header and a TLS handshake each. Default 10 s: three round trips on the worst
    /// mobile link. Past it the connection is closed.
    pub handshake: Duration,
    /// Time from the connection to a successful login, while held excepted. Default 60 s, as Dovecot
    /// gives (RFC 9051 §5.4 wants 30 min only after login). Past it: a farewell.
    pub login: Duration,
    /// Failed logins on one connection. Default 3: a person mistypes, a guesser reconnects and is
    /// counted by address elsewhere. Past it: a farewell.
    pub failures: u32,
    /// The least time that the answer to a failed login takes, so that an unknown name and a wrong
    /// password on either server look alike. Default 2 s, Dovecot's own delay.
    pub failure_floor: Duration,
    /// The same for who goes on failing: from the fourth failure within some ten minutes on, from one address (IPv6: one
    /// /64) or for one account, it takes twice as long each time, up to this. Default 15 s, as Dovecot's penalty.
    /// Only refusals wait.
    pub failure_ceiling: Duration,
    /// Octets of a line, literals, commands and mistakes: `max_line`, `max_literal`,
    /// `max_commands`, `max_errors`.
    pub front: FrontLimits,
}

impl Default for PreauthLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            login: Duration::from_mins(1),
            failures: 3,
            failure_floor: Duration::from_secs(2),
            failure_ceiling: Duration::from_secs(15),
            front: FrontLimits::default(),
        }
    }
}

/// How long a server may take. Past any of these the login gets a temporary error, and the same
/// server is asked again at the client's next attempt, never another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendLimits {
    /// Time to resolve the name and connect, over all its addresses. Default 5 s: servers of one
    /// installation are near.
    pub connect: Duration,
    /// Time for the TLS handshake. Default 5 s.
    pub handshake: Duration,
    /// Time from there until the server may be given the login: greeting, capabilities, STARTTLS,
    /// announcement. Default 10 s.
    pub negotiate: Duration,
    /// Time for its verdict on the login. Default 30 s: Dovecot delays a refusal by up to 15 s.
    pub login: Duration,
    /// Octets and lines: `max_line`, `max_lines`, `max_untagged`.
    pub back: BackLimits,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            negotiate: Duration::from_secs(10),
            login: Duration::from_secs(30),
            back: BackLimits::default(),
        }
    }
}

/// When those whom a server would fail are told so at once. What is open goes on, and a probe asks as ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Clients and mail systems (addresses; IPv6: one /64 each) that fail one after the other, by the server's fault and
    /// without an answer of its to anybody in between, until the others are not tried any more. Default 5: more than
    /// the devices that one person has on the way, and no more than wait anyway while a server restarts. Past it: a
    /// temporary error at once.
    pub clients: usize,
    /// Time for which such a failure counts. Default 30 s, as long as a server may take for a verdict.
    pub window: Duration,
    /// Time between two logins that are let through all the same, to see whether the server is back. Default 5 s.
    pub pause: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            clients: 5,
            window: Duration::from_secs(30),
            pause: Duration::from_secs(5),
        }
    }
}

/// What a request by HTTP and its connection may cost. Octets of heads and of bodies that are read for a rule have their
/// limits in the crate `ferrypost-http`; `relay.drain` and `relay.close` are for exchanges as for sessions, and how
/// long a response may take is an endpoint's (`response_limit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebLimits {
    /// Time for a request's head, from its first octet on. Default 30 s: a header of 64 KiB on a bad mobile link. Past
    /// it: 408 and the end of the connection.
    pub head: Duration,
    /// Time that a client's connection may be without a request. Default 3 min: phones keep theirs for that long, and
    /// open another one where it was closed. Past it the connection is closed.
    pub idle: Duration,
    /// Time in which no octet of a body or a WebSocket moves that is owed: one that the client sends or takes, or the
    /// server takes. Default 2 min. Past it the exchange ends, with 408 or 502 if there was no response yet, and with it
    /// an HTTP/1.1 connection.
    pub stalled: Duration,
    /// Time that a server's connection is kept for the client's next request. Default 1 min: servers keep theirs for
    /// about that long. Past it, it is closed.
    pub upstream_idle: Duration,
    /// Time that nothing has to be asked on a connection before hyper goes, with its buffers, until something is. Always
    /// half a second, which is longer than between two requests of a page.
    pub rest: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_mins(3),
            stalled: Duration::from_mins(2),
            upstream_idle: Duration::from_mins(1),
            rest: Duration::from_millis(500),
        }
    }
}

/// How a session is relayed and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Time without a byte in either direction. Default 35 min: above the 30 min that a client in IDLE
    /// may be silent (RFC 9051 §5.4), so that the server's own timeout comes first; for POP3 and submission, where
    /// servers give less, 11 min and 6 min unless this is shorter still. Past it: a farewell.
    pub idle: Duration,
    /// Time that one side may leave what is to be written to it unread. Default 5 min: a phone in a
    /// tunnel comes back within that. Past it both sides are closed.
    pub stalled: Duration,
    /// Time that is waited for an answer on which the meaning of what the client has sent ahead of it depends
    /// (RFC 9051 §4.3; clients wait by themselves). Default 10 s. Past it the client's octets go on, and the
    /// session can be told goodbye no more.
    pub answer: Duration,
    /// Time that open commands are given to end when a session is to be closed. Default 10 s (inside
    /// the 20 s window of a move, G4; with `close` it must be below the control plane's `migrations.window`, or
    /// moves wait and say so). Past it the session is cut.
    pub drain: Duration,
    /// Time to wait for the server's own close after ours. Default 5 s (G2). Past it the close counts as
    /// unconfirmed and a move that waits for it is aborted.
    pub close: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(35),
            stalled: Duration::from_mins(5),
            answer: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            close: Duration::from_secs(5),
        }
    }
}

/// What is other for a connection that is passed through as a whole than for one that we can follow: `[limits.relay]` has
/// the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassThroughLimits {
    /// Time without a byte in either direction. Default 11 min: above the 10 min that a mail system waits for the reply
    /// to a message (RFC 5321 §4.5.3.2.6), which nobody may cut short, and which we cannot see. Past it both sides are
    /// closed.
    pub idle: Duration,
}

/// The least of it.
pub const LEAST_IDLE_PASSED_THROUGH: Duration = Duration::from_mins(10);

impl Default for PassThroughLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(11),
        }
    }
}

/// How logins wait while their account is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldLimits {
    /// Time that a login is held. Default 25 s: above the 20 s in which a fence ends by itself (the control plane's
    /// `migrations.window`; moves wait and say so unless it is), below
    /// the 30 s after which mail clients give up. Past it: a temporary error, and the account stays
    /// fenced.
    pub timeout: Duration,
    /// Time between two signs of life for a held client. Default 5 s.
    pub keep_alive: Duration,
    /// Held logins at once. Default 5000. Past it: a temporary error at once.
    pub total: usize,
    /// Held logins at once of one name. Default 500: far more than the connections of all devices of a
    /// person, since a held login is not authenticated yet and strangers may take places. Past it: a
    /// temporary error at once.
    pub per_name: usize,
    /// Held logins at once of one name from one address (IPv6: one /64). Default 50: ten devices of a household
    /// with five connections each, and a tenth of the name's, so that no single host takes the places of an
    /// account that it knows the name of. Past it: a temporary error at once.
    pub per_name_and_address: usize,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(25),
            keep_alive: Duration::from_secs(5),
            total: 5000,
            per_name: 500,
            per_name_and_address: 50,
        }
    }
}

/// How servers are probed. The time that one probe may take is that of a login's own connection:
/// `[limits.backend]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeLimits {
    /// Time between two probes of a server that answered. Default 10 s.
    pub interval: Duration,
    /// Time between two probes of a server that did not. Default 2 s: moves wait for it.
    pub retry: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What it may cost to ask an issuer whose bearer tokens are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// Time for an answer, from the resolver on, a place in the queue included. Default 5 s, as for a server's
    /// connection. Past it the login gets a temporary error.
    pub answer: Duration,
    /// Questions at once, and connections that are kept for more. Default 32: an issuer that answers in 50 ms is
    /// asked about 640 tokens a second. Past it a login waits for its turn, within `answer`.
    pub at_once: usize,
    /// Owners that are remembered. Default 10000, 300 bytes each. Past it the oldest is asked about again.
    pub owners: usize,
    /// Tokens that are remembered as nobody's. Default 10000. Past it the oldest is asked about again.
    pub others: usize,
    /// Time for which an owner is remembered, and no longer than the token lives. Default 5 min: a mail client
    /// connects several times in a row. It does not let anybody in: the server judges the token each time.
    pub kept: Duration,
    /// Time for which a token is remembered as nobody's. Default 30 s: a client that does not give up asks its
    /// issuer no more than twice a minute.
    pub refused: Duration,
}

impl Default for TokenLimits {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            at_once: 32,
            owners: 10_000,
            others: 10_000,
            kept: Duration::from_mins(5),
            refused: Duration::from_secs(30),
        }
    }
}

/// What mail systems that deliver may do, and how long servers may take with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Time that a mail system may say nothing, between messages and in the middle of one. Default 5 min (RFC 5321
    /// §4.5.3.2.7). Past it: a farewell, or the close of a connection with half a message.
    pub idle: Duration,
    /// Time for a server's answer to a command, and for a mail system to take ours. Default 2 min (RFC 5321
    /// §4.5.3.2.4): Postfix waits 5 for ours. Past it: a temporary error for all its recipients of the message.
    pub answer: Duration,
    /// Time that one server may take nothing of a message, while those of the others wait. Default 2 min: below the 3
    /// that Postfix has for that, so that the others still get their answers. Past it: as above.
    pub stalled: Duration,
    /// Time from the end of a message to a server's word on it. Default 9 min: below the 10 that mail systems wait
    /// (RFC 5321 §4.5.3.2.6). Past it: a temporary error; the message may come twice, and a move that waits for it is
    /// aborted.
    pub verdict: Duration,
    /// Octets, recipients, commands and mistakes: `max_line`, `max_recipients`, `max_commands`, `max_errors`.
    pub front: LmtpLimits,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(5),
            answer: Duration::from_mins(2),
            stalled: Duration::from_mins(2),
            verdict: Duration::from_mins(9),
            front: LmtpLimits::default(),
        }
    }
}

/// How the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownLimits {
    /// Time for all sessions to close: each at its next command boundary, or cut at the end of
    /// `relay.drain`. What it is above `relay.drain` and `relay.close` together is the time over which many sessions
    /// are told, so that their clients do not all come back in one second. Default 20 s. Past it the process drops
    /// what is left, and reports it as unconfirmed.
    pub grace: Duration,
    /// Time for the control plane to take note of the goodbye. Default 5 s. Past it the registration
    /// stays, and moves wait for a successor or an operator.
    pub goodbye: Duration,
}

impl Default for ShutdownLimits {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(20),
            goodbye: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_protocol_has_less_time_to_be_silent_than_its_clients_may_count_on() {
        for &protocol in ProtocolKind::ALL {
            let idle = Limits::default().relay_of(protocol).idle;
            assert!(idle > least_idle(protocol).0, "{protocol:?}");
        }
    }

    #[test]
    fn a_protocol_inherits_what_it_does_not_say_and_never_what_a_move_waits_for() {
        let mut limits = Limits::default();
        limits.relay.idle = Duration::from_mins(40);
        let idle = |limits: &Limits, protocol| limits.relay_of(protocol).idle;
        assert_eq!(idle(&limits, ProtocolKind::Imap), Duration::from_mins(40));
        assert_eq!(idle(&limits, ProtocolKind::Pop3), Duration::from_mins(11));
        limits.own[ProtocolKind::Pop3 as usize].relay = Some(RelayLimits {
            idle: Duration::from_mins(20),
            drain: Duration::from_hours(1),
            ..RelayLimits::default()
        });
        assert_eq!(idle(&limits, ProtocolKind::Pop3), Duration::from_mins(20));
        let pop3 = limits.relay_of(ProtocolKind::Pop3);
        assert_eq!(
            (pop3.drain, pop3.close),
            (limits.relay.drain, limits.relay.close)
        );
    }
}
