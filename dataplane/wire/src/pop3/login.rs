//! Replaying a login to a backend.

use std::collections::VecDeque;

use super::offer;
use super::reply::{Reply, parse};
use crate::buf::WireBuf;
use crate::code::split_code;
use crate::lines::Lines;
use crate::reply::{BackendViolation, MAX_PASSED_TEXT, Rejection, RejectionKind};
use crate::sasl::{self, Mechanism};
use crate::secret::{Credentials, Password, Secret, SecretWriter};
use crate::text::printable;
use crate::{Keywords, Login, LoginStep};

/// The longest line that a first response may be in, with its end (RFC 2449 §4). A longer one waits to be
/// asked for.
const MAX_COMMAND_LINE: usize = 255;

/// A backend's OK to a login: what the client is to learn from it. Made only by a
/// [`Login`](crate::Login).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    text: String,
}

impl Acceptance {
    /// The OK's text, printable and shortened.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn new(text: &[u8]) -> Self {
        let text = match text {
            [] => b"Logged in.",
            text => text,
        };
        Self {
            text: printable(text, MAX_PASSED_TEXT),
        }
    }
}

/// A POP3 client from the first octet of a secret to the verdict.
pub struct Pop3Login {
    lines: Lines,
    state: State,
    /// Gone when the backend has refused them.
    credentials: Option<Credentials>,
    /// What the login consists of; each line behind the first waits for the backend's leave.
    pieces: VecDeque<Secret>,
    /// How the backend gives it.
    leave: Leave,
    /// Whether the backend is to hear, once it has logged us in, that the client reads UTF-8: it would not
    /// before, as Stalwart, which takes UTF8 after the login (RFC 6856 §2.1 has it the other way round).
    owes_utf8: bool,
    /// Whether the backend calls wrong credentials that.
    tells_wrong_credentials: bool,
    /// Whether the backend has refused a token by a challenge that says why (RFC 7628 §3.2.2).
    is_challenged: bool,
    /// That challenge, decoded, if it can be.
    challenge: Option<Vec<u8>>,
}

/// What comes next.
enum State {
    /// Nothing can: there is no way to replay these credentials here.
    Impossible(BackendViolation),
    /// The first piece is to be sent.
    Begin,
    /// The verdict, or leave for the next piece.
    Verdict,
    /// The answer to UTF8, of whoever is logged in.
    Utf8(Acceptance),
    /// Nothing: the verdict is out.
    Over,
}

/// How a backend asks for the next piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// By `+OK`, as to USER.
    Ok,
    /// By a challenge.
    Challenge,
}

impl Pop3Login {
    /// `offered` is what the backend offers now; `None` when it is not ready for a login.
    pub(super) fn new(
        offered: Option<Keywords>,
        lines: Lines,
        owes_utf8: bool,
        credentials: Credentials,
    ) -> Self {
        let composed = match &offered {
            None => Err(BackendViolation::NotReady),
            Some(offered) => compose(offered, &credentials).ok_or(BackendViolation::NoMechanism),
        };
        let (state, leave, pieces) = match composed {
            Ok((leave, pieces)) => (State::Begin, leave, pieces),
            Err(violation) => (State::Impossible(violation), Leave::Ok, VecDeque::new()),
        };
        Self {
            lines,
            state,
            credentials: Some(credentials),
            pieces,
            leave,
            owes_utf8,
            tells_wrong_credentials: offered.is_some_and(|it| offer::tells_wrong_credentials(&it)),
            is_challenged: false,
            challenge: None,
        }
    }

    /// Takes a line; `None` when it decides nothing.
    fn take(&mut self, line: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        let reply = parse(line).ok_or(BackendViolation::Malformed)?;
        if let State::Utf8(acceptance) = std::mem::replace(&mut self.state, State::Verdict) {
            // Whatever it says: the client is logged in, and has been told yes.
            self.state = State::Over;
            return Ok(LoginStep::Accepted(acceptance));
        }
        match reply {
            Reply::Ok(text) => match (self.pieces.pop_front(), self.leave) {
                (Some(piece), Leave::Ok) => Ok(LoginStep::Send(piece)),
                // It agreed before it had heard everything.
                (Some(_), Leave::Challenge) => Err(BackendViolation::Malformed),
                // To what it had refused.
                (None, _) if self.is_challenged => Err(BackendViolation::Malformed),
                (None, _) => Ok(self.logged_in(Acceptance::new(text))),
            },
            Reply::Challenge(_) if self.leave == Leave::Ok => Err(BackendViolation::Malformed),
            Reply::Challenge(challenge) => match self.pieces.pop_front() {
                Some(piece) => Ok(LoginStep::Send(piece)),
                None => self.acknowledge(challenge),
            },
            Reply::Err(text) => Ok(LoginStep::Rejected(self.refused(text))),
        }
    }

    fn logged_in(&mut self, acceptance: Acceptance) -> LoginStep<Acceptance> {
        if !self.owes_utf8 {
            self.state = State::Over;
            return LoginStep::Accepted(acceptance);
        }
        self.state = State::Utf8(acceptance);
        LoginStep::Send(SecretWriter::with_capacity(8).text(b"UTF8\r\n").finish())
    }

    /// Answers the challenge that says why a token is refused (RFC 7628 §3.2.3). It comes once.
    fn acknowledge(&mut self, challenge: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        let Some(Credentials::Bearer(bearer)) =
            self.credentials.as_ref().filter(|_| !self.is_challenged)
        else {
            return Err(BackendViolation::Malformed);
        };
        let answer = SecretWriter::with_capacity(8)
            .text(sasl::acknowledgement(bearer.frame()).as_bytes())
            .text(b"\r\n");
        self.is_challenged = true;
        self.challenge = sasl::decode_challenge(challenge).filter(|octets| !octets.is_empty());
        Ok(LoginStep::Send(answer.finish()))
    }

    fn refused(&mut self, text: &[u8]) -> Rejection {
        self.state = State::Over;
        self.pieces.clear();
        let mut rejection = rejection(text, self.tells_wrong_credentials);
        if let Some(Credentials::Bearer(_)) = self.credentials
            && rejection.code().is_none()
        {
            // Which server it is has been said by its challenge; our words for passwords would be wrong.
            rejection = rejection.in_words(split_code(text).1);
        }
        if rejection.kind() != RejectionKind::Temporary {
            self.credentials = None;
        }
        match self.challenge.take() {
            Some(challenge) => rejection.with_challenge(challenge),
            None => rejection,
        }
    }
}

impl Login for Pop3Login {
    type Welcome = Acceptance;

    fn step(&mut self, input: &mut WireBuf) -> Result<LoginStep<Acceptance>, BackendViolation> {
        match self.state {
            State::Impossible(violation) => return Err(violation),
            State::Over => return Ok(LoginStep::NeedMore),
            State::Verdict | State::Utf8(_) => {}
            State::Begin => {
                self.state = State::Verdict;
                let first = self.pieces.pop_front();
                return first
                    .map(LoginStep::Send)
                    .ok_or(BackendViolation::NoMechanism);
            }
        }
        match self.lines.next(input)? {
            Some(line) => self.take(&line),
            None => Ok(LoginStep::NeedMore),
        }
    }

    fn into_credentials(self) -> Option<Credentials> {
        self.credentials
    }
}

/// Composes a login in the best way that the backend offers and the credentials allow: a mechanism, since
/// nothing in a password can break out of it and some servers take no spaces in PASS (Stalwart); else USER and
/// PASS. `None` if there is none.
fn compose(offered: &Keywords, credentials: &Credentials) -> Option<(Leave, VecDeque<Secret>)> {
    let offers = |mechanism| offer::offers(offered, mechanism);
    if let Some((mechanism, messages)) = sasl::messages(credentials, offers) {
        return Some((Leave::Challenge, auth(mechanism, messages)));
    }
    match credentials {
        Credentials::Password(login) if offer::offers_user(offered) => {
            user_and_pass(login).map(|pieces| (Leave::Ok, pieces))
        }
        Credentials::Password(_) | Credentials::Bearer(_) => None,
    }
}

/// AUTH, with the one message of a mechanism in its line if it fits (RFC 5034 §4). That of LOGIN which comes first
/// waits: a server that does not know it there asks for the name again, and would take the password for it.
fn auth(mechanism: Mechanism, messages: Vec<Secret>) -> VecDeque<Secret> {
    let command = format!("AUTH {}", mechanism.name());
    let is_only = messages.len() == 1;
    let fits = |message: &Secret| {
        let length = command.len() + 1 + message.len().div_ceil(3) * 4 + 2;
        is_only && !message.is_empty() && length <= MAX_COMMAND_LINE
    };
    let mut pieces = VecDeque::new();
    let mut messages = messages.into_iter().peekable();
    let command = SecretWriter::with_capacity(MAX_COMMAND_LINE).text(command.as_bytes());
    pieces.push_back(match messages.next_if(fits) {
        Some(message) => command.text(b" ").base64(&message).text(b"\r\n").finish(),
        None => command.text(b"\r\n").finish(),
    });
    pieces.extend(messages.map(|message| {
        SecretWriter::with_capacity(2 * message.len() + 4)
            .base64(&message)
            .text(b"\r\n")
            .finish()
    }));
    pieces
}

/// USER and PASS, unless the name or the password could be read as something else.
fn user_and_pass(login: &Password) -> Option<VecDeque<Secret>> {
    let name = login.authentication();
    let ends_line = |octet: &u8| matches!(octet, b'\r' | b'\n');
    let fits = !login.acts_as_another()
        && !name.contains(' ')
        && !login.password().octets().iter().any(ends_line);
    let user = SecretWriter::with_capacity(name.len() + 8)
        .text(b"USER ")
        .text(name.as_bytes())
        .text(b"\r\n");
    let pass = SecretWriter::with_capacity(login.password().len() + 8)
        .text(b"PASS ")
        .secret(login.password())
        .text(b"\r\n");
    fits.then(|| VecDeque::from([user.finish(), pass.finish()]))
}

/// What a refusal means. Only codes that steer what a client does next are passed on (RFC 2449 §8.1, RFC 3206
/// §4). One without a code is a wrong name or password, as ever since RFC 1939, but with a server that has
/// promised to say so by a code: there it is anything but that.
fn rejection(text: &[u8], tells_wrong_credentials: bool) -> Rejection {
    use RejectionKind::{Policy, Temporary};
    const TEMPORARY: &str = "SYS/TEMP";
    const PASSED_ON: [(&str, &str, RejectionKind); 5] = [
        (TEMPORARY, TEMPORARY, Temporary),
        ("SYS/PERM", "SYS/PERM", Policy),
        // The kind of which the other two are.
        ("SYS", TEMPORARY, Temporary),
        ("IN-USE", "IN-USE", Temporary),
        ("LOGIN-DELAY", "LOGIN-DELAY", Temporary),
    ];
    let (Some(code), readable) = split_code(text) else {
        return if tells_wrong_credentials {
            Rejection::unexplained()
        } else {
            Rejection::credentials()
        };
    };
    // Its address would send the client round us, and the password was not judged.
    if code.is("REFERRAL") {
        let text = b"The account cannot be served for now.";
        return Rejection::passed_on(Temporary, TEMPORARY, text)
            .with_server_code("REFERRAL", false);
    }
    if code.is("AUTH") {
        return Rejection::credentials().with_server_code("AUTH", true);
    }
    if let Some(&(said, name, kind)) = PASSED_ON.iter().find(|(said, ..)| code.is(said)) {
        return Rejection::passed_on(kind, name, readable).with_server_code(said, false);
    }
    let unknown = str::from_utf8(code.name).unwrap_or_default();
    Rejection::unexplained().with_server_code(unknown, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;
    use crate::secret::{Bearer, BearerFrame};
    use crate::settings::BackLimits;

    fn secret(octets: &[u8]) -> Secret {
        SecretWriter::with_capacity(0).text(octets).finish()
    }

    fn password(as_whom: &str, name: &str, password: &str) -> Credentials {
        let password = secret(password.as_bytes());
        Credentials::password(as_whom.as_bytes(), name.as_bytes(), password)
            .ok()
            .unwrap()
    }

    fn pieces(offered: &[&str], credentials: &Credentials) -> Option<Vec<String>> {
        let offered = Keywords::from_items(offered.iter().copied());
        let (_, pieces) = compose(&offered, credentials)?;
        let text = |piece: &Secret| String::from_utf8(piece.expose().to_vec()).unwrap();
        Some(pieces.iter().map(text).collect())
    }

    #[test]
    fn a_mechanism_is_used_rather_than_pass() {
        let alice = password("", "alice", "a b");
        for offered in [&["USER", "SASL PLAIN LOGIN"][..], &["SASL plain"]] {
            assert_eq!(
                pieces(offered, &alice).unwrap(),
                ["AUTH PLAIN AGFsaWNlAGEgYg==\r\n"]
            );
        }
        let sent = pieces(&["USER", "SASL LOGIN"], &alice).unwrap();
        assert_eq!(sent, ["AUTH LOGIN\r\n", "YWxpY2U=\r\n", "YSBi\r\n"]);
        let sent = pieces(&["USER"], &alice).unwrap();
        assert_eq!(sent, ["USER alice\r\n", "PASS a b\r\n"]);
        assert_eq!(pieces(&["SASL GSSAPI"], &alice), None);
    }

    #[test]
    fn what_could_be_read_as_something_else_does_not_go_by_user_and_pass() {
        for (name, secret) in [("alice x", "y"), ("alice", "y\r\nDELE 1"), ("alice", "y\n")] {
            assert_eq!(pieces(&["USER"], &password("", name, secret)), None);
        }
    }

    #[test]
    fn whom_to_act_as_goes_by_plain_or_not_at_all() {
        let master = password("alice", "admin", "x");
        assert_eq!(pieces(&["USER", "SASL LOGIN"], &master), None);
        let sent = pieces(&["USER", "SASL PLAIN"], &master).unwrap();
        assert_eq!(sent, ["AUTH PLAIN YWxpY2UAYWRtaW4AeA==\r\n"]);
    }

    #[test]
    fn a_first_response_goes_into_a_line_of_255_octets_and_no_more() {
        let sent = |length| pieces(&["SASL PLAIN"], &password("", "a", &"x".repeat(length)));
        let longest = sent(177).unwrap();
        assert_eq!((longest.len(), longest[0].len()), (1, 253));
        assert_eq!(sent(178).unwrap()[0], "AUTH PLAIN\r\n");
    }

    #[test]
    fn a_token_of_six_kilobytes_waits_to_be_asked_for() {
        let token = secret("t".repeat(6000).as_bytes());
        let bearer = Bearer::new(BearerFrame::Xoauth2, b"alice", token)
            .ok()
            .unwrap();
        let token = Credentials::Bearer(bearer);
        assert_eq!(pieces(&["USER", "SASL PLAIN OAUTHBEARER"], &token), None);
        let sent = pieces(&["SASL XOAUTH2"], &token).unwrap();
        assert_eq!(sent[0], "AUTH XOAUTH2\r\n");
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn a_refusal_without_a_code_is_a_wrong_password_unless_that_would_have_one() {
        let kind = |text: &[u8], tells| rejection(text, tells).kind();
        assert_eq!(
            kind(b"Authentication failed", false),
            RejectionKind::Credentials
        );
        assert_eq!(
            kind(b"Plaintext disallowed", true),
            RejectionKind::Unexplained
        );
        for tells in [true, false] {
            assert_eq!(kind(b"[auth] no", tells), RejectionKind::Credentials);
            assert_eq!(kind(b"[SYS/TEMP] later", tells), RejectionKind::Temporary);
            assert_eq!(kind(b"[SYS/OTHER] x", tells), RejectionKind::Unexplained);
            assert_eq!(kind(b"[IN-USE] open", tells), RejectionKind::Temporary);
            assert_eq!(kind(b"[SYS/PERM] never", tells), RejectionKind::Policy);
        }
    }

    #[test]
    fn credentials_come_back_unless_the_backend_has_refused_them() {
        let comes_back = |answer: &[u8]| {
            let offered = Some(Keywords::from_items(["SASL PLAIN"]));
            let lines = Lines::new(BackLimits::default());
            let mut login = Pop3Login::new(offered, lines, false, password("", "alice", "x"));
            let mut input = WireBuf::new(1024);
            input.extend(answer).unwrap();
            while let Ok(LoginStep::Send(_)) = login.step(&mut input) {}
            login.into_credentials().is_some()
        };
        for answer in [
            &b""[..],
            b"* BYE\r\n",
            b"+ e30=\r\n",
            b"-ERR [SYS/TEMP] later\r\n",
            b"-ERR [IN-USE] locked\r\n",
            b"+OK in\r\n",
        ] {
            assert!(comes_back(answer), "{}", answer.escape_ascii());
        }
        for answer in [
            &b"-ERR [AUTH] no\r\n"[..],
            b"-ERR no\r\n",
            b"-ERR [SYS/PERM] no\r\n",
        ] {
            assert!(!comes_back(answer), "{}", answer.escape_ascii());
        }
    }
}
