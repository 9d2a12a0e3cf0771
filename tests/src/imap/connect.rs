//! Opening a connection: from where, under which announcement, with which TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ppp::v2;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{ImapClient, ImapError, Stream};

/// The name that the server's certificate has to carry.
const SERVER_NAME: &str = "mail.example.org";

/// How a connection is protected.
#[derive(Clone)]
pub enum Security {
    /// Not at all.
    Plain,
    /// By STARTTLS after the greeting.
    StartTls(Arc<ClientConfig>),
    /// From the first byte.
    Tls(Arc<ClientConfig>),
}

/// How to reach a server.
#[derive(Clone)]
pub struct Connect {
    server: SocketAddr,
    security: Security,
    from: Option<IpAddr>,
    announced: Option<(SocketAddr, SocketAddr)>,
    limit: Duration,
}

impl Connect {
    /// A connection to `server`, every answer of which is waited for a minute.
    pub fn new(server: SocketAddr, security: Security) -> Self {
        let limit = Duration::from_mins(1);
        Self {
            server,
            security,
            from: None,
            announced: None,
            limit,
        }
    }

    /// Connects from this local address; all of 127.0.0.0/8 will do on Linux.
    #[must_use]
    pub fn from(mut self, local: IpAddr) -> Self {
        self.from = Some(local);
        self
    }

    /// Begins with a PROXY protocol version 2 header that says `client` connected to `local`.
    #[must_use]
    pub fn announcing(mut self, client: SocketAddr, local: SocketAddr) -> Self {
        self.announced = Some((client, local));
        self
    }

    /// How long each answer may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Connects and reads the greeting, and with STARTTLS goes on to the capabilities behind it.
    ///
    /// # Errors
    /// When the connection or the handshake fails, the server says BYE or closes, or nothing comes.
    pub async fn open(&self) -> Result<ImapClient, ImapError> {
        let limit = self.limit;
        timeout(limit, self.open_unbounded())
            .await
            .unwrap_or(Err(ImapError::Late(limit)))
    }

    /// Under TLS this protocol is asked for by ALPN.
    #[must_use]
    pub(crate) fn speaking(mut self, protocol: &[u8]) -> Self {
        if let Security::Tls(config) = &mut self.security {
            Arc::make_mut(config).alpn_protocols = vec![protocol.to_vec()];
        }
        self
    }

    /// How long each answer may take.
    pub(crate) fn patience(&self) -> Duration {
        self.limit
    }

    /// A connection on which nothing has been read, under TLS, or in clear where TLS comes later if at all; and our
    /// end of it.
    pub(crate) async fn stream(&self) -> Result<(Box<dyn Stream>, SocketAddr), ImapError> {
        let tcp = self.dial().await?;
        let local = tcp.local_addr()?;
        let stream: Box<dyn Stream> = match &self.security {
            Security::Tls(config) => handshake(config, tcp).await?,
            Security::Plain | Security::StartTls(_) => Box::new(tcp),
        };
        Ok((stream, local))
    }

    /// The same connection under TLS, where it comes later.
    pub(crate) async fn secure(
        &self,
        clear: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, ImapError> {
        match &self.security {
            Security::StartTls(config) => handshake(config, clear).await,
            Security::Plain | Security::Tls(_) => Err(ImapError::Protocol("nothing to secure")),
        }
    }

    async fn open_unbounded(&self) -> Result<ImapClient, ImapError> {
        let tcp = self.dial().await?;
        let local = tcp.local_addr()?;
        let mut client = self.secured(tcp).await?;
        client.local = Some(local);
        Ok(client)
    }

    async fn secured(&self, tcp: TcpStream) -> Result<ImapClient, ImapError> {
        match &self.security {
            Security::Plain => self.greeted(Box::new(tcp)).await,
            Security::Tls(config) => {
                let tls = handshake(config, tcp).await?;
                self.greeted(tls).await
            }
            Security::StartTls(config) => {
                let mut plain = self.greeted(Box::new(tcp)).await?;
                plain.command("STARTTLS").await?.accepted()?;
                if !plain.input.is_empty() {
                    return Err(ImapError::Protocol(
                        "bytes between STARTTLS and the handshake",
                    ));
                }
                let tls = handshake(config, plain.stream).await?;
                let mut client = ImapClient::new(tls, self.limit);
                client.greeting = plain.greeting;
                client.capability().await?;
                Ok(client)
            }
        }
    }

    async fn dial(&self) -> Result<TcpStream, ImapError> {
        let socket = match self.server {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(local) = self.from {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        let mut tcp = socket.connect(self.server).await?;
        tcp.set_nodelay(true)?;
        if let Some((client, local)) = self.announced {
            tcp.write_all(&proxy_header(client, local)?).await?;
        }
        Ok(tcp)
    }

    async fn greeted(&self, stream: Box<dyn Stream>) -> Result<ImapClient, ImapError> {
        let mut client = ImapClient::new(stream, self.limit);
        let greeting = client.next_response().await?;
        if !greeting.is_untagged() {
            return Err(ImapError::Protocol("no greeting"));
        }
        if let Some(bye) = client.bye.take() {
            return Err(ImapError::Closed { bye: Some(bye) });
        }
        greeting.text["* ".len()..].clone_into(&mut client.greeting);
        Ok(client)
    }
}

/// The header that a proxy would send in front of `client`'s connection to `local`.
fn proxy_header(client: SocketAddr, local: SocketAddr) -> io::Result<Vec<u8>> {
    v2::Builder::with_addresses(
        v2::Version::Two | v2::Command::Proxy,
        v2::Protocol::Stream,
        (client, local),
    )
    .build()
}

async fn handshake(
    config: &Arc<ClientConfig>,
    stream: impl Stream + 'static,
) -> Result<Box<dyn Stream>, ImapError> {
    let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
    let connector = TlsConnector::from(Arc::clone(config));
    let tls = connector
        .connect(name, stream)
        .await
        .map_err(ImapError::Tls)?;
    Ok(Box::new(tls))
}
