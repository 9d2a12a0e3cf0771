//! What a server is told of the client: `Forwarded` (RFC 7239) and its older kin.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::fields::{Peer, is_claim};
use crate::target::Host;

/// The fields by which a destination is told. Never both at once: a server that reads the one may fill the
/// other for its applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// None: the address comes by a PROXY header, or not at all.
    None,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwarded,
}

/// What is announced of a client.
#[derive(Debug, Clone)]
pub struct Client<'a> {
    /// Its address, or a trusted peer's. Unknown, it is said to be (RFC 7239 §6.2).
    pub address: Option<SocketAddr>,
    /// The host that it asked for.
    pub host: &'a Host,
    /// Whether it came by `https`.
    pub secure: bool,
}

/// Tells a server of a client, in a header that is [clean](crate::fields::clean_request).
///
/// Behind a trusted peer, what it said stays and the peer is added at its end, in the list that the destination
/// reads; the other kind of list goes, since nobody would know which is true. Of a stranger there is nothing
/// but our word.
pub fn announce(
    headers: &mut HeaderMap,
    announcement: Announcement,
    peer: Peer,
    client: &Client<'_>,
) {
    let earlier = |name: &HeaderName| match peer {
        Peer::Stranger => Vec::new(),
        Peer::Trusted => headers.get_all(name).iter().cloned().collect(),
    };
    match announcement {
        Announcement::None => {}
        Announcement::Forwarded => {
            let list = joined(&earlier(&FORWARDED), &element(client));
            remove_claims(headers);
            headers.insert(FORWARDED, list);
        }
        Announcement::XForwarded => {
            let list = joined(&earlier(&X_FORWARDED_FOR), &plain_address(client.address));
            // The first proxy knew what the client asked for; the peer knows it from there.
            let first = |name: &HeaderName| earlier(name).into_iter().next();
            let (proto, host, port) = (
                first(&X_FORWARDED_PROTO),
                first(&X_FORWARDED_HOST),
                first(&X_FORWARDED_PORT),
            );
            remove_claims(headers);
            headers.insert(X_FORWARDED_FOR, list);
            headers.insert(
                X_FORWARDED_PROTO,
                proto.unwrap_or(HeaderValue::from_static(scheme(client))),
            );
            headers.insert(
                X_FORWARDED_HOST,
                host.unwrap_or_else(|| value(&client.host.to_string())),
            );
            headers.insert(
                X_FORWARDED_PORT,
                port.unwrap_or_else(|| client.host.effective_port(client.secure).into()),
            );
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

fn remove_claims(headers: &mut HeaderMap) {
    let is_address = |name: &&HeaderName| {
        is_claim(name)
            && (**name == FORWARDED
                || name.as_str().starts_with("x-forwarded")
                || **name == "x-real-ip")
    };
    let names: Vec<_> = headers.keys().filter(is_address).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn scheme(client: &Client<'_>) -> &'static str {
    if client.secure { "https" } else { "http" }
}

/// One element of `Forwarded`: what has a colon or a bracket is quoted (RFC 7239 §4, §6).
fn element(client: &Client<'_>) -> String {
    let mut element = String::from("for=");
    match client.address.map(canonical) {
        None => element.push_str("unknown"),
        Some(address) => write!(element, "\"{address}\"").expect("a String takes everything"),
    }
    let (host, proto) = (client.host, scheme(client));
    write!(element, ";host=\"{host}\";proto={proto}").expect("a String takes everything");
    element
}

/// `X-Forwarded-For` has no port, and no brackets in any server that reads it.
fn plain_address(address: Option<SocketAddr>) -> String {
    address.map_or_else(
        || "unknown".to_owned(),
        |address| canonical(address).ip().to_string(),
    )
}

/// An IPv4 client on a socket for both is an IPv4 client, and a zone is nobody's but this machine's.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

fn joined(earlier: &[HeaderValue], added: &str) -> HeaderValue {
    let mut list = Vec::new();
    for line in earlier.iter().filter(|line| !line.is_empty()) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(added.as_bytes());
    HeaderValue::from_bytes(&list).expect("values with a separator between them are a value")
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a host is letters, digits and punctuation")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(
        fields: &[(&'static str, &'static str)],
        announcement: Announcement,
        peer: Peer,
        address: Option<&str>,
    ) -> Vec<String> {
        let host = Host::parse(b"mail.example.org").unwrap();
        let client = Client {
            address: address.map(|it| it.parse().unwrap()),
            host: &host,
            secure: true,
        };
        let mut headers = HeaderMap::new();
        for (name, text) in fields {
            headers.append(*name, HeaderValue::from_static(text));
        }
        announce(&mut headers, announcement, peer, &client);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn an_address_is_quoted_and_mapped_ones_are_of_ipv4() {
        for (address, node) in [
            (Some("192.0.2.1:5000"), "\"192.0.2.1:5000\""),
            (Some("[2001:db8::1]:5000"), "\"[2001:db8::1]:5000\""),
            (Some("[::ffff:192.0.2.1]:5000"), "\"192.0.2.1:5000\""),
            (None, "unknown"),
        ] {
            let expected = format!("forwarded: for={node};host=\"mail.example.org\";proto=https");
            assert_eq!(
                announced(&[], Announcement::Forwarded, Peer::Stranger, address),
                [expected]
            );
        }
    }

    #[test]
    fn a_stranger_s_list_is_replaced_and_a_trusted_peer_s_goes_on() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "1"),
        ];
        let lines = |peer| {
            announced(
                &fields,
                Announcement::XForwarded,
                peer,
                Some("[::ffff:192.0.2.1]:5000"),
            )
        };
        assert!(lines(Peer::Stranger).contains(&"x-forwarded-for: 192.0.2.1".to_owned()));
        assert_eq!(
            lines(Peer::Trusted),
            [
                "x-forwarded-for: 203.0.113.9, 10.0.0.1, 192.0.2.1",
                "x-forwarded-host: mail.example.org",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn no_server_is_told_in_two_ways() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
        ];
        let lines = announced(
            &fields,
            Announcement::Forwarded,
            Peer::Trusted,
            Some("192.0.2.1:5000"),
        );
        let expected =
            "forwarded: for=203.0.113.9, for=\"192.0.2.1:5000\";host=\"mail.example.org\";proto=https".to_owned();
        assert_eq!(lines, [expected]);
    }
}
