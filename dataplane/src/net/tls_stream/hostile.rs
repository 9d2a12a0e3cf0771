//! A peer that knows the keys and breaks the rules: what an engine must keep to, whatever it is sent and in
//! whatever pieces. Used by the property test and by the fuzz target `tls`.
//!
//! 1. It does not panic.
//! 2. It yields what the peer has written, from the start and in order, and nothing else.
//! 3. It yields nothing behind the peer's `close_notify`, and nothing once it has failed.
//! 4. What it keeps and what it wants to send is bounded.
//! 5. If nobody interferes, everything arrives.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, OnceLock},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    client::UnbufferedClientConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
    server::UnbufferedServerConnection,
    version::{TLS12, TLS13},
};

use super::engine::{Engine, Handshake, Session};

/// What our end says with the handshake.
const EARLY: &[u8] = b"* OK early\r\n";
/// The most octets of a handshake that are kept, as of the driver.
const MAX_HANDSHAKE: usize = 0xffff;
/// A record of the largest size that TLS knows (RFC 5246 §6.2.3).
const MAX_RECORD: usize = 5 + 16 * 1024 + 2048;
/// The most that an engine may want to send of its own accord for one delivery: a server's flight with its
/// certificate, and room.
const MAX_OUTGOING: usize = 16 * 1024;
/// Changes of keys that nobody takes for an attack; rustls allows 32 in a row.
const MAX_KEY_CHANGES: u32 = 20;
/// Moves of one game.
const MAX_MOVES: usize = 200;

/// Lets a peer play by a script; any octets are one.
pub(crate) fn play(script: &[u8]) {
    let mut script = Script(script);
    let choice = script.octet();
    let configs = configs();
    let (server, client) = match choice & 1 {
        0 => &configs[0],
        _ => &configs[1],
    };
    let (server, client) = (Arc::clone(server), Arc::clone(client));
    let name = ServerName::try_from("localhost").expect("a name");
    if choice & 2 == 0 {
        let session = UnbufferedServerConnection::new(server).expect("a server");
        let peer = ClientConnection::new(client, name).expect("a client");
        Game::new(session, peer.into()).run(script, choice & 4 != 0);
    } else {
        let session = UnbufferedClientConnection::new(client, name).expect("a client");
        let peer = ServerConnection::new(server).expect("a server");
        Game::new(session, peer.into()).run(script, choice & 4 != 0);
    }
}

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

/// Both ends' configurations, for each version of TLS.
fn configs() -> &'static [Configs; 2] {
    static CONFIGS: OnceLock<[Configs; 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| [&TLS13, &TLS12].map(configs_for))
}

fn configs_for(version: &'static SupportedProtocolVersion) -> Configs {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let provider = Arc::new(default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .expect("the key of the certificate");
    server.send_half_rtt_data = true;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// What a peer is to do, octet by octet; zeros when it is over.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn octet(&mut self) -> u8 {
        let Some((&octet, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        octet
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.octet(), self.octet()]))
    }

    /// A place in something of this length.
    fn place(&mut self, length: usize) -> usize {
        self.number() % length.max(1)
    }
}

/// An engine, its peer, and what is on its way between them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and they come in all combinations"
)]
struct Game<S> {
    engine: Engine<S>,
    peer: Connection,
    early: &'static [u8],
    shaken: bool,
    /// It has failed, or its driver would have given it up.
    over: bool,
    /// Ciphertext that the engine has not been shown.
    wire: Vec<u8>,
    /// Ciphertext that it has been shown and has not used.
    incoming: Vec<u8>,
    /// Plaintext that the peer has written before its end.
    sent: Vec<u8>,
    /// Plaintext that the engine has yielded.
    yielded: Vec<u8>,
    /// What our end has written, and what the peer has read of it.
    answered: Vec<u8>,
    heard: Vec<u8>,
    /// The peer has said that it will send no more. It goes on all the same.
    ended: bool,
    /// The peer does not listen any more.
    deaf: bool,
    key_changes: u32,
    /// Somebody has meddled with the ciphertext, or the peer goes too far.
    meddled: bool,
}

impl<S: Session> Game<S> {
    fn new(session: S, peer: Connection) -> Self {
        Self {
            engine: Engine::new(session),
            peer,
            early: EARLY,
            shaken: false,
            over: false,
            wire: Vec::new(),
            incoming: Vec::new(),
            sent: Vec::new(),
            yielded: Vec::new(),
            answered: Vec::new(),
            heard: Vec::new(),
            ended: false,
            deaf: false,
            key_changes: 0,
            meddled: false,
        }
    }

    fn run(mut self, mut script: Script<'_>, honest_handshake: bool) {
        // A client speaks first, whichever end it is.
        self.deliver(0);
        self.collect();
        if honest_handshake {
            for _ in 0..8 {
                self.deliver(usize::MAX);
            }
            assert!(self.shaken, "an honest handshake did not end");
        }
        for _ in 0..MAX_MOVES {
            if script.0.is_empty() {
                break;
            }
            self.step(&mut script);
        }
        self.deliver(usize::MAX);
        while !self.wire.is_empty() {
            self.deliver(usize::MAX);
        }
        if !self.meddled {
            assert!(self.shaken && !self.over, "an honest peer was given up");
            assert!(self.yielded == self.sent, "something did not arrive");
            let early = EARLY.len();
            assert!(
                self.heard.starts_with(EARLY),
                "the early words did not arrive"
            );
            assert!(
                self.heard[early..] == self.answered,
                "an answer did not arrive"
            );
        }
        self.stay_quiet_once_over();
    }

    /// One move.
    fn step(&mut self, script: &mut Script<'_>) {
        match script.octet() % 12 {
            0..=2 => self.deliver(script.number()),
            3 => self.deliver(usize::from(script.octet())),
            4 | 5 => self.peer_writes(script.number() % 40_000),
            6 => self.we_write(script.number() % 5000),
            7 => self.peer_ends(),
            8 => self.change_keys(),
            9 => self.inject(script),
            10 => self.flip(script),
            _ => self.rearrange(script),
        }
        self.collect();
    }

    fn peer_writes(&mut self, count: usize) {
        let octets: Vec<u8> = (0..count)
            .map(|n| u8::try_from((self.sent.len() + n) % 251).expect("below 251"))
            .collect();
        // Not all of it is taken when the peer holds too much already.
        let taken = self.peer.writer().write(&octets).unwrap_or(0);
        if !self.ended {
            self.sent.extend_from_slice(&octets[..taken]);
        }
    }

    fn peer_ends(&mut self) {
        // Within a handshake anybody could say so, and nobody listens.
        if self.peer.is_handshaking() {
            (self.meddled, self.deaf) = (true, true);
        } else {
            self.ended = true;
        }
        self.peer.send_close_notify();
    }

    fn we_write(&mut self, count: usize) {
        if !self.shaken || self.over {
            return;
        }
        let plain = vec![b'a'; count];
        let mut into = vec![0; count + 256];
        if let Ok(count) = self.engine.encrypt(&mut self.incoming, &plain, &mut into) {
            self.engine.outgoing.extend_from_slice(&into[..count]);
            self.answered.extend(plain);
        }
        self.pass_on();
    }

    fn change_keys(&mut self) {
        // Refused by TLS 1.2, and before the handshake is over.
        _ = match &mut self.peer {
            Connection::Client(peer) => peer.refresh_traffic_keys(),
            Connection::Server(peer) => peer.refresh_traffic_keys(),
        };
        self.key_changes += 1;
        self.meddled |= self.key_changes > MAX_KEY_CHANGES;
    }

    /// A record that no key has made.
    fn inject(&mut self, script: &mut Script<'_>) {
        self.meddled = true;
        let kind = 19 + script.octet() % 6;
        let length = script.number();
        let mut record = vec![kind, 3, script.octet() % 5];
        record.extend(u16::try_from(length).expect("two octets").to_be_bytes());
        // Not always as long as it says.
        let body = length.min(usize::from(script.octet()) * 80);
        let filling = [script.octet(), script.octet()];
        record.extend(filling.iter().cycle().take(body));
        let at = script.place(self.wire.len() + 1);
        self.wire.splice(at..at, record);
    }

    fn flip(&mut self, script: &mut Script<'_>) {
        let at = script.place(self.wire.len());
        let bit = 1 << (script.octet() % 8);
        if let Some(octet) = self.wire.get_mut(at) {
            self.meddled = true;
            *octet ^= bit;
        }
    }

    /// Cuts a piece out, or repeats it, or puts it elsewhere.
    fn rearrange(&mut self, script: &mut Script<'_>) {
        self.meddled = true;
        let from = script.place(self.wire.len());
        let to = (from + script.number()).min(self.wire.len());
        let piece = self.wire[from..to].to_vec();
        let kind = script.octet() % 3;
        if kind != 1 {
            self.wire.drain(from..to);
        }
        if kind != 0 {
            let at = script.place(self.wire.len() + 1);
            self.wire.splice(at..at, piece);
        }
    }

    /// Shows the engine so many more octets, as its driver does.
    fn deliver(&mut self, count: usize) {
        let count = count.min(self.wire.len()).min(64 * 1024);
        let more: Vec<u8> = self.wire.drain(..count).collect();
        if self.over || self.engine.peer_ended {
            return;
        }
        self.incoming.extend(more);
        if self.shaken {
            self.decrypt();
        } else {
            self.shake_hands();
        }
        let most = if self.shaken {
            MAX_HANDSHAKE + MAX_RECORD
        } else {
            MAX_HANDSHAKE
        };
        if !self.shaken && self.incoming.len() >= most {
            self.over = true;
        }
        assert!(self.over || self.incoming.len() <= most, "too much is kept");
        assert!(
            self.sent.starts_with(&self.yielded),
            "not what the peer wrote"
        );
        self.pass_on();
    }

    fn shake_hands(&mut self) {
        let Self {
            engine,
            incoming,
            early,
            yielded,
            ..
        } = self;
        match engine.shake_hands(incoming, early, |octets| yielded.extend(octets)) {
            Ok((used, stand)) => {
                incoming.drain(..used);
                self.shaken = stand == Handshake::Done;
            }
            Err(_) => self.over = true,
        }
    }

    fn decrypt(&mut self) {
        let Self {
            engine,
            incoming,
            yielded,
            ..
        } = self;
        match engine.decrypt(incoming, |octets| yielded.extend(octets)) {
            Ok(used) => drop(incoming.drain(..used)),
            Err(_) => self.over = true,
        }
    }

    /// Sends the peer what the engine wants it to have.
    fn pass_on(&mut self) {
        let outgoing = std::mem::take(&mut self.engine.outgoing);
        assert!(outgoing.len() <= MAX_OUTGOING, "too much is to be sent");
        let mut outgoing = &outgoing[..];
        // A peer of rustls' that has said its end asserts, in debug builds, that it need not complain any more.
        self.deaf |= self.ended && self.meddled;
        while !self.deaf && !outgoing.is_empty() {
            let read = self.peer.read_tls(&mut outgoing);
            // rustls may not be asked again once it has failed.
            self.deaf =
                !read.is_ok_and(|read| read > 0) || self.peer.process_new_packets().is_err();
            // An end without `close_notify` and "nothing for now" are errors too.
            _ = self.peer.reader().read_to_end(&mut self.heard);
        }
        self.collect();
    }

    /// Takes what the peer wants to send.
    fn collect(&mut self) {
        while self.peer.wants_write() && self.peer.write_tls(&mut self.wire).is_ok() {}
    }

    /// Behind its end, an engine takes what it is given and yields nothing.
    fn stay_quiet_once_over(mut self) {
        if !self.shaken {
            return;
        }
        if self.over || self.engine.peer_ended {
            self.incoming.extend([23, 3, 3, 0, 40]);
            self.incoming.extend([7; 40]);
            let result = self
                .engine
                .decrypt(&mut self.incoming, |_| panic!("something behind the end"));
            assert!(!self.over || result.is_err(), "it goes on after a failure");
        }
        _ = self
            .engine
            .encrypt(&mut self.incoming, b"words", &mut [0; 64]);
        _ = self.engine.close(&mut self.incoming);
        assert!(self.engine.outgoing.len() <= MAX_OUTGOING);
    }
}
