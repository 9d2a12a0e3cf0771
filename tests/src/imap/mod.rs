//! An IMAP client for tests: one command at a time, every answer typed, no peer can make it panic.
//!
//! It knows the little of RFC 9051 that a test needs: responses with literals, the greeting and
//! capability data, LOGIN, AUTHENTICATE PLAIN, ID, SELECT, APPEND, FETCH, IDLE. What it cannot say
//! goes through [`ImapClient::command`] or, byte by byte, through [`ImapClient::send`] and
//! [`ImapClient::next_response`]. All its futures may be dropped: what was read stays buffered.

mod connect;
mod response;

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use connect::{Connect, Security};
pub use response::{Reply, Response, Status};

/// The most that a server may send in one response, literals included.
const MAX_RESPONSE: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The connection failed.
    #[error("connection: {0}")]
    Io(#[from] std::io::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake: {0}")]
    Tls(std::io::Error),
    /// The server closed the connection.
    #[error("closed by the server after {bye:?}")]
    Closed {
        /// The text of the `* BYE` that came before, code included.
        bye: Option<String>,
    },
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The server broke the protocol.
    #[error("not IMAP: {0}")]
    Protocol(&'static str),
    /// The server said no where [`Reply::accepted`] asked for a yes.
    #[error("refused: {status:?} {text}")]
    Refused {
        /// NO or BAD.
        status: Status,
        /// What stands in brackets, for example `AUTHENTICATIONFAILED`.
        code: Option<String>,
        /// The whole text, code included.
        text: String,
    },
}

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One connection.
pub struct ImapClient {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    limit: Duration,
    local: Option<SocketAddr>,
    last_tag: u32,
    greeting: String,
    capabilities: Vec<String>,
    bye: Option<String>,
}

impl ImapClient {
    fn new(stream: Box<dyn Stream>, limit: Duration) -> Self {
        Self {
            stream,
            input: Vec::new(),
            limit,
            local: None,
            last_tag: 0,
            greeting: String::new(),
            capabilities: Vec::new(),
            bye: None,
        }
    }

    /// Our end of the connection, if it was one.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The greeting's line without `* `.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// The capabilities that the server named last: in its greeting, in a tagged OK or untagged.
    pub fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    /// Whether the server named this capability, in any case.
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities
            .iter()
            .any(|known| known.eq_ignore_ascii_case(capability))
    }

    /// The text of the server's `* BYE`, if it has said one.
    pub fn bye(&self) -> Option<&str> {
        self.bye.as_deref()
    }

    /// Sends one command, tagged, and waits for its tagged answer.
    ///
    /// # Errors
    /// Everything but [`ImapError::Refused`]: a NO or BAD is an answer.
    pub async fn command(&mut self, command: &str) -> Result<Reply, ImapError> {
        let tag = self.next_tag();
        self.send(format!("{tag} {command}\r\n").as_bytes()).await?;
        self.reply(&tag).await
    }

    /// `LOGIN` with quoted strings.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn login(&mut self, user: &str, password: &str) -> Result<Reply, ImapError> {
        self.command(&format!("LOGIN {} {}", quoted(user), quoted(password)))
            .await
    }

    /// `AUTHENTICATE PLAIN`, with the initial response where the server offers SASL-IR (RFC 4959).
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn authenticate_plain(
        &mut self,
        authorization: &str,
        user: &str,
        password: &str,
    ) -> Result<Reply, ImapError> {
        let message = BASE64.encode(format!("{authorization}\0{user}\0{password}"));
        if self.has("SASL-IR") {
            return self.command(&format!("AUTHENTICATE PLAIN {message}")).await;
        }
        let tag = self.next_tag();
        self.send(format!("{tag} AUTHENTICATE PLAIN\r\n").as_bytes())
            .await?;
        if let Some(refusal) = self.continuation(&tag).await? {
            return Ok(refusal);
        }
        self.send(format!("{message}\r\n").as_bytes()).await?;
        self.reply(&tag).await
    }

    /// `AUTHENTICATE XOAUTH2` with a bearer token and the name beside it. What the server says of a token before
    /// it refuses it comes back too, decoded (RFC 7628 §3.2.2).
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn authenticate_token(
        &mut self,
        name: &str,
        token: &str,
    ) -> Result<(Reply, Option<String>), ImapError> {
        let message = format!("user={name}\x01auth=Bearer {token}\x01\x01");
        let message = BASE64.encode(message);
        let tag = self.next_tag();
        self.send(format!("{tag} AUTHENTICATE XOAUTH2\r\n").as_bytes())
            .await?;
        if let Some(refusal) = self.continuation(&tag).await? {
            return Ok((refusal, None));
        }
        self.send(format!("{message}\r\n").as_bytes()).await?;
        let (mut explanation, mut untagged) = (None, Vec::new());
        loop {
            let response = self.next_response().await?;
            if response.is_continuation() {
                let text = response.text.get(2..).unwrap_or_default();
                let text = BASE64.decode(text);
                let text = text.map_err(|_| ImapError::Protocol("an explanation not in base64"))?;
                explanation = Some(String::from_utf8_lossy(&text).into_owned());
                self.send(b"\r\n").await?;
            } else if let Some((status, text)) = response.tagged(&tag) {
                return Ok((Reply::new(status, text, untagged), explanation));
            } else {
                untagged.push(response);
            }
        }
    }

    /// `CAPABILITY`; the list is in [`ImapClient::capabilities`] afterwards.
    ///
    /// # Errors
    /// As [`ImapClient::command`], and [`ImapError::Refused`].
    pub async fn capability(&mut self) -> Result<&[String], ImapError> {
        self.command("CAPABILITY").await?.accepted()?;
        Ok(&self.capabilities)
    }

    /// Asks by `ID` (RFC 2971) for one field of the server's answer. The Dovecots of the tests say
    /// their name in [`crate::dovecot::ID_FIELD`].
    ///
    /// # Errors
    /// As [`ImapClient::command`], and [`ImapError::Refused`].
    pub async fn id_field(&mut self, field: &str) -> Result<Option<String>, ImapError> {
        let reply = self.command("ID NIL").await?.accepted()?;
        Ok(reply
            .untagged("ID")
            .and_then(|response| response.string_after(field)))
    }

    /// `SELECT`.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn select(&mut self, mailbox: &str) -> Result<Reply, ImapError> {
        self.command(&format!("SELECT {}", quoted(mailbox))).await
    }

    /// `APPEND` of one message as a synchronising literal: nothing of it is sent before the server
    /// asked for it.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> Result<Reply, ImapError> {
        let tag = self.next_tag();
        let command = format!("{tag} APPEND {} {{{}}}\r\n", quoted(mailbox), message.len());
        self.send(command.as_bytes()).await?;
        if let Some(refusal) = self.continuation(&tag).await? {
            return Ok(refusal);
        }
        self.send(&[message, b"\r\n"].concat()).await?;
        self.reply(&tag).await
    }

    /// Starts an `APPEND` of `length` octets; they follow by [`ImapClient::send`], the last of them by
    /// [`Appending::finish`].
    ///
    /// # Errors
    /// As [`ImapClient::command`], and [`ImapError::Refused`].
    pub async fn start_append(
        &mut self,
        mailbox: &str,
        length: usize,
    ) -> Result<Appending, ImapError> {
        let tag = self.next_tag();
        let command = format!("{tag} APPEND {} {{{length}}}\r\n", quoted(mailbox));
        self.send(command.as_bytes()).await?;
        match self.continuation(&tag).await? {
            None => Ok(Appending { tag }),
            Some(refusal) => match refusal.accepted() {
                Ok(_) => Err(ImapError::Protocol("APPEND ended before it began")),
                Err(refused) => Err(refused),
            },
        }
    }

    /// `UID FETCH`; the answers are the reply's untagged responses.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn uid_fetch(&mut self, set: &str, items: &str) -> Result<Reply, ImapError> {
        self.command(&format!("UID FETCH {set} {items}")).await
    }

    /// `NOOP`.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn noop(&mut self) -> Result<Reply, ImapError> {
        self.command("NOOP").await
    }

    /// Starts `IDLE` (RFC 2177). From here on responses come by [`ImapClient::next_response`] until
    /// [`Idle::done`].
    ///
    /// # Errors
    /// As [`ImapClient::command`], and [`ImapError::Refused`].
    pub async fn idle(&mut self) -> Result<Idle, ImapError> {
        let tag = self.next_tag();
        self.send(format!("{tag} IDLE\r\n").as_bytes()).await?;
        match self.continuation(&tag).await? {
            None => Ok(Idle { tag }),
            Some(refusal) => match refusal.accepted() {
                Ok(_) => Err(ImapError::Protocol("IDLE ended before it began")),
                Err(refused) => Err(refused),
            },
        }
    }

    /// `LOGOUT`, and waits for the server's close.
    ///
    /// # Errors
    /// As [`ImapClient::command`]; the close itself is the success.
    pub async fn logout(mut self) -> Result<(), ImapError> {
        self.command("LOGOUT").await?.accepted()?;
        match self.next_response().await {
            Err(ImapError::Closed { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(_) => Err(ImapError::Protocol("a response after LOGOUT")),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ImapError> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.limit, write).await {
            Ok(Ok(())) => Ok(()),
            // A server that says BYE and closes has said why; a write that failed after it has not.
            Ok(Err(error)) => match self.pending_bye().await {
                Some(bye) => Err(ImapError::Closed { bye: Some(bye) }),
                None => Err(error.into()),
            },
            Err(_) => Err(ImapError::Late(self.limit)),
        }
    }

    /// The next response of any kind, with its literals.
    ///
    /// # Errors
    /// [`ImapError::Closed`] at the end, and the others.
    pub async fn next_response(&mut self) -> Result<Response, ImapError> {
        self.next_response_within(self.limit).await
    }

    /// [`ImapClient::next_response`] with a limit of its own.
    ///
    /// # Errors
    /// [`ImapError::Late`] when none came; the connection can go on being used.
    pub async fn next_response_within(&mut self, limit: Duration) -> Result<Response, ImapError> {
        timeout(limit, self.read_response())
            .await
            .unwrap_or(Err(ImapError::Late(limit)))
    }

    fn next_tag(&mut self) -> String {
        self.last_tag += 1;
        format!("t{}", self.last_tag)
    }

    /// Collects responses up to the tagged one.
    async fn reply(&mut self, tag: &str) -> Result<Reply, ImapError> {
        let mut untagged = Vec::new();
        loop {
            let response = self.next_response().await?;
            match response.tagged(tag) {
                Some((status, text)) => return Ok(Reply::new(status, text, untagged)),
                None if response.is_untagged() => untagged.push(response),
                None => return Err(ImapError::Protocol("a response to no command of ours")),
            }
        }
    }

    /// Waits for `+`; `Some` is the tagged answer that came instead.
    async fn continuation(&mut self, tag: &str) -> Result<Option<Reply>, ImapError> {
        let mut untagged = Vec::new();
        loop {
            let response = self.next_response().await?;
            if response.is_continuation() {
                return Ok(None);
            }
            if let Some((status, text)) = response.tagged(tag) {
                return Ok(Some(Reply::new(status, text, untagged)));
            }
            untagged.push(response);
        }
    }

    async fn read_response(&mut self) -> Result<Response, ImapError> {
        loop {
            if let Some((response, length)) = Response::parse(&self.input) {
                self.input.drain(..length);
                self.note(&response);
                return Ok(response);
            }
            if self.input.len() > MAX_RESPONSE {
                return Err(ImapError::Protocol("a response without end"));
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => {
                    return Err(ImapError::Closed {
                        bye: self.bye.clone(),
                    });
                }
                Ok(_) => {}
                // After a BYE, a reset says no more than a close.
                Err(_) if self.bye.is_some() => {
                    return Err(ImapError::Closed {
                        bye: self.bye.clone(),
                    });
                }
                // TLS without a closing alert is still the server's close.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(ImapError::Closed { bye: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Remembers what the server says in passing.
    fn note(&mut self, response: &Response) {
        if let Some(capabilities) = response.capabilities() {
            self.capabilities = capabilities;
        }
        if let Some(text) = response.bye() {
            self.bye = Some(text.to_owned());
        }
    }

    /// What the server said before it closed, within a moment.
    async fn pending_bye(&mut self) -> Option<String> {
        let moment = Duration::from_secs(2);
        while self.next_response_within(moment).await.is_ok() {}
        self.bye.take()
    }
}

/// An `APPEND` whose message is on its way.
#[must_use = "the server waits for the rest of the message"]
pub struct Appending {
    tag: String,
}

impl Appending {
    /// Sends the rest of the message.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn finish(self, client: &mut ImapClient, rest: &[u8]) -> Result<Reply, ImapError> {
        client.send(&[rest, b"\r\n"].concat()).await?;
        client.reply(&self.tag).await
    }
}

/// A running `IDLE`.
#[must_use = "IDLE goes on until `done`"]
pub struct Idle {
    tag: String,
}

impl Idle {
    /// Ends it by `DONE`; the reply holds what came in the meantime and was not read.
    ///
    /// # Errors
    /// As [`ImapClient::command`].
    pub async fn done(self, client: &mut ImapClient) -> Result<Reply, ImapError> {
        client.send(b"DONE\r\n").await?;
        client.reply(&self.tag).await
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
