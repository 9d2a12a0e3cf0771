//! The connections to an issuer: HTTP/1.1, kept open between questions.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use ferrypost_runtime::{
    reload::Reloading,
    shutdown::Shutdown,
    tls::{authorities, crypto},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::super::{
    Means,
    settings::{IntrospectionSettings, LoginError},
};
use crate::net::{race::race, resolver::Resolver};

/// The longest answer that is read, in octets: claims of one person.
const MAX_ANSWER: usize = 64 << 10;

/// How long an answer is waited for on a connection that was idle, and no longer than half of what an answer may
/// take at all: a firewall or a failed-over issuer may have forgotten it, and nothing would ever come.
const SILENCE: Duration = Duration::from_secs(1);

/// Where tokens are asked about.
pub(super) struct Issuer {
    uri: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Who we are there, as the header has it.
    login: Arc<Reloading<HeaderValue, LoginError>>,
    resolver: Resolver,
    /// Connections on which nothing is being asked.
    idle: Mutex<Vec<Connection>>,
    most_idle: usize,
    patience: Duration,
    tasks: Shutdown,
}

type Connection = SendRequest<Full<Bytes>>;

/// What an issuer said.
pub(super) struct Said {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why an issuer did not say whose a token is. Nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// It took too long, or there were too many to ask about.
    #[error("no answer within limits.tokens.answer")]
    Timeout,
    /// It cannot be reached.
    #[error("cannot be reached ({0})")]
    Unreachable(io::ErrorKind),
    /// The connection failed.
    #[error("the connection failed")]
    Broken,
    /// It answered with something else than what was asked for.
    #[error("answered {0}")]
    Status(StatusCode),
    /// It does not know us.
    #[error("answered {0}: check how Ferrypost is known there (tokens.introspection)")]
    Unauthorised(StatusCode),
    /// Its answer is not one, or too long.
    #[error("the answer was not understood")]
    Malformed,
}

impl Issuer {
    pub(super) fn new(settings: &IntrospectionSettings, means: &Means<'_>) -> anyhow::Result<Self> {
        let uri = settings.url.clone();
        let tls = match uri.scheme_str() {
            Some("https") => Some(client(settings.ca_file.as_ref(), host(&uri))?),
            _ => None,
        };
        let login = settings.login.clone();
        let login = Reloading::new(vec![login.file().to_owned()], move || login.read())?;
        let login = Arc::new(login);
        means
            .tasks
            .spawn_background(Arc::clone(&login).keep_fresh());
        Ok(Self {
            uri,
            tls,
            login,
            resolver: means.resolver.clone(),
            idle: Mutex::default(),
            most_idle: means.limits.at_once,
            patience: SILENCE.min(means.limits.answer / 2),
            tasks: means.tasks.clone(),
        })
    }

    /// Asks. On a connection that was idle the issuer may just have closed it: then once more on a new one. Where
    /// nothing comes on it, nothing would on the other idle ones.
    pub(super) async fn ask(&self, form: Bytes) -> Result<Said, IssuerError> {
        let idle = self.idle().pop();
        if let Some(connection) = idle {
            let asking = self.ask_on(connection, form.clone());
            match timeout(self.patience, asking).await {
                Ok(Ok(said)) => return said.understood(),
                Ok(Err(_)) => {}
                Err(_) => self.idle().clear(),
            }
        }
        let connection = self.connect().await?;
        self.ask_on(connection, form).await?.understood()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_on(&self, mut connection: Connection, form: Bytes) -> Result<Heard, IssuerError> {
        connection.ready().await.map_err(|_| IssuerError::Broken)?;
        let answer = connection.send_request(self.question(form)).await;
        let answer = answer.map_err(|_| IssuerError::Broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| IssuerError::Malformed)?.to_bytes();
        let mut idle = self.idle();
        if idle.len() < self.most_idle && !connection.is_closed() {
            idle.push(connection);
        }
        Ok(Heard {
            status: head.status,
            said: Said {
                headers: head.headers,
                body,
            },
        })
    }

    fn question(&self, form: Bytes) -> Request<Full<Bytes>> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let login = HeaderValue::clone(&self.login.current());
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.uri.authority().map_or("", |it| it.as_str()))
            .header(AUTHORIZATION, login)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Full::new(form))
            .expect("the parts of a valid URI make a request")
    }

    async fn connect(&self) -> Result<Connection, IssuerError> {
        let unreachable = |error: io::Error| IssuerError::Unreachable(error.kind());
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        let addresses = self.resolver.resolve(host(&self.uri), port).await;
        let addresses = addresses.map_err(|_| IssuerError::Unreachable(io::ErrorKind::NotFound))?;
        let (socket, _) = race(&addresses).await.map_err(unreachable)?;
        match &self.tls {
            None => self.begin(socket).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), socket).await;
                self.begin(stream.map_err(unreachable)?).await
            }
        }
    }

    async fn begin<S>(&self, stream: S) -> Result<Connection, IssuerError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let begun = http1::handshake(TokioIo::new(stream)).await;
        let (connection, driver) = begun.map_err(|_| IssuerError::Broken)?;
        // It ends with its connection, whose end the next question sees.
        self.tasks.spawn_background(driver);
        Ok(connection)
    }
}

/// An answer, whatever it says.
struct Heard {
    status: StatusCode,
    said: Said,
}

impl Heard {
    fn understood(self) -> Result<Said, IssuerError> {
        match self.status {
            StatusCode::OK => Ok(self.said),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(IssuerError::Unauthorised(status))
            }
            status => Err(IssuerError::Status(status)),
        }
    }
}

/// Verifies the issuer.
fn client(
    ca_file: Option<&PathBuf>,
    host: &str,
) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let builder =
        ClientConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions()?;
    let builder = match ca_file {
        None => builder.with_platform_verifier()?,
        Some(path) => builder.with_root_certificates(authorities(path)?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned())?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Without the brackets of an IPv6 address.
fn host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_matches(['[', ']'])
}
