//! A response's body, on its way to the client, until a fence ends it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use ferrypost_http::fields::clean_trailers;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Broken;
use crate::{
    http::{busy::InProgress, failure::Failure, rest::Rest, running::Running},
    registry::CloseReason,
};

/// How long an event stream has to be silent before it is ended by a fence: what the server is just writing comes
/// through.
const QUIET: Duration = Duration::from_secs(1);

/// The body.
pub(in crate::http) struct Download(Kind);

enum Kind {
    /// Our own words. The client's connection is in use for as long as they live.
    Own(Full<Bytes>, Option<InProgress>),
    /// A server's.
    Relayed(Box<Relayed>),
}

/// What is known of a response whose body follows.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Manner {
    /// Server-sent events: its end is like any other event, and its client comes again.
    pub(in crate::http) is_event_stream: bool,
    /// The client reads trailers.
    pub(in crate::http) with_trailers: bool,
    /// How long it may go on when it is told to end.
    pub(in crate::http) drain: Duration,
    /// How long the server has for its own end where it is cut.
    pub(in crate::http) close: Duration,
}

struct Relayed {
    /// There until it is cut.
    body: Option<Incoming>,
    running: Arc<Running>,
    manner: Manner,
    told: Option<BoxFuture<'static, CloseReason>>,
    draining: Option<Draining>,
}

/// It is to end.
struct Draining {
    reason: CloseReason,
    limit: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Download {
    /// A body of our own.
    pub(in crate::http) fn own(octets: Bytes) -> Self {
        Self(Kind::Own(Full::new(octets), None))
    }

    /// A server's.
    pub(in crate::http) fn relayed(body: Incoming, running: Arc<Running>, manner: Manner) -> Self {
        let told = running.ending().map(|ending| {
            let told: BoxFuture<'static, CloseReason> = Box::pin(ending.told());
            told
        });
        if body.is_end_stream() {
            // hyper does not ask for what is not there.
            running.read();
        }
        Self(Kind::Relayed(Box::new(Relayed {
            body: Some(body),
            running,
            manner,
            told,
            draining: None,
        })))
    }

    /// The same, and as long as it lives the client's connection is in use, unless nothing of it is taken.
    pub(in crate::http) fn counted(mut self, in_progress: InProgress) -> Self {
        match &mut self.0 {
            Kind::Own(_, counted) => *counted = Some(in_progress),
            Kind::Relayed(relayed) => relayed.running.occupies(in_progress),
        }
        self
    }
}

impl Relayed {
    /// Whoever asks has taken what there was before.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let polled = self.poll_next(cx);
        self.running.owes_its_client(polled.is_ready());
        polled
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.poll_told(cx);
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(frame) = self.pass(frame) {
                        return match self.is_too_late() {
                            Some(reason) => self.cut(reason),
                            None => Poll::Ready(Some(Ok(frame))),
                        };
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let why = Failure::of_response(&error);
                    self.running.cut(&why, self.manner.close, Rest::Nothing);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.running.read();
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.poll_drained(cx),
            }
        }
    }

    /// A frame as the client may see it; `None`: not at all.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let frame = match frame.into_data() {
            Ok(octets) => {
                self.running.moved_down(octets.len());
                self.has_moved();
                Frame::data(octets)
            }
            Err(frame) => {
                let mut trailers = frame.into_trailers().ok()?;
                if !self.manner.with_trailers {
                    return None;
                }
                clean_trailers(&mut trailers);
                Frame::trailers(trailers)
            }
        };
        if self.is_at_end() {
            self.running.read();
        }
        Some(frame)
    }

    fn is_at_end(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn poll_told(&mut self, cx: &mut Context<'_>) {
        let Some(told) = &mut self.told else { return };
        if let Poll::Ready(reason) = told.as_mut().poll(cx) {
            self.told = None;
            let limit = self.running.due();
            let limit = limit.unwrap_or_else(|| Instant::now() + self.manner.drain);
            self.draining = Some(Draining {
                reason,
                limit,
                timer: Box::pin(sleep_until(limit)),
            });
            self.has_moved();
        }
    }

    /// An event stream is ended when it is silent; whatever else, at the limit.
    fn has_moved(&mut self) {
        if let Some(draining) = &mut self.draining
            && self.manner.is_event_stream
        {
            let quiet = Instant::now() + QUIET;
            draining.timer.as_mut().reset(quiet.min(draining.limit));
        }
    }

    /// A body that never pauses ends at the limit no less.
    fn is_too_late(&self) -> Option<CloseReason> {
        let draining = self.draining.as_ref()?;
        (!self.is_at_end() && draining.limit <= Instant::now()).then_some(draining.reason)
    }

    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(draining) = &mut self.draining else {
            return Poll::Pending;
        };
        match draining.timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let reason = draining.reason;
                self.cut(reason)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends it: an event stream as if its server had, whatever else so that nobody takes it for whole.
    fn cut(&mut self, reason: CloseReason) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let rest = self.body.take().map_or(Rest::Nothing, Rest::Body);
        let why = Failure::Told(reason);
        self.running.cut(&why, self.manner.close, rest);
        if self.manner.is_event_stream {
            Poll::Ready(None)
        } else {
            Poll::Ready(Some(Err(Broken::Cut)))
        }
    }
}

impl Drop for Relayed {
    /// hyper lets go of a response whose client has gone.
    fn drop(&mut self) {
        let rest = self.body.take().map_or(Rest::Nothing, Rest::Body);
        self.running.abandon(rest);
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.0 {
            Kind::Own(body, _) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Kind::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(body, _) => body.is_end_stream(),
            Kind::Relayed(relayed) => relayed.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body, _) => body.size_hint(),
            Kind::Relayed(relayed) => relayed
                .body
                .as_ref()
                .map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}
