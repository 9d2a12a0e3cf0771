//! The client's side: we are the server.

use std::sync::Arc;

use ferrypost_wire::sasl::{Exchange, Mechanism, Progress, encode_base64};
use ferrypost_wire::{
    BearerFrame, Channel, ClientReply, ClientViolation, Farewell, Front, FrontLimits,
    FrontSettings, FrontStep, Introduction, InvalidCredentials, Rejection, WireBuf,
};

use super::{ToyFollower, ToyOffer, Welcome};

/// A server up to the login.
pub(crate) struct ToyFront {
    channel: Channel,
    offer: Arc<ToyOffer>,
    limits: FrontLimits,
    state: State,
    helo: Option<String>,
    commands: u32,
    errors: u32,
}

enum State {
    Command,
    /// A login waits for its answer.
    Pending,
    /// The client has been challenged once more; then it hears this.
    Challenged(String),
    Upgrading,
    Closed,
}

impl ToyFront {
    pub(super) fn new(settings: FrontSettings<ToyOffer>) -> Self {
        Self {
            channel: settings.channel,
            offer: settings.offer,
            limits: settings.limits,
            state: State::Command,
            helo: None,
            commands: 0,
            errors: 0,
        }
    }

    fn command(
        &mut self,
        line: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<FrontStep>, ClientViolation> {
        self.commands += 1;
        if self.commands > self.limits.max_commands {
            return Err(ClientViolation::TooManyCommands);
        }
        if let Some(name) = line.strip_prefix(b"HELLO ")
            && !name.is_empty()
            && name.iter().all(u8::is_ascii_graphic)
        {
            self.helo = Some(String::from_utf8_lossy(name).into_owned());
            out.extend_from_slice(self.offer.line().as_bytes());
            return Ok(None);
        }
        match (line, self.channel) {
            (b"TLS", Channel::Clear) => {
                out.extend_from_slice(b"+ go\r\n");
                self.state = State::Upgrading;
                Ok(Some(FrontStep::StartTls))
            }
            (b"QUIT", _) => {
                out.extend_from_slice(b"+ bye\r\n");
                self.state = State::Closed;
                Ok(Some(FrontStep::Close))
            }
            ([b'B', b'E', b'A', b'R', b'E', b'R', b' ', token @ ..], Channel::Secure) => {
                self.state = State::Pending;
                Ok(Some(login(token)))
            }
            _ => {
                self.errors += 1;
                out.extend_from_slice(b"- 500 5.5.1 what\r\n");
                if self.errors > self.limits.max_errors {
                    return Err(ClientViolation::TooManyErrors);
                }
                Ok(None)
            }
        }
    }
}

fn login(token: &[u8]) -> FrontStep {
    let mechanism = Mechanism::Bearer(BearerFrame::OauthBearer);
    match Exchange::new(mechanism).respond(token) {
        Ok(Progress::Done(credentials)) => FrontStep::Login(credentials),
        Ok(Progress::Challenge(_)) => FrontStep::Unfit(InvalidCredentials::Malformed),
        Err(invalid) => FrontStep::Unfit(invalid),
    }
}

impl Front for ToyFront {
    type Follow = ToyFollower;
    type Welcome = Welcome;

    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"+ toy\r\n");
    }

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<FrontStep, ClientViolation> {
        while matches!(self.state, State::Command | State::Challenged(_)) {
            let Ok(line) = input.take_line(self.limits.max_line) else {
                self.state = State::Closed;
                return Err(ClientViolation::LineTooLong);
            };
            let Some(line) = line else { break };
            if let State::Challenged(words) = &self.state {
                out.extend_from_slice(words.as_bytes());
                self.state = State::Command;
                continue;
            }
            match self.command(&line, out) {
                Ok(None) => {}
                Ok(Some(step)) => return Ok(step),
                Err(violation) => {
                    self.state = State::Closed;
                    return Err(violation);
                }
            }
        }
        Ok(FrontStep::NeedMore)
    }

    fn secured(&mut self, out: &mut Vec<u8>) {
        self.channel = Channel::Secure;
        self.state = State::Command;
        self.helo = None;
        out.extend_from_slice(self.offer.line().as_bytes());
    }

    fn introduction(&self) -> Introduction {
        Introduction {
            helo: self.helo.clone(),
            ..Introduction::default()
        }
    }

    fn held(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"~ wait\r\n");
    }

    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>) {
        if matches!(self.state, State::Pending) {
            self.state = State::Command;
            let words = words(&reply);
            match &reply {
                ClientReply::Rejected(rejection) if rejection.challenge().is_some() => {
                    let challenge = rejection.challenge().unwrap_or_default();
                    out.extend_from_slice(format!("? {}\r\n", encode_base64(challenge)).as_bytes());
                    self.state = State::Challenged(words);
                }
                _ => out.extend_from_slice(words.as_bytes()),
            }
        }
        if let ClientReply::Closing(why) = reply {
            out.extend_from_slice(goodbye(why));
        }
        if reply.closes() {
            self.state = State::Closed;
        }
    }

    fn accept(self, welcome: Welcome, out: &mut Vec<u8>) -> ToyFollower {
        out.extend_from_slice(format!("+ {}\r\n", welcome.text()).as_bytes());
        ToyFollower::default()
    }
}

fn words(reply: &ClientReply) -> String {
    match reply {
        ClientReply::Rejected(rejection) => rejected(rejection),
        ClientReply::AuthFailed | ClientReply::Unfit(_) => "- AUTH no\r\n".to_owned(),
        ClientReply::Unavailable | ClientReply::Closing(_) => "- 454 4.7.0 later\r\n".to_owned(),
    }
}

fn rejected(rejection: &Rejection) -> String {
    match rejection.code() {
        Some(code) => format!("- {code} {}\r\n", rejection.text()),
        None => "- AUTH no\r\n".to_owned(),
    }
}

pub(super) fn goodbye(why: Farewell) -> &'static [u8] {
    match why {
        Farewell::Moved => b"~ moved\r\n",
        _ => b"~ bye\r\n",
    }
}
