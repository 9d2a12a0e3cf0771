//! The header that is written in front of a message (RFC 5321 §4.4), by which servers count how far it has come.

use std::time::SystemTime;

use ferrypost_wire::SessionReference;

use super::Whence;

/// A message that has passed as many servers goes round in circles (RFC 5321 §6.3 asks for 100 at least).
pub(super) const MOST_HOPS: u32 = 100;

/// Who passes a message on, and by what.
pub(super) struct Hop<'a> {
    /// This data plane.
    pub(super) instance: &'a str,
    /// The protocol, as `LMTP`.
    pub(super) protocol: &'static str,
    /// The connection.
    pub(super) reference: &'a SessionReference,
    /// The name by which the mail system has greeted us.
    pub(super) name: Option<&'a str>,
    /// Where it is.
    pub(super) whence: Whence,
}

impl Hop<'_> {
    /// The header, of a message that comes now.
    #[expect(
        clippy::disallowed_methods,
        reason = "a date for people to read, by which nothing is decided"
    )]
    pub(super) fn header(&self) -> String {
        self.header_at(SystemTime::now())
    }

    fn header_at(&self, now: SystemTime) -> String {
        let date = httpdate::fmt_http_date(now).replace("GMT", "+0000");
        let name = self.name.unwrap_or("unknown");
        let whence = match self.whence {
            Whence::Address { peer, .. } => format!(" ([{}])", peer.ip()),
            Whence::Here => String::new(),
        };
        let (instance, protocol, reference) = (self.instance, self.protocol, self.reference);
        format!(
            "Received: from {name}{whence}\r\n\tby {instance} (Ferrypost) with {protocol} id {reference};\r\n\t{date}\r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ferrypost_wire::lmtp::Hops;

    use super::*;

    #[test]
    fn the_next_server_counts_one_more() {
        let reference = SessionReference::new("abc".to_owned()).unwrap();
        let hop = Hop {
            instance: "gateway-1",
            protocol: "LMTP",
            reference: &reference,
            name: Some("mx.example.org"),
            whence: Whence::Address {
                peer: "192.0.2.1:25".parse().unwrap(),
                local: "192.0.2.2:24".parse().unwrap(),
            },
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let header = hop.header_at(now);
        assert_eq!(
            header,
            "Received: from mx.example.org ([192.0.2.1])\r\n\
             \tby gateway-1 (Ferrypost) with LMTP id abc;\r\n\
             \tSun, 06 Nov 1994 08:49:37 +0000\r\n"
        );
        let mut hops = Hops::default();
        hops.read(header.as_bytes());
        assert_eq!(hops.seen(), 1);
    }
}
