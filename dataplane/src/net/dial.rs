//! From an endpoint to a connection on which its protocol can begin: resolve, connect, PROXY header,
//! implicit TLS.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_proto::{Endpoint, EndpointTls};
use ferrypost_wire::TlsFacts;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::{
    TcpStream,
    leg::{ConsentedPlaintext, Encrypted, Leg, LegError, Plaintext},
    plain,
    tls_client::{ClientTls, TlsError},
};
use crate::config::BackendLimits;

/// How long one address is given before the next is tried beside it (RFC 8305 §8 recommends this).
const HEAD_START: Duration = Duration::from_millis(250);

/// Octets of a backend's line end and a little more, on top of its longest line.
const LINE_SLACK: usize = 16;

/// How long the addresses of a host are remembered, so that a thousand logins in a second are not a
/// thousand questions to the resolver. A server that moves is found anew within it.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Opens connections to destinations.
pub struct Dialer {
    tls: ClientTls,
    limits: BackendLimits,
    /// Hosts and ports of the endpoints that were dialled lately.
    known: Mutex<HashMap<(String, u16), Known>>,
}

struct Known {
    since: Instant,
    addresses: Vec<SocketAddr>,
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
    Resolve(io::Error),
    /// Every address refused; this is what the last one said.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
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
}

impl DialError {
    /// Whether another address of the same destination may do better.
    pub fn retryable(&self) -> bool {
        match self {
            Self::HandshakeTimeout | Self::Io(_) => true,
            Self::Tls(error) => matches!(error, TlsError::Handshake(_) | TlsError::Io(_)),
            // All addresses have been tried, or have this in common.
            Self::Resolve(_) | Self::Connect(_) | Self::ConnectTimeout => false,
        }
    }

    /// Whether the destination was reached at all, so that a failure is about what it says and not
    /// about the way to it.
    pub fn connected(&self) -> bool {
        !matches!(
            self,
            Self::Resolve(_) | Self::Connect(_) | Self::ConnectTimeout
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
    pub fn new(tls: ClientTls, limits: BackendLimits) -> Self {
        Self {
            tls,
            limits,
            known: Mutex::default(),
        }
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
    /// [`DialError::Resolve`], [`DialError::ConnectTimeout`].
    pub async fn resolve(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, DialError> {
        let key = (endpoint.host.clone(), endpoint.port);
        if let Some(addresses) = self.remembered(&key) {
            return Ok(addresses);
        }
        let found = super::resolve(&endpoint.host, endpoint.port);
        let found = timeout(self.limits.connect, found)
            .await
            .map_err(|_| DialError::ConnectTimeout)?;
        let addresses = found.map_err(DialError::Resolve)?;
        if addresses.is_empty() {
            return Err(DialError::Resolve(io::ErrorKind::NotFound.into()));
        }
        let known = Known {
            since: Instant::now(),
            addresses: addresses.clone(),
        };
        self.known().insert(key, known);
        Ok(addresses)
    }

    /// Lets a host have these addresses, as if it had just been resolved.
    #[cfg(test)]
    pub(crate) fn remember(&self, host: &str, port: u16, addresses: &[SocketAddr]) {
        let known = Known {
            since: Instant::now(),
            addresses: addresses.to_vec(),
        };
        self.known().insert((host.to_owned(), port), known);
    }

    fn remembered(&self, key: &(String, u16)) -> Option<Vec<SocketAddr>> {
        let mut known = self.known();
        // Also drops endpoints that the routing configuration no longer has.
        known.retain(|_, known| known.since.elapsed() < REMEMBERED);
        known.get(key).map(|known| known.addresses.clone())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, u16), Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (stream, address) = timeout(self.limits.connect, race(addresses))
            .await
            .map_err(|_| nowhere(DialError::ConnectTimeout))?
            .map_err(|error| nowhere(DialError::Connect(error)))?;
        let connect = begun.elapsed();
        let (leg, tls) = self
            .begin(endpoint, stream, preface)
            .await
            .map_err(|error| DialFailure {
                error,
                address: Some(address),
            })?;
        Ok(Dialled {
            leg,
            address,
            tls,
            connect,
            handshake: begun.elapsed().saturating_sub(connect),
        })
    }

    async fn begin(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
        preface: &[u8],
    ) -> Result<(Fresh, Option<TlsFacts>), DialError> {
        let mut leg = Leg::new(stream, self.limits.back.max_line + LINE_SLACK);
        leg.write_public(preface)
            .await
            .map_err(|error| match error {
                LegError::Io(error) => DialError::Io(error),
                LegError::Ended | LegError::Full => DialError::Io(io::ErrorKind::BrokenPipe.into()),
            })?;
        Ok(match &endpoint.tls {
            EndpointTls::StartTls(_) => (Fresh::Clear(leg), None),
            EndpointTls::PlaintextByConsent(consent) => {
                (Fresh::Consented(leg.with_consent(*consent)), None)
            }
            EndpointTls::Implicit(verification) => {
                let handshake = self.tls.connect(leg, verification);
                let (leg, facts) = timeout(self.limits.handshake, handshake)
                    .await
                    .map_err(|_| DialError::HandshakeTimeout)??;
                (Fresh::Tls(leg), Some(facts))
            }
        })
    }
}

/// Connects to the first address that answers: each in turn, the next one beside it when it has had its
/// head start or has failed.
async fn race(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut waiting = interleaved(addresses);
    let mut running = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(address) = waiting.pop_front() {
            running.push(async move { (super::connect(address).await, address) });
        }
        let head_start = async {
            if waiting.is_empty() {
                std::future::pending::<()>().await;
            } else {
                sleep(HEAD_START).await;
            }
        };
        tokio::select! {
            Some((result, address)) = running.next() => match result {
                Ok(stream) => return Ok((stream, plain(address))),
                Err(error) => last_error = error,
            },
            () = head_start => {}
        }
        if running.is_empty() && waiting.is_empty() {
            return Err(last_error);
        }
    }
}

/// The families by turns, beginning with the resolver's first (RFC 8305 §4), so that a broken network
/// of one family costs one head start.
fn interleaved(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|n| [first.get(n).copied(), second.get(n).copied()])
        .flatten()
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use ferrypost_proto::{RoutingConfig, v1};
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let order = interleaved(&addresses(&[
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "192.0.2.1:1",
        ]));
        let expected = addresses(&["[::1]:1", "192.0.2.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(order, expected);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_one_waiting() {
        let refusing = crate::net::listen("127.0.0.1:0".parse().unwrap())
            .unwrap()
            .local_addr()
            .unwrap();
        let listener = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listening = listener.local_addr().unwrap();
        let begun = Instant::now();
        let (_, address) = race(&[refusing, listening]).await.unwrap();
        assert!(begun.elapsed() < HEAD_START);
        assert_eq!(address, listening);
    }

    /// An address that answers nothing: a queue that is full and that nobody takes from.
    struct Silent {
        address: SocketAddr,
        _queue: (Socket, Vec<Socket>),
    }

    impl Silent {
        #[expect(
            clippy::disallowed_methods,
            reason = "no listener of ours has a queue that is full"
        )]
        fn new() -> Self {
            let socket = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            };
            let listener = socket();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            listener.bind(&any.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            // More than fit, which depends on the kernel; those that do not fit stay half open.
            let queued = (0..8).map(|_| {
                let socket = socket();
                _ = socket.connect(&address);
                socket
            });
            Self {
                _queue: (listener, queued.collect()),
                address: address.as_socket().unwrap(),
            }
        }
    }

    fn dialer(connect: Duration) -> Dialer {
        let limits = BackendLimits {
            connect,
            ..BackendLimits::default()
        };
        Dialer::new(ClientTls::new(), limits)
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
            schema: ferrypost_proto::SCHEMA,
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

    #[tokio::test(start_paused = true)]
    async fn addresses_are_remembered_for_a_while_and_then_asked_for_again() {
        let dialer = dialer(Duration::from_secs(5));
        // Its own address, so that nobody is asked in earnest.
        let endpoint = endpoint("127.0.0.1", 143);
        let old = addresses(&["192.0.2.1:143"]);
        dialer.remember("127.0.0.1", 143, &old);
        tokio::time::advance(REMEMBERED / 2).await;
        assert_eq!(dialer.resolve(&endpoint).await.unwrap(), old);
        tokio::time::advance(REMEMBERED / 2).await;
        let new = addresses(&["127.0.0.1:143"]);
        assert_eq!(dialer.resolve(&endpoint).await.unwrap(), new);
        assert_eq!(dialer.known().len(), 1);
    }
}
