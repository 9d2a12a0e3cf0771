//! A client with one connection, of HTTP/1.1 or HTTP/2, that says what it got. It follows no redirects and keeps no
//! cookies.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::imap::{Connect, ImapError};

use super::socket::{End, Socket};

/// The public host.
pub(super) const PUBLIC: &str = "mail.example.org";

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ImapError),
    /// The connection ended, or what came was no HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// Nothing came for this long.
    #[error("HTTP: nothing for {0:?}")]
    Late(Duration),
    /// No WebSocket was opened.
    #[error("HTTP: asked for a WebSocket, and answered {0}")]
    Declined(StatusCode),
}

/// A client's WebSocket.
pub type WebSocket = Socket<TokioIo<Upgraded>>;

/// Which HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, under TLS chosen by ALPN, in clear by prior knowledge.
    Http2,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    /// Its name in ALPN.
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// A request, of the public host unless it says another.
#[derive(Debug)]
pub struct Question {
    method: Method,
    path: String,
    headers: HeaderMap,
    protocol: Option<Protocol>,
    body: BoxBody<Bytes, Infallible>,
}

impl Question {
    /// One without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            protocol: None,
            body: Empty::new().boxed(),
        }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// PUT of this, of that media type.
    pub fn put(path: impl Into<String>, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::new(Method::PUT, path).body(media_type, Full::new(body.into()))
    }

    /// POST of this, of that media type.
    pub fn post(path: impl Into<String>, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::new(Method::POST, path).body(media_type, Full::new(body.into()))
    }

    /// With this body, which is sent as it comes.
    #[must_use]
    pub fn body(
        self,
        media_type: &'static str,
        body: impl Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
    ) -> Self {
        let with = self.with(CONTENT_TYPE, HeaderValue::from_static(media_type));
        Self {
            body: body.boxed(),
            ..with
        }
    }

    /// With Basic credentials.
    #[must_use]
    pub fn of(self, user: &str, password: &str) -> Self {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        let value = HeaderValue::from_str(&format!("Basic {credentials}"));
        self.with(AUTHORIZATION, value.expect("base64 is a value"))
    }

    /// With a field more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// A response with its whole body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// A field's first value, as far as it is text.
    pub fn field(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its body as a JSON document.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }
}

/// One connection. It ends with the value.
pub struct WebClient {
    sender: Sender,
    driving: JoinHandle<()>,
    local: SocketAddr,
    limit: Duration,
}

enum Sender {
    Http1(http1::SendRequest<BoxBody<Bytes, Infallible>>),
    Http2(http2::SendRequest<BoxBody<Bytes, Infallible>>),
}

impl WebClient {
    /// Connects.
    ///
    /// # Errors
    /// When the connection or a handshake fails, or takes too long.
    pub async fn open(connect: &Connect, version: Version) -> Result<Self, WebError> {
        let limit = connect.patience();
        let opening = Self::open_unbounded(connect, version, limit);
        timeout(limit, opening)
            .await
            .unwrap_or(Err(WebError::Late(limit)))
    }

    async fn open_unbounded(
        connect: &Connect,
        version: Version,
        limit: Duration,
    ) -> Result<Self, WebError> {
        let (stream, local) = connect.clone().speaking(version.alpn()).stream().await?;
        let stream = TokioIo::new(stream);
        // How a connection ends is seen by whoever asks something on it.
        let (sender, driving) = match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                let driving = tokio::spawn(async move { _ = connection.with_upgrades().await });
                (Sender::Http1(sender), driving)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                (
                    Sender::Http2(sender),
                    tokio::spawn(async move { _ = connection.await }),
                )
            }
        };
        Ok(Self {
            sender,
            driving,
            local,
            limit,
        })
    }

    /// Our end of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks, and reads all of the answer.
    ///
    /// # Errors
    /// When the connection ends before it is whole, or it takes too long.
    pub async fn ask(&mut self, question: Question) -> Result<Answer, WebError> {
        let limit = self.limit;
        let asking = async {
            let (head, body) = self.send(question).await?.into_parts();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        timeout(limit, asking)
            .await
            .unwrap_or(Err(WebError::Late(limit)))
    }

    /// Asks, and reads the head of the answer.
    ///
    /// # Errors
    /// When the connection ends before it, or it takes too long.
    pub async fn begin(&mut self, question: Question) -> Result<Response<Incoming>, WebError> {
        let limit = self.limit;
        timeout(limit, self.send(question))
            .await
            .unwrap_or(Err(WebError::Late(limit)))
    }

    /// Opens a WebSocket: by an upgrade, after which this connection can be asked nothing any more, or by an extended
    /// CONNECT as one of its streams.
    ///
    /// # Errors
    /// [`WebError::Declined`], and when the connection ends before it, or it takes too long.
    pub async fn socket(&mut self, question: Question) -> Result<WebSocket, WebError> {
        let (question, accepted) = match &self.sender {
            Sender::Http1(_) => (by_upgrade(question), StatusCode::SWITCHING_PROTOCOLS),
            Sender::Http2(_) => (by_connect(question), StatusCode::OK),
        };
        let response = self.begin(question).await?;
        if response.status() != accepted {
            return Err(WebError::Declined(response.status()));
        }
        let stream = hyper::upgrade::on(response).await?;
        Ok(Socket::new(TokioIo::new(stream), End::Client))
    }

    async fn send(&mut self, question: Question) -> Result<Response<Incoming>, WebError> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request(question, false)).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request(question, true)).await?)
            }
        }
    }
}

/// What becomes of a GET in HTTP/1.1, with the example key of RFC 6455.
fn by_upgrade(question: Question) -> Question {
    question
        .with(CONNECTION, HeaderValue::from_static("Upgrade"))
        .with(UPGRADE, HeaderValue::from_static("websocket"))
        .with(
            SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        )
        .with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
}

/// What becomes of a GET in HTTP/2 (RFC 8441).
fn by_connect(question: Question) -> Question {
    Question {
        method: Method::CONNECT,
        protocol: Some(Protocol::from_static("websocket")),
        ..question.with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
    }
}

impl Drop for WebClient {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

fn request(question: Question, is_http_2: bool) -> Request<BoxBody<Bytes, Infallible>> {
    let mut headers = question.headers;
    let host = headers
        .remove(HOST)
        .unwrap_or(HeaderValue::from_static(PUBLIC));
    let mut request = Request::new(question.body);
    let target = if is_http_2 {
        let host = host.to_str().expect("a host in a test is text");
        format!("https://{host}{}", question.path)
    } else {
        headers.insert(HOST, host);
        question.path
    };
    *request.uri_mut() = target.parse::<Uri>().expect("a path in a test is one");
    *request.method_mut() = question.method;
    *request.headers_mut() = headers;
    if let Some(protocol) = question.protocol {
        request.extensions_mut().insert(protocol);
    }
    request
}
