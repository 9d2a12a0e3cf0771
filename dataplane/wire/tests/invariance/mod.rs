//! What every machine of every protocol must keep to, whatever it is fed. Used by the property
//! tests and by the fuzz targets.
//!
//! 1. Fed in pieces, it does what it does when fed at once.
//! 2. What it consumed and what is left are its input: it never reads ahead.
//! 3. It does not panic, and what it writes is bounded by its limits.

use std::sync::Arc;

use ferrypost_wire::{
    BackLimits, BackSettings, Bearer, BearerFrame, Capabilities, Channel, ClientReply,
    ClientVerdict, Credentials, Farewell, Follower, Front, FrontLimits, FrontSettings, FrontStep,
    IdField, Introduction, LineProtocol, Login, LoginStep, Negotiate, NegotiateStep, Refusal,
    Rejection, SecretWriter, Then, Tokens, WireBuf,
};

/// Room for a whole input; the machines' own limits are far below.
const BUFFER: usize = 1 << 20;
/// More than a machine may write under [`FRONT_LIMITS`], whatever it is fed.
const MAX_WRITTEN: usize = 20_000;
const FRONT_LIMITS: FrontLimits = FrontLimits {
    max_line: 200,
    max_literal: 100,
    max_commands: 20,
    max_errors: 5,
};
const BACK_LIMITS: BackLimits = BackLimits {
    max_line: 200,
    max_lines: 20,
    max_untagged: 500,
};

/// A server that takes tokens, as each of the protocols says it.
const TAKES_TOKENS: [&str; 8] = [
    "IMAP4rev1",
    "LITERAL-",
    "AUTH=PLAIN",
    "AUTH=OAUTHBEARER",
    "AUTH=XOAUTH2",
    "SASL PLAIN OAUTHBEARER XOAUTH2",
    "UTF8",
    "AUTH PLAIN OAUTHBEARER XOAUTH2",
];

/// What a machine did with an input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    events: Vec<String>,
    written: Vec<u8>,
    left: Vec<u8>,
}

/// Checks the machine that faces the client. `pieces` are the sizes of the pieces, over and over.
pub(crate) fn front<P: LineProtocol>(channel: Channel, input: &[u8], pieces: &[usize]) {
    let whole = run_front::<P>(channel, input, &[input.len()]);
    assert_eq!(whole, run_front::<P>(channel, input, pieces));
    check(&whole, input);
}

fn run_front<P: LineProtocol>(channel: Channel, input: &[u8], pieces: &[usize]) -> Trace {
    let mut front = P::front(FrontSettings {
        channel,
        offer: Arc::new(P::offer(
            &[P::Capabilities::from_items(TAKES_TOKENS)],
            Tokens::Readable,
        )),
        limits: FRONT_LIMITS,
    });
    let mut trace = Trace::default();
    let mut buffer = WireBuf::new(BUFFER);
    for piece in split(input, pieces) {
        buffer.extend(piece).expect("the buffer has room for all");
        loop {
            match front.step(&mut buffer, &mut trace.written) {
                Ok(FrontStep::NeedMore) => break,
                Ok(FrontStep::StartTls) => {
                    trace.events.push("start TLS".to_owned());
                    front.secured(&mut trace.written);
                }
                Ok(FrontStep::Login(credentials)) => {
                    trace.events.push(describe(&credentials));
                    front.held(&mut trace.written);
                    front.reply(refusal(&credentials), &mut trace.written);
                }
                Ok(FrontStep::Unfit(invalid)) => {
                    trace.events.push(invalid.to_string());
                    front.reply(ClientReply::Unfit(invalid), &mut trace.written);
                }
                Ok(FrontStep::Close) => {
                    trace.events.push("close".to_owned());
                    break;
                }
                Err(violation) => {
                    trace.events.push(violation.to_string());
                    break;
                }
            }
        }
    }
    trace.events.push(format!("{:?}", front.introduction()));
    trace.left = buffer.filled().to_vec();
    trace
}

/// A token's refusal takes one more round.
fn refusal(credentials: &Credentials) -> ClientReply {
    match credentials {
        Credentials::Password(_) => ClientReply::AuthFailed,
        Credentials::Bearer(_) => {
            let explained = Rejection::credentials().with_challenge(b"{}".to_vec());
            ClientReply::Rejected(explained)
        }
    }
}

fn describe(credentials: &Credentials) -> String {
    match credentials {
        Credentials::Password(login) => format!(
            "login {:?} {:?} {:?}",
            login.authorization(),
            login.authentication(),
            login.password().expose()
        ),
        Credentials::Bearer(bearer) => format!(
            "token {:?} {:?} {:?}",
            bearer.frame(),
            bearer.name(),
            bearer.token().expose()
        ),
    }
}

/// Checks the machines that face the backend.
pub(crate) fn back<P: LineProtocol>(channel: Channel, input: &[u8], pieces: &[usize]) {
    for credentials in [password, token] {
        let whole = run_back::<P>(channel, input, &[input.len()], credentials);
        assert_eq!(whole, run_back::<P>(channel, input, pieces, credentials));
        check(&whole, input);
    }
}

fn run_back<P: LineProtocol>(
    channel: Channel,
    input: &[u8],
    pieces: &[usize],
    credentials: fn() -> Credentials,
) -> Trace {
    let mut back = Stage::Negotiating(P::back(BackSettings {
        channel,
        announce: None,
        introduction: Introduction {
            helo: Some("client.example.org".to_owned()),
            id: vec![IdField {
                name: "name".to_owned(),
                value: Some("a \"client\"".to_owned()),
            }],
            utf8: true,
        },
        prefaced: false,
        limits: BACK_LIMITS,
    }));
    let mut trace = Trace::default();
    let mut buffer = WireBuf::new(BUFFER);
    for piece in split(input, pieces) {
        buffer.extend(piece).expect("the buffer has room for all");
        while let Some(next) = step_back::<P>(&mut back, &mut buffer, &mut trace, credentials) {
            back = next;
        }
    }
    trace.left = buffer.filled().to_vec();
    trace
}

enum Stage<P: LineProtocol> {
    Negotiating(P::Back),
    LoggingIn(<P::Back as Negotiate>::Login),
    Over,
}

/// One step; the stage to go on with at once, or `None` when more must be read.
fn step_back<P: LineProtocol>(
    stage: &mut Stage<P>,
    buffer: &mut WireBuf,
    trace: &mut Trace,
    credentials: fn() -> Credentials,
) -> Option<Stage<P>> {
    match std::mem::replace(stage, Stage::Over) {
        Stage::Over => None,
        Stage::Negotiating(mut back) => match back.step(buffer, &mut trace.written) {
            Ok(NegotiateStep::NeedMore) => {
                *stage = Stage::Negotiating(back);
                None
            }
            Ok(NegotiateStep::StartTls) => {
                trace.events.push("start TLS".to_owned());
                back.secured();
                Some(Stage::Negotiating(back))
            }
            Ok(NegotiateStep::Ready) => {
                let offered = back.offered().map(Capabilities::items);
                trace
                    .events
                    .push(format!("ready {} {offered:?}", back.greeting()));
                if let (Some(offered), Some(items)) = (back.offered(), offered) {
                    let again = P::Capabilities::from_items(items.iter().map(String::as_str));
                    assert!(again == *offered, "what is offered is lost on paper");
                }
                Some(Stage::LoggingIn(back.into_login(credentials())))
            }
            Ok(NegotiateStep::Refused(rejection)) => over(trace, format!("{rejection:?}")),
            Err(violation) => over(trace, violation.to_string()),
        },
        Stage::LoggingIn(mut login) => match login.step(buffer) {
            Ok(LoginStep::NeedMore) => {
                *stage = Stage::LoggingIn(login);
                None
            }
            Ok(LoginStep::Send(secret)) => {
                trace.written.extend_from_slice(secret.expose());
                Some(Stage::LoggingIn(login))
            }
            Ok(LoginStep::Accepted(acceptance)) => over(trace, format!("{acceptance:?}")),
            Ok(LoginStep::Rejected(rejection)) => over(trace, format!("{rejection:?}")),
            Err(violation) => over(trace, violation.to_string()),
        },
    }
}

fn over<P: LineProtocol>(trace: &mut Trace, event: String) -> Option<Stage<P>> {
    trace.events.push(event);
    None
}

fn token() -> Credentials {
    let token = SecretWriter::with_capacity(8).text(b"t0ken").finish();
    match Bearer::new(BearerFrame::OauthBearer, b"alice", token) {
        Ok(bearer) => Credentials::Bearer(bearer),
        Err(_) => unreachable!("this token is fit"),
    }
}

fn password() -> Credentials {
    let password = SecretWriter::with_capacity(8).text("gehe\u{ef}m".as_bytes());
    Credentials::password(b"", b"alice", password.finish())
        .unwrap_or_else(|_| unreachable!("these credentials are fit"))
}

fn check(trace: &Trace, input: &[u8]) {
    assert!(input.ends_with(&trace.left), "it read ahead");
    assert!(trace.written.len() <= MAX_WRITTEN, "it wrote without bound");
}

/// Who says something in a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A relay with nothing around it.
struct Relay<F> {
    follow: F,
    /// Sent by the client and not forwarded.
    waiting: Vec<u8>,
    forwarded: Vec<u8>,
    draining: bool,
    refused: Option<Refusal>,
}

impl<F: Follower> Relay<F> {
    fn new(follow: F) -> Self {
        Self {
            follow,
            waiting: Vec::new(),
            forwarded: Vec::new(),
            draining: false,
            refused: None,
        }
    }

    /// Takes a turn, in pieces. What the client had to wait with is offered again at the end of the
    /// server's turn and no sooner: a server does not answer what has not been forwarded to it.
    fn take<'a>(&mut self, side: Side, pieces: impl Iterator<Item = &'a [u8]>) {
        for piece in pieces {
            match side {
                Side::Client => {
                    self.waiting.extend_from_slice(piece);
                    self.forward();
                }
                Side::Server => self.follow.server(piece),
            }
        }
        self.forward();
    }

    fn forward(&mut self) {
        let ClientVerdict { forward, then } = self.follow.client(&self.waiting, self.draining);
        assert!(
            forward <= self.waiting.len(),
            "it forwards what there is not"
        );
        self.forwarded.extend(self.waiting.drain(..forward));
        match then {
            Then::Continue => assert!(self.waiting.is_empty(), "it forgot something"),
            Then::Stop => assert!(self.draining, "it stops without need"),
            Then::Hold => {}
            Then::Refuse(refusal) => self.refused = Some(refusal),
        }
    }

    fn state(&self) -> String {
        format!(
            "{:?} {:?} {:?}",
            self.follow.safety(),
            self.follow.goodbye(Farewell::Moved),
            self.forwarded.escape_ascii().to_string(),
        )
    }
}

/// Checks the machine that watches a relay; it drains from the turn `drain` on.
pub(crate) fn follow<F: Follower + Default>(
    turns: &[(Side, Vec<u8>)],
    pieces: &[usize],
    drain: usize,
) {
    let (mut whole, mut split_up) = (Relay::new(F::default()), Relay::new(F::default()));
    for (turn, (side, bytes)) in turns.iter().enumerate() {
        whole.draining = turn >= drain;
        split_up.draining = turn >= drain;
        whole.take(*side, [bytes.as_slice()].into_iter());
        split_up.take(*side, split(bytes, pieces));
        assert_eq!(whole.refused, split_up.refused);
        if let Some(refusal) = whole.refused {
            // How much of a refused command went through depends on how it came; the end of
            // UNAUTHENTICATE never did.
            let rest = split_up.forwarded.strip_prefix(whole.forwarded.as_slice());
            let rest = rest.expect("in pieces at least as much goes through");
            assert!(refusal.farewell() != Farewell::Relogin || !rest.contains(&b'\n'));
            return;
        }
        assert_eq!(whole.state(), split_up.state());
    }
    whole.follow.release();
    let verdict = whole.follow.client(b"", false);
    assert_ne!(verdict.then, Then::Hold, "nothing is withheld for ever");
}

/// Cuts `input` into pieces of these sizes, over and over; zero counts as one.
fn split<'a>(input: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    let mut rest = input;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = sizes.next().map_or(1, |&size| size.clamp(1, rest.len()));
        let (piece, after) = rest.split_at(size);
        rest = after;
        Some(piece)
    })
}
