//! Bearer tokens (RFC 6750): what a file must hold to be one, what a request shows, and whether it is
//! the one.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The fewest octets of a token: 16 random ones in hexadecimal digits.
pub const SHORTEST: usize = 32;

/// A bearer token, kept as its digest: comparing digests in constant time says nothing about the
/// token, not even its length.
#[derive(Clone, Copy)]
pub struct Token([u8; 32]);

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// What it holds could be guessed.
    #[error("must hold at least {SHORTEST} octets, as `openssl rand -hex 32` makes them")]
    TooShort,
    /// It holds what no `Authorization` header can carry.
    #[error("must hold one word of printable US-ASCII")]
    NotOneWord,
}

impl Token {
    /// The token that a file holds, on one line. Blocks for as long as reading a small file takes.
    ///
    /// # Errors
    /// [`TokenError`]; the caller names the file.
    pub fn read(file: &Path) -> Result<Self, TokenError> {
        Self::check(&std::fs::read(file)?)
    }

    /// The token in the content of a file; space around it does not count.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(content: &[u8]) -> Result<Self, TokenError> {
        let token = secret(content)?;
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::NotOneWord);
        }
        Ok(Self::of(token))
    }

    /// The token that an `Authorization` header shows (RFC 6750 §2.1; the scheme in any case,
    /// RFC 9110 §11.1). `None`: it shows none.
    pub fn shown(header: &[u8]) -> Option<Self> {
        const SCHEME: &[u8] = b"Bearer ";
        let (scheme, token) = header.split_at_checked(SCHEME.len())?;
        scheme
            .eq_ignore_ascii_case(SCHEME)
            .then(|| Self::of(token.trim_ascii()))
    }

    /// Whether two are the same, in a time that depends on neither.
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// The octets of a secret in the content of a file, without the space around them: for keys, which
/// need not be one word.
///
/// # Errors
/// [`TokenError::TooShort`].
pub fn secret(content: &[u8]) -> Result<&[u8], TokenError> {
    let secret = content.trim_ascii();
    if secret.len() < SHORTEST {
        return Err(TokenError::TooShort);
    }
    Ok(secret)
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_token_of_a_header_is_compared_whole() {
        let token = Token::check(format!(" {TEXT}\n").as_bytes()).unwrap();
        let is =
            |header: &str| Token::shown(header.as_bytes()).is_some_and(|shown| token.is(&shown));
        assert!(is(&format!("Bearer {TEXT}")));
        assert!(is(&format!("bearer  {TEXT} ")));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            &format!("Basic {TEXT}"),
            &format!("Bearer {}", &TEXT[1..]),
        ] {
            assert!(!is(bad), "{bad}");
        }
    }

    #[test]
    fn what_could_be_guessed_or_cannot_be_sent_is_no_token() {
        assert!(matches!(Token::check(b"short"), Err(TokenError::TooShort)));
        assert!(matches!(
            Token::check(&TEXT.as_bytes()[1..]),
            Err(TokenError::TooShort)
        ));
        let two_words = "0123456789abcdef 0123456789abcdef";
        assert!(matches!(
            Token::check(two_words.as_bytes()),
            Err(TokenError::NotOneWord)
        ));
        assert!(
            secret(two_words.as_bytes()).is_ok(),
            "a key need not be a word"
        );
        let nowhere = Token::read(Path::new("/nowhere/token"));
        assert!(matches!(nowhere, Err(TokenError::Unreadable(_))));
    }

    #[test]
    fn a_token_is_not_in_debug_output() {
        let token = Token::check(TEXT.as_bytes()).unwrap();
        assert_eq!(format!("{token:?}"), "Token");
    }
}
