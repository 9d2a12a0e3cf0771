//! What is made of what a collector does.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tonic_types::ErrorDetails;

use super::*;
use crate::telemetry::otlp::LogsRequest;

const SOON: Duration = Duration::from_mins(1);

/// What a collector may say and no log repeats.
const WORDS: &[u8] = b"the words of a collector";

/// A collector on one connection after the other, which says the same to every request.
struct Fake {
    address: SocketAddr,
    /// Requests that came.
    requests: JoinHandle<usize>,
    ending: CancellationToken,
}

impl Fake {
    #[expect(
        clippy::disallowed_methods,
        reason = "a collector stands outside what a simulation looks at"
    )]
    async fn saying(answer: Vec<u8>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let ending = CancellationToken::new();
        let ended = ending.clone();
        let requests = tokio::spawn(async move {
            let mut count = 0;
            while let Some(accepted) = ended.run_until_cancelled(socket.accept()).await {
                let (connection, _) = accepted.unwrap();
                // It ends with the client, or with the test.
                let serving = serve(connection, &answer, &mut count);
                _ = ended.run_until_cancelled(serving).await;
            }
            count
        });
        Self {
            address,
            requests,
            ending,
        }
    }

    /// Sends a batch within a time, or only once. Returns what came of it, and how many requests came.
    async fn asked(self, limit: Duration, only_once: bool) -> (Result<u64, Undelivered>, usize) {
        let target = Target {
            endpoint: format!("http://{}", self.address).parse().unwrap(),
            headers: Vec::new(),
            timeout: SOON,
            gzip: false,
            authorities: None,
            identity: None,
        };
        let mut collector = Collector::new(&target, Random::seeded(1)).unwrap();
        let ending = CancellationToken::new();
        if only_once {
            ending.cancel();
        }
        let sending = collector.deliver(LogsRequest::default(), limit, &ending);
        let sent = sending.await;
        self.ending.cancel();
        (sent, self.requests.await.unwrap())
    }
}

/// Answers each request, which is known by its first frame.
async fn serve(mut connection: TcpStream, answer: &[u8], count: &mut usize) -> io::Result<()> {
    let mut preface = [0; 24];
    connection.read_exact(&mut preface).await?;
    // Its settings.
    connection.write_all(&frame(4, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut rest = vec![0; length as usize];
        connection.read_exact(&mut rest).await?;
        if head[3] == 1 {
            *count += 1;
            connection.write_all(answer).await?;
        }
    }
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

/// Headers of an answer to the first request of a connection, and whether they are all of it.
fn answer(headers: &[(&str, &[u8])], is_all: bool) -> Vec<u8> {
    // `:status: 200` from the static table, and those that are in none (RFC 7541, section 6.2.2).
    let mut block = vec![0x88];
    for (name, value) in headers {
        block.extend([0, u8::try_from(name.len()).unwrap()]);
        block.extend(name.as_bytes());
        assert!(value.len() < 127, "longer ones are written in another way");
        block.push(u8::try_from(value.len()).unwrap());
        block.extend(*value);
    }
    frame(1, if is_all { 5 } else { 4 }, 1, &block)
}

const GRPC: (&str, &[u8]) = ("content-type", b"application/grpc");

#[tokio::test]
async fn a_batch_that_has_too_long_an_answer_is_not_sent_again() {
    let mut answer = answer(&[GRPC], false);
    let mut message = vec![0];
    message.extend((50_u32 << 20).to_be_bytes());
    answer.extend(frame(0, 0, 1, &message));
    let (sent, requests) = Fake::saying(answer).await.asked(SOON, false).await;
    let refused = sent.unwrap_err();
    assert!(matches!(refused, Undelivered::Refused(_)), "{refused:?}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn what_a_collector_says_when_it_goes_away_is_shown_to_nobody() {
    let mut parting = vec![0; 4];
    // INTERNAL_ERROR
    parting.extend([0, 0, 0, 2]);
    parting.extend(WORDS);
    let collector = Fake::saying(frame(7, 0, 0, &parting)).await;
    let (sent, requests) = collector.asked(SOON, true).await;
    let text = sent.unwrap_err().to_string();
    assert!(
        text.starts_with("Internal") && !text.contains("words"),
        "{text}"
    );
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn a_collector_that_wants_to_be_left_alone_is_for_as_long_as_a_batch_lasts() {
    let tomorrow = ErrorDetails::with_retry_info(Some(Duration::from_hours(24)));
    let status = Status::with_error_details(Code::ResourceExhausted, "", tomorrow);
    let response: http::Response<()> = status.into_http();
    let details = response.headers()["grpc-status-details-bin"].as_bytes();
    let headers: [(&str, &[u8]); 3] = [
        GRPC,
        ("grpc-status", b"8"),
        ("grpc-status-details-bin", details),
    ];
    let collector = Fake::saying(answer(&headers, true)).await;
    let (begun, limit) = (Instant::now(), Duration::from_secs(5));
    let (sent, requests) = collector.asked(limit, false).await;
    let refused = sent.unwrap_err();
    assert_eq!(refused.to_string(), "ResourceExhausted");
    assert_eq!(requests, 1);
    assert!(begun.elapsed() >= limit, "{:?}", begun.elapsed());
}

#[test]
fn a_reason_is_shown_as_far_as_a_line_has_room() {
    let long = io::Error::other("é".repeat(LONGEST_REASON));
    let refusal = Refusal(Status::from_error(Box::new(long)));
    let text = refusal.to_string();
    assert!(text.starts_with("Unknown: é"), "{text}");
    assert!(text.len() <= LONGEST_REASON, "{text}");
}

#[test]
fn what_is_transient_is_tried_again_and_what_a_collector_refuses_is_not() {
    let said = |code| Status::new(code, "said by a collector");
    let exhausted = |details| {
        Status::with_error_details(Code::ResourceExhausted, "said by a collector", details)
    };
    assert!(is_worth_another(&said(Code::Unavailable)));
    assert!(!is_worth_another(&said(Code::Unknown)));
    assert!(!is_worth_another(&said(Code::Internal)));
    assert!(!is_worth_another(&said(Code::ResourceExhausted)));
    assert!(!is_worth_another(&exhausted(ErrorDetails::new())));
    let when = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
    assert!(is_worth_another(&exhausted(when)));
}

#[test]
fn a_connection_that_breaks_is_tried_again_whatever_that_is_called() {
    let broken = io::Error::other("it broke");
    let status = Status::from_error(Box::new(broken));
    assert!(!is_transient(status.code()), "{status:?}");
    assert!(is_worth_another(&status));
}
