//! An issuer of bearer tokens, as far as it is asked about them (RFC 7662): by Dovecot and by data planes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running issuer. It ends with the value.
pub struct Issuer {
    address: SocketAddr,
    known: Arc<Mutex<Known>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Known {
    owners: HashMap<String, String>,
    is_away: bool,
}

impl Issuer {
    /// Starts one that knows no token.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let known = Arc::<Mutex<Known>>::default();
        let shared = Arc::clone(&known);
        Ok(Self {
            address: listener.local_addr()?,
            known,
            serving: tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let known = Arc::clone(&shared);
                    // A client that goes away has no answer to miss.
                    tokio::spawn(async move { _ = serve(stream, &known).await });
                }
            }),
        })
    }

    /// Where it is asked.
    pub fn url(&self) -> String {
        format!("http://{}/introspect", self.address)
    }

    /// From now on a token is this account's.
    pub fn issue(&self, token: &str, account: &str) {
        self.with(|known| known.owners.insert(token.to_owned(), account.to_owned()));
    }

    /// From now on a token is nobody's.
    pub fn revoke(&self, token: &str) {
        self.with(|known| known.owners.remove(token));
    }

    /// Whether it has no answers but errors.
    pub fn is_away(&self, is_away: bool) {
        self.with(|known| known.is_away = is_away);
    }

    fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, known: &Mutex<Known>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(body) = question(&mut stream).await? {
        let answer = answer(&body, &known.lock().unwrap_or_else(PoisonError::into_inner));
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// The body of the next question; `None` at the end of the connection.
async fn question(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}

/// The tests' tokens need no escape in a form.
fn answer(body: &str, known: &Known) -> String {
    if known.is_away {
        return "HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n".to_owned();
    }
    let token = body
        .split('&')
        .find_map(|field| field.strip_prefix("token="));
    let owner = token.and_then(|token| known.owners.get(token));
    let answer = match owner {
        Some(owner) => serde_json::json!({"active": true, "email": owner}),
        None => serde_json::json!({"active": false}),
    }
    .to_string();
    let length = answer.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{answer}"
    )
}
