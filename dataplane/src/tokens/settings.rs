//! How it is told whose tokens are, as the configuration says it.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

/// `[tokens]`
#[derive(Debug, Clone)]
pub struct Settings {
    /// `owner`: who tells whose a token is, in the order in which they are asked; never empty.
    pub owner: Vec<WaySettings>,
}

/// One way to tell.
#[derive(Debug, Clone)]
pub enum WaySettings {
    /// Stalwart's own tokens carry the address of their account.
    Stalwart,
    /// `[tokens.jwt]`
    Jwt(JwtSettings),
    /// `[tokens.introspection]`
    Introspection(IntrospectionSettings),
    /// The name beside the token, for servers that are known to hold it against the token.
    NameBeside,
}

/// Tokens whose claims are read.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// `keys_file` and `signature`: what proves the claims.
    pub keys: JwtKeys,
    /// `issuer`: tokens of others are not read.
    pub issuer: Option<String>,
    /// `claims`: the first of these that is there names the owner; never empty.
    pub claims: Vec<String>,
}

/// What proves claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// The key set in this file.
    File(PathBuf),
    /// Nothing: they steer.
    Unchecked,
}

/// An issuer that is asked.
#[derive(Debug, Clone)]
pub struct IntrospectionSettings {
    /// `url`: https, or http to a loopback address.
    pub url: Uri,
    /// `ca_file`: who vouches for its certificate. `None`: the platform's roots.
    pub ca_file: Option<PathBuf>,
    /// Who we are there.
    pub login: IssuerLogin,
    /// `claims`: as of [`JwtSettings`], in its answer.
    pub claims: Vec<String>,
}

/// Who we are to an issuer. The secret is read from its file again when that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerLogin {
    /// `client_id` and `client_secret_file` (RFC 6749 §2.3.1).
    Client {
        /// Our name there.
        id: String,
        /// Holds our password there.
        secret_file: PathBuf,
    },
    /// `token_file`: a bearer token of our own.
    Token {
        /// Holds it.
        file: PathBuf,
    },
}

impl IssuerLogin {
    /// The file with the secret.
    pub fn file(&self) -> &Path {
        match self {
            Self::Client { secret_file, .. } => secret_file,
            Self::Token { file } => file,
        }
    }

    /// The header that says who we are (RFC 7617 §2, RFC 6750 §2.1).
    ///
    /// # Errors
    /// [`LoginError`]
    pub fn read(&self) -> Result<HeaderValue, LoginError> {
        let content = std::fs::read_to_string(self.file()).map_err(LoginError::Unreadable)?;
        self.header(&Zeroizing::new(content))
            .ok_or(LoginError::Unfit)
    }

    fn header(&self, content: &str) -> Option<HeaderValue> {
        let secret = content.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || !secret.bytes().all(|octet| octet.is_ascii_graphic()) {
            return None;
        }
        let text = match self {
            Self::Client { id, .. } => {
                let pair = Zeroizing::new(format!("{}:{}", *escaped(id), *escaped(secret)));
                Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
            }
            Self::Token { .. } => Zeroizing::new(format!("Bearer {secret}")),
        };
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// Why the file with our secret is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The system does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It holds something else.
    #[error("does not hold one line of printable US-ASCII without spaces")]
    Unfit,
}

/// Text as a form has it (RFC 6749 appendix B), but for the space, which has no place in these.
pub(super) fn escaped(text: &str) -> Zeroizing<String> {
    let mut escaped = Zeroizing::new(String::with_capacity(3 * text.len()));
    for octet in text.bytes() {
        // What needs no escape anywhere (RFC 3986 §2.3).
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            escaped.push(char::from(octet));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
            escaped.extend(['%', digit(octet >> 4), digit(octet & 15)]);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_we_are_is_said_as_the_rfcs_have_it() {
        let client = IssuerLogin::Client {
            id: "ferry:post".to_owned(),
            secret_file: PathBuf::new(),
        };
        // ferry%3Apost:s%2Fcret
        let header = client.header("s/cret\n").unwrap();
        assert_eq!(header, "Basic ZmVycnklM0Fwb3N0OnMlMkZjcmV0");
        assert!(header.is_sensitive(), "it is shown in no log");
        let token = IssuerLogin::Token {
            file: PathBuf::new(),
        };
        assert_eq!(token.header("t0ken\r\n").unwrap(), "Bearer t0ken");
        for content in ["", "\n", "two\nlines", "a b", "\u{e4}"] {
            assert!(token.header(content).is_none(), "{content:?}");
        }
    }
}
