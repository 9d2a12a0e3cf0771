//! A network between a client and a server that can be cut, or swallow answers.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What becomes of the bytes that a server sends. Those of the client always pass, unless there is
/// no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// They reach the client.
    Pass,
    /// They do not come, and the connection stays.
    Withheld,
    /// There is no connection: those that were are gone, new ones are closed.
    Cut,
}

/// A relay to a port on loopback, as long as it is not dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    answers: watch::Sender<Answers>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// A relay that lets everything pass.
    ///
    /// # Panics
    ///
    /// If no port can be listened on.
    #[expect(
        clippy::disallowed_methods,
        reason = "a network for tests is not part of the product"
    )]
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let answers = watch::Sender::new(Answers::Pass);
        let task = tokio::spawn(accept(listener, target, answers.subscribe()));
        Self {
            port,
            answers,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Where to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on the network behaves so.
    pub fn set(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }
}

async fn accept(listener: TcpListener, target: u16, answers: watch::Receiver<Answers>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let mut cut = answers.clone();
        let answers = answers.clone();
        connections.spawn(async move {
            tokio::select! {
                _ = relay(client, target, answers) => {}
                _ = cut.wait_for(|answers| *answers == Answers::Cut) => {}
            }
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a network for tests is not part of the product"
)]
async fn relay(
    client: TcpStream,
    target: u16,
    answers: watch::Receiver<Answers>,
) -> io::Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        done = pump(from_client, to_server, None) => done,
        done = pump(from_server, to_client, Some(answers)) => done,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut answers: Option<watch::Receiver<Answers>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if let Some(answers) = &mut answers {
            let passes = answers.wait_for(|answers| *answers == Answers::Pass).await;
            passes.map_err(io::Error::other)?;
        }
        to.write_all(&buffer[..length]).await?;
    }
}
