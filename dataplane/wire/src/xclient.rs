//! Telling the backend about the client by Dovecot's XCLIENT, in POP3 and `ManageSieve`.
//!
//! Dovecot 2.3 reads ADDR, PORT, SESSION and TTL, 2.4 the others too; each passes over what it does not know. Unlike SMTP's
//! command of that name, an address has no prefix, and there is no escaping (login-common takes values as they
//! are), so what would need some is left out.

use std::fmt::Write as _;

use crate::facts::ClientFacts;

/// The command, without its line end. A session reference, a server name in SNI and the rest together are far
/// below the 1024 octets that Dovecot takes.
pub(crate) fn command(facts: &ClientFacts) -> String {
    let (peer, local) = (facts.peer, facts.local);
    let mut command = String::from("XCLIENT");
    field(&mut command, "ADDR", &peer.ip().to_canonical().to_string());
    field(&mut command, "PORT", &peer.port().to_string());
    field(
        &mut command,
        "DESTADDR",
        &local.ip().to_canonical().to_string(),
    );
    field(&mut command, "DESTPORT", &local.port().to_string());
    field(&mut command, "SESSION", facts.session.as_str());
    field(&mut command, "TTL", &facts.hops.get().to_string());
    field(&mut command, "CLIENT-TRANSPORT", facts.transport());
    if let Some(name) = facts
        .tls
        .as_ref()
        .and_then(|tls| tls.server_name.as_deref())
    {
        field(&mut command, "DESTNAME", name);
    }
    command
}

/// The longest value, in octets: a host name's (RFC 1035 §2.3.4).
const MAX_VALUE: usize = 255;

/// Octets that mean something in one of the protocols or of their relatives.
const SPECIAL: &[u8] = b"=+(){}\"\\";

/// Appends a field, unless its value could be read as something else.
fn field(command: &mut String, name: &str, value: &str) {
    let is_fit = (1..=MAX_VALUE).contains(&value.len())
        && value
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !SPECIAL.contains(&octet));
    if is_fit {
        _ = write!(command, " {name}={value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{HopLimit, Introduction, SessionReference, TlsFacts};

    fn facts(server_name: &str) -> ClientFacts {
        ClientFacts {
            peer: "[::ffff:192.0.2.7]:50000".parse().unwrap(),
            local: "[2001:db8::1]:995".parse().unwrap(),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: Some(server_name.to_owned()),
            }),
            session: SessionReference::new("fp-1".to_owned()).unwrap(),
            hops: HopLimit::FIRST,
            introduction: Introduction::default(),
        }
    }

    #[test]
    fn the_client_is_announced_with_an_address_without_a_prefix() {
        assert_eq!(
            command(&facts("mail.example.org")),
            "XCLIENT ADDR=192.0.2.7 PORT=50000 DESTADDR=2001:db8::1 DESTPORT=995 SESSION=fp-1 TTL=5 \
             CLIENT-TRANSPORT=TLSv1.3 DESTNAME=mail.example.org"
        );
    }

    #[test]
    fn a_client_in_clear_is_announced_as_insecure() {
        let mut facts = facts("x");
        facts.tls = None;
        let command = command(&facts);
        assert!(command.ends_with(" CLIENT-TRANSPORT=insecure"), "{command}");
    }

    #[test]
    fn a_server_name_that_could_be_read_as_something_else_is_left_out() {
        let longest = "x".repeat(255);
        assert!(command(&facts(&longest)).ends_with(&longest));
        for name in [
            "a b",
            "a\r\nQUIT",
            "a\0",
            "a=b",
            "a+2B",
            "a(b",
            "a{5+}",
            "a\"b",
            "\u{e4}",
            "",
            &"x".repeat(256),
        ] {
            let command = command(&facts(name));
            assert!(command.ends_with(" CLIENT-TRANSPORT=TLSv1.3"), "{command}");
        }
    }
}
