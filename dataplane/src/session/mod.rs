//! One client connection from its handshake to its close.
//!
//! ```text
//!   preauth    we are the server: greeting, STARTTLS, TLS, until a login comes
//!   attempt    one login: name, admission to the registry (held while fenced), backend, verdict,
//!              the route once more
//!     login    the credentials, once, on a leg that may carry them
//!   relay      bytes both ways, until one side or we end it; everything of the login is freed before
//!   outcome    what happened, whose fault it was, what the client hears
//!   line       what one protocol's sessions share, and where it is chosen
//!   identity   whose login it is
//!   guesses    how long who guesses waits for an answer
//!   rounds     logins that have come back to us
//!   context    what all sessions share, and the lines in the log
//! ```
//!
//! [`run`] is generic over the protocol: a new one is a directory and a line in the wire crate.

mod attempt;
pub mod context;
pub mod guesses;
mod identity;
pub mod line;
mod login;
mod newcomer;
pub mod outcome;
mod preauth;
pub mod relay;
mod rounds;
#[cfg(feature = "sabotage")]
mod sabotage;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use ferrypost_wire::{Follower, LineProtocol};
use tokio::time::Instant;
use tracing::{Instrument as _, debug_span, field::Empty};

use crate::{metrics::words::EndStage, registry::SessionGuard};
use attempt::{Accepted, Attempt};
use context::{LoginRecord, Record, Services};
use line::LineServices;
use outcome::{AttemptError, SessionError};
use preauth::Preauth;
use relay::{Parties, Relay};

pub use newcomer::{Newcomer, Newcomers};
pub use preauth::ClientConnection;
pub use rounds::Rounds;

/// Serves one connection.
pub fn run<P: LineProtocol>(
    line: Arc<LineServices<P>>,
    listener: Arc<str>,
    connection: ClientConnection,
) -> impl Future<Output = ()> + Send {
    let services = Arc::clone(&line.services);
    let record = Record {
        reference: services.reference(),
        peer: connection.ends.peer,
        listener,
        protocol: P::KIND,
        begun: Instant::now(),
        relayed: None,
    };
    // At the level of an exporter: an operator's log has one line a login and one an end, which carry the
    // reference themselves. It ends with the login, and the relay has one of its own at its end: an exporter
    // never holds the open span of an idle session, and a trace of the login is there when it is over.
    let span = debug_span!(
        "session",
        otel.kind = "server",
        ferrypost.session.id = %record.reference,
        ferrypost.listener = &*record.listener,
        network.protocol.name = record.protocol.as_str(),
        network.transport = "tcp",
        client.address = %record.peer.ip(),
        client.port = record.peer.port(),
        ferrypost.login.outcome = Empty,
        ferrypost.route.rule = Empty,
        ferrypost.destination = Empty,
        ferrypost.blame = Empty,
        error.type = Empty,
    );
    // A future is as large as the largest thing that it ever holds, and most of a session's life is an
    // idle relay: what a login needs lies in a box that is gone by then.
    let login = Box::pin(log_in::<P>(line, services, record, connection).instrument(span));
    async move {
        if let Some(session) = login.await {
            session.relay().await;
        }
    }
}

/// A session whose login has succeeded.
struct Session<F> {
    services: Arc<Services>,
    record: Record,
    relay: Relay<F>,
    guard: SessionGuard,
}

impl<F: Follower> Session<F> {
    async fn relay(mut self: Box<Self>) {
        let end = self.relay.run(self.guard).await;
        self.record.relay_ended(&self.services, &end);
    }
}

/// Everything up to the relay. `None`: the session is over, and that is in the log.
async fn log_in<P: LineProtocol>(
    line: Arc<LineServices<P>>,
    services: Arc<Services>,
    mut record: Record,
    connection: ClientConnection,
) -> Option<Box<Session<P::Follow>>> {
    let opened = Preauth::<P>::open(&line, connection)
        .instrument(debug_span!("tls"))
        .await;
    let mut client = match opened {
        Ok(client) => client,
        Err(error) => {
            record.ended_early(&services, EndStage::Tls, &error);
            return None;
        }
    };
    match until_accepted(&services, &mut record, &mut client).await {
        Ok(accepted) => {
            let (parties, guard) = hand_over(client, accepted);
            Some(Box::new(Session {
                relay: Relay::new(
                    parties,
                    services.limits.relay_of(P::KIND),
                    &services.budget,
                    line.relay_io.clone(),
                ),
                guard,
                record,
                services,
            }))
        }
        Err(error) => {
            client.leave(&error).await;
            record.ended_early(&services, EndStage::Preauth, &error);
            None
        }
    }
}

/// Takes logins until one succeeds. Each is routed afresh.
async fn until_accepted<P: LineProtocol>(
    services: &Services,
    record: &mut Record,
    client: &mut Preauth<P>,
) -> Result<Accepted<P::Welcome>, SessionError> {
    loop {
        let offered = client
            .next_login()
            .instrument(debug_span!("preauth"))
            .await?;
        let received = Instant::now();
        let mut trail = LoginRecord::default();
        let mut attempt = Attempt {
            services,
            client,
            reference: &record.reference,
            trail: &mut trail,
            held_until: None,
            undecided: 0,
            pass: None,
        };
        let outcome = match offered {
            Ok(credentials) => attempt.run(credentials).await,
            Err(invalid) => Err(AttemptError::Unfit(invalid)),
        };
        let end = outcome.as_ref().map(|_| ());
        record.count_login(services, &trail, end);
        record.log_login(services, &trail, end);
        match outcome {
            Ok(accepted) => {
                if let Some(name) = accepted.guard.subject().name() {
                    services.guesses.succeeded(client.peer().ip(), name);
                }
                record.relayed(&trail);
                return Ok(accepted);
            }
            Err(error) => {
                let due = received + services.wait_after(&error, client.peer(), &trail);
                client.refuse(error, received, due).await?;
            }
        }
    }
}

/// What is left of a login when it has succeeded.
fn hand_over<P: LineProtocol>(
    client: Preauth<P>,
    accepted: Accepted<P::Welcome>,
) -> (Parties<P::Follow>, SessionGuard) {
    let (client, welcome, follower) = client.accept(accepted.welcome);
    let parties = Parties {
        client: client.into(),
        backend: accepted.backend.into(),
        welcome,
        follower,
    };
    (parties, accepted.guard)
}
