//! Whether the files that a configuration names hold what they should, each mistake in words that name
//! the file.

use std::path::Path;

use ferrypost_runtime::token::{self, Token, TokenError};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

use crate::{certificate::CertificateFiles, crypto::crypto};

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err(format!("{} holds no certificate", path.display())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(pem_problem(path, "a certificate", &error)),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_problem(path, "a private key", &error))
}

pub(super) fn pair(
    files: &CertificateFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(), String> {
    let (cert_file, key_file) = (files.cert_file.display(), files.key_file.display());
    match CertifiedKey::from_der(chain, key, &crypto()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(format!("{key_file} is not the key of {cert_file}"))
        }
        Err(error) => Err(format!(
            "{cert_file} and {key_file} cannot be used: {error}"
        )),
    }
}

fn pem_problem(path: &Path, what: &str, error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(error) => format!("cannot read {}: {error}", path.display()),
        Error::NoItemsFound => format!(
            "{} holds no {}",
            path.display(),
            what.trim_start_matches("a ")
        ),
        _ => format!("{} is not {what} in PEM", path.display()),
    }
}

pub(super) fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let content = read(path)?;
    let secret = token::secret(&content).map_err(in_file(path))?;
    Ok(secret.to_vec())
}

pub(super) fn token(path: &Path) -> Result<(), String> {
    Token::check(&read(path)?).map_err(in_file(path))?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn in_file(path: &Path) -> impl Fn(TokenError) -> String {
    move |error| format!("{} {error}", path.display())
}
