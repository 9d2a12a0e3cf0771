//! Which header fields pass, in either direction.
//!
//! Rules and identity are read from what this leaves, so that nothing decides a route which the server does not
//! see.

mod request;
mod response;
mod trust;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE, WWW_AUTHENTICATE,
    },
};

pub use request::{MaxForwards, Peer, RequestFacts, Upgrade, clean_request, max_forwards};
pub use response::{BadResponse, clean_response, clean_trailers};
pub(crate) use trust::is_claim;

/// Fields of one connection (RFC 9110 §7.6.1), and those that were used so before.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that `Connection` may name and that go on all the same. Who names them wants the server to see
/// another request than we do: without its credentials, or with a body that has lost its length.
const END_TO_END: [HeaderName; 7] = [
    HOST,
    AUTHORIZATION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    SET_COOKIE,
    WWW_AUTHENTICATE,
];

/// Whether a field never gets past [`clean_request`], whoever sent it: no rule can go by it.
pub(crate) fn is_taken_out(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || *name == EXPECT || trust::is_override(name)
}

/// The members of a field's comma-separated lists, over all its lines.
pub(crate) fn members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|&octet| octet == b','));
    members.map(<[u8]>::trim_ascii)
}

/// Whether one of a field's members is this word, in whatever case.
pub(crate) fn has_member(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(word.as_bytes()))
}

/// The value of a field that stands once.
pub(crate) fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    lines
        .next()
        .filter(|_| lines.next().is_none())
        .map(HeaderValue::as_bytes)
}

/// Takes out what belongs to one connection, and what `Connection` names.
fn without_hops(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = members(headers, &CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
