//! A plane's admin endpoint, asked as `curl` asks it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::WorldError;

const LIMIT: Duration = Duration::from_secs(30);

/// How to ask one admin endpoint.
#[derive(Clone)]
pub struct Admin {
    address: SocketAddr,
    token: String,
    /// Of who may have it drained.
    drain_token: Option<String>,
    trust: Arc<ClientConfig>,
}

impl Admin {
    /// An endpoint, its token, and who vouches for its certificate.
    pub fn new(address: SocketAddr, token: &str, trust: Arc<ClientConfig>) -> Self {
        Self {
            address,
            token: token.to_owned(),
            drain_token: None,
            trust,
        }
    }

    /// The same for who has the token to drain, too.
    #[must_use]
    pub fn draining(mut self, token: &str) -> Self {
        self.drain_token = Some(token.to_owned());
        self
    }

    /// Whether the data plane accepts clients.
    ///
    /// # Errors
    /// [`WorldError::Admin`] when it does not answer, or answers no.
    pub async fn ready(&self) -> Result<(), WorldError> {
        match self.get("/readyz").await? {
            (200, _) => Ok(()),
            (status, body) => Err(WorldError::Admin(format!("{status} {}", body.trim()))),
        }
    }

    /// The document of `/stats`.
    ///
    /// # Errors
    /// [`WorldError::Admin`] when there is none.
    pub async fn stats(&self) -> Result<Value, WorldError> {
        match self.get("/stats").await? {
            (200, body) => {
                serde_json::from_str(&body).map_err(|error| WorldError::Admin(error.to_string()))
            }
            (status, body) => Err(WorldError::Admin(format!("{status} {}", body.trim()))),
        }
    }

    /// Status and body of a path.
    ///
    /// # Errors
    /// [`WorldError::Admin`] when it does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String), WorldError> {
        self.ask(("GET", path), &self.token, LIMIT).await
    }

    /// What a `POST` of `/drain` says, which is answered when everybody is let go of.
    ///
    /// # Errors
    /// [`WorldError::Admin`] when it says anything else, or nothing for a minute.
    pub async fn drain(&self) -> Result<Value, WorldError> {
        let token = self.drain_token.as_ref().unwrap_or(&self.token);
        let asked = self.ask(("POST", "/drain"), token, Duration::from_mins(1));
        match asked.await? {
            (200, body) => {
                serde_json::from_str(&body).map_err(|error| WorldError::Admin(error.to_string()))
            }
            (status, body) => Err(WorldError::Admin(format!("{status} {}", body.trim()))),
        }
    }

    async fn ask(
        &self,
        request: (&str, &str),
        token: &str,
        limit: Duration,
    ) -> Result<(u16, String), WorldError> {
        let answer = timeout(limit, self.exchange(request, token))
            .await
            .map_err(|_| WorldError::Admin(format!("no answer within {limit:?}")))?
            .map_err(|error| WorldError::Admin(error.to_string()))?;
        parse(&answer).ok_or_else(|| WorldError::Admin("not HTTP".to_owned()))
    }

    async fn exchange(&self, (method, path): (&str, &str), token: &str) -> std::io::Result<String> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::from(self.address.ip());
        let connector = TlsConnector::from(Arc::clone(&self.trust));
        let mut tls = connector.connect(name, tcp).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
            self.address
        );
        tls.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        match tls.read_to_end(&mut answer).await {
            Ok(_) => {}
            // A close without TLS's own is still the end of the answer.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
