//! A detour to a server that can be told never to close: what a backend looks like that hangs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The detour. Dropping it takes no more connections.
pub(crate) struct Stubborn {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    never_close: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Stubborn {
    /// Passes everything on to `server`.
    pub(crate) async fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let (never_close, closing) = watch::channel(false);
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass_on(client, server, closing.clone()));
            }
        });
        Ok(Self {
            address,
            connections,
            never_close,
            accepting,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether connections stay open towards the client whatever either end does.
    pub(crate) fn never_close(&self, never: bool) {
        self.never_close.send_replace(never);
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass_on(client: TcpStream, server: SocketAddr, mut never_close: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let outward = tokio::spawn(async move {
        _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        _ = to_server.shutdown().await;
        from_client
    });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    // Its end is the server's; it is kept from the client for as long as that is wanted.
    _ = never_close.wait_for(|&never| !never).await;
    _ = to_client.shutdown().await;
    outward.abort();
}
