//! TLS of the listeners: certificates from files that are read again when they change, and who a
//! client certificate stands for.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{config::TlsFiles, reload::Reloading};

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
pub(crate) struct ServerTls(Arc<Reloading<Arc<ServerConfig>>>);

impl ServerTls {
    /// Loads the files.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub(crate) fn load(files: &TlsFiles, clients: ClientCertificates) -> anyhow::Result<Self> {
        let mut watched = vec![files.certificate.clone(), files.key.clone()];
        watched.extend(files.client_ca.clone());
        let files = files.clone();
        let load = move || server_config(&files, clients).map(Arc::new);
        Ok(Self(Arc::new(Reloading::new(watched, load)?)))
    }

    /// What accepts one connection, with the certificate as it is now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(self.0.current().as_ref()))
    }
}

fn server_config(files: &TlsFiles, clients: ClientCertificates) -> anyhow::Result<ServerConfig> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("the private key in {}", files.key.display()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("the TLS versions")?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            builder.with_client_cert_verifier(client_verifier(authority, clients, provider)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).with_context(|| {
        format!(
            "the certificate in {} with the key in {}",
            files.certificate.display(),
            files.key.display()
        )
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn client_verifier(
    authority: &Path,
    clients: ClientCertificates,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots
            .add(certificate)
            .with_context(|| format!("a certificate in {}", authority.display()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients {
        ClientCertificates::Required => builder,
        ClientCertificates::Optional => builder.allow_unauthenticated(),
    };
    builder
        .build()
        .with_context(|| format!("the client authority in {}", authority.display()))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("the certificates in {}", path.display()))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "{} holds no certificate in PEM form",
        path.display()
    );
    Ok(chain)
}

/// The names in a client certificate that passed verification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CertificateNames {
    /// The subject's common name.
    pub(crate) common_name: Option<String>,
    /// DNS names, mail addresses and URIs among the subject's alternative names (RFC 5280 §4.2.1.6).
    pub(crate) alternative_names: Vec<String>,
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
        let alternative_names = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(text)
                    | GeneralName::RFC822Name(text)
                    | GeneralName::URI(text) => Some((*text).to_owned()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            common_name,
            alternative_names,
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
