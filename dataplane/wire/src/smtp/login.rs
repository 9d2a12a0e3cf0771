//! Replaying a login to a backend.

use std::collections::VecDeque;

use super::reply::{Replies, Reply};
use super::{offer, verdict};
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::{BackendViolation, MAX_PASSED_TEXT, RejectionKind};
use crate::sasl::{self, Mechanism};
use crate::secret::{BearerFrame, Credentials, Secret, SecretWriter};
use crate::text::printable;
use crate::{Login, LoginStep};

/// The longest command line that we send, in octets and with its end (RFC 5321 §4.5.3.1.4, which RFC 4954 §4 leaves
/// as it is for AUTH). A longer response waits to be asked for.
const MAX_COMMAND_LINE: usize = 512;

/// A backend's 235 to a login: what the client is to hear of it, and what the relay has to know. Made only by a
/// [`Login`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The text, printable and shortened.
    pub(super) text: String,
    /// Whether the backend takes messages in chunks (RFC 3030).
    pub(super) takes_chunks: bool,
}

/// A submission client from the first octet of a secret to the verdict.
pub struct SubmissionLogin {
    replies: Replies,
    state: State,
    /// Gone when the backend has refused them.
    credentials: Option<Credentials>,
    /// What the login consists of; each piece behind the first waits to be asked for.
    pieces: VecDeque<Secret>,
    /// The token's frame, while the backend may end the exchange with a challenge.
    frame: Option<BearerFrame>,
    /// Whether it did (RFC 7628 §3.2.2).
    is_challenged: bool,
    /// That challenge, decoded, if it can be.
    challenge: Option<Vec<u8>>,
    takes_chunks: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing can: there is no way to replay these credentials here.
    Impossible(BackendViolation),
    /// The first piece is to be sent.
    Begin,
    /// The verdict, or the question for the next piece.
    Verdict,
    /// Nothing: the verdict is out.
    Over,
}

impl SubmissionLogin {
    /// `offered` is what the backend offers now; `None` when it is not ready for a login.
    pub(super) fn new(
        offered: Option<Keywords>,
        replies: Replies,
        credentials: Credentials,
    ) -> Self {
        let pieces = match &offered {
            None => Err(BackendViolation::NotReady),
            Some(offered) => compose(offered, &credentials).ok_or(BackendViolation::NoMechanism),
        };
        let (state, pieces) = match pieces {
            Ok(pieces) => (State::Begin, pieces),
            Err(violation) => (State::Impossible(violation), VecDeque::new()),
        };
        let frame = match &credentials {
            Credentials::Bearer(bearer) => Some(bearer.frame()),
            Credentials::Password(_) => None,
        };
        Self {
            replies,
            state,
            credentials: Some(credentials),
            pieces,
            frame,
            is_challenged: false,
            challenge: None,
            takes_chunks: offered.is_some_and(|offered| offered.has("CHUNKING")),
        }
    }

    fn take(&mut self, reply: &Reply) -> Result<LoginStep<Acceptance>, BackendViolation> {
        match reply.code {
            // It agreed before it had heard everything, or after it had said no.
            235 if !self.pieces.is_empty() || self.is_challenged => {
                Err(BackendViolation::Malformed)
            }
            235 => {
                self.state = State::Over;
                Ok(LoginStep::Accepted(self.acceptance(reply)))
            }
            334 => self.asked(reply.text()),
            _ => self.refused(reply),
        }
    }

    fn acceptance(&self, reply: &Reply) -> Acceptance {
        let text = match reply.enhanced().1 {
            [] => b"Logged in.",
            text => text,
        };
        Acceptance {
            text: printable(text, MAX_PASSED_TEXT),
            takes_chunks: self.takes_chunks,
        }
    }

    /// The backend wants the next response. When there is none, it says by its challenge what is wrong with the
    /// token, and wants to hear that it was read (RFC 7628 §3.2.3).
    fn asked(&mut self, challenge: &[u8]) -> Result<LoginStep<Acceptance>, BackendViolation> {
        if let Some(piece) = self.pieces.pop_front() {
            return Ok(LoginStep::Send(piece));
        }
        let frame = self.frame.take().ok_or(BackendViolation::Malformed)?;
        self.is_challenged = true;
        // What is not base64 could not be passed on, and a client takes what is empty for a question.
        self.challenge = sasl::decode_challenge(challenge).filter(|octets| !octets.is_empty());
        let read = SecretWriter::with_capacity(8).text(sasl::acknowledgement(frame).as_bytes());
        Ok(LoginStep::Send(read.text(b"\r\n").finish()))
    }

    fn refused(&mut self, reply: &Reply) -> Result<LoginStep<Acceptance>, BackendViolation> {
        let mut rejection = verdict::on_login(reply)?;
        if let Some(Credentials::Bearer(_)) = self.credentials
            && rejection.code().is_none()
        {
            // Which server it is has been said by its challenge; our words for passwords would be wrong.
            rejection = rejection.in_words(reply.enhanced().1);
        }
        self.state = State::Over;
        self.pieces.clear();
        if rejection.kind() != RejectionKind::Temporary {
            self.credentials = None;
        }
        Ok(LoginStep::Rejected(match self.challenge.take() {
            Some(challenge) => rejection.with_challenge(challenge),
            None => rejection,
        }))
    }
}

impl Login for SubmissionLogin {
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
        match self.replies.next(input)? {
            Some(reply) => self.take(&reply),
            None => Ok(LoginStep::NeedMore),
        }
    }

    fn into_credentials(self) -> Option<Credentials> {
        self.credentials
    }
}

/// Composes a login in the best way that the backend offers and the credentials allow. `None` if there is none.
fn compose(offered: &Keywords, credentials: &Credentials) -> Option<VecDeque<Secret>> {
    let offers = |mechanism| offer::has(offered, mechanism);
    let (mechanism, messages) = sasl::messages(credentials, offers)?;
    Some(auth(mechanism, &messages))
}

/// AUTH, with the one message of a mechanism in its line if it fits. That of LOGIN which comes first waits: not
/// every server knows it there.
fn auth(mechanism: Mechanism, messages: &[Secret]) -> VecDeque<Secret> {
    let command = format!("AUTH {}", mechanism.name());
    let length = |message: &Secret| command.len() + 1 + message.len().div_ceil(3) * 4 + 2;
    let writer = SecretWriter::with_capacity(MAX_COMMAND_LINE).text(command.as_bytes());
    if let [only] = messages
        && length(only) <= MAX_COMMAND_LINE
    {
        let line = writer.text(b" ").base64(only).text(b"\r\n");
        return VecDeque::from([line.finish()]);
    }
    let first = std::iter::once(writer.text(b"\r\n").finish());
    first.chain(messages.iter().map(response)).collect()
}

fn response(message: &Secret) -> Secret {
    SecretWriter::with_capacity(2 * message.len() + 4)
        .base64(message)
        .text(b"\r\n")
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;
    use crate::secret::Bearer;
    use crate::settings::BackLimits;

    fn secret(octets: &[u8]) -> Secret {
        SecretWriter::with_capacity(0).text(octets).finish()
    }

    fn password(name: &str, password: &str) -> Credentials {
        Credentials::password(b"", name.as_bytes(), secret(password.as_bytes()))
            .ok()
            .unwrap()
    }

    fn pieces(offered: &str, credentials: &Credentials) -> Option<Vec<String>> {
        let pieces = compose(&Keywords::from_items([offered]), credentials)?;
        let text = |piece: &Secret| String::from_utf8(piece.expose().to_vec()).unwrap();
        Some(pieces.iter().map(text).collect())
    }

    #[test]
    fn a_first_response_goes_into_a_line_of_512_octets_and_no_more() {
        let sent = |length| pieces("AUTH PLAIN", &password("a", &"x".repeat(length))).unwrap();
        let longest = sent(369);
        assert_eq!((longest.len(), longest[0].len()), (1, 509));
        assert_eq!(sent(370)[0], "AUTH PLAIN\r\n");
    }

    #[test]
    fn a_token_of_six_kilobytes_waits_to_be_asked_for() {
        let token = secret("t".repeat(6000).as_bytes());
        let bearer = Bearer::new(BearerFrame::Xoauth2, b"alice", token);
        let token = Credentials::Bearer(bearer.ok().unwrap());
        assert_eq!(pieces("AUTH PLAIN OAUTHBEARER", &token), None);
        let sent = pieces("AUTH XOAUTH2", &token).unwrap();
        assert_eq!(sent[0], "AUTH XOAUTH2\r\n");
        assert_eq!(sent.len(), 2);
    }

    #[test]
    fn credentials_come_back_unless_the_backend_has_refused_them() {
        let comes_back = |answer: &[u8]| {
            let offered = Some(Keywords::from_items(["AUTH PLAIN"]));
            let replies = Replies::new(BackLimits::default());
            let mut login = SubmissionLogin::new(offered, replies, password("alice", "x"));
            let mut input = WireBuf::new(1024);
            input.extend(answer).unwrap();
            while let Ok(LoginStep::Send(_)) = login.step(&mut input) {}
            login.into_credentials().is_some()
        };
        for answer in [
            &b""[..],
            b"421 gone\r\n",
            b"500 what\r\n",
            b"454 4.7.0 later\r\n",
            b"235 in\r\n",
        ] {
            assert!(comes_back(answer), "{}", answer.escape_ascii());
        }
        for answer in [
            &b"535 5.7.8 wrong\r\n"[..],
            b"535 wrong\r\n",
            b"525 5.7.13 off\r\n",
        ] {
            assert!(!comes_back(answer), "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn credentials_given_too_soon_are_not_sent() {
        let replies = Replies::new(BackLimits::default());
        let mut login = SubmissionLogin::new(None, replies, password("alice", "x"));
        let step = login.step(&mut WireBuf::new(16));
        assert!(matches!(step, Err(BackendViolation::NotReady)));
    }
}
