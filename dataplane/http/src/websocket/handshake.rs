//! How a WebSocket is opened, and from when on there is one.
//!
//! A client asks by an upgrade of HTTP/1.1 (RFC 6455 §4) or by an extended CONNECT of HTTP/2 (RFC 8441), and a
//! server may be asked in either way, whichever the client took. The two differ in what proves that the server
//! has understood: 101 with an answer to the client's key, or a 2xx.
//!
//! ```text
//!   client                      here                          server
//!   GET, Upgrade, key    ─►  Handshake::of_upgrade  ─►  ask_by_upgrade │ ask_by_connect
//!   CONNECT, :protocol   ─►  Handshake::of_connect  ─►  ask_by_upgrade │ ask_by_connect
//!   the same, or nothing ◄─  Outcome                ◄─  check_upgraded │ check_connected
//! ```
//!
//! Whatever the server says that is not the proof is a response like any other, and the connection still HTTP.
//! What looks like a proof and is none is nobody's to repair: the client would speak WebSocket to a server that
//! waits for a request.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
        UPGRADE,
    },
};

use crate::Refusal;
use crate::fields::{has_member, members, once};

/// Octets of a key's nonce.
pub const NONCE: usize = 16;

/// SHA-1, which the caller has; it proves understanding here and keeps no secret.
pub type Sha1 = fn(&[u8]) -> [u8; 20];

/// The protocol's name, after `Upgrade` and in `:protocol`.
const PROTOCOL: &str = "websocket";

/// What is hashed behind the key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client asked for, and in which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    client: Way,
    key: String,
    protocols: Vec<Vec<u8>>,
    extensions: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By an upgrade of HTTP/1.1.
    Upgrade,
    /// By an extended CONNECT of HTTP/2.
    Connect,
}

/// What a server made of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It speaks WebSocket from here on, and the header is the client's answer of this status.
    Accepted(StatusCode),
    /// It does not; its response is one like any other.
    Declined,
}

/// A server's answer that a client could take for a WebSocket though there is none. It gets a 502, and the
/// server's connection is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer to a WebSocket handshake is not valid")]
pub struct BadUpgrade;

impl Handshake {
    /// The handshake of a request that [asks for one](crate::fields::Upgrade::WebSocket).
    ///
    /// # Errors
    /// [`Refusal::Malformed`]: its key is not sixteen octets in base64 (RFC 6455 §4.2.1).
    pub fn of_upgrade(headers: &HeaderMap) -> Result<Self, Refusal> {
        let key = once(headers, &SEC_WEBSOCKET_KEY).and_then(|key| str::from_utf8(key).ok());
        let key = key.ok_or(Refusal::Malformed)?;
        let is_nonce = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE);
        let handshake = Self::new(Way::Upgrade, key.to_owned(), headers);
        is_nonce.then_some(handshake).ok_or(Refusal::Malformed)
    }

    /// The handshake of an extended CONNECT. It has no key; where the server needs one, it is made of this
    /// `nonce`, which has to be random, so that no answer can be kept ready for it.
    ///
    /// # Errors
    /// [`Refusal::Method`]: another protocol than WebSocket, or another version of it than 13.
    pub fn of_connect(
        protocol: &str,
        headers: &HeaderMap,
        nonce: [u8; NONCE],
    ) -> Result<Self, Refusal> {
        let is_version_13 = once(headers, &SEC_WEBSOCKET_VERSION) == Some(b"13");
        if protocol != PROTOCOL || !is_version_13 {
            return Err(Refusal::Method);
        }
        Ok(Self::new(Way::Connect, STANDARD.encode(nonce), headers))
    }

    fn new(client: Way, key: String, headers: &HeaderMap) -> Self {
        let words = |name| members(headers, name).map(<[u8]>::to_vec).collect();
        let names = |name| members(headers, name).map(extension).map(<[u8]>::to_vec);
        Self {
            client,
            key,
            protocols: words(&SEC_WEBSOCKET_PROTOCOL),
            extensions: names(&SEC_WEBSOCKET_EXTENSIONS).collect(),
        }
    }

    /// Makes the cleaned header of the request one that asks an HTTP/1.1 server. The method is GET.
    pub fn ask_by_upgrade(&self, headers: &mut HeaderMap) {
        let key = HeaderValue::from_str(&self.key).expect("base64 is a value");
        headers.insert(SEC_WEBSOCKET_KEY, key);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        say_upgrade(headers);
    }

    /// Makes the cleaned header of the request one that asks an HTTP/2 server whose SETTINGS allow it. The method
    /// is CONNECT, and `:protocol` is `websocket`.
    pub fn ask_by_connect(&self, headers: &mut HeaderMap) {
        headers.remove(SEC_WEBSOCKET_KEY);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }

    /// Judges what an HTTP/1.1 server answered. An accepted one's header becomes the client's; of another nothing
    /// is changed. To be called before the header is [cleaned](crate::fields::clean_response): it takes out what
    /// is looked at here.
    ///
    /// # Errors
    /// [`BadUpgrade`].
    pub fn check_upgraded(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        sha1: Sha1,
    ) -> Result<Outcome, BadUpgrade> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return self.declined(status);
        }
        let is_web_socket = once(headers, &UPGRADE)
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL.as_bytes()));
        let is_ours = once(headers, &SEC_WEBSOCKET_ACCEPT) == Some(self.accept(sha1).as_bytes());
        if !is_web_socket || !is_ours || !has_member(headers, &CONNECTION, "upgrade") {
            return Err(BadUpgrade);
        }
        self.accepted(headers, sha1)
    }

    /// Judges what an HTTP/2 server answered, as [`check_upgraded`](Self::check_upgraded) does.
    ///
    /// # Errors
    /// [`BadUpgrade`].
    pub fn check_connected(
        &self,
        status: StatusCode,
        headers: &mut HeaderMap,
        sha1: Sha1,
    ) -> Result<Outcome, BadUpgrade> {
        if status.is_success() {
            return self.accepted(headers, sha1);
        }
        self.declined(status)
    }

    /// A 2xx would tell a client that sent CONNECT that it is connected.
    fn declined(&self, status: StatusCode) -> Result<Outcome, BadUpgrade> {
        let is_misread = self.client == Way::Connect && status.is_success();
        if is_misread || status.is_informational() {
            return Err(BadUpgrade);
        }
        Ok(Outcome::Declined)
    }

    fn accepted(&self, headers: &mut HeaderMap, sha1: Sha1) -> Result<Outcome, BadUpgrade> {
        if !self.offered(headers) {
            return Err(BadUpgrade);
        }
        for name in [
            CONNECTION,
            UPGRADE,
            SEC_WEBSOCKET_ACCEPT,
            CONTENT_LENGTH,
            TRANSFER_ENCODING,
        ] {
            headers.remove(name);
        }
        Ok(Outcome::Accepted(self.answer(headers, sha1)))
    }

    /// Nothing may be agreed on that the client did not ask for (RFC 6455 §4.1): it would fail the connection.
    fn offered(&self, headers: &HeaderMap) -> bool {
        let mut protocols = members(headers, &SEC_WEBSOCKET_PROTOCOL);
        let (protocol, another) = (protocols.next(), protocols.next());
        let mut extensions = members(headers, &SEC_WEBSOCKET_EXTENSIONS).map(extension);
        another.is_none()
            && protocol.is_none_or(|it| self.protocols.iter().any(|known| known == it))
            && extensions.all(|it| self.extensions.iter().any(|known| known == it))
    }

    fn answer(&self, headers: &mut HeaderMap, sha1: Sha1) -> StatusCode {
        if self.client == Way::Connect {
            return StatusCode::OK;
        }
        let accept = HeaderValue::from_str(&self.accept(sha1)).expect("base64 is a value");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        say_upgrade(headers);
        StatusCode::SWITCHING_PROTOCOLS
    }

    /// What proves that a server has read the key (RFC 6455 §4.2.2).
    fn accept(&self, sha1: Sha1) -> String {
        STANDARD.encode(sha1(format!("{}{GUID}", self.key).as_bytes()))
    }
}

fn say_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
}

/// The name of an extension, without its parameters.
fn extension(member: &[u8]) -> &[u8] {
    let name = member.split(|&octet| octet == b';').next();
    name.unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    /// The example of RFC 6455 §1.3: this key, its hash, its answer.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const NONCE_OF_KEY: &[u8; NONCE] = b"the sample nonce";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn sha1(octets: &[u8]) -> [u8; 20] {
        assert_eq!(octets, format!("{KEY}{GUID}").as_bytes());
        [
            0xb3, 0x7a, 0x4f, 0x2c, 0xc0, 0x62, 0x4f, 0x16, 0x90, 0xf6, 0x46, 0x06, 0xcf, 0x38,
            0x59, 0x45, 0xb2, 0xbe, 0xc4, 0xea,
        ]
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn by_upgrade() -> Handshake {
        let fields = [
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "jmap, chat"),
            (
                "Sec-WebSocket-Extensions",
                "permessage-deflate; client_max_window_bits",
            ),
        ];
        Handshake::of_upgrade(&headers(&fields)).unwrap()
    }

    fn by_connect() -> Handshake {
        let fields = headers(&[
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "jmap"),
        ]);
        Handshake::of_connect("websocket", &fields, *NONCE_OF_KEY).unwrap()
    }

    const UPGRADED: [(&str, &str); 4] = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Accept", ACCEPT),
        ("Sec-WebSocket-Protocol", "jmap"),
    ];

    #[test]
    fn a_key_is_sixteen_octets_in_base64() {
        for key in [
            "",
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQ==x",
        ] {
            let refused = Handshake::of_upgrade(&headers(&[("Sec-WebSocket-Key", key)]));
            assert_eq!(refused, Err(Refusal::Malformed), "{key}");
        }
        assert_eq!(
            Handshake::of_upgrade(&HeaderMap::new()),
            Err(Refusal::Malformed)
        );
        let twice = headers(&[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)]);
        assert_eq!(Handshake::of_upgrade(&twice), Err(Refusal::Malformed));
    }

    #[test]
    fn an_extended_connect_is_for_web_sockets_of_version_13_and_nothing_else() {
        let version = |text| headers(&[("Sec-WebSocket-Version", text)]);
        let read = |protocol, fields| Handshake::of_connect(protocol, &fields, [0; NONCE]);
        assert!(read("websocket", version("13")).is_ok());
        for (protocol, fields) in [
            ("connect-udp", version("13")),
            ("websocket", version("8")),
            ("websocket", HeaderMap::new()),
        ] {
            assert_eq!(read(protocol, fields), Err(Refusal::Method));
        }
    }

    #[test]
    fn a_server_is_asked_in_its_own_way_whatever_the_client_s() {
        for handshake in [by_upgrade(), by_connect()] {
            let mut fields = headers(&[("Accept", "*/*")]);
            handshake.ask_by_upgrade(&mut fields);
            for (name, expected) in [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-version", "13"),
                ("accept", "*/*"),
            ] {
                assert_eq!(value(&fields, name), Some(expected));
            }
            let mut fields = headers(&[("Sec-WebSocket-Key", KEY)]);
            handshake.ask_by_connect(&mut fields);
            assert_eq!(fields, headers(&[("Sec-WebSocket-Version", "13")]));
        }
    }

    #[test]
    fn a_client_is_answered_in_its_own_way_whatever_the_server_s() {
        let upgraded = StatusCode::SWITCHING_PROTOCOLS;
        let to_upgrade = headers(&[
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Accept", ACCEPT),
            ("Sec-WebSocket-Protocol", "jmap"),
        ]);
        let to_connect = headers(&[("Sec-WebSocket-Protocol", "jmap")]);
        for (handshake, status, expected) in [
            (by_upgrade(), upgraded, to_upgrade),
            (by_connect(), StatusCode::OK, to_connect),
        ] {
            let mut fields = headers(&UPGRADED);
            let outcome = handshake.check_upgraded(upgraded, &mut fields, sha1);
            assert_eq!(outcome, Ok(Outcome::Accepted(status)));
            assert_eq!(fields, expected);
            let mut fields =
                headers(&[("Sec-WebSocket-Protocol", "jmap"), ("Content-Length", "0")]);
            let outcome = handshake.check_connected(StatusCode::NO_CONTENT, &mut fields, sha1);
            assert_eq!(outcome, Ok(Outcome::Accepted(status)));
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn a_101_that_is_no_proof_is_no_web_socket() {
        let check = |fields: &[(&str, &str)]| {
            by_upgrade().check_upgraded(StatusCode::SWITCHING_PROTOCOLS, &mut headers(fields), sha1)
        };
        assert!(check(&UPGRADED).is_ok());
        for missing in 0..3 {
            let mut fields = UPGRADED.to_vec();
            fields.remove(missing);
            assert_eq!(check(&fields), Err(BadUpgrade), "{missing}");
        }
        for wrong in [
            ("Upgrade", "h2c"),
            ("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Sec-WebSocket-Protocol", "other"),
            ("Sec-WebSocket-Extensions", "x-mine"),
        ] {
            let fields = [&UPGRADED[..], &[wrong]].concat();
            assert_eq!(check(&fields), Err(BadUpgrade), "{wrong:?}");
        }
        let agreed = (
            "Sec-WebSocket-Extensions",
            "permessage-deflate; server_no_context_takeover",
        );
        assert!(check(&[&UPGRADED[..], &[agreed]].concat()).is_ok());
    }

    #[test]
    fn what_is_no_proof_at_all_is_a_response_like_any_other() {
        for status in [200, 304, 401, 426, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            let mut fields = headers(&[("Connection", "close")]);
            let outcome = by_upgrade().check_upgraded(status, &mut fields, sha1);
            assert_eq!(outcome, Ok(Outcome::Declined));
            assert_eq!(fields, headers(&[("Connection", "close")]));
        }
    }

    #[test]
    fn no_server_that_does_not_understand_connects_a_client_of_http_2() {
        let check = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            by_connect().check_upgraded(status, &mut HeaderMap::new(), sha1)
        };
        assert_eq!(check(200), Err(BadUpgrade));
        assert_eq!(check(204), Err(BadUpgrade));
        assert_eq!(check(401), Ok(Outcome::Declined));
        let to_connect =
            by_connect().check_connected(StatusCode::UNAUTHORIZED, &mut HeaderMap::new(), sha1);
        assert_eq!(to_connect, Ok(Outcome::Declined));
    }
}
