//! What is said about a recipient.

use crate::reply::Rejection;
use crate::smtp::reply::Reply;
use crate::text::printable;

/// The most lines of a server's reply that are passed on, and the most octets of one (RFC 5321 §4.5.3.1.5).
const MAX_LINES: usize = 8;
const MAX_LINE: usize = 480;

/// A whole reply to a command or about a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    code: u16,
    lines: Vec<String>,
}

/// Why we answer and not the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The account is being moved.
    Held,
    /// Nobody knows yet where anybody is, or the server cannot be reached.
    Unavailable,
    /// The server was lost before it had the message: nothing was delivered.
    Lost,
    /// The server was lost after it had the message and before it said what became of it. The message may come twice,
    /// as with any server (RFC 1047).
    Unanswered,
    /// The server does not take what this message needs.
    Unsupported,
    /// Its domain is none of ours.
    NotServed,
    /// Its domain has nobody of this name.
    Unlisted,
    /// It lives on another server than the message's first recipient, and there is one reply for all.
    Elsewhere,
    /// The message has passed too many servers.
    Loop,
    /// There is a bare CR or LF in the message.
    BareLineEnd,
    /// This process ends.
    ShuttingDown,
}

impl Answer {
    /// A server's own, made fit to be passed on. `None` if it is neither yes nor no.
    ///
    /// Not with the code that ends a session: it is the server's session that ends, and not ours.
    pub(crate) fn passed_on(reply: &Reply) -> Option<Self> {
        let code = match reply.code {
            421 => 451,
            200..=299 | 400..=599 => reply.code,
            _ => return None,
        };
        // We offer ENHANCEDSTATUSCODES, whatever the server does (RFC 2034 §4).
        let (enhanced, _) = reply.enhanced();
        let missing = match enhanced {
            Some(_) => String::new(),
            None => format!("{}.0.0 ", code / 100),
        };
        let lines = reply.texts().take(MAX_LINES);
        let lines = lines.map(|text| format!("{missing}{}", printable(text, MAX_LINE)));
        let lines = lines.collect();
        Some(Self { code, lines })
    }

    /// What a server holds against a mail system, in its words. Not for good, whatever it said: it has not been asked
    /// about a recipient.
    pub fn turned_away(rejection: &Rejection) -> Self {
        let text = match rejection.text() {
            "" => "The server does not take mail from here for now.",
            text => text,
        };
        Self {
            code: 451,
            lines: vec![format!("4.7.0 {text}")],
        }
    }

    /// The code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether it was accepted.
    pub fn is_yes(&self) -> bool {
        self.code < 300
    }

    /// Appends it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (n, line) in self.lines.iter().enumerate() {
            let mark = if n + 1 == self.lines.len() { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{mark}{line}\r\n", self.code).as_bytes());
        }
    }
}

impl From<Reason> for Answer {
    fn from(reason: Reason) -> Self {
        let (code, text) = match reason {
            Reason::Held => (451, "4.2.1 This mailbox is being moved, try again."),
            Reason::Unavailable => (451, "4.3.0 This mailbox cannot be reached for now."),
            Reason::Lost => (
                451,
                "4.4.2 The server was lost before the message was whole.",
            ),
            Reason::Unanswered => (
                451,
                "4.4.2 The server did not say what became of the message.",
            ),
            Reason::Unsupported => (451, "4.3.3 The server does not take this kind of message."),
            Reason::NotServed => (550, "5.1.2 This domain is not served here."),
            Reason::Unlisted => (550, "5.1.1 There is no such mailbox."),
            Reason::Elsewhere => (
                452,
                "4.5.3 This recipient is on another server, send it the message by itself.",
            ),
            Reason::Loop => (554, "5.4.6 The message has passed too many servers."),
            Reason::BareLineEnd => (554, "5.6.0 There is a bare CR or LF in the message."),
            Reason::ShuttingDown => (451, "4.3.2 The server is shutting down, try again."),
        };
        Self {
            code,
            lines: vec![text.to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::WireBuf;
    use crate::settings::BackLimits;
    use crate::smtp::reply::Replies;

    fn passed_on(said: &str) -> Option<String> {
        let mut input = WireBuf::new(65_536);
        input.extend(said.as_bytes()).unwrap();
        let reply = Replies::new(BackLimits::default()).next(&mut input);
        let answer = Answer::passed_on(&reply.unwrap().unwrap())?;
        let mut out = Vec::new();
        answer.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_servers_own_words_are_passed_on_in_printable_lines() {
        for (said, heard) in [
            ("250 2.0.0 <a@b> Saved\r\n", "250 2.0.0 <a@b> Saved\r\n"),
            (
                "550-5.1.1 no\r\n550 5.1.1 sorry\r\n",
                "550-5.1.1 no\r\n550 5.1.1 sorry\r\n",
            ),
            (
                "452 4.2.2 full \x1b[2J\u{e4}\r\n",
                "452 4.2.2 full ?[2J??\r\n",
            ),
        ] {
            assert_eq!(passed_on(said).as_deref(), Some(heard));
        }
        let many = "250-2.0.0 x\r\n".repeat(20) + "250 2.0.0 x\r\n";
        let heard = passed_on(&many).unwrap();
        assert_eq!(heard.lines().count(), MAX_LINES);
        assert!(heard.ends_with("250 2.0.0 x\r\n"));
        let long = format!("250 2.0.0 {}\r\n", "x".repeat(4000));
        assert!(passed_on(&long).unwrap().len() <= 512);
    }

    #[test]
    fn a_reply_without_an_enhanced_code_is_given_one_that_says_no_more() {
        assert_eq!(passed_on("550 no\r\n").as_deref(), Some("550 5.0.0 no\r\n"));
        assert_eq!(passed_on("250\r\n").as_deref(), Some("250 2.0.0 \r\n"));
    }

    #[test]
    fn the_end_of_a_servers_session_is_not_the_end_of_ours() {
        assert_eq!(
            passed_on("421 4.3.2 bye\r\n").as_deref(),
            Some("451 4.3.2 bye\r\n")
        );
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_no_answer() {
        assert_eq!(passed_on("354 go on\r\n"), None);
    }

    #[test]
    fn nothing_that_time_may_mend_is_called_final() {
        use Reason::{Held, Lost, ShuttingDown, Unanswered, Unavailable, Unsupported};
        for reason in [
            Held,
            Unavailable,
            Lost,
            Unanswered,
            Unsupported,
            ShuttingDown,
        ] {
            assert_eq!(Answer::from(reason).code(), 451, "{reason:?}");
        }
    }
}
