//! What all our TLS has in common: its cryptography, and certificates and keys from files.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

/// aws-lc, with AES-128-GCM before its equals. It is a third cheaper in a handshake than AES-256 with
/// SHA-384, and nobody breaks either.
pub fn crypto() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| match suite.suite().as_str() {
                Some(name) if name.contains("AES_128_GCM") => 0,
                _ => 1,
            });
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// What of TLS is spoken, on every leg, for an operator to read.
pub fn spoken() -> String {
    let provider = crypto();
    let suites = provider.cipher_suites.iter();
    let suites: Vec<_> = suites.filter_map(|it| it.suite().as_str()).collect();
    let groups = provider.kx_groups.iter();
    let groups: Vec<_> = groups.map(|it| format!("{:?}", it.name())).collect();
    format!(
        "TLS 1.3 and 1.2 with {}; key exchange {}. Whoever has only CBC suites, RSA key exchange or finite-field \
         Diffie-Hellman cannot be spoken with: such clients are turned away and counted in /stats, such servers are \
         tls_too_old there",
        suites.join(", "),
        groups.join(", ")
    )
}

/// Where a certificate chain and its key lie, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The chain, our own certificate first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// Why a file cannot be used for TLS. Each names it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{path} holds no {what}")]
    Lacking {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// It is damaged.
    #[error("{path} holds no {what} in PEM that can be read")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key do not belong together.
    #[error("{key} is not the key of {certificate}")]
    WrongKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// It is of a kind that cannot be used.
    #[error("{path} cannot be used: {error}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

impl CertificateFiles {
    /// Reads both.
    ///
    /// # Errors
    /// [`FileError`] for the first that is wrong.
    pub fn read(&self) -> Result<CertifiedKey, FileError> {
        self.pair(certificates(&self.cert_file)?, private_key(&self.key_file)?)
    }

    /// What both hold, if it belongs together.
    ///
    /// # Errors
    /// [`FileError::WrongKey`], [`FileError::Unusable`].
    pub fn pair(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<CertifiedKey, FileError> {
        CertifiedKey::from_der(chain, key, &crypto()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => FileError::WrongKey {
                key: self.key_file.clone(),
                certificate: self.cert_file.clone(),
            },
            error => FileError::Unusable {
                path: self.cert_file.clone(),
                error,
            },
        })
    }

    /// Both, to be watched for changes.
    pub fn paths(&self) -> [PathBuf; 2] {
        [self.cert_file.clone(), self.key_file.clone()]
    }
}

/// The certificates in a file, at least one.
///
/// # Errors
/// [`FileError`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    const WHAT: &str = "certificate";
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err(FileError::Lacking {
            path: path.to_owned(),
            what: WHAT,
        }),
        Ok(chain) => Ok(chain),
        Err(error) => Err(of_pem(path, WHAT, error)),
    }
}

/// The private key in a file.
///
/// # Errors
/// [`FileError`].
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| of_pem(path, "private key", error))
}

/// The certificates in a file as authorities that are believed.
///
/// # Errors
/// [`FileError`].
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| FileError::Unusable {
                path: path.to_owned(),
                error,
            })?;
    }
    Ok(roots)
}

fn of_pem(path: &Path, what: &'static str, error: pem::Error) -> FileError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(error) => FileError::Unreadable { path, error },
        pem::Error::NoItemsFound => FileError::Lacking { path, what },
        _ => FileError::NotPem { path, what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, stem: &str) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
        let files = CertificateFiles {
            cert_file: directory.join(format!("{stem}.pem")),
            key_file: directory.join(format!("{stem}.key")),
        };
        std::fs::write(&files.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&files.key_file, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn files_that_are_missing_or_are_something_else_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (
            written(directory.path(), "one"),
            written(directory.path(), "two"),
        );
        assert!(one.read().is_ok());
        let said = |cert_file: &Path, key_file: &Path| {
            let files = CertificateFiles {
                cert_file: cert_file.to_owned(),
                key_file: key_file.to_owned(),
            };
            let said = files.read().expect_err("wrong").to_string();
            said.replace(&*directory.path().to_string_lossy(), "DIR")
        };
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "nothing").unwrap();
        assert_eq!(
            said(&one.cert_file, &two.key_file),
            "DIR/two.key is not the key of DIR/one.pem"
        );
        assert_eq!(
            said(&empty, &one.key_file),
            "DIR/empty holds no certificate"
        );
        assert_eq!(
            said(&one.cert_file, &one.cert_file),
            "DIR/one.pem holds no private key"
        );
        let missing = said(&directory.path().join("none"), &one.key_file);
        assert!(missing.starts_with("cannot read DIR/none: "), "{missing}");
    }

    #[test]
    fn what_is_said_not_to_be_spoken_is_not() {
        let spoken = spoken();
        let (list, _) = spoken.split_once(". Whoever").unwrap();
        assert!(list.contains("TLS13_AES_128_GCM_SHA256"), "{list}");
        assert!(list.contains("X25519"), "{list}");
        for absent in ["CBC", "TLS_RSA", "TLS_DHE", "FFDHE"] {
            assert!(!list.contains(absent), "{list}");
        }
    }
}
