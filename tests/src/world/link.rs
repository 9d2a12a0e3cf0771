//! A network between two processes that can be cut, and one that swallows what is sent.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What becomes of bytes on a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// They arrive.
    Flows,
    /// They arrive once it flows again, late: connections stay, as they do across a network that
    /// drops every packet and heals.
    Stalls,
    /// There is no connection: those that were are gone, new ones are closed at once.
    Broken,
}

/// A way to one address on loopback, for as long as it is not dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    traffic: watch::Sender<Traffic>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    /// A link on which everything flows.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn to(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let traffic = watch::Sender::new(Traffic::Flows);
        let task = tokio::spawn(accept(listener, target, traffic.subscribe()));
        Ok(Self {
            address,
            traffic,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Where to connect to.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on the network behaves so.
    pub fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, traffic: watch::Receiver<Traffic>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Those that have ended are not kept.
            Some(_) = connections.join_next() => continue,
        };
        let Ok((client, _)) = accepted else { return };
        let traffic = traffic.clone();
        connections.spawn(async move {
            let mut broken = traffic.clone();
            tokio::select! {
                biased;
                _ = broken.wait_for(|traffic| *traffic == Traffic::Broken) => {}
                // Its error is its end, and both sides see that.
                _ = relay(client, target, traffic) => {}
            }
        });
    }
}

async fn relay(
    client: TcpStream,
    target: SocketAddr,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    flowing(&mut traffic).await?;
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_client, to_server, traffic.clone()),
        pump(from_server, to_client, traffic),
    )?;
    Ok(())
}

/// Passes bytes on until their end, and that too.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        flowing(&mut traffic).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn flowing(traffic: &mut watch::Receiver<Traffic>) -> io::Result<()> {
    traffic
        .wait_for(|traffic| *traffic == Traffic::Flows)
        .await
        .map(drop)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_mins(1);

    async fn connected() -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let link = Link::to(listener.local_addr().unwrap()).await.unwrap();
        let client = TcpStream::connect(link.addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (link, client, server)
    }

    #[tokio::test]
    async fn what_stalls_arrives_later() {
        let (link, mut client, mut server) = connected().await;
        link.set(Traffic::Stalls);
        client.write_all(b"late").await.unwrap();
        let mut heard = [0; 4];
        assert!(timeout(SHORT, server.read_exact(&mut heard)).await.is_err());
        link.set(Traffic::Flows);
        let read = timeout(PATIENCE, server.read_exact(&mut heard)).await;
        read.expect("it arrives").unwrap();
        assert_eq!(&heard, b"late");
    }

    #[tokio::test]
    async fn what_is_broken_is_gone_on_both_sides() {
        let (link, mut client, mut server) = connected().await;
        link.set(Traffic::Broken);
        for end in [&mut client, &mut server] {
            let read = timeout(PATIENCE, end.read(&mut [0; 1])).await;
            assert!(matches!(read.expect("it ends"), Ok(0) | Err(_)));
        }
        let mut another = TcpStream::connect(link.addr()).await.unwrap();
        let read = timeout(PATIENCE, another.read(&mut [0; 1])).await;
        assert!(matches!(read.expect("it ends"), Ok(0) | Err(_)));
    }
}
