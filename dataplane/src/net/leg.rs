//! One side of a session: a connection with its read buffer.
//!
//! The leg's type says whether it may carry secrets. A login is replayed only on a leg that may:
//!
//! ```compile_fail
//! use ferrypost_dataplane::net::leg::{Leg, Plaintext};
//! async fn leak(leg: &mut Leg<Plaintext>, secret: ferrypost_wire::Secret) {
//!     leg.write_secret(secret).await;
//! }
//! ```
//! ```
//! use ferrypost_dataplane::net::leg::{Encrypted, Leg};
//! async fn send(leg: &mut Leg<Encrypted>, secret: ferrypost_wire::Secret) {
//!     leg.write_secret(secret).await;
//! }
//! ```
//!
//! The buffer belongs to the leg, and an upgrade to TLS consumes the leg and fails if anything is left
//! in it. What somebody in the middle appended to a STARTTLS command, or to the answer to it, has no place to
//! survive (RFC 9051 §6.2.1).

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ferrypost_proto::PlaintextConsent;
use ferrypost_wire::{Secret, WireBuf};
use tokio::io::AsyncWrite as _;

use super::{
    TcpStream,
    local::LocalStream,
    socket::{CloseProof, Socket},
    transport::{AnyTransport, Tls, Transport},
};

/// What a leg can be. Sealed: the kinds are those of this module.
#[expect(
    private_bounds,
    reason = "seals the trait, so that no other module can invent a leg that carries secrets"
)]
pub trait LegState: sealed::Sealed {}

/// A leg in clear. It carries no secret.
pub enum Plaintext {}
/// A leg under TLS.
pub enum Encrypted {}
/// A leg in clear that its endpoint's configuration declares safe.
pub enum ConsentedPlaintext {}

impl LegState for Plaintext {}
impl LegState for Encrypted {}
impl LegState for ConsentedPlaintext {}

/// Legs that secrets may be written to.
pub trait CarriesSecrets: LegState {}
impl CarriesSecrets for Encrypted {}
impl CarriesSecrets for ConsentedPlaintext {}

mod sealed {
    use super::{AnyTransport, Socket, Tls, Transport};

    pub(super) trait Sealed {
        type Io: Transport + Into<AnyTransport>;
    }
    impl Sealed for super::Plaintext {
        type Io = Socket;
    }
    impl Sealed for super::Encrypted {
        type Io = Tls;
    }
    impl Sealed for super::ConsentedPlaintext {
        type Io = Socket;
    }
}

/// A connection and what has been read from it and not yet consumed.
pub struct Leg<S: LegState> {
    io: S::Io,
    input: WireBuf,
    /// A write was begun and not ended: what the peer has of it is unknown.
    mid_write: bool,
}

/// How a leg fails.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// The peer has ended its side.
    #[error("the connection was closed by the peer")]
    Ended,
    /// The peer said more than the buffer may hold before it could be understood.
    #[error("the peer sent more than the limit without an end")]
    Full,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Octets were waiting behind the command, or behind the answer, that starts TLS: somebody put them
/// there. The connection is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("something was sent in clear behind the start of TLS")]
pub struct InjectedInput;

impl<S: LegState> Leg<S> {
    /// Reads once, appending to [`buffer`](Self::buffer). May be dropped while it waits without
    /// losing anything.
    ///
    /// # Errors
    /// [`LegError`].
    pub async fn fill(&mut self) -> Result<(), LegError> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LegError>> {
        if self.input.is_full() {
            return Poll::Ready(Err(LegError::Full));
        }
        // Waits without a buffer: a client that connects and says nothing costs none.
        ready!(self.io.poll_readable(cx))?;
        match ready!(self.io.poll_some(cx, self.input.spare()))? {
            0 => Poll::Ready(Err(LegError::Ended)),
            count => {
                self.input.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// What has been read.
    pub fn buffer(&mut self) -> &mut WireBuf {
        &mut self.input
    }

    /// Sends octets that anybody may see.
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn write_public(&mut self, octets: &[u8]) -> Result<(), LegError> {
        self.write(octets).await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), LegError> {
        if octets.is_empty() {
            return Ok(());
        }
        self.mid_write = true;
        let mut rest = octets;
        while !rest.is_empty() {
            let count = poll_fn(|cx| Pin::new(&mut self.io).poll_write(cx, rest)).await?;
            rest = &rest[count..];
        }
        self.flush().await?;
        self.mid_write = false;
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.io).poll_flush(cx)).await
    }

    /// Whether the last write was abandoned midway, so that nothing may be put behind it.
    pub fn is_mid_write(&self) -> bool {
        self.mid_write
    }

    /// Says that nothing more will be sent (`close_notify`, FIN).
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn finish(&mut self) -> Result<(), LegError> {
        Ok(poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await?)
    }

    /// Reads and drops what comes until the peer has closed its socket.
    ///
    /// # Errors
    /// [`LegError::Io`]: the connection was given up on our side.
    pub async fn peer_closed(&mut self) -> Result<CloseProof, LegError> {
        Ok(poll_fn(|cx| self.io.poll_peer_closed(cx)).await?)
    }

    /// What a relay needs. The login is over.
    pub(crate) fn into_parts(mut self) -> (AnyTransport, WireBuf) {
        self.io.carries_no_secrets_any_more();
        (self.io.into(), self.input)
    }
}

impl<S: CarriesSecrets> Leg<S> {
    /// Sends a secret.
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn write_secret(&mut self, secret: Secret) -> Result<(), LegError> {
        self.write(secret.expose()).await
    }
}

impl Leg<Plaintext> {
    /// A connection in clear whose buffer will hold at most `limit` octets.
    pub fn new(stream: TcpStream, limit: usize) -> Self {
        Self::on(stream.into(), limit)
    }

    /// The same of one that may never leave this machine.
    pub fn local(stream: LocalStream, limit: usize) -> Self {
        Self::on(stream.into(), limit)
    }

    fn on(io: Socket, limit: usize) -> Self {
        Self {
            io,
            input: WireBuf::new(limit),
            mid_write: false,
        }
    }

    /// The bare connection, to shake hands on.
    ///
    /// # Errors
    /// [`InjectedInput`] if the buffer is not empty; the connection is closed.
    pub(super) fn into_handshake(self) -> Result<(Socket, WireBuf), InjectedInput> {
        if self.input.is_empty() {
            Ok((self.io, self.input))
        } else {
            Err(InjectedInput)
        }
    }

    /// The same leg with its configuration's word that secrets are safe on it.
    pub fn with_consent(self, _: PlaintextConsent) -> Leg<ConsentedPlaintext> {
        Leg {
            io: self.io,
            input: self.input,
            mid_write: self.mid_write,
        }
    }
}

impl Leg<Encrypted> {
    /// A connection after the handshake, with the empty buffer of the leg that it was.
    pub(super) fn encrypted(stream: Tls, input: WireBuf) -> Self {
        Self {
            io: stream,
            input,
            mid_write: false,
        }
    }

    /// When the peer's certificate ends, in seconds since 1970. `None`: it has shown none, or one that cannot be read.
    pub fn certificate_end(&self) -> Option<i64> {
        self.io.certificate_end()
    }
}

/// A backend's side that may be given credentials.
pub enum BackendLeg {
    /// Under TLS.
    Tls(Leg<Encrypted>),
    /// In clear, as its endpoint's configuration wants it.
    Consented(Leg<ConsentedPlaintext>),
}

/// Calls a method of whichever leg it is.
macro_rules! on_either {
    ($self:ident, $leg:ident => $call:expr) => {
        match $self {
            Self::Tls($leg) => $call,
            Self::Consented($leg) => $call,
        }
    };
}

impl BackendLeg {
    /// As [`Leg::certificate_end`]; `None` without TLS.
    pub fn certificate_end(&self) -> Option<i64> {
        match self {
            Self::Tls(leg) => leg.certificate_end(),
            Self::Consented(_) => None,
        }
    }

    /// As [`Leg::fill`].
    ///
    /// # Errors
    /// [`LegError`].
    pub async fn fill(&mut self) -> Result<(), LegError> {
        on_either!(self, leg => leg.fill().await)
    }

    /// As [`Leg::write_public`].
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn write_public(&mut self, octets: &[u8]) -> Result<(), LegError> {
        on_either!(self, leg => leg.write_public(octets).await)
    }

    /// As [`Leg::write_secret`].
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn write_secret(&mut self, secret: Secret) -> Result<(), LegError> {
        on_either!(self, leg => leg.write_secret(secret).await)
    }

    /// As [`Leg::buffer`].
    pub fn buffer(&mut self) -> &mut WireBuf {
        on_either!(self, leg => leg.buffer())
    }

    /// As [`Leg::is_mid_write`].
    pub fn is_mid_write(&self) -> bool {
        on_either!(self, leg => leg.is_mid_write())
    }

    /// As [`Leg::finish`].
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn finish(&mut self) -> Result<(), LegError> {
        on_either!(self, leg => leg.finish().await)
    }

    /// As [`Leg::peer_closed`].
    ///
    /// # Errors
    /// [`LegError::Io`].
    pub async fn peer_closed(&mut self) -> Result<CloseProof, LegError> {
        on_either!(self, leg => leg.peer_closed().await)
    }

    pub(crate) fn into_parts(self) -> (AnyTransport, WireBuf) {
        on_either!(self, leg => leg.into_parts())
    }
}
