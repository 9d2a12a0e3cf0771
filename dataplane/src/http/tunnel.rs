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
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{failure::Failure, rest::Rest, running::Running};
use crate::{limits::Limits, registry::CloseReason, session::relay::LINGER};

/// Octets that are on their way in a direction.
const PIECE: usize = 16 << 10;

/// How long both sides may take for the change of the protocol, which neither waits for.
const CHANGE: Duration = Duration::from_secs(10);

/// How long it may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To come to its end when it is told to.
    drain: Duration,
    /// The server, for its own end.
    close: Duration,
    /// Either side, to take something. A stream of HTTP/2 has a window of its own, and that its connection moves says
    /// nothing of it.
    stalled: Duration,
}

impl From<&Limits> for Patience {
    fn from(limits: &Limits) -> Self {
        Self {
            drain: limits.relay.drain,
            close: limits.relay.close,
            stalled: limits.web.stalled,
        }
    }
}

/// Carries a WebSocket to its end.
pub(super) async fn carry(
    (client, server): (OnUpgrade, OnUpgrade),
    running: Arc<Running>,
    patience: Patience,
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
        patience,
    };
    let end = tunnel.run(&running).await;
    if matches!(end, End::Told(_)) {
        tunnel.say_come_again().await;
    }
    // Of HTTP/1 both go back to where they were lent, and are ended there.
    let rest = Rest::Tunnel(tunnel.server);
    match end {
        End::Told(reason) => running.cut(&Failure::Told(reason), patience.close, rest),
        End::ClientStuck => running.cut(&Failure::ClientStuck, patience.close, rest),
        End::Ended => running.part(patience.close, rest),
    }
}

/// Why it is over.
enum End {
    /// It was told to end.
    Told(CloseReason),
    /// The client took nothing for too long.
    ClientStuck,
    /// One of the sides has ended it, or the server took nothing for too long.
    Ended,
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
    patience: Patience,
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
    /// While nothing is taken.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Tunnel {
    /// To its end.
    async fn run(&mut self, running: &Running) -> End {
        let Some(ending) = running.ending() else {
            return End::Ended;
        };
        let mut told = pin!(ending.told());
        poll_fn(|cx| {
            if self.closing.is_none()
                && let Poll::Ready(reason) = told.as_mut().poll(cx)
            {
                let limit = Instant::now() + self.patience.drain;
                self.closing = Some(Closing {
                    reason,
                    limit: Box::pin(sleep_until(limit)),
                });
            }
            if let Some(reason) = self.poll_closed(cx) {
                return Poll::Ready(End::Told(reason));
            }
            let ended = match self.poll_up(cx, running) {
                Poll::Ready(()) => Poll::Ready(End::Ended),
                Poll::Pending => self.poll_down(cx, running),
            };
            match self.poll_closed(cx) {
                Some(reason) => Poll::Ready(End::Told(reason)),
                None => ended,
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

    /// Moves what the client says, until that has ended.
    fn poll_up(&mut self, cx: &mut Context<'_>, running: &Running) -> Poll<()> {
        loop {
            let passed = self
                .up
                .poll_pass(cx, &mut self.server, self.patience.stalled);
            if ready!(passed).is_err() {
                return Poll::Ready(());
            }
            // What the client says from here on is for another server.
            if self.closing.is_some() {
                return Poll::Pending;
            }
            match ready!(self.up.poll_take(cx, &mut self.client)) {
                Ok(count @ 1..) => running.moved_up(count),
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Moves what the server says, until that has ended; when it is to end, no more than what is left of a frame.
    fn poll_down(&mut self, cx: &mut Context<'_>, running: &Running) -> Poll<End> {
        loop {
            let passed = self
                .down
                .poll_pass(cx, &mut self.client, self.patience.stalled);
            match ready!(passed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Poll::Ready(End::ClientStuck);
                }
                Err(_) => return Poll::Ready(End::Ended),
            }
            if self.closing.is_some() && !self.is_within_frame() {
                return Poll::Pending;
            }
            match ready!(self.down.poll_take(cx, &mut self.server)) {
                Ok(count @ 1..) => {
                    if self.closing.is_some() {
                        let rest = self.frames.follow_one(&self.down.octets);
                        self.down.octets.truncate(rest);
                    } else {
                        self.frames.follow(&self.down.octets);
                    }
                    running.moved_down(count);
                }
                _ => return Poll::Ready(End::Ended),
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

    /// Hands on all that is there. An error of the kind `TimedOut`: nothing of it was taken for so long.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TokioIo<Upgraded>,
        patience: Duration,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = Pin::new(&mut *to).poll_write(cx, &self.octets[self.at..]);
            let count = ready!(self.patiently(cx, written, patience))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += count;
        }
        // An open tunnel in which nothing moves holds no memory.
        if self.at > 0 {
            *self = Self::default();
        }
        let flushed = Pin::new(to).poll_flush(cx);
        self.patiently(cx, flushed, patience)
    }

    /// Lets a write that waits wait no longer than it may.
    fn patiently<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
        patience: Duration,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        stuck
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
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
        self.octets = octets;
        self.at = 0;
        Poll::Ready(Ok(count))
    }
}
