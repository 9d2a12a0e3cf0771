//! Who delivers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Octets of a message, about.
pub(super) const OCTETS: usize = 4096;

/// Connections at once.
const AT_ONCE: usize = 8;

/// Messages on a connection: a mail system keeps one for some.
const EACH: usize = 10;

/// How a client says hello.
#[derive(Debug, Clone, Copy)]
pub(super) enum Greeting {
    /// To an LMTP server.
    Lmtp,
    /// To an SMTP server.
    Smtp,
}

/// Delivers so many messages.
pub(super) async fn deliver(
    address: SocketAddr,
    greeting: Greeting,
    count: usize,
) -> anyhow::Result<()> {
    let left = Arc::new(Semaphore::new(count));
    let message: Arc<[u8]> = message().into();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (left, message) = (Arc::clone(&left), Arc::clone(&message));
        tasks.spawn(async move {
            while left.available_permits() > 0 {
                connection(address, greeting, &left, &message).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn connection(
    address: SocketAddr,
    greeting: Greeting,
    left: &Semaphore,
    message: &[u8],
) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut talk = Talk(BufStream::new(stream));
    talk.answer("220").await?;
    let hello = match greeting {
        Greeting::Lmtp => "LHLO",
        Greeting::Smtp => "EHLO",
    };
    talk.say(format!("{hello} client.example\r\n").as_bytes())
        .await?;
    talk.answer("250").await?;
    for _ in 0..EACH {
        let Ok(turn) = left.try_acquire() else { break };
        turn.forget();
        // As mail systems do where PIPELINING is offered.
        talk.say(
            b"MAIL FROM:<sender@elsewhere.example>\r\nRCPT TO:<reader@clear.example>\r\nDATA\r\n",
        )
        .await?;
        for answer in ["250", "250", "354"] {
            talk.answer(answer).await?;
        }
        talk.say(message).await?;
        talk.answer("250").await?;
    }
    talk.say(b"QUIT\r\n").await?;
    talk.answer("221").await
}

/// A message with its end.
fn message() -> Vec<u8> {
    let mut message = b"Subject: a delivery\r\n\r\n".to_vec();
    while message.len() < OCTETS {
        message
            .extend(b"This line is of the length that lines of mail often have, more or less.\r\n");
    }
    message.extend(b".\r\n");
    message
}

struct Talk(BufStream<TcpStream>);

impl Talk {
    async fn say(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(octets).await?;
        Ok(self.0.flush().await?)
    }

    /// Reads a reply, which begins with `code`, up to its last line.
    async fn answer(&mut self, code: &str) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await?;
            ensure!(
                line.starts_with(code),
                "{code} expected, and this came: {line:?}"
            );
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}
