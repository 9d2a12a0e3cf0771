//! A `ManageSieve` client for tests, by STARTTLS: it reads line by line and knows where an answer ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name that the server's certificate has to carry.
const SERVER_NAME: &str = "mail.example.org";

/// How to reach a server.
#[derive(Clone)]
pub struct SieveConnect {
    server: SocketAddr,
    trust: Arc<ClientConfig>,
    from: IpAddr,
    limit: Duration,
}

/// One connection, under TLS.
pub struct SieveClient {
    stream: BufReader<TlsStream<TcpStream>>,
    local: SocketAddr,
    limit: Duration,
    offered: Vec<String>,
}

impl SieveConnect {
    /// A connection to `server` from a local address, every line of which is waited for a minute.
    pub fn new(server: SocketAddr, trust: Arc<ClientConfig>, from: IpAddr) -> Self {
        Self {
            server,
            trust,
            from,
            limit: Duration::from_mins(1),
        }
    }

    /// Connects from this local address; all of 127.0.0.0/8 will do on Linux.
    #[must_use]
    pub fn from(mut self, local: IpAddr) -> Self {
        self.from = local;
        self
    }

    /// How long each line may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Connects, and reads what is offered behind the handshake.
    ///
    /// # Errors
    /// When the connection or the handshake fails, or an answer is not OK.
    pub async fn open(&self) -> io::Result<SieveClient> {
        let socket = match self.server {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(self.from, 0))?;
        let tcp = socket.connect(self.server).await?;
        let local = tcp.local_addr()?;
        let mut plain = BufReader::new(tcp);
        accepted(&answer(&mut plain, self.limit).await?)?;
        plain.write_all(b"STARTTLS\r\n").await?;
        accepted(&answer(&mut plain, self.limit).await?)?;
        if !plain.buffer().is_empty() {
            return Err(io::Error::other("bytes between STARTTLS and the handshake"));
        }
        let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
        let connector = TlsConnector::from(Arc::clone(&self.trust));
        let tls = connector.connect(name, plain.into_inner()).await?;
        let mut stream = BufReader::new(tls);
        let offered = answer(&mut stream, self.limit).await?;
        accepted(&offered)?;
        Ok(SieveClient {
            stream,
            local,
            limit: self.limit,
            offered,
        })
    }
}

impl SieveClient {
    /// Our end of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The lines that came behind the handshake.
    pub fn offered(&self) -> &[String] {
        &self.offered
    }

    /// Sends octets.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// The next line without its end; `None` at the end of the connection.
    ///
    /// # Errors
    /// The connection's; `TimedOut` when nothing comes.
    pub async fn line(&mut self) -> io::Result<Option<String>> {
        line(&mut self.stream, self.limit).await
    }

    /// Sends a command, and gives back the lines of its answer. (Lines of a literal that begin like a status would
    /// be taken for the end.)
    ///
    /// # Errors
    /// The connection's, also when it ends.
    pub async fn command(&mut self, command: &str) -> io::Result<Vec<String>> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        answer(&mut self.stream, self.limit).await
    }

    /// Logs in, which must succeed.
    ///
    /// # Errors
    /// The connection's, or the server's refusal.
    pub async fn login(&mut self, user: &str, password: &str) -> io::Result<()> {
        let plain = BASE64.encode(format!("\0{user}\0{password}"));
        let command = format!("AUTHENTICATE \"PLAIN\" \"{plain}\"");
        accepted(&self.command(&command).await?)
    }
}

async fn answer(
    stream: &mut (impl AsyncBufReadExt + Unpin),
    limit: Duration,
) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let next = line(stream, limit).await?;
        let next = next.ok_or_else(|| io::Error::other(format!("it ended behind {lines:?}")))?;
        let status = next.split(' ').next().unwrap_or_default();
        let is_end = ["OK", "NO", "BYE"].contains(&status);
        lines.push(next);
        if is_end {
            return Ok(lines);
        }
    }
}

async fn line(
    stream: &mut (impl AsyncBufReadExt + Unpin),
    limit: Duration,
) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = timeout(limit, stream.read_until(b'\n', &mut line)).await;
    match read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
        // Some servers end TLS without saying so.
        Ok(0) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
    }
}

fn accepted(answer: &[String]) -> io::Result<()> {
    match answer.last() {
        Some(status) if status.starts_with("OK") => Ok(()),
        _ => Err(io::Error::other(format!("refused: {answer:?}"))),
    }
}
