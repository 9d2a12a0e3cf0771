//! From an endpoint to a connection on which its protocol can begin: resolve, connect, PROXY header,
//! implicit TLS.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ferrypost_proto::{Endpoint, EndpointTls, HttpVersions};
use ferrypost_wire::TlsFacts;
use tokio::time::{Instant, timeout};

use super::{
    ConnectError, TcpStream,
    leg::{ConsentedPlaintext, Encrypted, Leg, LegError, Plaintext},
    race::race_from,
    resolver::{ResolveError, Resolver},
    source::{OwnListeners, Sources},
    tls_client::{ClientTls, TlsError},
};
use crate::limits::BackendLimits;

/// The versions of HTTP as TLS names them (RFC 7301).
pub(crate) const H2: &[u8] = b"h2";
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// Octets of a backend's line end and a little more, on top of its longest line.
const LINE_SLACK: usize = 16;

/// Opens connections to destinations.
pub struct Dialer {
    tls: ClientTls,
    limits: BackendLimits,
    resolver: Resolver,
    sources: Sources,
    own_listeners: OwnListeners,
}

/// A connection as the endpoint's configuration wants it at its start.
pub enum Fresh {
    /// In clear until STARTTLS.
    Clear(Leg<Plaintext>),
    /// Under TLS.
    Tls(Leg<Encrypted>),
    /// In clear, by consent.
    Consented(Leg<ConsentedPlaintext>),
}

/// A connection that was opened.
pub struct Dialled {
    /// The connection.
    pub leg: Fresh,
    /// The backend's address.
    pub address: SocketAddr,
    /// The backend's TLS, where it is implicit.
    pub tls: Option<TlsFacts>,
    /// HTTP/2 is spoken there.
    pub is_h2: bool,
    /// Time for the connection.
    pub connect: Duration,
    /// Time for the handshake; zero without one.
    pub handshake: Duration,
}

/// Why there is no connection. No credential has been sent.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The host's name has no address, or cannot be asked for.
    #[error("the host cannot be resolved: {0}")]
    Resolve(#[from] ResolveError),
    /// Every address refused; this is what the last one said.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The address that it was to come from is not this machine's.
    #[error("cannot connect from {address}: {error}")]
    Source {
        /// The address.
        address: IpAddr,
        /// What the system says.
        error: io::Error,
    },
    /// It ends at one of this data plane's own listeners.
    #[error("the endpoint is a listener of this data plane itself")]
    Ourselves,
    /// No address answered in time.
    #[error("no connection within the limit")]
    ConnectTimeout,
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The handshake did not end in time.
    #[error("no TLS handshake within the limit")]
    HandshakeTimeout,
    /// The connection failed before anything could be said.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// It speaks HTTP/2 alone by the endpoint's word, and does not.
    #[error("the server does not speak HTTP/2, which its endpoint says (versions)")]
    NoHttp2,
}

impl From<ConnectError> for DialError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => Self::Connect(error),
            ConnectError::Source { address, error } => Self::Source { address, error },
        }
    }
}

impl DialError {
    /// Whether another address of the same destination may do better.
    pub fn retryable(&self) -> bool {
        match self {
            Self::HandshakeTimeout | Self::Io(_) | Self::Ourselves => true,
            Self::Tls(error) => matches!(error, TlsError::Handshake(_) | TlsError::Io(_)),
            // All addresses have been tried, or have this in common.
            Self::Resolve(_)
            | Self::Connect(_)
            | Self::Source { .. }
            | Self::ConnectTimeout
            | Self::NoHttp2 => false,
        }
    }

    /// Whether the destination was reached at all, so that a failure is about what it says and not
    /// about the way to it.
    pub fn connected(&self) -> bool {
        !matches!(
            self,
            Self::Resolve(_)
                | Self::Connect(_)
                | Self::Source { .. }
                | Self::ConnectTimeout
                | Self::Ourselves
        )
    }
}

/// A failure with the address that it happened at, if one was reached.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DialFailure {
    /// What happened.
    pub error: DialError,
    /// Where.
    pub address: Option<SocketAddr>,
}

impl Dialer {
    /// A dialer within `limits`.
    pub fn new(tls: ClientTls, limits: BackendLimits, resolver: Resolver) -> Self {
        Self {
            tls,
            limits,
            resolver,
            sources: Sources::default(),
            own_listeners: OwnListeners::default(),
        }
    }

    /// The same with connections that come from these addresses, and that must not end at those listeners.
    #[must_use]
    pub fn between(self, sources: Sources, own_listeners: OwnListeners) -> Self {
        Self {
            sources,
            own_listeners,
            ..self
        }
    }

    /// Where its connections come from.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> Sources {
        self.sources
    }

    /// What a backend may cost.
    pub fn limits(&self) -> &BackendLimits {
        &self.limits
    }

    /// The client's end of TLS, for an upgrade later on.
    pub fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// The endpoint's addresses.
    ///
    /// # Errors
    /// [`DialError::Resolve`].
    pub async fn resolve(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
        let resolving = self.resolver.resolve(&endpoint.host, endpoint.port);
        let resolved = timeout(self.limits.connect, resolving).await;
        Ok(resolved.unwrap_or(Err(ResolveError::Timeout))?)
    }

    /// Opens a connection to one of `addresses` and sends `preface` (a PROXY header, or nothing) before
    /// anything else.
    ///
    /// # Errors
    /// [`DialFailure`].
    pub async fn dial(
        &self,
        endpoint: &Endpoint,
        addresses: &[SocketAddr],
        preface: &[u8],
    ) -> Result<Dialled, DialFailure> {
        let begun = Instant::now();
        let nowhere = |error| DialFailure {
            error,
            address: None,
        };
        let (stream, address) = timeout(self.limits.connect, race_from(addresses, self.sources))
            .await
            .map_err(|_| nowhere(DialError::ConnectTimeout))?
            .map_err(|error| nowhere(error.into()))?;
        if self.own_listeners.have(&stream) {
            // Before a word is said, which would begin another round.
            return Err(DialFailure {
                error: DialError::Ourselves,
                address: Some(address),
            });
        }
        let connect = begun.elapsed();
        let begun_at = self.begin(endpoint, stream, preface).await;
        let (leg, tls, is_h2) = begun_at.map_err(|error| DialFailure {
            error,
            address: Some(address),
        })?;
        Ok(Dialled {
            leg,
            address,
            tls,
            is_h2,
            connect,
            handshake: begun.elapsed().saturating_sub(connect),
        })
    }

    async fn begin(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
        preface: &[u8],
    ) -> Result<(Fresh, Option<TlsFacts>, bool), DialError> {
        let mut leg = Leg::new(stream, self.limits.back.max_line + LINE_SLACK);
        leg.write_public(preface)
            .await
            .map_err(|error| match error {
                LegError::Io(error) => DialError::Io(error),
                LegError::Ended | LegError::Full => DialError::Io(io::ErrorKind::BrokenPipe.into()),
            })?;
        Ok(match &endpoint.tls {
            EndpointTls::StartTls(_) => (Fresh::Clear(leg), None, false),
            EndpointTls::PlaintextByConsent(consent) => {
                let is_h2 = endpoint.http.versions == HttpVersions::H2;
                (Fresh::Consented(leg.with_consent(*consent)), None, is_h2)
            }
            EndpointTls::Implicit(verification) => {
                let offered = offered(endpoint.http.versions);
                let handshake = self.tls.connect_offering(leg, verification, offered);
                let shaken = timeout(self.limits.handshake, handshake)
                    .await
                    .map_err(|_| DialError::HandshakeTimeout)??;
                let is_h2 = shaken.protocol.as_deref() == Some(H2);
                if endpoint.http.versions == HttpVersions::H2 && !is_h2 {
                    return Err(DialError::NoHttp2);
                }
                (Fresh::Tls(shaken.leg), Some(shaken.facts), is_h2)
            }
        })
    }
}

/// What a server may choose from. Of an endpoint for mail, and of one for HTTP/1.1, nothing: some servers know no name.
const fn offered(versions: HttpVersions) -> &'static [&'static [u8]] {
    match versions {
        HttpVersions::Http1 => &[],
        HttpVersions::H2 => &[H2],
        HttpVersions::Either => &[H2, HTTP_1],
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::net::{
        race::{HEAD_START, tests::Silent},
        resolver::System,
    };
    use ferrypost_proto::{RoutingConfig, v1};
    use ferrypost_runtime::shutdown::Shutdown;

    fn dialer(connect: Duration) -> Dialer {
        let limits = BackendLimits {
            connect,
            ..BackendLimits::default()
        };
        let resolver = Resolver::new(System, Shutdown::new());
        Dialer::new(ClientTls::new(), limits, resolver)
    }

    /// An endpoint in clear.
    pub(crate) fn endpoint(host: &str, port: u16) -> Endpoint {
        let endpoint = v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: host.to_owned(),
            port: port.into(),
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::None.into(),
                plaintext_consent: true,
                ..Default::default()
            }),
            announcement: v1::Announcement::None.into(),
            ..Default::default()
        };
        let config = v1::RoutingConfig {
            schema: 1,
            destinations: vec![v1::Destination {
                id: "old".to_owned(),
                endpoints: vec![endpoint],
                ..Default::default()
            }],
            default_destination: "old".to_owned(),
            names: Some(v1::NamePolicy {
                bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
                ..Default::default()
            }),
            ..Default::default()
        };
        let config = RoutingConfig::try_from(&config).unwrap();
        let destination = config.destination(config.default_destination()).unwrap();
        destination.endpoints()[0].clone()
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_costs_one_head_start() {
        let silent = Silent::new();
        let listener = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listening = listener.local_addr().unwrap();
        let dialer = dialer(Duration::from_secs(5));
        let begun = Instant::now();
        let dialled = dialer
            .dial(
                &endpoint("mail.example.org", 143),
                &[silent.address, listening],
                b"",
            )
            .await;
        let dialled = dialled.ok().unwrap();
        assert_eq!(dialled.address, listening);
        // Beside the first, and not instead of it when its time is over.
        assert!(begun.elapsed() >= HEAD_START, "{:?}", begun.elapsed());
        assert!(dialled.connect < dialer.limits().connect);
    }

    #[tokio::test]
    async fn the_limit_on_connecting_is_for_all_addresses_together() {
        let silent = [Silent::new(), Silent::new(), Silent::new()];
        let addresses = silent.each_ref().map(|silent| silent.address);
        let dialer = dialer(Duration::from_millis(600));
        let begun = Instant::now();
        let failure = dialer
            .dial(&endpoint("mail.example.org", 143), &addresses, b"")
            .await;
        let failure = failure.err().unwrap();
        assert!(
            matches!(failure.error, DialError::ConnectTimeout),
            "{failure}"
        );
        assert!(!failure.error.retryable() && !failure.error.connected());
        // Not once for each.
        assert!(
            begun.elapsed() < 2 * dialer.limits().connect,
            "{:?}",
            begun.elapsed()
        );
    }
}
