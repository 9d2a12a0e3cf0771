//! What a client asks for before it is logged in.

use super::lex::{Lexer, Tag};
use super::quirks;
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

    /// Whether `rest`, which follows the verb, is no reason not to obey a command that is the verb alone;
    /// `false` for other commands.
    pub(super) fn stands_alone(self, rest: &[u8]) -> bool {
        match self {
            Self::Capability | Self::Noop | Self::Logout => quirks::ignores_arguments(rest),
            Self::StartTls => rest.iter().all(|&octet| octet == b' '),
            _ => false,
        }
    }
}

/// The start of a command: its tag and, if there is one, its verb.
pub(super) struct Head<'a> {
    pub(super) tag: Tag,
    /// `None` when what follows the tag is no verb.
    pub(super) verb: Option<Verb>,
    /// What follows the verb.
    pub(super) rest: &'a [u8],
}

/// Reads the start of a command's first line; `None` for what is none. A word that stands alone is no tag, and
/// so is never echoed: it may be the end of a login that went wrong.
pub(super) fn head(line: &[u8]) -> Option<Head<'_>> {
    let mut lexer = Lexer::new(line);
    let tag = lexer.tag()?;
    lexer.eat(b' ')?;
    quirks::stray_spaces(&mut lexer);
    if lexer.at_end() {
        return None;
    }
    let verb = lexer.atom().map(Verb::from_name);
    let rest = lexer.rest();
    Some(Head { tag, verb, rest })
}

/// The arguments of LOGIN: name and password.
pub(super) fn login(command: &[u8]) -> Option<(Secret, Secret)> {
    let mut lexer = arguments(command)?;
    let name = lexer.login_string()?;
    quirks::stray_spaces(&mut lexer);
    let password = lexer.login_string()?;
    quirks::stray_spaces(&mut lexer);
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
    quirks::stray_spaces(&mut lexer);
    if lexer.at_end() {
        return Some((mechanism, None));
    }
    let response = match lexer.word()? {
        // "=" stands for a response that is there and empty (RFC 4959 §3).
        b"=" => &[][..],
        response => response,
    };
    quirks::stray_spaces(&mut lexer);
    lexer.at_end().then_some((mechanism, Some(response)))
}

/// The arguments of ID. Fields that are longer than they may be, or beyond the count, or not printable
/// US-ASCII, are left out.
pub(super) fn id(command: &[u8]) -> Option<Introduction> {
    let mut lexer = verb(command)?;
    let mut introduction = Introduction::default();
    if quirks::is_id_without_argument(lexer.rest()) {
        return Some(introduction);
    }
    lexer.eat(b' ')?;
    quirks::stray_spaces(&mut lexer);
    if lexer.eat(b'(').is_none() {
        let is_nil = nil(&mut lexer) && (lexer.at_end() || lexer.eat(b' ').is_some());
        return is_nil.then_some(introduction);
    }
    loop {
        quirks::stray_spaces(&mut lexer);
        if quirks::ends_id_list(&mut lexer) {
            return Some(introduction);
        }
        let name = lexer.string()?;
        quirks::stray_spaces(&mut lexer);
        if quirks::ends_id_list(&mut lexer) {
            return Some(introduction);
        }
        let value = lexer.string();
        if value.is_none() && !nil(&mut lexer) {
            return None;
        }
        if introduction.id.len() < MAX_ID_FIELDS {
            introduction.id.extend(id_field(&name, value.as_ref()));
        }
    }
}

/// A pair that is fit to be passed on.
fn id_field(name: &Secret, value: Option<&Secret>) -> Option<IdField> {
    Some(IdField {
        name: printable(name, MAX_ID_NAME)?,
        value: match value {
            Some(value) => Some(printable(value, MAX_ID_VALUE)?),
            None => None,
        },
    })
}

fn nil(lexer: &mut Lexer<'_>) -> bool {
    lexer
        .atom()
        .is_some_and(|atom| atom.eq_ignore_ascii_case(b"NIL"))
}

fn printable(text: &Secret, longest: usize) -> Option<String> {
    let text = str::from_utf8(text.octets()).ok()?;
    let fit = text.len() <= longest && text.bytes().all(|octet| matches!(octet, b' '..=b'~'));
    fit.then(|| text.to_owned())
}

/// What follows tag and verb.
fn verb(command: &[u8]) -> Option<Lexer<'_>> {
    let mut lexer = Lexer::new(command);
    lexer.tag()?;
    lexer.eat(b' ')?;
    quirks::stray_spaces(&mut lexer);
    lexer.atom()?;
    Some(lexer)
}

/// What follows tag, verb and the space behind it.
fn arguments(command: &[u8]) -> Option<Lexer<'_>> {
    let mut lexer = verb(command)?;
    lexer.eat(b' ')?;
    quirks::stray_spaces(&mut lexer);
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
            b"a LOGIN  alice   secret ",
            b"a LOGIN \"alice\"\"secret\"",
            b"a LOGIN {5+}\r\nalice  \"secret\" ",
        ] {
            let (name, password) = login(command).unwrap();
            assert_eq!(name.expose(), b"alice");
            assert_eq!(password.expose(), b"secret");
        }
        for command in [
            &b"a LOGIN alice"[..],
            b"a LOGIN alice ",
            b"a LOGIN\talice secret",
            b"a LOGIN alice secret more",
            b"a LOGIN alice \"sec\\ret\"",
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
        let (name, _) = login(b"a LOGIN DOMAIN\\alice secret").unwrap();
        assert_eq!(name.expose(), b"DOMAIN\\alice");
    }

    #[test]
    fn an_empty_initial_response_is_not_a_missing_one() {
        let (_, response) = authenticate(b"a AUTHENTICATE PLAIN =").unwrap();
        assert_eq!(response, Some(&b""[..]));
        let (_, response) = authenticate(b"a AUTHENTICATE PLAIN").unwrap();
        assert_eq!(response, None);
        let (_, response) = authenticate(b"a AUTHENTICATE  PLAIN ").unwrap();
        assert_eq!(response, None);
        let (_, response) = authenticate(b"a AUTHENTICATE PLAIN  x ").unwrap();
        assert_eq!(response, Some(&b"x"[..]));
        assert!(authenticate(b"a AUTHENTICATE PLAIN x y").is_none());
        assert!(authenticate(b"a AUTHENTICATE PLAIN(x").is_none());
    }

    #[test]
    fn id_takes_nil_or_a_list_and_keeps_what_is_within_its_limits() {
        assert_eq!(id(b"a ID NIL"), Some(Introduction::default()));
        assert_eq!(id(b"a ID ()"), Some(Introduction::default()));
        let read = id(b"a ID (\"name\" \"Mutt\" \"os\" NIL \"x\" {2}\r\nyz)").unwrap();
        assert_eq!(read.id.len(), 3);
        assert_eq!(read.id[1].value, None);
        assert_eq!(read.id[2].value.as_deref(), Some("yz"));
        let kept = |command: String| id(command.as_bytes()).unwrap().id.len();
        let many = |count| format!("a ID ({})", ["\"k\" \"v\""].repeat(count).join(" "));
        assert_eq!((kept(many(30)), kept(many(31))), (30, 30));
        let value = |length| format!("a ID (\"k\" \"{}\")", "v".repeat(length));
        assert_eq!((kept(value(1024)), kept(value(1025))), (1, 0));
        let name = |length| format!("a ID (\"{}\" \"v\")", "k".repeat(length));
        assert_eq!((kept(name(30)), kept(name(31))), (1, 0));
    }

    #[test]
    fn an_odd_pair_in_id_does_not_cost_the_others() {
        let read = id(b"a ID ( \"a\"  \"b\" \"c\" NIL \"d\" ) x").unwrap();
        let names: Vec<_> = read.id.iter().map(|field| &*field.name).collect();
        assert_eq!(names, ["a", "c"]);
        for command in [&b"a ID"[..], b"a ID ", b"a ID ( )", b"a ID nil x"] {
            assert_eq!(id(command), Some(Introduction::default()));
        }
        for command in [
            &b"a ID foo"[..],
            b"a ID(\"a\" \"b\")",
            b"a ID (a b)",
            b"a ID (\"a\" \"b\"",
            b"a ID (\"a\" (\"b\"))",
            b"a ID NILx",
        ] {
            assert!(id(command).is_none(), "{}", command.escape_ascii());
        }
    }

    #[test]
    fn an_id_value_with_line_ends_is_dropped() {
        let read = id(b"a ID (\"a\" {4}\r\nx\r\ny \"b\" \"c\")").unwrap();
        assert_eq!(read.id.len(), 1);
        assert_eq!(read.id[0].name, "b");
    }
}
