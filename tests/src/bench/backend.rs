//! The mail server behind the proxies: as little as a proxy can be measured with.
//!
//! It takes any login, holds one message of a mebibyte, stores nothing, and answers from memory. It runs
//! in a process of its own, so that what it costs is not counted as a proxy's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Octets of the one message, and of each that is appended.
pub const MESSAGE: usize = 1 << 20;

/// What `FETCH` is answered with, the tagged line excepted.
pub static FETCHED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut answer = format!("* 1 FETCH (BODY[] {{{MESSAGE}}}\r\n").into_bytes();
    answer.extend(message());
    answer.extend(b")\r\n");
    answer
});

const CAPABILITIES: &str = "IMAP4rev1 LITERAL+ SASL-IR IDLE ID AUTH=PLAIN AUTH=LOGIN";

/// Octets that are read at once.
const PIECE: usize = 64 * 1024;

/// The text of a message: lines, as mail has them.
pub fn message() -> impl Iterator<Item = u8> {
    let line = b"The quick brown fox jumps over the lazy dog, and nobody proxies it!\r\n";
    line.iter().copied().cycle().take(MESSAGE)
}

/// Where it listens, and what it shows under TLS.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The address in clear.
    #[arg(long)]
    plain: SocketAddr,
    /// The address under TLS.
    #[arg(long)]
    tls: SocketAddr,
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
    let plain = TcpListener::bind(options.plain).await?;
    let tls = TcpListener::bind(options.tls).await?;
    tokio::try_join!(
        accept(plain, |stream| async move { serve(stream).await }),
        accept(tls, move |stream| {
            let acceptor = acceptor.clone();
            async move { serve(acceptor.accept(stream).await?).await }
        }),
    )?;
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
async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut session = Session {
        stream,
        input: Vec::new(),
    };
    let greeting = format!("* OK [CAPABILITY {CAPABILITIES}] bench\r\n");
    session.say(greeting.as_bytes()).await?;
    while let Some(line) = session.line().await? {
        if !session.answer(&line).await? {
            break;
        }
    }
    session.stream.shutdown().await
}

struct Session<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Answers one command; false after a LOGOUT.
    async fn answer(&mut self, line: &str) -> std::io::Result<bool> {
        let mut words = line.split(' ');
        let tag = words.next().unwrap_or_default();
        let command = words.next().unwrap_or_default().to_ascii_uppercase();
        match command.as_str() {
            "CAPABILITY" => {
                self.say(format!("* CAPABILITY {CAPABILITIES}\r\n").as_bytes())
                    .await?;
            }
            "ID" => self.say(b"* ID NIL\r\n").await?,
            "AUTHENTICATE" if words.count() < 2 => {
                self.say(b"+ \r\n").await?;
                self.line().await?;
            }
            "FETCH" => self.say(&FETCHED).await?,
            "APPEND" => self.take(literal(line) + "\r\n".len()).await?,
            "IDLE" => {
                self.say(b"+ idling\r\n").await?;
                self.line().await?;
            }
            "LOGOUT" => {
                self.say(format!("* BYE\r\n{tag} OK\r\n").as_bytes())
                    .await?;
                return Ok(false);
            }
            _ => {}
        }
        self.say(format!("{tag} OK {command} done\r\n").as_bytes())
            .await?;
        Ok(true)
    }

    async fn say(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// The next line without its end; `None` when the peer has ended.
    async fn line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end().to_owned()));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads octets and forgets them.
    async fn take(&mut self, count: usize) -> std::io::Result<()> {
        let buffered = count.min(self.input.len());
        self.input.drain(..buffered);
        let mut left = count - buffered;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let room = left.min(PIECE);
            match self.stream.read(&mut piece[..room]).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                taken => left -= taken,
            }
        }
        Ok(())
    }
}

/// The length in a line that ends in `{n+}`; 0 when it does not.
fn literal(line: &str) -> usize {
    line.rsplit_once('{')
        .and_then(|(_, length)| length.strip_suffix("+}"))
        .and_then(|length| length.parse().ok())
        .unwrap_or(0)
}
