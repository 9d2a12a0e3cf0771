//! What may be offered before login, which is for the whole session: clients do not ask again after it, and
//! which server they get is not known yet.

use crate::keywords::Keywords;
use crate::sasl::{self, Mechanism};
use crate::secret::BearerFrame;
use crate::settings::Tokens;
use crate::{BackendViolation, Capabilities as _};

/// The mechanisms that we take.
pub(super) const MECHANISMS: [Mechanism; 4] = [
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::Bearer(BearerFrame::OauthBearer),
    Mechanism::Bearer(BearerFrame::Xoauth2),
];

/// What is offered where every destination offers it in the same words. A closed list: the relay has to know how
/// an extension changes what a stream means, as CHUNKING does.
///
/// Not in it: XCLIENT and XFORWARD, which are for proxies; BURL (RFC 4468), whose addresses lead to one IMAP
/// server; ETRN and its kin, which are not for clients.
const CARRIED: [&str; 13] = [
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
    "REQUIRETLS",
    "DELIVERBY",
    "MT-PRIORITY",
    "FUTURERELEASE",
    "NO-SOLICITING",
    "VRFY",
];

/// What we offer to clients before login, on a leg that may carry secrets. Made only by
/// [`LineProtocol::offer`](crate::LineProtocol::offer).
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    extensions: Keywords,
    mechanisms: Vec<Mechanism>,
}

impl Offer {
    /// Whether a mechanism is in it.
    pub(super) fn has(&self, mechanism: Mechanism) -> bool {
        self.mechanisms.contains(&mechanism)
    }

    /// The lines for a client under TLS.
    pub(super) fn lines(&self) -> Vec<String> {
        let names: Vec<_> = self.mechanisms.iter().map(|it| it.name()).collect();
        let auth = (!names.is_empty()).then(|| format!("AUTH {}", names.join(" ")));
        self.extensions.lines().chain(auth).collect()
    }

    /// The lines for a client in clear: no way to log in but STARTTLS (RFC 3207).
    pub(super) fn lines_in_clear(&self) -> Vec<String> {
        let starttls = std::iter::once("STARTTLS".to_owned());
        self.extensions.lines().chain(starttls).collect()
    }
}

impl crate::Offer for Offer {
    fn items(&self) -> Vec<String> {
        self.lines()
    }
}

/// What every destination can do.
pub(super) fn before_login(destinations: &[Keywords], tokens: Tokens) -> Offer {
    Offer {
        extensions: shared(destinations, &CARRIED),
        mechanisms: sasl::offered(&MECHANISMS, destinations, tokens, can_replay),
    }
}

/// The size that every destination takes, and those of the keywords that all offer in the same words.
pub(crate) fn shared(destinations: &[Keywords], keywords: &[&str]) -> Keywords {
    let mut extensions = Keywords::default();
    if let Some(size) = size(destinations) {
        extensions.add(&format!("SIZE {size}"));
    }
    if let Some((first, others)) = destinations.split_first() {
        for keyword in keywords {
            if let Some(line) = line(first, keyword)
                && others.iter().all(|list| has_line(list, keyword, &line))
            {
                extensions.add(&line);
            }
        }
    }
    extensions
}

/// Whether sessions can be relayed to a server that offers this.
pub(super) fn fit(offered: &Keywords) -> Result<(), BackendViolation> {
    let can_log_in = MECHANISMS.iter().any(|it| has(offered, *it));
    can_log_in
        .then_some(())
        .ok_or(BackendViolation::NoMechanism)
}

/// Whether a server offers this mechanism.
pub(super) fn has(offered: &Keywords, mechanism: Mechanism) -> bool {
    offered.has_word("AUTH", mechanism.name())
}

/// Whether a backend that offers this can be logged in with what `mechanism` yields.
fn can_replay(mechanism: Mechanism, offered: &Keywords) -> bool {
    match mechanism {
        // Only PLAIN itself can say whom to act as.
        Mechanism::Plain | Mechanism::Bearer(_) => has(offered, mechanism),
        Mechanism::Login => has(offered, Mechanism::Plain) || has(offered, Mechanism::Login),
    }
}

/// The size of message that every destination takes, always a number: 0, which has no limit (RFC 1870 §4), where
/// none has one. `None`: one of them does not want to be told sizes.
fn size(destinations: &[Keywords]) -> Option<u64> {
    let limits: Option<Vec<_>> = destinations.iter().map(limit).collect();
    let smallest = limits?.into_iter().min()?;
    Some(if smallest == u64::MAX { 0 } else { smallest })
}

/// The size that a destination takes; the largest number for one without a limit.
fn limit(offered: &Keywords) -> Option<u64> {
    let Some(number) = offered.words("SIZE")?.next() else {
        return Some(u64::MAX);
    };
    // Digits alone: "+5" would be a number too.
    let is_number = number.bytes().all(|octet| octet.is_ascii_digit());
    match number.parse().ok().filter(|_| is_number)? {
        0 => Some(u64::MAX),
        limit => Some(limit),
    }
}

/// How a server offers an extension.
fn line(offered: &Keywords, keyword: &str) -> Option<String> {
    let words: Vec<_> = offered.words(keyword)?.collect();
    Some([&[keyword], &*words].concat().join(" "))
}

/// Whether a server offers an extension in the same words.
fn has_line(offered: &Keywords, keyword: &str, other: &str) -> bool {
    let same = |line: String| Keywords::from_items([&*line]) == Keywords::from_items([other]);
    line(offered, keyword).is_some_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offer as _;

    const POSTFIX: &[&str] = &[
        "PIPELINING",
        "SIZE 10240000",
        "VRFY",
        "ETRN",
        "AUTH PLAIN LOGIN",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "DSN",
        "SMTPUTF8",
        "CHUNKING",
        "XCLIENT NAME ADDR",
    ];
    const STALWART: &[&str] = &[
        "SMTPUTF8",
        "SIZE 104857600",
        "REQUIRETLS",
        "PIPELINING",
        "NO-SOLICITING",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        "BINARYMIME",
        "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER",
        "8BITMIME",
    ];

    fn offer(lists: &[&[&str]]) -> Vec<String> {
        let read = |list: &&[&str]| Keywords::from_items(list.iter().copied());
        before_login(
            &lists.iter().map(read).collect::<Vec<_>>(),
            Tokens::Readable,
        )
        .items()
    }

    #[test]
    fn nothing_is_offered_that_one_destination_cannot_do() {
        assert_eq!(
            offer(&[POSTFIX, STALWART]),
            [
                "SIZE 10240000",
                "PIPELINING",
                "8BITMIME",
                "SMTPUTF8",
                "ENHANCEDSTATUSCODES",
                "CHUNKING",
                "AUTH PLAIN LOGIN",
            ]
        );
        assert_eq!(offer(&[POSTFIX, STALWART]), offer(&[STALWART, POSTFIX]));
        let alone = offer(&[STALWART]);
        for line in [
            "REQUIRETLS",
            "BINARYMIME",
            "AUTH PLAIN LOGIN OAUTHBEARER XOAUTH2",
        ] {
            assert!(alone.iter().any(|it| it == line), "{line}");
        }
    }

    #[test]
    fn what_only_a_proxy_may_say_is_never_offered() {
        let list = offer(&[&[
            "XCLIENT ADDR",
            "XFORWARD ADDR",
            "BURL imap",
            "STARTTLS",
            "ETRN",
        ]]);
        assert_eq!(list, [""; 0]);
    }

    #[test]
    fn the_size_is_the_smallest_and_always_a_number() {
        let size = |lists: &[&[&str]]| offer(lists).into_iter().find(|it| it.starts_with("SIZE"));
        let said = |lists: &[&[&str]], line: &str| assert_eq!(size(lists).as_deref(), Some(line));
        said(&[&["SIZE 300"], &["SIZE 200"]], "SIZE 200");
        said(&[&["SIZE"], &["SIZE 200"]], "SIZE 200");
        said(&[&["SIZE 0"], &["SIZE 200"]], "SIZE 200");
        said(&[&["SIZE"], &["SIZE 0"]], "SIZE 0");
        assert_eq!(size(&[&["SIZE 200"], &["DSN"]]), None);
        assert_eq!(size(&[&["SIZE +5"]]), None);
    }

    #[test]
    fn an_extension_is_offered_where_all_mean_the_same_by_it() {
        assert_eq!(offer(&[&["DELIVERBY 240"], &["DELIVERBY 60"]]), [""; 0]);
        assert_eq!(
            offer(&[&["DELIVERBY 240"], &["deliverby 240"]]),
            ["DELIVERBY 240"]
        );
    }

    #[test]
    fn a_mechanism_that_one_backend_cannot_be_given_is_not_offered() {
        assert_eq!(offer(&[&["AUTH LOGIN"], POSTFIX]), ["AUTH LOGIN"]);
        assert_eq!(offer(&[&["AUTH CRAM-MD5 GSSAPI"], POSTFIX]), [""; 0]);
    }

    #[test]
    fn without_any_destination_known_the_offer_is_our_own_minimum() {
        assert_eq!(offer(&[]), ["AUTH PLAIN LOGIN"]);
    }

    #[test]
    fn in_clear_there_is_no_way_to_log_in() {
        let offer = before_login(
            &[Keywords::from_items(POSTFIX.iter().copied())],
            Tokens::Readable,
        );
        let lines = offer.lines_in_clear();
        assert!(lines.contains(&"STARTTLS".to_owned()));
        assert!(!lines.iter().any(|line| line.starts_with("AUTH")));
    }
}
