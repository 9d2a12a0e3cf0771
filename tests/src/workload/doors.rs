//! Where clients connect, by protocol.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::imap::{Connect, Security};
use crate::sieve::SieveConnect;
use crate::world::{Entrance, World};

use super::Tls;

/// The listeners of one data plane.
pub(super) struct Doors {
    imaps: Connect,
    imap: Connect,
    pop3s: Connect,
    pop3: Connect,
    sieve: SieveConnect,
    submission: Option<Connect>,
    lmtp: Option<Connect>,
    web: Option<Connect>,
    is_on_loopback: bool,
}

impl Doors {
    /// Those of a data plane, counted from 0.
    pub(super) fn of(world: &World, data_plane: usize) -> Self {
        let plane = &world.data_planes()[data_plane];
        let tls = |at: SocketAddr| Connect::new(at, Security::Tls(world.trust()));
        let later = |at: SocketAddr| Connect::new(at, Security::StartTls(world.trust()));
        Self {
            imaps: tls(plane.imaps()),
            imap: later(plane.imap()),
            pop3s: tls(plane.addr(Entrance::Pop3s)),
            pop3: later(plane.addr(Entrance::Pop3)),
            sieve: SieveConnect::new(plane.sieve(), world.trust(), Ipv4Addr::LOCALHOST.into()),
            submission: plane.submission().map(later),
            lmtp: plane
                .deliveries()
                .map(|at| Connect::new(at, Security::Plain)),
            web: plane.web().map(tls),
            is_on_loopback: plane.imaps().ip().is_loopback(),
        }
    }

    pub(super) fn imap(&self, tls: Tls) -> Connect {
        match tls {
            Tls::Implicit => self.imaps.clone(),
            Tls::Starttls => self.imap.clone(),
        }
    }

    /// From an address of loopback, by which the servers' logs tell clients apart, unless the data plane is elsewhere.
    pub(super) fn pop3(&self, tls: Tls, from: IpAddr) -> Connect {
        let connect = match tls {
            Tls::Implicit => self.pop3s.clone(),
            Tls::Starttls => self.pop3.clone(),
        };
        if self.is_on_loopback {
            connect.from(from)
        } else {
            connect
        }
    }

    /// From an address, as [`Doors::pop3`]; always with STARTTLS.
    pub(super) fn sieve(&self, from: IpAddr) -> SieveConnect {
        let from = if self.is_on_loopback {
            from
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        self.sieve.clone().from(from)
    }

    /// In clear; nothing in a world without deliveries.
    pub(super) fn lmtp(&self) -> Option<Connect> {
        self.lmtp.clone()
    }

    /// Over TLS; nothing in a world without HTTP.
    pub(super) fn web(&self) -> Option<Connect> {
        self.web.clone()
    }

    /// Always with STARTTLS; nothing in a world without submission.
    pub(super) fn submission(&self) -> Option<Connect> {
        self.submission.clone()
    }
}
