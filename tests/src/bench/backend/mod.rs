//! The mail server behind the proxies: as little as a proxy can be measured with.
//!
//! It takes any login, holds one message of a mebibyte, stores nothing, and answers from memory. It runs in a process of
//! its own, so that what it costs is not counted as a proxy's. So does what nginx asks where a login goes
//! (`auth_http`).

mod auth_http;
mod http;
mod imap;
mod lines;
mod lmtp;
mod pop3;
mod submission;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(super) use http::SMALL;
pub(super) use imap::{FETCHED, MESSAGE, message};
pub(super) use lmtp::Sink;

use super::protocol::Protocol;
use lines::Lines;

/// Where it listens, and what it shows under TLS.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The addresses in clear: IMAP, POP3, submission, HTTP.
    #[arg(long, num_args = 4)]
    plain: Vec<SocketAddr>,
    /// The addresses under TLS, in the same order.
    #[arg(long, num_args = 4)]
    tls: Vec<SocketAddr>,
    /// Where nginx asks; it is sent to the addresses in clear.
    #[arg(long)]
    auth_http: SocketAddr,
    /// The certificate, PEM.
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long)]
    key: PathBuf,
}

/// Serves until the process is killed.
///
/// # Errors
/// When it cannot listen, or has no certificate.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let acceptor = acceptor(&options.certificate, &options.key)?;
    let mut listening = JoinSet::new();
    for (protocol, &address) in Protocol::ALL.into_iter().zip(&options.plain) {
        let listener = TcpListener::bind(address).await?;
        listening.spawn(accept(listener, move |stream| serve(protocol, stream)));
    }
    for (protocol, &address) in Protocol::ALL.into_iter().zip(&options.tls) {
        let listener = TcpListener::bind(address).await?;
        let acceptor = acceptor.clone();
        listening.spawn(accept(listener, move |stream| {
            let accepting = acceptor.accept(stream);
            async move { serve(protocol, accepting.await?).await }
        }));
    }
    let listener = TcpListener::bind(options.auth_http).await?;
    let backends: Arc<[SocketAddr]> = options.plain.into();
    listening.spawn(accept(listener, move |stream| {
        auth_http::serve(stream, Arc::clone(&backends))
    }));
    while let Some(ended) = listening.join_next().await {
        ended??;
    }
    Ok(())
}

fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .context("the certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("the key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A client that goes away in the middle of something is no failure of ours.
async fn accept<F>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send,
) -> anyhow::Result<()>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(
    protocol: Protocol,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut lines = Lines::new(stream);
    match protocol {
        Protocol::Imap => imap::serve(&mut lines).await?,
        Protocol::Pop3 => pop3::serve(&mut lines).await?,
        Protocol::Submission => submission::serve(&mut lines).await?,
        Protocol::Http => http::serve(&mut lines).await?,
    }
    lines.end().await
}
