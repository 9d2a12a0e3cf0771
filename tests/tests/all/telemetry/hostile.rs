//! A collector that is broken, or means harm.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What it says wherever it can, and nobody else is to say.
pub(super) const WORDS: &str = "the words of a collector";

/// What it does with everything that it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It takes nothing, for ever.
    Refuses,
    /// It answers with a message of 50 MiB.
    Floods,
    /// It takes the batch and none of what is in it, and says at length why.
    Rejects,
    /// It wants to be asked again tomorrow.
    Postpones,
    /// It resets the stream.
    Resets,
    /// It says that it goes away, and does.
    Leaves,
    /// It answers an octet a second.
    Drips,
    /// It never answers.
    Waits,
}

impl Manner {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Refuses,
        Self::Floods,
        Self::Rejects,
        Self::Postpones,
        Self::Resets,
        Self::Leaves,
        Self::Drips,
        Self::Waits,
    ];
}

/// It listens until it is dropped.
pub(super) struct Hostile {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Hostile {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, of_now) = watch::channel(Manner::Refuses);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let serving = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(connection, of_now.clone(), Arc::clone(&count)));
            }
        });
        Self {
            address,
            manner,
            requests,
            serving,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this, on new connections.
    pub(super) fn becomes(&self, manner: Manner) {
        self.requests.store(0, Ordering::Relaxed);
        self.manner.send_replace(manner);
    }

    /// Requests since then.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A connection, until something else is done.
async fn serve(
    connection: TcpStream,
    mut of_now: watch::Receiver<Manner>,
    count: Arc<AtomicUsize>,
) {
    let manner = *of_now.borrow_and_update();
    let served = async move {
        if manner == Manner::Leaves {
            count.fetch_add(1, Ordering::Relaxed);
            // Nobody is left to hear that it failed.
            _ = leave(connection).await;
            return;
        }
        let answering = service_fn(move |_: Request<Incoming>| {
            count.fetch_add(1, Ordering::Relaxed);
            answer(manner)
        });
        let server = http2::Builder::new(TokioExecutor::new());
        // It ends with the client.
        _ = server
            .serve_connection(TokioIo::new(connection), answering)
            .await;
    };
    tokio::select! {
        () = served => {}
        _ = of_now.changed() => {}
    }
}

/// Settings, and `GOAWAY` with `INTERNAL_ERROR` before any stream (RFC 9113, section 6.8).
async fn leave(mut connection: TcpStream) -> io::Result<()> {
    let mut request = [0; 1024];
    _ = connection.read(&mut request).await?;
    let mut parting = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    parting.extend([
        0,
        0,
        8 + u8::try_from(WORDS.len()).unwrap(),
        7,
        0,
        0,
        0,
        0,
        0,
    ]);
    parting.extend([0, 0, 0, 0, 0, 0, 0, 2]);
    parting.extend(WORDS.as_bytes());
    connection.write_all(&parting).await?;
    connection.shutdown().await
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn answer(manner: Manner) -> io::Result<Answer> {
    match manner {
        Manner::Refuses => Ok(Status::invalid_argument(WORDS).into_http()),
        Manner::Postpones => {
            let tomorrow = ErrorDetails::with_retry_info(Some(Duration::from_hours(24)));
            let status = Status::with_error_details(Code::ResourceExhausted, WORDS, tomorrow);
            Ok(status.into_http())
        }
        Manner::Floods => Ok(ok(flood())),
        Manner::Rejects => {
            let rejected = ExportLogsServiceResponse {
                partial_success: Some(ExportLogsPartialSuccess {
                    rejected_log_records: i64::MAX,
                    error_message: WORDS.repeat(2000),
                }),
            };
            Ok(ok(message(&rejected.encode_to_vec())))
        }
        Manner::Resets => Err(io::Error::other(WORDS)),
        Manner::Drips => {
            let octets = stream::repeat(Bytes::from_static(&[0])).then(|octet| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Frame::data(octet))
            });
            Ok(ok(StreamBody::new(octets).boxed_unsync()))
        }
        Manner::Waits | Manner::Leaves => std::future::pending().await,
    }
}

fn ok(body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body).unwrap()
}

/// A message, and that all is well.
fn message(octets: &[u8]) -> UnsyncBoxBody<Bytes, Infallible> {
    let mut whole = vec![0];
    whole.extend(u32::try_from(octets.len()).unwrap().to_be_bytes());
    whole.extend(octets);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(whole));
    let body = body.with_trailers(async move { Some(Ok(trailers)) });
    body.boxed_unsync()
}

/// 50 MiB that say that they are one message.
fn flood() -> UnsyncBoxBody<Bytes, Infallible> {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 800;
    let length = u32::try_from(PIECE * PIECES).unwrap();
    let [a, b, c, d] = length.to_be_bytes();
    let head = Bytes::copy_from_slice(&[0, a, b, c, d]);
    let pieces = std::iter::repeat_n(Bytes::from(vec![0; PIECE]), PIECES);
    let all = std::iter::once(head).chain(pieces);
    let frames = stream::iter(all.map(|piece| Ok(Frame::data(piece))));
    StreamBody::new(frames).boxed_unsync()
}
