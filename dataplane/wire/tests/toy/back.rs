//! The backend's side: we are the client.

use ferrypost_wire::sasl::{acknowledgement, decode_challenge, encode_bearer};
use ferrypost_wire::{
    BackLimits, BackSettings, BackendViolation, Bearer, BearerFrame, Capabilities as _, Channel,
    Credentials, Login, LoginStep, Negotiate, NegotiateStep, Rejection, RejectionKind, Secret,
    SecretWriter, WireBuf,
};

use super::{Abilities, signed};

/// A client up to the login.
pub(crate) struct ToyBack {
    channel: Channel,
    helo: String,
    lines: Lines,
    state: State,
    greeting: String,
    offered_in_clear: Option<Abilities>,
    offered: Option<Abilities>,
}

#[derive(Clone, Copy)]
enum State {
    Greeting,
    Tls,
    Handshake,
    /// What the server says unasked after the handshake.
    Unasked,
    Hello,
    Ready,
}

/// The lines that a server may say.
struct Lines {
    limits: BackLimits,
    left: u32,
}

impl Lines {
    fn next(&mut self, input: &mut WireBuf) -> Result<Option<Vec<u8>>, BackendViolation> {
        let line = input.take_line(self.limits.max_line);
        let line = line.map_err(|_| BackendViolation::ReplyTooLong)?;
        if line.is_some() {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or(BackendViolation::ReplyTooLong)?;
        }
        Ok(line.map(|line| line.to_vec()))
    }
}

impl ToyBack {
    pub(super) fn new(settings: BackSettings) -> Self {
        let helo = settings.introduction.helo;
        Self {
            channel: settings.channel,
            helo: helo.unwrap_or_else(|| "edge".to_owned()),
            lines: Lines {
                limits: settings.limits,
                left: settings.limits.max_lines,
            },
            state: State::Greeting,
            greeting: String::new(),
            offered_in_clear: None,
            offered: None,
        }
    }

    fn hello(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("HELLO {}\r\n", self.helo).as_bytes());
        self.state = State::Hello;
    }

    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), BackendViolation> {
        let text = match (self.state, signed(line)) {
            (_, Some((b'+', text))) => String::from_utf8_lossy(text).into_owned(),
            (State::Greeting, _) => return Err(BackendViolation::ForeignGreeting),
            (State::Tls, _) => return Err(BackendViolation::StartTlsRefused),
            _ => return Err(BackendViolation::Malformed),
        };
        match self.state {
            State::Greeting => {
                self.greeting = text.chars().filter(char::is_ascii_graphic).collect();
                if self.channel == Channel::Clear {
                    out.extend_from_slice(b"TLS\r\n");
                    self.state = State::Tls;
                } else {
                    self.hello(out);
                }
            }
            State::Tls => self.state = State::Handshake,
            State::Unasked => self.hello(out),
            _ => {
                self.offered = Some(Abilities::from_items(text.split(", ")));
                self.state = State::Ready;
            }
        }
        Ok(())
    }
}

impl Negotiate for ToyBack {
    type Capabilities = Abilities;
    type Login = ToyLogin;

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        loop {
            match self.state {
                State::Ready => return Ok(NegotiateStep::Ready),
                State::Handshake => return Ok(NegotiateStep::StartTls),
                _ => {}
            }
            let Some(line) = self.lines.next(input)? else {
                return Ok(NegotiateStep::NeedMore);
            };
            if let (State::Hello, Some((b'-', text))) = (self.state, signed(&line)) {
                return Ok(NegotiateStep::Refused(rejection(text)));
            }
            self.take(&line, out)?;
        }
    }

    fn secured(&mut self) {
        self.channel = Channel::Secure;
        self.offered_in_clear = self.offered.take();
        self.state = State::Unasked;
    }

    fn greeting(&self) -> &str {
        &self.greeting
    }

    fn offered_in_clear(&self) -> Option<&Abilities> {
        self.offered_in_clear.as_ref()
    }

    fn offered(&self) -> Option<&Abilities> {
        self.offered.as_ref()
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"QUIT\r\n");
    }

    fn into_login(self, credentials: Credentials) -> ToyLogin {
        let turn = match (self.state, &credentials) {
            (State::Ready, Credentials::Bearer(bearer)) => Turn::Send(message(bearer)),
            (State::Ready, Credentials::Password(_)) => {
                Turn::Impossible(BackendViolation::NoMechanism)
            }
            _ => Turn::Impossible(BackendViolation::NotReady),
        };
        ToyLogin {
            lines: self.lines,
            turn,
            challenge: None,
            credentials: Some(credentials),
        }
    }
}

fn message(bearer: &Bearer) -> Secret {
    SecretWriter::with_capacity(0)
        .text(b"BEARER ")
        .base64(&encode_bearer(bearer))
        .text(b"\r\n")
        .finish()
}

/// A client from the token to the verdict.
pub(crate) struct ToyLogin {
    lines: Lines,
    turn: Turn,
    challenge: Option<Vec<u8>>,
    credentials: Option<Credentials>,
}

enum Turn {
    Impossible(BackendViolation),
    Send(Secret),
    Listen,
    Over,
}

/// What a server says to a login that it accepts.
#[derive(Debug)]
pub(crate) struct Welcome(String);

impl Welcome {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl ToyLogin {
    fn take(&mut self, line: &[u8]) -> Result<LoginStep<Welcome>, BackendViolation> {
        let (sign, text) = signed(line).ok_or(BackendViolation::Malformed)?;
        match sign {
            b'+' => {
                self.turn = Turn::Over;
                let text = String::from_utf8_lossy(text);
                let text = text.chars().filter(|letter| !letter.is_control());
                Ok(LoginStep::Accepted(Welcome(text.collect())))
            }
            b'?' if self.challenge.is_none() => {
                let challenge = decode_challenge(text).ok_or(BackendViolation::Malformed)?;
                self.challenge = Some(challenge);
                let answer = acknowledgement(BearerFrame::OauthBearer);
                let answer = SecretWriter::with_capacity(0).text(answer.as_bytes());
                Ok(LoginStep::Send(answer.text(b"\r\n").finish()))
            }
            b'-' => {
                self.turn = Turn::Over;
                let rejection = rejection(text);
                if rejection.kind() != RejectionKind::Temporary {
                    self.credentials = None;
                }
                Ok(LoginStep::Rejected(match self.challenge.take() {
                    Some(challenge) => rejection.with_challenge(challenge),
                    None => rejection,
                }))
            }
            _ => Err(BackendViolation::Malformed),
        }
    }
}

fn rejection(text: &[u8]) -> Rejection {
    const LATER: &str = "454 4.7.0";
    match text.strip_prefix(LATER.as_bytes()) {
        Some(text) => Rejection::passed_on(RejectionKind::Temporary, LATER, text.trim_ascii())
            .with_server_code(LATER, false),
        None => Rejection::credentials().with_server_code("AUTH", true),
    }
}

impl Login for ToyLogin {
    type Welcome = Welcome;

    fn step(&mut self, input: &mut WireBuf) -> Result<LoginStep<Welcome>, BackendViolation> {
        match std::mem::replace(&mut self.turn, Turn::Listen) {
            Turn::Impossible(violation) => return Err(violation),
            Turn::Send(secret) => return Ok(LoginStep::Send(secret)),
            Turn::Over => {
                self.turn = Turn::Over;
                return Ok(LoginStep::NeedMore);
            }
            Turn::Listen => {}
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
