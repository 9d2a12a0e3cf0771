//! The way to the control plane: which replica, by which socket, who it is and who we are.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrypost_runtime::tls::{FileError, authorities, crypto};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName, sign::SingleCertAndKey};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{
    config::{ControlPlane, ControlPlaneTls},
    feed::{BoxFuture, Connect, ConnectError},
    net::{
        self,
        race::race,
        resolver::{ResolveError, Resolver},
    },
};

/// Time for one attempt, from the resolver to the end of the TLS handshake.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Octets in flight on the stream. A snapshot of ten million accounts comes in chunks of 1 MiB; with
/// less than a few of them in flight the distance to the control plane would decide how fast.
const WINDOW: u32 = 4 << 20;

/// Connects to one replica after the other.
pub struct ControlPlaneConnector {
    replicas: Vec<Uri>,
    tls: Option<ControlPlaneTls>,
    resolver: Resolver,
    attempts: AtomicUsize,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {} s", ATTEMPT.as_secs())]
    Timeout,
    #[error("the host cannot be resolved: {0}")]
    Resolve(#[from] ResolveError),
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the server name to verify is not valid")]
    ServerName,
    #[error("{0}")]
    Http(#[from] tonic::transport::Error),
}

impl ControlPlaneConnector {
    /// A connector to these replicas.
    ///
    /// # Panics
    /// If an endpoint is no URI, which validation rules out.
    pub fn new(settings: &ControlPlane, resolver: Resolver) -> Self {
        let parse = |text: &String| text.parse().expect("validated");
        Self {
            replicas: settings.endpoints.iter().map(parse).collect(),
            tls: settings.tls.clone(),
            resolver,
            attempts: AtomicUsize::new(0),
        }
    }

    async fn attempt(&self, replica: &Uri) -> Result<Channel, Failure> {
        let socket = self.socket(replica).await?;
        // What is handed to tonic is one connection that exists already; its own TLS stays out of it,
        // so it is told of a scheme without.
        let endpoint = Endpoint::from_shared(format!("http://{}", authority(replica)))?
            .origin(replica.clone())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let channel = match &self.tls {
            Some(tls) if replica.scheme_str() == Some("https") => {
                let name = tls.server_name.clone();
                let name = name.unwrap_or_else(|| host(replica).to_owned());
                let name = ServerName::try_from(name).map_err(|_| Failure::ServerName)?;
                let connector = TlsConnector::from(Arc::new(mutual(tls)?));
                let stream = connector.connect(name, socket).await?;
                endpoint.connect_with_connector(once(stream)).await?
            }
            _ => endpoint.connect_with_connector(once(socket)).await?,
        };
        Ok(channel)
    }

    async fn socket(&self, replica: &Uri) -> Result<net::TcpStream, Failure> {
        let port = replica.port_u16().unwrap_or_default();
        let addresses = self.resolver.resolve(host(replica), port).await?;
        let (socket, _) = race(&addresses).await?;
        Ok(socket)
    }
}

impl Connect for ControlPlaneConnector {
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ConnectError>> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let replica = &self.replicas[attempt % self.replicas.len()];
        Box::pin(async move {
            let connected = timeout(ATTEMPT, self.attempt(replica)).await;
            connected
                .unwrap_or(Err(Failure::Timeout))
                .map_err(|failure| ConnectError(format!("{replica}: {failure}")))
        })
    }
}

/// A connector that yields a connection which exists already, once: when it is lost, the feed itself
/// decides when and where to connect again.
fn once<S>(
    stream: S,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<S>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<S>>> + Send,
> + Send
+ 'static
where
    S: Send + 'static,
{
    let mut stream = Some(stream);
    tower::service_fn(move |_| {
        let stream = stream.take();
        async move {
            let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
            Ok(TokioIo::new(stream))
        }
    })
}

/// Verifies the control plane and shows our certificate. Read from the files at every connection.
fn mutual(tls: &ControlPlaneTls) -> Result<ClientConfig, Failure> {
    let builder =
        ClientConfig::builder_with_provider(crypto()).with_safe_default_protocol_versions()?;
    let builder = match &tls.ca_file {
        None => builder.with_platform_verifier()?,
        Some(path) => builder.with_root_certificates(authorities(path)?),
    };
    let identity = SingleCertAndKey::from(tls.identity.read()?);
    let mut config = builder.with_client_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn authority(replica: &Uri) -> &str {
    replica.authority().map_or("", http::uri::Authority::as_str)
}

/// Without the brackets of an IPv6 address.
fn host(replica: &Uri) -> &str {
    replica.host().unwrap_or_default().trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use ferrypost_runtime::shutdown::Shutdown;

    use crate::{
        app::tests::control_plane,
        net::{
            race::tests::Silent,
            resolver::tests::{Answer, Book},
        },
    };

    #[tokio::test]
    async fn a_replica_whose_first_address_is_dead_is_reached_within_the_attempt() {
        let replica = control_plane::ControlPlane::start();
        let port = replica.address.port();
        let _dead = Silent::at(([127, 0, 4, 1], port).into());
        let names = Book::saying(Answer::addresses(&["127.0.4.1", "127.0.0.1"]));
        let settings = ControlPlane {
            endpoints: vec![format!("http://replica.example.org:{port}")],
            tls: None,
        };
        let resolver = Resolver::new(names, Shutdown::new());
        let connector = ControlPlaneConnector::new(&settings, resolver);
        let begun = Instant::now();
        connector.connect().await.ok().unwrap();
        assert!(begun.elapsed() < ATTEMPT / 2, "{:?}", begun.elapsed());
    }
}
