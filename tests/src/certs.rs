//! A certificate authority that lives as long as a test, and what it signs.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

/// The names that every server of the tests answers to.
pub const SERVER_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "mail.example.org"];

/// Why a certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The generator refused.
    #[error("certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// TLS refused what was generated or read.
    #[error("certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// A file that holds no certificate.
    #[error("certificate: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
}

/// A throw-away certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    /// A new authority under this common name.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn new(common_name: &str) -> Result<Self, CertError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            der,
        })
    }

    /// The authority's certificate, for a trust file.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server certificate for [`SERVER_NAMES`].
    ///
    /// # Errors
    /// When the generator fails.
    pub fn server(&self) -> Result<Identity, CertError> {
        self.server_named(&SERVER_NAMES)
    }

    /// A server certificate for these DNS names and IP addresses; the first is the common name.
    ///
    /// # Errors
    /// When a name is neither, or the generator fails.
    pub fn server_named(&self, names: &[&str]) -> Result<Identity, CertError> {
        self.sign(server_params(names)?)
    }

    /// A server certificate for [`SERVER_NAMES`] that ran out years ago.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn expired_server(&self) -> Result<Identity, CertError> {
        let mut params = server_params(&SERVER_NAMES)?;
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    /// A server certificate for [`SERVER_NAMES`] that ends so long from now.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn server_ending_in(&self, left: Duration) -> Result<Identity, CertError> {
        let mut params = server_params(&SERVER_NAMES)?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since_1970.expect("it is after 1970");
        params.not_after = date_time_ymd(1970, 1, 1) + now + left;
        self.sign(params)
    }

    /// A client certificate with a common name and the URIs by which its holder is recognised.
    ///
    /// # Errors
    /// When a URI is not ASCII, or the generator fails.
    pub fn client(&self, common_name: &str, uris: &[&str]) -> Result<Identity, CertError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for uri in uris {
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into()?));
        }
        self.sign(params)
    }

    /// A TLS client that trusts this authority and nobody else, and shows no certificate.
    ///
    /// # Errors
    /// When TLS refuses the authority.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, CertError> {
        trusting([self.der.clone()])
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, CertError> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            der: certificate.der().clone(),
            key_pem: key.serialize_pem(),
        })
    }
}

fn server_params(names: &[&str]) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::new(Vec::new())?;
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into()?),
        });
    }
    if let Some(first) = names.first() {
        params.distinguished_name.push(DnType::CommonName, *first);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A certificate and its key.
pub struct Identity {
    certificate_pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
}

/// Where an [`Identity`] was written.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// The key, PEM, readable by its owner alone.
    pub key: PathBuf,
}

impl Identity {
    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The key, for a TLS configuration.
    ///
    /// # Errors
    /// Never for a generated key; the type says so for lack of a better one.
    pub fn key(&self) -> Result<PrivateKeyDer<'static>, CertError> {
        Ok(PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?)
    }

    /// SHA-256 of the certificate's DER, lower-case hexadecimal: what a pin is compared with.
    pub fn sha256(&self) -> String {
        use std::fmt::Write as _;
        Sha256::digest(&self.der)
            .iter()
            .fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("writing to a String cannot fail");
                text
            })
    }

    /// Writes `<stem>.pem` and `<stem>.key` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, stem: &str) -> io::Result<IdentityFiles> {
        let certificate = folder.join(format!("{stem}.pem"));
        let key = folder.join(format!("{stem}.key"));
        fs::write(&certificate, &self.certificate_pem)?;
        let mut options = fs::File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&key)?;
        io::Write::write_all(&mut file, self.key_pem.as_bytes())?;
        Ok(IdentityFiles { certificate, key })
    }
}

/// A TLS client that trusts the authorities in a PEM file and nobody else.
///
/// # Errors
/// When the file cannot be read, or holds no certificate that TLS accepts.
pub fn client_config_from_file(authorities: &Path) -> Result<Arc<ClientConfig>, CertError> {
    let certificates =
        CertificateDer::pem_file_iter(authorities)?.collect::<Result<Vec<_>, _>>()?;
    trusting(certificates)
}

fn trusting(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, CertError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
