//! TLS as a destination sees it: its certificate is verified as its endpoint says.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use ferrypost_proto::{Trust, Verification};
use ferrypost_wire::TlsFacts;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, UnbufferedClientConnection,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    sign::CertifiedKey,
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    leg::{Encrypted, InjectedInput, Leg, Plaintext},
    tls_server::facts,
    tls_stream::TlsStream,
    transport::Tls,
};
use ferrypost_runtime::{
    reload::Reloading,
    tls::{CertificateFiles, FileError, crypto},
};

/// Ways of verification that are kept ready; a routing configuration with more is served all the same,
/// with more work.
const KEPT: usize = 256;

/// The client's end of TLS: one for the whole process.
pub struct ClientTls {
    crypto: Arc<CryptoProvider>,
    identity: Option<ClientIdentity>,
    ready: Mutex<HashMap<TrustKey, Arc<ClientConfig>>>,
}

/// Our own certificate, for servers that ask for one. Cheap to clone; clones share what is in force.
#[derive(Debug, Clone)]
pub struct ClientIdentity(Arc<Reloading<CertifiedKey, FileError>>);

impl ClientIdentity {
    /// Reads it.
    ///
    /// # Errors
    /// [`FileError`] for the first file that cannot be used.
    pub fn load(files: &CertificateFiles) -> Result<Self, FileError> {
        let (watched, files) = (files.paths().to_vec(), files.clone());
        let reloading = Reloading::new(watched, move || files.read())?;
        Ok(Self(Arc::new(reloading)))
    }

    /// Takes it over whenever its files have changed. Never returns.
    pub async fn keep_fresh(&self) {
        Arc::clone(&self.0).keep_fresh().await;
    }
}

impl ResolvesClientCert for ClientIdentity {
    /// Whoever asks is shown it, whichever authorities they name: it is they who judge.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A [`Trust`] that can be looked up.
#[derive(PartialEq, Eq, Hash)]
enum TrustKey {
    Platform,
    Ca(String),
    Pin([u8; 32], Option<[u8; 32]>),
}

/// Why a destination's TLS failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Something was sent in clear behind the answer to STARTTLS.
    #[error(transparent)]
    Injected(#[from] InjectedInput),
    /// The certificate is not one to be trusted.
    #[error("the certificate was refused: {0}")]
    Certificate(CertificateRefused),
    /// The endpoint's `server_name` is no name that a certificate could hold.
    #[error("the server name to verify is not valid")]
    ServerName,
    /// What to trust cannot be used.
    #[error("the roots to trust cannot be used: {0}")]
    Roots(rustls::Error),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    /// The connection failed meanwhile.
    #[error("the connection failed in the TLS handshake: {0}")]
    Io(io::Error),
}

/// Why a certificate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefused {
    /// Nobody that is trusted vouches for it.
    #[error("unknown issuer")]
    UnknownIssuer,
    /// It is for other names.
    #[error("not valid for the server name")]
    WrongName,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYetValid,
    /// It is not the one that was pinned.
    #[error("not the pinned certificate")]
    PinMismatch,
    /// Anything else.
    #[error("not acceptable")]
    Other,
}

/// A connection whose handshake is over.
pub struct Shaken {
    /// The connection.
    pub leg: Leg<Encrypted>,
    /// What is known of its TLS.
    pub facts: TlsFacts,
    /// The protocol that the server has chosen.
    pub protocol: Option<Vec<u8>>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientTls {
    /// Nothing kept ready yet.
    pub fn new() -> Self {
        Self::with_crypto(crypto())
    }

    /// The same for servers that are shown who we are.
    pub fn showing(identity: ClientIdentity) -> Self {
        Self {
            identity: Some(identity),
            ..Self::new()
        }
    }

    /// The same with other cryptography than ours.
    pub(crate) fn with_crypto(crypto: Arc<CryptoProvider>) -> Self {
        Self {
            crypto,
            identity: None,
            ready: Mutex::default(),
        }
    }

    /// Shakes hands with a destination.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is closed. Nothing secret was sent.
    pub async fn connect(
        &self,
        leg: Leg<Plaintext>,
        verification: &Verification,
    ) -> Result<(Leg<Encrypted>, TlsFacts), TlsError> {
        let shaken = self.connect_offering(leg, verification, &[]).await?;
        Ok((shaken.leg, shaken.facts))
    }

    /// The same with a server that may choose one of these protocols (ALPN, RFC 7301).
    ///
    /// # Errors
    /// [`TlsError`]; the connection is closed. Nothing secret was sent.
    pub async fn connect_offering(
        &self,
        leg: Leg<Plaintext>,
        verification: &Verification,
        protocols: &[&[u8]],
    ) -> Result<Shaken, TlsError> {
        let (socket, buffer) = leg.into_handshake()?;
        let name = ServerName::try_from(verification.server_name.clone())
            .map_err(|_| TlsError::ServerName)?;
        let config = self.config(&verification.trust)?;
        let protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let session = UnbufferedClientConnection::new_with_alpn(config, name, protocols)
            .map_err(TlsError::Handshake)?;
        let stream = TlsStream::handshake(socket, session, &[])
            .await
            .map_err(classify)?;
        let facts = facts(stream.common(), Some(verification.server_name.clone()));
        let protocol = stream.common().alpn_protocol().map(<[u8]>::to_vec);
        Ok(Shaken {
            leg: Leg::encrypted(Tls::Client(stream), buffer),
            facts,
            protocol,
        })
    }

    fn config(&self, trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
        let key = match trust {
            Trust::Platform => TrustKey::Platform,
            Trust::Ca(pem) => TrustKey::Ca(pem.clone()),
            Trust::PinSha256 { pin, next } => TrustKey::Pin(*pin, *next),
        };
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = ready.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(trust)?);
        if ready.len() >= KEPT {
            ready.clear();
        }
        ready.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn build(&self, trust: &Trust) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.crypto))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder =
            match trust {
                Trust::Platform => builder.with_platform_verifier().map_err(TlsError::Roots)?,
                Trust::Ca(pem) => builder.with_root_certificates(roots(pem)?),
                Trust::PinSha256 { pin, next } => builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Pinned {
                        sha256: *pin,
                        next: *next,
                        crypto: Arc::clone(&self.crypto),
                    })),
            };
        Ok(match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let mut config = builder.with_client_cert_resolver(Arc::new(identity.clone()));
                // A session that is resumed shows nothing: it would go on as who we were.
                config.resumption = Resumption::disabled();
                config
            }
        })
    }
}

/// For a peer that shows this certificate and no other, whatever it says about itself.
pub(crate) fn pinned_to(certificate: &CertificateDer<'_>) -> ClientConfig {
    let crypto = crypto();
    let verifier = Pinned {
        sha256: Sha256::digest(certificate).into(),
        next: None,
        crypto: Arc::clone(&crypto),
    };
    ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| {
            TlsError::Roots(rustls::Error::InvalidCertificate(
                CertificateError::BadEncoding,
            ))
        })?;
        roots.add(certificate).map_err(TlsError::Roots)?;
    }
    Ok(roots)
}

fn classify(error: io::Error) -> TlsError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => TlsError::Certificate(refused(reason)),
        Some(tls) => TlsError::Handshake(tls.clone()),
        None => TlsError::Io(error),
    }
}

fn refused(reason: &CertificateError) -> CertificateRefused {
    match reason {
        CertificateError::UnknownIssuer => CertificateRefused::UnknownIssuer,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateRefused::WrongName
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            CertificateRefused::Expired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateRefused::NotYetValid
        }
        CertificateError::ApplicationVerificationFailure => CertificateRefused::PinMismatch,
        _ => CertificateRefused::Other,
    }
}

/// Accepts one certificate, and the one that is to follow it, whatever they say about themselves: the
/// operator has named them by their digests.
struct Pinned {
    sha256: [u8; 32],
    /// The one that is to follow it.
    next: Option<[u8; 32]>,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = Sha256::digest(end_entity);
        let is = |pin: &[u8; 32]| bool::from(digest.as_slice().ct_eq(pin));
        if is(&self.sha256) || self.next.as_ref().is_some_and(is) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    // The digest says which certificate it is; only these say that the peer has its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}
