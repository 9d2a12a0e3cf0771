//! Telling the backend about the client by ID (RFC 2971): its address, in the fields that Dovecot and its kin
//! believe a trusted proxy, and what it said about itself.

use super::lex::write_quoted;
use crate::facts::{ClientFacts, IdField, Introduction};

/// Pairs of one ID command, octets of a field's name and of its value (RFC 2971 §3.3). A server
/// ends the session over a longer value.
const MAX_FIELDS: usize = 30;
const MAX_NAME: usize = 30;
const MAX_VALUE: usize = 1024;

/// Writes the arguments of the one ID command on a backend connection. Servers believe the first
/// and ignore the others, so that what the client said about itself goes into the same one.
pub(super) fn write_arguments(facts: &ClientFacts, out: &mut Vec<u8>) {
    let peer = (facts.peer.ip().to_canonical(), facts.peer.port());
    let local = (facts.local.ip().to_canonical(), facts.local.port());
    let tls = facts.tls.as_ref();
    let mut list = List::begin(out);
    list.pair("x-originating-ip", Some(&peer.0.to_string()));
    list.pair("x-originating-port", Some(&peer.1.to_string()));
    list.pair("x-connected-ip", Some(&local.0.to_string()));
    list.pair("x-connected-port", Some(&local.1.to_string()));
    if let Some(name) = tls.and_then(|tls| tls.server_name.as_deref()) {
        list.pair("x-connected-name", Some(name));
    }
    list.pair("x-proxy-ttl", Some(&facts.hops.get().to_string()));
    list.pair("x-session-id", Some(facts.session.as_str()));
    list.pair("x-client-transport", Some(facts.transport()));
    list.own_words(&facts.introduction);
    list.end();
}

/// The arguments of an ID command that says what the client said about itself and nothing else; `None` when
/// that is nothing. Some servers refuse SELECT to a session that never said who it is.
pub(super) fn own_words(introduction: &Introduction) -> Option<Vec<u8>> {
    let mut words = Vec::new();
    let mut list = List::begin(&mut words);
    list.own_words(introduction);
    let count = list.count;
    list.end();
    (count > 0).then_some(words)
}

/// Whether a field of the client's own is not one by which only a proxy may speak.
fn is_harmless(field: &IdField) -> bool {
    const PREFIXES: [&str; 4] = ["x-originating-", "x-connected-", "x-session-", "x-forward-"];
    const NAMES: [&str; 3] = ["x-proxy-ttl", "x-client-transport", "x-multiplex"];
    let name = field.name.trim().to_ascii_lowercase();
    !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !NAMES.contains(&name.as_str())
}

/// A parenthesised list of pairs.
struct List<'a> {
    out: &'a mut Vec<u8>,
    count: usize,
}

impl<'a> List<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'(');
        Self { out, count: 0 }
    }

    /// Appends a pair, or leaves it out if it does not keep to the limits or is not printable:
    /// whatever it is, it must not be able to end the list or the line.
    fn pair(&mut self, name: &str, value: Option<&str>) {
        let text = value.unwrap_or_default();
        let fits = self.count < MAX_FIELDS
            && (1..=MAX_NAME).contains(&name.len())
            && text.len() <= MAX_VALUE
            && is_printable(name)
            && is_printable(text);
        if !fits {
            return;
        }
        if self.count > 0 {
            self.out.push(b' ');
        }
        self.count += 1;
        write_quoted(name.as_bytes(), |octet| self.out.push(octet));
        self.out.push(b' ');
        match value {
            Some(value) => write_quoted(value.as_bytes(), |octet| self.out.push(octet)),
            None => self.out.extend_from_slice(b"NIL"),
        }
    }

    /// Appends what the client said about itself, without the words by which only a proxy may speak.
    fn own_words(&mut self, introduction: &Introduction) {
        for field in introduction.id.iter().filter(|it| is_harmless(it)) {
            self.pair(&field.name, field.value.as_deref());
        }
    }

    fn end(self) {
        self.out.push(b')');
    }
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{HopLimit, Introduction, SessionReference, TlsFacts};

    fn facts(fields: &[(&str, &str)]) -> ClientFacts {
        ClientFacts {
            peer: "[::ffff:192.0.2.7]:50000".parse().unwrap(),
            local: "[2001:db8::1]:993".parse().unwrap(),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: Some("mail.example.org".to_owned()),
            }),
            session: SessionReference::new("fp-1".to_owned()).unwrap(),
            hops: HopLimit::FIRST,
            introduction: Introduction {
                helo: None,
                id: fields
                    .iter()
                    .map(|&(name, value)| IdField {
                        name: name.to_owned(),
                        value: Some(value.to_owned()),
                    })
                    .collect(),
                utf8: false,
            },
        }
    }

    fn written(facts: &ClientFacts) -> String {
        let mut out = Vec::new();
        write_arguments(facts, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_client_is_announced_with_its_own_words_behind_ours() {
        assert_eq!(
            written(&facts(&[("name", "Mutt \"1\\2\"")])),
            "(\"x-originating-ip\" \"192.0.2.7\" \"x-originating-port\" \"50000\" \
             \"x-connected-ip\" \"2001:db8::1\" \"x-connected-port\" \"993\" \
             \"x-connected-name\" \"mail.example.org\" \"x-proxy-ttl\" \"5\" \
             \"x-session-id\" \"fp-1\" \"x-client-transport\" \"TLSv1.3\" \
             \"name\" \"Mutt \\\"1\\\\2\\\"\")"
        );
    }

    #[test]
    fn a_client_in_clear_is_announced_as_insecure_and_without_a_server_name() {
        let mut facts = facts(&[]);
        facts.tls = None;
        let written = written(&facts);
        assert!(written.contains("\"x-client-transport\" \"insecure\""));
        assert!(!written.contains("x-connected-name"));
    }

    #[test]
    fn trust_words_typed_by_a_client_never_reach_the_backend() {
        let typed = [
            "x-originating-ip",
            "X-Originating-Port",
            "x-connected-name",
            "X-PROXY-TTL",
            "x-session-id",
            "x-session-ext-id",
            "x-forward-user",
            "x-client-transport",
            "x-multiplex",
            " x-originating-ip",
        ];
        for name in typed {
            let written = written(&facts(&[(name, "203.0.113.66"), ("os", "x")]));
            assert!(!written.contains("203.0.113.66"), "{name}");
            assert!(written.ends_with("\"os\" \"x\")"), "{name}");
        }
    }

    #[test]
    fn line_ends_in_an_announced_value_leave_the_pair_out() {
        let mut facts = facts(&[("os", "x\r\nF9 LOGOUT")]);
        facts.tls.as_mut().unwrap().server_name = Some("a\r\n* BYE".to_owned());
        let written = written(&facts);
        assert!(!written.contains(['\r', '\n']));
    }

    #[test]
    fn no_more_than_thirty_pairs_and_none_beyond_its_length() {
        let fields: Vec<_> = (0..40).map(|_| ("k", "v")).collect();
        assert_eq!(
            written(&facts(&fields)).matches("\"k\" \"v\"").count(),
            30 - 8
        );
        let (longest, longer) = ("v".repeat(1024), "w".repeat(1025));
        let written = written(&facts(&[("a", &longest), ("b", &longer)]));
        assert!(written.contains(&longest) && !written.contains('w'));
    }
}
