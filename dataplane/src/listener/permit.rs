//! How many clients may be connected: altogether, on one listener, from one address, from one network.

use std::{
    collections::{HashMap, hash_map},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::{ConnectionLimits, KnownNetwork},
    network::Network,
};

/// The limits that all listeners share. Cheap to clone; clones share the counts.
#[derive(Clone)]
pub struct Permits {
    total: Arc<Semaphore>,
    origins: Arc<Origins>,
}

/// A place among the connections: free again when it is dropped.
pub(crate) struct Place {
    _total: OwnedSemaphorePermit,
    _listener: Option<OwnedSemaphorePermit>,
}

/// A place among the connections of where a client comes from: free again when it is dropped.
pub(crate) struct OriginPlace {
    origins: Arc<Origins>,
    taken: Taken,
}

/// Where the connections that are limited come from.
struct Origins {
    limits: ConnectionLimits,
    /// The smallest first.
    known: Vec<KnownNetwork>,
    counts: Mutex<HashMap<Network, usize>>,
}

/// What a client counts in.
#[derive(Clone, Copy)]
enum Taken {
    /// Its own address and its network.
    Strangers { customer: Network, site: Network },
    /// A network with a limit of its own.
    Known(KnownNetwork),
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All connections.
    #[error("too many connections")]
    Total,
    /// Those of the listener.
    #[error("too many connections on this listener")]
    Listener,
    /// Those of the address.
    #[error("too many connections from {0} (limits.connections.per_address)")]
    Address(Network),
    /// Those of the network.
    #[error("too many connections from {0} (limits.connections.per_network)")]
    Network(Network),
    /// Those of a network with a limit of its own.
    #[error("too many connections from {0} (limits.connections.networks)")]
    Known(Network),
}

impl Permits {
    /// Nobody is connected.
    pub fn new(limits: ConnectionLimits, known: &[KnownNetwork]) -> Self {
        let mut known = known.to_vec();
        known.sort_by_key(|known| std::cmp::Reverse(known.network.prefix()));
        Self {
            total: Arc::new(Semaphore::new(limits.total.min(Semaphore::MAX_PERMITS))),
            origins: Arc::new(Origins {
                limits,
                known,
                counts: Mutex::default(),
            }),
        }
    }

    /// Takes a place, and one of the listener's own if it has a limit.
    pub(crate) fn place(&self, listener: Option<&Arc<Semaphore>>) -> Result<Place, Full> {
        let listener = listener
            .map(|places| Arc::clone(places).try_acquire_owned())
            .transpose()
            .map_err(|_| Full::Listener)?;
        let total = Arc::clone(&self.total)
            .try_acquire_owned()
            .map_err(|_| Full::Total)?;
        Ok(Place {
            _total: total,
            _listener: listener,
        })
    }

    /// Takes a place of the address and of its network.
    pub(crate) fn origin(&self, address: IpAddr) -> Result<OriginPlace, Full> {
        let taken = self.origins.of(address);
        self.origins.take(taken)?;
        Ok(OriginPlace {
            origins: Arc::clone(&self.origins),
            taken,
        })
    }
}

impl Origins {
    fn of(&self, address: IpAddr) -> Taken {
        let known = self
            .known
            .iter()
            .find(|known| known.network.contains(address));
        known.map_or_else(
            || Taken::Strangers {
                customer: Network::of_customer(address),
                site: Network::of_site(address),
            },
            |known| Taken::Known(*known),
        )
    }

    /// Counts in all of them, or in none.
    fn take(&self, taken: Taken) -> Result<(), Full> {
        let mut counts = self.counts();
        let count = |network| counts.get(&network).copied().unwrap_or_default();
        match taken {
            Taken::Strangers { customer, .. } if count(customer) >= self.limits.per_address => {
                return Err(Full::Address(customer));
            }
            Taken::Strangers { site, .. } if count(site) >= self.limits.per_network => {
                return Err(Full::Network(site));
            }
            Taken::Known(known) if count(known.network) >= known.connections => {
                return Err(Full::Known(known.network));
            }
            Taken::Strangers { .. } | Taken::Known(_) => {}
        }
        for network in taken.networks() {
            *counts.entry(network).or_default() += 1;
        }
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn networks(self) -> impl Iterator<Item = Network> {
        let (first, second) = match self {
            Self::Strangers { customer, site } => (customer, Some(site)),
            Self::Known(known) => (known.network, None),
        };
        std::iter::once(first).chain(second)
    }
}

impl Drop for OriginPlace {
    fn drop(&mut self) {
        let mut counts = self.origins.counts();
        for network in self.taken.networks() {
            if let hash_map::Entry::Occupied(mut entry) = counts.entry(network) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(total: usize, per_address: usize, per_network: usize) -> Permits {
        let limits = ConnectionLimits {
            total,
            per_address,
            per_network,
            ..ConnectionLimits::default()
        };
        let known = |network: &str, connections| KnownNetwork {
            network: network.parse().unwrap(),
            connections,
        };
        let known = [known("198.51.100.0/24", 3), known("198.51.100.7", 2)];
        Permits::new(limits, &known)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Takes places for all of them; the last one is one too many.
    fn last_is_refused(permits: &Permits, addresses: &[&str]) -> Full {
        let (last, others) = addresses.split_last().unwrap();
        let places: Vec<_> = others
            .iter()
            .map(|address| permits.origin(ip(address)).ok().unwrap())
            .collect();
        let full = permits.origin(ip(last)).err().unwrap();
        drop(places);
        assert!(
            permits.origin(ip(last)).is_ok(),
            "the places are free again"
        );
        full
    }

    #[test]
    fn the_limit_is_served_and_one_more_is_not_until_one_leaves() {
        let permits = permits(2, 10, 10);
        let first = permits.place(None).ok().unwrap();
        let _second = permits.place(None).ok().unwrap();
        assert_eq!(permits.place(None).err(), Some(Full::Total));
        drop(first);
        assert!(permits.place(None).is_ok());
    }

    #[test]
    fn a_listener_has_a_limit_of_its_own() {
        let permits = permits(10, 10, 10);
        let listener = Arc::new(Semaphore::new(1));
        let _first = permits.place(Some(&listener)).ok().unwrap();
        assert_eq!(permits.place(Some(&listener)).err(), Some(Full::Listener));
        assert!(permits.place(None).is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_a_network_and_an_ipv4_customer_an_address() {
        let permits = permits(10, 1, 10);
        let first = permits.origin(ip("2001:db8::1")).ok().unwrap();
        let full = permits.origin(ip("2001:db8::2")).err().unwrap();
        assert_eq!(
            full.to_string(),
            "too many connections from 2001:db8::/64 (limits.connections.per_address)"
        );
        assert!(permits.origin(ip("2001:db8:0:1::1")).is_ok());
        drop(first);
        let _again = permits.origin(ip("2001:db8::2")).ok().unwrap();
        let _four = permits.origin(ip("192.0.2.1")).ok().unwrap();
        assert!(permits.origin(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn the_addresses_of_a_network_share_a_limit_above_that_of_each() {
        let permits = permits(100, 2, 3);
        let network = |text: &str| Full::Network(text.parse().unwrap());
        assert_eq!(
            last_is_refused(
                &permits,
                &["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
            ),
            network("192.0.2.0/24")
        );
        assert_eq!(
            last_is_refused(
                &permits,
                &[
                    "2001:db8::1",
                    "2001:db8:0:1::1",
                    "2001:db8:0:2::1",
                    "2001:db8:0:3::1"
                ]
            ),
            network("2001:db8::/48")
        );
    }

    #[test]
    fn a_known_network_has_its_own_limit_and_the_smallest_one_counts() {
        let permits = permits(100, 1, 1);
        let known = |text: &str| Full::Known(text.parse().unwrap());
        // More than an address may otherwise have, and one limit for all of them.
        assert_eq!(
            last_is_refused(
                &permits,
                &[
                    "198.51.100.1",
                    "198.51.100.1",
                    "198.51.100.2",
                    "198.51.100.3"
                ]
            ),
            known("198.51.100.0/24")
        );
        assert_eq!(
            last_is_refused(&permits, &["198.51.100.7", "198.51.100.7", "198.51.100.7"]),
            known("198.51.100.7")
        );
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let permits = permits(10, 1, 1);
        for address in ["192.0.2.1", "198.51.100.7"] {
            drop(permits.origin(ip(address)).ok().unwrap());
            assert!(permits.origins.counts().is_empty());
        }
    }
}
