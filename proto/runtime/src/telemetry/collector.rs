//! The way to a collector: one connection for each signal, and one request at a time.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName, sign::SingleCertAndKey};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    client::Grpc,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::{environment::Target, otlp::Request};
use crate::{
    Backoff, Random,
    admin::Connection,
    tls::{authorities, crypto},
};

/// The pause before a batch is sent once more doubles between these, as the protocol asks for.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Time for a connection with its TLS.
const CONNECTING: Duration = Duration::from_secs(5);

/// Pings of a connection on which nothing is answered, so that one whose other end is gone is given up.
const PING: Duration = Duration::from_secs(20);

/// Octets of an answer, of which a few say all: what else a collector sends waits at its end.
const LONGEST_ANSWER: u32 = 64 << 10;

/// Octets of the reason why nothing was taken, in the log.
const LONGEST_REASON: usize = 300;

/// Where one signal is sent.
pub(super) struct Collector {
    grpc: Grpc<Channel>,
    headers: MetadataMap,
    random: Random,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    /// In time.
    #[error("no answer in time")]
    Late,
    /// What was answered, or why nothing was. The words of whoever answered are not shown.
    #[error("{0}")]
    Refused(Refusal),
}

/// A status without its message, and what lies below it.
#[derive(Debug)]
pub(super) struct Refusal(Status);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{:?}", self.0.code());
        let mut source = Error::source(&self.0);
        while let Some(error) = source {
            if is_in_known_words(error) {
                text = format!("{text}: {error}");
            }
            source = error.source();
        }
        f.write_str(&text[..text.floor_char_boundary(LONGEST_REASON)])
    }
}

/// Not so an error of HTTP/2, which quotes what the other end says when it goes.
fn is_in_known_words(error: &(dyn Error + 'static)) -> bool {
    error.is::<tonic::transport::Error>() || error.is::<hyper::Error>() || error.is::<io::Error>()
}

impl Collector {
    /// Connects when something is to be sent. Must be made where tokio runs.
    ///
    /// # Errors
    /// When the endpoint is none.
    pub(super) fn new(target: &Target, random: Random) -> Result<Self, tonic::transport::Error> {
        let authority = target.endpoint.authority();
        let authority = authority.map_or("", http::uri::Authority::as_str);
        // Its TLS is ours: what is handed to tonic is a connection that has it, so it is told of a scheme without.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
            .origin(target.endpoint.clone())
            .http2_keep_alive_interval(PING)
            .initial_stream_window_size(LONGEST_ANSWER)
            .initial_connection_window_size(LONGEST_ANSWER)
            .user_agent(concat!("ferrypost/", env!("CARGO_PKG_VERSION")))?;
        let target_of_connector = Arc::new(target.clone());
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let target = Arc::clone(&target_of_connector);
            async move {
                let connected = timeout(CONNECTING, connect(&target)).await;
                connected
                    .unwrap_or_else(|late| Err(late.into()))
                    .map(TokioIo::new)
            }
        }));
        let mut grpc = Grpc::new(channel).max_decoding_message_size(LONGEST_ANSWER as usize);
        if target.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self {
            grpc,
            headers: metadata(&target.headers),
            random,
        })
    }

    /// Sends a batch, again while that makes sense and until `limit`; once, when everything ends. Returns how many items
    /// were not taken, though the batch was.
    pub(super) async fn deliver<R: Request>(
        &mut self,
        request: R,
        limit: Duration,
        ending: &CancellationToken,
    ) -> Result<u64, Undelivered> {
        let until = Instant::now() + limit;
        let mut backoff = Backoff::new(self.random.clone(), FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let sent = timeout_at(until, self.send(request.clone())).await;
            let status = match sent {
                Err(_) => return Err(Undelivered::Late),
                Ok(Ok(rejected)) => return Ok(rejected),
                Ok(Err(status)) => status,
            };
            if ending.is_cancelled() || !is_worth_another(&status) {
                return Err(Undelivered::Refused(Refusal(status)));
            }
            let asked = status.get_details_retry_info();
            let asked = asked.and_then(|it| it.retry_delay).unwrap_or_default();
            let pause = backoff.pause().max(asked);
            let left = until.saturating_duration_since(Instant::now());
            if pause >= left {
                // Who wants to be left alone for longer than this batch lasts is not asked for the next one at once.
                _ = ending.run_until_cancelled(sleep(asked.min(left))).await;
                return Err(Undelivered::Refused(Refusal(status)));
            }
            _ = ending.run_until_cancelled(sleep(pause)).await;
        }
    }

    async fn send<R: Request>(&mut self, request: R) -> Result<u64, Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::from_error(error.into()))?;
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = self.headers.clone();
        let codec = ProstCodec::<R, R::Answer>::default();
        let method = PathAndQuery::from_static(R::METHOD);
        let answers = self.grpc.server_streaming(request, method, codec).await?;
        let answer = only(answers.into_inner()).await?;
        Ok(u64::try_from(R::rejected(&answer)).unwrap_or_default())
    }
}

/// The one message that there is to be, if the status behind it is no other.
async fn only<A>(mut answers: Streaming<A>) -> Result<A, Status> {
    let answer = answers.message().await.map_err(|status| {
        // So our own end says that the message is too long, and a collector that something is transient. What has an
        // answer has arrived.
        match status.code() {
            Code::OutOfRange => Status::internal("an answer that is too long"),
            _ => status,
        }
    })?;
    let answer = answer.ok_or_else(|| Status::internal("no answer"))?;
    answers.trailers().await?;
    Ok(answer)
}

/// The protocol's list of what is transient; a collector that has no room is asked again where it says when. What no
/// collector has said, but our own end of a connection, is as if there were none.
fn is_worth_another(status: &Status) -> bool {
    if status.source().is_some() {
        return true;
    }
    match status.code() {
        Code::ResourceExhausted => status.get_details_retry_info().is_some(),
        code => is_transient(code),
    }
}

const fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn metadata(headers: &[(HeaderName, HeaderValue)]) -> MetadataMap {
    MetadataMap::from_headers(headers.iter().cloned().collect())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate's one way out: telemetry is no part of what a simulation looks at"
)]
async fn connect(target: &Target) -> io::Result<Box<dyn Connection>> {
    let host = target.endpoint.host().unwrap_or_default();
    let host = host.trim_matches(['[', ']']);
    let encrypted = target.endpoint.scheme_str() == Some("https");
    let default = if encrypted { 443 } else { 80 };
    let port = target.endpoint.port_u16().unwrap_or(default);
    let socket = TcpStream::connect((host, port)).await?;
    if !encrypted {
        return Ok(Box::new(socket));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(tls(target)?));
    Ok(Box::new(connector.connect(name, socket).await?))
}

/// Read from the files at every connection, so that renewed ones are taken over.
fn tls(target: &Target) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match &target.authorities {
        None => builder.with_platform_verifier().map_err(io::Error::other)?,
        Some(file) => builder.with_root_certificates(authorities(file).map_err(io::Error::other)?),
    };
    let mut config = match &target.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let identity = files.read().map_err(io::Error::other)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
