//! A WebSocket (RFC 6455), from either end: whole messages in one frame, without extensions.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// In place of a length: it stands in the next two octets, or eight.
const TWO: u8 = 126;
const EIGHT: u8 = 127;
/// Any mask will do for a test; one that changes every octet shows that it is taken off.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Longer ones are nobody's here.
const MAX_PAYLOAD: usize = 1 << 20;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It masks what it sends.
    Client,
    /// It does not.
    Server,
}

/// One frame that is a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// To be answered by the same as [`Message::Pong`].
    Ping(Vec<u8>),
    /// An answer.
    Pong(Vec<u8>),
    /// The end, with its status.
    Close(Option<u16>),
}

/// One end of a WebSocket whose handshake is done.
pub struct Socket<S> {
    stream: S,
    end: End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Over this stream.
    pub fn new(stream: S, end: End) -> Self {
        Self { stream, end }
    }

    /// What it runs over.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// The next message; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the stream fails or ends in a frame, or what comes is none of [`Message`].
    pub async fn next(&mut self) -> io::Result<Option<Message>> {
        let mut start = [0; 2];
        if self.stream.read(&mut start[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut start[1..]).await?;
        let [first, second] = start;
        let is_masked = second & MASKED != 0;
        if first & FIN == 0 || is_masked == (self.end == End::Client) {
            return Err(bad("a fragment, or a mask on the wrong side"));
        }
        let payload = self.payload(second & !MASKED, is_masked).await?;
        match first & !FIN {
            0x1 => String::from_utf8(payload)
                .map(|text| Some(Message::Text(text)))
                .map_err(|_| bad("a text that is none")),
            0x8 => {
                let status = payload.first_chunk().map(|it| u16::from_be_bytes(*it));
                Ok(Some(Message::Close(status)))
            }
            0x9 => Ok(Some(Message::Ping(payload))),
            0xa => Ok(Some(Message::Pong(payload))),
            _ => Err(bad("an unknown kind of frame")),
        }
    }

    async fn payload(&mut self, short: u8, is_masked: bool) -> io::Result<Vec<u8>> {
        let length = match short {
            TWO => u64::from(self.stream.read_u16().await?),
            EIGHT => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(bad("a frame that is too long"));
        }
        let mut mask = [0; 4];
        if is_masked {
            self.stream.read_exact(&mut mask).await?;
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        apply(mask, &mut payload);
        Ok(payload)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn send(&mut self, message: &Message) -> io::Result<()> {
        let frame = self.frame(message);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// The frame of a message, for a test that sends it in pieces.
    pub fn frame(&self, message: &Message) -> Vec<u8> {
        let (opcode, mut payload) = match message {
            Message::Text(text) => (0x1, text.clone().into_bytes()),
            Message::Close(status) => {
                let status = status.map(u16::to_be_bytes);
                (0x8, status.map(Vec::from).unwrap_or_default())
            }
            Message::Ping(payload) => (0x9, payload.clone()),
            Message::Pong(payload) => (0xa, payload.clone()),
        };
        let masked = if self.end == End::Client { MASKED } else { 0 };
        let mut frame = vec![FIN | opcode];
        if let Ok(short @ ..=125) = u8::try_from(payload.len()) {
            frame.push(masked | short);
        } else if let Ok(length) = u16::try_from(payload.len()) {
            frame.push(masked | TWO);
            frame.extend(length.to_be_bytes());
        } else {
            frame.push(masked | EIGHT);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
        if self.end == End::Client {
            frame.extend(MASK);
            apply(MASK, &mut payload);
        }
        frame.extend(payload);
        frame
    }
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (octet, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *octet ^= mask;
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_end_reads_what_the_other_says() {
        let (client, server) = tokio::io::duplex(256 * 1024);
        let mut client = Socket::new(client, End::Client);
        let mut server = Socket::new(server, End::Server);
        for message in [
            Message::Text("short".to_owned()),
            Message::Text("x".repeat(300)),
            Message::Text("y".repeat(70_000)),
            Message::Ping(vec![1, 2]),
            Message::Pong(Vec::new()),
            Message::Close(Some(1012)),
            Message::Close(None),
        ] {
            client.send(&message).await.unwrap();
            assert_eq!(server.next().await.unwrap(), Some(message.clone()));
            server.send(&message).await.unwrap();
            assert_eq!(client.next().await.unwrap(), Some(message));
        }
        drop(client);
        assert_eq!(server.next().await.unwrap(), None);
    }
}
