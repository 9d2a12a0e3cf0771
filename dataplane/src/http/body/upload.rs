//! A request's body, on its way to a server.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep, timeout};

use super::Broken;
use crate::{
    http::{failure::Failure, running::Running},
    net::h2::STREAM_WINDOW,
};

/// Where the octets are.
pub(in crate::http) enum Source {
    /// On their way from the client.
    Client(Incoming),
    /// They were read for a rule. With their length if they came with it, else in chunks as they came.
    Read {
        /// `None`: they have been sent.
        octets: Option<Bytes>,
        /// Whether they came with their length.
        with_length: bool,
    },
}

/// Takes what comes of a body that nobody wants: as much as a client may send before anybody takes it, and for so long.
pub(in crate::http) async fn discard(mut body: Incoming, limit: Duration) {
    let mut left = STREAM_WINDOW as usize;
    let discarding = async {
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    _ = timeout(limit, discarding).await;
}

/// The body. It tells its exchange when its end has been sent.
pub(in crate::http) struct Upload {
    source: Source,
    running: Arc<Running>,
    /// How long the client may send nothing.
    patience: Duration,
    slow: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(in crate::http) fn new(source: Source, running: Arc<Running>, patience: Duration) -> Self {
        let upload = Self {
            source,
            running,
            patience,
            slow: None,
        };
        if upload.is_end_stream() {
            // hyper does not ask for what is not there.
            upload.running.sent();
        }
        upload
    }

    /// The octets, of a body of which none were sent.
    pub(in crate::http) fn into_source(self) -> Source {
        self.source
    }

    /// The next octets. Trailers are the client's, and go nowhere.
    fn poll_octets(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        match &mut self.source {
            Source::Read { octets, .. } => {
                Poll::Ready(octets.take().filter(|it| !it.is_empty()).map(Ok))
            }
            Source::Client(incoming) => loop {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    None => return Poll::Ready(None),
                    Some(Ok(Ok(octets))) => return Poll::Ready(Some(Ok(octets))),
                    Some(Ok(Err(_trailers))) => {}
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                }
            },
        }
    }

    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let slow = self.slow.get_or_insert_with(|| Box::pin(sleep(patience)));
        slow.as_mut().poll(cx)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        // Whoever asks has sent what there was before.
        self.running.offers_its_server(false);
        if self.running.is_cut(cx) {
            // On a stream nothing else says so.
            return Poll::Ready(Some(Err(Broken::Cut)));
        }
        let octets = match self.poll_octets(cx) {
            Poll::Ready(octets) => octets,
            Poll::Pending => {
                ready!(self.poll_slow(cx));
                self.running.upload_failed(Failure::ClientStuck);
                return Poll::Ready(Some(Err(Broken::Stuck)));
            }
        };
        self.slow = None;
        match octets {
            Some(Ok(octets)) => {
                self.running.moved_up(octets.len());
                if self.is_end_stream() {
                    self.running.sent();
                } else {
                    self.running.offers_its_server(true);
                }
                Poll::Ready(Some(Ok(Frame::data(octets))))
            }
            Some(Err(error)) => {
                self.running.upload_failed(Failure::of_upload(&error));
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.running.sent();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Client(incoming) => incoming.is_end_stream(),
            Source::Read { octets, .. } => octets.as_ref().is_none_or(Bytes::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Client(incoming) => incoming.size_hint(),
            Source::Read {
                octets,
                with_length: true,
            } => SizeHint::with_exact(octets.as_ref().map_or(0, |it| it.len() as u64)),
            Source::Read { .. } => SizeHint::default(),
        }
    }
}
