//! One address with several servers behind it, as a balancer has it: connections pass through it as they are.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// A running front. It ends with the value, and its connections with it.
pub struct Front {
    address: SocketAddr,
    turns: mpsc::Sender<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Front {
    /// Starts one, which hands connections to the first of `servers`.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(servers: Vec<SocketAddr>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (turns, asked) = mpsc::channel(1);
        Ok(Self {
            address,
            turns,
            serving: tokio::spawn(serve(listener, servers, asked)),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection, and hands those that come to the next server, after the last to the first.
    pub async fn turn(&self) {
        let (done, is_done) = oneshot::channel();
        // It takes turns for as long as it lives.
        _ = self.turns.send(done).await;
        _ = is_done.await;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The connections end with this task.
async fn serve(
    listener: TcpListener,
    servers: Vec<SocketAddr>,
    mut turns: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut connections = JoinSet::new();
    for server in servers.into_iter().cycle() {
        let done = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => {
                        connections.spawn(relay(client, server));
                    }
                    Err(_) => return,
                },
                turn = turns.recv() => match turn {
                    Some(done) => break done,
                    None => return,
                },
                Some(_) = connections.join_next() => {}
            }
        };
        connections.shutdown().await;
        // Whoever asked may have gone.
        _ = done.send(());
    }
}

/// Until either side ends; how it ends is seen by both.
async fn relay(mut client: TcpStream, server: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(server).await {
        _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server that says its name to whoever comes, and then nothing.
    async fn server(name: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connections = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(name).await.unwrap();
                connections.push(stream);
            }
        });
        address
    }

    #[tokio::test]
    async fn a_turn_ends_all_connections_and_the_next_are_another_servers() {
        let servers = vec![server(b"1").await, server(b"2").await];
        let front = Front::start(servers).await.unwrap();
        for expected in [b'1', b'2', b'1'] {
            let mut streams = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(front.addr()).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), expected);
                streams.push(stream);
            }
            front.turn().await;
            for mut stream in streams {
                let read = stream.read_u8().await;
                assert!(read.is_err(), "the connection goes on");
            }
        }
    }
}
