//! Names and values as queries and forms write them (`application/x-www-form-urlencoded`).

use super::{Wrong, folded};
use crate::target::hex;

/// The value of this name, decoded. A name that stands twice is refused, also where it does so only to servers
/// that part pairs at semicolons, do not mind case or make names of other names, as PHP does: they may take the other
/// one. One that only they would take for it is refused as well: it is said, and not to us.
pub(super) fn find(pairs: &[u8], name: &str) -> Result<Option<String>, Wrong> {
    let (mut found, mut count) = (None, 0);
    let like = loose(name);
    for pair in pairs.split(|&octet| octet == b'&') {
        for (at, part) in pair.split(|&octet| octet == b';').enumerate() {
            let (key, value) = key_and_value(part);
            if !is_like(key, &like) {
                continue;
            }
            count += 1;
            let is_exact = at == 0 && decode(key).is_some_and(|key| key == name);
            if is_exact && found.is_none() {
                // The value goes on behind a semicolon.
                let whole = pair
                    .strip_prefix(key)
                    .and_then(|rest| rest.strip_prefix(b"="))
                    .unwrap_or(value);
                found = Some(decode(whole).ok_or(Wrong::Malformed)?);
            }
        }
    }
    match (count, found) {
        (0, _) => Ok(None),
        (1, Some(value)) => Ok(Some(value)),
        (1, None) => Err(Wrong::Malformed),
        _ => Err(Wrong::Repeated),
    }
}

fn key_and_value(part: &[u8]) -> (&[u8], &[u8]) {
    match part.iter().position(|&octet| octet == b'=') {
        Some(at) => (&part[..at], &part[at + 1..]),
        None => (part, b""),
    }
}

fn is_like(key: &[u8], like: &str) -> bool {
    decode(key).is_some_and(|key| loose(&key) == like)
}

/// A name as the most generous of servers reads it: PHP ends it at a NUL, takes what has brackets for a part of an
/// array, leaves out blanks in front and puts an underscore for each dot and blank.
fn loose(name: &str) -> String {
    let whole = name.trim_start_matches(' ');
    let end = whole.find(['\0', '[']).unwrap_or(whole.len());
    folded(&whole[..end].replace(['.', ' '], "_"))
}

/// Decodes; `None` if an encoding is incomplete or what comes out is not UTF-8.
fn decode(text: &[u8]) -> Option<String> {
    let mut octets = text.iter().copied();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (hex(octets.next()?)?, hex(octets.next()?)?);
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_is_decoded_as_servers_decode_it() {
        let find = |pairs: &str| find(pairs.as_bytes(), "user").unwrap();
        assert_eq!(
            find("a=b&user=alice%40example.org&c"),
            Some("alice@example.org".into())
        );
        assert_eq!(find("us%65r=al+ice"), Some("al ice".into()));
        assert_eq!(find("user"), Some(String::new()));
        assert_eq!(find("user="), Some(String::new()));
        assert_eq!(find("user=a=b;c"), Some("a=b;c".into()));
        assert_eq!(find("username=x&User2=y&%zz=1&x[user]=z"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn a_name_that_stands_twice_to_anybody_is_refused() {
        for pairs in [
            "user=a&user=b",
            "user=a&user=a",
            "user=a&us%65r=b",
            "user=a&User=b",
            "user=a;user=b",
            "x=1;user=b&user=a",
        ] {
            assert_eq!(
                find(pairs.as_bytes(), "user"),
                Err(Wrong::Repeated),
                "{pairs}"
            );
        }
        for pairs in [
            "user=a&+user=b",
            "user=a&%20%20user=b",
            "user[]=b&user=a",
            "user%5B0%5D=b&user=a",
            "user%00x=b&user=a",
            "u%C5%BFer=b&user=a",
        ] {
            assert_eq!(
                find(pairs.as_bytes(), "user"),
                Err(Wrong::Repeated),
                "{pairs}"
            );
        }
        for name in ["_user", ".user", "+user_", "_user.x"] {
            let pairs = format!("_user_x=a&{name}=b");
            let found = find(pairs.as_bytes(), "_user_x");
            let is_same = name == "_user.x";
            assert_eq!(found.is_err(), is_same, "{pairs}");
        }
        for pairs in [
            "user=%", "user=%4", "user=%zz", "user=%ff",
            // Said to some servers, and not to us.
            "User=a", "user[]=a", "x;user=a",
        ] {
            assert_eq!(
                find(pairs.as_bytes(), "user"),
                Err(Wrong::Malformed),
                "{pairs}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(pairs in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = find(&pairs, "user");
        }
    }
}
