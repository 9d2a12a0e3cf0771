//! The beginning of HTTP/2 with a server, as far as the server's first words: nothing is asked before it has shown that
//! it speaks it and has said how (RFC 9113 §3.4).

use std::{
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::{
    body::Body,
    client::conn::http2::{self, SendRequest},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{dial::DialError, tasks::Spawner};

/// Octets that a stream may send before anybody takes them, the protocol's own default: all that is ever held of a body
/// whose reader is slow.
pub(crate) const STREAM_WINDOW: u32 = 65_535;

/// Streams that a connection has room for. It may send a window's worth for each, so that those that nobody reads take
/// nothing from the others.
pub(crate) const STREAMS: u32 = 100;

/// Octets of a body that wait in memory for their stream.
pub(crate) const SEND_BUFFER: usize = 64 << 10;

/// A connection, to be polled.
pub(crate) type Connection<T, B> = http2::Connection<TokioIo<T>, B, Attentive>;

/// Begins. `max_head`: octets of a response's head.
///
/// # Errors
/// [`DialError`]: nothing was asked.
pub(crate) async fn begin<T, B>(
    io: T,
    tasks: &Spawner,
    max_head: u32,
    limit: Duration,
) -> Result<(SendRequest<B>, Connection<T, B>), DialError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let moved = Arc::new(AtomicWaker::new());
    let executor = Attentive {
        tasks: tasks.clone(),
        moved: Arc::clone(&moved),
    };
    let shaken = http2::Builder::new(executor)
        // Until it has said how many it takes.
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAMS * STREAM_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(max_head)
        .handshake(TokioIo::new(io))
        .await;
    let (sender, mut connection) = shaken.map_err(|_| DialError::NoHttp2)?;
    let said = poll_fn(|cx| {
        moved.register(cx.waker());
        if connection.current_max_send_streams() > 0 {
            return Poll::Ready(true);
        }
        Pin::new(&mut connection).poll(cx).map(|_| false)
    });
    match timeout(limit, said).await {
        Ok(true) => Ok((sender, connection)),
        Ok(false) => Err(DialError::NoHttp2),
        Err(_) => Err(DialError::HandshakeTimeout),
    }
}

/// Runs what hyper would have run by itself, and wakes whoever waits for something to come.
#[derive(Clone)]
pub(crate) struct Attentive {
    tasks: Spawner,
    moved: Arc<AtomicWaker>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Attentive {
    fn execute(&self, future: F) {
        let moved = Arc::clone(&self.moved);
        self.tasks.spawn(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let polled = future.as_mut().poll(cx);
                moved.wake();
                polled
            })
            .await;
        });
    }
}
