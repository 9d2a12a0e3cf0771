//! From an endpoint to a server that may be given a login, or a message: dial, greeting, STARTTLS, announcement.
//!
//! The health prober goes the same way, without a client to announce.

use std::{net::SocketAddr, time::Duration};

use ferrypost_proto::{Announcement, Endpoint, EndpointTls};
use ferrypost_wire::{
    BackSettings, BackendViolation, Channel, Introduction, NegotiateStep, Open, Rejection, TlsFacts,
};
use tokio::time::{Instant, timeout};

use crate::net::{
    dial::{DialError, DialFailure, Dialer, Fresh},
    leg::{BackendLeg, Leg, LegError, LegState},
    plain,
    proxy::{self, Announced},
    tls_client::TlsError,
};

/// On whose behalf a server is asked.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// A client's, who is announced as the endpoint says.
    Client(Announced<'a>),
    /// Our own: a probe.
    Probe,
    /// A probe that does the opposite about the PROXY header, to find out why the first one failed.
    Contrary,
}

/// A server that may be given a login, or a message.
pub struct Opened<B> {
    /// The connection.
    pub leg: BackendLeg,
    /// The machine that speaks on it.
    pub back: B,
    /// The server's address.
    pub address: SocketAddr,
    /// Its TLS, where there is some.
    pub tls: Option<TlsFacts>,
    /// How long it took.
    pub times: Times,
}

/// How long the parts of opening a connection took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The connection itself.
    pub connect: Duration,
    /// An implicit TLS handshake.
    pub handshake: Duration,
    /// Greeting, capabilities, STARTTLS and its handshake, announcement.
    pub negotiate: Duration,
}

/// Why a server cannot be given a login. No credential was sent.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server broke the rules, or cannot do what is needed.
    #[error(transparent)]
    Violation(#[from] BackendViolation),
    /// The server is well and will not have the client that it was told of.
    #[error("the backend turned the client away ({code})", code = .0.server_code().unwrap_or("no code"))]
    Refused(Rejection),
    /// Its connection failed.
    #[error("the backend: {0}")]
    Leg(#[from] LegError),
    /// The TLS handshake after STARTTLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It took too long.
    #[error("the backend was not ready for a login within the limit")]
    Timeout,
}

impl OpenError {
    /// Whether the server is no server but one of our own listeners.
    pub fn is_ourselves(&self) -> bool {
        matches!(self, Self::Dial(DialError::Ourselves))
    }

    /// Whether it failed on this machine, whatever the server is like.
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Dial(DialError::Ourselves | DialError::Source { .. })
        )
    }

    /// Whether another address of the same destination may do better.
    fn retryable(&self) -> bool {
        match self {
            Self::Dial(error) => error.retryable(),
            Self::Leg(_) | Self::Violation(BackendViolation::Bye) => true,
            Self::Violation(_) | Self::Refused(_) | Self::Tls(_) | Self::Timeout => false,
        }
    }
}

/// A failure, with what was learnt before it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct OpenFailure {
    /// What happened.
    pub error: OpenError,
    /// The address that it happened at, if one was reached.
    pub address: Option<SocketAddr>,
    /// The TLS that was agreed, if it got so far.
    pub tls: Option<TlsFacts>,
    /// The server's greeting, printable and shortened, if there was one.
    pub greeting: String,
}

impl From<DialFailure> for OpenFailure {
    fn from(DialFailure { error, address }: DialFailure) -> Self {
        Self {
            error: error.into(),
            address,
            tls: None,
            greeting: String::new(),
        }
    }
}

/// Opens a connection to the endpoint and brings it to where a login may be sent. Every address is tried
/// that may do better than the last one, as long as the limits for one last; none of them has seen a
/// secret. `machine` makes what speaks on each of them.
///
/// # Errors
/// [`OpenFailure`], of the last address.
pub async fn open<B: Open>(
    dialer: &Dialer,
    endpoint: &Endpoint,
    caller: Caller<'_>,
    machine: fn(BackSettings) -> B,
) -> Result<Opened<B>, OpenFailure> {
    let limits = dialer.limits();
    let limit = limits.connect + limits.handshake + limits.negotiate;
    let trying = open_somewhere(dialer, endpoint, caller, machine);
    match timeout(limit, trying).await {
        Ok(outcome) => outcome,
        Err(_) => Err(OpenFailure {
            error: OpenError::Timeout,
            address: None,
            tls: None,
            greeting: String::new(),
        }),
    }
}

async fn open_somewhere<B: Open>(
    dialer: &Dialer,
    endpoint: &Endpoint,
    caller: Caller<'_>,
    machine: fn(BackSettings) -> B,
) -> Result<Opened<B>, OpenFailure> {
    let nowhere = |error| DialFailure {
        error,
        address: None,
    };
    let mut addresses = dialer.resolve(endpoint).await.map_err(nowhere)?;
    loop {
        let failure = match open_at(dialer, endpoint, caller, (&addresses, machine)).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        let known = addresses.len();
        addresses.retain(|address| Some(plain(*address)) != failure.address);
        let fewer = addresses.len() < known;
        if !failure.error.retryable() || addresses.is_empty() || !fewer {
            return Err(failure);
        }
    }
}

async fn open_at<B: Open>(
    dialer: &Dialer,
    endpoint: &Endpoint,
    caller: Caller<'_>,
    (addresses, machine): (&[SocketAddr], fn(BackSettings) -> B),
) -> Result<Opened<B>, OpenFailure> {
    let preface = preface(endpoint, caller);
    let dialled = dialer.dial(endpoint, addresses, &preface).await?;
    let begun = Instant::now();
    let mut talk = Dialogue {
        dialer,
        endpoint,
        back: machine(settings(dialer, endpoint, caller, (&dialled.leg, &preface))),
        tls: dialled.tls,
    };
    let limit = dialer.limits().negotiate;
    let outcome = timeout(limit, talk.negotiate(dialled.leg)).await;
    match outcome.unwrap_or(Err(OpenError::Timeout)) {
        Ok(leg) => Ok(Opened {
            leg,
            back: talk.back,
            address: dialled.address,
            tls: talk.tls,
            times: Times {
                connect: dialled.connect,
                handshake: dialled.handshake,
                negotiate: begun.elapsed(),
            },
        }),
        Err(error) => Err(OpenFailure {
            error,
            address: Some(dialled.address),
            greeting: talk.back.greeting().to_owned(),
            tls: talk.tls,
        }),
    }
}

/// What goes before everything else on the connection.
fn preface(endpoint: &Endpoint, caller: Caller<'_>) -> Vec<u8> {
    let expects_header = endpoint.announcement == Announcement::ProxyV2;
    match (expects_header, caller) {
        (true, Caller::Client(client)) => proxy::announce(client, &endpoint.tls),
        (true, Caller::Probe) | (false, Caller::Contrary) => proxy::local(),
        (true, Caller::Contrary) | (false, Caller::Client(_) | Caller::Probe) => Vec::new(),
    }
}

fn settings(
    dialer: &Dialer,
    endpoint: &Endpoint,
    caller: Caller<'_>,
    (leg, preface): (&Fresh, &[u8]),
) -> BackSettings {
    // Never both: with PROXY the server checks its trust against the client's address, and ignores the
    // rest.
    let announce = match caller {
        Caller::Client(announced) if endpoint.announcement.is_in_protocol() => {
            Some(announced.client.clone())
        }
        _ => None,
    };
    let introduction = match caller {
        Caller::Client(announced) => announced.client.introduction.clone(),
        Caller::Probe | Caller::Contrary => Introduction::default(),
    };
    BackSettings {
        channel: match leg {
            Fresh::Clear(_) => Channel::Clear,
            Fresh::Tls(_) | Fresh::Consented(_) => Channel::Secure,
        },
        announce,
        introduction,
        prefaced: !preface.is_empty(),
        limits: dialer.limits().back,
    }
}

/// A conversation before the login.
struct Dialogue<'a, B> {
    dialer: &'a Dialer,
    endpoint: &'a Endpoint,
    back: B,
    tls: Option<TlsFacts>,
}

impl<B: Open> Dialogue<'_, B> {
    async fn negotiate(&mut self, leg: Fresh) -> Result<BackendLeg, OpenError> {
        Ok(match leg {
            Fresh::Tls(mut leg) => {
                self.until_ready(&mut leg).await?;
                BackendLeg::Tls(leg)
            }
            Fresh::Consented(mut leg) => {
                self.until_ready(&mut leg).await?;
                BackendLeg::Consented(leg)
            }
            Fresh::Clear(mut leg) => {
                self.until(&mut leg, NegotiateStep::StartTls).await?;
                let EndpointTls::StartTls(verification) = &self.endpoint.tls else {
                    unreachable!("only an endpoint with STARTTLS is dialled in clear");
                };
                let (mut leg, facts) = self.dialer.tls().connect(leg, verification).await?;
                self.tls = Some(facts);
                self.back.secured();
                self.until_ready(&mut leg).await?;
                BackendLeg::Tls(leg)
            }
        })
    }

    async fn until_ready<S: LegState>(&mut self, leg: &mut Leg<S>) -> Result<(), OpenError> {
        self.until(leg, NegotiateStep::Ready).await
    }

    async fn until<S: LegState>(
        &mut self,
        leg: &mut Leg<S>,
        wanted: NegotiateStep,
    ) -> Result<(), OpenError> {
        let mut out = Vec::new();
        loop {
            let step = self.back.step(leg.buffer(), &mut out)?;
            leg.write_public(&out).await?;
            out.clear();
            match step {
                NegotiateStep::NeedMore => leg.fill().await.map_err(too_long)?,
                NegotiateStep::Refused(rejection) => return Err(OpenError::Refused(rejection)),
                step if step == wanted => return Ok(()),
                NegotiateStep::StartTls | NegotiateStep::Ready => {
                    return Err(BackendViolation::Malformed.into());
                }
            }
        }
    }
}

fn too_long(error: LegError) -> OpenError {
    match error {
        LegError::Full => BackendViolation::ReplyTooLong.into(),
        error => error.into(),
    }
}
