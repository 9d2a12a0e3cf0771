//! The `Authorization` field (RFC 9110 §11.6.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ferrypost_wire::{Credentials, Secret};
use http::{HeaderMap, header::AUTHORIZATION};
use zeroize::Zeroizing;

use super::MAX_LOGIN;
use crate::Refusal;

/// Longest token in octets.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Longest Basic credentials in base64: a login and a password of the same size.
const MAX_BASIC: usize = (2 * MAX_LOGIN + 1).div_ceil(3) * 4;

/// The user of Basic credentials (RFC 7617 §2): UTF-8, up to the first colon. The password is looked at as far
/// as it must be fit to be one, and wiped. `None` under another scheme or without any.
pub(super) fn basic(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(encoded) = credentials(headers, "Basic")? else {
        return Ok(None);
    };
    if encoded.len() > MAX_BASIC {
        return Err(Refusal::Credentials);
    }
    let mut decoded = Zeroizing::new(vec![0; encoded.len()]);
    let length = STANDARD
        .decode_slice(encoded, &mut decoded)
        .map_err(|_| Refusal::Credentials)?;
    let mut parts = decoded[..length].splitn(2, |&octet| octet == b':');
    let (Some(user), Some(password)) = (parts.next(), parts.next()) else {
        return Err(Refusal::Credentials);
    };
    let password = Secret::new(Zeroizing::new(password.to_vec()));
    match Credentials::password(b"", user, password) {
        Ok(Credentials::Password(login)) if login.name().len() <= MAX_LOGIN => {
            Ok(Some(login.name().to_owned()))
        }
        _ => Err(Refusal::Credentials),
    }
}

/// A bearer token (RFC 6750 §2.1). `None` under another scheme or without any.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<Secret>, Refusal> {
    let Some(token) = credentials(headers, "Bearer")? else {
        return Ok(None);
    };
    if token.len() > MAX_TOKEN || !is_token68(token) {
        return Err(Refusal::Credentials);
    }
    Ok(Some(Secret::new(Zeroizing::new(token.to_vec()))))
}

/// What follows this scheme in the one line of the field.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(_), Some(_)) => return Err(Refusal::Repeated),
        (Some(line), None) => line.as_bytes(),
    };
    let length = line
        .iter()
        .position(|&octet| !is_in_token(octet))
        .unwrap_or(line.len());
    let (said, rest) = line.split_at(length);
    // Servers differ about what else parts a scheme from what follows, and would read credentials where we see none.
    if said.is_empty() || !matches!(rest.first(), None | Some(b' ')) {
        return Err(Refusal::Credentials);
    }
    Ok(said
        .eq_ignore_ascii_case(scheme.as_bytes())
        .then_some(rest.trim_ascii()))
}

/// RFC 9110 §5.6.2.
fn is_in_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// RFC 9110 §11.2.
fn is_token68(text: &[u8]) -> bool {
    let end = text
        .iter()
        .rposition(|&octet| octet != b'=')
        .map_or(0, |at| at + 1);
    let is_fit = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._~+/".contains(octet);
    end > 0 && text[..end].iter().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn user(scheme: &str, text: &[u8]) -> Result<Option<String>, Refusal> {
        basic(&headers(&[&format!("{scheme} {}", STANDARD.encode(text))]))
    }

    #[test]
    fn the_user_of_basic_credentials_ends_at_the_first_colon() {
        let alice = Ok(Some("alice@example.org".to_owned()));
        assert_eq!(user("Basic", b"alice@example.org:pass:word"), alice);
        assert_eq!(user("bAsIc  ", b"alice@example.org:p"), alice);
        assert_eq!(
            user("Basic", "bücher:ü".as_bytes()),
            Ok(Some("bücher".to_owned()))
        );
    }

    #[test]
    fn basic_credentials_that_servers_read_differently_are_refused() {
        for text in [
            &b"alice"[..],
            b":p",
            b"alice:",
            b"al\0ice:p",
            b"al\nice:p",
            b"\xfc:p",
            b"alice:p\0q",
        ] {
            assert_eq!(user("Basic", text), Err(Refusal::Credentials), "{text:?}");
        }
        for line in [
            "Basic",
            "Basic !",
            "Basic YTpi YTpi",
            "Basic YTpi=",
            "Basic YWI6Yw",
            "Basic YWI6Yx==",
        ] {
            assert_eq!(
                basic(&headers(&[line])),
                Err(Refusal::Credentials),
                "{line}"
            );
        }
        assert_eq!(user("Basic", &[b'a'; 3000]), Err(Refusal::Credentials));
        assert_eq!(
            basic(&headers(&["Basic YTpi", "Basic YTpi"])),
            Err(Refusal::Repeated)
        );
    }

    #[test]
    fn a_scheme_that_some_servers_see_and_others_do_not_is_refused() {
        for line in [
            "Basic\tYTpi",
            "Basic,YTpi",
            "Basic:YTpi",
            "\tBasic YTpi",
            " Basic YTpi",
            "\"Basic\" YTpi",
            "",
        ] {
            let lines = headers(&[line]);
            assert_eq!(basic(&lines), Err(Refusal::Credentials), "{line:?}");
            assert_eq!(bearer(&lines).err(), Some(Refusal::Credentials), "{line:?}");
        }
    }

    #[test]
    fn another_scheme_says_nothing_of_ours() {
        assert_eq!(basic(&headers(&["Bearer x"])), Ok(None));
        assert_eq!(basic(&headers(&["Basically YTpi"])), Ok(None));
        assert_eq!(basic(&HeaderMap::new()), Ok(None));
        assert!(bearer(&headers(&["Digest username=\"a\""])).is_ok_and(|token| token.is_none()));
    }

    #[test]
    fn a_token_is_taken_in_its_form_and_whole() {
        let token = |line: &str| {
            bearer(&headers(&[line])).map(|token| token.map(|it| it.expose().to_vec()))
        };
        assert_eq!(
            token("Bearer sw1.a-b_c~d+e/f=="),
            Ok(Some(b"sw1.a-b_c~d+e/f==".to_vec()))
        );
        for line in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a=b",
            "Bearer =",
            "Bearer \"a\"",
            "Bearer a,b",
        ] {
            assert_eq!(token(line), Err(Refusal::Credentials), "{line}");
        }
        assert!(token(&format!("Bearer {}", "a".repeat(MAX_TOKEN))).is_ok());
        assert_eq!(
            token(&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))),
            Err(Refusal::Credentials)
        );
    }
}
