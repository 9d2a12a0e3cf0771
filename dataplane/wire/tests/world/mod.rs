//! A client, a proxy and a backend without a socket: the smallest driver that there can be, run
//! over byte strings. Written as the real one has to be, so that it is an example too.

use std::sync::Arc;

use ferrypost_wire::{
    BackLimits, BackSettings, BackendViolation, Capabilities as _, Channel, ClientFacts,
    ClientReply, ClientViolation, Credentials, Farewell, Follower, Front, FrontLimits,
    FrontSettings, FrontStep, HopLimit, InvalidCredentials, LineProtocol, Login, LoginStep,
    Negotiate, NegotiateStep, Refusal, Rejection, Safety, SessionReference, Then, TlsFacts, Tokens,
    WireBuf,
};

/// Where the session is.
pub(crate) enum Stage<P: LineProtocol> {
    /// The client is not logged in and nothing is asked of the driver.
    Front,
    /// The client asked for TLS.
    ClientTls,
    /// The client offered these.
    Offered(Credentials),
    /// A backend is being talked to, for a client that offered these.
    Negotiating(Box<P::Back>, Credentials),
    /// The backend's leg is to be upgraded.
    BackendTls(Box<P::Back>, Credentials),
    /// The login is being replayed.
    LoggingIn(Box<<P::Back as Negotiate>::Login>),
    /// The backend said OK.
    Accepted(P::Welcome),
    /// The client offered what cannot be credentials.
    Unfit(InvalidCredentials),
    /// The backend said no.
    Rejected(Rejection),
    /// The client is relayed.
    Relay(Box<P::Follow>),
    /// The client left.
    Closed,
    /// The client broke the rules.
    ClientBroke(ClientViolation),
    /// The backend broke the rules; the client may still be answered.
    BackendBroke(BackendViolation),
    /// The follower ended the session.
    Refused(Refusal),
}

/// How a world starts.
pub(crate) struct Setup<P: LineProtocol> {
    pub(crate) client: Channel,
    pub(crate) backend: Channel,
    pub(crate) announce: bool,
    /// The name that the client asks for in its handshake.
    pub(crate) server_name: String,
    pub(crate) destinations: Vec<P::Capabilities>,
    pub(crate) tokens: Tokens,
    pub(crate) limits: FrontLimits,
    pub(crate) back_limits: BackLimits,
}

impl<P: LineProtocol> Setup<P> {
    /// Both legs under TLS and one destination, which offers this.
    pub(crate) fn new(offered: &[&str]) -> Self {
        Self {
            client: Channel::Secure,
            backend: Channel::Secure,
            announce: false,
            server_name: "mail.example.org".to_owned(),
            destinations: vec![P::Capabilities::from_items(offered.iter().copied())],
            tokens: Tokens::Readable,
            limits: FrontLimits::default(),
            back_limits: BackLimits::default(),
        }
    }
}

pub(crate) struct World<P: LineProtocol> {
    setup: Setup<P>,
    front: Option<P::Front>,
    pub(crate) stage: Stage<P>,
    pub(crate) draining: bool,
    from_client: WireBuf,
    from_backend: WireBuf,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_backend: Vec<u8>,
}

impl<P: LineProtocol> World<P> {
    pub(crate) fn new(setup: Setup<P>) -> Self {
        let mut front = P::front(FrontSettings {
            channel: setup.client,
            offer: Arc::new(P::offer(&setup.destinations, setup.tokens)),
            limits: setup.limits,
        });
        let mut to_client = Vec::new();
        front.greet(&mut to_client);
        Self {
            from_client: WireBuf::new(setup.limits.max_line + 2),
            from_backend: WireBuf::new(setup.back_limits.max_line + 2),
            setup,
            front: Some(front),
            stage: Stage::Front,
            draining: false,
            to_client,
            to_backend: Vec::new(),
        }
    }

    /// The client sends this.
    pub(crate) fn client_sends(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.from_client.is_full() {
            rest = feed(&mut self.from_client, rest);
            self.run();
        }
    }

    /// The backend sends this.
    pub(crate) fn backend_sends(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.from_backend.is_full() {
            rest = feed(&mut self.from_backend, rest);
            self.run();
        }
    }

    /// What the client has sent and nobody has read.
    pub(crate) fn unread_from_client(&self) -> &[u8] {
        self.from_client.filled()
    }

    /// Connects to a backend for the login that is offered.
    pub(crate) fn dial(&mut self) {
        let Stage::Offered(credentials) = self.take_stage() else {
            panic!("no login is offered");
        };
        let back = P::back(BackSettings {
            channel: self.setup.backend,
            announce: self.setup.announce.then(|| self.facts()),
            introduction: self.front().introduction(),
            prefaced: false,
            limits: self.setup.back_limits,
        });
        self.from_backend = WireBuf::new(self.setup.back_limits.max_line + 2);
        self.stage = Stage::Negotiating(Box::new(back), credentials);
        self.run();
    }

    /// Shakes hands with the client.
    pub(crate) fn client_tls(&mut self) {
        let Stage::ClientTls = self.take_stage() else {
            panic!("the client did not ask for TLS");
        };
        assert!(self.from_client.is_empty(), "injected before the handshake");
        let front = self.front.as_mut().expect("not yet accepted");
        front.secured(&mut self.to_client);
        self.run();
    }

    /// Shakes hands with the backend.
    pub(crate) fn backend_tls(&mut self) {
        let Stage::BackendTls(mut back, credentials) = self.take_stage() else {
            panic!("the backend's leg is not to be upgraded");
        };
        assert!(
            self.from_backend.is_empty(),
            "injected before the handshake"
        );
        back.secured();
        self.stage = Stage::Negotiating(back, credentials);
        self.run();
    }

    pub(crate) fn held(&mut self) {
        let mut out = Vec::new();
        self.front().held(&mut out);
        self.to_client.extend(out);
    }

    /// Answers the client with something other than success and drops the backend.
    pub(crate) fn reply(&mut self, reply: ClientReply) {
        let closes = reply.closes();
        let mut out = Vec::new();
        self.front().reply(reply, &mut out);
        self.to_client.extend(out);
        self.to_backend.clear();
        self.stage = if closes { Stage::Closed } else { Stage::Front };
        self.run();
    }

    /// Tells the client that it is logged in and begins to relay.
    pub(crate) fn accept(&mut self) {
        let Stage::Accepted(acceptance) = self.take_stage() else {
            panic!("nothing was accepted");
        };
        let front = self.front.take().expect("accepted once");
        let follow = front.accept(acceptance, &mut self.to_client);
        self.stage = Stage::Relay(Box::new(follow));
        self.run();
    }

    pub(crate) fn safety(&mut self) -> Safety {
        self.follower().safety()
    }

    /// What is withheld has been withheld for too long.
    pub(crate) fn release(&mut self) {
        self.follower().release();
        self.run();
    }

    /// Says goodbye in the relay, if that is possible.
    pub(crate) fn goodbye(&mut self, why: Farewell) -> bool {
        let words = self.follower().goodbye(why);
        self.to_client.extend(words.unwrap_or_default());
        words.is_some()
    }

    /// Goes on until more bytes or a decision are needed.
    pub(crate) fn run(&mut self) {
        while self.advance() {}
    }

    fn advance(&mut self) -> bool {
        match self.take_stage() {
            Stage::Front => self.step_front(),
            Stage::Negotiating(back, credentials) => self.negotiate(back, credentials),
            Stage::LoggingIn(login) => self.log_in(login),
            Stage::Relay(follow) => self.relay(follow),
            stage => {
                self.stage = stage;
                false
            }
        }
    }

    fn step_front(&mut self) -> bool {
        let front = self.front.as_mut().expect("not yet accepted");
        let step = front.step(&mut self.from_client, &mut self.to_client);
        self.stage = match step {
            Ok(FrontStep::NeedMore) => Stage::Front,
            Ok(FrontStep::StartTls) => Stage::ClientTls,
            Ok(FrontStep::Login(credentials)) => Stage::Offered(credentials),
            Ok(FrontStep::Unfit(invalid)) => Stage::Unfit(invalid),
            Ok(FrontStep::Close) => Stage::Closed,
            Err(violation) => Stage::ClientBroke(violation),
        };
        false
    }

    fn negotiate(&mut self, mut back: Box<P::Back>, credentials: Credentials) -> bool {
        match back.step(&mut self.from_backend, &mut self.to_backend) {
            Ok(NegotiateStep::NeedMore) => self.stage = Stage::Negotiating(back, credentials),
            Ok(NegotiateStep::StartTls) => self.stage = Stage::BackendTls(back, credentials),
            Ok(NegotiateStep::Ready) => {
                self.stage = Stage::LoggingIn(Box::new(back.into_login(credentials)));
                return true;
            }
            Ok(NegotiateStep::Refused(rejection)) => self.rejected(rejection),
            Err(violation) => self.stage = Stage::BackendBroke(violation),
        }
        false
    }

    fn log_in(&mut self, mut login: Box<<P::Back as Negotiate>::Login>) -> bool {
        match login.step(&mut self.from_backend) {
            Ok(LoginStep::NeedMore) => self.stage = Stage::LoggingIn(login),
            Ok(LoginStep::Send(secret)) => {
                self.to_backend.extend(secret.expose());
                self.stage = Stage::LoggingIn(login);
                return true;
            }
            Ok(LoginStep::Accepted(acceptance)) => self.stage = Stage::Accepted(acceptance),
            Ok(LoginStep::Rejected(rejection)) => self.rejected(rejection),
            Err(violation) => self.stage = Stage::BackendBroke(violation),
        }
        false
    }

    fn rejected(&mut self, rejection: Rejection) {
        self.stage = Stage::Rejected(rejection.clone());
        self.to_backend.clear();
        let front = self.front.as_mut().expect("not yet accepted");
        front.reply(ClientReply::Rejected(rejection), &mut self.to_client);
    }

    fn relay(&mut self, mut follow: Box<P::Follow>) -> bool {
        let bytes = self.from_backend.filled();
        follow.server(bytes);
        self.to_client.extend(bytes);
        self.from_backend.consume(usize::MAX);
        let chunk = self.from_client.filled();
        let verdict = follow.client(chunk, self.draining);
        self.to_backend.extend(&chunk[..verdict.forward]);
        self.from_client.consume(verdict.forward);
        self.stage = match verdict.then {
            Then::Refuse(refusal) => Stage::Refused(refusal),
            Then::Continue | Then::Hold | Then::Stop => Stage::Relay(follow),
        };
        false
    }

    /// Goes back to pre-authentication after a verdict of the backend has been passed on.
    pub(crate) fn back_to_front(&mut self) {
        self.stage = Stage::Front;
        self.run();
    }

    fn front(&mut self) -> &mut P::Front {
        self.front.as_mut().expect("not yet accepted")
    }

    fn follower(&mut self) -> &mut P::Follow {
        match &mut self.stage {
            Stage::Relay(follow) => follow,
            _ => panic!("the session is not relayed"),
        }
    }

    fn take_stage(&mut self) -> Stage<P> {
        std::mem::replace(&mut self.stage, Stage::Front)
    }

    fn facts(&mut self) -> ClientFacts {
        ClientFacts {
            peer: "192.0.2.7:50000".parse().expect("an address"),
            local: "198.51.100.1:993".parse().expect("an address"),
            tls: Some(TlsFacts {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256",
                server_name: Some(self.setup.server_name.clone()),
            }),
            session: SessionReference::new("ref-1".to_owned()).expect("a reference"),
            hops: HopLimit::FIRST,
            introduction: self.front().introduction(),
        }
    }
}

/// Puts bytes into a buffer as a socket would: as many as there is room for. Returns the others.
fn feed<'a>(buffer: &mut WireBuf, bytes: &'a [u8]) -> &'a [u8] {
    let mut rest = bytes;
    while !rest.is_empty() && !buffer.is_full() {
        let spare = buffer.spare();
        let count = spare.len().min(rest.len());
        spare[..count].copy_from_slice(&rest[..count]);
        buffer.advance(count);
        rest = &rest[count..];
    }
    rest
}
