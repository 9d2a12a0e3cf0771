//! A connection whose peer speaks in lines.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Octets that are read at once.
const PIECE: usize = 64 * 1024;

/// A connection and what was read from it.
pub(super) struct Lines<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            input: Vec::new(),
        }
    }

    pub(super) async fn say(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(octets.as_ref()).await?;
        self.stream.flush().await
    }

    /// The next line without its end; `None` when the peer has ended.
    pub(super) async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end().to_owned()));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads octets and forgets them.
    pub(super) async fn take(&mut self, count: usize) -> io::Result<()> {
        let buffered = count.min(self.input.len());
        self.input.drain(..buffered);
        let mut left = count - buffered;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let room = left.min(PIECE);
            match self.stream.read(&mut piece[..room]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => left -= taken,
            }
        }
        Ok(())
    }

    /// Says that nothing follows.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}
