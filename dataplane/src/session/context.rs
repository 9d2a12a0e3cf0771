//! What sessions share, and what is written down about one. Nothing in a session's record is ever
//! consulted for a decision.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_proto::{Announcement, Name, types::identifier};
use ferrypost_routing::Route;
use ferrypost_runtime::{
    Random,
    metrics::Metrics,
    telemetry::{self, Origin, SpanContext},
};
use ferrypost_wire::{LineProtocol, ProtocolKind, SessionReference};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::guesses::Guesses;
use super::outcome::{self, AttemptError, SessionError};
use super::relay::{Budget, RelayEnd};
use super::rounds::Rounds;
use crate::{
    backend::{
        Caution,
        breaker::Breakers,
        dialers::Dialers,
        logins::Logins,
        open::{OpenFailure, Opened, Times},
    },
    limits::Limits,
    metrics::{
        LOGINS, SESSIONS,
        words::{Blame, EndStage, LoginOutcome, SessionEnd},
    },
    net::CloseProof,
    redact::Redact,
    registry::Registry,
    tables::Tables,
    tokens::TokenOwner,
};

/// What every session needs. One for the whole process.
pub struct Services {
    /// Where names go.
    pub tables: Tables,
    /// Who is here.
    pub registry: Arc<Registry>,
    /// The ways to the servers.
    pub dialers: Arc<Dialers>,
    /// How logins have fared there.
    pub logins: Logins,
    /// Where they are not tried.
    pub breakers: Breakers,
    /// Chooses endpoints.
    pub group: String,
    /// What a session may cost.
    pub limits: Limits,
    /// What sessions may keep for those that do not take it.
    pub budget: Budget,
    /// Whose bearer tokens are.
    pub tokens: Arc<dyn TokenOwner>,
    /// Whose logins are on their way.
    pub rounds: Rounds,
    /// Who guesses.
    pub guesses: Guesses,
    /// Makes references.
    pub random: Random,
    /// How names are shown in logs.
    pub redact: Redact,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Cancelled when this process begins to stop: who is not logged in is sent away.
    pub stopping: CancellationToken,
}

impl Services {
    /// A fresh reference, the same in our log and in the server's.
    pub fn reference(&self) -> SessionReference {
        SessionReference::new(identifier(self.random.bytes()))
            .expect("an identifier is 26 letters and digits")
    }

    /// How long after a login came its refusal is due. None waits but those that a guesser learns from.
    pub(super) fn wait_after(
        &self,
        error: &AttemptError,
        client: SocketAddr,
        trail: &LoginRecord,
    ) -> Duration {
        if error.is_failed_login() {
            self.guesses.failed(client.ip(), trail.known_name())
        } else {
            Duration::ZERO
        }
    }
}

/// What is written down about a session.
pub struct Record {
    pub(super) reference: SessionReference,
    pub(super) peer: SocketAddr,
    pub(super) listener: Arc<str>,
    pub(super) protocol: ProtocolKind,
    pub(super) begun: Instant,
    pub(super) relayed: Option<Relayed>,
}

/// The login that was relayed.
pub(super) struct Relayed {
    name: Name,
    route: Route,
    since: Instant,
    /// That of the session, which has ended.
    span: Option<SpanContext>,
}

/// What is written down about one login.
#[derive(Default)]
pub(super) struct LoginRecord {
    pub(super) name: Option<Name>,
    /// Whether the name, and the account with it, is what a token says of itself.
    pub(super) is_claim: bool,
    pub(super) route: Option<Route>,
    pub(super) announcement: Option<Announcement>,
    /// What is to be known of how it went all the same.
    pub(super) caution: Option<Caution>,
    pub(super) address: Option<SocketAddr>,
    /// The TLS of the server's connection, `none` where it is in clear; not known before it was agreed.
    pub(super) tls: Option<&'static str>,
    pub(super) held: Duration,
    /// How many connections it has left because a fence overtook it there.
    pub(super) overtaken: u32,
    pub(super) times: Times,
    pub(super) replay: Duration,
}

impl LoginRecord {
    /// The name, if it is more than a claim: whoever writes a token of his own writes no names into our log and
    /// makes nobody else's failures.
    fn known_name(&self) -> Option<&Name> {
        self.name.as_ref().filter(|_| !self.is_claim)
    }

    pub(super) fn opened<P: LineProtocol>(&mut self, opened: &Opened<P::Back>) {
        self.address = Some(opened.address);
        self.tls = Some(opened.tls.as_ref().map_or("none", |tls| tls.version));
        self.times = opened.times;
        self.caution = self
            .announcement
            .and_then(|announcement| Caution::of_announcement::<P>(announcement, &opened.back));
    }

    pub(super) fn failed_to_open(&mut self, failure: &OpenFailure) {
        self.address = failure.address;
        self.tls = failure.tls.as_ref().map(|tls| tls.version);
    }
}

impl Record {
    fn count_end(&self, services: &Services, stage: EndStage, end: SessionEnd, blame: Blame) {
        let values = [
            self.protocol.as_str(),
            stage.into_str(),
            end.into_str(),
            blame.into_str(),
        ];
        let series = services.metrics.histogram(&SESSIONS, &values);
        series.record(self.begun.elapsed());
    }

    pub(super) fn relayed(&mut self, trail: &LoginRecord) {
        if let (Some(name), Some(route)) = (&trail.name, &trail.route) {
            self.relayed = Some(Relayed {
                name: name.clone(),
                route: route.clone(),
                since: Instant::now(),
                span: telemetry::current(),
            });
        }
    }

    /// Counts a login, and for the server that it went to, if that server had a say in how it ended.
    pub(super) fn count_login(
        &self,
        services: &Services,
        trail: &LoginRecord,
        end: Result<(), &AttemptError>,
    ) {
        let (outcome, blame) = words(end);
        let counter = services
            .metrics
            .counter(&LOGINS, &[self.protocol.as_str(), outcome, blame]);
        counter.add(1);
        let Some(route) = &trail.route else { return };
        match end {
            Ok(()) => services.logins.accepted(&route.destination, self.protocol),
            Err(error) if error.blame() == Blame::Backend => {
                services.logins.failed(&route.destination, self.protocol);
            }
            Err(_) => {}
        }
    }

    /// The one line about a backend connection, or about a login that did not come so far.
    pub(super) fn log_login(
        &self,
        services: &Services,
        trail: &LoginRecord,
        end: Result<(), &AttemptError>,
    ) {
        // Accepted, a token's claim is what the server holds for true.
        let is_shown = end.is_ok() || trail.known_name().is_some();
        let name = trail.name.as_ref().filter(|_| is_shown);
        let name = name.map(|name| services.redact.name(name));
        let name = name.as_ref().map(tracing::field::display);
        let route = trail.route.as_ref();
        let account = route.and_then(|route| route.account.as_ref());
        let account = account.filter(|_| is_shown);
        let account = account.map(|account| services.redact.text(account.as_str()));
        let (outcome, blame) = words(end);
        record_login(route, outcome, blame);
        tracing::info!(
            reference = %self.reference,
            client = %self.peer,
            listener = &*self.listener,
            protocol = self.protocol.as_str(),
            name,
            account = account.as_ref().map(tracing::field::display),
            rule = route.map(|route| route.rule.word()),
            destination = route.map(|route| tracing::field::display(&route.destination)),
            epoch = route.and_then(|route| route.epoch).map(tracing::field::display),
            address = trail.address.map(tracing::field::display),
            backend_tls = trail.tls,
            announcement = trail.announcement.map(Announcement::word),
            caution = trail.caution.map(Caution::word),
            held_us = micros(trail.held),
            overtaken = trail.overtaken,
            connect_us = micros(trail.times.connect),
            handshake_us = micros(trail.times.handshake),
            negotiate_us = micros(trail.times.negotiate),
            login_us = micros(trail.replay),
            outcome,
            blame,
            server_code = end.err().and_then(AttemptError::server_code),
            reason = end.err().map(tracing::field::display),
            "login",
        );
    }

    /// The end of a session that was relayed: its line, its duration, and the relay's span, which is made
    /// only now and says when the relay began.
    pub(super) fn relay_ended(&self, services: &Services, end: &RelayEnd) {
        let (kind, blame) = outcome::of_relay(end);
        self.count_end(services, EndStage::Relay, kind, blame);
        let (kind, blame) = (kind.into_str(), blame.into_str());
        let relayed = self.relayed.as_ref();
        let lasted = relayed.map_or(Duration::ZERO, |relayed| relayed.since.elapsed());
        let after = Origin::after(relayed.and_then(|relayed| relayed.span.clone()));
        let span = after.begun(lasted).make(|| {
            tracing::debug_span!(
                parent: None,
                "relay",
                ferrypost.session.id = %self.reference,
                network.protocol.name = self.protocol.as_str(),
                ferrypost.destination = relayed.map(|it| tracing::field::display(&it.route.destination)),
                ferrypost.session.end = kind,
                ferrypost.blame = blame,
                error.type = failed(kind, blame),
                ferrypost.relay.up = end.up,
                ferrypost.relay.down = end.down,
            )
        });
        span.in_scope(|| self.log_relay_end(services, end, (kind, blame)));
    }

    fn log_relay_end(&self, services: &Services, end: &RelayEnd, (kind, blame): (&str, &str)) {
        let relayed = self.relayed.as_ref();
        let name = relayed.map(|relayed| services.redact.name(&relayed.name));
        tracing::info!(
            reference = %self.reference,
            name = name.as_ref().map(tracing::field::display),
            destination = relayed.map(|relayed| tracing::field::display(&relayed.route.destination)),
            stage = "relay",
            end = kind,
            blame,
            cut = end.is_cut(),
            backend_closed = proof(end.proof),
            up = end.up,
            down = end.down,
            relay_ms = relayed.map(|relayed| millis(relayed.since.elapsed())),
            session_ms = millis(self.begun.elapsed()),
            "session ended",
        );
    }

    /// The end of a session that never was. Nobody's fault and nothing of note is told at a lower level:
    /// port scanners and load balancers connect all day.
    pub(super) fn ended_early(&self, services: &Services, stage: EndStage, error: &SessionError) {
        let (end, blame) = (error.end(), error.blame());
        self.count_end(services, stage, end, blame);
        if blame != Blame::Nobody {
            Span::current().record("error.type", end.into_str());
        }
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    reference = %self.reference,
                    client = %self.peer,
                    listener = &*self.listener,
                    protocol = self.protocol.as_str(),
                    stage = stage.into_str(),
                    end = end.into_str(),
                    blame = blame.into_str(),
                    reason = %error,
                    session_ms = millis(self.begun.elapsed()),
                    "session ended",
                )
            };
        }
        if blame == Blame::Nobody {
            event!(debug);
        } else {
            event!(info);
        }
    }
}

/// What the session's span says of its last login.
fn record_login(route: Option<&Route>, outcome: &str, blame: &str) {
    let span = Span::current();
    span.record("ferrypost.login.outcome", outcome);
    span.record("ferrypost.blame", blame);
    if let Some(route) = route {
        span.record("ferrypost.route.rule", route.rule.word());
        span.record(
            "ferrypost.destination",
            tracing::field::display(&route.destination),
        );
    }
}

/// How a span failed, in the word for its end: what is nobody's fault is no failure.
pub(crate) fn failed<'a>(end: &'a str, blame: &str) -> Option<&'a str> {
    (blame != Blame::Nobody.into_str()).then_some(end)
}

/// How a login ended, and whose fault it was.
fn words(end: Result<(), &AttemptError>) -> (&'static str, &'static str) {
    let (outcome, blame) = match end {
        Ok(()) => (LoginOutcome::Accepted, Blame::Nobody),
        Err(error) => (error.outcome(), error.blame()),
    };
    (outcome.into_str(), blame.into_str())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn proof(proof: Option<CloseProof>) -> &'static str {
    proof.map_or("unconfirmed", CloseProof::word)
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{BareNames, NamePolicy};

    use super::*;
    use crate::net::dial::{DialError, DialFailure};

    #[test]
    fn what_a_token_says_of_itself_is_nobody_s_name_before_a_server_believes_it() {
        let policy = NamePolicy {
            bare_names: BareNames::Listed,
            master_separators: Vec::new(),
            sub_address_separator: None,
            local_part_case_sensitive: false,
        };
        let trail = |is_claim| LoginRecord {
            name: policy.canonicalise("alice").ok(),
            is_claim,
            ..LoginRecord::default()
        };
        assert!(trail(false).known_name().is_some());
        assert!(trail(true).known_name().is_none());
    }

    #[test]
    fn nothing_is_said_of_the_tls_of_a_leg_that_was_never_reached() {
        let mut trail = LoginRecord::default();
        assert_eq!(trail.tls, None);
        let unreached = DialFailure {
            error: DialError::ConnectTimeout,
            address: None,
        };
        trail.failed_to_open(&unreached.into());
        assert_eq!(trail.tls, None);
    }
}
