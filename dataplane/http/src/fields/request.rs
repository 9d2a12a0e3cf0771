//! The header of a request, as a server may see it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, MAX_FORWARDS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{has_member, once, trust, without_hops};
use crate::framing::digits;
use crate::{Framing, Refusal, guard};

/// Who sends a listener its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client, whose word about itself counts for nothing.
    Stranger,
    /// A proxy that the listener's configuration trusts to say who its clients are.
    Trusted,
}

/// What a request's header said about this connection, before that was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestFacts {
    /// What says where the body ends.
    pub framing: Framing,
    /// The client waits for a 100 before it sends its body (RFC 9110 §10.1.1). It gets one after admission.
    pub expects_continue: bool,
    /// The client reads trailers (RFC 9110 §10.1.4).
    pub reads_trailers: bool,
    /// What the client would like to speak instead.
    pub upgrade: Option<Upgrade>,
}

/// A protocol to which a connection may be upgraded. Others are not offered on, `h2c` before all, by which a
/// client would get a connection to the server that nobody looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
}

/// Takes out of a request's header what is not for the server, and says what it was.
///
/// What goes: the fields of one connection and what `Connection` names, except what a request is read by;
/// claims that only a proxy may make, unless it is one; fields that override the request line. The crumbs of a
/// cookie (RFC 9113 §8.2.3) become one line.
///
/// # Errors
/// [`Refusal::HeaderTooLarge`], [`Refusal::Malformed`], [`Refusal::Repeated`], [`Refusal::Length`], [`Refusal::Coding`],
/// [`Refusal::Expectation`].
pub fn clean_request(
    method: &Method,
    version: Version,
    headers: &mut HeaderMap,
    peer: Peer,
) -> Result<RequestFacts, Refusal> {
    within_bounds(headers)?;
    if !headers.values().all(is_trimmed) {
        return Err(Refusal::Malformed);
    }
    stands_once(headers, &CONTENT_TYPE)?;
    let lines = |name: &HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let framing = Framing::read(version, lines(&TRANSFER_ENCODING), lines(&CONTENT_LENGTH))?;
    // RFC 9110 §9.3.6: none belongs to it. Asked by an upgrade, a server would wait for a body and get frames.
    if method == Method::CONNECT && framing != Framing::None {
        return Err(Refusal::Length);
    }
    let facts = RequestFacts {
        framing,
        expects_continue: expectation(version, headers)?,
        reads_trailers: has_member(headers, &TE, "trailers"),
        upgrade: upgrade(method, version, headers, framing),
    };
    without_hops(headers);
    headers.remove(EXPECT);
    let unwelcome = |name: &&HeaderName| {
        trust::is_override(name) || peer == Peer::Stranger && trust::is_claim(name)
    };
    let unwelcome: Vec<_> = headers.keys().filter(unwelcome).cloned().collect();
    for name in unwelcome {
        headers.remove(name);
    }
    join_cookies(headers);
    Ok(facts)
}

/// A field of HTTP/2 may not begin or end with white space (RFC 9113 §8.2.1), which nothing in front of us minds. A
/// server of HTTP/1 leaves it out, and would read credentials or a name where we see none.
fn is_trimmed(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let is_white = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    !is_white(value.first()) && !is_white(value.last())
}

/// What stands once (RFC 9110 §5.3, §8.3) and decides what is seen in a body. Of two servers take the first, or the
/// last.
fn stands_once(headers: &HeaderMap, name: &HeaderName) -> Result<(), Refusal> {
    match headers.get_all(name).iter().nth(1) {
        None => Ok(()),
        Some(_) => Err(Refusal::Repeated),
    }
}

/// HTTP/2 has no [guard](crate::guard) in front of it.
fn within_bounds(headers: &HeaderMap) -> Result<(), Refusal> {
    let octets: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers.len() > guard::MAX_FIELDS || octets > guard::MAX_HEAD {
        return Err(Refusal::HeaderTooLarge);
    }
    Ok(())
}

/// RFC 9110 §10.1.1: what is expected is one thing, and HTTP/1.0 expects nothing.
fn expectation(version: Version, headers: &HeaderMap) -> Result<bool, Refusal> {
    if version < Version::HTTP_11 {
        return Ok(false);
    }
    let mut lines = headers.get_all(EXPECT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Refusal::Expectation),
    }
}

/// The handshake of RFC 6455 §4.1 and nothing near it: a server that sees none goes on speaking HTTP, and then
/// we must.
fn upgrade(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    framing: Framing,
) -> Option<Upgrade> {
    let is_handshake = version == Version::HTTP_11
        && method == Method::GET
        && framing == Framing::None
        && has_member(headers, &CONNECTION, "upgrade")
        && once(headers, &UPGRADE)
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && once(headers, &SEC_WEBSOCKET_KEY).is_some()
        && once(headers, &SEC_WEBSOCKET_VERSION) == Some(b"13");
    is_handshake.then_some(Upgrade::WebSocket)
}

fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if lines.len() < 2 {
        return;
    }
    let said: Vec<_> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    let joined = HeaderValue::from_bytes(&said.join(&b"; "[..]));
    headers.insert(
        COOKIE,
        joined.expect("values with a separator between them are a value"),
    );
}

/// What `Max-Forwards` asks for (RFC 9110 §7.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxForwards {
    /// Nothing: the request goes on as it is, with one hop less if it counts them.
    GoOn,
    /// The request is for us.
    AnswerHere,
}

/// Reads `Max-Forwards` of an OPTIONS, and counts it down.
///
/// # Errors
/// [`Refusal::Repeated`], and [`Refusal::Length`] if it is no number.
pub fn max_forwards(method: &Method, headers: &mut HeaderMap) -> Result<MaxForwards, Refusal> {
    if method != Method::OPTIONS {
        return Ok(MaxForwards::GoOn);
    }
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let hops = match (lines.next(), lines.next()) {
        (None, _) => return Ok(MaxForwards::GoOn),
        (Some(line), None) => digits(line.as_bytes())?,
        (Some(_), Some(_)) => return Err(Refusal::Repeated),
    };
    let Some(hops) = hops.checked_sub(1) else {
        return Ok(MaxForwards::AnswerHere);
    };
    headers.insert(MAX_FORWARDS, hops.into());
    Ok(MaxForwards::GoOn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{AUTHORIZATION, HOST};
    use proptest::prelude::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn clean(fields: &[(&str, &str)], peer: Peer) -> Result<(Vec<String>, RequestFacts), Refusal> {
        let mut headers = headers(fields);
        let facts = clean_request(&Method::GET, Version::HTTP_11, &mut headers, peer)?;
        let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
        names.sort();
        Ok((names, facts))
    }

    fn left(fields: &[(&str, &str)], peer: Peer) -> Vec<String> {
        clean(fields, peer).unwrap().0
    }

    #[test]
    fn no_stranger_says_who_he_is_and_no_one_overrides_the_request_line() {
        let fields = &[
            ("Forwarded", "for=1"),
            ("X-Forwarded-For", "1"),
            ("X-Forwarded-Anything", "1"),
            ("X-Real-IP", "1"),
            ("X-Client-IP", "1"),
            ("Client-IP", "1"),
            ("Proxy-Client-IP", "1"),
            ("WL-Proxy-Client-IP", "1"),
            ("X-True-Client-IP", "1"),
            ("X-Original-Forwarded-For", "1"),
            ("X-Envoy-External-Address", "1"),
            ("X-Azure-ClientIP", "1"),
            ("X-AppEngine-User-IP", "1"),
            ("X-ProxyUser", "1"),
            ("X-WebAuth-User", "1"),
            ("X-Authenticated-User", "1"),
            ("True-Client-IP", "1"),
            ("CF-Connecting-IP", "1"),
            ("Client-Cert", "1"),
            ("X-Remote-User", "1"),
            ("X-SSL-Client-Verify", "1"),
            ("X_Forwarded_For", "1"),
            ("X.Forwarded.For", "1"),
            ("X~Real~IP", "1"),
            ("Content_Length", "1"),
            ("X-Original-URL", "/admin"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("Proxy", "http://evil.example"),
            ("Accept", "*/*"),
        ];
        assert_eq!(left(fields, Peer::Stranger), ["accept"]);
        let trusted = left(fields, Peer::Trusted);
        assert!(
            trusted.contains(&"x-forwarded-for".to_owned())
                && trusted.contains(&"client-cert".to_owned())
        );
        for name in [
            "x-original-url",
            "x_forwarded_for",
            "x.forwarded.for",
            "proxy",
            "x-http-method-override",
        ] {
            assert!(!trusted.contains(&name.to_owned()), "{name}");
        }
    }

    #[test]
    fn what_belongs_to_one_connection_ends_there() {
        let fields = &[
            ("Connection", "keep-alive, X-Mine, close"),
            ("Connection", "X-Other, not a token"),
            ("X-Mine", "1"),
            ("X-Other", "1"),
            ("Keep-Alive", "1"),
            ("Proxy-Connection", "1"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("TE", "trailers"),
            ("Trailer", "X"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "x"),
            ("Accept", "*/*"),
        ];
        let (names, facts) = clean(fields, Peer::Stranger).unwrap();
        assert_eq!(names, ["accept"]);
        assert!(facts.reads_trailers);
        assert_eq!(facts.upgrade, None);
    }

    #[test]
    fn nobody_takes_credentials_host_or_length_away_by_naming_them() {
        let named = (
            "Connection",
            "Host, Authorization, Content-Length, Cookie, Content-Type",
        );
        let fields = [
            named,
            ("Host", "a"),
            ("Authorization", "Basic eDp5"),
            ("Content-Length", "1"),
            ("Cookie", "a=b"),
        ];
        assert_eq!(
            left(&fields, Peer::Stranger),
            ["authorization", "content-length", "cookie", "host"]
        );
    }

    #[test]
    fn an_expectation_is_met_or_refused_and_never_passed_on() {
        let (names, facts) = clean(&[("Expect", "100-Continue")], Peer::Stranger).unwrap();
        assert!(names.is_empty() && facts.expects_continue);
        let refused = clean(&[("Expect", "200-ok")], Peer::Stranger);
        assert_eq!(refused, Err(Refusal::Expectation));
        let refused = clean(
            &[("Expect", "100-continue"), ("Expect", "100-continue")],
            Peer::Stranger,
        );
        assert_eq!(refused, Err(Refusal::Expectation));
    }

    #[test]
    fn only_a_whole_handshake_asks_for_a_web_socket() {
        let whole = [
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        let upgrade = |fields: &[(&str, &str)]| clean(fields, Peer::Stranger).unwrap().1.upgrade;
        assert_eq!(upgrade(&whole), Some(Upgrade::WebSocket));
        for missing in 0..whole.len() {
            let mut fields = whole.to_vec();
            fields.remove(missing);
            assert_eq!(upgrade(&fields), None);
        }
        for extra in [
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Key", "x"),
            ("Content-Length", "1"),
        ] {
            assert_eq!(upgrade(&[&whole[..], &[extra]].concat()), None, "{extra:?}");
        }
        let mut old = headers(&whole);
        let facts =
            clean_request(&Method::GET, Version::HTTP_10, &mut old, Peer::Stranger).unwrap();
        assert_eq!(facts.upgrade, None);
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_line_again() {
        let mut headers = headers(&[("Cookie", "a=b"), ("Cookie", "c=d; e=f")]);
        clean_request(&Method::GET, Version::HTTP_2, &mut headers, Peer::Stranger).unwrap();
        let lines: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(lines, ["a=b; c=d; e=f"]);
        headers.append(COOKIE, HeaderValue::from_static(""));
        clean_request(&Method::GET, Version::HTTP_2, &mut headers, Peer::Stranger).unwrap();
        assert_eq!(headers[COOKIE], "a=b; c=d; e=f");
    }

    #[test]
    fn nothing_is_hidden_from_us_by_white_space_that_a_server_leaves_out() {
        for value in [
            " Basic eDp5",
            "\tBasic eDp5",
            "Basic eDp5 ",
            "Basic eDp5\t",
            " ",
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(AUTHORIZATION, HeaderValue::from_static(value));
            let refused = clean_request(&Method::GET, Version::HTTP_2, &mut fields, Peer::Stranger);
            assert_eq!(refused, Err(Refusal::Malformed), "{value:?}");
        }
    }

    #[test]
    fn a_connect_has_no_body() {
        let mut fields = headers(&[("Content-Length", "5")]);
        let refused = clean_request(
            &Method::CONNECT,
            Version::HTTP_2,
            &mut fields,
            Peer::Stranger,
        );
        assert_eq!(refused, Err(Refusal::Length));
    }

    #[test]
    fn a_body_is_of_one_media_type() {
        let fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Type", "multipart/form-data; boundary=x"),
        ];
        assert_eq!(clean(&fields, Peer::Stranger), Err(Refusal::Repeated));
    }

    #[test]
    fn http_2_has_no_transfer_coding() {
        let mut fields = headers(&[("Transfer-Encoding", "chunked")]);
        let refused = clean_request(&Method::POST, Version::HTTP_2, &mut fields, Peer::Stranger);
        assert_eq!(refused, Err(Refusal::Length));
    }

    #[test]
    fn an_options_goes_no_further_than_it_wants() {
        let mut fields = headers(&[("Max-Forwards", "1")]);
        assert_eq!(
            max_forwards(&Method::OPTIONS, &mut fields),
            Ok(MaxForwards::GoOn)
        );
        assert_eq!(
            max_forwards(&Method::OPTIONS, &mut fields),
            Ok(MaxForwards::AnswerHere)
        );
        assert_eq!(
            max_forwards(&Method::GET, &mut fields),
            Ok(MaxForwards::GoOn)
        );
        let mut wrong = headers(&[("Max-Forwards", "+1")]);
        assert_eq!(
            max_forwards(&Method::OPTIONS, &mut wrong),
            Err(Refusal::Length)
        );
    }

    #[test]
    fn a_header_has_bounds_without_a_guard_too() {
        let mut many = HeaderMap::new();
        for _ in 0..=guard::MAX_FIELDS {
            many.append(HOST, HeaderValue::from_static("a"));
        }
        let refused = clean_request(&Method::GET, Version::HTTP_2, &mut many, Peer::Stranger);
        assert_eq!(refused, Err(Refusal::HeaderTooLarge));
        let mut long = HeaderMap::new();
        long.insert(
            AUTHORIZATION,
            HeaderValue::from_str(&"x".repeat(guard::MAX_HEAD)).unwrap(),
        );
        let refused = clean_request(&Method::GET, Version::HTTP_2, &mut long, Peer::Stranger);
        assert_eq!(refused, Err(Refusal::HeaderTooLarge));
    }

    proptest! {
        #[test]
        fn what_is_clean_stays_as_it_is(names in prop::collection::vec(prop::sample::select(vec![
            "accept", "connection", "x-forwarded-for", "te", "upgrade", "cookie", "host", "x_y", "expect", "forwarded", "depth",
        ]), 0..8), named in "[a-z,-]{0,20}") {
            let mut headers = HeaderMap::new();
            for name in names {
                let value = if name == "expect" { "100-continue" } else { named.as_str() };
                headers.append(HeaderName::from_static(name), value.parse().unwrap());
            }
            if clean_request(&Method::GET, Version::HTTP_11, &mut headers, Peer::Stranger).is_ok() {
                let once = headers.clone();
                clean_request(&Method::GET, Version::HTTP_11, &mut headers, Peer::Stranger).unwrap();
                prop_assert_eq!(once, headers);
            }
        }
    }
}
