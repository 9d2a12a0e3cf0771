//! How many may be connected to a port at once, and who makes room for the next. Nobody keeps others out by holding
//! connections and saying nothing: a probe that is not answered has a pod restarted (`docs/decisions/0043`).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The places of a port.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they came.
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    peer: IpAddr,
    trusted: bool,
    leave: CancellationToken,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    peer: IpAddr,
    leave: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            state: Mutex::default(),
        })
    }

    /// Takes a place. Where all are taken, somebody makes room: of the address that would have the most of them, the
    /// oldest. So whoever has few keeps them however many another opens. Those who have shown a token stay; `None`: all have.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = customer(peer);
        let mut state = self.state();
        if state.taken.len() >= self.most {
            let number = state.who_leaves(peer)?;
            let left = state.taken.remove(&number)?;
            left.leave.cancel();
        }
        let (number, leave) = (state.next, CancellationToken::new());
        state.next += 1;
        let taken = Taken {
            peer,
            trusted: false,
            leave: leave.clone(),
        };
        state.taken.insert(number, taken);
        Some(Place {
            places: Arc::clone(self),
            number,
            peer,
            leave,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn who_leaves(&self, newcomer: IpAddr) -> Option<u64> {
        let strangers = || self.taken.iter().filter(|(_, taken)| !taken.trusted);
        let mut held = HashMap::from([(newcomer, 1_usize)]);
        for (_, taken) in strangers() {
            *held.entry(taken.peer).or_default() += 1;
        }
        let most = held.values().max()?;
        let mut of_the_most = strangers().filter(|(_, taken)| held.get(&taken.peer) == Some(most));
        of_the_most.next().map(|(number, _)| *number)
    }
}

impl Place {
    /// The customer who has it.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// A token of ours was shown: it is kept from now on.
    pub(super) fn keep(&self) {
        if let Some(taken) = self.places.state().taken.get_mut(&self.number) {
            taken.trusted = true;
        }
    }

    /// Waits until another has got it.
    pub(super) async fn lost(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().taken.remove(&self.number);
    }
}

/// What one caller can change at will is not who he is: the lower half of an IPv6 address.
pub(super) fn customer(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_lost(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[test]
    fn who_opens_many_makes_room_for_who_opens_one() {
        let places = Places::new(4);
        let probe = places.take(address(1)).unwrap();
        let flood: Vec<_> = (0..9).map(|_| places.take(address(2)).unwrap()).collect();
        assert!(!is_lost(&probe));
        let lost: Vec<_> = flood.iter().map(is_lost).collect();
        assert_eq!(lost, [[true; 6].as_slice(), &[false; 3]].concat());
        let another = places.take(address(3)).unwrap();
        assert!(!is_lost(&probe) && !is_lost(&another) && is_lost(&flood[6]));
    }

    #[test]
    fn among_many_that_have_one_each_the_oldest_makes_room() {
        let places = Places::new(3);
        let held: Vec<_> = (1..=4)
            .map(|last| places.take(address(last)).unwrap())
            .collect();
        let lost: Vec<_> = held.iter().map(is_lost).collect();
        assert_eq!(lost, [true, false, false, false]);
    }

    #[test]
    fn a_place_that_is_given_back_is_free() {
        let places = Places::new(2);
        let first = places.take(address(1)).unwrap();
        for _ in 0..9 {
            drop(places.take(address(1)).unwrap());
        }
        assert!(!is_lost(&first));
        drop(first);
        assert!(places.state().taken.is_empty());
    }

    #[test]
    fn who_has_shown_a_token_stays() {
        let places = Places::new(2);
        let operator = places.take(address(1)).unwrap();
        operator.keep();
        let strangers: Vec<_> = (0..3).map(|_| places.take(address(1)).unwrap()).collect();
        assert!(!is_lost(&operator));
        strangers[2].keep();
        assert!(places.take(address(2)).is_none());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let places = Places::new(2);
        let network = 0x2001_0db8_u128 << 96;
        let probe = places.take(address(1)).unwrap();
        let of_one: Vec<_> = (0..3)
            .map(|n| places.take(IpAddr::V6((network | n).into())).unwrap())
            .collect();
        let lost: Vec<_> = of_one.iter().map(is_lost).collect();
        assert_eq!((is_lost(&probe), lost), (false, vec![true, true, false]));
    }
}
