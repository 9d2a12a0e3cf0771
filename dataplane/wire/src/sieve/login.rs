//! Replaying a login to a backend.

use std::collections::VecDeque;

use super::acceptance::Acceptance;
use super::lex::{Sender, write_string};
use super::offer;
use super::response::{Reason, Response, Responses, Status, parse};
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::{BackendViolation, Rejection, RejectionKind};
use crate::sasl::{self, Mechanism};
use crate::secret::{Credentials, Secret, SecretWriter};
use crate::text::atom;
use crate::{Login, LoginStep};

/// A ManageSieve client from the first octet of a secret to the verdict.
pub struct SieveLogin {
    responses: Responses,
    state: State,
    /// Gone when the backend has refused them.
    credentials: Option<Credentials>,
    /// What the login consists of; each piece behind the first waits for a challenge.
    pieces: VecDeque<Secret>,
    /// Whether the backend has refused a token by a challenge that says why (RFC 7628 §3.2.2).
    is_challenged: bool,
    /// That challenge, decoded, if it can be.
    challenge: Option<Vec<u8>>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing can: there is no way to replay these credentials here.
    Impossible(BackendViolation),
    /// The first piece is to be sent.
    Begin,
    /// The verdict, or a challenge.
    Verdict,
    /// Nothing: the verdict is out.
    Over,
}

impl SieveLogin {
    /// `offered` is what the backend offers now; `None` when it is not ready for a login.
    pub(super) fn new(
        offered: Option<Keywords>,
        responses: Responses,
        credentials: Credentials,
    ) -> Self {
        let pieces = match offered {
            None => Err(BackendViolation::NotReady),
            Some(offered) => compose(&offered, &credentials).ok_or(BackendViolation::NoMechanism),
        };
        let state = match pieces {
            Ok(_) => State::Begin,
            Err(violation) => State::Impossible(violation),
        };
        Self {
            responses,
            state,
            credentials: Some(credentials),
            pieces: pieces.unwrap_or_default(),
            is_challenged: false,
            challenge: None,
        }
    }

    fn take(&mut self, text: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        match parse(text) {
            Some(Response::Status(Status::Ok, reason)) => self.accepted(&reason),
            Some(Response::Status(Status::No, reason)) => Ok(self.refused(&reason)),
            Some(Response::Status(Status::Bye, _)) => Err(BackendViolation::Bye),
            Some(Response::One(challenge)) => self.challenged(&challenge),
            Some(Response::Two(..)) | None => Err(BackendViolation::Malformed),
        }
    }

    fn accepted(&mut self, reason: &Reason<'_>) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if !self.pieces.is_empty() || self.is_challenged {
            // It agreed before it had heard everything, or to what it had refused.
            return Err(BackendViolation::Malformed);
        }
        self.state = State::Over;
        Ok(LoginStep::Accepted(Acceptance::new(&reason.text)))
    }

    fn refused(&mut self, reason: &Reason<'_>) -> LoginStep<Acceptance> {
        self.state = State::Over;
        self.pieces.clear();
        let mut rejection = rejection(reason);
        if let Some(Credentials::Bearer(_)) = self.credentials
            && rejection.code().is_none()
        {
            // Which server it is has been said by its challenge; our words for passwords would be wrong.
            rejection = rejection.in_words(&reason.text);
        }
        if rejection.kind() != RejectionKind::Temporary {
            self.credentials = None;
        }
        LoginStep::Rejected(match self.challenge.take() {
            Some(challenge) => rejection.with_challenge(challenge),
            None => rejection,
        })
    }

    /// Sends what was asked for. The challenge behind a token says why it is refused, and is to be answered
    /// before the refusal comes (RFC 7628 §3.2.3).
    fn challenged(&mut self, challenge: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if let Some(piece) = self.pieces.pop_front() {
            return Ok(LoginStep::Send(piece));
        }
        match &self.credentials {
            Some(Credentials::Bearer(bearer)) if !self.is_challenged => {
                self.is_challenged = true;
                let challenge = sasl::decode_challenge(challenge);
                self.challenge = challenge.filter(|octets| !octets.is_empty());
                let answer = sasl::acknowledgement(bearer.frame());
                Ok(LoginStep::Send(line(b"", &text(answer))))
            }
            _ => Err(BackendViolation::Malformed),
        }
    }
}

impl Login for SieveLogin {
    type Welcome = Acceptance;

    fn step(&mut self, input: &mut WireBuf) -> Result<LoginStep<Acceptance>, BackendViolation> {
        match self.state {
            State::Impossible(violation) => return Err(violation),
            State::Over => return Ok(LoginStep::NeedMore),
            State::Verdict => {}
            State::Begin => {
                self.state = State::Verdict;
                let first = self.pieces.pop_front();
                return first
                    .map(LoginStep::Send)
                    .ok_or(BackendViolation::NoMechanism);
            }
        }
        match self.responses.next(input)? {
            Some(text) => self.take(text.octets()),
            None => Ok(LoginStep::NeedMore),
        }
    }

    fn into_credentials(self) -> Option<Credentials> {
        self.credentials
    }
}

/// Composes a login in the best way that the backend offers and the credentials allow; `None` if there is none.
fn compose(offered: &Keywords, credentials: &Credentials) -> Option<VecDeque<Secret>> {
    let offers = |mechanism| offer::offers(offered, mechanism);
    let (mechanism, messages) = sasl::messages(credentials, offers)?;
    let command = format!("AUTHENTICATE \"{}\"", mechanism.name());
    let mut pieces = VecDeque::new();
    if mechanism == Mechanism::Login {
        pieces.push_back(text(&format!("{command}\r\n")));
        pieces.extend(messages.iter().map(|message| line(b"", &base64(message))));
    } else {
        // The one message goes with the command (RFC 5804 §2.1).
        let head = format!("{command} ");
        let whole = |message| line(head.as_bytes(), &base64(message));
        pieces.extend(messages.iter().map(whole));
    }
    Some(pieces)
}

/// A line of `head` and a string.
fn line(head: &[u8], value: &Secret) -> Secret {
    let mut line = SecretWriter::with_capacity(head.len() + value.len() + 16).text(head);
    write_string(value.octets(), Sender::Client, |octet| line.push(octet));
    line.text(b"\r\n").finish()
}

fn base64(message: &Secret) -> Secret {
    SecretWriter::with_capacity(message.len() * 2)
        .base64(message)
        .finish()
}

fn text(text: &str) -> Secret {
    SecretWriter::with_capacity(text.len())
        .text(text.as_bytes())
        .finish()
}

/// What a refusal means.
///
/// There is no code for a wrong password (RFC 5804 §1.3): a NO without a code is that, as far as anybody can
/// tell, and its text is not passed on, for it may tell one server or one account from another. Codes that steer
/// what a client does next are.
fn rejection(reason: &Reason<'_>) -> Rejection {
    use RejectionKind::{Policy, Temporary};
    /// Code, kind, whether it is about the login.
    const PASSED_ON: [(&str, RejectionKind, bool); 3] = [
        ("TRYLATER", Temporary, false),
        ("AUTH-TOO-WEAK", Policy, false),
        ("TRANSITION-NEEDED", Policy, true),
    ];
    /// About the way to the server, which is ours, or about the way round us.
    const OURS: [&str; 2] = ["ENCRYPT-NEEDED", "REFERRAL"];
    let Some(code) = reason.code else {
        return Rejection::credentials();
    };
    let is = |name: &&str| code.eq_ignore_ascii_case(name.as_bytes());
    if let Some(&(name, kind, fault)) = PASSED_ON.iter().find(|(name, ..)| is(name)) {
        return Rejection::passed_on(kind, name, &reason.text).with_server_code(name, fault);
    }
    if let Some(name) = OURS.into_iter().find(is) {
        let text = b"The account cannot be served for now.";
        return Rejection::passed_on(Temporary, "TRYLATER", text).with_server_code(name, false);
    }
    match atom(code) {
        Some(unknown) => Rejection::unexplained().with_server_code(&unknown, false),
        None => Rejection::unexplained(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;
    use crate::secret::{Bearer, BearerFrame};
    use crate::settings::BackLimits;

    fn password(name: &str, password: &str) -> Credentials {
        Credentials::password(b"", name.as_bytes(), text(password))
            .ok()
            .unwrap()
    }

    fn sent(offered: &str, credentials: &Credentials) -> Option<Vec<String>> {
        let pieces = compose(&Keywords::from_items([offered]), credentials)?;
        let text = |piece: &Secret| String::from_utf8(piece.expose().to_vec()).unwrap();
        Some(pieces.iter().map(text).collect())
    }

    #[test]
    fn a_token_of_six_kilobytes_goes_in_a_literal() {
        let token = text(&"t".repeat(6000));
        let bearer = Bearer::new(BearerFrame::OauthBearer, b"", token)
            .ok()
            .unwrap();
        let bearer = Credentials::Bearer(bearer);
        let sent_whole = sent("SASL OAUTHBEARER", &bearer).unwrap();
        let length = (6000 + "n,,\x01auth=Bearer \x01\x01".len()).div_ceil(3) * 4;
        let head = format!("AUTHENTICATE \"OAUTHBEARER\" {{{length}+}}\r\n");
        assert!(sent_whole[0].starts_with(&head));
        assert_eq!(sent_whole[0].len(), head.len() + length + 2);
        assert_eq!(sent_whole.len(), 1);
        assert_eq!(sent("SASL XOAUTH2 PLAIN", &bearer), None);
    }

    #[test]
    fn nothing_in_a_name_or_a_password_can_break_out_of_a_command() {
        let odd = password("\u{e4}", "x\"\r\nLOGOUT");
        assert_eq!(
            sent("SASL PLAIN", &odd).unwrap(),
            ["AUTHENTICATE \"PLAIN\" \"AMOkAHgiDQpMT0dPVVQ=\"\r\n"]
        );
        assert_eq!(
            sent("SASL LOGIN", &odd).unwrap(),
            [
                "AUTHENTICATE \"LOGIN\"\r\n",
                "\"w6Q=\"\r\n",
                "\"eCINCkxPR09VVA==\"\r\n"
            ]
        );
    }

    #[test]
    fn credentials_come_back_unless_the_backend_has_refused_them() {
        let comes_back = |answer: &[u8]| {
            let offered = Some(Keywords::from_items(["SASL PLAIN"]));
            let responses = Responses::new(BackLimits::default());
            let mut login = SieveLogin::new(offered, responses, password("alice", "x"));
            let mut input = WireBuf::new(1024);
            input.extend(answer).unwrap();
            while let Ok(LoginStep::Send(_)) = login.step(&mut input) {}
            login.into_credentials().is_some()
        };
        for answer in [
            &b""[..],
            b"BYE\r\n",
            b"what\r\n",
            b"NO (TRYLATER) \"later\"\r\n",
            b"NO (REFERRAL \"sieve://x/\")\r\n",
            b"OK\r\n",
        ] {
            assert!(comes_back(answer), "{}", answer.escape_ascii());
        }
        for answer in [
            &b"NO\r\n"[..],
            b"NO (X) \"x\"\r\n",
            b"NO (AUTH-TOO-WEAK)\r\n",
        ] {
            assert!(!comes_back(answer), "{}", answer.escape_ascii());
        }
    }
}
