//! Where connections to servers come from on this machine, and whether they end at it again.

use std::net::{IpAddr, SocketAddr};

use super::{ConnectError, TcpStream, connect, connect_from};

/// The local addresses of connections to servers: one of each family at most; without one the system chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sources {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// Two addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there are two addresses of one family; name one IPv4 address and one IPv6 address at most"
)]
pub struct TwoOfAFamily;

impl Sources {
    /// These addresses.
    ///
    /// # Errors
    /// [`TwoOfAFamily`].
    pub fn new(addresses: &[IpAddr]) -> Result<Self, TwoOfAFamily> {
        let mut sources = Self::default();
        for address in addresses {
            let of_family = sources.of_family(address.is_ipv4());
            if of_family.replace(*address).is_some() {
                return Err(TwoOfAFamily);
            }
        }
        Ok(sources)
    }

    fn of_family(&mut self, is_v4: bool) -> &mut Option<IpAddr> {
        if is_v4 { &mut self.v4 } else { &mut self.v6 }
    }

    /// Connects to an address.
    pub(super) async fn connect(mut self, address: SocketAddr) -> Result<TcpStream, ConnectError> {
        match *self.of_family(address.is_ipv4()) {
            Some(source) => connect_from(source, address).await,
            None => Ok(connect(address).await?),
        }
    }
}

/// Where clients connect to this data plane.
#[derive(Debug, Clone, Default)]
pub struct OwnListeners(Vec<SocketAddr>);

impl OwnListeners {
    /// These, as they are bound.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether a connection of ours has ended at one of them.
    pub(super) fn have(&self, stream: &TcpStream) -> bool {
        match (stream.local_addr(), stream.peer_addr()) {
            (Ok(local), Ok(peer)) => self.are_between(super::plain(local), super::plain(peer)),
            _ => false,
        }
    }

    /// A listener on all addresses has every connection that goes to its port and leaves from the address that it goes to:
    /// that one never left this machine.
    fn are_between(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let at_port = self.0.iter().filter(|own| own.port() == peer.port());
        let mut own = at_port.map(|own| own.ip().to_canonical());
        own.any(|own| own == peer.ip() || (own.is_unspecified() && local.ip() == peer.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{accept, listen};

    #[tokio::test]
    async fn a_connection_comes_from_the_address_of_its_family() {
        let sources: [IpAddr; 2] = ["127.0.0.77".parse().unwrap(), "::1".parse().unwrap()];
        let sources = Sources::new(&sources).unwrap();
        for (listen_at, from) in [("127.0.0.1:0", "127.0.0.77"), ("[::1]:0", "::1")] {
            let listener = listen(listen_at.parse().unwrap()).unwrap();
            let stream = sources.connect(listener.local_addr().unwrap()).await;
            let (_, peer) = accept(&listener).await.unwrap();
            assert_eq!(peer.ip(), from.parse::<IpAddr>().unwrap());
            drop(stream.unwrap());
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_this_machine_s_is_told_from_a_server_that_is_away() {
        let sources = Sources::new(&["192.0.2.77".parse().unwrap()]).unwrap();
        let failure = sources.connect("127.0.0.1:9".parse().unwrap()).await;
        let failure = failure.unwrap_err();
        assert!(matches!(failure, ConnectError::Source { .. }), "{failure}");
        assert!(
            failure
                .to_string()
                .starts_with("cannot connect from 192.0.2.77: ")
        );
    }

    #[test]
    fn one_address_of_each_family() {
        let parsed = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            Sources::new(&addresses)
        };
        assert!(parsed(&["192.0.2.1", "2001:db8::1"]).is_ok());
        assert_eq!(parsed(&["192.0.2.1", "192.0.2.2"]), Err(TwoOfAFamily));
    }

    #[test]
    fn a_listener_is_known_by_its_address_or_by_a_way_that_never_left() {
        let address = |text: &str| text.parse().unwrap();
        let own = OwnListeners::new([address("192.0.2.1:993"), address("[::]:143")]);
        let between = |local: &str, peer: &str| own.are_between(address(local), address(peer));
        assert!(between("192.0.2.9:4000", "192.0.2.1:993"));
        assert!(between("192.0.2.1:4000", "192.0.2.1:143"));
        assert!(between("[2001:db8::1]:4000", "[2001:db8::1]:143"));
        assert!(!between("192.0.2.1:4000", "192.0.2.2:143"));
        assert!(!between("192.0.2.1:4000", "127.0.0.1:993"));
        assert!(!between("192.0.2.1:4000", "192.0.2.1:110"));
    }
}
