//! What a client asks for before it is logged in.

use super::lex::{Lexer, Tag};
use crate::facts::{IdField, Introduction};
use crate::secret::Secret;

/// Pairs of one ID command, octets of a field's name and of its value (RFC 2971 §3.3).
const MAX_ID_FIELDS: usize = 30;
const MAX_ID_NAME: usize = 30;
const MAX_ID_VALUE: usize = 1024;

/// The commands that mean something before login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Capability,
    Noop,
    Logout,
    StartTls,
    Id,
    Login,
    Authenticate,
    /// ENABLE belongs to the authenticated state (RFC 5161 §3.1).
    Enable,
    Other,
}

impl Verb {
    fn from_name(name: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 8] = [
            (b"CAPABILITY", Verb::Capability),
            (b"NOOP", Verb::Noop),
            (b"LOGOUT", Verb::Logout),
            (b"STARTTLS", Verb::StartTls),
            (b"ID", Verb::Id),
            (b"LOGIN", Verb::Login),
            (b"AUTHENTICATE", Verb::Authenticate),
            (b"ENABLE", Verb::Enable),
        ];
        VERBS
            .iter()
            .find(|(verb, _)| name.eq_ignore_ascii_case(verb))
            .map_or(Self::Other, |&(_, verb)| verb)
    }

    /// Whether the command is the verb alone.
    pub(super) fn stands_alone(self) -> bool {
        matches!(
            self,
            Self::Capability | Self::Noop | Self::Logout | Self::StartTls
        )
    }
}

/// The start of a command: its tag and, if there is one, its verb.
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) verb: Option<Verb>,
    /// Whether anything follows the verb.
    pub(super) has_arguments: bool,
}

/// Reads the start of a command's first line; `None` when not even its tag can be told.
pub(super) fn head(line: &[u8]) -> Option<Head> {
    let mut lexer = Lexer::new(line);
    let tag = lexer.tag()?;
    let verb = lexer.eat(b' ').and_then(|()| lexer.atom());
    Some(Head {
        tag,
        verb: verb.map(Verb::from_name),
        has_arguments: !lexer.at_end(),
    })
}

/// The arguments of LOGIN: name and password.
pub(super) fn login(command: &[u8]) -> Option<(Secret, Secret)> {
    let mut lexer = arguments(command)?;
    let name = lexer.login_string()?;
    lexer.eat(b' ')?;
    let password = lexer.login_string()?;
    lexer.at_end().then_some((name, password))
}

/// The arguments of AUTHENTICATE: the mechanism's name and the initial response (RFC 4959), still
/// in base64.
pub(super) fn authenticate(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut lexer = arguments(line)?;
    let mechanism = lexer.atom()?;
    if lexer.at_end() {
        return Some((mechanism, None));
    }
    lexer.eat(b' ')?;
    let response = match lexer.word()? {
        // "=" stands for a response that is there and empty (RFC 4959 §3).
        b"=" => &[][..],
        response => response,
    };
    lexer.at_end().then_some((mechanism, Some(response)))
}

/// The arguments of ID. Fields with a name or value that is not printable US-ASCII are left out.
pub(super) fn id(command: &[u8]) -> Option<Introduction> {
    let mut lexer = arguments(command)?;
    let mut introduction = Introduction::default();
    if lexer.eat(b'(').is_none() {
        return (nil(&mut lexer) && lexer.at_end()).then_some(introduction);
    }
    let mut count = 0;
    while lexer.eat(b')').is_none() {
        if count > 0 {
            lexer.eat(b' ')?;
        }
        count += 1;
        if count > MAX_ID_FIELDS {
            return None;
        }
        let (name, value) = id_pair(&mut lexer)?;
        introduction.fields.extend(id_field(&name, value.as_ref()));
    }
    lexer.at_end().then_some(introduction)
}

/// One pair, within its limits.
fn id_pair(lexer: &mut Lexer<'_>) -> Option<(Secret, Option<Secret>)> {
    let name = lexer.string()?;
    lexer.eat(b' ')?;
    let value = lexer.string();
    if value.is_none() && !nil(lexer) {
        return None;
    }
    let length = value.as_ref().map_or(0, Secret::len);
    (name.len() <= MAX_ID_NAME && length <= MAX_ID_VALUE).then_some((name, value))
}

/// A pair that is fit to be passed on.
fn id_field(name: &Secret, value: Option<&Secret>) -> Option<IdField> {
    Some(IdField {
        name: printable(name)?,
        value: match value {
            Some(value) => Some(printable(value)?),
            None => None,
        },
    })
}

fn nil(lexer: &mut Lexer<'_>) -> bool {
    lexer
        .atom()
        .is_some_and(|atom| atom.eq_ignore_ascii_case(b"NIL"))
}

fn printable(text: &Secret) -> Option<String> {
    let text = str::from_utf8(text.octets()).ok()?;
    let fit = text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    fit.then(|| text.to_owned())
}

/// What follows tag and verb.
fn arguments(command: &[u8]) -> Option<Lexer<'_>> {
    let mut lexer = Lexer::new(command);
    lexer.tag()?;
    lexer.eat(b' ')?;
    lexer.atom()?;
    lexer.eat(b' ')?;
    Some(lexer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_takes_two_strings_in_any_spelling_and_nothing_more() {
        for command in [
            &b"a LOGIN alice secret"[..],
            b"a login \"alice\" \"secret\"",
            b"a LOGIN {5}\r\nalice {6}\r\nsecret",
            b"a LOGIN {5+}\r\nalice secret",
        ] {
            let (name, password) = login(command).unwrap();
            assert_eq!(name.expose(), b"alice");
            assert_eq!(password.expose(), b"secret");
        }
        for command in [
            &b"a LOGIN alice"[..],
            b"a LOGIN alice ",
            b"a LOGIN  alice secret",
            b"a LOGIN alice secret more",
            b"a LOGIN",
        ] {
            assert!(login(command).is_none(), "{}", command.escape_ascii());
        }
    }

    #[test]
    fn a_master_login_can_be_typed_without_quotes() {
        let (name, _) = login(b"a LOGIN alice%admin secret").unwrap();
        assert_eq!(name.expose(), b"alice%admin");
        let (name, _) = login(b"a LOGIN alice*admin secret").unwrap();
        assert_eq!(name.expose(), b"alice*admin");
    }

    #[test]
    fn an_empty_initial_response_is_not_a_missing_one() {
        let (_, response) = authenticate(b"a AUTHENTICATE PLAIN =").unwrap();
        assert_eq!(response, Some(&b""[..]));
        let (_, response) = authenticate(b"a AUTHENTICATE PLAIN").unwrap();
        assert_eq!(response, None);
        assert!(authenticate(b"a AUTHENTICATE PLAIN ").is_none());
        assert!(authenticate(b"a AUTHENTICATE PLAIN x y").is_none());
    }

    #[test]
    fn id_takes_nil_or_a_list_within_its_limits() {
        assert_eq!(id(b"a ID NIL"), Some(Introduction::default()));
        assert_eq!(id(b"a ID ()"), Some(Introduction::default()));
        let read = id(b"a ID (\"name\" \"Mutt\" \"os\" NIL \"x\" {2}\r\nyz)").unwrap();
        assert_eq!(read.fields.len(), 3);
        assert_eq!(read.fields[1].value, None);
        assert_eq!(read.fields[2].value.as_deref(), Some("yz"));
        let many = |count| format!("a ID ({})", ["\"k\" \"v\""].repeat(count).join(" "));
        assert!(id(many(30).as_bytes()).is_some());
        assert!(id(many(31).as_bytes()).is_none());
        let long = |length| format!("a ID (\"k\" \"{}\")", "v".repeat(length));
        assert!(id(long(1024).as_bytes()).is_some());
        assert!(id(long(1025).as_bytes()).is_none());
    }

    #[test]
    fn an_id_value_with_line_ends_is_dropped() {
        let read = id(b"a ID (\"a\" {4}\r\nx\r\ny \"b\" \"c\")").unwrap();
        assert_eq!(read.fields.len(), 1);
        assert_eq!(read.fields[0].name, "b");
    }
}
