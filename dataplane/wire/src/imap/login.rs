//! Replaying a login to a backend.

use std::collections::VecDeque;

use super::acceptance::Acceptance;
use super::back::Tags;
use super::capability::Capabilities;
use super::lex::{can_be_quoted, write_quoted};
use super::offer;
use super::quirks;
use super::response::{Lines, Response, Status, parse};
use crate::buf::WireBuf;
use crate::code::{Code, split_code};
use crate::reply::{BackendViolation, Rejection, RejectionKind};
use crate::sasl::{self, Mechanism};
use crate::secret::{Credentials, Password, Secret, SecretWriter};
use crate::text::atom;
use crate::{Login, LoginStep};

/// The longest command line that we send, in octets, since servers are asked to take at least this
/// (RFC 2683 §3.2.1.5). What is longer goes in pieces.
const MAX_COMMAND_LINE: usize = 8000;
/// The longest quoted string that we send, in octets: two of them with every octet escaped fit into
/// a line.
const MAX_QUOTED: usize = 1024;
/// The longest literal for LITERAL- (RFC 7888 §5).
const MAX_LITERAL_MINUS: usize = 4096;

/// An IMAP client from the first octet of a secret to the verdict.
pub struct ImapLogin {
    lines: Lines,
    tags: Tags,
    state: State,
    /// Gone when the backend has refused them.
    credentials: Option<Credentials>,
    /// What the login consists of; each piece behind the first waits for the backend's leave.
    pieces: VecDeque<Secret>,
    /// Whether the backend has refused a token by a challenge that says why (RFC 7628 §3.2.2).
    is_challenged: bool,
    /// That challenge, decoded, if it can be.
    challenge: Option<Vec<u8>>,
    /// What the backend has offered since the login began: what it offered before is void.
    capabilities: Option<Capabilities>,
    /// Whole lines for the client.
    untagged: Vec<u8>,
    /// The OK's text.
    text: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing can: there is no way to replay these credentials here.
    Impossible(BackendViolation),
    /// The first piece is to be sent.
    Begin,
    /// The verdict, or leave for the next piece.
    Verdict,
    /// The list that the backend did not volunteer.
    Capabilities,
    /// Nothing: the verdict is out.
    Over,
}

impl ImapLogin {
    /// `offered` is what the backend offers now; `None` when it is not ready for a login.
    pub(super) fn new(
        offered: Option<Capabilities>,
        lines: Lines,
        mut tags: Tags,
        credentials: Credentials,
    ) -> Self {
        let tag = tags.next();
        let (state, pieces) = match offered {
            None => (
                State::Impossible(BackendViolation::NotReady),
                VecDeque::new(),
            ),
            Some(offered) => match compose(&tag, &offered, &credentials) {
                None => (
                    State::Impossible(BackendViolation::NoMechanism),
                    VecDeque::new(),
                ),
                Some(pieces) => (State::Begin, pieces.into()),
            },
        };
        Self {
            lines,
            tags,
            state,
            credentials: Some(credentials),
            pieces,
            is_challenged: false,
            challenge: None,
            capabilities: None,
            untagged: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Takes a line; `None` when it decides nothing.
    fn take(&mut self, line: &[u8]) -> Result<Option<LoginStep<Acceptance>>, BackendViolation> {
        match parse(line, self.tags.current().as_bytes()) {
            Some(Response::Tagged(status, text)) => self.tagged(status, text).map(Some),
            Some(Response::Continue(text)) => self.go_on(text).map(Some),
            Some(Response::Capability(list)) => {
                self.capabilities = Some(Capabilities::parse(list));
                Ok(None)
            }
            Some(Response::Status(_, text)) => {
                self.status(line, split_code(text).0)?;
                Ok(None)
            }
            Some(Response::Data) => {
                self.pass_on(line)?;
                Ok(None)
            }
            Some(Response::Bye) => Err(BackendViolation::Bye),
            Some(Response::Preauth(_)) | None => Err(BackendViolation::Malformed),
        }
    }

    /// The backend waits for more. Behind a token it has said why it refuses it, and wants to hear that this was
    /// read before it says no (RFC 7628 §3.2.3).
    fn go_on(&mut self, text: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if let Some(piece) = self.pieces.pop_front() {
            return Ok(LoginStep::Send(piece));
        }
        match &self.credentials {
            Some(Credentials::Bearer(bearer)) if !self.is_challenged => {
                self.is_challenged = true;
                self.challenge = sasl::decode_challenge(text).filter(|octets| !octets.is_empty());
                let answer = sasl::acknowledgement(bearer.frame());
                let answer = SecretWriter::with_capacity(8).text(answer.as_bytes());
                Ok(LoginStep::Send(answer.text(b"\r\n").finish()))
            }
            _ => Err(BackendViolation::Malformed),
        }
    }

    fn tagged(
        &mut self,
        status: Status,
        text: &[u8],
    ) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if self.state == State::Capabilities {
            return match (status, &self.capabilities) {
                (Status::Ok, Some(_)) => self.accepted(),
                _ => Err(BackendViolation::CapabilitiesMissing),
            };
        }
        match status {
            Status::Ok => self.logged_in(text),
            Status::No => Ok(LoginStep::Rejected(self.refused(text))),
            Status::Bad => Err(BackendViolation::LoginNotUnderstood),
        }
    }

    fn refused(&mut self, text: &[u8]) -> Rejection {
        self.state = State::Over;
        self.pieces.clear();
        let mut rejection = rejection(text);
        if let Some(Credentials::Bearer(_)) = self.credentials {
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

    /// The backend said OK: goes on to ask what it offers, unless it has said so.
    fn logged_in(&mut self, text: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if !self.pieces.is_empty() || self.is_challenged {
            // It agreed before it had heard everything, or to what it had refused.
            return Err(BackendViolation::Malformed);
        }
        let (code, readable) = split_code(text);
        self.text = readable.to_vec();
        match code {
            Some(code) if code.is("CAPABILITY") => {
                self.capabilities = Some(Capabilities::parse(code.arguments));
            }
            Some(code) if code.is("ALERT") => {
                // The client must show it (RFC 9051 §7.1), and the OK's code is for capabilities.
                self.pass_on(&[b"* OK ", text].concat())?;
            }
            _ => {}
        }
        if self.capabilities.is_some() {
            return self.accepted();
        }
        self.state = State::Capabilities;
        let command = SecretWriter::with_capacity(32)
            .text(self.tags.next().as_bytes())
            .text(b" CAPABILITY\r\n");
        Ok(LoginStep::Send(command.finish()))
    }

    fn accepted(&mut self) -> Result<LoginStep<Acceptance>, BackendViolation> {
        self.state = State::Over;
        let capabilities = self
            .capabilities
            .take()
            .ok_or(BackendViolation::CapabilitiesMissing)?;
        let untagged = std::mem::take(&mut self.untagged);
        let text = match self.text.as_slice() {
            [] => b"Logged in.",
            text => text,
        };
        Ok(LoginStep::Accepted(Acceptance::new(
            capabilities,
            untagged,
            text,
        )))
    }

    /// An untagged status: a list is taken, a referral would send the client round us, the rest is
    /// for the client.
    fn status(&mut self, line: &[u8], code: Option<Code<'_>>) -> Result<(), BackendViolation> {
        match code {
            Some(code) if code.is("CAPABILITY") => {
                self.capabilities = Some(Capabilities::parse(code.arguments));
                Ok(())
            }
            Some(code) if code.is("REFERRAL") => Ok(()),
            _ => self.pass_on(line),
        }
    }

    /// Keeps a line for the client, unless it holds what no line may.
    fn pass_on(&mut self, line: &[u8]) -> Result<(), BackendViolation> {
        if line.iter().any(u8::is_ascii_control) {
            return Ok(());
        }
        if self.untagged.len() + line.len() + 2 > self.lines.limits().max_untagged {
            return Err(BackendViolation::ReplyTooLong);
        }
        self.untagged.extend_from_slice(line);
        self.untagged.extend_from_slice(b"\r\n");
        Ok(())
    }
}

impl Login for ImapLogin {
    type Welcome = Acceptance;

    fn step(&mut self, input: &mut WireBuf) -> Result<LoginStep<Acceptance>, BackendViolation> {
        match self.state {
            State::Impossible(violation) => return Err(violation),
            State::Over => return Ok(LoginStep::NeedMore),
            State::Verdict | State::Capabilities => {}
            State::Begin => {
                self.state = State::Verdict;
                let first = self.pieces.pop_front();
                return first
                    .map(LoginStep::Send)
                    .ok_or(BackendViolation::NoMechanism);
            }
        }
        while let Some(line) = self.lines.next(input)? {
            if let Some(step) = self.take(&line)? {
                return Ok(step);
            }
        }
        Ok(LoginStep::NeedMore)
    }

    fn into_credentials(self) -> Option<Credentials> {
        self.credentials
    }
}

/// Composes a login in the best way that the backend offers and the credentials allow: PLAIN, which
/// says everything; the LOGIN command; the LOGIN mechanism. `None` if there is none.
fn compose(tag: &str, offered: &Capabilities, credentials: &Credentials) -> Option<Vec<Secret>> {
    match credentials {
        Credentials::Password(password) => compose_password(tag, offered, password),
        Credentials::Bearer(bearer) => {
            let mechanism = Mechanism::Bearer(bearer.frame());
            let message = sasl::encode_bearer(bearer);
            let is_offered = offered.has(&offer::word(mechanism));
            is_offered.then(|| authenticate(tag, offered, mechanism, &message))
        }
    }
}

fn compose_password(
    tag: &str,
    offered: &Capabilities,
    credentials: &Password,
) -> Option<Vec<Secret>> {
    if offered.has(offer::PLAIN) {
        let message = sasl::encode_plain(credentials);
        return Some(authenticate(tag, offered, Mechanism::Plain, &message));
    }
    if credentials.acts_as_another() {
        return None;
    }
    // UTF-8 names are for AUTHENTICATE only (RFC 6855 §5).
    if !offered.has("LOGINDISABLED") && credentials.authentication().is_ascii() {
        return Some(login_command(tag, offered, credentials));
    }
    offered
        .has(offer::LOGIN)
        .then(|| authenticate_login(tag, credentials))
}

/// A mechanism of one message.
fn authenticate(
    tag: &str,
    offered: &Capabilities,
    mechanism: Mechanism,
    message: &Secret,
) -> Vec<Secret> {
    let head = format!("{tag} AUTHENTICATE {}", mechanism.name());
    let command = SecretWriter::with_capacity(2 * message.len() + 64).text(head.as_bytes());
    let initial = head.len() + 1 + message.len().div_ceil(3) * 4;
    if offered.has("SASL-IR") && initial <= MAX_COMMAND_LINE {
        return vec![command.text(b" ").base64(message).text(b"\r\n").finish()];
    }
    vec![command.text(b"\r\n").finish(), response(message)]
}

fn authenticate_login(tag: &str, credentials: &Password) -> Vec<Secret> {
    let command = SecretWriter::with_capacity(64)
        .text(tag.as_bytes())
        .text(b" AUTHENTICATE LOGIN\r\n");
    let name = SecretWriter::with_capacity(64).text(credentials.authentication().as_bytes());
    vec![
        command.finish(),
        response(&name.finish()),
        response(credentials.password()),
    ]
}

fn response(message: &Secret) -> Secret {
    SecretWriter::with_capacity(2 * message.len() + 4)
        .base64(message)
        .text(b"\r\n")
        .finish()
}

fn login_command(tag: &str, offered: &Capabilities, credentials: &Password) -> Vec<Secret> {
    let mut writer = PieceWriter::new(offered);
    writer.text(tag.as_bytes());
    writer.text(b" LOGIN ");
    writer.string(credentials.authentication().as_bytes());
    writer.text(b" ");
    writer.string(credentials.password().octets());
    writer.finish()
}

/// Writes a command that has to wait for leave before each of its synchronising literals.
struct PieceWriter<'a> {
    offered: &'a Capabilities,
    done: Vec<Secret>,
    current: SecretWriter,
}

impl<'a> PieceWriter<'a> {
    fn new(offered: &'a Capabilities) -> Self {
        Self {
            offered,
            done: Vec::new(),
            current: SecretWriter::with_capacity(128),
        }
    }

    fn text(&mut self, text: &[u8]) {
        for &octet in text {
            self.current.push(octet);
        }
    }

    /// A quoted string if it can be one and the line stays short, else a literal.
    fn string(&mut self, value: &[u8]) {
        if can_be_quoted(value) && value.len() <= MAX_QUOTED {
            write_quoted(value, |octet| self.current.push(octet));
            return;
        }
        let waits = !(self.offered.has("LITERAL+")
            || self.offered.has("LITERAL-") && value.len() <= MAX_LITERAL_MINUS);
        let plus = if waits { "" } else { "+" };
        self.text(format!("{{{}{plus}}}\r\n", value.len()).as_bytes());
        if waits {
            let next = SecretWriter::with_capacity(value.len() + 64);
            let piece = std::mem::replace(&mut self.current, next);
            self.done.push(piece.finish());
        }
        self.text(value);
    }

    fn finish(mut self) -> Vec<Secret> {
        self.text(b"\r\n");
        self.done.push(self.current.finish());
        self.done
    }
}

/// What a refusal means. Only codes that steer what a client does next are passed on (RFC 5530 §3), and
/// only what the server calls a wrong password is one.
fn rejection(text: &[u8]) -> Rejection {
    use RejectionKind::{Policy, Temporary};
    const PASSED_ON: [(&str, RejectionKind); 11] = [
        ("UNAVAILABLE", Temporary),
        ("LIMIT", Temporary),
        ("INUSE", Temporary),
        ("SERVERBUG", Temporary),
        ("CONTACTADMIN", Policy),
        ("EXPIRED", Policy),
        ("PRIVACYREQUIRED", Policy),
        ("AUTHORIZATIONFAILED", Policy),
        ("NOPERM", Policy),
        ("CANNOT", Policy),
        ("ALERT", Policy),
    ];
    let (Some(code), readable) = split_code(text) else {
        return Rejection::unexplained();
    };
    // Its address would send the client round us (RFC 2221), and the password was not judged.
    if code.is("REFERRAL") {
        let text = b"The account cannot be served for now.";
        return Rejection::passed_on(Temporary, "UNAVAILABLE", text)
            .with_server_code("REFERRAL", false);
    }
    if let Some(&(name, kind)) = PASSED_ON.iter().find(|(name, _)| code.is(name)) {
        let about_the_login = matches!(name, "AUTHORIZATIONFAILED" | "EXPIRED");
        return Rejection::passed_on(kind, name, readable).with_server_code(name, about_the_login);
    }
    if let Some(&(said, name)) = quirks::CODE_ALIASES.iter().find(|(said, _)| code.is(said)) {
        return Rejection::passed_on(Temporary, name, readable).with_server_code(said, false);
    }
    if code.is("AUTHENTICATIONFAILED") {
        return Rejection::credentials().with_server_code("AUTHENTICATIONFAILED", true);
    }
    match atom(code.name) {
        Some(unknown) => Rejection::unexplained().with_server_code(&unknown, false),
        None => Rejection::unexplained(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Bearer, BearerFrame};

    fn pieces(offered: &str, name: &str, password: &str) -> Option<Vec<String>> {
        let password = SecretWriter::with_capacity(0).text(password.as_bytes());
        let credentials = Credentials::password(b"", name.as_bytes(), password.finish());
        let offered = Capabilities::parse(offered.as_bytes());
        let pieces = compose("F1", &offered, &credentials.ok().unwrap())?;
        let text = |piece: &Secret| String::from_utf8(piece.expose().to_vec()).unwrap();
        Some(pieces.iter().map(text).collect())
    }

    #[test]
    fn a_token_of_six_kilobytes_does_not_go_into_the_command_line() {
        let token = "t".repeat(6000);
        let sent = pieces("AUTH=PLAIN SASL-IR", "alice", &token).unwrap();
        assert_eq!(sent[0], "F1 AUTHENTICATE PLAIN\r\n");
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[1].len(), (1 + 5 + 1 + 6000usize).div_ceil(3) * 4 + 2);
        let sent = pieces("IMAP4rev1", "alice", &token).unwrap();
        assert_eq!(sent[0], "F1 LOGIN \"alice\" {6000}\r\n");
        assert_eq!(sent[1], format!("{token}\r\n"));
    }

    #[test]
    fn a_bearer_token_of_six_kilobytes_goes_behind_the_command_line() {
        let sent = |offered: &str, length| {
            let token = SecretWriter::with_capacity(0).text("t".repeat(length).as_bytes());
            let bearer = Bearer::new(BearerFrame::OauthBearer, b"alice", token.finish());
            let credentials = Credentials::Bearer(bearer.ok().unwrap());
            compose("F1", &Capabilities::parse(offered.as_bytes()), &credentials)
        };
        let whole = (6000 + "n,a=alice,\x01auth=Bearer \x01\x01".len()).div_ceil(3) * 4;
        for offered in ["AUTH=OAUTHBEARER SASL-IR", "AUTH=OAUTHBEARER"] {
            let pieces = sent(offered, 6000).unwrap();
            assert_eq!(pieces[0].expose(), b"F1 AUTHENTICATE OAUTHBEARER\r\n");
            assert_eq!((pieces.len(), pieces[1].len()), (2, whole + 2));
        }
        assert_eq!(sent("AUTH=OAUTHBEARER SASL-IR", 5000).unwrap().len(), 1);
        assert!(sent("AUTH=XOAUTH2 AUTH=PLAIN SASL-IR", 5000).is_none());
    }

    #[test]
    fn credentials_come_back_unless_the_backend_has_refused_them() {
        let comes_back = |answer: &[u8]| {
            let password = SecretWriter::with_capacity(0).text(b"x").finish();
            let credentials = Credentials::password(b"", b"alice", password).ok().unwrap();
            let offered = Some(Capabilities::parse(b"AUTH=PLAIN SASL-IR"));
            let lines = Lines::new(crate::BackLimits::default());
            let mut login = ImapLogin::new(offered, lines, Tags::new(), credentials);
            let mut input = WireBuf::new(1024);
            input.extend(answer).unwrap();
            while let Ok(LoginStep::Send(_)) = login.step(&mut input) {}
            login.into_credentials().is_some()
        };
        for answer in [
            &b""[..],
            b"* BYE gone\r\n",
            b"F1 BAD what\r\n",
            b"F1 NO [UNAVAILABLE] later\r\n",
            b"F1 OK [CAPABILITY IMAP4rev1] in\r\n",
        ] {
            assert!(comes_back(answer), "{}", answer.escape_ascii());
        }
        for answer in [
            &b"F1 NO [AUTHENTICATIONFAILED] wrong\r\n"[..],
            b"F1 NO wrong\r\n",
            b"F1 NO [CONTACTADMIN] locked\r\n",
        ] {
            assert!(!comes_back(answer), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn literal_minus_is_kept_to() {
        let sent = |offered, length| pieces(offered, "alice", &"t".repeat(length)).unwrap();
        assert_eq!(sent("LITERAL-", 4096).len(), 1);
        assert_eq!(sent("LITERAL-", 4097).len(), 2);
        assert_eq!(sent("LITERAL+", 4097).len(), 1);
    }

    #[test]
    fn a_name_beyond_ascii_goes_by_authenticate_or_not_at_all() {
        assert_eq!(pieces("IMAP4rev1", "\u{e4}", "x"), None);
        let sent = pieces("AUTH=LOGIN", "\u{e4}", "x").unwrap();
        assert_eq!(sent[0], "F1 AUTHENTICATE LOGIN\r\n");
        assert_eq!(sent[1], "w6Q=\r\n");
        let sent = pieces("AUTH=PLAIN SASL-IR", "\u{e4}", "x").unwrap();
        assert_eq!(sent, ["F1 AUTHENTICATE PLAIN AMOkAHg=\r\n"]);
    }

    #[test]
    fn a_password_with_line_ends_cannot_break_out_of_a_command() {
        let sent = pieces("LITERAL+", "alice", "x\r\nF2 LOGOUT").unwrap();
        assert_eq!(sent, ["F1 LOGIN \"alice\" {12+}\r\nx\r\nF2 LOGOUT\r\n"]);
    }
}
