//! An issuer to order: it answers questions about tokens as it is told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use crate::{net, session::tests::client::Stream};

pub(crate) struct ScriptedIssuer {
    address: SocketAddr,
    is_tls: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    reply: Mutex<Option<Reply>>,
    held: Mutex<Option<Held>>,
    questions: Mutex<Vec<Question>>,
    connections: AtomicUsize,
    /// Up to this one, connections are not answered any more.
    forgotten: AtomicUsize,
}

/// What it says to a question.
#[derive(Clone)]
pub(crate) enum Reply {
    /// This text, and whether it hangs up behind it.
    Json(String, bool),
    /// This status.
    Status(u16),
    /// Nothing, for ever.
    Nothing,
    /// Nothing, and hangs up.
    HangUp,
}

impl Reply {
    pub(crate) fn json(value: &serde_json::Value) -> Self {
        Self::Json(value.to_string(), false)
    }

    /// Hangs up behind the answer, without a word of warning.
    pub(crate) fn and_close(self) -> Self {
        match self {
            Self::Json(text, _) => Self::Json(text, true),
            other => other,
        }
    }
}

/// A question as it came.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Question {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }
}

/// A question whose answer waits.
#[derive(Clone)]
pub(crate) struct Held {
    asked: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Held {
    /// Waits for the question.
    pub(crate) async fn asked(&self) {
        self.asked.acquire().await.unwrap().forget();
    }

    /// Lets it be answered.
    pub(crate) fn release(&self) {
        self.released.add_permits(1);
    }
}

impl ScriptedIssuer {
    pub(crate) fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            is_tls: tls.is_some(),
            shared: Arc::default(),
        };
        let shared = Arc::clone(&issuer.shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    let stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    _ = shared.serve(number, BufReader::new(stream)).await;
                });
            }
        });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}/introspect?x=1", self.authority())
    }

    pub(crate) fn authority(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// What it says from now on.
    pub(crate) fn says(&self, reply: Reply) {
        *self.shared.held.lock().unwrap() = None;
        *self.shared.reply.lock().unwrap() = Some(reply);
    }

    /// The same, when it is released.
    pub(crate) fn holds(&self, reply: Reply) -> Held {
        self.says(reply);
        let held = Held {
            asked: Arc::new(Semaphore::new(0)),
            released: Arc::new(Semaphore::new(0)),
        };
        *self.shared.held.lock().unwrap() = Some(held.clone());
        held
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        self.shared.questions.lock().unwrap().clone()
    }

    /// Never says a word again on the connections that there are.
    pub(crate) fn forgets_its_connections(&self) {
        let all = self.connections();
        self.shared.forgotten.store(all, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    async fn serve(
        &self,
        number: usize,
        mut stream: BufReader<Box<dyn Stream>>,
    ) -> std::io::Result<()> {
        loop {
            let question = question(&mut stream).await?;
            if number <= self.forgotten.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            self.questions.lock().unwrap().push(question);
            let (waiting, reply) = (
                self.held.lock().unwrap().clone(),
                self.reply.lock().unwrap().clone(),
            );
            if let Some(waiting) = waiting {
                waiting.asked.add_permits(1);
                waiting.released.acquire().await.unwrap().forget();
            }
            match reply {
                Some(Reply::Json(text, hangs_up)) => {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                        text.len()
                    );
                    stream.write_all((head + &text).as_bytes()).await?;
                    stream.flush().await?;
                    if hangs_up {
                        return Ok(());
                    }
                }
                Some(Reply::Status(status)) => {
                    let answer =
                        format!("HTTP/1.1 {status} No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await?;
                    stream.flush().await?;
                }
                Some(Reply::Nothing) => std::future::pending().await,
                Some(Reply::HangUp) | None => return Ok(()),
            }
        }
    }
}

async fn question(stream: &mut BufReader<Box<dyn Stream>>) -> std::io::Result<Question> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut lines = lines.into_iter();
    let line = lines.next().unwrap_or_default();
    let headers: Vec<_> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Question {
        line,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
