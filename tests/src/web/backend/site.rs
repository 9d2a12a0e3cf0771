//! What a [`Backend`](super::Backend) serves.
//!
//! | path | what |
//! |---|---|
//! | `/whoami` | a JSON document of the server and of what it was asked |
//! | `/echo` | the body as it came, and `x-framing` how |
//! | `/files/NAME` | PUT and GET, for each user his own; the answer names the server, as `x-server` |
//! | `/upload/NAME` | PUT, counted as it comes and thrown away |
//! | `/events`, `/poll` | what is announced, as an event stream, and once |
//! | `/ws` | a WebSocket that says everything back with the server's name, after it did what it was told: `put NAME QUERY CONTENT` |
//! | `/away` | a redirect to the server's own address |
//! | `/login`, `/mail`, `/api/me` | a web interface: its form, its page, who has signed in |
//! | `/auth/token` | which server and which `client_id` |

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::unfold;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, LOCATION,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SET_COOKIE, TRANSFER_ENCODING, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rand::RngExt as _;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use crate::history::Moment;
use crate::web::socket::{End, Message, Socket};

use super::{Done, Peer, State, lock};

type Page = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What is hashed behind a WebSocket's key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The cookie of whoever has signed in.
const SESSION: &str = "sid";

const FORM: &str = "<form method=\"post\" action=\"/login\"><input name=\"user\" id=\"user\">\
    <input name=\"password\" id=\"password\" type=\"password\"><button id=\"go\">Sign in</button></form>";

pub(super) async fn answer(mut request: Request<Incoming>, peer: Peer, state: &Arc<State>) -> Page {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    // Whoever asks whether the server is there has nothing done.
    if head.method == Method::OPTIONS {
        return page(StatusCode::NO_CONTENT, "");
    }
    let asked = Asked {
        user: user(&head.headers, state),
        head,
        peer,
    };
    // A body that does not come whole is of a request that was not done.
    let Some(body) = read(&asked, body, state).await else {
        return page(StatusCode::BAD_REQUEST, "");
    };
    lock(&state.done).push(Done {
        method: asked.head.method.clone(),
        path: asked.path().to_owned(),
        query: asked.head.uri.query().unwrap_or_default().to_owned(),
        user: asked.user.clone(),
        octets: body.octets,
        at: Moment::now(),
    });
    serve(&asked, body, upgrade, state).await
}

struct Asked {
    head: Parts,
    peer: Peer,
    user: Option<String>,
}

impl Asked {
    fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The host that the client named.
    fn host(&self) -> String {
        let authority = self.head.uri.authority().map(ToString::to_string);
        let field = self.head.headers.get(HOST);
        let said = field.and_then(|it| it.to_str().ok()).map(str::to_owned);
        authority.or(said).unwrap_or_default()
    }

    /// Whether this is how a WebSocket is asked for, in either HTTP.
    fn is_handshake(&self) -> bool {
        self.head.extensions.get::<Protocol>().is_some() || self.head.headers.contains_key(UPGRADE)
    }
}

struct Read {
    octets: u64,
    content: Bytes,
}

/// Reads a body as it comes, unless all reading is stalled. An upload's is counted and not kept.
async fn read(asked: &Asked, mut body: Incoming, state: &State) -> Option<Read> {
    if asked.head.method == Method::CONNECT {
        return Some(Read {
            octets: 0,
            content: Bytes::new(),
        });
    }
    let (mut octets, mut content) = (0, Vec::new());
    let is_kept = !asked.path().starts_with("/upload/");
    let mut stalled = state.stalled.clone();
    loop {
        // The other end of the watch lives as long as the server.
        stalled.wait_for(|stalled| !stalled).await.ok()?;
        let Some(frame) = body.frame().await else {
            break;
        };
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        octets += data.len() as u64;
        lock(&state.read).insert(asked.path().to_owned(), octets);
        if is_kept {
            content.extend_from_slice(&data);
        }
    }
    Some(Read {
        octets,
        content: content.into(),
    })
}

async fn serve(asked: &Asked, body: Read, upgrade: OnUpgrade, state: &Arc<State>) -> Page {
    match (asked.head.method.as_str(), asked.path()) {
        (_, "/whoami") => json_page(&whoami(asked, state)),
        (_, "/echo") => echo(asked, body.content),
        ("GET", "/away") => redirect(&format!("http://{}/whoami", state.address)),
        ("GET", "/login") => page(StatusCode::OK, FORM),
        ("POST", "/login") => sign_in(asked, &body.content, state),
        ("GET", "/mail") => inbox(asked, state),
        ("GET", "/api/me") => me(asked, state),
        ("POST", "/auth/token") => {
            let client = form_field(&body.content, "client_id");
            json_page(&json!({"server": state.name, "client_id": client}))
        }
        _ => match &asked.user {
            Some(user) => of_user(asked, user, body, upgrade, state).await,
            None => challenge(),
        },
    }
}

/// What is somebody's.
async fn of_user(
    asked: &Asked,
    user: &str,
    body: Read,
    upgrade: OnUpgrade,
    state: &Arc<State>,
) -> Page {
    let path = asked.path();
    match (asked.head.method.as_str(), path) {
        ("GET" | "CONNECT", "/ws") if asked.is_handshake() => {
            web_socket(asked, user, upgrade, state)
        }
        ("GET", "/events") => events(state),
        ("GET", "/poll") => poll(state).await,
        ("PUT", path) if path.starts_with("/upload/") => {
            json_page(&json!({"server": state.name, "octets": body.octets}))
        }
        (method, path) => match path.strip_prefix("/files/") {
            Some(name) => file(method, (user, name), &body.content, state),
            None => page(StatusCode::NOT_FOUND, ""),
        },
    }
}

/// Somebody's file.
fn file(method: &str, (user, name): (&str, &str), content: &[u8], state: &State) -> Page {
    let files = &state.files;
    let answer = match method {
        "PUT" => files.put(user, name, content).map(|is_new| {
            let status = if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::NO_CONTENT
            };
            page(status, "")
        }),
        "GET" => files.get(user, name).map(|content| match content {
            Some(content) => with_body(StatusCode::OK, "text/plain", content),
            None => page(StatusCode::NOT_FOUND, ""),
        }),
        _ => Ok(page(StatusCode::METHOD_NOT_ALLOWED, "")),
    };
    let mut answer = answer.unwrap_or_else(|_| page(StatusCode::INTERNAL_SERVER_ERROR, ""));
    let server = HeaderValue::from_str(&state.name).expect("a server's name is a value");
    answer
        .headers_mut()
        .insert(HeaderName::from_static("x-server"), server);
    answer
}

fn whoami(asked: &Asked, state: &State) -> serde_json::Value {
    let headers = asked.head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        json!([name.as_str(), value])
    });
    json!({
        "server": state.name,
        "user": asked.user,
        "host": asked.host(),
        "target": asked.head.uri.path_and_query().map(ToString::to_string),
        "client": asked.peer.client.to_string(),
        "version": format!("{:?}", asked.head.version),
        "headers": headers.collect::<Vec<_>>(),
    })
}

fn echo(asked: &Asked, content: Bytes) -> Page {
    let headers = &asked.head.headers;
    let framing = if headers.contains_key(TRANSFER_ENCODING) {
        "chunked"
    } else if headers.contains_key(CONTENT_LENGTH) {
        "length"
    } else {
        "none"
    };
    let mut page = with_body(StatusCode::OK, "application/octet-stream", content);
    let name = HeaderName::from_static("x-framing");
    page.headers_mut()
        .insert(name, HeaderValue::from_static(framing));
    page
}

/// A form's field, as far as the tests' forms need decoding.
fn form_field(form: &[u8], name: &str) -> Option<String> {
    let form = String::from_utf8_lossy(form).into_owned();
    let value = form
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.replace("%40", "@"))
}

fn sign_in(asked: &Asked, form: &[u8], state: &State) -> Page {
    let field = |name| form_field(form, name).unwrap_or_default();
    if field("password") != state.password {
        return page(StatusCode::UNAUTHORIZED, FORM);
    }
    let session = rand::rng()
        .random::<[u8; 16]>()
        .iter()
        .fold(String::new(), |mut text, octet| {
            write!(text, "{octet:02x}").expect("writing to a String cannot fail");
            text
        });
    state.sessions.lock().insert(session.clone(), field("user"));
    let mut page = redirect(&format!("https://{}/mail", asked.host()));
    let cookie = format!("{SESSION}={session}; Path=/; Secure; HttpOnly");
    let cookie = HeaderValue::from_str(&cookie).expect("hexadecimal digits are a value");
    page.headers_mut().insert(SET_COOKIE, cookie);
    page
}

fn inbox(asked: &Asked, state: &State) -> Page {
    match signed_in(&asked.head.headers, state) {
        Some(user) => {
            let server = &state.name;
            let text =
                format!("<!DOCTYPE html><title>Mail</title><p id=\"who\">{user} on {server}</p>");
            page(StatusCode::OK, &text)
        }
        None => redirect("/login"),
    }
}

fn me(asked: &Asked, state: &State) -> Page {
    match signed_in(&asked.head.headers, state) {
        Some(user) => json_page(&json!({"user": user, "server": state.name})),
        None => page(StatusCode::UNAUTHORIZED, ""),
    }
}

fn signed_in(headers: &HeaderMap, state: &State) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut crumbs = cookies
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split("; "));
    let session = crumbs.find_map(|crumb| crumb.strip_prefix(SESSION)?.strip_prefix('='))?;
    state.sessions.lock().get(session).cloned()
}

/// Who proves to be somebody: by a password, or by a session.
fn user(headers: &HeaderMap, state: &State) -> Option<String> {
    let Some(credentials) = headers.get(AUTHORIZATION) else {
        return signed_in(headers, state);
    };
    let encoded = credentials.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    (password == state.password).then(|| user.to_owned())
}

/// An event for each announcement, and one at once that says which server it is.
fn events(state: &State) -> Page {
    let first = format!("data: {}\n\n", state.name);
    let listening = state.announcements.subscribe();
    let stream = unfold((Some(first), listening), |(first, mut listening)| async {
        let text = match first {
            Some(text) => text,
            None => loop {
                match listening.recv().await {
                    Ok(text) => break format!("data: {text}\n\n"),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            },
        };
        Some((Ok(Frame::data(Bytes::from(text))), (None, listening)))
    });
    let mut page = Response::new(StreamBody::new(stream).boxed_unsync());
    let media_type = HeaderValue::from_static("text/event-stream");
    page.headers_mut().insert(CONTENT_TYPE, media_type);
    page
}

/// The next announcement, however long that takes.
async fn poll(state: &State) -> Page {
    let mut listening = state.announcements.subscribe();
    loop {
        match listening.recv().await {
            Ok(text) => return page(StatusCode::OK, &text),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return page(StatusCode::SERVICE_UNAVAILABLE, ""),
        }
    }
}

/// Accepts in the way that was asked in.
fn web_socket(asked: &Asked, user: &str, upgrade: OnUpgrade, state: &Arc<State>) -> Page {
    let closing = state.closing.clone();
    let (user, of) = (user.to_owned(), Arc::clone(state));
    tokio::spawn(closing.run_until_cancelled_owned(async move {
        if let Ok(stream) = upgrade.await {
            let socket = Socket::new(TokioIo::new(stream), End::Server);
            // Its end is the client's to see.
            _ = say_back(socket, &user, &of).await;
        }
    }));
    let mut page = page(StatusCode::OK, "");
    if asked.head.method == Method::CONNECT {
        return page;
    }
    let key = asked.head.headers.get(SEC_WEBSOCKET_KEY);
    let key = key.map(HeaderValue::as_bytes).unwrap_or_default();
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID.as_bytes()].concat());
    let accept = HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 is a value");
    *page.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = page.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    page
}

async fn say_back(
    mut socket: Socket<TokioIo<hyper::upgrade::Upgraded>>,
    user: &str,
    state: &State,
) -> std::io::Result<()> {
    while let Some(message) = socket.next().await? {
        match message {
            Message::Text(text) => {
                put_as_told(&text, user, state)?;
                let text = format!("{}: {text}", state.name);
                socket.send(&Message::Text(text)).await?;
            }
            Message::Ping(payload) => socket.send(&Message::Pong(payload)).await?,
            Message::Pong(_) => {}
            Message::Close(status) => return socket.send(&Message::Close(status)).await,
        }
    }
    Ok(())
}

/// Does what a PUT does, if the text is one.
fn put_as_told(text: &str, user: &str, state: &State) -> std::io::Result<()> {
    let Some(put) = text.strip_prefix("put ") else {
        return Ok(());
    };
    let mut words = put.splitn(3, ' ');
    let [name, query, content] = [(); 3].map(|()| words.next().unwrap_or_default());
    lock(&state.done).push(Done {
        method: Method::PUT,
        path: format!("/files/{name}"),
        query: query.to_owned(),
        user: Some(user.to_owned()),
        octets: content.len() as u64,
        at: Moment::now(),
    });
    state.files.put(user, name, content.as_bytes()).map(drop)
}

fn json_page(document: &serde_json::Value) -> Page {
    with_body(StatusCode::OK, "application/json", document.to_string())
}

fn redirect(location: &str) -> Page {
    let mut page = page(StatusCode::FOUND, "");
    let location = location.parse::<Uri>().map(|it| it.to_string());
    let location = location.expect("a location here is one");
    let value = HeaderValue::from_str(&location).expect("a location is a value");
    page.headers_mut().insert(LOCATION, value);
    page
}

fn challenge() -> Page {
    let mut page = page(StatusCode::UNAUTHORIZED, "");
    let value = HeaderValue::from_static("Basic realm=\"tests\"");
    page.headers_mut().insert(WWW_AUTHENTICATE, value);
    page
}

fn page(status: StatusCode, text: &str) -> Page {
    with_body(status, "text/html; charset=utf-8", text.to_owned())
}

fn with_body(status: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(content.into()).boxed_unsync());
    *page.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    page.headers_mut().insert(CONTENT_TYPE, media_type);
    page
}
