//! A server behind the data plane, with faults to order.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ppp::v2::Header;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::client::Stream;
use crate::net;

/// What a server is like.
#[derive(Clone)]
pub(crate) struct Manners {
    /// Sent first; empty: nothing is.
    pub(crate) greeting: Vec<u8>,
    /// What it can do.
    pub(crate) capabilities: &'static str,
    /// TLS from the first octet, or by STARTTLS.
    pub(crate) tls: Tls,
    /// Sent behind the answer to STARTTLS, in the same segment.
    pub(crate) injected: &'static str,
    /// It wants a PROXY header first.
    pub(crate) proxy: bool,
    /// A permit lets one login through; `None`: at once.
    pub(crate) verdicts: Option<Arc<Semaphore>>,
    /// What it says to a wrong password behind NO.
    pub(crate) refusal: &'static str,
    /// What it says, in base64, before it refuses a token.
    pub(crate) challenge: Option<&'static str>,
    /// How it judges a login.
    pub(crate) judges: Judges,
    /// Sent behind its OK, in the same segment.
    pub(crate) behind_ok: &'static str,
    /// It keeps its side open whatever happens.
    pub(crate) never_closes: bool,
    /// It answers no command after the login.
    pub(crate) mute: bool,
    /// Octets that it sends as an answer to FLOOD.
    pub(crate) flood: usize,
    /// Octets that its kernel is to hold of what it sends; `None`: as the system likes.
    pub(crate) send_buffer: Option<usize>,
}

#[derive(Clone, Copy)]
pub(crate) enum Judges {
    ByPassword,
    RefusesEverybody,
    HangsUp,
}

#[derive(Clone)]
#[expect(clippy::enum_variant_names, reason = "STARTTLS is called that")]
pub(crate) enum Tls {
    None,
    Implicit(Arc<ServerConfig>),
    StartTls(Arc<ServerConfig>),
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            greeting: b"* OK ready\r\n".to_vec(),
            capabilities: "IMAP4rev1 AUTH=PLAIN SASL-IR IDLE ID LITERAL+ UNAUTHENTICATE",
            tls: Tls::None,
            injected: "",
            proxy: false,
            verdicts: None,
            refusal: "[AUTHENTICATIONFAILED] wrong",
            challenge: None,
            judges: Judges::ByPassword,
            behind_ok: "",
            never_closes: false,
            mute: false,
            flood: 0,
            send_buffer: None,
        }
    }
}

/// What a server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every line, literals in one piece.
    lines: Mutex<Vec<String>>,
    /// The PROXY headers.
    headers: Mutex<Vec<Vec<u8>>>,
    pub(crate) connections: AtomicUsize,
    pub(crate) logins: AtomicUsize,
    /// Connections whose end it has seen.
    pub(crate) ended: AtomicUsize,
    /// Octets that it could send of a flood.
    pub(crate) flooded: AtomicUsize,
}

impl Seen {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn has(&self, text: &str) -> bool {
        self.lines().iter().any(|line| line.contains(text))
    }

    pub(crate) fn header(&self) -> Header<'static> {
        let headers = self.headers.lock().unwrap();
        Header::try_from(&headers[0][..]).unwrap().to_owned()
    }

    #[expect(clippy::unused_self, reason = "it reads as the question that it is")]
    pub(crate) fn count(&self, of: &AtomicUsize) -> usize {
        of.load(Ordering::SeqCst)
    }
}

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

impl Backend {
    pub(crate) fn start(manners: Manners) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manners)
    }

    pub(crate) fn start_at(address: SocketAddr, manners: Manners) -> Self {
        let listener = net::listen(address).unwrap();
        if let Some(octets) = manners.send_buffer {
            // Connections inherit it.
            let socket = SockRef::from(&listener);
            socket.set_send_buffer_size(octets).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                all.connections.fetch_add(1, Ordering::SeqCst);
                let connection = Connection {
                    manners: manners.clone(),
                    seen: Arc::clone(&all),
                    stream: BufReader::new(Box::new(stream)),
                };
                tokio::spawn(connection.serve());
            }
        });
        Self { address, seen }
    }
}

struct Connection {
    manners: Manners,
    seen: Arc<Seen>,
    stream: BufReader<Box<dyn Stream>>,
}

/// A connection is over.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Connection {
    async fn serve(mut self) {
        _ = self.converse().await;
        if self.manners.never_closes {
            std::future::pending::<()>().await;
        }
        self.seen.ended.fetch_add(1, Ordering::SeqCst);
    }

    async fn converse(&mut self) -> Result<(), Over> {
        if self.manners.proxy {
            self.read_header().await?;
        }
        if let Tls::Implicit(config) = self.manners.tls.clone() {
            self.secure(config).await?;
        }
        let greeting = self.manners.greeting.clone();
        self.say(greeting).await?;
        while let Some(line) = self.line().await? {
            if !self.before_login(&line).await? {
                continue;
            }
            while let Some(line) = self.line().await? {
                if !self.manners.mute {
                    self.after_login(&line).await?;
                }
            }
        }
        Err(Over)
    }

    async fn read_header(&mut self) -> Result<(), Over> {
        // Not through the buffer, from which TLS behind the header would not get what was read ahead.
        let stream = self.stream.get_mut();
        let mut header = vec![0; 16];
        stream.read_exact(&mut header).await?;
        if !header.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            // As servers do: without a word.
            return Err(Over);
        }
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.resize(16 + length, 0);
        stream.read_exact(&mut header[16..]).await?;
        self.seen.headers.lock().unwrap().push(header);
        Ok(())
    }

    async fn secure(&mut self, config: Arc<ServerConfig>) -> Result<(), Over> {
        let nothing: Box<dyn Stream> = Box::new(tokio::io::empty());
        let stream = std::mem::replace(&mut self.stream, BufReader::new(nothing));
        let stream = TlsAcceptor::from(config)
            .accept(stream.into_inner())
            .await?;
        self.stream = BufReader::new(Box::new(stream));
        Ok(())
    }

    async fn say(&mut self, text: impl AsRef<[u8]>) -> Result<(), Over> {
        self.stream.write_all(text.as_ref()).await?;
        Ok(self.stream.flush().await?)
    }

    /// A line with its literals; `None` at the end.
    async fn line(&mut self) -> Result<Option<String>, Over> {
        let mut line = String::new();
        loop {
            if self.stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let announced = line.trim_end().strip_suffix('}').and_then(|rest| {
                let (_, digits) = rest.rsplit_once('{')?;
                let waits = !digits.ends_with('+');
                Some((digits.trim_end_matches('+').parse().ok()?, waits))
            });
            let Some((length, waits)): Option<(usize, bool)> = announced else {
                break;
            };
            if waits {
                self.say("+ go on\r\n").await?;
            }
            let mut literal = vec![0; length];
            self.stream.read_exact(&mut literal).await?;
            line.push_str(&String::from_utf8_lossy(&literal));
        }
        self.seen
            .lines
            .lock()
            .unwrap()
            .push(line.trim_end().to_owned());
        Ok(Some(line))
    }

    /// True when somebody is logged in.
    async fn before_login(&mut self, line: &str) -> Result<bool, Over> {
        let mut words = line.split_whitespace();
        let tag = words.next().unwrap_or_default().to_owned();
        let capabilities = self.manners.capabilities;
        match words
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
            .as_str()
        {
            "CAPABILITY" => {
                let starttls = match self.manners.tls {
                    Tls::StartTls(_) => " STARTTLS LOGINDISABLED",
                    _ => "",
                };
                self.say(format!(
                    "* CAPABILITY {capabilities}{starttls}\r\n{tag} OK done\r\n"
                ))
                .await?;
            }
            "ID" => self.say(format!("* ID NIL\r\n{tag} OK done\r\n")).await?,
            "STARTTLS" => {
                let Tls::StartTls(config) = self.manners.tls.clone() else {
                    return Err(Over);
                };
                let injected = self.manners.injected;
                self.say(format!("{tag} OK begin\r\n{injected}")).await?;
                self.secure(config).await?;
                self.manners.tls = Tls::None;
            }
            "AUTHENTICATE" if is_with_token(line) => return self.token(&tag, line).await,
            "LOGIN" | "AUTHENTICATE" => return self.verdict(&tag, line, false).await,
            "LOGOUT" => {
                self.say(format!("* BYE\r\n{tag} OK done\r\n")).await?;
                return Err(Over);
            }
            _ if tag.is_empty() || tag.contains(char::is_control) => {
                self.say("* BAD [PARSE] what\r\n").await?;
            }
            _ => self.say(format!("{tag} BAD what\r\n")).await?,
        }
        Ok(false)
    }

    /// Goes by the token, whatever name is beside it.
    async fn token(&mut self, tag: &str, line: &str) -> Result<bool, Over> {
        let response = if let Some(response) = line.split_whitespace().nth(3) {
            response.to_owned()
        } else {
            self.say("+ \r\n").await?;
            self.line().await?.ok_or(Over)?
        };
        let message = STANDARD.decode(response.trim_end()).map_err(|_| Over)?;
        let message = String::from_utf8_lossy(&message).into_owned();
        self.seen.lines.lock().unwrap().push(message.clone());
        let (_, token) = message.split_once("auth=Bearer ").ok_or(Over)?;
        self.verdict(tag, token, true).await
    }

    async fn verdict(&mut self, tag: &str, line: &str, is_token: bool) -> Result<bool, Over> {
        self.seen.logins.fetch_add(1, Ordering::SeqCst);
        if let Some(verdicts) = self.manners.verdicts.clone() {
            verdicts.acquire().await.unwrap().forget();
        }
        let is_accepted = match self.manners.judges {
            Judges::ByPassword => password_is_right(line),
            Judges::RefusesEverybody => false,
            Judges::HangsUp => return Err(Over),
        };
        if !is_accepted {
            if let Some(challenge) = self.manners.challenge.filter(|_| is_token) {
                self.say(format!("+ {challenge}\r\n")).await?;
                self.line().await?;
            }
            let refusal = self.manners.refusal;
            self.say(format!("{tag} NO {refusal}\r\n")).await?;
            return Ok(false);
        }
        let capabilities = self.manners.capabilities;
        let behind = self.manners.behind_ok;
        self.say(format!(
            "{tag} OK [CAPABILITY {capabilities}] in\r\n{behind}"
        ))
        .await?;
        Ok(true)
    }

    async fn after_login(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split_whitespace();
        let tag = words.next().unwrap_or_default().to_owned();
        match words
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
            .as_str()
        {
            "LIST" => {
                self.say(format!("* LIST () \"/\" INBOX\r\n{tag} OK done\r\n"))
                    .await
            }
            "IDLE" => {
                self.say("+ idling\r\n").await?;
                self.line().await?;
                self.say(format!("{tag} OK done\r\n")).await
            }
            "FLOOD" => self.flood(&tag).await,
            "LOGOUT" => {
                self.say(format!("* BYE\r\n{tag} OK done\r\n")).await?;
                Err(Over)
            }
            "SILENCE" => Ok(()),
            "SLOW" => self.slow(&tag).await,
            _ => self.say(format!("{tag} OK done\r\n")).await,
        }
    }

    /// Answers after a while, unless the client has ended its side by then: that it has not can only be asserted
    /// over a time.
    async fn slow(&mut self, tag: &str) -> Result<(), Over> {
        let ended = timeout(Duration::from_millis(200), self.stream.fill_buf()).await;
        match ended {
            Ok(_) => Err(Over),
            Err(_) => self.say(format!("{tag} OK done\r\n")).await,
        }
    }

    async fn flood(&mut self, tag: &str) -> Result<(), Over> {
        let total = self.manners.flood;
        self.say(format!("* 1 FETCH (BODY[] {{{total}}}\r\n"))
            .await?;
        let piece = vec![b'x'; 64 * 1024];
        let mut left = total;
        while left > 0 {
            let count = left.min(piece.len());
            self.stream.write_all(&piece[..count]).await?;
            self.seen.flooded.fetch_add(count, Ordering::SeqCst);
            left -= count;
        }
        self.say(format!(")\r\n{tag} OK done\r\n")).await
    }
}

fn is_with_token(line: &str) -> bool {
    let mechanism = line.split_whitespace().nth(2);
    matches!(mechanism, Some("OAUTHBEARER" | "XOAUTH2"))
}

/// `secret`, as LOGIN writes it or inside PLAIN.
fn password_is_right(line: &str) -> bool {
    let last = line.split_whitespace().last().unwrap_or_default();
    let plain = STANDARD.decode(last);
    line.contains("secret") || plain.is_ok_and(|plain| plain.ends_with(b"\0secret"))
}
