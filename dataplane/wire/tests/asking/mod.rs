//! A driver for the machine of look-ups, and the rules that it keeps to: the same in pieces as at once, no reading ahead,
//! and what it has taken for a question is one in its own form.

use ferrypost_wire::WireBuf;
use ferrypost_wire::socketmap::{Answer, MAX_REQUEST, Malformed, Request};

/// What a mail system's octets came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) requests: Vec<Request>,
    /// Whether it ended at what is no question.
    pub(crate) end: Result<(), Malformed>,
}

/// Takes questions out of pieces of these sizes, over and over.
pub(crate) fn asked(input: &[u8], pieces: &[usize]) -> Asked {
    let mut buffer = WireBuf::new(2 * MAX_REQUEST);
    let mut sizes = pieces.iter().copied().cycle();
    let mut rest = input;
    let mut asked = Asked {
        requests: Vec::new(),
        end: Ok(()),
    };
    loop {
        match Request::take(&mut buffer) {
            Ok(Some(request)) => {
                asked.requests.push(request);
                continue;
            }
            Ok(None) => {}
            Err(malformed) => {
                asked.end = Err(malformed);
                return asked;
            }
        }
        if rest.is_empty() {
            return asked;
        }
        let spare = buffer.spare();
        assert!(!spare.is_empty(), "a question always finds room");
        let count = sizes.next().unwrap_or(1).max(1);
        let count = count.min(rest.len()).min(spare.len());
        spare[..count].copy_from_slice(&rest[..count]);
        buffer.advance(count);
        rest = &rest[count..];
    }
}

/// The rules, for octets that come in pieces of these sizes; and for an answer that has them as its value.
pub(crate) fn check(input: &[u8], pieces: &[usize]) {
    let whole = asked(input, &[usize::MAX]);
    assert_eq!(asked(input, pieces), whole);
    let again: Vec<u8> = whole.requests.iter().flat_map(written).collect();
    // What is not UTF-8 grows when it is read.
    if whole
        .requests
        .iter()
        .all(|it| it.map.len() + it.key.len() < MAX_REQUEST)
    {
        assert_eq!(asked(&again, pieces).requests, whole.requests);
    }
    let value = String::from_utf8_lossy(input);
    let mut out = Vec::new();
    Answer::Temporary(&value).write(&mut out);
    let colon = out
        .iter()
        .position(|&octet| octet == b':')
        .expect("a frame");
    let length = str::from_utf8(&out[..colon])
        .ok()
        .and_then(|it| it.parse().ok());
    assert_eq!(length, Some(out.len() - colon - 2), "a netstring");
    assert!(out.ends_with(b",") && out.len() < 1100);
}

fn written(request: &Request) -> Vec<u8> {
    let text = format!("{} {}", request.map, request.key);
    format!("{}:{text},", text.len()).into_bytes()
}
