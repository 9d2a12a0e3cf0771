//! A client that speaks by hand, in any protocol of lines.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::imap::{Connect, ImapError, Stream};

/// One connection. In a protocol that begins in clear it is [secured](Self::secure) when the client has asked for it.
pub struct LineClient {
    stream: BufReader<Box<dyn Stream>>,
    local: SocketAddr,
    limit: Duration,
}

impl LineClient {
    /// Connects, and reads nothing yet.
    ///
    /// # Errors
    /// When the connection or the handshake fails, or takes too long.
    pub async fn open(connect: &Connect) -> Result<Self, ImapError> {
        let limit = connect.patience();
        let stream = timeout(limit, connect.stream()).await;
        let (stream, local) = stream.unwrap_or(Err(ImapError::Late(limit)))?;
        Ok(Self {
            stream: BufReader::new(stream),
            local,
            limit,
        })
    }

    /// Our end of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Goes on under TLS.
    ///
    /// # Errors
    /// When the server has spoken before it, or the handshake fails.
    pub async fn secure(self, connect: &Connect) -> Result<Self, ImapError> {
        if !self.stream.buffer().is_empty() {
            return Err(ImapError::Protocol("octets before the handshake"));
        }
        let stream = connect.secure(self.stream.into_inner()).await?;
        Ok(Self {
            stream: BufReader::new(stream),
            local: self.local,
            limit: self.limit,
        })
    }

    /// Sends what is not for [`ask`](Self::ask).
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn send(&mut self, octets: impl AsRef<[u8]>) -> Result<(), ImapError> {
        self.stream.write_all(octets.as_ref()).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next line without its end; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the connection fails, or nothing comes.
    pub async fn line(&mut self) -> Result<Option<String>, ImapError> {
        let mut line = Vec::new();
        let read = timeout(self.limit, self.stream.read_until(b'\n', &mut line)).await;
        let count = read.map_err(|_| ImapError::Late(self.limit))??;
        let line = String::from_utf8_lossy(&line);
        Ok((count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// Sends a line and gives back the next one.
    ///
    /// # Errors
    /// When the connection fails or ends, or nothing comes.
    pub async fn ask(&mut self, command: &str) -> Result<String, ImapError> {
        self.send(format!("{command}\r\n")).await?;
        let answer = self.line().await?;
        answer.ok_or(ImapError::Closed { bye: None })
    }

    /// The lines up to the one that is a full stop.
    ///
    /// # Errors
    /// When the connection fails or ends, or nothing comes.
    pub async fn list(&mut self) -> Result<Vec<String>, ImapError> {
        let mut lines = Vec::new();
        loop {
            match self.line().await? {
                Some(line) if line == "." => return Ok(lines),
                Some(line) => lines.push(line),
                None => return Err(ImapError::Closed { bye: None }),
            }
        }
    }
}
