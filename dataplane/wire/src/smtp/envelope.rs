//! Who sends a message and who is to get it: the arguments of MAIL and RCPT (RFC 5321 §4.1.1.2, §4.1.1.3).
//!
//! What is written into another command must mean there what it meant here, so an address is taken apart once and
//! goes on without what servers read differently: source routes are dropped, as they may be (§4.1.2), and what the
//! grammar has in quotes alone is refused outside of them (Postfix takes `a(b)@c` for `a@c`). Around an address
//! everything is taken that Dovecot or Postfix take.

use super::quirks;
use crate::facts::HopLimit;

/// The extension of our own by which one data plane tells another how often a message may still be passed on, and its
/// parameter of MAIL. Where they lead to each other, the first recipient would have each open the next without an end, before
/// there is a message whose trace headers could be counted.
pub(crate) const HOPS: &str = "XFERRYPOST";

/// An address without its brackets and its source route: printable, in UTF-8, and its quotes are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// As it came. Empty: the null reverse-path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the postmaster's, who needs no domain (RFC 5321 §4.5.1).
    pub fn is_postmaster(&self) -> bool {
        self.0.eq_ignore_ascii_case("postmaster")
    }

    /// Whether only a server with SMTPUTF8 (RFC 6531) may be given it.
    pub fn is_international(&self) -> bool {
        !self.0.is_ascii()
    }
}

/// A parameter of MAIL or RCPT: printable, without spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// In capitals.
    pub keyword: String,
    /// What stands behind the `=`, if there is one.
    pub value: Option<String>,
}

impl Parameter {
    /// The extension of MAIL that it belongs to; `None` if we know none.
    pub(crate) fn extension_of_mail(&self) -> Option<&'static str> {
        match &*self.keyword {
            "SIZE" => Some("SIZE"),
            "BODY" => Some("8BITMIME"),
            "SMTPUTF8" => Some("SMTPUTF8"),
            "RET" | "ENVID" => Some("DSN"),
            HOPS => Some(HOPS),
            _ => None,
        }
    }

    /// The same of RCPT.
    pub(crate) fn extension_of_recipient(&self) -> Option<&'static str> {
        match &*self.keyword {
            "NOTIFY" | "ORCPT" => Some("DSN"),
            "XRCPTFORWARD" => Some("XRCPTFORWARD"),
            _ => None,
        }
    }

    /// Whether its value is one of the extension's (RFC 1870 §5, RFC 6152 §2, RFC 6531 §3.4, RFC 3461 §4). What a
    /// value of the others means is between the mail system and the server.
    pub(crate) fn is_sound(&self) -> bool {
        let value = self.value.as_deref();
        match &*self.keyword {
            "SIZE" | HOPS => {
                value.is_some_and(|number| number.bytes().all(|octet| octet.is_ascii_digit()))
            }
            "BODY" => value.is_some_and(|body| {
                ["7BIT", "8BITMIME"]
                    .iter()
                    .any(|it| it.eq_ignore_ascii_case(body))
            }),
            "SMTPUTF8" => value.is_none(),
            _ => value.is_some(),
        }
    }
}

/// What a MAIL or a RCPT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Whose address.
    pub address: Address,
    /// In the order in which they came, none of them twice.
    pub parameters: Vec<Parameter>,
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEnvelope {
    /// It is not `FROM:` or `TO:` with an address.
    #[error("the command has no address")]
    Syntax,
    /// The address is none, or more than one.
    #[error("the address is not valid")]
    Address,
    /// A parameter is none, or comes twice.
    #[error("a parameter is not valid")]
    Parameter,
}

impl Envelope {
    /// Reads what stands behind MAIL (`word` is `FROM`) or RCPT (`TO`).
    ///
    /// # Errors
    /// [`BadEnvelope`]
    pub(crate) fn parse(arguments: &[u8], word: &str) -> Result<Self, BadEnvelope> {
        // 8-bit addresses were never allowed, and are UTF-8 where they now are (RFC 6531 §3.3).
        let text = str::from_utf8(arguments).map_err(|_| BadEnvelope::Address)?;
        let start = text.get(..word.len()).ok_or(BadEnvelope::Syntax)?;
        let rest = text[start.len()..].strip_prefix(':');
        let rest = rest.filter(|_| start.eq_ignore_ascii_case(word));
        let rest = trim(rest.ok_or(BadEnvelope::Syntax)?);
        let (path, parameters) = if let Some(rest) = rest.strip_prefix('<') {
            let end = end_of(rest, |c| c == '>').ok_or(BadEnvelope::Address)?;
            (without_route(&rest[..end])?, &rest[end + 1..])
        } else {
            // Without brackets (Postfix).
            let end = end_of(rest, is_space).unwrap_or(rest.len());
            let (path, parameters) = rest.split_at(end);
            let path = Some(path).filter(|path| !path.is_empty());
            (path.ok_or(BadEnvelope::Syntax)?, parameters)
        };
        if !parameters.is_empty() && !parameters.starts_with(is_space) {
            return Err(BadEnvelope::Syntax);
        }
        let is_sound = match word {
            "FROM" => path.is_empty() || is_sender(path),
            _ => path.is_empty() || is_mailbox(path),
        };
        if !is_sound {
            return Err(BadEnvelope::Address);
        }
        Ok(Self {
            address: Address(path.to_owned()),
            parameters: parse_parameters(parameters)?,
        })
    }

    /// Counts us among those that pass the message on. False: it must go no further.
    pub(crate) fn count_hop(&mut self) -> bool {
        let said = self.parameter(HOPS).map(|left| left.parse().unwrap_or(0));
        let left = HopLimit::FIRST.and_by_its_own_word(said);
        self.parameters.retain(|it| it.keyword != HOPS);
        self.parameters.extend(left.map(|left| Parameter {
            keyword: HOPS.to_owned(),
            value: Some(left.get().to_string()),
        }));
        left.is_some()
    }

    /// The value of a parameter; `Some("")` for one without.
    pub fn parameter(&self, keyword: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        let found = all.find(|parameter| parameter.keyword == keyword)?;
        Some(found.value.as_deref().unwrap_or_default())
    }
}

fn is_space(c: char) -> bool {
    u8::try_from(c).is_ok_and(quirks::is_space)
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Where the first of the characters is that does not stand in quotes. `None`: nowhere.
fn end_of(text: &str, is_end: impl Fn(char) -> bool) -> Option<usize> {
    let mut quotes = Quotes::default();
    let mut characters = text.char_indices();
    let found = characters.find(|(_, c)| quotes.pass(*c) && is_end(*c));
    found.map(|(at, _)| at)
}

/// Whether every quote is closed.
fn is_closed(text: &str) -> bool {
    let mut quotes = Quotes::default();
    text.chars().for_each(|c| _ = quotes.pass(c));
    !quotes.open
}

/// Where quotes are, and what a backslash in them makes of the next character.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    /// Takes a character. True if it stands outside and is no quote.
    fn pass(&mut self, c: char) -> bool {
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.open => self.escaped = true,
            '"' => self.open = !self.open,
            _ => return !self.open,
        }
        false
    }
}

/// `@one,@two:local@domain` is `local@domain`.
fn without_route(path: &str) -> Result<&str, BadEnvelope> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let colon = path.find(':').ok_or(BadEnvelope::Address)?;
    let (route, mailbox) = path.split_at(colon);
    let is_one = |hop: &str| hop.strip_prefix('@').is_some_and(is_domain);
    let is_route = route.split(',').all(is_one);
    let mailbox = Some(&mailbox[1..]).filter(|mailbox| is_route && !mailbox.is_empty());
    mailbox.ok_or(BadEnvelope::Address)
}

/// An address that nobody is routed by. Some that the grammar has not are on their way, and Dovecot takes them; what is
/// refused could end the path or begin a parameter in somebody's eyes.
fn is_sender(path: &str) -> bool {
    let breaks = |c: char| c.is_whitespace() || c == '>' || c == '\\';
    is_closed(path) && end_of(path, breaks).is_none() && !path.chars().any(char::is_control)
}

fn is_mailbox(path: &str) -> bool {
    let (local, domain) = match end_of(path, |c| c == '@') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    };
    is_local(local) && domain.is_none_or(is_domain)
}

/// A local part. Of dots there may be any number anywhere: such mailboxes are lived in.
fn is_local(local: &str) -> bool {
    match local.strip_prefix('"') {
        Some(quoted) => is_quoted(quoted) && !quoted.chars().any(char::is_control),
        None => !local.is_empty() && local.chars().all(is_atom),
    }
}

/// Whether a quote that has been opened is closed by the last character and by none before it.
fn is_quoted(rest: &str) -> bool {
    let mut characters = rest.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => return characters.next().is_none(),
            '\\' => _ = characters.next(),
            _ => {}
        }
    }
    false
}

/// What may stand outside of quotes (§4.1.2, RFC 6531 §3.3).
fn is_atom(c: char) -> bool {
    match c {
        '.' => true,
        c if c.is_ascii() => c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c),
        c => !c.is_control() && !c.is_whitespace(),
    }
}

/// A domain, as far as it means nothing else, or an address literal (§4.1.3).
fn is_domain(domain: &str) -> bool {
    let literal = domain.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let is_inside = |c: char| c.is_ascii_graphic() && !"[]\\<>@\"".contains(c);
    let is_name = |c: char| match c {
        '.' | '-' | '_' => true,
        c if c.is_ascii() => c.is_ascii_alphanumeric(),
        c => !c.is_control() && !c.is_whitespace(),
    };
    match literal {
        Some(literal) => !literal.is_empty() && literal.chars().all(is_inside),
        None => !domain.is_empty() && domain.chars().all(is_name),
    }
}

fn parse_parameters(text: &str) -> Result<Vec<Parameter>, BadEnvelope> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let is_keyword = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        let keyword = keyword.to_ascii_uppercase();
        let is_sound = !keyword.is_empty() && keyword.bytes().all(is_keyword);
        let is_value = |value: &str| !value.is_empty() && !value.chars().any(char::is_control);
        let is_known = parameters.iter().any(|known| known.keyword == keyword);
        if !is_sound || is_known || !value.is_none_or(is_value) {
            return Err(BadEnvelope::Parameter);
        }
        let value = value.map(str::to_owned);
        parameters.push(Parameter { keyword, value });
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(arguments: &str) -> Result<Envelope, BadEnvelope> {
        Envelope::parse(arguments.as_bytes(), "TO")
    }

    fn address_of(arguments: &str) -> String {
        match to(arguments) {
            Ok(envelope) => envelope.address.as_str().to_owned(),
            Err(error) => panic!("{arguments}: {error}"),
        }
    }

    #[test]
    fn spaces_case_and_brackets_do_not_matter() {
        for arguments in [
            "TO:<alice@example.org>",
            "to:<alice@example.org>",
            "TO: <alice@example.org>",
            "To:\t <alice@example.org>  ",
            "TO:alice@example.org",
            "TO: alice@example.org ",
        ] {
            assert_eq!(address_of(arguments), "alice@example.org", "{arguments}");
        }
    }

    #[test]
    fn every_legal_address_is_taken_as_it_came() {
        for address in [
            "alice",
            "Alice+Lists@Example.ORG.",
            "o'brien!#$%&*/=?^_`{|}~@example.org",
            "a..b.@example.org",
            "\"two words\"@example.org",
            r#""a\"b>c@d"@example.org"#,
            "\"\"@example.org",
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            "häns@bücher.example",
            "a@under_score.example",
        ] {
            assert_eq!(address_of(&format!("TO:<{address}>")), address);
        }
    }

    #[test]
    fn a_source_route_leads_to_the_same_mailbox() {
        assert_eq!(
            address_of("TO:<@a.example,@b.example:c@d.example>"),
            "c@d.example"
        );
        for broken in [
            "TO:<@a.example>",
            "TO:<@a.example:>",
            "TO:<@a,b:c@d>",
            "TO:<@:c@d>",
        ] {
            assert_eq!(to(broken), Err(BadEnvelope::Address), "{broken}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_no_address() {
        for address in [
            "a(comment)@example.org",
            "a b@example.org",
            "a@b@example.org",
            "a,b@example.org",
            "a;b@example.org",
            "a:b@example.org",
            "a\"b\"@example.org",
            "\"a\"b@example.org",
            "\"a\"\"b\"@example.org",
            "\"a\\\"@example.org",
            "\"open@example.org",
            "a<b@example.org",
            "@example.org",
            "a@",
            "a@b c",
            "a@[1[2]",
            "a@b@c",
            "a\u{7f}b@example.org",
            "\"a\u{0}\"@example.org",
            "a\rb@example.org",
            "\"a\rb\"@example.org",
        ] {
            let envelope = to(&format!("TO:<{address}>"));
            assert!(envelope.is_err(), "{address:?}: {envelope:?}");
        }
        assert_eq!(
            Envelope::parse(b"TO:<\xe4@example.org>", "TO"),
            Err(BadEnvelope::Address)
        );
    }

    #[test]
    fn a_command_without_its_word_has_no_address() {
        for arguments in [
            "",
            "T",
            "TO",
            "TO:",
            "TO <a@b>",
            "FROM:<a@b>",
            "TO :<a@b>",
            "<a@b>",
        ] {
            assert_eq!(to(arguments), Err(BadEnvelope::Syntax), "{arguments}");
        }
        assert_eq!(to("TO:<a@b"), Err(BadEnvelope::Address));
    }

    #[test]
    fn parameters_are_read_without_regard_to_case_and_none_comes_twice() {
        let envelope = to("TO:<a@b> notify=SUCCESS,Delay  ORCPT=rfc822;a+2B@b FLAG ").unwrap();
        assert_eq!(envelope.parameter("NOTIFY"), Some("SUCCESS,Delay"));
        assert_eq!(envelope.parameter("ORCPT"), Some("rfc822;a+2B@b"));
        assert_eq!(envelope.parameter("FLAG"), Some(""));
        assert_eq!(envelope.parameter("SIZE"), None);
        for broken in ["A=1 a=2", "=1", "A=", "Ä=1", "A=\u{1}", "A_B=1"] {
            let envelope = to(&format!("TO:<a@b> {broken}"));
            assert_eq!(envelope, Err(BadEnvelope::Parameter), "{broken}");
        }
        assert_eq!(to("TO:<a@b>A=1"), Err(BadEnvelope::Syntax));
    }

    #[test]
    fn a_message_is_passed_on_so_often_and_nobody_can_make_that_more() {
        let count = |parameters: &str| {
            let from = Envelope::parse(format!("FROM:<a@b>{parameters}").as_bytes(), "FROM");
            let mut from = from.unwrap();
            let goes_on = from.count_hop();
            goes_on.then(|| from.parameter(HOPS).unwrap().to_owned())
        };
        for (said, left) in [
            ("", Some("5")),
            (" XFERRYPOST=5", Some("4")),
            (" SIZE=1 xferrypost=2", Some("1")),
            (" XFERRYPOST=200", Some("5")),
            (" XFERRYPOST=1", None),
            (" XFERRYPOST=0", None),
            (" XFERRYPOST=256", None),
        ] {
            assert_eq!(count(said).as_deref(), left, "{said}");
        }
    }

    #[test]
    fn a_message_may_be_from_nobody() {
        let from = Envelope::parse(b"FROM:<> SIZE=1", "FROM").unwrap();
        assert_eq!(from.address.as_str(), "");
        assert_eq!(from.parameter("SIZE"), Some("1"));
    }

    #[test]
    fn a_sender_need_not_be_an_address_but_it_cannot_be_more_than_one_word() {
        let from = |path: &str| Envelope::parse(format!("FROM:<{path}>").as_bytes(), "FROM");
        for sender in ["a@b@c", "a(x)@b", "a,b;c:d@e", "a<b@c", "\"a > b\"@c", "x"] {
            assert_eq!(from(sender).unwrap().address.as_str(), sender);
        }
        for broken in [
            "a b@c",
            "a\\\"> AUTH=<x> \"@c",
            "a\\b@c",
            "\"a@c",
            "a\u{1}@c",
            "a\tb",
        ] {
            assert_eq!(from(broken), Err(BadEnvelope::Address), "{broken:?}");
        }
        let bare = Envelope::parse(b"FROM:a>b", "FROM");
        assert_eq!(bare, Err(BadEnvelope::Address));
    }

    proptest! {
        /// Else it would be another address in the next server's eyes.
        #[test]
        fn an_address_that_is_taken_is_taken_as_the_same_again(
            address in "[a-b@.\"\\\\<>,: \t\u{e4}]{0,12}",
        ) {
            if let Ok(envelope) = to(&format!("TO:<{address}>")) {
                let again = to(&format!("TO:<{}>", envelope.address.as_str()));
                prop_assert_eq!(again.map(|it| it.address), Ok(envelope.address));
            }
            let from = |path: &str| Envelope::parse(format!("FROM:<{path}>").as_bytes(), "FROM");
            if let Ok(envelope) = from(&address) {
                let again = from(envelope.address.as_str());
                prop_assert_eq!(again.map(|it| it.address), Ok(envelope.address));
            }
        }

        #[test]
        fn no_arguments_panic(arguments in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Envelope::parse(&arguments, "TO");
            let _ = Envelope::parse(&[b"TO:", &*arguments].concat(), "TO");
        }
    }
}
