//! What is written down about deliveries. Nothing in it is ever consulted for a decision.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_proto::v1;
use ferrypost_routing::Route;
use ferrypost_runtime::telemetry::Origin;
use ferrypost_wire::SessionReference;
use tokio::time::Instant;
use tracing::{Span, debug_span};

use super::{
    Whence,
    client::End,
    outcome::{Fate, blame},
};
use crate::{
    metrics::{
        DELIVERIES, SESSIONS,
        words::{Blame, EndStage},
    },
    registry::Subject,
    session::context::{Services, failed},
};

/// What is written down about one mail system's connection.
pub(super) struct Record {
    pub(super) reference: SessionReference,
    pub(super) whence: Whence,
    pub(super) listener: Arc<str>,
    pub(super) protocol: v1::Protocol,
    pub(super) begun: Instant,
    /// Recipients that it has named.
    pub(super) named: u64,
    /// Those of them that have been delivered to.
    pub(super) delivered: u64,
}

/// What is written down about one delivery.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) subject: Option<Subject>,
    pub(super) route: Option<Route>,
    pub(super) address: Option<SocketAddr>,
    pub(super) begun: Option<Instant>,
    /// What kept us from asking the server.
    pub(super) reason: Option<String>,
}

impl Record {
    /// The one line about a delivery, at its end.
    pub(super) fn delivery(&mut self, services: &Services, trail: &Trail, fate: &Fate) {
        self.named += 1;
        self.delivered += u64::from(fate.answer.is_yes());
        let (outcome, blame) = (fate.outcome.into_str(), blame(fate.outcome).into_str());
        let protocol = self.protocol.word();
        let counter = services
            .metrics
            .counter(&DELIVERIES, &[protocol, outcome, blame]);
        counter.add(1);
        let name = trail.subject.as_ref().and_then(Subject::name);
        let name = name.map(|name| services.redact.name(name));
        let route = trail.route.as_ref();
        let account = route.and_then(|route| route.account.as_ref());
        let account = account.map(|account| services.redact.text(account.as_str()));
        let _within = self.delivery_span(trail, outcome, blame).entered();
        tracing::info!(
            reference = %self.reference,
            client = %self.whence,
            listener = &*self.listener,
            protocol,
            name = name.as_ref().map(tracing::field::display),
            account = account.as_ref().map(tracing::field::display),
            rule = route.map(|route| route.rule.word()),
            destination = route.map(|route| tracing::field::display(&route.destination)),
            epoch = route.and_then(|route| route.epoch).map(tracing::field::display),
            address = trail.address.map(tracing::field::display),
            took_us = trail.begun.map(|begun| u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)),
            outcome,
            blame,
            code = fate.answer.code(),
            reason = trail.reason,
            "delivery",
        );
    }

    fn delivery_span(&self, trail: &Trail, outcome: &str, blame: &str) -> Span {
        let lasted = trail.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        Origin::after(None).begun(lasted).make(|| {
            debug_span!(
                parent: None,
                "delivery",
                otel.kind = "client",
                ferrypost.session.id = %self.reference,
                ferrypost.listener = &*self.listener,
                network.protocol.name = self.protocol.word(),
                ferrypost.route.rule = trail.route.as_ref().map(|route| route.rule.word()),
                ferrypost.destination = trail.route.as_ref().map(|route| tracing::field::display(&route.destination)),
                server.address = trail.address.map(|address| tracing::field::display(address.ip())),
                server.port = trail.address.map(|address| address.port()),
                ferrypost.delivery.outcome = outcome,
                ferrypost.blame = blame,
                error.type = failed(outcome, blame),
            )
        })
    }

    /// The end of the connection. Of one that named nobody, and for nobody's fault, it is told at a lower level: load
    /// balancers connect all day.
    pub(super) fn ended(&self, services: &Services, end: &End) {
        let (kind, blame) = (end.word().into_str(), end.blame());
        let protocol = self.protocol.word();
        let stage = EndStage::Delivery.into_str();
        let lasted = self.begun.elapsed();
        let values = [protocol, stage, kind, blame.into_str()];
        services
            .metrics
            .histogram(&SESSIONS, &values)
            .record(lasted);
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    reference = %self.reference,
                    client = %self.whence,
                    listener = &*self.listener,
                    protocol,
                    stage,
                    end = kind,
                    blame = blame.into_str(),
                    reason = %end,
                    recipients = self.named,
                    delivered = self.delivered,
                    session_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
                    "session ended",
                )
            };
        }
        if self.named == 0 && blame == Blame::Nobody {
            event!(debug);
        } else {
            event!(info);
        }
    }
}
