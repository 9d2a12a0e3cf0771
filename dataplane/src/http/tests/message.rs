//! HTTP/1 by hand, from either end.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::session::tests::client::{PATIENCE, Stream};

/// A request or a response.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// The first line.
    pub(super) start: String,
    /// In lower case.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Its end was seen, as its framing has it.
    pub(super) is_whole: bool,
}

impl Message {
    /// The value of a field that stands once.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(field, _)| field == name);
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} stands twice: {self:?}");
        Some(&value.1)
    }

    /// The target of a request.
    pub(super) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap()
    }

    /// The status of a response.
    pub(super) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding") == Some("chunked")
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").map(|it| it.parse().unwrap())
    }
}

/// One end of a connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, octets: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(octets.as_ref()).await?;
        self.stream.flush().await
    }

    /// Our side ends.
    pub(super) async fn finish(&mut self) {
        _ = self.stream.shutdown().await;
    }

    /// Reads once. False: nothing more comes.
    async fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut piece)).await;
        match read.expect("something or the end comes in time") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                true
            }
        }
    }

    /// The next octet, if there is one, stays.
    pub(super) async fn has_ended(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// Whatever comes next; `None`: nothing more.
    pub(super) async fn some(&mut self) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.more().await {
            return None;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// So many octets.
    pub(super) async fn octets(&mut self, count: usize) -> Vec<u8> {
        self.exact(count).await.unwrap()
    }

    /// The head of the next message; `None` where nothing comes.
    pub(super) async fn head(&mut self) -> Option<Message> {
        let end = loop {
            let mut windows = self.buffer.windows(4);
            if let Some(at) = windows.position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Some(Message {
            start,
            fields: fields.collect(),
            body: Vec::new(),
            is_whole: false,
        })
    }

    async fn exact(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The next chunk; an empty one is the last.
    pub(super) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            let mut windows = self.buffer.windows(2);
            if let Some(at) = windows.position(|window| window == b"\r\n") {
                break at;
            }
            if !self.more().await {
                return None;
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let size = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = self.exact(size + 2).await?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// The body that belongs to the head.
    pub(super) async fn body(&mut self, message: &mut Message) {
        if message.is_chunked() {
            while let Some(chunk) = self.chunk().await {
                if chunk.is_empty() {
                    message.is_whole = true;
                    return;
                }
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.length() {
            match self.exact(length).await {
                Some(body) => (message.body, message.is_whole) = (body, true),
                None => message.body = std::mem::take(&mut self.buffer),
            }
        } else {
            message.is_whole = true;
        }
    }

    /// The next message with its body.
    pub(super) async fn message(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        self.body(&mut message).await;
        Some(message)
    }
}
