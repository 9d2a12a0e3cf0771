//! The mail system's side of a connection.

use std::{io, time::Duration};

use ferrypost_wire::{
    ClientViolation, Farewell,
    lmtp::{LmtpFront, LmtpStep},
};
use tokio::time::timeout;

use crate::{
    metrics::words::{Blame, SessionEnd},
    net::{
        leg::{Leg, LegError, LegState},
        tls_server::HandshakeError,
    },
    session::relay::LINGER,
};

/// A mail system, and what it has not been sent yet.
pub(super) struct Client<S: LegState> {
    pub(super) leg: Leg<S>,
    pub(super) front: LmtpFront,
    pub(super) out: Vec<u8>,
}

/// Why a mail system's connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// It said goodbye.
    #[error("the mail system left")]
    Left,
    /// Its connection failed or ended.
    #[error("the mail system: {0}")]
    Client(#[from] LegError),
    /// It broke the protocol.
    #[error(transparent)]
    Violation(#[from] ClientViolation),
    /// A CR or LF by itself: where its message ends is not certain.
    #[error("a bare CR or LF in the message")]
    Smuggled,
    /// It sent more behind DATA than may be, without the answer. If that is a message, its lines are not to be taken for
    /// commands.
    #[error("something was sent behind DATA before it was answered")]
    Impatient,
    /// It said nothing for too long.
    #[error("nothing was said within the limit")]
    Idle,
    /// This process ends.
    #[error("told to end: stopping")]
    Stopping,
    /// The TLS handshake did not succeed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It did not end in time.
    #[error("no TLS handshake within the limit")]
    HandshakeTimeout,
}

impl End {
    /// The label of metrics and logs.
    pub(super) const fn word(&self) -> SessionEnd {
        match self {
            Self::Left => SessionEnd::ClientLeft,
            Self::Client(LegError::Ended) => SessionEnd::ClientEnded,
            Self::Client(_) => SessionEnd::ClientFailed,
            Self::Violation(_) | Self::Smuggled | Self::Impatient => SessionEnd::ProtocolError,
            Self::Idle => SessionEnd::Idle,
            Self::Stopping => SessionEnd::Stopping,
            Self::Handshake(HandshakeError::TooOld(_)) => SessionEnd::TlsTooOld,
            Self::Handshake(_) => SessionEnd::HandshakeFailed,
            Self::HandshakeTimeout => SessionEnd::HandshakeTimeout,
        }
    }

    /// Whose doing it was.
    pub(super) const fn blame(&self) -> Blame {
        match self {
            Self::Left | Self::Client(LegError::Ended) | Self::Idle => Blame::Nobody,
            Self::Stopping => Blame::Us,
            Self::Client(_)
            | Self::Violation(_)
            | Self::Smuggled
            | Self::Impatient
            | Self::Handshake(_)
            | Self::HandshakeTimeout => Blame::Client,
        }
    }

    const fn farewell(&self) -> Option<Farewell> {
        match self {
            Self::Idle => Some(Farewell::IdleTimeout),
            Self::Stopping => Some(Farewell::ShuttingDown),
            _ => None,
        }
    }
}

impl<S: LegState> Client<S> {
    /// Takes what it has said, as far as that is there. `None`: more must be read.
    pub(super) fn step(&mut self) -> Result<Option<LmtpStep>, ClientViolation> {
        match self.front.step(self.leg.buffer(), &mut self.out)? {
            LmtpStep::NeedMore => Ok(None),
            step => Ok(Some(step)),
        }
    }

    /// A message was refused whose first octet may come when it is let: none may be there.
    pub(super) fn nothing_behind(&mut self) -> Result<(), End> {
        if self.leg.buffer().is_empty() {
            Ok(())
        } else {
            Err(End::Impatient)
        }
    }

    /// Frees the buffer of one that may say nothing for hours.
    pub(super) fn release(&mut self) {
        if self.front.is_idle() {
            self.leg.buffer().release();
        }
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<(), LegError> {
        let said = say(&mut self.leg, &self.out, limit).await;
        self.out.clear();
        said
    }

    /// Says goodbye where something may be said, and closes in good manners.
    pub(super) async fn leave(&mut self, end: &End) {
        if matches!(end, End::Client(LegError::Io(_)) | End::Handshake(_)) {
            return;
        }
        if let Some(farewell) = end.farewell().filter(|_| !self.leg.is_mid_write()) {
            self.front.farewell(farewell, &mut self.out);
        }
        let left = async {
            self.leg.write_public(&self.out).await?;
            self.leg.finish().await?;
            self.leg.peer_closed().await
        };
        _ = timeout(LINGER, left).await;
    }
}

/// Says something to a mail system, which has to make room for it in time.
pub(super) async fn say<S: LegState>(
    leg: &mut Leg<S>,
    octets: &[u8],
    limit: Duration,
) -> Result<(), LegError> {
    let said = timeout(limit, leg.write_public(octets)).await;
    said.unwrap_or(Err(LegError::Io(io::ErrorKind::TimedOut.into())))
}
