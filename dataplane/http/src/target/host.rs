//! The host that a request names, in one form.

use std::fmt;
use std::net::Ipv6Addr;

use crate::Refusal;

/// Longest host name in octets (RFC 1035 §2.3.4), without its trailing dot.
const MAX_NAME: usize = 253;

/// A host and a port: lower case, without a trailing dot, an IPv6 address in brackets and in its canonical
/// form. A-labels stay as they are; what is not ASCII is no host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    /// Reads `uri-host [ ":" port ]` (RFC 9110 §7.2). There is no user in it: browsers never send one, and who
    /// does wants a server to read another host than we did.
    ///
    /// # Errors
    /// [`Refusal::Host`].
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        let text = str::from_utf8(text).map_err(|_| Refusal::Host)?;
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or(Refusal::Host)?;
                let address: Ipv6Addr = address.parse().map_err(|_| Refusal::Host)?;
                (format!("[{address}]"), after_brackets(rest)?)
            }
            None => match text.split_once(':') {
                Some((name, port)) => (registered_name(name)?, Some(port)),
                None => (registered_name(text)?, None),
            },
        };
        Ok(Self {
            name,
            port: port.map_or(Ok(None), parse_port)?,
        })
    }

    /// The name without its port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if one was said.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port that is meant under `https` or, if `secure` is false, under `http`.
    pub fn effective_port(&self, secure: bool) -> u16 {
        self.port.unwrap_or(if secure { 443 } else { 80 })
    }

    /// Whether both mean the same host and port under the same scheme.
    pub fn is_same(&self, other: &Self, secure: bool) -> bool {
        self.name == other.name && self.effective_port(secure) == other.effective_port(secure)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn after_brackets(rest: &str) -> Result<Option<&str>, Refusal> {
    match rest.strip_prefix(':') {
        Some(port) => Ok(Some(port)),
        None if rest.is_empty() => Ok(None),
        None => Err(Refusal::Host),
    }
}

/// Digits only: `u16::from_str` would take a sign. An empty port is none (RFC 3986 §3.2.3).
fn parse_port(text: &str) -> Result<Option<u16>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Refusal::Host);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(Refusal::Host),
        Ok(port) => Ok(Some(port)),
    }
}

fn registered_name(text: &str) -> Result<String, Refusal> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_fit = |label: &str| {
        let fit = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(fit)
    };
    if text.len() > MAX_NAME || !text.split('.').all(is_fit) {
        return Err(Refusal::Host);
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Option<String> {
        Host::parse(text.as_bytes())
            .ok()
            .map(|host| host.to_string())
    }

    #[test]
    fn a_host_has_one_form_whatever_its_case_trailing_dot_or_address_spelling() {
        for (text, form) in [
            ("Mail.Example.ORG", "mail.example.org"),
            ("mail.example.org.", "mail.example.org"),
            ("mail.example.org:443", "mail.example.org:443"),
            ("mail.example.org:", "mail.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("[2001:DB8::0:1]:443", "[2001:db8::1]:443"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(text).as_deref(), Some(form), "{text}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_as_two_hosts_is_none() {
        for text in [
            "",
            ".",
            "a..b",
            "mail.example.org..",
            "user@mail.example.org",
            "mail.example.org@evil.example",
            "mail.example.org:+80",
            "mail.example.org:0",
            "mail.example.org:65536",
            "mail.example.org:80:90",
            "mail.example.org/x",
            "mail.example.org\\x",
            "mail.example.org?x",
            "mail.example.org#x",
            "mail example.org",
            "mail.example.org, evil.example",
            "m%61il.example.org",
            "bücher.example",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "::1",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    #[test]
    fn a_default_port_is_the_same_said_or_not() {
        let parse = |text: &str| Host::parse(text.as_bytes()).unwrap();
        assert!(parse("a.example").is_same(&parse("A.example:443"), true));
        assert!(!parse("a.example").is_same(&parse("a.example:443"), false));
    }

    proptest! {
        #[test]
        fn a_host_s_form_is_its_own_form(text in ".{0,40}") {
            if let Ok(host) = Host::parse(text.as_bytes()) {
                prop_assert_eq!(Host::parse(host.to_string().as_bytes()), Ok(host));
            }
        }
    }
}
