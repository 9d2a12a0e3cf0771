//! A WebSocket, once its server has agreed: octets both ways, and at a fence a close frame to the client.
//!
//! It changes nothing. Of what the server sends the frames are followed, since the client can only be told to come again
//! between two of them.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use ferrypost_http::websocket::{CLOSE_RESTART, Frames, Sender};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{failure::Failure, rest::Rest, running::Running};
use crate::{limits::RelayLimits, registry::CloseReason, session::relay::LINGER};

/// Octets that are on their way in a direction.
const PIECE: usize = 16 << 10;

/// How long both sides may take for the change of the protocol, which neither waits for.
const CHANGE: Duration = Duration::from_secs(10);

/// Carries a WebSocket to its end.
pub(super) async fn carry(
    (client, server): (OnUpgrade, OnUpgrade),
    running: Arc<Running>,
    limits: RelayLimits,
) {
    let both = async { tokio::try_join!(client, server) };
    let Ok(Ok((client, server))) = timeout(CHANGE, both).await else {
        return running.abandon(Rest::Nothing);
    };
    let mut tunnel = Tunnel {
        client: TokioIo::new(client),
        server: TokioIo::new(server),
        up: Direction::default(),
        down: Direction::default(),
        frames: Frames::of(Sender::Server),
        closing: None,
        limits,
    };
    let end = tunnel.run(&running).await;
    if end.is_some() {
        tunnel.say_come_again().await;
    }
    // Of HTTP/1 both go back to where they were lent, and are ended there.
    let rest = Rest::Tunnel(tunnel.server);
    match end {
        Some(reason) => running.cut(&Failure::Told(reason), limits.close, rest),
        None => running.part(limits.close, rest),
    }
}

/// The two sides.
struct Tunnel {
    client: TokioIo<Upgraded>,
    server: TokioIo<Upgraded>,
    up: Direction,
    down: Direction,
    frames: Frames,
    /// It is to end.
    closing: Option<Closing>,
    limits: RelayLimits,
}

struct Closing {
    reason: CloseReason,
    limit: Pin<Box<Sleep>>,
}

/// What was read from one side and not yet taken by the other.
#[derive(Default)]
struct Direction {
    octets: Vec<u8>,
    at: usize,
}

impl Tunnel {
    /// Why it was told to end; `None`: one of the sides has ended it.
    async fn run(&mut self, running: &Running) -> Option<CloseReason> {
        let ending = running.ending()?;
        let mut told = pin!(ending.told());
        poll_fn(|cx| {
            if self.closing.is_none()
                && let Poll::Ready(reason) = told.as_mut().poll(cx)
            {
                let limit = Instant::now() + self.limits.drain;
                self.closing = Some(Closing {
                    reason,
                    limit: Box::pin(sleep_until(limit)),
                });
            }
            if let Some(reason) = self.poll_closed(cx) {
                return Poll::Ready(Some(reason));
            }
            let ended = self.poll_up(cx, running) || self.poll_down(cx, running);
            match self.poll_closed(cx) {
                Some(reason) => Poll::Ready(Some(reason)),
                None if ended => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Whether it is to end, and the server is between two frames, or has had its time.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Option<CloseReason> {
        let is_between = self.down.is_empty() && !self.is_within_frame();
        let closing = self.closing.as_mut()?;
        let closing_now = is_between || closing.limit.as_mut().poll(cx).is_ready();
        closing_now.then_some(closing.reason)
    }

    fn is_within_frame(&self) -> bool {
        !self.frames.is_between_frames() && !self.frames.is_closed() && !self.frames.is_lost()
    }

    /// Moves what the client says. True: the direction has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>, running: &Running) -> bool {
        loop {
            match self.up.poll_pass(cx, &mut self.server) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
            // What the client says from here on is for another server.
            if self.closing.is_some() {
                return false;
            }
            match self.up.poll_take(cx, &mut self.client) {
                Poll::Ready(Ok(count @ 1..)) => running.moved_up(count),
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Moves what the server says; when it is to end, no more than what is left of a frame. True: the direction has
    /// ended.
    fn poll_down(&mut self, cx: &mut Context<'_>, running: &Running) -> bool {
        loop {
            match self.down.poll_pass(cx, &mut self.client) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
            if self.closing.is_some() && !self.is_within_frame() {
                return false;
            }
            match self.down.poll_take(cx, &mut self.server) {
                Poll::Ready(Ok(count @ 1..)) => {
                    if self.closing.is_some() {
                        let rest = self.frames.follow_one(&self.down.octets);
                        self.down.octets.truncate(rest);
                    } else {
                        self.frames.follow(&self.down.octets);
                    }
                    running.moved_down(count);
                }
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Says that the service restarts, where that can be said.
    async fn say_come_again(&mut self) {
        if self.down.is_empty() && self.frames.is_between_frames() {
            let said = async {
                self.client.write_all(&CLOSE_RESTART).await?;
                self.client.flush().await
            };
            _ = timeout(LINGER, said).await;
        }
    }
}

impl Direction {
    fn is_empty(&self) -> bool {
        self.at == self.octets.len()
    }

    /// Hands on all that is there.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TokioIo<Upgraded>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, &self.octets[self.at..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
        }
        // An open tunnel in which nothing moves holds no memory.
        if self.at > 0 {
            *self = Self::default();
        }
        Pin::new(to).poll_flush(cx)
    }

    /// Takes what there is, of which nothing is left. Zero octets are the end.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TokioIo<Upgraded>,
    ) -> Poll<io::Result<usize>> {
        let mut octets = vec![0; PIECE];
        let mut into = ReadBuf::new(&mut octets);
        ready!(Pin::new(from).poll_read(cx, &mut into))?;
        let count = into.filled().len();
        octets.truncate(count);
        *self = Self { octets, at: 0 };
        Poll::Ready(Ok(count))
    }
}
