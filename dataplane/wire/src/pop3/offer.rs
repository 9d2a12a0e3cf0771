//! What may be offered before the login.

use crate::Keywords;
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

const SASL: &str = "SASL";
const USER: &str = "USER";
const UTF8: &str = "UTF8";

/// What we offer to clients before login, on a leg that may carry secrets. Made only by
/// [`LineProtocol::offer`](crate::LineProtocol::offer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(Keywords);

impl Offer {
    /// The list that clients see.
    pub fn capabilities(&self) -> &Keywords {
        &self.0
    }

    /// The list that a client sees on a leg in clear: no way to log in but STLS (RFC 2595 §4).
    pub(super) fn in_clear(&self) -> Keywords {
        let mut list = Keywords::default();
        list.add("STLS");
        for line in self.0.lines() {
            if !is_way_to_log_in(keyword(&line)) {
                list.add(&line);
            }
        }
        list
    }

    pub(super) fn has_mechanism(&self, mechanism: Mechanism) -> bool {
        offers(&self.0, mechanism)
    }

    pub(super) fn has_user(&self) -> bool {
        self.0.has(USER)
    }

    pub(super) fn has_utf8(&self) -> bool {
        self.0.has(UTF8)
    }
}

impl crate::Offer for Offer {
    fn items(&self) -> Vec<String> {
        self.0.lines().collect()
    }
}

/// The list that a client sees before login, on a leg that may carry secrets.
///
/// It is what *every* destination can do: clients may keep it, although it may be another after the login
/// (RFC 2449 §5), and which server they get is not known yet.
pub(super) fn before_login(destinations: &[Keywords], tokens: Tokens) -> Offer {
    let all = |can: &dyn Fn(&Keywords) -> bool| destinations.iter().all(can);
    let mut offer = Keywords::default();
    for line in destinations.first().into_iter().flat_map(Keywords::lines) {
        if !is_decided_here(keyword(&line)) && all(&|list| has_line(list, &line)) {
            offer.add(&line);
        }
    }
    if all(&|list| list.has("RESP-CODES")) {
        offer.add("RESP-CODES");
    }
    // Logins are answered here (RFC 3206 §6).
    offer.add("AUTH-RESP-CODE");
    let known = !destinations.is_empty();
    if known && all(&|list| list.has(UTF8)) {
        // Names and passwords beyond US-ASCII (RFC 6856 §2.2).
        let takes_names = all(&|list| list.has_word(UTF8, USER));
        offer.add(if takes_names { "UTF8 USER" } else { UTF8 });
    }
    if all(&can_replay_password) {
        offer.add(USER);
    }
    let mechanisms = sasl::offered(&MECHANISMS, destinations, tokens, can_replay);
    let names: Vec<_> = mechanisms.into_iter().map(Mechanism::name).collect();
    if !names.is_empty() {
        offer.add(&format!("{SASL} {}", names.join(" ")));
    }
    Offer(offer)
}

/// Whether a server that offers `list` has this mechanism.
pub(super) fn offers(list: &Keywords, mechanism: Mechanism) -> bool {
    list.has_word(SASL, mechanism.name())
}

/// Whether a server that offers `list` takes USER and PASS.
pub(super) fn offers_user(list: &Keywords) -> bool {
    list.has(USER)
}

/// Whether a server that offers `list` can be logged in with a name and a password.
pub(super) fn can_replay_password(list: &Keywords) -> bool {
    offers(list, Mechanism::Plain) || offers(list, Mechanism::Login) || offers_user(list)
}

/// Whether a server that offers `list` can be logged in with anything that we take.
pub(super) fn can_log_in(list: &Keywords) -> bool {
    offers_user(list) || MECHANISMS.iter().any(|it| offers(list, *it))
}

/// Whether a server that offers `list` can be told that the client reads UTF-8 (RFC 6856 §2.1).
pub(super) fn offers_utf8(list: &Keywords) -> bool {
    list.has(UTF8)
}

/// Whether a server that offers `list` calls wrong credentials that (RFC 3206 §4), so that another refusal is
/// about something else.
pub(super) fn tells_wrong_credentials(list: &Keywords) -> bool {
    list.has("AUTH-RESP-CODE")
}

/// Whether a backend that offers `list` can be logged in with what `mechanism` yields.
fn can_replay(mechanism: Mechanism, list: &Keywords) -> bool {
    match mechanism {
        Mechanism::Login => can_replay_password(list),
        // Only PLAIN itself can say whom to act as, and only a token's own frame carries it.
        Mechanism::Plain | Mechanism::Bearer(_) => offers(list, mechanism),
    }
}

/// What is not simply passed through when every destination has it.
fn is_decided_here(keyword: &str) -> bool {
    const DECIDED: [&str; 11] = [
        "RESP-CODES",
        "AUTH-RESP-CODE",
        UTF8,
        // What is offered before the login is ours to do, and this language is our only one (RFC 6856 §3).
        "LANG",
        // An account's own, if they are true of more than one: to be asked for after the login.
        "EXPIRE",
        "LOGIN-DELAY",
        // Another server's name than the one that answers.
        "IMPLEMENTATION",
        // By these words proxies speak, and nobody else.
        "XCLIENT",
        "XOIP",
        "X-ORIGINATING-IP",
        // About the backend's leg, not the client's.
        "STLS",
    ];
    is_way_to_log_in(keyword) || is_one_of(keyword, &DECIDED)
}

fn is_way_to_log_in(keyword: &str) -> bool {
    // APOP rests on the greeting of a server that is not known yet.
    is_one_of(keyword, &[SASL, USER, "APOP"])
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn keyword(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn has_line(list: &Keywords, line: &str) -> bool {
    list.lines().any(|have| have.eq_ignore_ascii_case(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capabilities as _, Offer as _};

    /// 2.3.19, under TLS.
    const DOVECOT: &[&str] = &[
        "CAPA",
        "TOP",
        "UIDL",
        "RESP-CODES",
        "PIPELINING",
        "AUTH-RESP-CODE",
        "USER",
        "SASL PLAIN LOGIN",
    ];
    /// 0.16.19, under TLS.
    const STALWART: &[&str] = &[
        "SASL PLAIN OAUTHBEARER XOAUTH2",
        "USER",
        "TOP",
        "RESP-CODES",
        "PIPELINING",
        "EXPIRE NEVER",
        "UIDL",
        "UTF8",
        "IMPLEMENTATION Stalwart Server",
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
        assert_eq!(
            offer(&[DOVECOT, STALWART]),
            [
                "TOP",
                "UIDL",
                "PIPELINING",
                "RESP-CODES",
                "AUTH-RESP-CODE",
                "USER",
                "SASL PLAIN LOGIN",
            ]
        );
    }

    #[test]
    fn tokens_and_utf8_are_offered_where_all_have_them() {
        let alone = offer(&[STALWART]);
        assert!(alone.contains(&"SASL PLAIN LOGIN OAUTHBEARER XOAUTH2".to_owned()));
        assert!(alone.contains(&"UTF8".to_owned()));
        let names = offer(&[&["UTF8 USER", "USER"], &["USER", "UTF8 user"]]);
        assert!(names.contains(&"UTF8 USER".to_owned()), "{names:?}");
    }

    #[test]
    fn no_token_is_offered_whose_owner_nobody_can_tell() {
        let stalwart = Keywords::from_items(STALWART.iter().copied());
        let offer = before_login(&[stalwart], Tokens::Unreadable).items();
        assert!(offer.contains(&"SASL PLAIN LOGIN".to_owned()), "{offer:?}");
    }

    #[test]
    fn what_the_proxy_cannot_carry_is_never_offered() {
        let list = offer(&[&[
            "STLS",
            "LANG",
            "EXPIRE 30",
            "LOGIN-DELAY 60",
            "IMPLEMENTATION x",
            "XCLIENT",
            "XOIP",
            "APOP",
            "SASL SCRAM-SHA-256-PLUS CRAM-MD5 GSSAPI PLAIN",
        ]]);
        assert_eq!(list, ["AUTH-RESP-CODE", "USER", "SASL PLAIN LOGIN"]);
    }

    #[test]
    fn a_line_with_arguments_is_passed_through_where_all_say_the_same() {
        let both = offer(&[&["X-THING 1", "USER"], &["USER", "x-thing 1"]]);
        assert!(both.contains(&"X-THING 1".to_owned()));
        let other = offer(&[&["X-THING 1", "USER"], &["USER", "X-THING 2"]]);
        assert!(!other.iter().any(|line| line.starts_with("X-THING")));
    }

    #[test]
    fn a_mechanism_that_one_backend_cannot_be_given_is_not_offered() {
        let user_only = offer(&[DOVECOT, &["USER"]]);
        assert!(
            user_only.contains(&"SASL LOGIN".to_owned()),
            "{user_only:?}"
        );
        assert_eq!(offer(&[DOVECOT, &["SASL GSSAPI"]]), ["AUTH-RESP-CODE"]);
    }

    #[test]
    fn without_any_destination_known_the_offer_is_our_own_minimum() {
        assert_eq!(
            offer(&[]),
            ["RESP-CODES", "AUTH-RESP-CODE", "USER", "SASL PLAIN LOGIN"]
        );
    }

    #[test]
    fn in_clear_there_is_no_way_to_log_in() {
        let list = before_login(
            &[Keywords::from_items(DOVECOT.iter().copied())],
            Tokens::Readable,
        )
        .in_clear();
        assert_eq!(
            list.items(),
            [
                "STLS",
                "CAPA",
                "TOP",
                "UIDL",
                "PIPELINING",
                "RESP-CODES",
                "AUTH-RESP-CODE"
            ]
        );
    }
}
