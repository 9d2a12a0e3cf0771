//! Logins that have come back to us: one that is on its way here must not begin another.
//!
//! A client has one connection, and with it one pair of addresses. Where a login of that pair is on its way to a server
//! and a PROXY header announces the same pair on another connection, the server was not a server, or led back here.
//! Nothing but the addresses has to survive the round, whoever is on it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// A client's connection: its own end of it, and ours.
pub(super) type Connection = (SocketAddr, SocketAddr);

/// The clients whose logins are on their way. Cheap to clone; clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Arc<Mutex<HashSet<Connection>>>);

/// A client whose login is on its way, for as long as this lives.
#[derive(Debug)]
pub(super) struct OnItsWay {
    rounds: Rounds,
    connection: Connection,
}

/// The login of this client is on its way already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CameRound;

impl Rounds {
    /// A login sets out.
    pub(super) fn set_out(&self, connection: Connection) -> Result<OnItsWay, CameRound> {
        if self.with(|set| set.insert(connection)) {
            let rounds = self.clone();
            Ok(OnItsWay { rounds, connection })
        } else {
            Err(CameRound)
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashSet<Connection>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.rounds.with(|set| set.remove(&self.connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_on_its_way_once_at_a_time() {
        let rounds = Rounds::default();
        let of_port = |port: u16| {
            let (peer, local) = (([192, 0, 2, 1], port), ([192, 0, 2, 9], 993));
            (peer.into(), local.into())
        };
        let first = rounds.set_out(of_port(4000)).unwrap();
        assert_eq!(rounds.set_out(of_port(4000)).unwrap_err(), CameRound);
        assert!(rounds.set_out(of_port(4001)).is_ok());
        drop(first);
        assert!(rounds.set_out(of_port(4000)).is_ok());
        assert!(rounds.with(|set| set.is_empty()));
    }
}
