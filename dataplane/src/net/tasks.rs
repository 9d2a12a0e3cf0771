//! Futures that run in the task of whoever owns them: a client's connection and its connections to servers by HTTP. What goes
//! from one to the other wakes no other thread, and none of them outlives the connection that it was opened for.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, Stream as _},
    task::AtomicWaker,
};
use hyper::rt::Executor;

/// The futures. To be polled for as long as there may be any.
pub(crate) struct Tasks {
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    inbox: Spawner,
}

/// Adds to them.
#[derive(Clone)]
pub(crate) struct Spawner(Arc<Inbox>);

struct Inbox {
    new: Mutex<Vec<BoxFuture<'static, ()>>>,
    waker: AtomicWaker,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            running: FuturesUnordered::new(),
            inbox: Spawner(Arc::new(Inbox {
                new: Mutex::default(),
                waker: AtomicWaker::new(),
            })),
        }
    }

    pub(crate) fn spawner(&self) -> Spawner {
        self.inbox.clone()
    }

    /// Runs a future, and them beside it for as long as that takes.
    pub(crate) async fn beside<R>(&mut self, future: impl Future<Output = R>) -> R {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let polled = future.as_mut().poll(cx);
            // Behind it, so that what it has just begun goes on at once.
            _ = self.poll(cx);
            polled
        })
        .await
    }

    /// Runs them; ready when there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inbox.0.waker.register(cx.waker());
        loop {
            self.running.extend(self.inbox.take());
            match Pin::new(&mut self.running).poll_next(cx) {
                Poll::Ready(None) if self.inbox.is_empty() => return Poll::Ready(()),
                Poll::Pending if self.inbox.is_empty() => return Poll::Pending,
                _ => {}
            }
        }
    }
}

impl Spawner {
    /// Adds one.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.lock().push(Box::pin(future));
        self.0.waker.wake();
    }

    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.lock())
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<BoxFuture<'static, ()>>> {
        self.0.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// hyper answers each stream of HTTP/2 in a future of its own.
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}
