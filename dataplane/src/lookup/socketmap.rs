//! Look-ups by socketmap.

use std::time::Duration;

use ferrypost_wire::{
    WireBuf,
    socketmap::{Answer, MAX_REQUEST, Request},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};

use super::next_hops::{NextHops, Way};
use crate::net::local::LocalStream;

/// What Postfix's `transport_maps` ask: the answer is a transport and its next hop.
const TRANSPORT: &str = "transport";

/// What every other mail system asks: held is an error, which it must take for a reason to try again later.
const NEXT_HOP: &str = "next-hop";

/// What Postfix does for an account that is being moved: its `retry` service defers with these words, and the message stays
/// in the queue.
const RETRY: &str = "retry:4.2.1 This mailbox is being moved";

/// The same for others.
const HELD: &str = "4.2.1 This mailbox is being moved";

/// How long a connection may say nothing. Postfix closes its own after ten seconds without a question.
const IDLE: Duration = Duration::from_mins(5);

/// How long a question may take that has begun, and how long an answer may wait to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers one mail system until it leaves, is silent or stuck for too long, or says what is no question.
pub(super) async fn answer_all(mut stream: LocalStream, next_hops: &NextHops) {
    let mut input = WireBuf::new(2 * MAX_REQUEST);
    let mut out = Vec::new();
    while let Some(request) = next(&mut stream, &mut input).await {
        out.clear();
        answer(next_hops, &request).await.write(&mut out);
        let Ok(Ok(())) = timeout(PATIENCE, stream.write_all(&out)).await else {
            return;
        };
    }
}

/// The next question.
async fn next(stream: &mut LocalStream, input: &mut WireBuf) -> Option<Request> {
    let mut whole = None;
    loop {
        match Request::take(input) {
            Ok(Some(request)) => return Some(request),
            Ok(None) => {}
            Err(malformed) => {
                tracing::debug!(%malformed, "a look-up");
                return None;
            }
        }
        let limit = if input.is_empty() {
            Instant::now() + IDLE
        } else {
            *whole.get_or_insert_with(|| Instant::now() + PATIENCE)
        };
        match timeout_at(limit, stream.read(input.spare())).await {
            Ok(Ok(count @ 1..)) => input.advance(count),
            _ => return None,
        }
    }
}

async fn answer<'n>(next_hops: &'n NextHops, request: &Request) -> Answer<'n> {
    let held = match &*request.map {
        TRANSPORT => Answer::Found(RETRY),
        NEXT_HOP => Answer::Temporary(HELD),
        _ => return Answer::Permanent("the maps are \"transport\" and \"next-hop\""),
    };
    match next_hops.way(&request.key).await {
        Way::To { next_hop, .. } => Answer::Found(next_hop),
        Way::Held => held,
        Way::NotOurs => Answer::NotFound,
        Way::Unknown(reason) => Answer::Temporary(reason),
    }
}
