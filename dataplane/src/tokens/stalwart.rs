//! Stalwart's own access and refresh tokens (0.16), `sw1.<67 characters>.<base64url of the account's address>`.
//!
//! The address is part of what the server verifies, so that it may steer; who forges one is refused there.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Characters of the part between the dots.
const SECRET: usize = 67;

/// The address in a token of this form.
pub(super) fn account(token: &[u8]) -> Option<String> {
    let (secret, address) = token.strip_prefix(b"sw1.")?.split_at_checked(SECRET)?;
    if secret.contains(&b'.') {
        return None;
    }
    let address = address.strip_prefix(b".")?;
    let address = URL_SAFE_NO_PAD.decode(address).ok()?;
    String::from_utf8(address).ok().filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: usize, address: &str) -> String {
        format!(
            "sw1.{}.{}",
            "s".repeat(secret),
            URL_SAFE_NO_PAD.encode(address)
        )
    }

    #[test]
    fn a_token_carries_the_address_of_its_account() {
        let address = "alice@example.org";
        let read = |token: &str| account(token.as_bytes());
        assert_eq!(read(&token(67, address)).as_deref(), Some(address));
        for other in [
            token(66, address),
            token(68, address),
            token(67, ""),
            token(67, address).replace("sw1.", "sw2."),
            token(67, address) + ".more",
            token(67, address) + "!",
            "sw1.".to_owned(),
            String::new(),
        ] {
            assert_eq!(read(&other), None, "{other}");
        }
    }
}
