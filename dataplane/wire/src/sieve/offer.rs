//! What may be offered before login.
//!
//! Editors keep it: after a login nothing is said unasked (RFC 5804 §2.1). So it holds what *every* destination
//! can do, inside the values too. One that asks later reads its own server's list, as that server says it
//! (decision 0012).

use super::words;
use crate::BackendViolation;
use crate::keywords::Keywords;
use crate::sasl::{self, Mechanism};
use crate::secret::BearerFrame;
use crate::settings::Tokens;

/// The mechanisms that we take.
pub(super) const MECHANISMS: [Mechanism; 4] = [
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::Bearer(BearerFrame::OauthBearer),
    Mechanism::Bearer(BearerFrame::Xoauth2),
];

/// Capabilities that are ours to say, or for nobody who is not logged in.
const DECIDED: [&str; 8] = [
    "IMPLEMENTATION",
    "SASL",
    "SIEVE",
    "MAXREDIRECTS",
    "STARTTLS",
    // Whose login it is, after one.
    "OWNER",
    // A second login would stay on the first account's server (RFC 5804 §2.14.1).
    "UNAUTHENTICATE",
    // By which only a proxy may speak.
    "XCLIENT",
];

/// What we offer to clients before login, on a leg that may carry secrets. Made only by
/// [`LineProtocol::offer`](crate::LineProtocol::offer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(Keywords);

impl Offer {
    /// What clients see.
    pub fn capabilities(&self) -> &Keywords {
        &self.0
    }

    /// Writes it as a server does, a line for each capability (RFC 5804 §1.7).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for keyword in self.0.iter() {
            let value: Vec<_> = self.0.words(keyword).into_iter().flatten().collect();
            write_line(out, keyword, &value.join(" "));
        }
    }

    /// Writes what is offered on a leg in clear: no way to log in but STARTTLS.
    pub(super) fn write_in_clear(&self, out: &mut Vec<u8>) {
        let mut in_clear = Keywords::default();
        for line in self.0.lines() {
            in_clear.add(if line.starts_with("SASL") {
                "SASL"
            } else {
                &line
            });
        }
        in_clear.add("STARTTLS");
        Self(in_clear).write(out);
    }
}

impl crate::Offer for Offer {
    fn items(&self) -> Vec<String> {
        self.0.lines().collect()
    }
}

fn write_line(out: &mut Vec<u8>, keyword: &str, value: &str) {
    // These have a value always, and an empty one says something.
    let needs_value = matches!(keyword, "SASL" | "SIEVE");
    words::string(out, keyword.as_bytes());
    if needs_value || !value.is_empty() {
        out.push(b' ');
        words::string(out, value.as_bytes());
    }
    words::line(out, "");
}

/// Whether sessions can be relayed to a server that offers this.
pub(super) fn fit(offered: &Keywords) -> Result<(), BackendViolation> {
    let has_way = MECHANISMS.iter().any(|&it| can_replay(it, offered));
    has_way.then_some(()).ok_or(BackendViolation::NoMechanism)
}

/// What a client sees before login, on a leg that may carry secrets.
pub(super) fn before_login(destinations: &[Keywords], tokens: Tokens) -> Offer {
    let mut offer = Keywords::default();
    offer.add("IMPLEMENTATION Ferrypost");
    offer.add("SASL");
    for mechanism in sasl::offered(&MECHANISMS, destinations, tokens, can_replay) {
        offer.add(&format!("SASL {}", mechanism.name()));
    }
    offer.add("SIEVE");
    add_common(&mut offer, "SIEVE", destinations);
    if let Some(least) = least_redirects(destinations) {
        offer.add(&format!("MAXREDIRECTS {least}"));
    }
    for keyword in destinations.first().into_iter().flat_map(Keywords::iter) {
        let is_decided = DECIDED
            .iter()
            .any(|name| keyword.eq_ignore_ascii_case(name));
        let has_value = |list: &Keywords| Some(list.words(keyword)?.next().is_some());
        let everywhere = |value| {
            destinations
                .iter()
                .all(|list| has_value(list) == Some(value))
        };
        if !is_decided && everywhere(true) {
            add_common(&mut offer, keyword, destinations);
        } else if !is_decided && everywhere(false) {
            offer.add(keyword);
        }
    }
    Offer(offer)
}

/// Takes the words that stand behind this keyword everywhere.
fn add_common(offer: &mut Keywords, keyword: &str, destinations: &[Keywords]) {
    let first = destinations.first().and_then(|list| list.words(keyword));
    for word in first.into_iter().flatten() {
        if destinations.iter().all(|list| list.has_word(keyword, word)) {
            offer.add(&format!("{keyword} {word}"));
        }
    }
}

/// How many redirects a script may make everywhere, where all say so.
fn least_redirects(destinations: &[Keywords]) -> Option<u32> {
    let redirects = |list: &Keywords| list.words("MAXREDIRECTS")?.next()?.parse().ok();
    let all: Option<Vec<u32>> = destinations.iter().map(redirects).collect();
    all?.into_iter().min()
}

/// Whether a server that offers `list` has this mechanism.
pub(super) fn offers(list: &Keywords, mechanism: Mechanism) -> bool {
    list.has_word("SASL", mechanism.name())
}

/// Whether a server that offers `list` can be logged in with what `mechanism` yields.
fn can_replay(mechanism: Mechanism, list: &Keywords) -> bool {
    // A name and a password go by either; only PLAIN can say whom to act as.
    offers(list, mechanism) || mechanism == Mechanism::Login && offers(list, Mechanism::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capabilities as _, Offer as _};

    const DOVECOT: &[&str] = &[
        "IMPLEMENTATION Dovecot Pigeonhole",
        "SIEVE fileinto reject vacation imap4flags regex",
        "NOTIFY mailto",
        "SASL PLAIN LOGIN OAUTHBEARER",
        "VERSION 1.0",
        "MAXREDIRECTS 4",
        "XCLIENT",
        "UNAUTHENTICATE",
    ];
    const STALWART: &[&str] = &[
        "IMPLEMENTATION Stalwart ManageSieve",
        "VERSION 1.0",
        "SASL PLAIN OAUTHBEARER XOAUTH2",
        "SIEVE body imap4flags Vacation fileinto",
        "NOTIFY xmpp mailto",
        "MAXREDIRECTS 1",
        "UNAUTHENTICATE",
    ];

    fn offer(lists: &[&[&str]]) -> Vec<String> {
        let lists: Vec<_> = lists
            .iter()
            .map(|list| Keywords::from_items(list.iter().copied()))
            .collect();
        before_login(&lists, Tokens::Readable).items()
    }

    #[test]
    fn nothing_is_offered_that_one_destination_cannot_do() {
        let both = [
            "IMPLEMENTATION Ferrypost",
            "SASL PLAIN LOGIN OAUTHBEARER",
            "SIEVE fileinto vacation imap4flags",
            "MAXREDIRECTS 1",
            "NOTIFY mailto",
            "VERSION 1.0",
        ];
        assert_eq!(offer(&[DOVECOT, STALWART]), both);
    }

    #[test]
    fn what_the_proxy_cannot_carry_is_never_offered() {
        let list = offer(&[&[
            "SASL SCRAM-SHA-256-PLUS GSSAPI PLAIN",
            "STARTTLS",
            "OWNER alice",
            "UNAUTHENTICATE",
            "XCLIENT",
            "RENAME",
        ]]);
        let expected = [
            "IMPLEMENTATION Ferrypost",
            "SASL PLAIN LOGIN",
            "SIEVE",
            "RENAME",
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn a_server_that_does_not_say_it_takes_it_from_all() {
        let other = [
            "SASL LOGIN",
            "RENAME",
            "SIEVE reject",
            "NOTIFY",
            "MAXREDIRECTS x",
        ];
        let list = offer(&[DOVECOT, &other]);
        assert_eq!(
            list,
            ["IMPLEMENTATION Ferrypost", "SASL LOGIN", "SIEVE reject"]
        );
        let list = offer(&[
            &["SASL PLAIN", "VERSION 1.0"],
            &["SASL PLAIN", "VERSION 2.0"],
        ]);
        assert!(!list.iter().any(|item| item.starts_with("VERSION")));
    }

    #[test]
    fn without_any_destination_known_the_offer_is_our_own_minimum() {
        let list = offer(&[]);
        assert_eq!(
            list,
            ["IMPLEMENTATION Ferrypost", "SASL PLAIN LOGIN", "SIEVE"]
        );
    }

    #[test]
    fn in_clear_there_is_no_way_to_log_in() {
        let mut written = Vec::new();
        let dovecot = Keywords::from_items(["SASL PLAIN", "SIEVE fileinto", "VERSION 1.0"]);
        before_login(&[dovecot], Tokens::Readable).write_in_clear(&mut written);
        let expected = "\"IMPLEMENTATION\" \"Ferrypost\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"fileinto\"\r\n\
            \"VERSION\" \"1.0\"\r\n\"STARTTLS\"\r\n";
        assert_eq!(String::from_utf8_lossy(&written), expected);
    }
}
