//! Ferrypost's protocol machines: bytes in, bytes and events out, and no I/O.
//!
//! This crate knows how mail protocols are spoken before and after a login and nothing else. It has
//! no sockets, no clock and no runtime (its `Cargo.toml` could not even name one), so that every
//! machine is tested with byte slices and fuzzed as it is. Sockets, deadlines, routing and logging
//! belong to the driver in the data plane.
//!
//! # A dialogue
//!
//! ```text
//!   client            Front             driver                Negotiate / Login        backend
//!     │  connects       │                  │                          │                   │
//!     │ ◄── greeting ── greet              │                          │                   │
//!     │ ── bytes ─────► step ── StartTls ► TLS handshake, secured     │                   │
//!     │ ── bytes ─────► step ── Login ───► identity, admission, dial  │                   │
//!     │ ◄── keep-alive  held ◄──────────── (fenced: it waits)         │                   │
//!     │                 │                  │ ─────────────────────► step ◄──── greeting ──│
//!     │                 │                  │ ◄── StartTls ────────── step ──── STARTTLS ─►│
//!     │                 │                  │ TLS handshake ───────► secured               │
//!     │                 │                  │ ◄── Ready ───────────── step ── announce ───►│
//!     │                 │                  │ ── Credentials ──────► into_login            │
//!     │                 │                  │ ◄── Send(Secret) ────── step ── login ──────►│
//!     │ ◄── refused ─── reply ◄─────────── │ ◄── Rejected ────────── step ◄───── NO ──────│
//!     │                 │        (back to pre-authentication; the backend leg is dropped) │
//!     │ ◄── welcome ─── accept ◄────────── │ ◄── Accepted ────────── step ◄───── OK ──────│
//!     │                                    │                                              │
//!     │ ◄═══════════════════════════ relay, watched by a Follower ═══════════════════════►│
//! ```
//!
//! A protocol is one directory: a [`Front`] (we are the server), a [`Negotiate`] that becomes a
//! [`Login`] (we are the client) and a [`Follower`] (we only watch), tied together by
//! [`LineProtocol`].
//!
//! # What the types rule out
//!
//! - A secret on a leg that may be in clear: [`NegotiateStep`] has no variant that carries one, and
//!   [`Login`] exists only by consuming a [`Negotiate`] that is ready.
//! - A relay before the backend's OK: the [`Follower`] that a relay needs comes only from
//!   [`Front::accept`], which takes a [`LineProtocol::Welcome`], which only a [`Login`] makes.
//! - Answering a login twice: [`Front::reply`] takes the pending request out of the machine and
//!   [`Front::accept`] consumes the machine itself.
//! - Sending a refused password once more: a [`Login`] takes the [`Credentials`] in and
//!   [gives them back](Login::into_credentials) only where the backend has not refused them.
//! - A secret in a log: [`Secret`] and [`Credentials`] have no `Debug`, `Display`, `Clone` or
//!   comparison, and are wiped when dropped.
//!
//! None of these compiles:
//!
//! ```compile_fail,E0382
//! use ferrypost_wire::{ClientReply, Front};
//! fn answer_twice<F: Front>(mut front: F, accepted: F::Welcome, out: &mut Vec<u8>) {
//!     front.accept(accepted, out);
//!     front.reply(ClientReply::AuthFailed, out);
//! }
//! ```
//! ```compile_fail,E0382
//! use ferrypost_wire::{Credentials, Negotiate};
//! fn replay_twice<N: Negotiate>(a: N, b: N, credentials: Credentials) -> [N::Login; 2] {
//!     [a.into_login(credentials), b.into_login(credentials)]
//! }
//! ```
//! ```compile_fail,E0451
//! use ferrypost_wire::imap::{Acceptance, Capabilities};
//! fn made_up(capabilities: Capabilities) -> Acceptance {
//!     Acceptance { capabilities, untagged: Vec::new(), text: String::new() }
//! }
//! ```
//! ```compile_fail,E0308
//! use ferrypost_wire::{FrontSettings, imap::{Capabilities, Offer}};
//! fn offer_anything(settings: &mut FrontSettings<Offer>, list: Capabilities) {
//!     settings.offer = std::sync::Arc::new(list);
//! }
//! ```
//!
//! # What every machine keeps to
//!
//! - Feeding it one byte at a time gives the same steps as feeding everything at once.
//! - What it consumed plus what is left in the [`WireBuf`] is its input: it never reads ahead. What
//!   a client pipelined behind its login stays in the buffer, untouched.
//! - No input makes it panic or hold more than its limits say.
#![warn(missing_docs)]

mod answered;
mod buf;
mod code;
#[macro_use]
mod dispatch;
mod facts;
mod foreign;
pub mod imap;
mod keywords;
mod lines;
pub mod lmtp;
pub mod pop3;
mod refusal;
mod reply;
pub mod sasl;
mod secret;
mod settings;
pub mod sieve;
pub mod smtp;
pub mod socketmap;
mod text;
mod xclient;

use std::fmt;

pub use answered::Answered;
pub use buf::{Full, LineTooLong, WireBuf};
pub use facts::{
    ClientFacts, HopLimit, IdField, Introduction, InvalidReference, SessionReference, TlsFacts,
};
pub use keywords::Keywords;
pub use refusal::Refusal;
pub use reply::{
    BackendViolation, ClientReply, ClientViolation, Farewell, Rejection, RejectionKind,
};
pub use secret::{
    Bearer, BearerFrame, Credentials, InvalidCredentials, Password, Secret, SecretWriter,
};
pub use settings::{BackLimits, BackSettings, Channel, FrontLimits, FrontSettings, Tokens};

protocols! {
    /// `IMAP4rev1` and `IMAP4rev2` (RFC 3501, RFC 9051).
    Imap: imap::Imap = "imap",
    /// POP3 (RFC 1939).
    Pop3: pop3::Pop3 = "pop3",
    /// `ManageSieve` (RFC 5804).
    ManageSieve: sieve::Sieve = "managesieve",
    /// Message submission (RFC 6409).
    Submission: smtp::Submission = "submission",
}

/// What a server says that it can do: each protocol has a form of its own.
///
/// Equal are two that mean the same, in whatever order and case: a server that shuffles its list has not
/// changed.
pub trait Capabilities: Clone + Eq + fmt::Debug + Send + Sync + 'static {
    /// Takes them one by one, as a server says them or as an operator writes them in their place; what is
    /// not fit is left out.
    fn from_items<'a>(items: impl IntoIterator<Item = &'a str>) -> Self;

    /// One by one, printable and bounded; [`from_items`](Self::from_items) makes the same of them.
    fn items(&self) -> Vec<String>;
}

/// What we offer to clients before login, on a leg that may carry secrets. Made only by
/// [`LineProtocol::offer`], so that nothing is offered that a destination cannot do.
pub trait Offer: Eq + fmt::Debug + Send + Sync + 'static {
    /// What it says, one by one, for the operator's eyes.
    fn items(&self) -> Vec<String>;
}

/// One protocol: its three machines, how they are made, and what it says in its own form.
pub trait LineProtocol: Sized + 'static {
    /// Which protocol this is.
    const KIND: ProtocolKind;
    /// Its name in a TLS handshake (RFC 7301), if one is registered.
    const ALPN: Option<&'static str> = Some(Self::KIND.as_str());
    /// What a server says that it can do.
    type Capabilities: Capabilities;
    /// What we say that we can do, before login.
    type Offer: Offer;
    /// What a backend says to a login that it accepts. Made only by a [`Login`].
    type Welcome: fmt::Debug + Send + 'static;
    /// The machine that faces the client before it is logged in.
    type Front: Front<Follow = Self::Follow, Welcome = Self::Welcome>;
    /// The machine that faces the backend until it may be given credentials.
    type Back: Negotiate<Capabilities = Self::Capabilities, Login: Login<Welcome = Self::Welcome>>;
    /// The machine that watches the relay.
    type Follow: Follower;

    /// What to offer before login, given what every destination that a listener can reach really
    /// offers (after TLS, before login).
    ///
    /// The result is their intersection, without what the proxy cannot carry, with what it does by
    /// itself as far as every destination can be replayed with. With no destination known it is the
    /// proxy's own minimum. Mechanisms that carry a token are in it only where `tokens` says that the account
    /// can be told from one, and a destination is known that takes it ([`sasl::offered`]).
    fn offer(destinations: &[Self::Capabilities], tokens: Tokens) -> Self::Offer;

    /// The least that a server can offer to which a login can be replayed: what a destination is taken
    /// to offer that never answered.
    fn least() -> Self::Capabilities;

    /// Whether sessions can be relayed to a server that offers this (`None`: it did not say), where
    /// `announced` is whether clients are announced to it in the protocol's own words.
    ///
    /// # Errors
    /// What is missing.
    fn fit(offered: Option<&Self::Capabilities>, announced: bool) -> Result<(), BackendViolation>;

    /// Whether a server that was brought to where a login may be sent is seen not to read the protocol's
    /// own announcement of clients.
    fn ignores_announcements(back: &Self::Back) -> bool;

    /// Whether such a server is seen to be one that ignores authorization identities (RFC 4616 §2) and logs in
    /// the owner of the password. That it is not seen proves nothing.
    fn ignores_authorization(back: &Self::Back) -> bool;

    /// The machine for a client that has just connected.
    fn front(settings: FrontSettings<Self::Offer>) -> Self::Front;

    /// The machine for a backend connection that has just been opened (after the handshake, where
    /// TLS is implicit).
    fn back(settings: BackSettings) -> Self::Back;
}

/// The client's side before login: we are the server.
pub trait Front: Send + 'static {
    /// What watches the relay once this client is logged in.
    type Follow: Follower;
    /// What the backend said to the login.
    type Welcome;

    /// Writes the greeting. Called once, before the first [`step`](Self::step); it may go out in
    /// the TLS handshake's last flight.
    fn greet(&mut self, out: &mut Vec<u8>);

    /// Consumes what it can of `input` and appends to `out` what the client is to read.
    ///
    /// `out` is to be sent whatever the result: on an error it holds the farewell. While a login is
    /// pending nothing is consumed.
    ///
    /// # Errors
    /// The session must end; a mistake that the client can mend is answered through `out` instead.
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<FrontStep, ClientViolation>;

    /// The TLS handshake that [`FrontStep::StartTls`] asked for is done: forgets all that the
    /// client said in clear (RFC 9051 §6.2.1), and appends to `out` what it is to read unasked, where
    /// the protocol has it so (RFC 5804 §2.2).
    fn secured(&mut self, out: &mut Vec<u8>);

    /// What the client has said about itself so far, to be announced to the backend.
    fn introduction(&self) -> Introduction;

    /// Writes a sign of life for a client whose login is held. Nothing, where the protocol has no
    /// way to say it.
    fn held(&mut self, out: &mut Vec<u8>);

    /// Answers the pending login, if there is one, with something other than success; with
    /// [`ClientReply::Closing`] it also says goodbye.
    ///
    /// The pending request is gone afterwards, though the machine may keep its last words until the
    /// client has answered one more challenge (RFC 7628 §3.2.3), which the next
    /// [`step`](Self::step) reads. Unless the reply [closes](ClientReply::closes) the session the
    /// client may try again.
    fn reply(&mut self, reply: ClientReply, out: &mut Vec<u8>);

    /// Answers the pending login with success, in the backend's words, and yields what the relay
    /// needs. The last act before the relay.
    fn accept(self, welcome: Self::Welcome, out: &mut Vec<u8>) -> Self::Follow;
}

/// What the driver is to do after [`Front::step`].
pub enum FrontStep {
    /// Send `out`, read more, step again.
    NeedMore,
    /// Send `out`, shake hands, call [`Front::secured`].
    ///
    /// If the client's [`WireBuf`] is not empty at this point, then something was injected behind
    /// the command: close *without* sending `out` (RFC 9051 §6.2.1; a driver whose upgrade demands
    /// an empty buffer cannot get this wrong).
    StartTls,
    /// Route and replay these; then call [`Front::reply`] or [`Front::accept`]. `out` may hold
    /// answers to earlier commands.
    Login(Credentials),
    /// The client tried to log in with what cannot be credentials, which is a failed login like any other:
    /// call [`Front::reply`] with [`ClientReply::Unfit`].
    Unfit(InvalidCredentials),
    /// Send `out` and close: the client asked to leave.
    Close,
}

/// The backend's side up to the point where it may be given credentials: we are the client.
///
/// It may run in clear and has no way to emit a secret.
pub trait Negotiate: Send + 'static {
    /// What a server says that it can do.
    type Capabilities: Capabilities;
    /// What this becomes when it is ready.
    type Login: Login;

    /// Consumes what it can of `input` and appends to `out` what the backend is to read.
    ///
    /// # Errors
    /// This backend connection is of no use. No credential has been sent, so that another address
    /// of the same destination may be tried.
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation>;

    /// The TLS handshake that [`NegotiateStep::StartTls`] asked for is done: forgets all that was
    /// learnt in clear. (What the driver had buffered must have been empty, as on the client's
    /// side.)
    fn secured(&mut self);

    /// The greeting's text without its code, printable and shortened, for the operator's eyes;
    /// empty before there was one.
    fn greeting(&self) -> &str;

    /// What the backend offered in clear, if it said so before STARTTLS; for the operator's eyes,
    /// never for a decision.
    fn offered_in_clear(&self) -> Option<&Self::Capabilities>;

    /// What the backend offers on the leg as it is now; complete after [`NegotiateStep::Ready`].
    fn offered(&self) -> Option<&Self::Capabilities>;

    /// Writes a polite end for a connection that will not be logged in (a health probe's).
    fn leave(&mut self, out: &mut Vec<u8>);

    /// Takes the credentials. Only to be called after [`NegotiateStep::Ready`]; sooner, the login
    /// that it yields sends nothing and ends with [`BackendViolation::NotReady`].
    fn into_login(self, credentials: Credentials) -> Self::Login;
}

/// The backend's side from the connection up to where work for it can begin, whatever that is: a login, or a message. It
/// is all that opening a connection needs to know.
pub trait Open: Send + 'static {
    /// As [`Negotiate::step`].
    ///
    /// # Errors
    /// As there: another address of the same destination may be tried.
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation>;

    /// As [`Negotiate::secured`].
    fn secured(&mut self);

    /// As [`Negotiate::greeting`].
    fn greeting(&self) -> &str;

    /// As [`Negotiate::leave`].
    fn leave(&mut self, out: &mut Vec<u8>);
}

impl<N: Negotiate> Open for N {
    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        Negotiate::step(self, input, out)
    }

    fn secured(&mut self) {
        Negotiate::secured(self);
    }

    fn greeting(&self) -> &str {
        Negotiate::greeting(self)
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        Negotiate::leave(self, out);
    }
}

/// What the driver is to do after [`Negotiate::step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NegotiateStep {
    /// Send `out`, read more, step again.
    NeedMore,
    /// Shake hands (the read buffer must be empty) and call [`Negotiate::secured`].
    StartTls,
    /// The backend may be given credentials: [`Negotiate::into_login`].
    Ready,
    /// The backend will not have this client, as far as it has been announced: [`Front::reply`] with
    /// [`ClientReply::Rejected`]. The backend itself is well.
    Refused(Rejection),
}

/// The backend's side from the first octet of a secret to the verdict. Driven only on a leg that
/// may carry secrets.
pub trait Login: Send + 'static {
    /// What the backend says to a login that it accepts.
    type Welcome;

    /// Consumes what it can of `input`. What the backend sends behind its OK stays in `input` and
    /// belongs to the relay.
    ///
    /// # Errors
    /// No verdict was or will be reached. The credentials may have been sent.
    fn step(&mut self, input: &mut WireBuf) -> Result<LoginStep<Self::Welcome>, BackendViolation>;

    /// Ends this login and gives its credentials back, to be sent on another connection because nothing may
    /// come of this one. `None` after a refusal, unless that was [temporary](RejectionKind::Temporary): they
    /// are used up.
    fn into_credentials(self) -> Option<Credentials>;
}

/// What the driver is to do after [`Login::step`].
pub enum LoginStep<W> {
    /// Read more, step again.
    NeedMore,
    /// Send this to the backend and step again.
    Send(Secret),
    /// Logged in: [`Front::accept`].
    Accepted(W),
    /// Refused: [`Front::reply`] with [`ClientReply::Rejected`], and drop the backend leg.
    Rejected(Rejection),
}

/// Watches a relay without changing a byte and tells where it may be closed.
///
/// Both directions are shown to it in the order in which they are forwarded. It allocates nothing
/// and holds no more than a few hundred bytes.
pub trait Follower: Send + 'static {
    /// Looks at bytes from the client *before* they are forwarded.
    ///
    /// `chunk` starts with what the last verdict did not forward, if there was any. With `draining`
    /// nothing is let through behind the end of the command that is on its way. An empty chunk asks
    /// how things stand.
    fn client(&mut self, chunk: &[u8], draining: bool) -> ClientVerdict;

    /// What [`Then::Hold`] withholds has been withheld for too long: the answer that it waits for is not
    /// expected any more. It is let through when it is shown again, and the session is
    /// [opaque](Safety::Opaque) from here on.
    fn release(&mut self);

    /// Looks at bytes from the backend before they are forwarded; all of them are.
    fn server(&mut self, chunk: &[u8]);

    /// Whether the session may be closed here, as far as both directions have been shown.
    fn safety(&self) -> Safety;

    /// Whether the backend owes nothing that does not depend on more from the client: a client that ends here
    /// has left a command in the middle, and nobody will ever answer that.
    fn awaits_the_client(&self) -> bool;

    /// The words for ending the session at this very point of the backend's stream; `None` where
    /// they would end up inside something else or have been said by the backend already.
    ///
    /// [`Safety::Safe`] is about the client's work, this is about the grammar: at a drain's limit a
    /// busy session can be told goodbye at a line boundary too.
    fn goodbye(&self, why: Farewell) -> Option<&'static [u8]>;
}

/// How much of a chunk from the client to forward, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct ClientVerdict {
    /// Forward this many octets from the start of the chunk; the follower has counted these and no
    /// others.
    pub forward: usize,
    /// What to do with the rest.
    pub then: Then,
}

/// What a relay does after forwarding what a [`ClientVerdict`] allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Go on reading; all of the chunk was let through.
    Continue,
    /// Read no more from the client, and show the rest (there may be none) again after the next
    /// [`Follower::server`]: what the client's next octets mean depends on an answer that the
    /// backend still owes (a synchronising literal, IDLE, COMPRESS). Not for ever: the driver has a limit,
    /// and [`Follower::release`] for what comes then.
    Hold,
    /// The client is at a command boundary and the session is draining: read no more from it. Only
    /// with `draining`.
    Stop,
    /// End the session: the rest must never reach the backend.
    Refuse(Refusal),
}

/// Whether a relayed session may be closed without cutting anything short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// No command is open (or only IDLE is) and both directions are at a boundary.
    Safe,
    /// A command or an answer is on its way. Past a limit it may be cut.
    Busy,
    /// The backend has been given something whole that it may have taken over, and has not said so yet: an
    /// end here, and the client does it again. No limit cuts it; a fence that waits for it does not drain.
    Committed,
    /// The stream can no longer be followed (compressed, or not as expected): no words of ours may
    /// be put into it.
    Opaque,
}

impl Safety {
    /// Whether something is on its way that an end here would cut short.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Busy | Self::Committed)
    }
}
