//! What a client asks for before it is logged in.

use super::quirks;
use crate::code::split_word;

/// A command that means something before the login, with its arguments as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Capa,
    Stls,
    User(&'a [u8]),
    Pass(&'a [u8]),
    Auth(Auth<'a>),
    /// RFC 6856 §2.1.
    Utf8,
    Quit,
    Other,
}

/// What is asked of AUTH (RFC 5034 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth<'a> {
    /// Which mechanisms there are.
    List,
    /// An exchange, and its first response if it comes at once.
    Exchange {
        mechanism: &'a [u8],
        response: Option<&'a [u8]>,
    },
}

/// Reads a line. Its command is what stands before the first space, in any case.
pub(super) fn parse(line: &[u8]) -> Command<'_> {
    let (name, arguments) = split_word(line);
    let is = |command: &[u8]| name.eq_ignore_ascii_case(command);
    if is(b"CAPA") {
        Command::Capa
    } else if is(b"STLS") {
        Command::Stls
    } else if is(b"USER") {
        Command::User(arguments)
    } else if is(b"PASS") {
        Command::Pass(arguments)
    } else if is(b"AUTH") {
        Command::Auth(auth(arguments))
    } else if is(b"UTF8") {
        Command::Utf8
    } else if is(b"QUIT") {
        Command::Quit
    } else {
        Command::Other
    }
}

fn auth(arguments: &[u8]) -> Auth<'_> {
    let (mechanism, response) = split_word(arguments);
    if quirks::asks_for_mechanisms(mechanism) {
        return Auth::List;
    }
    let response = match quirks::trimmed(response) {
        [] => None,
        // A response that is there and empty.
        b"=" => Some(&[][..]),
        response => Some(response),
    };
    Auth::Exchange {
        mechanism,
        response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_first_space_is_taken_as_it_is() {
        assert_eq!(parse(b"user alice"), Command::User(b"alice"));
        assert_eq!(parse(b"PASS  a b "), Command::Pass(b" a b "));
        assert_eq!(parse(b"PASS"), Command::Pass(b""));
        assert_eq!(parse(b"USER\talice"), Command::Other);
        assert_eq!(parse(b" CAPA"), Command::Other);
        assert_eq!(parse(b""), Command::Other);
    }

    #[test]
    fn a_first_response_may_be_missing_or_empty() {
        let exchange = |response| {
            Command::Auth(Auth::Exchange {
                mechanism: b"PLAIN",
                response,
            })
        };
        assert_eq!(parse(b"AUTH PLAIN"), exchange(None));
        assert_eq!(parse(b"AUTH PLAIN "), exchange(None));
        assert_eq!(parse(b"AUTH PLAIN ="), exchange(Some(b"")));
        assert_eq!(parse(b"AUTH PLAIN  AHg= "), exchange(Some(b"AHg=")));
        for list in [&b"AUTH"[..], b"AUTH ", b"auth  PLAIN"] {
            assert_eq!(parse(list), Command::Auth(Auth::List));
        }
    }
}
