//! TLS of the listeners: certificates from files that are read again when they change, and who a
//! client certificate stands for.

use std::{path::Path, sync::Arc};

use ferrypost_runtime::{
    reload::Reloading,
    tls::{FileError, authorities, crypto},
};
use rustls::{
    ServerConfig,
    pki_types::CertificateDer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::config::TlsFiles;

/// What client certificates a listener asks for, where it has an authority for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificates {
    /// No connection without one.
    Required,
    /// Callers may show a bearer token in its stead.
    Optional,
}

/// A listener's certificate, and the authority for its clients'.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls(Arc<Reloading<Arc<ServerConfig>, FileError>>);

impl ServerTls {
    /// Loads the files of a listener that speaks a protocol (RFC 7301).
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub(crate) fn load(
        files: &TlsFiles,
        clients: ClientCertificates,
        protocol: &'static [u8],
    ) -> Result<Self, FileError> {
        let mut watched = Vec::from(files.identity.paths());
        watched.extend(files.client_ca.clone());
        let files = files.clone();
        let load = move || server_config(&files, clients, protocol).map(Arc::new);
        Ok(Self(Arc::new(Reloading::new(watched, load)?)))
    }

    /// What accepts one connection, with the certificate as it is now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(self.0.fresh().as_ref()))
    }
}

fn server_config(
    files: &TlsFiles,
    clients: ClientCertificates,
    protocol: &'static [u8],
) -> Result<ServerConfig, FileError> {
    let identity = files.identity.read()?;
    let builder = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authority) => builder.with_client_cert_verifier(client_verifier(authority, clients)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn client_verifier(
    authority: &Path,
    clients: ClientCertificates,
) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let roots = Arc::new(authorities(authority)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, crypto());
    let builder = match clients {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    Ok(builder.build().expect("there is at least one authority"))
}

/// The names in a client certificate that passed verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateNames {
    /// The subject's common name.
    pub(crate) common_name: Option<String>,
    /// DNS names, mail addresses and URIs among the subject's alternative names (RFC 5280 §4.2.1.6).
    pub(crate) alternative_names: Vec<String>,
    /// The DNS names among them, in lower case.
    pub(crate) dns_names: Vec<String>,
}

impl CertificateNames {
    /// Reads them. A certificate that cannot be parsed has none, and so stands for nobody.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        let common_name = certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .map(str::to_owned);
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension.map_or(&[][..], |extension| &extension.value.general_names[..]);
        let alternative = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
                Some((*text).to_owned())
            }
            _ => None,
        });
        let dns = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(text) => Some(text.to_ascii_lowercase()),
            _ => None,
        });
        Self {
            common_name,
            alternative_names: alternative.collect(),
            dns_names: dns.collect(),
        }
    }

    /// What to call the caller by, in migrations and the log.
    pub(crate) fn label(&self) -> &str {
        self.common_name
            .as_deref()
            .or(self.alternative_names.first().map(String::as_str))
            .unwrap_or("unnamed certificate")
    }
}
