//! Verdicts on web servers.

use std::convert::Infallible;

use bytes::Bytes;
use ferrypost_http::target::Host;
use ferrypost_proto::{Announcement, HttpVersions};
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{jmap::leads_elsewhere, web::visit},
    *,
};
use crate::net::{self, dial::tests::endpoint};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a server is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Like {
    /// It takes a PROXY header for a bad request.
    KnowsNoHeader,
    /// It wants one, and hangs up on whoever has none.
    WantsHeader,
    /// It speaks HTTP/2, and knows no header.
    Http2,
    /// It answers everybody alike.
    Refuses,
}

fn server(like: Like) -> u16 {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = net::accept(&listener).await.unwrap();
            tokio::spawn(serve(like, stream));
        }
    });
    port
}

async fn serve(like: Like, mut stream: net::TcpStream) {
    if like == Like::Http2 {
        let service = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let builder = http2::Builder::new(TokioExecutor::new());
        _ = builder
            .serve_connection(TokioIo::new(stream), service)
            .await;
        return;
    }
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await.unwrap();
    let has_header = first == SIGNATURE;
    let status = match (like, has_header) {
        (Like::WantsHeader, false) => return,
        (Like::KnowsNoHeader, true) | (Like::Refuses, _) => "400 Bad Request",
        _ => "204 No Content",
    };
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    // What else comes is read, so that the answer is not lost in a reset.
    let mut rest = Vec::new();
    _ = stream.shutdown().await;
    _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn the_header_is_named_where_it_is_what_is_wrong_with_a_web_server() {
    use Announcement::{None as Nothing, ProxyV2, XForwarded};
    use HttpVersions::{H2, Http1};
    let dialer = dialer();
    for (like, announcement, versions, problem) in [
        (Like::KnowsNoHeader, Nothing, Http1, None),
        (
            Like::KnowsNoHeader,
            ProxyV2,
            Http1,
            Some(Problem::ProxyUnexpected),
        ),
        (Like::WantsHeader, ProxyV2, Http1, None),
        (
            Like::WantsHeader,
            XForwarded,
            Http1,
            Some(Problem::ProxyMissing),
        ),
        (Like::Http2, Nothing, H2, None),
        (Like::Http2, ProxyV2, H2, Some(Problem::ProxyUnexpected)),
        (Like::Refuses, ProxyV2, Http1, None),
        (Like::KnowsNoHeader, Nothing, H2, Some(Problem::BadReply)),
    ] {
        let mut asked = endpoint("127.0.0.1", server(like));
        asked.announcement = announcement;
        asked.http.versions = versions;
        let report = visit(&dialer, &asked).await;
        assert_eq!(
            report.problem, problem,
            "{announcement:?}, {versions:?}: {report:?}"
        );
    }
}

/// Shows everybody a session resource, behind a redirect.
fn with_jmap(api: &'static str) -> u16 {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let page = move |request: Request<Incoming>| async move {
        let response = Response::builder();
        let response = match request.uri().path() {
            "/.well-known/jmap" => response.status(307).header("location", "/session"),
            _ => response,
        };
        let session = format!(
            r#"{{"apiUrl": "{api}", "downloadUrl": "/d", "uploadUrl": "/u", "eventSourceUrl": "/e"}}"#
        );
        response.body(Full::<Bytes>::from(session))
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = net::accept(&listener).await.unwrap();
            let served = http1::Builder::new();
            let served = served.serve_connection(TokioIo::new(stream), service_fn(page));
            tokio::spawn(served);
        }
    });
    port
}

#[tokio::test]
async fn a_jmap_session_that_leads_elsewhere_is_named() {
    let public = Host::parse(b"mail.example.org").unwrap();
    for (api, elsewhere) in [
        ("https://mail.example.org/jmap/", false),
        ("/jmap/", false),
        ("https://10.0.0.5/jmap/", true),
        ("http://mail.example.org/jmap/", true),
    ] {
        let mut asked = endpoint("127.0.0.1", with_jmap(api));
        asked.protocol = v1::Protocol::Http;
        let seen = leads_elsewhere(&dialer(), &asked, &public).await;
        assert_eq!(seen, elsewhere, "{api}");
    }
}
