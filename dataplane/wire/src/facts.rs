//! What is known about a client and may be announced to the server that it is relayed to.

use std::fmt;
use std::net::SocketAddr;

/// The client of a session as the backend is to see it, whatever the protocol.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The client's own address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// The client's TLS, or `None` for a client in clear. Never a guess: servers decide by it
    /// whether a password was seen by others.
    pub tls: Option<TlsFacts>,
    /// The reference under which both logs show this session.
    pub session: SessionReference,
    /// How many proxies may still follow.
    pub hops: HopLimit,
    /// What the client said about itself.
    pub introduction: Introduction,
}

impl ClientFacts {
    /// How the client is connected, honestly: a server may let a password pass by it.
    pub(crate) fn transport(&self) -> &'static str {
        self.tls.as_ref().map_or("insecure", |tls| tls.version)
    }
}

/// The client's TLS session.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// The protocol version as servers write it, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's name as registered with IANA, such as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: &'static str,
    /// The server name that the client asked for (SNI, RFC 6066 §3).
    pub server_name: Option<String>,
}

/// A session's reference: 1 to 64 octets of printable US-ASCII without spaces, quotes or
/// backslashes, so that it fits into every protocol's announcement as it is. (64 is the longest that
/// Dovecot takes.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReference(String);

/// The text is not fit to be a [`SessionReference`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session reference is 1 to 64 printable octets without spaces, quotes or backslashes")]
pub struct InvalidReference;

impl SessionReference {
    /// Checks and takes a reference.
    ///
    /// # Errors
    /// [`InvalidReference`].
    pub fn new(reference: String) -> Result<Self, InvalidReference> {
        let fit = |octet: u8| octet.is_ascii_graphic() && octet != b'"' && octet != b'\\';
        let valid = (1..=64).contains(&reference.len()) && reference.bytes().all(fit);
        valid.then_some(Self(reference)).ok_or(InvalidReference)
    }

    /// The reference.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A guard against proxies that send a session round in circles: one is subtracted at each, and none
/// passes on what arrived with one or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopLimit(u8);

impl HopLimit {
    /// For a client that came to us directly. Five, as Dovecot's own proxy starts with.
    pub const FIRST: Self = Self(5);

    /// For a client that came through a proxy which left it `received` hops, itself included;
    /// `None` when it must go no further.
    pub fn after(received: u8) -> Option<Self> {
        (received > 1).then(|| Self(received - 1))
    }

    /// For a client that says itself how many were left to it; `None` when it must go no further. The least counts, so
    /// that it need not be trusted: with a number it can only shorten its own way.
    pub fn and_by_its_own_word(self, received: Option<u8>) -> Option<Self> {
        match received {
            None => Some(self),
            Some(received) => Self::after(received).map(|said| Self(said.0.min(self.0))),
        }
    }

    /// The number to announce; at least one.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// What a client said about itself before it logged in, in whatever way its protocol has. Untrusted: the
/// machine that announces it drops what only a proxy may say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The name that it greeted us with (EHLO, RFC 5321 §4.1.1.1): printable US-ASCII without spaces.
    pub helo: Option<String>,
    /// The fields of IMAP's ID command (RFC 2971), in the order in which they came.
    pub id: Vec<IdField>,
    /// Whether it reads UTF-8 (POP3's UTF8 command, RFC 6856 §2.1).
    pub utf8: bool,
}

impl Introduction {
    /// The hops that are left by what it said (`x-proxy-ttl`, as Dovecot's proxies say it and we do).
    pub fn hops(&self) -> Option<u8> {
        let field = |field: &&IdField| field.name.eq_ignore_ascii_case("x-proxy-ttl");
        let field = self.id.iter().find(field)?;
        field.value.as_deref()?.parse().ok()
    }
}

/// One field of an [`Introduction`]: printable US-ASCII, within the lengths of RFC 2971 §3.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdField {
    /// At most 30 octets.
    pub name: String,
    /// At most 1024 octets; `None` is NIL.
    pub value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reference_cannot_break_out_of_an_announcement() {
        for bad in [
            "",
            "a b",
            "a\"b",
            "a\\b",
            "a\rb",
            "a\nb",
            "ä",
            &"x".repeat(65),
        ] {
            assert!(SessionReference::new(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(SessionReference::new("x".repeat(64)).is_ok());
    }

    #[test]
    fn a_session_that_went_round_too_often_goes_no_further() {
        assert_eq!(HopLimit::after(0), None);
        assert_eq!(HopLimit::after(1), None);
        assert_eq!(HopLimit::after(2).map(HopLimit::get), Some(1));
    }

    #[test]
    fn a_client_s_own_word_can_only_shorten_its_way() {
        let three = HopLimit::after(4).unwrap();
        let left = |said| three.and_by_its_own_word(said).map(HopLimit::get);
        assert_eq!(left(None), Some(3));
        assert_eq!(left(Some(255)), Some(3));
        assert_eq!(left(Some(3)), Some(2));
        assert_eq!(left(Some(1)), None);
    }

    #[test]
    fn a_client_s_own_hops_are_read_in_any_case_and_nonsense_is_none() {
        let hops = |name: &str, value: Option<&str>| {
            let field = IdField {
                name: name.to_owned(),
                value: value.map(str::to_owned),
            };
            let introduction = Introduction {
                id: vec![field],
                ..Introduction::default()
            };
            introduction.hops()
        };
        assert_eq!(hops("X-Proxy-TTL", Some("2")), Some(2));
        for (name, value) in [
            ("x-proxy-ttl", None),
            ("x-proxy-ttl", Some("-1")),
            ("x-proxy-ttl", Some("300")),
            ("name", Some("2")),
        ] {
            assert_eq!(hops(name, value), None);
        }
    }
}
