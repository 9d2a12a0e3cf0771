//! The web server's side of HTTP/2.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    ext::Protocol,
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use super::{
    backend::{Connection, Seen},
    entrance::Entered,
    message::Message,
};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Until the client has gone, or `/goes-away` was asked for.
pub(super) async fn serve(connection: Connection, entered: Entered) {
    let seen = Arc::clone(&connection.seen);
    let leaving = Arc::new(Notify::new());
    let told = Arc::clone(&leaving);
    let service = service_fn(move |request| {
        let (connection, leaving) = (connection.clone(), Arc::clone(&leaving));
        async move { answer(connection, request, &leaving).await }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(entered.terms.streams);
    if entered.terms.web_sockets {
        builder.enable_connect_protocol();
    }
    let served = builder.serve_connection(TokioIo::new(entered.stream), service);
    let mut served = std::pin::pin!(served);
    let end = tokio::select! {
        end = served.as_mut() => end,
        () = told.notified() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if end.is_ok() {
        seen.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Counts a reset if it is dropped before its end.
struct Unfinished(Arc<Seen>, bool);

impl Unfinished {
    fn over(&mut self) {
        self.1 = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.1 {
            self.0.resets.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn message(request: &Request<Incoming>) -> Message {
    let uri = request.uri();
    let target = uri.path_and_query().unwrap();
    let mut fields = vec![
        (
            ":authority".to_owned(),
            uri.authority().unwrap().to_string(),
        ),
        (":scheme".to_owned(), uri.scheme_str().unwrap().to_owned()),
    ];
    for (name, value) in request.headers() {
        fields.push((name.to_string(), value.to_str().unwrap().to_owned()));
    }
    assert_eq!(request.version(), Version::HTTP_2);
    Message {
        start: format!("{} {target} HTTP/2", request.method()),
        fields,
        body: Vec::new(),
        is_whole: true,
    }
}

async fn answer(
    connection: Connection,
    mut request: Request<Incoming>,
    leaving: &Notify,
) -> Result<Response<Body>, std::io::Error> {
    let seen = Arc::clone(&connection.seen);
    let mut unfinished = Unfinished(Arc::clone(&seen), false);
    seen.note(connection.number, message(&request));
    let path = request.uri().path().to_owned();
    if path == "/unread" {
        connection.step().await;
    }
    if request.method() == Method::CONNECT {
        assert_eq!(
            request.extensions().get::<Protocol>().map(Protocol::as_str),
            Some("websocket")
        );
        unfinished.over();
        if path == "/ws-deaf" {
            tokio::spawn(deaf(connection, hyper::upgrade::on(request)));
        } else {
            tokio::spawn(web_socket(connection, hyper::upgrade::on(request)));
        }
        return Ok(Response::new(own("")));
    }
    while let Some(frame) = request.body_mut().frame().await {
        let data = frame.map_err(std::io::Error::other)?.into_data();
        let count = data.map_or(0, |data| data.len());
        seen.octets.fetch_add(count, Ordering::SeqCst);
    }
    match path.as_str() {
        "/slow" => connection.step().await,
        "/deaf" => std::future::pending().await,
        "/goes-away" => leaving.notify_one(),
        _ => {}
    }
    seen.executed.fetch_add(1, Ordering::SeqCst);
    unfinished.over();
    if path == "/resets" {
        return Err(std::io::ErrorKind::Other.into());
    }
    let is_head = request.method() == Method::HEAD;
    let target = request.uri().path_and_query().unwrap();
    Ok(match path.as_str() {
        "/events" => events(connection),
        "/large" => Response::new(own(&"x".repeat(1 << 20))),
        _ if is_head => Response::new(own("")),
        _ => Response::new(own(&format!("{} {target}", connection.name))),
    })
}

fn own(text: &str) -> Body {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    body.map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// An event at once, and one more for each step.
fn events(connection: Connection) -> Response<Body> {
    let open = Unfinished(Arc::clone(&connection.seen), false);
    let events = stream::unfold(
        (false, connection, open),
        async |(waits, connection, open)| {
            if waits {
                connection.step().await;
            }
            let event = Frame::data(Bytes::from_static(b"data: 1\n\n"));
            Some((Ok(event), (true, connection, open)))
        },
    );
    let body = StreamBody::new(Box::pin(events)).boxed_unsync();
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(body).unwrap()
}

/// Two frames, the second with the next step; whatever the client says is counted, and its end answered by the end.
async fn web_socket(connection: Connection, upgrade: hyper::upgrade::OnUpgrade) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    stream.write_all(b"\x81\x02hi").await.unwrap();
    let mut piece = [0; 64];
    loop {
        tokio::select! {
            () = connection.step() => stream.write_all(b"\x81\x03you").await.unwrap(),
            read = stream.read(&mut piece) => match read {
                Ok(count @ 1..) => _ = connection.seen.octets.fetch_add(count, Ordering::SeqCst),
                _ => break,
            }
        }
    }
    _ = stream.shutdown().await;
}

/// A frame, and nothing of what the client says is read before the next step.
async fn deaf(connection: Connection, upgrade: hyper::upgrade::OnUpgrade) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    stream.write_all(b"\x81\x02hi").await.unwrap();
    connection.step().await;
}
