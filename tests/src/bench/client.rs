//! One connection of the load, which costs as little as it can.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::backend::{FETCHED, MESSAGE, message};

/// Octets that are read at once.
const PIECE: usize = 256 * 1024;

/// Who logs in where.
#[derive(Clone)]
pub(super) struct Target {
    /// The proxy.
    pub(super) address: SocketAddr,
    /// The login's name.
    pub(super) login: &'static str,
    /// Made by [`without_resumption`].
    pub(super) tls: Arc<ClientConfig>,
}

/// The same trust, but every connection shakes hands in full. AES-256-GCM-SHA384 comes first in the
/// client's list, as it does in most.
pub(super) fn without_resumption(trust: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = trust.clone();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A connection that was greeted.
pub(super) struct Client {
    stream: TlsStream<TcpStream>,
    input: Vec<u8>,
}

impl Client {
    /// Connects and reads the greeting.
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(target.address.ip());
        let connector = TlsConnector::from(Arc::clone(&target.tls));
        let mut client = Self {
            stream: connector.connect(name, tcp).await.context("TLS")?,
            input: Vec::new(),
        };
        let greeting = client.line().await?;
        ensure!(greeting.starts_with("* OK"), "greeted by {greeting:?}");
        Ok(client)
    }

    /// Connects and logs in.
    pub(super) async fn logged_in(target: &Target) -> anyhow::Result<Self> {
        let mut client = Self::connect(target).await?;
        client
            .command(&format!("LOGIN {} secret", target.login))
            .await?;
        Ok(client)
    }

    /// The cipher suite that was agreed.
    pub(super) fn suite(&self) -> Option<&'static str> {
        let (_, session) = self.stream.get_ref();
        session.negotiated_cipher_suite()?.suite().as_str()
    }

    /// Sends a command and waits for its OK.
    pub(super) async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.send(format!("a {command}\r\n").as_bytes()).await?;
        self.accepted().await
    }

    /// Begins to wait for news, and stays so.
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        self.send(b"a IDLE\r\n").await?;
        let line = self.line().await?;
        ensure!(line.starts_with('+'), "IDLE was answered by {line:?}");
        self.input = Vec::new();
        Ok(())
    }

    /// Reads the one message.
    pub(super) async fn fetch(&mut self) -> anyhow::Result<()> {
        self.send(b"a FETCH 1 BODY[]\r\n").await?;
        self.input.reserve(PIECE);
        let mut left = FETCHED.len();
        loop {
            let taken = left.min(self.input.len());
            self.input.drain(..taken);
            left -= taken;
            if left == 0 {
                return self.accepted().await;
            }
            self.read().await?;
        }
    }

    /// Stores a message; `octets` is what [`appended`] made.
    pub(super) async fn append(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.send(octets).await?;
        self.accepted().await
    }

    /// Logs out and waits for the close.
    pub(super) async fn logout(mut self) -> anyhow::Result<()> {
        self.command("LOGOUT").await?;
        match self.stream.read(&mut [0]).await {
            Ok(0) => {}
            Ok(_) => bail!("something came after the end"),
            // The end of TCP without that of TLS.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error.into()),
        }
        // The peer may have closed both ways already.
        _ = self.stream.shutdown().await;
        Ok(())
    }

    async fn send(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(octets).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads untagged lines up to the tagged one.
    async fn accepted(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            if let Some(answer) = line.strip_prefix("a ") {
                ensure!(answer.starts_with("OK"), "refused: {answer:?}");
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.stream.read_buf(&mut self.input).await? > 0,
            "the connection was closed"
        );
        Ok(())
    }
}

/// The command that stores a message, with the message.
pub(super) fn appended() -> Vec<u8> {
    let mut octets = format!("a APPEND INBOX {{{MESSAGE}+}}\r\n").into_bytes();
    octets.extend(message());
    octets.extend(b"\r\n");
    octets
}
