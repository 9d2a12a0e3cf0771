//! The PROXY protocol's header: written to destinations that want to learn the client from it, and read
//! from load balancers in front of us.
//!
//! Specification: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ferrypost_proto::EndpointTls;
use ferrypost_wire::{ClientFacts, HopLimit, TlsFacts};
use ppp::{
    HeaderResult, v1,
    v2::{self, Addresses, Builder, Command, Protocol, Type, Version},
};
use tokio::io::AsyncReadExt as _;

use super::{TcpStream, plain};

/// The largest binary header that is read, in octets: addresses and a client certificate's chain of
/// names fit several times over; Dovecot itself takes some 1500.
const MAX_BINARY: usize = 4096;
/// The longest textual header with its line end, in octets (specification, 2.1).
const MAX_TEXT: usize = 107;
/// What a binary header begins with, and the octets up to and with its length.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_PART: usize = 16;

/// `PP2_CLIENT_SSL`: the client connected over TLS.
const CLIENT_TLS: u8 = 1;
/// Nonzero: the client showed no certificate that was verified.
const NOT_VERIFIED: u32 = 1;

/// The value by which one of our data planes tells another how often a session may still be passed on: of the
/// types that the specification leaves to applications (2.2.7), with our name in it, since others use them too.
/// Dovecot and Postfix pass over it.
const HOPS: u8 = 0xe5;
const HOPS_OF: &[u8] = b"ferrypost-hops=";

/// A client to write a header about.
#[derive(Debug, Clone, Copy)]
pub struct Announced<'a> {
    /// Who it is and how it is connected.
    pub client: &'a ClientFacts,
    /// The protocol behind the header: what the client named in its TLS handshake, where that goes on unchanged.
    pub alpn: Option<&'a str>,
}

/// The header that announces a client to a server which is reached by `tls`. Both addresses are of one
/// family, as the format demands: an IPv4 address beside an IPv6 one is written as IPv6.
///
/// Where STARTTLS is to follow, the client's TLS goes unsaid: Dovecot 2.4 takes a connection whose client
/// came by TLS for one that has its TLS already, and then refuses STARTTLS. Ours tells it the same.
pub fn announce(announced: Announced<'_>, tls: &EndpointTls) -> Vec<u8> {
    let starttls = matches!(tls, EndpointTls::StartTls(_));
    build(announced, starttls)
        .expect("every value is far below the 64 KiB that the format can hold")
}

fn build(Announced { client, alpn }: Announced<'_>, starttls: bool) -> io::Result<Vec<u8>> {
    let addresses: Addresses = one_family(client.peer, client.local).into();
    let proxied = Version::Two | Command::Proxy;
    let mut header = Builder::with_addresses(proxied, Protocol::Stream, addresses)
        .write_tlv(Type::UniqueId, client.session.as_str().as_bytes())?
        .write_tlv(HOPS, &[HOPS_OF, &[client.hops.get()]].concat())?;
    if let Some(alpn) = alpn {
        header = header.write_tlv(Type::ALPN, alpn.as_bytes())?;
    }
    if let Some(tls) = &client.tls {
        // Dovecot drops the connection over a name that is none.
        let name = tls.server_name.as_deref().filter(|name| is_host_name(name));
        if let Some(name) = name {
            header = header.write_tlv(Type::Authority, name.as_bytes())?;
        }
        if !starttls {
            header = header.write_tlv(Type::SSL, &tls_value(tls))?;
        }
    }
    header.build()
}

/// The value of `PP2_TYPE_SSL`: flags, the verdict on the client's certificate, and two values of its
/// own.
fn tls_value(tls: &TlsFacts) -> Vec<u8> {
    let mut value = vec![CLIENT_TLS];
    value.extend_from_slice(&NOT_VERIFIED.to_be_bytes());
    for (kind, text) in [
        (Type::SSLVersion, tls.version),
        (Type::SSLCipher, tls.cipher),
    ] {
        let length = u16::try_from(text.len()).expect("names of ciphers are short");
        value.push(kind.into());
        value.extend_from_slice(&length.to_be_bytes());
        value.extend_from_slice(text.as_bytes());
    }
    value
}

/// The header of a connection of our own: a health probe, which has no client.
pub fn local() -> Vec<u8> {
    let own = Version::Two | Command::Local;
    Builder::with_addresses(own, Protocol::Unspecified, Addresses::Unspecified)
        .build()
        .expect("an empty header fits")
}

fn one_family(peer: SocketAddr, local: SocketAddr) -> (SocketAddr, SocketAddr) {
    if peer.is_ipv4() == local.is_ipv4() {
        return (peer, local);
    }
    let wide = |address: SocketAddr| SocketAddr::new(mapped(address.ip()).into(), address.port());
    (wide(peer), wide(local))
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Letters, digits and hyphens in labels of 1 to 63, 253 in all (RFC 1123 §2.1).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The two ends of a connection, and the way between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub peer: SocketAddr,
    /// What it connected to.
    pub local: SocketAddr,
    /// How often its session may still be passed on. `None`: it has gone round in circles.
    pub hops: Option<HopLimit>,
    /// Whether there is no client: whoever stands in front of us looks what we are.
    pub is_check: bool,
}

impl Ends {
    /// Those of a connection that nobody has passed on.
    pub fn direct(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            hops: Some(HopLimit::FIRST),
            is_check: false,
        }
    }
}

/// What a header says of the connection behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Whose it is.
    Client(Ends),
    /// Somebody's who has no address that could be told.
    Nameless,
    /// Nobody's but the sender's own: its check.
    Check,
}

/// A header that should have been there was not.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection failed or ended.
    #[error("no PROXY header came: {0}")]
    Io(#[from] io::Error),
    /// Something else came.
    #[error("what came is not a PROXY header")]
    Malformed,
}

/// Reads a header, and not an octet more, from a peer that is trusted to send one.
///
/// # Errors
/// [`ProxyError`]; the connection is of no use.
pub async fn receive(stream: &mut TcpStream) -> Result<Told, ProxyError> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        read_binary(stream, &mut header).await?;
    } else if header.starts_with(b"PROXY ") {
        read_text(stream, &mut header).await?;
    } else {
        return Err(ProxyError::Malformed);
    }
    read(&header)
}

async fn read_binary(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyError> {
    header.resize(FIXED_PART, 0);
    stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if FIXED_PART + length > MAX_BINARY {
        return Err(ProxyError::Malformed);
    }
    header.resize(FIXED_PART + length, 0);
    stream.read_exact(&mut header[FIXED_PART..]).await?;
    Ok(())
}

/// Octet by octet, since where the line ends the client's own words begin.
async fn read_text(stream: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), ProxyError> {
    while !header.ends_with(b"\n") {
        if header.len() == MAX_TEXT {
            return Err(ProxyError::Malformed);
        }
        header.push(stream.read_u8().await?);
    }
    Ok(())
}

fn read(header: &[u8]) -> Result<Told, ProxyError> {
    let ends = |peer, local| Some(Ends::direct(plain(peer), plain(local)));
    match HeaderResult::parse(header) {
        HeaderResult::V2(Ok(header)) if header.command == Command::Local => Ok(Told::Check),
        HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                Addresses::IPv4(a) => ends(
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                ),
                Addresses::IPv6(a) => ends(
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                ),
                Addresses::Unspecified | Addresses::Unix(_) => None,
            };
            let hops = hops(&header);
            let client = ends.map(|ends| Told::Client(Ends { hops, ..ends }));
            Ok(client.unwrap_or(Told::Nameless))
        }
        HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                v1::Addresses::Tcp4(a) => ends(
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                ),
                v1::Addresses::Tcp6(a) => ends(
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                ),
                v1::Addresses::Unknown => None,
            };
            Ok(ends.map_or(Told::Nameless, Told::Client))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(ProxyError::Malformed),
    }
}

/// What is left of the way. A balancer that says nothing of it is the first on it.
fn hops(header: &v2::Header<'_>) -> Option<HopLimit> {
    let values = header.tlvs().filter_map(Result::ok);
    let mut ours = values.filter(|value| value.kind == HOPS);
    match ours.find_map(|value| value.value.strip_prefix(HOPS_OF).map(<[u8]>::to_vec)) {
        None => Some(HopLimit::FIRST),
        Some(left) => left.first().copied().and_then(HopLimit::after),
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{Trust, Verification};
    use ferrypost_wire::{HopLimit, Introduction, SessionReference};
    use ppp::v2::Header;

    use super::*;

    fn client(peer: &str, local: &str, server_name: Option<&str>) -> ClientFacts {
        ClientFacts {
            peer: peer.parse().unwrap(),
            local: local.parse().unwrap(),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: server_name.map(ToOwned::to_owned),
            }),
            session: SessionReference::new("ref1".into()).unwrap(),
            hops: HopLimit::FIRST,
            introduction: Introduction::default(),
        }
    }

    fn verification() -> Verification {
        Verification {
            trust: Trust::Platform,
            server_name: "new.example.org".to_owned(),
        }
    }

    fn header(client: &ClientFacts) -> Vec<u8> {
        header_before(client, &EndpointTls::Implicit(verification()))
    }

    fn header_before(client: &ClientFacts, tls: &EndpointTls) -> Vec<u8> {
        let announced = Announced {
            client,
            alpn: Some("imap"),
        };
        announce(announced, tls)
    }

    fn client_of(header: &[u8]) -> Ends {
        match read(header) {
            Ok(Told::Client(ends)) => ends,
            other => panic!("{other:?}"),
        }
    }

    fn values(header: &Header<'_>) -> Vec<(u8, Vec<u8>)> {
        let values = header.tlvs().map(|tlv| tlv.unwrap());
        values.map(|tlv| (tlv.kind, tlv.value.to_vec())).collect()
    }

    #[test]
    fn a_client_is_announced_with_its_tls_and_its_reference() {
        let bytes = header(&client(
            "192.0.2.1:4000",
            "192.0.2.9:993",
            Some("mail.example.org"),
        ));
        let parsed = Header::try_from(&bytes[..]).unwrap();
        let mut tls = vec![1, 0, 0, 0, 1, 0x21, 0, 7];
        tls.extend_from_slice(b"TLSv1.3");
        tls.extend_from_slice(&[0x23, 0, 24]);
        tls.extend_from_slice(b"TLS13_AES_128_GCM_SHA256");
        let expected = [
            (5, b"ref1".to_vec()),
            (0xe5, b"ferrypost-hops=\x05".to_vec()),
            (1, b"imap".to_vec()),
            (2, b"mail.example.org".to_vec()),
            (0x20, tls),
        ];
        assert_eq!(values(&parsed), expected);
        let ends = client_of(&bytes);
        assert_eq!(ends.peer, "192.0.2.1:4000".parse().unwrap());
        assert_eq!(ends.local, "192.0.2.9:993".parse().unwrap());
    }

    #[test]
    fn a_server_that_is_to_offer_starttls_is_not_told_of_the_client_s_tls() {
        let client = client("192.0.2.1:4000", "192.0.2.9:993", Some("mail.example.org"));
        let bytes = header_before(&client, &EndpointTls::StartTls(verification()));
        let parsed = Header::try_from(&bytes[..]).unwrap();
        let kinds: Vec<u8> = values(&parsed).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [5, 0xe5, 1, 2]);
    }

    #[test]
    fn a_name_that_dovecot_would_not_take_is_left_out() {
        let long = "a".repeat(64);
        for bad in ["", "a..b", "-a.example", "a_b.example", &long, "a b"] {
            let bytes = header(&client("192.0.2.1:1", "192.0.2.9:993", Some(bad)));
            let parsed = Header::try_from(&bytes[..]).unwrap();
            assert!(values(&parsed).iter().all(|(kind, _)| *kind != 2), "{bad}");
        }
    }

    #[test]
    fn mixed_families_are_written_as_ipv6_and_lose_nothing() {
        let bytes = header(&client("192.0.2.1:4000", "[2001:db8::1]:993", None));
        let parsed = Header::try_from(&bytes[..]).unwrap();
        let Addresses::IPv6(addresses) = parsed.addresses else {
            panic!("not IPv6: {:?}", parsed.addresses);
        };
        assert_eq!(addresses.source_address.to_string(), "::ffff:192.0.2.1");
        let ends = client_of(&bytes);
        assert_eq!(ends.peer, "192.0.2.1:4000".parse().unwrap());
    }

    #[test]
    fn each_data_plane_on_the_way_leaves_one_hop_less_and_the_last_one_none() {
        let mut client = client("192.0.2.1:4000", "192.0.2.9:993", None);
        let mut way = Vec::new();
        while let Some(hops) = client_of(&header(&client)).hops {
            way.push(hops.get());
            client.hops = hops;
        }
        assert_eq!(way, [4, 3, 2, 1]);
    }

    #[test]
    fn a_value_of_that_type_that_others_sent_says_nothing_of_hops() {
        let addresses: Addresses = one_family(
            "192.0.2.1:4000".parse().unwrap(),
            "192.0.2.9:993".parse().unwrap(),
        )
        .into();
        for (value, left) in [
            (&b"\x01"[..], Some(HopLimit::FIRST)),
            (b"vpce-1", Some(HopLimit::FIRST)),
            (b"ferrypost-hops=", None),
        ] {
            let proxied = Version::Two | Command::Proxy;
            let header = Builder::with_addresses(proxied, Protocol::Stream, addresses)
                .write_tlv(HOPS, value)
                .and_then(Builder::build)
                .unwrap();
            assert_eq!(client_of(&header).hops, left, "{value:?}");
        }
    }

    #[test]
    fn a_probe_has_no_client() {
        assert_eq!(read(&local()).unwrap(), Told::Check);
    }

    #[test]
    fn text_headers_are_understood_and_nonsense_is_not() {
        let header = b"PROXY TCP4 192.0.2.1 192.0.2.9 4000 993\r\n";
        let found = client_of(header);
        assert_eq!(found.peer, "192.0.2.1:4000".parse().unwrap());
        assert_eq!(read(b"PROXY UNKNOWN\r\n").unwrap(), Told::Nameless);
        assert!(read(b"PROXY TCP4 nonsense\r\n").is_err());
        assert!(read(b"a1 LOGIN alice secret\r\n").is_err());
    }
}
