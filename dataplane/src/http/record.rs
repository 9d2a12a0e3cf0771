//! What is written down about an exchange. Nothing in it is ever consulted for a decision.

use std::{net::SocketAddr, time::Duration};

use ferrypost_http::target::MAX_METHOD;
use ferrypost_routing::Route;
use ferrypost_runtime::telemetry::Origin;
use http::{Method, StatusCode};
use tokio::time::Instant;
use tracing::{Span, debug_span};

use super::{client::Client, failure::Failure};
use crate::{
    metrics::{
        EXCHANGES,
        words::{Blame, ExchangeOutcome},
    },
    registry::Subject,
    session::context::failed,
};

/// Octets of bodies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) up: u64,
    pub(super) down: u64,
}

/// What is known of an exchange so far.
pub(super) struct Record {
    begun: Instant,
    pub(super) method: Method,
    /// Not before it was found to be one.
    pub(super) path: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) subject: Option<Subject>,
    /// Whether the name, and the account with it, is what a stranger says of himself.
    pub(super) is_claim: bool,
    pub(super) route: Option<Route>,
    pub(super) address: Option<SocketAddr>,
    pub(super) held: Duration,
    pub(super) status: Option<StatusCode>,
    /// From the head of the request to that of the response.
    pub(super) answered: Option<Duration>,
}

impl Record {
    pub(super) fn new(method: Method) -> Self {
        Self {
            begun: Instant::now(),
            method,
            path: None,
            rule: None,
            subject: None,
            is_claim: true,
            route: None,
            address: None,
            held: Duration::ZERO,
            status: None,
            answered: None,
        }
    }

    /// The head of a response has come.
    pub(super) fn head(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.answered = Some(self.begun.elapsed());
        // Somebody has been let in, so that what was claimed is what the server holds for true.
        self.is_claim = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    }

    /// It is over.
    pub(super) fn ended(self, client: &Client, end: Result<(), &Failure>, moved: Moved) {
        let (outcome, blame) = match end {
            Ok(()) => (ExchangeOutcome::Answered, Blame::Nobody),
            Err(failure) => (failure.outcome(), failure.blame()),
        };
        self.write(client, (outcome, blame), end.err(), moved);
    }

    /// It is over, without a server.
    pub(super) fn answered_here(mut self, client: &Client, status: StatusCode) {
        self.status = Some(status);
        let words = (ExchangeOutcome::AnsweredHere, Blame::Nobody);
        self.write(client, words, None, Moved::default());
    }

    fn write(
        &self,
        client: &Client,
        (outcome, blame): (ExchangeOutcome, Blame),
        failure: Option<&Failure>,
        moved: Moved,
    ) {
        let services = &client.web.services;
        let (outcome, blame) = (outcome.into_str(), blame.into_str());
        let lasted = self.begun.elapsed();
        let series = services.metrics.histogram(&EXCHANGES, &[outcome, blame]);
        series.record(lasted);
        let subject = self.subject.as_ref().filter(|_| !self.is_claim);
        let name = subject.and_then(Subject::name);
        let name = name.map(|name| services.redact.name(name));
        let route = self.route.as_ref();
        let account = route.and_then(|route| route.account.as_ref());
        let account = account.filter(|_| !self.is_claim);
        let account = account.map(|account| services.redact.text(account.as_str()));
        let path = self.path.as_deref().map(|path| services.redact.text(path));
        let status = self.status.or(failure.map(Failure::status));
        let _within = self
            .span(client, status, (outcome, blame), lasted)
            .entered();
        self.upstream_span(lasted);
        tracing::info!(
            reference = %client.reference,
            client = %client.ends.peer,
            listener = &*client.listener,
            // Refused where it is longer.
            method = self.method.as_str().get(..MAX_METHOD).unwrap_or(self.method.as_str()),
            path = path.as_ref().map(tracing::field::display),
            http_rule = self.rule,
            name = name.as_ref().map(tracing::field::display),
            account = account.as_ref().map(tracing::field::display),
            rule = route.map(|route| route.rule.word()),
            destination = route.map(|route| tracing::field::display(&route.destination)),
            epoch = route.and_then(|route| route.epoch).map(tracing::field::display),
            address = self.address.map(tracing::field::display),
            status = status.map(|status| status.as_u16()),
            up = moved.up,
            down = moved.down,
            held_us = micros(self.held),
            head_us = self.answered.map(micros),
            took_us = micros(lasted),
            outcome,
            blame,
            reason = failure.map(tracing::field::display),
            "exchange",
        );
    }
}

impl Record {
    /// What it was, now that it is over. A trace of the caller's is not gone on with: a stranger would choose what is
    /// recorded.
    fn span(
        &self,
        client: &Client,
        status: Option<StatusCode>,
        (outcome, blame): (&str, &str),
        lasted: Duration,
    ) -> Span {
        Origin::after(None).begun(lasted).make(|| {
            debug_span!(
                parent: None,
                "exchange",
                otel.kind = "server",
                ferrypost.session.id = %client.reference,
                ferrypost.listener = &*client.listener,
                network.protocol.name = "http",
                network.transport = "tcp",
                client.address = %client.ends.peer.ip(),
                client.port = client.ends.peer.port(),
                http.request.method = method(&self.method),
                http.response.status_code = status.map(|status| status.as_u16()),
                ferrypost.http.rule = self.rule,
                ferrypost.route.rule = self.route.as_ref().map(|route| route.rule.word()),
                ferrypost.exchange.outcome = outcome,
                ferrypost.blame = blame,
                error.type = failed(outcome, blame),
            )
        })
    }

    /// The server's part, from the end of a hold on; within the span of the whole.
    fn upstream_span(&self, lasted: Duration) {
        let Some(address) = self.address else { return };
        let origin = Origin::default().begun(lasted.saturating_sub(self.held));
        drop(origin.make(|| {
            debug_span!(
                "upstream",
                otel.kind = "client",
                ferrypost.destination = self.route.as_ref().map(|route| tracing::field::display(&route.destination)),
                server.address = %address.ip(),
                server.port = address.port(),
                http.request.method = method(&self.method),
                http.response.status_code = self.status.map(|status| status.as_u16()),
            )
        }));
    }
}

/// A method in a closed set of words, as OpenTelemetry asks for.
fn method(method: &Method) -> &str {
    const KNOWN: &[&str] = &[
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "CONNECT",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "QUERY",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "MKCALENDAR",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "ACL",
        "SEARCH",
    ];
    let method = method.as_str();
    KNOWN
        .iter()
        .find(|known| **known == method)
        .map_or("_OTHER", |_| method)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
