//! Telling the backend about the client by XCLIENT (Postfix's `XCLIENT_README`, Dovecot's submission service).
//!
//! Only what the backend's answer to EHLO lists is sent, in commands of 512 octets at most, the address last: the
//! connection is the client's from there on, and a client may not say more.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::facts::ClientFacts;
use crate::keywords::Keywords;

const KEYWORD: &str = "XCLIENT";
/// Without it there is no announcement.
const ADDRESS: &str = "ADDR";
/// The longest command, in octets and with its end.
const MAX_COMMAND: usize = 512;
/// The longest value, in octets and encoded: Postfix refuses a command with a longer one, which any client could
/// bring about by its name. A name that is left out is heard all the same, in the EHLO behind the command.
const MAX_VALUE: usize = 255;

/// Whether a server that offers this takes announcements of clients from us.
pub(super) fn takes_announcements(offered: &Keywords) -> bool {
    offered.has_word(KEYWORD, ADDRESS)
}

/// What is still to be said about a client.
pub(super) struct Announcement(VecDeque<(&'static str, String)>);

impl Announcement {
    /// All that there is to say of who speaks `protocol`, in the order in which it has to be said.
    ///
    /// Never LOGIN, which logs somebody in. The client's host name is not looked up; a server that is not told
    /// that there is none would go on with ours.
    pub(super) fn new(facts: &ClientFacts, protocol: &str) -> Self {
        let mut attributes = VecDeque::new();
        let mut say = |name, value: &str| attributes.push_back((name, xtext(value)));
        if let Some(name) = facts.introduction.helo.as_deref() {
            say("HELO", name);
        }
        say("PROTO", protocol);
        say("NAME", "[UNAVAILABLE]");
        say("PORT", &facts.peer.port().to_string());
        say("DESTADDR", &address(facts.local.ip()));
        say("DESTPORT", &facts.local.port().to_string());
        let asked = facts
            .tls
            .as_ref()
            .and_then(|tls| tls.server_name.as_deref());
        if let Some(name) = asked {
            say("DESTNAME", name);
        }
        say("SESSION", facts.session.as_str());
        say("TTL", &facts.hops.get().to_string());
        say("CLIENT-TRANSPORT", facts.transport());
        say(ADDRESS, &address(facts.peer.ip()));
        Self(attributes)
    }

    /// Whether everything has been said. The address, which comes last, makes the connection the client's: what the
    /// server takes behind it says nothing about us.
    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next command, without its end; `None` when everything has been said that the server takes.
    pub(super) fn next(&mut self, offered: &Keywords) -> Option<Vec<u8>> {
        if !takes_announcements(offered) {
            return None;
        }
        let room = MAX_COMMAND - b"\r\n".len();
        let mut command = KEYWORD.to_owned();
        while let Some((name, value)) = self.0.front() {
            let attribute = format!(" {name}={value}");
            let fits = command.len() + attribute.len() <= room;
            let never = value.len() > MAX_VALUE || !offered.has_word(KEYWORD, name);
            if !fits && !never {
                break;
            }
            if !never {
                command.push_str(&attribute);
            }
            self.0.pop_front();
        }
        (command.len() > KEYWORD.len()).then(|| command.into_bytes())
    }
}

/// An address as both servers write it: IPv6 with a prefix and without brackets, and never IPv4 in IPv6, which
/// their lists of networks would not find.
fn address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    }
}

/// A value that cannot end its attribute or its command (RFC 3461 §4).
fn xtext(value: &str) -> String {
    let encoded = |octet: u8| match octet {
        b'+' | b'=' => format!("+{octet:02X}"),
        octet if octet.is_ascii_graphic() => char::from(octet).to_string(),
        octet => format!("+{octet:02X}"),
    };
    value.bytes().map(encoded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;
    use crate::facts::{HopLimit, Introduction, SessionReference, TlsFacts};

    const POSTFIX: &str = "XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";
    const DOVECOT: &str = "XCLIENT ADDR PORT PROTO HELO LOGIN SESSION TTL TIMEOUT";

    fn facts(peer: &str, helo: Option<&str>) -> ClientFacts {
        ClientFacts {
            peer: peer.parse().unwrap(),
            local: "[2001:db8::1]:587".parse().unwrap(),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: Some("mail.example.org".to_owned()),
            }),
            session: SessionReference::new("fp-1".to_owned()).unwrap(),
            hops: HopLimit::FIRST,
            introduction: Introduction {
                helo: helo.map(str::to_owned),
                ..Introduction::default()
            },
        }
    }

    fn commands(facts: &ClientFacts, offered: &str) -> Vec<String> {
        let offered = Keywords::from_items([offered]);
        let mut announcement = Announcement::new(facts, "ESMTP");
        std::iter::from_fn(|| announcement.next(&offered))
            .map(|command| String::from_utf8(command).unwrap())
            .collect()
    }

    #[test]
    fn each_server_is_told_what_it_lists_the_address_last_and_never_a_login() {
        let facts = facts("[2001:db8::7]:50000", Some("client.example.org"));
        assert_eq!(
            commands(&facts, POSTFIX),
            [
                "XCLIENT HELO=client.example.org PROTO=ESMTP NAME=[UNAVAILABLE] PORT=50000 \
              DESTADDR=IPV6:2001:db8::1 DESTPORT=587 ADDR=IPV6:2001:db8::7"
            ]
        );
        assert_eq!(
            commands(&facts, DOVECOT),
            [
                "XCLIENT HELO=client.example.org PROTO=ESMTP PORT=50000 SESSION=fp-1 TTL=5 \
              ADDR=IPV6:2001:db8::7"
            ]
        );
    }

    #[test]
    fn an_ipv4_address_is_one_also_where_it_came_inside_ipv6() {
        let mapped = facts("[::ffff:192.0.2.7]:50000", None);
        assert_eq!(
            commands(&mapped, "XCLIENT ADDR"),
            ["XCLIENT ADDR=192.0.2.7"]
        );
    }

    #[test]
    fn a_server_that_does_not_list_the_address_is_told_nothing() {
        for offered in ["XCLIENT HELO NAME", "XFORWARD ADDR", "PIPELINING"] {
            assert_eq!(commands(&facts("192.0.2.7:1", Some("c")), offered), [""; 0]);
        }
    }

    #[test]
    fn a_name_cannot_add_an_attribute_or_a_command() {
        let facts = facts("192.0.2.7:1", Some("a ADDR=203.0.113.66\r\nQUIT+"));
        assert_eq!(
            commands(&facts, "XCLIENT HELO ADDR"),
            ["XCLIENT HELO=a+20ADDR+3D203.0.113.66+0D+0AQUIT+2B ADDR=192.0.2.7"]
        );
    }

    #[test]
    fn no_command_is_longer_than_512_octets_and_the_address_is_in_the_last() {
        let told = |name: usize, server_name: usize| {
            let mut facts = facts("192.0.2.7:50000", Some(&"n".repeat(name)));
            facts.tls.as_mut().unwrap().server_name = Some("s".repeat(server_name));
            commands(&facts, "XCLIENT HELO PORT DESTNAME ADDR")
        };
        let others = "XCLIENT HELO= PORT=50000 DESTNAME= ADDR=192.0.2.7".len();
        let one = MAX_COMMAND - 2 - others - MAX_VALUE;
        assert_eq!(told(MAX_VALUE, one).len(), 1);
        let two = told(MAX_VALUE, one + 1);
        assert_eq!(two[1], "XCLIENT ADDR=192.0.2.7");
        assert!(two.iter().all(|command| command.len() + 2 <= MAX_COMMAND));
    }

    #[test]
    fn a_value_that_postfix_finds_too_long_is_left_out() {
        let told = |name: &str| commands(&facts("192.0.2.7:1", Some(name)), "XCLIENT HELO ADDR");
        assert!(told(&"n".repeat(255))[0].starts_with("XCLIENT HELO=nnn"));
        assert!(told(&"=".repeat(85))[0].starts_with("XCLIENT HELO=+3D"));
        for name in ["n".repeat(256), "=".repeat(86)] {
            assert_eq!(told(&name), ["XCLIENT ADDR=192.0.2.7"]);
        }
    }
}
