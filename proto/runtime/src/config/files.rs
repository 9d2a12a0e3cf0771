//! Keys that name files, which must hold what they should: a mistyped one is found now rather than by
//! the first caller.

use std::path::PathBuf;

use super::Section;
use crate::{
    tls::{self, CertificateFiles},
    token::{self, Token, TokenError},
};

impl Section<'_> {
    /// A file that is there and can be read.
    pub fn readable_file(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        self.content(key, &path)?;
        Some(path)
    }

    /// A file with a bearer token.
    pub fn token_file(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        let content = self.content(key, &path)?;
        self.in_file(key, &path, Token::check(&content))?;
        Some(path)
    }

    /// What a file with a secret key holds.
    pub fn secret(&self, key: &'static str) -> Option<Vec<u8>> {
        let path = self.path(key)?;
        let content = self.content(key, &path)?;
        self.in_file(key, &path, token::secret(&content).map(<[u8]>::to_vec))
    }

    /// A file with certificates of authorities.
    pub fn authorities_file(&self, key: &'static str) -> Option<PathBuf> {
        let path = self.path(key)?;
        self.checked(key, tls::authorities(&path))?;
        Some(path)
    }

    /// The keys `cert_file` and `key_file`, which must be there; `what` says what the certificate is for.
    pub fn certificate_files(&self, what: &str) -> Option<CertificateFiles> {
        const CERTIFICATE: &str = "cert_file";
        const KEY: &str = "key_file";
        let wanted = format!("{what}, a certificate in PEM");
        let cert_file = self.required(CERTIFICATE, &wanted, self.path(CERTIFICATE));
        let key_file = self.required(KEY, "the key of cert_file, in PEM", self.path(KEY));
        let chain = cert_file.as_ref();
        let chain = chain.and_then(|path| self.checked(CERTIFICATE, tls::certificates(path)));
        let key = key_file.as_ref();
        let key = key.and_then(|path| self.checked(KEY, tls::private_key(path)));
        let files = CertificateFiles {
            cert_file: cert_file?,
            key_file: key_file?,
        };
        self.checked(KEY, files.pair(chain?, key?))?;
        Some(files)
    }

    fn content(&self, key: &str, path: &std::path::Path) -> Option<Vec<u8>> {
        let read = std::fs::read(path);
        let read = read.map_err(|error| format!("cannot read {}: {error}", path.display()));
        self.checked(key, read)
    }

    fn in_file<T>(
        &self,
        key: &str,
        path: &std::path::Path,
        outcome: Result<T, TokenError>,
    ) -> Option<T> {
        self.checked(
            key,
            outcome.map_err(|error| format!("{} {error}", path.display())),
        )
    }
}
