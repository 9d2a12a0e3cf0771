//! A client that speaks by hand and reads by line.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::net;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    /// In clear.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self::over(Box::new(net::connect(address).await.unwrap()))
    }

    /// On a connection that exists already.
    pub(crate) fn over(stream: Box<dyn Stream>) -> Self {
        Self(BufReader::new(stream))
    }

    /// Under TLS, with the greeting read.
    pub(crate) async fn tls(address: SocketAddr, root: &CertificateDer<'static>) -> Self {
        let stream = net::connect(address).await.unwrap();
        let mut client = Self::handshake(Box::new(stream), root, &[]).await.unwrap();
        let greeting = client.line().await;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        client
    }

    pub(crate) async fn handshake(
        stream: Box<dyn Stream>,
        root: &CertificateDer<'static>,
        alpn: &[&[u8]],
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await?;
        Ok(Self(BufReader::new(Box::new(stream))))
    }

    /// Goes on under TLS.
    pub(crate) async fn upgrade(self, root: &CertificateDer<'static>) -> Self {
        assert!(self.0.buffer().is_empty(), "the server spoke before TLS");
        let stream = self.0.into_inner();
        Self::handshake(stream, root, &[]).await.unwrap()
    }

    /// Goes on under TLS, as the server.
    pub(crate) async fn accept_tls(self, config: Arc<ServerConfig>) -> Self {
        assert!(self.0.buffer().is_empty(), "the client spoke before TLS");
        let accepted = TlsAcceptor::from(config).accept(self.0.into_inner());
        Self::over(Box::new(accepted.await.unwrap()))
    }

    pub(crate) async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Sends as far as the other side takes it.
    pub(crate) async fn try_send(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.0.write_all(text).await?;
        self.0.flush().await
    }

    /// The next line without its end; empty at the end of the stream.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.0.read_line(&mut line)).await;
        // A reset is an end as well.
        _ = read.expect("no line came");
        line.trim_end().to_owned()
    }

    /// Everything up to the line that starts with `start`, that line included.
    pub(crate) async fn until(&mut self, start: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await;
            assert!(
                !line.is_empty(),
                "the stream ended before {start:?}: {lines:?}"
            );
            lines.push(line);
            if lines.last().is_some_and(|line| line.starts_with(start)) {
                return lines;
            }
        }
    }

    /// The line that starts with `start`, whatever comes before it.
    pub(crate) async fn answer(&mut self, start: &str) -> String {
        self.until(start).await.pop().unwrap()
    }

    /// Logs in, which must succeed.
    pub(crate) async fn login(&mut self, name: &str) {
        let answer = self.try_login(name, "secret").await;
        assert!(answer.starts_with("l OK"), "{answer}");
    }

    pub(crate) async fn try_login(&mut self, name: &str, password: &str) -> String {
        self.send(format!("l LOGIN {name} {password}\r\n")).await;
        self.answer("l ").await
    }

    /// Everything until the other side has closed.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        _ = read.expect("the connection stayed open");
        String::from_utf8_lossy(&rest).into_owned()
    }

    pub(crate) async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        timeout(PATIENCE, self.0.read_exact(&mut octets))
            .await
            .unwrap()
            .unwrap();
        octets
    }

    /// Says that it will send no more.
    pub(crate) async fn half_close(&mut self) {
        self.0.shutdown().await.unwrap();
    }
}
