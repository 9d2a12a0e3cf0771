//! Gives the data plane of this machine the order to drain, and waits until it has.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ferrypost_runtime::{tls, token::TokenError};
use http::{
    HeaderValue, Request, StatusCode,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::Admin,
    limits::ShutdownLimits,
    net::{self, TcpStream, tls_client},
};

/// Beyond what the data plane gives its sessions and its goodbye: for the way there and back.
const MARGIN: Duration = Duration::from_secs(10);

/// The longest answer that is read, in octets: three facts.
const MAX_ANSWER: usize = 64 << 10;

/// Why nobody can say that it is drained.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Nobody answers at the address of the admin endpoint.
    #[error("the data plane cannot be reached at {address}: {error}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The certificate of the configuration cannot be read.
    #[error(transparent)]
    Certificate(#[from] tls::FileError),
    /// Nobody may give the order.
    #[error(
        "admin.drain_token_file is not set, so nobody may have this data plane drained: give it a token of its own"
    )]
    NotAllowed,
    /// Nor the token.
    #[error("{path} {error}", path = .path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        error: TokenError,
    },
    /// Somebody else than the data plane of this configuration listens there, or its certificate was renewed a moment
    /// ago.
    #[error("who answers at {address} does not have admin.cert_file's certificate: {error}")]
    Stranger {
        /// Where.
        address: SocketAddr,
        /// What the handshake said.
        error: io::Error,
    },
    /// The connection failed before the answer: the process may have ended.
    #[error("the data plane did not answer: {0}")]
    Lost(#[from] hyper::Error),
    /// It said something else.
    #[error("the data plane answered {0}")]
    Refused(StatusCode),
    /// It said what is no answer to it.
    #[error("the answer of the data plane was not understood")]
    Malformed,
    /// It takes longer than its own limits.
    #[error("the data plane was not drained within {0:?}")]
    Late(Duration),
}

/// Asks the data plane of this configuration to let go of everybody. Resolves when it has, to what it says of that.
///
/// # Errors
/// [`OrderError`]; then it may still be draining.
pub async fn drain(admin: &Admin, limits: ShutdownLimits) -> Result<Value, OrderError> {
    let limit = limits.grace + limits.goodbye + MARGIN;
    let asking = ask(admin);
    timeout(limit, asking)
        .await
        .map_err(|_| OrderError::Late(limit))?
}

async fn ask(admin: &Admin) -> Result<Value, OrderError> {
    let address = local(admin.listen);
    let authorization = authorization(admin)?;
    let connection = connect(admin, address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connection)).await?;
    let request = Request::post("/drain")
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, authorization)
        .body(Empty::<Bytes>::new())
        .expect("every part of it is valid");
    // The sender goes with its end, and with it the connection: whoever kept it would have the server wait for another request.
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(OrderError::Refused(status));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
        let body = body.await.map_err(|_| OrderError::Malformed)?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| OrderError::Malformed)
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

/// To nobody but who has the certificate of the configuration: the token is for the data plane alone.
async fn connect(admin: &Admin, address: SocketAddr) -> Result<TlsStream<TcpStream>, OrderError> {
    let chain = tls::certificates(&admin.certificate.cert_file)?;
    let own = chain.first().expect("at least one was read");
    let connector = TlsConnector::from(Arc::new(tls_client::pinned_to(own)));
    let socket = net::connect(address).await;
    let socket = socket.map_err(|error| OrderError::Unreachable { address, error })?;
    let name = ServerName::from(address.ip());
    let secured = connector.connect(name, socket).await;
    secured.map_err(|error| OrderError::Stranger { address, error })
}

fn authorization(admin: &Admin) -> Result<HeaderValue, OrderError> {
    let file = admin.drain_token_file.as_ref();
    let file = file.ok_or(OrderError::NotAllowed)?;
    let wrong = |error| OrderError::Token {
        path: file.clone(),
        error,
    };
    let content = std::fs::read(file).map_err(|error| wrong(error.into()))?;
    let token = ferrypost_runtime::token::secret(&content).map_err(wrong)?;
    let header = [b"Bearer ", token].concat();
    let mut header = HeaderValue::from_bytes(&header).map_err(|_| wrong(TokenError::NotOneWord))?;
    header.set_sensitive(true);
    Ok(header)
}

/// An address of this machine at which a listener for all of them is reached.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_for_all_addresses_is_asked_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9443", "127.0.0.1:9443"),
            ("[::]:9443", "[::1]:9443"),
            ("192.0.2.1:9443", "192.0.2.1:9443"),
        ] {
            assert_eq!(local(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
