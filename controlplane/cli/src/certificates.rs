//! Who vouches for the control plane, and the certificates that it and we show to each other.

use std::{sync::Arc, time::Duration};

use ferrypost_runtime::tls;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::Uri;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{connection::Connection, failure::Failure};

/// Time for the handshake with one replica.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A certificate between this program and the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Who shows it.
    pub(crate) by: String,
    /// When it ends, in seconds since 1970; or why that is not known.
    pub(crate) ends: Result<i64, String>,
}

/// Those that a connection believes: of its own file, else of this machine.
///
/// # Errors
/// When there are none.
pub(crate) fn authorities(connection: &Connection) -> Result<RootCertStore, Failure> {
    if let Some(file) = &connection.ca_file {
        return tls::authorities(file).map_err(|error| Failure::usage(error.to_string()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Failure::usage(
            "this machine believes no authorities that were found: say by --ca-file who vouches for the control plane",
        ));
    }
    Ok(roots)
}

/// Looks at all of them: ours, and that of each replica.
///
/// # Errors
/// When a file cannot be used.
pub(crate) async fn shown(connection: &Connection) -> Result<Vec<Shown>, Failure> {
    let mut shown = Vec::new();
    if let Some((file, _)) = &connection.identity {
        let chain = tls::certificates(file).map_err(|error| Failure::usage(error.to_string()))?;
        shown.push(Shown {
            by: file.display().to_string(),
            ends: end(&chain[0]),
        });
    }
    if connection.is_secure() {
        let connector = connector(authorities(connection)?)?;
        for endpoint in connection.secure() {
            let seen = timeout(ATTEMPT, of(endpoint, &connector)).await;
            let seen = seen.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            shown.push(Shown {
                by: endpoint.to_string(),
                ends: seen.and_then(|certificate| end(&certificate)),
            });
        }
    }
    // Without TLS there is nothing to see but whether anybody is there.
    for endpoint in connection.in_clear() {
        let there = timeout(ATTEMPT, reach(endpoint)).await;
        let there = there.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        shown.extend(there.err().map(|why| Shown {
            by: endpoint.to_string(),
            ends: Err(why),
        }));
    }
    Ok(shown)
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, Failure> {
    let config = ClientConfig::builder_with_provider(tls::crypto())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::usage(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What a replica shows to whoever comes. It may want a certificate of ours, and learns in this connection of none; by
/// then it has shown its own.
async fn of(endpoint: &Uri, connector: &TlsConnector) -> Result<CertificateDer<'static>, String> {
    let name =
        ServerName::try_from(host(endpoint).to_owned()).map_err(|error| error.to_string())?;
    let stream = reach(endpoint).await?;
    let secured = connector.connect(name, stream).await;
    let secured = secured.map_err(|error| error.to_string())?;
    let chain = secured.get_ref().1.peer_certificates();
    let certificate = chain.and_then(|chain| chain.first()).cloned();
    certificate.ok_or_else(|| "it shows no certificate".to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a person types needs no simulated network"
)]
async fn reach(endpoint: &Uri) -> Result<TcpStream, String> {
    let port = endpoint.port_u16().unwrap_or_default();
    let stream = TcpStream::connect((host(endpoint), port)).await;
    stream.map_err(|error| error.to_string())
}

fn host(endpoint: &Uri) -> &str {
    endpoint.host().unwrap_or_default().trim_matches(['[', ']'])
}

fn end(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    let (_, read) =
        X509Certificate::from_der(certificate).map_err(|_| "it is no certificate".to_owned())?;
    Ok(read.validity().not_after.timestamp())
}
