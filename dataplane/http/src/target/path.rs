//! One path that is both matched and forwarded.
//!
//! Rules decide by a path and a server acts by one. Wherever the two could differ, somebody can reach what a
//! rule keeps from him, so that there is only one: the normalised path is what rules see and what is sent on.
//!
//! Three things cannot be normalised away, since they may be part of a name and of structure alike: an encoded
//! slash (`%2F`), an encoded backslash and the parameters of a segment (`;v=1`). Servers differ about them.
//! They stay as they are, and such a path has two [`readings`](NormalPath::readings); [rules](crate::rules)
//! refuse one whose readings lead to different ends.

use std::borrow::Cow;
use std::fmt;

use crate::Refusal;

/// Longest path in octets, once normalised.
pub const MAX_PATH: usize = 8 * 1024;

/// A path in its one form: it begins with a slash, has no dot segment and no empty one but the last, nothing is
/// encoded that need not be, everything that must be is, and its hexadecimal digits are in upper case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NormalPath(String);

/// A path's segments, decoded.
pub type Segments<'a> = Vec<Cow<'a, [u8]>>;

impl NormalPath {
    /// Normalises.
    ///
    /// # Errors
    /// - [`Refusal::Target`]: it does not begin with a slash, has an incomplete percent encoding, a fragment or
    ///   a query.
    /// - [`Refusal::Path`]: servers would read it differently. It holds a control character (encoded or not), a
    ///   backslash, octets that are not UTF-8 (among them overlong forms of `/` and `.`), climbs above the
    ///   root, or would climb if what is encoded in it were decoded once more or its parameters were left out.
    /// - [`Refusal::TargetTooLong`].
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_PATH {
            return Err(Refusal::TargetTooLong);
        }
        if is_normal_at_sight(text) {
            return Ok(Self(text.to_owned()));
        }
        Self::build(text)
    }

    fn build(text: &str) -> Result<Self, Refusal> {
        let text = text.strip_prefix('/').ok_or(Refusal::Target)?;
        let mut segments: Vec<Vec<u8>> = Vec::new();
        let mut parts = text.split('/').peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let segment = decode(part)?;
            match segment.as_ref() {
                b"." | b"" => {}
                b".." => {
                    segments.pop().ok_or(Refusal::Path)?;
                }
                _ => {
                    check(part, &segment)?;
                    segments.push(encode_kept(part, &segment));
                    continue;
                }
            }
            // `/a/.` and `/a/b/..` are the folder `/a/` (RFC 3986 §5.2.4).
            if is_last {
                segments.push(Vec::new());
            }
        }
        let mut path = String::with_capacity(text.len() + 1);
        for segment in &segments {
            path.push('/');
            path.push_str(str::from_utf8(segment).expect("what is encoded is ASCII"));
        }
        if path.len() > MAX_PATH {
            return Err(Refusal::TargetTooLong);
        }
        Ok(Self(path))
    }

    /// As it is matched and forwarded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How servers may read it, as decoded segments: as it stands, and, where that makes a difference, with
    /// encoded slashes and backslashes as slashes and without parameters.
    pub fn readings(&self) -> (Segments<'_>, Option<Segments<'_>>) {
        let parts = || self.0[1..].split('/');
        let exact: Segments<'_> = parts().map(decode_normal).collect();
        if !parts().any(is_ambiguous) {
            return (exact, None);
        }
        let mut lax: Segments<'_> = Vec::new();
        for part in parts() {
            let bare = decode_normal(part.split(';').next().unwrap_or_default());
            let pieces = bare.split(|octet| matches!(octet, b'/' | b'\\'));
            lax.extend(pieces.map(|piece| Cow::Owned(piece.to_vec())));
        }
        let last = lax.pop();
        lax.retain(|segment| !segment.is_empty());
        lax.extend(last);
        (exact, Some(lax))
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a path is in its one form as it stands, as nearly all are that ever come: nothing in it needs a second
/// look, neither an encoding nor a dot nor what servers may split at.
fn is_normal_at_sight(text: &str) -> bool {
    let mut before = b'x';
    text.starts_with('/')
        && text.bytes().all(|octet| {
            let is_fine = match octet {
                b'/' | b'.' => before != b'/',
                b';' => false,
                octet => is_unreserved(octet) || is_delimiter(octet),
            };
            before = octet;
            is_fine
        })
}

/// Whether servers split this segment in different ways.
fn is_ambiguous(part: &str) -> bool {
    part.contains(';') || part.contains("%2F") || part.contains("%5C")
}

/// Whether a segment's octets may stand in a path, and mean the same however they are read.
fn check(part: &str, segment: &[u8]) -> Result<(), Refusal> {
    let text = str::from_utf8(segment).map_err(|_| Refusal::Path)?;
    if text.chars().any(char::is_control) || part.contains('\\') {
        return Err(Refusal::Path);
    }
    if climbs(segment) || climbs_if_decoded_again(segment) {
        return Err(Refusal::Path);
    }
    Ok(())
}

/// Whether a segment has a dot segment in it for a server that takes encoded slashes for slashes, and leaves
/// out parameters.
fn climbs(segment: &[u8]) -> bool {
    let mut pieces = segment.split(|octet| matches!(octet, b'/' | b'\\'));
    pieces.any(|piece| {
        let bare = piece
            .split(|&octet| octet == b';')
            .next()
            .unwrap_or_default();
        matches!(bare, b"." | b"..")
    })
}

/// How often something may be encoded, beyond the once that is right: a name that was a URL, in a URL.
const MAX_LAYERS: usize = 3;

/// Whether it has one for a server that decodes once more than it should, or more often than that. One that is
/// still encoded after [`MAX_LAYERS`] is nobody's name.
fn climbs_if_decoded_again(segment: &[u8]) -> bool {
    let mut segment = segment.to_vec();
    for _ in 0..MAX_LAYERS {
        let decoded = decode_what_can_be(&segment);
        if decoded.len() == segment.len() {
            return false;
        }
        if climbs(&decoded) {
            return true;
        }
        segment = decoded;
    }
    decode_what_can_be(&segment).len() != segment.len()
}

/// Decodes, and leaves what is no encoding as it is.
fn decode_what_can_be(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, behind)) = rest.split_first() {
        let encoded = match behind {
            [high, low, ..] if octet == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let (octet, length) = encoded.map_or((octet, 1), |(high, low)| (high << 4 | low, 3));
        decoded.push(octet);
        rest = &rest[length..];
    }
    decoded
}

/// Decodes one segment, once. What has nothing to decode is not copied.
fn decode(part: &str) -> Result<Cow<'_, [u8]>, Refusal> {
    if !part.contains(['%', '?', '#']) {
        return Ok(Cow::Borrowed(part.as_bytes()));
    }
    let mut octets = part.bytes();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'%' => {
                let high = octets.next().and_then(hex);
                let low = octets.next().and_then(hex);
                high.zip(low)
                    .map(|(high, low)| high << 4 | low)
                    .ok_or(Refusal::Target)?
            }
            b'?' | b'#' => return Err(Refusal::Target),
            other => other,
        });
    }
    Ok(Cow::Owned(decoded))
}

fn decode_normal(part: &str) -> Cow<'_, [u8]> {
    decode(part).expect("a normalised segment has complete encodings and nothing that ends a path")
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Encodes a segment, and of its delimiters those that were encoded, since to some servers `%3B` is not `;`.
fn encode_kept(part: &str, segment: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(part.len());
    let mut source = part.bytes();
    for &octet in segment {
        let was_encoded = source.next() == Some(b'%');
        if was_encoded {
            source.next();
            source.next();
        }
        let is_plain = is_unreserved(octet) || is_delimiter(octet) && !was_encoded;
        if is_plain {
            encoded.push(octet);
        } else {
            let digits = [
                DIGITS[usize::from(octet >> 4)],
                DIGITS[usize::from(octet & 15)],
            ];
            encoded.push(b'%');
            encoded.extend(digits);
        }
    }
    encoded
}

/// RFC 3986 §2.3: the same encoded or not.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// What else may stand in a segment as it is (RFC 3986 §3.3).
fn is_delimiter(octet: u8) -> bool {
    b"!$&'()*+,;=:@".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> Result<String, Refusal> {
        NormalPath::parse(text).map(|path| path.0)
    }

    #[test]
    fn a_path_has_one_form_whatever_way_it_is_written() {
        for (text, form) in [
            ("/", "/"),
            ("//", "/"),
            ("/dav//cal", "/dav/cal"),
            ("///dav", "/dav"),
            ("/dav/", "/dav/"),
            ("/dav//", "/dav/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e/b", "/a/b"),
            ("/a/%2E%2e/b", "/b"),
            ("/a//../b", "/b"),
            ("/%6Cogin", "/login"),
            ("/%7euser", "/~user"),
            ("/a%3ab", "/a%3Ab"),
            ("/a:b@c", "/a:b@c"),
            ("/alice%40example.org/", "/alice%40example.org/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%25252541", "/a%25252541"),
            ("/100%25", "/100%25"),
            ("/a{b}|c\"", "/a%7Bb%7D%7Cc%22"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/...", "/..."),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(normal(text).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for text in [
            "/..",
            "/../etc",
            "/a/../../b",
            "/%2e%2e/a",
            "/a/..%2fb",
            "/a%2f..",
            "/a%2F..%2Fb",
            "/a/..%5cb",
            "/a%2f%2e%2e%2fb",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/.;/b",
            "/a%2f..%3bx%2fb",
            "/a/%252e%252e/b",
            "/a/..%252fb",
            "/a/%25252e%25252e%25252fb",
            "/a%3F%252f..%252fb",
            "/a%25zz%252f%252e%252e",
            "/a%2525252541",
            "/a\\b",
            "/..\\b",
            "/a%00",
            "/a%0d%0ab",
            "/a%7f",
            "/a%c2%85",
            "/%c0%ae%c0%ae/a",
            "/a%c0%afb",
            "/a%e0%80%afb",
            "/a%ff",
            "/a%ed%a0%80",
        ] {
            assert_eq!(normal(text), Err(Refusal::Path), "{text}");
        }
        for text in [
            "",
            "a",
            "*",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/a?b",
            "/a#b",
            "http://x/",
        ] {
            assert_eq!(normal(text), Err(Refusal::Target), "{text}");
        }
        let long = format!("/{}", "a".repeat(MAX_PATH));
        assert_eq!(normal(&long), Err(Refusal::TargetTooLong));
        let swells = format!("/{}", "{".repeat(MAX_PATH / 2));
        assert_eq!(normal(&swells), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn a_path_that_servers_split_differently_has_two_readings() {
        let readings = |text: &str| {
            let path = NormalPath::parse(text).unwrap();
            let (exact, lax) = path.readings();
            let join = |segments: Segments<'_>| {
                let texts: Vec<_> = segments
                    .into_iter()
                    .map(|it| String::from_utf8(it.into_owned()).unwrap())
                    .collect();
                texts.join("|")
            };
            (join(exact), lax.map(join))
        };
        assert_eq!(readings("/a/b%40"), ("a|b@".into(), None));
        assert_eq!(readings("/a%2Fb/c"), ("a/b|c".into(), Some("a|b|c".into())));
        assert_eq!(readings("/a%5cb"), ("a\\b".into(), Some("a|b".into())));
        assert_eq!(readings("/a;v=1/b"), ("a;v=1|b".into(), Some("a|b".into())));
        assert_eq!(readings("/;x/a"), (";x|a".into(), Some("a".into())));
        assert_eq!(readings("/a%2f%2fb"), ("a//b".into(), Some("a|b".into())));
    }

    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", "a", "B", "%41", "%c3%a9",
            "%25", "%", "é", "%00", "~", "@", "%40", "{", "%252e",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn a_normal_path_is_its_own_normal_form(text in tricky()) {
            if let Ok(path) = NormalPath::parse(&text) {
                prop_assert_eq!(NormalPath::parse(path.as_str()), Ok(path));
            }
        }

        #[test]
        fn what_is_normal_at_sight_is_what_comes_of_a_second_look(text in "(/|[a-zA-Z.@;%]{1,3}){0,8}") {
            if is_normal_at_sight(&text) {
                prop_assert_eq!(NormalPath::build(&text), Ok(NormalPath(text)));
            }
        }

        #[test]
        fn no_reading_of_a_normal_path_climbs_or_holds_control_characters(text in tricky()) {
            if let Ok(path) = NormalPath::parse(&text) {
                prop_assert!(path.as_str().starts_with('/') && path.as_str().is_ascii());
                prop_assert!(!path.as_str().contains("//") && !path.as_str().contains('\\'));
                let (exact, lax) = path.readings();
                for segment in exact.iter().chain(lax.iter().flatten()) {
                    prop_assert!(!matches!(segment.as_ref(), b"." | b".."));
                    prop_assert!(!segment.iter().any(u8::is_ascii_control));
                }
            }
        }

        #[test]
        fn any_text_is_normalised_or_refused(text in ".{0,60}") {
            let _ = NormalPath::parse(&text);
        }
    }
}
