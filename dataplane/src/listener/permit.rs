//! How many clients may be connected: altogether, on one listener, from one address.

use std::{
    collections::{HashMap, hash_map},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::ConnectionLimits;

/// The limits that all listeners share. Cheap to clone; clones share the counts.
#[derive(Clone)]
pub struct Permits {
    total: Arc<Semaphore>,
    addresses: Arc<Addresses>,
}

/// A place among the connections: free again when it is dropped.
pub(super) struct Place {
    _total: OwnedSemaphorePermit,
    _listener: Option<OwnedSemaphorePermit>,
}

/// A place among the connections of one address.
pub(super) struct AddressPlace {
    addresses: Arc<Addresses>,
    key: IpAddr,
}

struct Addresses {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// All connections.
    #[error("too many connections")]
    Total,
    /// Those of the listener.
    #[error("too many connections on this listener")]
    Listener,
    /// Those of the address.
    #[error("too many connections from this address")]
    Address,
}

impl Permits {
    /// Nobody is connected.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            total: Arc::new(Semaphore::new(limits.total.min(Semaphore::MAX_PERMITS))),
            addresses: Arc::new(Addresses {
                most: limits.per_address,
                counts: Mutex::default(),
            }),
        }
    }

    /// Takes a place, and one of the listener's own if it has a limit.
    pub(super) fn place(&self, listener: Option<&Arc<Semaphore>>) -> Result<Place, Full> {
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

    /// Takes a place of the address.
    pub(super) fn address(&self, address: IpAddr) -> Result<AddressPlace, Full> {
        let key = customer(address);
        let mut counts = self.addresses.counts();
        let count = counts.entry(key).or_default();
        if *count >= self.addresses.most {
            return Err(Full::Address);
        }
        *count += 1;
        Ok(AddressPlace {
            addresses: Arc::clone(&self.addresses),
            key,
        })
    }
}

impl Addresses {
    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let hash_map::Entry::Occupied(mut entry) = self.addresses.counts().entry(self.key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What one customer has: an IPv4 address, or the /64 of an IPv6 address.
fn customer(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(total: usize, per_address: usize) -> Permits {
        Permits::new(ConnectionLimits {
            total,
            per_address,
            ..ConnectionLimits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_limit_is_served_and_one_more_is_not_until_one_leaves() {
        let permits = permits(2, 10);
        let first = permits.place(None).ok().unwrap();
        let _second = permits.place(None).ok().unwrap();
        assert_eq!(permits.place(None).err(), Some(Full::Total));
        drop(first);
        assert!(permits.place(None).is_ok());
    }

    #[test]
    fn a_listener_has_a_limit_of_its_own() {
        let permits = permits(10, 10);
        let listener = Arc::new(Semaphore::new(1));
        let _first = permits.place(Some(&listener)).ok().unwrap();
        assert_eq!(permits.place(Some(&listener)).err(), Some(Full::Listener));
        assert!(permits.place(None).is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_a_network_and_an_ipv4_customer_an_address() {
        let permits = permits(10, 1);
        let first = permits.address(ip("2001:db8::1")).ok().unwrap();
        assert_eq!(
            permits.address(ip("2001:db8::2")).err(),
            Some(Full::Address)
        );
        assert!(permits.address(ip("2001:db8:0:1::1")).is_ok());
        drop(first);
        let _again = permits.address(ip("2001:db8::2")).ok().unwrap();
        let _four = permits.address(ip("192.0.2.1")).ok().unwrap();
        assert!(permits.address(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let permits = permits(10, 1);
        drop(permits.address(ip("192.0.2.1")).ok().unwrap());
        assert!(permits.addresses.counts().is_empty());
    }
}
