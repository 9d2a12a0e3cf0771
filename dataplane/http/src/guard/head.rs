//! One request's head.

use http::Version;

use super::MAX_FIELDS;
use crate::{Framing, Refusal};

/// Where the head ends, looking only at what is behind `seen`, which goes on with it. Every line has to end in
/// CRLF, and neither CR nor LF stands elsewhere: so no two parsers find different lines.
pub(super) fn end(input: &[u8], seen: &mut usize, max: usize) -> Result<Option<usize>, Refusal> {
    while *seen < input.len() {
        let at = *seen;
        if at >= max {
            return Err(Refusal::HeaderTooLarge);
        }
        match (input[at], input.get(at + 1)) {
            (b'\r', None) => break,
            (b'\r', Some(b'\n')) if at == 0 => return Err(Refusal::Malformed),
            (b'\r', Some(b'\n')) => {
                // This line is empty: its CRLF follows that of another.
                if input[..at].ends_with(b"\r\n") {
                    return if at + 2 > max {
                        Err(Refusal::HeaderTooLarge)
                    } else {
                        Ok(Some(at + 2))
                    };
                }
                *seen = at + 2;
            }
            (b'\r' | b'\n', _) => return Err(Refusal::LineEnd),
            (0, _) => return Err(Refusal::Malformed),
            (b' ' | b'\t', _) if at == 0 || input[..at].ends_with(b"\r\n") => {
                return Err(Refusal::Folded);
            }
            _ => *seen = at + 1,
        }
    }
    // The end of a line may lie across the limit, and whatever follows it beyond.
    if *seen >= max {
        return Err(Refusal::HeaderTooLarge);
    }
    Ok(None)
}

/// What of a head decides where the next one begins.
pub(super) struct Facts {
    pub(super) framing: Framing,
    /// Whether it asks for another protocol behind it (RFC 9110 §7.8).
    pub(super) asks_upgrade: bool,
}

/// How the body of this whole head is framed and what comes behind it, if all of the head is as it should be.
pub(super) fn read(head: &[u8]) -> Result<Facts, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeaderTooLarge),
        _ => return Err(Refusal::Malformed),
    }
    // hyper would cut a fragment off, and what is matched would not be what was logged in front of us.
    if request.path.is_none_or(|target| target.contains('#')) {
        return Err(Refusal::Target);
    }
    let version = if request.version == Some(1) {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    let lines = |name: &'static str| {
        let is_named = move |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        request
            .headers
            .iter()
            .filter(is_named)
            .map(|field| field.value)
    };
    let framing = Framing::read(version, lines("transfer-encoding"), lines("content-length"))?;
    let asks_upgrade = lines("upgrade").next().is_some();
    Ok(Facts {
        framing,
        asks_upgrade,
    })
}
