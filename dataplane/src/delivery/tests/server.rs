//! A server that takes messages, with faults to order.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::Semaphore,
};

use crate::net::{self, TcpStream};

/// What a server is like.
#[derive(Clone)]
pub(super) struct Manners {
    /// Its first words.
    pub(super) greeting: &'static str,
    /// What it answers to whoever says hello, if it will not have him.
    pub(super) turns_away: Option<&'static str>,
    /// What it offers.
    pub(super) offers: &'static [&'static str],
    /// A permit lets one answer to RCPT through; `None`: at once.
    pub(super) recipients: Option<Arc<Semaphore>>,
    /// A permit lets one word on a message through; `None`: at once.
    pub(super) verdicts: Option<Arc<Semaphore>>,
    /// What it says to recipients whose address begins so.
    pub(super) to: &'static [(&'static str, &'static str)],
    /// Its word on a message.
    pub(super) verdict: &'static str,
    /// Whether that is for all recipients at once.
    pub(super) smtp: bool,
    /// Where it hangs up.
    pub(super) hangs_up: Option<Moment>,
    /// A permit lets it read so many octets of a message; `None`: as they come.
    pub(super) reads: Option<(Arc<Semaphore>, usize)>,
    /// What it says before it has the message.
    pub(super) early: Option<&'static str>,
    /// What it says behind its words on a message.
    pub(super) more: Option<&'static str>,
    /// As `to`, once it has been reset.
    pub(super) to_after_reset: &'static [(&'static str, &'static str)],
}

/// When a server hangs up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// When it has read this many octets of a message.
    After(usize),
    /// When it has read the end of it.
    AtEnd,
    /// When it has said its words on it.
    WhenDone,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            greeting: "220 ready",
            turns_away: None,
            offers: &["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"],
            recipients: None,
            verdicts: None,
            to: &[],
            verdict: "250 2.0.0 Saved",
            smtp: false,
            hangs_up: None,
            reads: None,
            early: None,
            more: None,
            to_after_reset: &[],
        }
    }
}

/// What a server has seen.
#[derive(Default)]
pub(super) struct Seen {
    lines: Mutex<Vec<String>>,
    delivered: Mutex<Vec<(String, String)>>,
    pub(super) connections: AtomicUsize,
    /// Octets of messages.
    pub(super) octets: AtomicUsize,
    /// Ends of messages.
    pub(super) ends: AtomicUsize,
    /// Connections that ended.
    pub(super) ended: AtomicUsize,
}

impl Seen {
    /// To whom it has delivered, in order.
    pub(super) fn recipients(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered.iter().map(|(to, _)| to.clone()).collect()
    }

    /// The messages that it has delivered.
    pub(super) fn messages(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered.iter().map(|(_, text)| text.clone()).collect()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(super) fn has(&self, start: &str) -> bool {
        self.lines().iter().any(|line| line.starts_with(start))
    }
}

/// A count of what it has seen.
pub(super) fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::SeqCst)
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
}

impl Server {
    pub(super) fn start(manners: Manners) -> Self {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let all = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                all.connections.fetch_add(1, Ordering::SeqCst);
                let serving = Serving {
                    manners: manners.clone(),
                    seen: Arc::clone(&all),
                    stream: BufReader::new(stream),
                    recipients: Vec::new(),
                };
                tokio::spawn(serving.serve());
            }
        });
        Self { address, seen }
    }
}

struct Serving {
    manners: Manners,
    seen: Arc<Seen>,
    stream: BufReader<TcpStream>,
    recipients: Vec<String>,
}

impl Serving {
    async fn serve(mut self) {
        _ = self.talk().await;
        self.seen.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends by an error when the connection does, and when the server hangs up.
    async fn talk(&mut self) -> std::io::Result<()> {
        self.say(self.manners.greeting).await?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_owned();
            self.seen.lines.lock().unwrap().push(line.clone());
            match &line[..4] {
                "EHLO" if self.manners.smtp => self.greet().await?,
                "LHLO" if !self.manners.smtp => self.greet().await?,
                "RCPT" => self.recipient(&line).await?,
                "DATA" if self.recipients.is_empty() => self.say("503 5.5.1 Nobody").await?,
                "DATA" => self.message().await?,
                "RSET" => {
                    self.recipients.clear();
                    self.manners.to = self.manners.to_after_reset;
                    self.say("250 2.0.0 Forgotten").await?;
                }
                "QUIT" => return self.say("221 2.0.0 Bye").await,
                _ => self.say("250 2.0.0 Yes").await?,
            }
        }
    }

    async fn greet(&mut self) -> std::io::Result<()> {
        if let Some(no) = self.manners.turns_away {
            return self.say(no).await;
        }
        for offer in self.manners.offers {
            self.say(&format!("250-{offer}")).await?;
        }
        self.say("250 HELP").await
    }

    async fn recipient(&mut self, line: &str) -> std::io::Result<()> {
        let to = line.trim_start_matches("RCPT TO:<");
        let to = &to[..to.find('>').unwrap()];
        pass(self.manners.recipients.as_ref()).await;
        let mut all = self.manners.to.iter();
        if let Some((_, answer)) = all.find(|(start, _)| to.starts_with(start)) {
            return self.say(answer).await;
        }
        self.recipients.push(to.to_owned());
        self.say("250 2.1.5 Here").await
    }

    async fn message(&mut self) -> std::io::Result<()> {
        self.say("354 Go on").await?;
        if let Some(early) = self.manners.early {
            self.say(early).await?;
        }
        let mut message = Vec::new();
        while !message.ends_with(b"\r\n.\r\n") {
            let at_most = match &self.manners.reads {
                Some((permits, count)) => {
                    pass(Some(permits)).await;
                    *count
                }
                None => 1 << 16,
            };
            let mut piece = vec![0; at_most];
            let count = self.stream.read(&mut piece).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            message.extend_from_slice(&piece[..count]);
            self.seen.octets.fetch_add(count, Ordering::SeqCst);
            if let Some(Moment::After(octets)) = self.manners.hangs_up
                && message.len() >= octets
            {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
        }
        message.truncate(message.len() - 3);
        self.seen.ends.fetch_add(1, Ordering::SeqCst);
        if self.manners.hangs_up == Some(Moment::AtEnd) {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        let message = String::from_utf8_lossy(&message).into_owned();
        let recipients = std::mem::take(&mut self.recipients);
        for (n, to) in recipients.into_iter().enumerate() {
            let has_word = n == 0 || !self.manners.smtp;
            if has_word {
                pass(self.manners.verdicts.as_ref()).await;
            }
            let verdict = self.manners.verdict;
            if verdict.starts_with('2') {
                let delivered = (to, message.clone());
                self.seen.delivered.lock().unwrap().push(delivered);
            }
            if has_word {
                self.say(verdict).await?;
            }
        }
        if let Some(more) = self.manners.more {
            self.say(more).await?;
        }
        if self.manners.hangs_up == Some(Moment::WhenDone) {
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream
            .write_all(format!("{line}\r\n").as_bytes())
            .await
    }
}

/// Waits for a permit and uses it up.
async fn pass(permits: Option<&Arc<Semaphore>>) {
    if let Some(permits) = permits {
        permits.acquire().await.unwrap().forget();
    }
}
