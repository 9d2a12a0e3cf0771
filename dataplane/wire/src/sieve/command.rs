//! What a client asks for before it is logged in.

use super::lex::Lexer;
use super::quirks;
use crate::secret::Secret;

/// The commands that mean something before login (RFC 5804 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Capability,
    Noop,
    Logout,
    StartTls,
    Authenticate,
    /// A command for after the login.
    Later,
    Unknown,
}

impl Verb {
    fn from_name(name: &[u8]) -> Self {
        const VERBS: [(&[u8], Verb); 14] = [
            (b"CAPABILITY", Verb::Capability),
            (b"NOOP", Verb::Noop),
            (b"LOGOUT", Verb::Logout),
            (b"STARTTLS", Verb::StartTls),
            (b"AUTHENTICATE", Verb::Authenticate),
            (b"HAVESPACE", Verb::Later),
            (b"PUTSCRIPT", Verb::Later),
            (b"LISTSCRIPTS", Verb::Later),
            (b"SETACTIVE", Verb::Later),
            (b"GETSCRIPT", Verb::Later),
            (b"DELETESCRIPT", Verb::Later),
            (b"RENAMESCRIPT", Verb::Later),
            (b"CHECKSCRIPT", Verb::Later),
            (b"UNAUTHENTICATE", Verb::Later),
        ];
        VERBS
            .iter()
            .find(|(verb, _)| name.eq_ignore_ascii_case(verb))
            .map_or(Self::Unknown, |&(_, verb)| verb)
    }
}

/// A command: its verb and what follows it.
pub(super) struct Command<'a> {
    pub(super) verb: Verb,
    arguments: Lexer<'a>,
}

impl<'a> Command<'a> {
    /// Reads the start of a command; what is none has an unknown verb.
    pub(super) fn new(text: &'a [u8]) -> Self {
        let mut arguments = Lexer::new(text);
        let verb = arguments.atom().map_or(Verb::Unknown, Verb::from_name);
        Self { verb, arguments }
    }

    /// Whether nothing follows the verb.
    pub(super) fn stands_alone(&self) -> bool {
        let mut rest = Lexer::new(self.arguments.rest());
        quirks::stray_spaces(&mut rest);
        rest.at_end()
    }

    /// The only argument of NOOP.
    pub(super) fn echo(mut self) -> Argument {
        match self.next() {
            Argument::Text(_) if !self.stands_alone() => Argument::Odd,
            argument => argument,
        }
    }

    /// The arguments of AUTHENTICATE: the mechanism's name and the initial response, still in base64. What
    /// stands behind that is not looked at: see `quirks`.
    pub(super) fn authenticate(mut self) -> Option<(Secret, Option<Secret>)> {
        let mechanism = match self.next() {
            Argument::Text(name) if !name.is_empty() => name,
            _ => return None,
        };
        match self.next() {
            Argument::Missing => Some((mechanism, None)),
            Argument::Text(response) => Some((mechanism, Some(response))),
            Argument::Odd => None,
        }
    }

    fn next(&mut self) -> Argument {
        quirks::stray_spaces(&mut self.arguments);
        if self.arguments.at_end() {
            return Argument::Missing;
        }
        self.arguments
            .string()
            .map_or(Argument::Odd, Argument::Text)
    }
}

/// An argument that is to be a string.
pub(super) enum Argument {
    Missing,
    Text(Secret),
    /// It is none.
    Odd,
}

/// A response of an exchange, in base64: a string (RFC 5804 §2.1). What stands behind it is not looked at: see
/// `quirks`.
pub(super) fn response(text: &[u8]) -> Option<Secret> {
    let mut lexer = Lexer::new(text);
    quirks::stray_spaces(&mut lexer);
    lexer.string()
}
