//! Where mail systems ask for the way of a recipient: one truth for logins and for deliveries.
//!
//! ```text
//!   question ─ address ─ name, or its domain ─ table in force ─┬─ next hop, in the mail system's own words
//!   socketmap, http      (proto)               next_hops       ├─ held: come again
//!                                                              ├─ not ours, as a configured fact
//!                                                              └─ not known: come again
//! ```
//!
//! Nothing is registered for a look-up: what was answered may be old when the message is sent, so a mail system that
//! delivers past us can still reach the old server for as long as that takes (`docs/lookups.md`).

mod http;
pub mod next_hops;
pub mod settings;
mod socketmap;
#[cfg(test)]
mod testing;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use ferrypost_runtime::{
    accept::{self, Complaints},
    shutdown::Shutdown,
    tls::FileError,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    next_hops::NextHops,
    settings::{LookupProtocol, LookupSettings},
};
use crate::net::{
    local::{LocalListener, LocalStream, Neighbour, Place},
    tls_server::ServerTls,
};

/// Connections at once on one listener, each one process of a mail system. Past it one is closed as it comes, which a
/// mail system takes for a reason to try again.
pub const CONNECTIONS: usize = 256;

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A listener that is bound.
pub struct Lookup {
    settings: LookupSettings,
    tls: Option<ServerTls>,
    socket: LocalListener,
    bound: Bound,
}

/// Where a listener has really been bound: where the configuration says port 0, the one that was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Bound(Place);

impl Bound {
    /// The address, if it is none in the file system.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Place::Address(address) => Some(address),
            Place::File { .. } => None,
        }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why nobody can ask.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system does not give us the place.
    #[error("lookups {name}: cannot listen on {place}: {error}")]
    Socket {
        /// The listener's name.
        name: String,
        /// Where it was to be.
        place: Place,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate cannot be used.
    #[error("lookups {name}: {error}")]
    Certificate {
        /// The listener's name.
        name: String,
        /// Why.
        error: FileError,
    },
}

impl Lookup {
    /// Binds the socket. Who asks now waits until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`BindError`]
    pub fn bind(settings: LookupSettings) -> Result<Self, BindError> {
        let name = || settings.name.clone();
        let tls = match &settings.protocol {
            LookupProtocol::Http(files) if !files.is_empty() => {
                let tls = ServerTls::new(files, Some(b"http/1.1"));
                Some(tls.map_err(|error| BindError::Certificate {
                    name: name(),
                    error,
                })?)
            }
            _ => None,
        };
        let bound = LocalListener::bind(&settings.place).and_then(|socket| {
            let address = socket.address()?;
            Ok((socket, address))
        });
        let (socket, address) = bound.map_err(|error| BindError::Socket {
            name: name(),
            place: settings.place.clone(),
            error,
        })?;
        let place = address.map_or_else(|| settings.place.clone(), Place::Address);
        Ok(Self {
            settings,
            tls,
            socket,
            bound: Bound(place),
        })
    }

    /// Its name in logs.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Where it is bound.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// What is configured.
    pub fn settings(&self) -> &LookupSettings {
        &self.settings
    }

    /// Its certificates, to be kept fresh.
    pub fn tls(&self) -> Option<&ServerTls> {
        self.tls.as_ref()
    }

    /// Answers until the process begins to stop.
    pub async fn serve(self, next_hops: Arc<NextHops>, shutdown: Shutdown) {
        let stopping = shutdown.stopping().clone();
        let accepting = self.accept_all(next_hops, shutdown);
        _ = stopping.run_until_cancelled(accepting).await;
    }

    async fn accept_all(self, next_hops: Arc<NextHops>, shutdown: Shutdown) {
        let complaints = Complaints::of(&self.settings.name);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let accept = || self.socket.accept();
        accept::connections(&complaints, accept, |(stream, neighbour)| {
            if !self.may_ask(neighbour) {
                complaints.about(&format_args!("{neighbour} may not ask"));
                return;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                complaints.about(&"too many connections");
                return;
            };
            let answering = Answering {
                protocol: self.settings.protocol.clone(),
                tls: self.tls.clone(),
                next_hops: Arc::clone(&next_hops),
                stopping: shutdown.stopping().clone(),
                _place: place,
            };
            shutdown.spawn(answering.all(stream));
        })
        .await;
    }

    fn may_ask(&self, neighbour: Neighbour) -> bool {
        match neighbour {
            Neighbour::Address(peer) => {
                let mut from = self.settings.from.iter();
                from.any(|network| network.contains(peer.ip()))
            }
            Neighbour::File => true,
        }
    }
}

/// What one connection is answered with.
struct Answering {
    protocol: LookupProtocol,
    tls: Option<ServerTls>,
    next_hops: Arc<NextHops>,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Answering {
    async fn all(self, stream: LocalStream) {
        match (&self.protocol, &self.tls, stream) {
            (LookupProtocol::Socketmap, _, stream) => {
                let answering = socketmap::answer_all(stream, &self.next_hops);
                _ = self.stopping.run_until_cancelled(answering).await;
            }
            (LookupProtocol::Http(_), Some(tls), LocalStream::Tcp(stream)) => {
                let handshake = timeout(HANDSHAKE, tls.accept_stream(stream));
                let secured = self.stopping.run_until_cancelled(handshake).await;
                if let Some(Ok(Ok(stream))) = secured {
                    http::answer_all(stream, &self.next_hops, &self.stopping).await;
                }
            }
            (LookupProtocol::Http(_), _, stream) => {
                http::answer_all(stream, &self.next_hops, &self.stopping).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{
        testing::{next_hops, tables},
        *,
    };
    use crate::{
        net::{self, TcpStream},
        tables::Tables,
    };

    const SOCKETMAP: LookupProtocol = LookupProtocol::Socketmap;
    const HTTP: LookupProtocol = LookupProtocol::Http(Vec::new());

    struct Listening {
        address: SocketAddr,
        shutdown: Shutdown,
    }

    impl Listening {
        fn new(protocol: LookupProtocol, from: &str, tables: &Tables) -> Self {
            let lookup = Lookup::bind(LookupSettings {
                name: "transport".to_owned(),
                protocol,
                place: Place::Address("127.0.0.1:0".parse().unwrap()),
                from: vec![from.parse().unwrap()],
                next_hops: [].into(),
            })
            .unwrap();
            let shutdown = Shutdown::new();
            let address = lookup.bound().address().unwrap();
            let next_hops = Arc::new(next_hops(tables));
            shutdown.spawn(lookup.serve(next_hops, shutdown.clone()));
            Self { address, shutdown }
        }

        /// Everything that is answered to all of this at once.
        async fn told(&self, said: &[u8]) -> String {
            let mut stream = net::connect(self.address).await.unwrap();
            _ = stream.write_all(said).await;
            _ = stream.shutdown().await;
            rest(&mut stream).await
        }

        /// The status and the body of the answer to a request.
        async fn asked(&self, request: &str) -> (String, String) {
            let told = self.told(request.as_bytes()).await;
            let (head, body) = told.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap();
            (status.to_owned(), body.trim().to_owned())
        }
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut told = String::new();
        _ = stream.read_to_string(&mut told).await;
        told
    }

    #[tokio::test]
    async fn questions_that_come_together_are_answered_in_order_and_nonsense_ends_it() {
        let listening = Listening::new(SOCKETMAP, "127.0.0.1", &tables());
        let said =
            b"25:transport alice@a.example,23:transport eve@x.example,x22:transport bob@a.example,";
        assert_eq!(
            listening.told(said).await,
            "27:OK lmtp:[source.example]:24,9:NOTFOUND ,"
        );
    }

    #[tokio::test]
    async fn an_account_that_is_moved_is_deferred_in_the_words_of_who_asks() {
        let listening = Listening::new(SOCKETMAP, "127.0.0.1", &tables());
        for (said, told) in [
            (
                "23:transport bob@a.example,",
                "42:OK retry:4.2.1 This mailbox is being moved,",
            ),
            (
                "22:next-hop bob@a.example,",
                "38:TEMP 4.2.1 This mailbox is being moved,",
            ),
            (
                "23:relocated bob@a.example,",
                "44:PERM the maps are \"transport\" and \"next-hop\",",
            ),
        ] {
            assert_eq!(listening.told(said.as_bytes()).await, told, "{said}");
        }
    }

    #[tokio::test]
    async fn without_a_table_every_question_is_to_be_asked_again() {
        let tables = tables();
        let listening = Listening::new(SOCKETMAP, "127.0.0.1", &tables);
        let http = Listening::new(HTTP, "127.0.0.1", &tables);
        tables.withdraw();
        tokio::time::pause();
        for address in ["alice@a.example", "eve@x.example"] {
            let question = format!("transport {address}");
            let said = format!("{}:{question},", question.len());
            let told = listening.told(said.as_bytes()).await;
            assert!(told.contains(":TEMP "), "{told}");
            let request = format!("GET /next-hop?recipient={address} HTTP/1.0\r\n\r\n");
            let (status, body) = http.asked(&request).await;
            assert_eq!(status, "503", "{body}");
            assert!(body.contains("\"unavailable\""), "{body}");
        }
    }

    #[tokio::test]
    async fn http_says_where_by_either_method_and_in_either_form() {
        let listening = Listening::new(HTTP, "127.0.0.1", &tables());
        let found =
            r#"{"answer":"found","destination":"source","next_hop":"lmtp:[source.example]:24"}"#;
        for address in [
            "alice@a.example",
            "alice%2bx%40a.example",
            "alice+x@a.example",
        ] {
            let request = format!("GET /next-hop?recipient={address} HTTP/1.0\r\n\r\n");
            let asked = listening.asked(&request).await;
            assert_eq!(asked, ("200".to_owned(), found.to_owned()), "{address}");
        }
        let posted = "POST /next-hop HTTP/1.0\r\nContent-Length: 18\r\n\r\nalice+%&@a.example";
        assert_eq!(listening.asked(posted).await.1, found);
        let text = posted.replace("\r\nContent", "\r\nAccept: text/plain\r\nContent");
        assert_eq!(listening.asked(&text).await.1, "lmtp:[source.example]:24");
        let none = listening
            .asked("GET /next-hop?recipient=eve@x.example HTTP/1.0\r\n\r\n")
            .await;
        assert_eq!(
            none,
            ("200".to_owned(), r#"{"answer":"not_found"}"#.to_owned())
        );
    }

    #[tokio::test]
    async fn http_says_by_its_status_whatever_is_no_certain_answer() {
        let listening = Listening::new(HTTP, "127.0.0.1", &tables());
        let long = format!(
            "POST /next-hop HTTP/1.0\r\nContent-Length: 4000\r\n\r\n{}",
            "a".repeat(4000)
        );
        for (request, status) in [
            (
                "GET /next-hop?recipient=bob@a.example HTTP/1.0\r\n\r\n",
                "503",
            ),
            (
                "GET /elsewhere?recipient=alice@a.example HTTP/1.0\r\n\r\n",
                "400",
            ),
            ("GET /next-hop HTTP/1.0\r\n\r\n", "400"),
            ("GET /next-hop?recipient= HTTP/1.0\r\n\r\n", "400"),
            (
                "GET /next-hop?recipient=a&recipient=b HTTP/1.0\r\n\r\n",
                "400",
            ),
            ("POST /next-hop HTTP/1.0\r\n\r\n", "400"),
            ("PUT /next-hop HTTP/1.0\r\n\r\n", "405"),
            (&long, "400"),
        ] {
            let (told, body) = listening.asked(request).await;
            assert_eq!(told, status, "{request}: {body}");
        }
    }

    #[tokio::test]
    async fn who_may_not_ask_is_told_nothing() {
        for protocol in [SOCKETMAP, HTTP] {
            let listening = Listening::new(protocol, "192.0.2.0/24", &tables());
            let said = b"25:transport alice@a.example,";
            assert_eq!(listening.told(said).await, "");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_the_process() {
        for protocol in [SOCKETMAP, HTTP] {
            let listening = Listening::new(protocol, "127.0.0.1", &tables());
            let mut stream = net::connect(listening.address).await.unwrap();
            // Of either protocol half a question.
            stream.write_all(b"2").await.unwrap();
            listening.shutdown.stop();
            assert_eq!(rest(&mut stream).await, "");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_half_a_question_or_nothing_is_hung_up_on() {
        for (protocol, said) in [
            (SOCKETMAP, "2"),
            (SOCKETMAP, ""),
            (HTTP, "GET /next"),
            (HTTP, ""),
            (
                HTTP,
                "POST /next-hop HTTP/1.1\r\nContent-Length: 5\r\n\r\na",
            ),
        ] {
            let listening = Listening::new(protocol, "127.0.0.1", &tables());
            let mut stream = net::connect(listening.address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            let told = rest(&mut stream).await;
            assert!(told.is_empty() || told.contains(" 400 "), "{told}");
        }
    }
}
