//! Where deliveries end: an LMTP server that counts what it is given, and forgets it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::accept;
use super::lines::Lines;

const OFFER: &[u8] = b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";

/// A running server. What it costs is the bench's own, and counted nowhere.
pub(in crate::bench) struct Sink {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Sink {
    /// Starts one, which serves until the process ends.
    pub(in crate::bench) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let taken = Arc::default();
        let counter = Arc::clone(&taken);
        tokio::spawn(accept(listener, move |stream| {
            let counter = Arc::clone(&counter);
            async move { serve(&mut Lines::new(stream), &counter).await }
        }));
        Ok(Self { address, taken })
    }

    /// Where it listens.
    pub(in crate::bench) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many messages it has taken, counted by recipient.
    pub(in crate::bench) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
    taken: &AtomicUsize,
) -> io::Result<()> {
    lines.say(b"220 sink LMTP\r\n").await?;
    let mut recipients = 0;
    while let Some(line) = lines.line().await? {
        let command = line.split([' ', ':']).next().unwrap_or_default();
        match command.to_ascii_uppercase().as_str() {
            "LHLO" => lines.say(OFFER).await?,
            "RCPT" => {
                recipients += 1;
                lines.say(b"250 2.1.5 Ok\r\n").await?;
            }
            "DATA" => {
                lines.say(b"354 Go on\r\n").await?;
                while lines.line().await?.is_some_and(|line| line != ".") {}
                taken.fetch_add(recipients, Ordering::Relaxed);
                let answers = "250 2.0.0 Taken\r\n".repeat(std::mem::take(&mut recipients));
                lines.say(answers).await?;
            }
            "QUIT" => {
                lines.say(b"221 2.0.0 Bye\r\n").await?;
                return lines.end().await;
            }
            _ => lines.say(b"250 2.0.0 Ok\r\n").await?,
        }
    }
    Ok(())
}
