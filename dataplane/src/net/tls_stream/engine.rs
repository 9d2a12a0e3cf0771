//! The cryptographic half: rustls' states turned into octets to send and octets to read. No I/O.

use std::io;

use rustls::{
    CommonState, Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
        WriteTraffic,
    },
};

/// An end of a TLS session.
pub(crate) trait Session: Send + Unpin {
    /// What rustls keeps for this end.
    type Data;

    /// rustls' function of the same name.
    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What was agreed.
    fn common(&self) -> &CommonState;
}

impl Session for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process_tls_records<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        (**self).process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// A session and what it wants to be sent of its own accord.
pub(super) struct Engine<S> {
    session: S,
    /// Records to be sent before anything else.
    pub(super) outgoing: Vec<u8>,
    /// The peer has said that it will send no more.
    pub(super) peer_ended: bool,
    /// TLS has failed: there is nothing left to ask it for.
    failed: bool,
}

/// Where a handshake stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// It is over, once what is to be sent has been sent.
    Done,
    /// It needs more from the peer.
    NeedsInput,
}

impl<S: Session> Engine<S> {
    pub(super) fn new(session: S) -> Self {
        Self {
            session,
            outgoing: Vec::new(),
            peer_ended: false,
            failed: false,
        }
    }

    /// What was agreed.
    pub(super) fn common(&self) -> &CommonState {
        self.session.common()
    }

    /// Takes a step of the handshake. Returns how much of `incoming` it has used up. `early` is sent as
    /// soon as the protocol allows, and is empty afterwards.
    pub(super) fn shake_hands(
        &mut self,
        incoming: &mut [u8],
        early: &mut &[u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<(usize, Handshake), Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut incoming[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(mut data)) => {
                    // In the same flight, and so in the same packet.
                    if let Some(mut traffic) = data.may_encrypt_app_data() {
                        send_early(&mut self.outgoing, &mut traffic, early)?;
                    }
                    data.done();
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    send_early(&mut self.outgoing, &mut traffic, early)?;
                    let done = !self.session.common().is_handshaking();
                    let stand = if done {
                        Handshake::Done
                    } else {
                        Handshake::NeedsInput
                    };
                    return Ok((used, stand));
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        used += record.discard;
                        plain(record.payload);
                    }
                }
                Ok(ConnectionState::BlockedHandshake) => return Ok((used, Handshake::NeedsInput)),
                Ok(ConnectionState::PeerClosed) => self.peer_ended = true,
                Ok(_) => return Err(Error::HandshakeNotComplete),
                Err(error) => return Err(self.alerted(&mut incoming[used..], error)),
            }
        }
    }

    /// Decrypts every whole record of `incoming`. Returns how much of it is used up.
    pub(super) fn decrypt(
        &mut self,
        incoming: &mut [u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<usize, Error> {
        if self.failed {
            return Err(Error::HandshakeNotComplete);
        }
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.session.process_tls_records(&mut incoming[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        used += record.discard;
                        plain(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_ended = true,
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => return Ok(used),
                Ok(_) => return Err(Error::HandshakeNotComplete),
                Err(error) => return Err(self.alerted(&mut incoming[used..], error)),
            }
        }
    }

    /// Encrypts `plain` into `into`, which has room for it. Returns how many octets that made. `incoming` is
    /// what was received and makes no whole record.
    pub(super) fn encrypt(
        &mut self,
        incoming: &mut [u8],
        plain: &[u8],
        into: &mut [u8],
    ) -> io::Result<usize> {
        self.with_traffic(incoming, |traffic, _| match traffic.encrypt(plain, into) {
            Ok(count) => Ok(count),
            Err(EncryptError::InsufficientSize(_)) => Err(io::ErrorKind::OutOfMemory.into()),
            Err(EncryptError::EncryptExhausted) => Err(tls(Error::EncryptError)),
        })
    }

    /// Says that we will send no more.
    pub(super) fn close(&mut self, incoming: &mut [u8]) -> io::Result<()> {
        self.with_traffic(incoming, |traffic, outgoing| {
            append(outgoing, |room| traffic.queue_close_notify(room)).map_err(tls)
        })
    }

    fn with_traffic<T>(
        &mut self,
        incoming: &mut [u8],
        work: impl FnOnce(&mut WriteTraffic<'_, S::Data>, &mut Vec<u8>) -> io::Result<T>,
    ) -> io::Result<T> {
        while !self.failed {
            match self.session.process_tls_records(incoming).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return work(&mut traffic, &mut self.outgoing);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, |room| data.encode(room)).map_err(tls)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_ended = true,
                Ok(_) => break,
                Err(error) => return Err(tls(self.alerted(incoming, error))),
            }
        }
        Err(tls(Error::EncryptError))
    }

    /// Queues the alert that tells the peer what was wrong. `incoming` is what is left: rustls remembers
    /// places in it. It is asked this once more and never again, since it takes every further question
    /// for another failure.
    fn alerted(&mut self, incoming: &mut [u8], error: Error) -> Error {
        self.failed = true;
        if let Ok(ConnectionState::EncodeTlsData(mut data)) =
            self.session.process_tls_records(incoming).state
        {
            _ = append(&mut self.outgoing, |room| data.encode(room));
        }
        error
    }
}

/// An error of TLS as one of I/O; the original stays inside.
pub(super) fn tls(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn send_early<D>(
    outgoing: &mut Vec<u8>,
    traffic: &mut WriteTraffic<'_, D>,
    early: &mut &[u8],
) -> Result<(), Error> {
    let early = std::mem::take(early);
    if early.is_empty() {
        return Ok(());
    }
    append(outgoing, |room| traffic.encrypt(early, room))
}

/// Lets `encode` write at the end of `out`: it says how much room it needs, and gets it.
fn append<E: Into<Shortage>>(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    let start = out.len();
    let needed = match encode(&mut []).map_err(Into::into) {
        Ok(_) => return Ok(()),
        Err(Shortage(Some(needed))) => needed,
        Err(Shortage(None)) => return Err(Error::EncryptError),
    };
    out.resize(start + needed, 0);
    let written = encode(&mut out[start..]);
    let written = written.map_err(|error| match error.into() {
        Shortage(_) => Error::EncryptError,
    })?;
    out.truncate(start + written);
    Ok(())
}

/// How much room was missing, if that is what went wrong.
struct Shortage(Option<usize>);

impl From<EncodeError> for Shortage {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl From<EncryptError> for Shortage {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}
