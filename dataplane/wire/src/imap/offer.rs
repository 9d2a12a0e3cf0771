//! What may be offered before login and said after it.

use super::capability::{Capabilities, Offer};
use crate::BackendViolation;
use crate::sasl::{self, Mechanism};
use crate::secret::BearerFrame;
use crate::settings::Tokens;

/// The two revisions of the protocol (RFC 3501, RFC 9051).
const REVISION_1: &str = "IMAP4rev1";
const REVISION_2: &str = "IMAP4rev2";

/// The mechanisms that we take.
pub(super) const MECHANISMS: [Mechanism; 4] = [
    Mechanism::Plain,
    Mechanism::Login,
    Mechanism::Bearer(BearerFrame::OauthBearer),
    Mechanism::Bearer(BearerFrame::Xoauth2),
];

/// How mechanisms are offered (RFC 9051 §6.1.1).
pub(super) const PLAIN: &str = "AUTH=PLAIN";
pub(super) const LOGIN: &str = "AUTH=LOGIN";

/// The word by which a server offers a mechanism.
pub(super) fn word(mechanism: Mechanism) -> String {
    format!("AUTH={}", mechanism.name())
}

/// Whether sessions can be relayed to a server that offers this, and that clients are announced to by
/// ID if `announced`.
pub(super) fn fit(offered: &Capabilities, announced: bool) -> Result<(), BackendViolation> {
    let takes_tokens = MECHANISMS.iter().any(|it| can_replay(*it, offered));
    if !can_replay_login(offered) && !takes_tokens {
        return Err(BackendViolation::NoMechanism);
    }
    if announced && !offered.has("ID") {
        return Err(BackendViolation::AnnounceMissing);
    }
    Ok(())
}

/// The list that a client sees before login, on a leg that may carry secrets.
///
/// It is what *every* destination can do: a client may keep it for the whole session, and which
/// server it gets is not known yet. `IMAP4rev2` above all changes what replies look like, so that one
/// server without it takes it away from all.
pub(super) fn before_login(destinations: &[Capabilities], tokens: Tokens) -> Offer {
    let all = |word: &str| destinations.iter().all(|list| list.has(word));
    let mut offer = Capabilities::default();
    let known = !destinations.is_empty();
    let only_revision_2 = known && all(REVISION_2) && !all(REVISION_1);
    if !only_revision_2 {
        offer.add(REVISION_1);
    }
    if known && all(REVISION_2) {
        offer.add(REVISION_2);
    }
    // Ours: a backend without it gets the response when it asks for it (RFC 4959 §3).
    offer.add("SASL-IR");
    offer.add(literals(destinations));
    // Answered here, but a client that has seen it may send it again after login.
    if all("ID") {
        offer.add("ID");
    }
    for word in destinations
        .first()
        .into_iter()
        .flat_map(Capabilities::iter)
    {
        if !is_decided_here(word) && all(word) {
            offer.add(word);
        }
    }
    for mechanism in sasl::offered(&MECHANISMS, destinations, tokens, can_replay) {
        offer.add(&word(mechanism));
    }
    if !destinations.iter().all(can_replay_login) {
        offer.add("LOGINDISABLED");
    }
    Offer::new(offer)
}

/// The list that a client sees before login on a leg in clear: no way to log in but STARTTLS
/// (RFC 9051 §6.2.1, §6.2.3).
pub(super) fn in_clear(offer: &Offer) -> Capabilities {
    let mut list = offer
        .capabilities()
        .filtered(|word| !is_mechanism(word) && !word.eq_ignore_ascii_case("LOGINDISABLED"));
    list.add("STARTTLS");
    list.add("LOGINDISABLED");
    list
}

/// What the client is told that its server offers, once it is logged in: all of it, without what
/// would lead away from this connection or give it to a second account.
///
/// Only for the list that comes with the login. Those that the client asks for later are the server's own
/// words; what must not be used all the same is refused by the follower (decision 0012).
pub(super) fn after_login(backend: &Capabilities) -> Capabilities {
    const MASKED: [&str; 5] = [
        // A second login would stay on the first account's server (RFC 8437).
        "UNAUTHENTICATE",
        // They send clients round the proxy (RFC 2221, RFC 2193).
        "LOGIN-REFERRALS",
        "MAILBOX-REFERRALS",
        // About the backend's leg, not the client's.
        "STARTTLS",
        "LOGINDISABLED",
    ];
    // Behind compression nobody sees a second login (RFC 4978).
    let allows_relogin = backend.has("UNAUTHENTICATE");
    let hides_relogin = |word: &str| allows_relogin && is_compression(word);
    // Ways to log in, too, are for a second account or for nobody.
    backend
        .filtered(|word| !is_one_of(word, &MASKED) && !is_mechanism(word) && !hides_relogin(word))
}

/// Whether a backend that offers `list` can be logged in with what `mechanism` yields.
fn can_replay(mechanism: Mechanism, list: &Capabilities) -> bool {
    match mechanism {
        // Only PLAIN itself can say whom to act as.
        Mechanism::Plain => list.has(PLAIN),
        Mechanism::Login => can_replay_login(list),
        Mechanism::Bearer(_) => list.has(&word(mechanism)),
    }
}

/// Whether a backend that offers `list` can be logged in with a name and a password.
fn can_replay_login(list: &Capabilities) -> bool {
    list.has(PLAIN) || list.has(LOGIN) || !list.has("LOGINDISABLED")
}

/// LITERAL+ where every backend takes non-synchronising literals of any length, LITERAL- where one
/// limits them (RFC 7888 §5). Without either anywhere, LITERAL- would promise too much.
fn literals(destinations: &[Capabilities]) -> &'static str {
    let all = |fit: fn(&Capabilities) -> bool| destinations.iter().all(fit);
    if destinations.is_empty() {
        "LITERAL-"
    } else if all(|list| list.has("LITERAL+")) {
        "LITERAL+"
    } else if all(|list| list.has("LITERAL+") || list.has("LITERAL-")) {
        "LITERAL-"
    } else {
        ""
    }
}

/// Words that are not simply passed through when every destination has them.
fn is_decided_here(word: &str) -> bool {
    const DECIDED: [&str; 11] = [
        REVISION_1,
        REVISION_2,
        "SASL-IR",
        "LITERAL+",
        "LITERAL-",
        "ID",
        "STARTTLS",
        "LOGINDISABLED",
        "LOGIN-REFERRALS",
        "MAILBOX-REFERRALS",
        "UNAUTHENTICATE",
    ];
    // COMPRESS (RFC 4978) is for the account's own server to offer after login: before it, it
    // would be ours to do.
    is_one_of(word, &DECIDED) || is_mechanism(word) || is_compression(word)
}

fn is_compression(word: &str) -> bool {
    has_prefix(word, "COMPRESS=")
}

fn is_mechanism(word: &str) -> bool {
    has_prefix(word, "AUTH=")
}

fn is_one_of(word: &str, words: &[&str]) -> bool {
    words.iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn has_prefix(word: &str, prefix: &str) -> bool {
    let start = word.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOVECOT: &[u8] = b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN";
    const STALWART: &[u8] =
        b"IMAP4rev2 IMAP4rev1 ENABLE SASL-IR LITERAL+ ID UTF8=ACCEPT JMAPACCESS \
        IDLE UNAUTHENTICATE COMPRESS=DEFLATE AUTH=PLAIN AUTH=XOAUTH2";

    fn offer(lists: &[&[u8]]) -> Capabilities {
        let lists: Vec<_> = lists.iter().map(|list| Capabilities::parse(list)).collect();
        before_login(&lists, Tokens::Readable)
            .capabilities()
            .clone()
    }

    #[test]
    fn nothing_is_offered_that_one_destination_cannot_do() {
        let both = offer(&[STALWART, DOVECOT]);
        assert_eq!(
            both.to_string(),
            "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE AUTH=PLAIN AUTH=LOGIN"
        );
        assert_eq!(both, offer(&[DOVECOT, STALWART]));
    }

    #[test]
    fn rev2_utf8_and_jmap_access_are_offered_where_all_have_them() {
        let alone = offer(&[STALWART]);
        for word in ["IMAP4rev2", "UTF8=ACCEPT", "JMAPACCESS"] {
            assert!(alone.has(word), "{word}");
        }
    }

    #[test]
    fn what_the_proxy_cannot_carry_is_never_offered() {
        let list = offer(&[
            b"IMAP4rev1 STARTTLS LOGIN-REFERRALS MAILBOX-REFERRALS UNAUTHENTICATE \
            COMPRESS=DEFLATE AUTH=GSSAPI AUTH=SCRAM-SHA-256-PLUS AUTH=CRAM-MD5 AUTH=PLAIN",
        ]);
        assert_eq!(list.to_string(), "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN");
    }

    #[test]
    fn one_backend_with_literal_minus_limits_all() {
        assert!(offer(&[b"LITERAL+", b"LITERAL-"]).has("LITERAL-"));
        assert!(!offer(&[b"LITERAL+", b"LITERAL-"]).has("LITERAL+"));
        let without = offer(&[b"LITERAL+", b"IDLE"]);
        assert!(!without.has("LITERAL+") && !without.has("LITERAL-"));
    }

    #[test]
    fn a_mechanism_that_one_backend_cannot_be_given_is_not_offered() {
        let list = offer(&[DOVECOT, b"IMAP4rev1"]);
        assert!(!list.has("AUTH=PLAIN"));
        assert!(
            list.has("AUTH=LOGIN"),
            "it can be given by the LOGIN command"
        );
        let list = offer(&[b"IMAP4rev1 LOGINDISABLED AUTH=GSSAPI"]);
        assert!(!list.has("AUTH=LOGIN"));
        assert!(list.has("LOGINDISABLED"));
    }

    #[test]
    fn tokens_are_offered_where_every_destination_takes_them_and_we_can_read_them() {
        assert!(offer(&[STALWART]).has("AUTH=XOAUTH2"));
        assert!(!offer(&[STALWART]).has("AUTH=OAUTHBEARER"));
        assert!(!offer(&[STALWART, DOVECOT]).has("AUTH=XOAUTH2"));
        let unread = before_login(&[Capabilities::parse(STALWART)], Tokens::Unreadable);
        assert!(!unread.capabilities().has("AUTH=XOAUTH2"));
    }

    #[test]
    fn a_server_that_takes_nothing_but_tokens_is_one_to_relay_to() {
        let list = Capabilities::parse(b"IMAP4rev1 LOGINDISABLED AUTH=OAUTHBEARER");
        assert_eq!(fit(&list, false), Ok(()));
        let list = Capabilities::parse(b"IMAP4rev1 LOGINDISABLED AUTH=GSSAPI");
        assert_eq!(fit(&list, false), Err(BackendViolation::NoMechanism));
    }

    #[test]
    fn without_any_destination_known_the_offer_is_our_own_minimum() {
        assert_eq!(
            offer(&[]).to_string(),
            "IMAP4rev1 SASL-IR LITERAL- ID AUTH=PLAIN AUTH=LOGIN"
        );
    }

    #[test]
    fn in_clear_there_is_no_way_to_log_in() {
        let list = in_clear(&before_login(
            &[Capabilities::parse(DOVECOT)],
            Tokens::Readable,
        ));
        assert_eq!(
            list.to_string(),
            "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE STARTTLS LOGINDISABLED"
        );
    }

    #[test]
    fn what_would_break_the_relay_is_masked_after_login() {
        let list = after_login(&Capabilities::parse(
            b"IMAP4rev1 UNAUTHENTICATE LOGIN-REFERRALS mailbox-referrals STARTTLS LOGINDISABLED \
            AUTH=PLAIN auth=OAUTHBEARER IDLE",
        ));
        assert_eq!(list.to_string(), "IMAP4rev1 IDLE");
    }

    #[test]
    fn compression_is_kept_after_login_unless_it_would_hide_a_second_login() {
        let list = after_login(&Capabilities::parse(b"IMAP4rev1 COMPRESS=DEFLATE"));
        assert_eq!(list.to_string(), "IMAP4rev1 COMPRESS=DEFLATE");
        let list = after_login(&Capabilities::parse(
            b"IMAP4rev1 COMPRESS=DEFLATE UNAUTHENTICATE",
        ));
        assert_eq!(list.to_string(), "IMAP4rev1");
    }
}
