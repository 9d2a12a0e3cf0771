//! One connection of the load, which costs as little as it can.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::protocol::Protocol;

/// Octets that are read at once.
pub(super) const PIECE: usize = 256 * 1024;

/// Who logs in where.
#[derive(Clone)]
pub(super) struct Target {
    /// The proxy.
    pub(super) address: SocketAddr,
    /// What is spoken there.
    pub(super) protocol: Protocol,
    /// The login's name.
    pub(super) login: &'static str,
    /// Made by [`one_suite`].
    pub(super) tls: Arc<ClientConfig>,
}

/// A client that offers one suite, so that every proxy does the same arithmetic, and shakes hands in full every time.
/// `authority` is a certificate, PEM.
pub(super) fn one_suite(authority: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let crypto = CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection under TLS and what was read from it.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    pub(super) input: Vec<u8>,
}

impl Connection {
    /// Connects, shakes hands and says nothing yet.
    pub(super) async fn open(target: &Target) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(target.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(target.address.ip());
        let connector = TlsConnector::from(Arc::clone(&target.tls));
        Ok(Self {
            stream: connector.connect(name, tcp).await.context("TLS")?,
            input: Vec::new(),
        })
    }

    /// What was agreed on: the suite and the group of the key exchange.
    pub(super) fn agreed(&self) -> Option<String> {
        let (_, session) = self.stream.get_ref();
        let suite = session.negotiated_cipher_suite()?.suite();
        let group = session.negotiated_key_exchange_group()?.name();
        Some(format!("{}, {group:?}", suite.as_str()?))
    }

    pub(super) async fn send(&mut self, octets: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.stream.write_all(octets.as_ref()).await?;
        Ok(self.stream.flush().await?)
    }

    /// Sends a line, if there is one, and reads up to the last line of its answer, which begins with `answer`.
    pub(super) async fn ask(&mut self, line: &str, answer: &str) -> anyhow::Result<()> {
        if !line.is_empty() {
            self.send(format!("{line}\r\n")).await?;
        }
        let said = self.line().await?;
        ensure!(
            said.starts_with(answer),
            "{line:?} was answered by {said:?}"
        );
        Ok(())
    }

    /// The next line without its end.
    pub(super) async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.read().await?;
        }
    }

    /// Reads once, behind what was read and not used.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.stream.read_buf(&mut self.input).await? > 0,
            "the connection was closed"
        );
        Ok(())
    }

    /// Waits for the peer's close, and closes.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
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
}
