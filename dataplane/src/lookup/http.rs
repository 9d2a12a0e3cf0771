//! Look-ups by HTTP: JSON, or a line of text for whoever prefers that.
//!
//! A status of 200 says that the answer is certain, be it a next hop or that there is none. Whatever a mail system must
//! wait for is 503, and never 404: that is what any other server in our place would say.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::next_hops::{NextHops, Way};

/// Where questions are asked.
const PATH: &str = "/next-hop";

/// The parameter of a GET that holds the address.
const RECIPIENT: &str = "recipient=";

/// Octets of a request's head.
const HEAD_OCTETS: usize = 16 * 1024;

/// Octets of a request's body: an address, as in a socketmap.
const BODY_OCTETS: usize = ferrypost_wire::socketmap::MAX_REQUEST;

/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_mins(1);

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last answer of a connection may take that is to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a connection may last, so that none that is stuck keeps its place.
const LIFETIME: Duration = Duration::from_mins(10);

/// Answers one mail system until it leaves, is silent for too long or the process stops.
pub(super) async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    next_hops: &NextHops,
    stopping: &CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(next_hops, request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_OCTETS)
        // A client that has asked everything may say so.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let enough = async {
        _ = timeout(LIFETIME, stopping.cancelled()).await;
    };
    // What goes wrong on such a connection is the mail system's to notice.
    tokio::select! {
        _ = &mut connection => {}
        () = enough => {
            connection.as_mut().graceful_shutdown();
            _ = timeout(LAST_WORDS, connection).await;
        }
    }
}

async fn answer(next_hops: &NextHops, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let wants_text = request
        .headers()
        .get(ACCEPT)
        .is_some_and(|accepted| accepted.as_bytes().starts_with(b"text/plain"));
    let said = match address(request).await {
        Ok(address) => of_way(next_hops.way(&address).await),
        Err(said) => said,
    };
    said.as_response(wants_text)
}

/// Whom is asked about: the parameter of a GET, or the body of a POST, which needs no escapes.
async fn address(request: Request<Incoming>) -> Result<String, Said> {
    if request.uri().path() != PATH {
        return Err(Said::mistake("ask GET or POST /next-hop"));
    }
    let octets = match *request.method() {
        Method::GET => in_query(request.uri().query().unwrap_or_default())?,
        Method::POST => in_body(request).await?,
        _ => return Err(Said::not_allowed()),
    };
    // What is not UTF-8 in an address can be in no name: it is looked up as what it looks like.
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn in_query(query: &str) -> Result<Vec<u8>, Said> {
    let mut found = query
        .split('&')
        .filter_map(|parameter| parameter.strip_prefix(RECIPIENT));
    match (found.next(), found.next()) {
        // `+` is itself, as URIs have it and forms do not: it stands before a sub-address.
        (Some(address), None) if !address.is_empty() => {
            Ok(percent_encoding::percent_decode_str(address).collect())
        }
        _ => Err(Said::mistake("say whom by ?recipient=, once")),
    }
}

async fn in_body(request: Request<Incoming>) -> Result<Vec<u8>, Said> {
    let body = Limited::new(request.into_body(), BODY_OCTETS).collect();
    match timeout(PATIENCE, body).await {
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            match body.trim_ascii() {
                b"" => Err(Said::mistake("say whom: the body is an address")),
                address => Ok(address.to_vec()),
            }
        }
        Ok(Err(_)) => Err(Said::mistake("the body is longer than an address")),
        Err(_) => Err(Said::mistake("the body did not come in time")),
    }
}

/// An answer in both forms.
struct Said {
    status: StatusCode,
    document: Value,
    text: String,
}

fn of_way(way: Way<'_>) -> Said {
    match way {
        Way::To {
            destination,
            next_hop,
        } => Said {
            status: StatusCode::OK,
            document: json!({
                "answer": "found", "destination": destination.as_str(), "next_hop": next_hop,
            }),
            text: next_hop.to_owned(),
        },
        Way::NotOurs => Said {
            status: StatusCode::OK,
            document: json!({ "answer": "not_found" }),
            text: String::new(),
        },
        Way::Held => Said::later("held", "4.2.1 This mailbox is being moved"),
        Way::Unknown(reason) => Said::later("unavailable", reason),
    }
}

impl Said {
    fn later(answer: &str, reason: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            document: json!({ "answer": answer, "reason": reason }),
            text: reason.to_owned(),
        }
    }

    fn mistake(reason: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            document: json!({ "answer": "mistake", "reason": reason }),
            text: reason.to_owned(),
        }
    }

    fn not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Self::mistake("ask GET or POST /next-hop")
        }
    }

    fn as_response(&self, wants_text: bool) -> Response<Full<Bytes>> {
        let (kind, body) = if wants_text {
            ("text/plain; charset=utf-8", format!("{}\n", self.text))
        } else {
            ("application/json", format!("{}\n", self.document))
        };
        let mut response = Response::new(Full::new(body.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
            }
            _ => {}
        }
        response
    }
}
