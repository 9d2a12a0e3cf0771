//! A connection that hyper has the use of, and that comes back.
//!
//! hyper drops a connection that it is done with, and what is dropped with something unread in it is reset: a server
//! that executes a request after a reset would do so with nobody waiting for its end, and a client would lose the
//! answer that was just written. So it is lent, and whoever lent it ends it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Sleep, sleep},
};

/// What hyper has: reads and writes, and a shutdown that does no more than flush.
pub(super) struct Lent<T> {
    /// There until it is dropped.
    io: Option<T>,
    home: Option<oneshot::Sender<T>>,
    /// How long the peer may take nothing of what is to be written.
    patience: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    owes: Owes,
}

/// Where it comes back.
pub(super) struct Loan<T> {
    back: oneshot::Receiver<T>,
    owes: Owes,
}

/// Whether something was written that has not left. hyper flushes behind what it writes, so that it owes nothing after a
/// flush.
#[derive(Debug, Clone, Default)]
pub(super) struct Owes(Arc<AtomicBool>);

impl Owes {
    pub(super) fn anything(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, owes: bool) {
        self.0.store(owes, Ordering::Relaxed);
    }
}

/// Lends a connection.
pub(super) fn lend<T>(io: T, patience: Duration) -> (Lent<T>, Loan<T>) {
    let (home, back) = oneshot::channel();
    let owes = Owes::default();
    let lent = Lent {
        io: Some(io),
        home: Some(home),
        patience,
        stuck: None,
        owes: owes.clone(),
    };
    (lent, Loan { back, owes })
}

impl<T> Loan<T> {
    /// The connection, when it is not used any more. `None`: it was lost in a panic.
    pub(super) async fn returned(self) -> Option<T> {
        self.back.await.ok()
    }

    /// Whether it has something of what was written to it.
    pub(super) fn owes(&self) -> Owes {
        self.owes.clone()
    }
}

impl<T> Lent<T> {
    fn io(&mut self) -> &mut T {
        self.io.as_mut().expect("it is there until it is dropped")
    }
}

impl<T: AsyncWrite + Unpin> Lent<T> {
    /// Lets a write that waits for the peer wait no longer than it may.
    fn patiently<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(patience)));
        stuck
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Lent<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.io()).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Lent<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.owes.set(true);
        let written = Pin::new(self.io()).poll_write(cx, from);
        self.patiently(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.io()).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.owes.set(false);
        }
        self.patiently(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        if let (Some(io), Some(home)) = (self.io.take(), self.home.take()) {
            // Nobody waits for it: then this is its end.
            _ = home.send(io);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_owed() {
        let (near, mut far) = duplex(16);
        let (mut lent, loan) = lend(near, Duration::from_mins(1));
        let owes = loan.owes();
        assert!(!owes.anything());
        {
            let mut writing = pin!(async {
                lent.write_all(&[7; 40]).await?;
                lent.flush().await
            });
            for _ in 0..2 {
                let polled = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx)));
                assert!(polled.await.is_pending() && owes.anything());
                far.read_exact(&mut [0; 16]).await.unwrap();
            }
            writing.await.unwrap();
        }
        assert!(!owes.anything());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_waited_for_no_longer_than_it_may_be() {
        let (near, _far) = duplex(16);
        let patience = Duration::from_secs(5);
        let (mut lent, _) = lend(near, patience);
        let begun = tokio::time::Instant::now();
        let failed = lent.write_all(&[7; 40]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), patience.as_secs());
    }
}
