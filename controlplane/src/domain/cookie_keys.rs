//! The keys by which data planes seal a sign-in into a cookie, and when they are replaced.
//!
//! ```text
//!            made           seals                            opens              gone
//!   key n      ├── SPREAD ──┼───────── ROTATE_EVERY ─────────┼── to the next ───┤
//!   key n+1                                            ├── SPREAD ──┼───────── ...
//! ```
//!
//! Two are in force at a time. A new one is told to every data plane before anybody seals by it, so that a cookie that
//! one has just given opens at all others; and the one before it opens for as long as a cookie that it has sealed may
//! live. Nobody is signed out by a rotation.

use std::time::Duration;

use ferrypost_http::rules::MAX_SECONDS;
use ferrypost_proto::store::v1::{CookieKey, CookieKeys};
use prost_types::Timestamp;

/// How long a key seals: a day longer than the longest sign-in that a rule may remember, so that when a key goes, two
/// of these after it was made, all that it has sealed is over. At a thousand sign-ins a second one key seals less than
/// the 2^32 for which random nonces are good with AES-GCM (NIST SP 800-38D §8.3).
pub const ROTATE_EVERY: Duration = Duration::from_secs(MAX_SECONDS + 24 * 60 * 60);

/// How long a new key is known before it seals. A data plane that has been cut off for longer cannot open what was
/// sealed meanwhile, and takes it for no cookie.
pub const SPREAD: Duration = Duration::from_hours(1);

/// Octets of a key: AES-256.
pub const KEY: usize = 32;

/// The keys that are to be in force at `now` instead of those that are; `None`: those are right. `fresh` makes a key.
///
/// What cannot be read is replaced as a whole. A clock that has gone back delays the next step, and one that has
/// jumped ahead takes it early: then people sign in again, and nothing else happens.
pub fn due(
    held: Option<&CookieKeys>,
    now: Timestamp,
    fresh: impl FnOnce() -> [u8; KEY],
) -> Option<CookieKeys> {
    let made = |id| CookieKey {
        id,
        key: fresh().to_vec().into(),
        made_at: Some(now),
    };
    let Some((newest, held)) = held.and_then(|held| Some((usable(held)?, held))) else {
        let known = held.into_iter().flat_map(|held| &held.keys);
        let id = next_id(known.map(|key| key.id).max().unwrap_or_default());
        return Some(CookieKeys {
            sealing: id,
            keys: vec![made(id)],
            ..CookieKeys::default()
        });
    };
    let is_older = |age| is_older(newest, now, age);
    if newest.id != held.sealing {
        return is_older(SPREAD).then(|| CookieKeys {
            sealing: newest.id,
            ..held.clone()
        });
    }
    is_older(ROTATE_EVERY).then(|| CookieKeys {
        keys: vec![newest.clone(), made(next_id(newest.id))],
        ..held.clone()
    })
}

/// The newest of the keys, if there are one or two of them, whole and distinct, and the one that seals is among them.
fn usable(held: &CookieKeys) -> Option<&CookieKey> {
    let is_whole = |key: &CookieKey| key.key.len() == KEY && key.made_at.is_some();
    let newest = held.keys.last()?;
    let good = held.keys.len() <= 2
        && held.keys.iter().all(is_whole)
        && held.keys.iter().filter(|key| key.id == newest.id).count() == 1
        && held.keys.iter().any(|key| key.id == held.sealing);
    good.then_some(newest)
}

fn next_id(id: u32) -> u32 {
    id.wrapping_add(1).max(1)
}

fn is_older(key: &CookieKey, now: Timestamp, age: Duration) -> bool {
    let made = key.made_at.unwrap_or(now).seconds;
    now.seconds.saturating_sub(made) >= i64::try_from(age.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn at(seconds: u64) -> Timestamp {
        Timestamp {
            seconds: i64::try_from(seconds).unwrap(),
            nanos: 0,
        }
    }

    fn ids(keys: &CookieKeys) -> (Vec<u32>, u32) {
        (keys.keys.iter().map(|key| key.id).collect(), keys.sealing)
    }

    /// Two years, looked at every ten minutes: what is in force from when on.
    fn history() -> Vec<(u64, CookieKeys)> {
        let mut held: Option<CookieKeys> = None;
        let mut history = Vec::new();
        for now in (0..2 * 365 * DAY).step_by(600) {
            let fresh = || [u8::try_from(history.len() + 1).unwrap(); KEY];
            if let Some(keys) = due(held.as_ref(), at(now), fresh) {
                history.push((now, keys.clone()));
                held = Some(keys);
            }
        }
        history
    }

    #[test]
    fn the_first_key_seals_at_once_and_each_later_one_when_everybody_knows_it() {
        let history = history();
        let steps: Vec<_> = history.iter().map(|(at, keys)| (*at, ids(keys))).collect();
        let (period, hour) = (ROTATE_EVERY.as_secs(), SPREAD.as_secs());
        assert_eq!(steps[0], (0, (vec![1], 1)));
        assert_eq!(steps[1], (period, (vec![1, 2], 1)));
        assert_eq!(steps[2], (period + hour, (vec![1, 2], 2)));
        assert_eq!(steps[3], (2 * period, (vec![2, 3], 2)));
        assert!(steps.len() > 40, "{}", steps.len());
    }

    #[test]
    fn whatever_was_sealed_opens_for_as_long_as_it_may_live() {
        let history = history();
        let in_force = |now: u64| {
            let (_, keys) = history.iter().rev().find(|(from, _)| *from <= now).unwrap();
            keys
        };
        for sealed in (0..365 * DAY).step_by(3600) {
            let by = in_force(sealed).sealing;
            let last = sealed + MAX_SECONDS;
            let opens = |now| in_force(now).keys.iter().any(|key| key.id == by);
            assert!(opens(sealed) && opens(last), "sealed at {sealed} by {by}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_replaced_under_an_id_that_was_not_used() {
        let whole = due(None, at(0), || [1; KEY]).unwrap();
        let broken = |change: &dyn Fn(&mut CookieKeys)| {
            let mut keys = whole.clone();
            keys.keys[0].id = 7;
            keys.sealing = 7;
            assert!(due(Some(&keys), at(1), || [2; KEY]).is_none());
            change(&mut keys);
            ids(&due(Some(&keys), at(1), || [2; KEY]).unwrap())
        };
        assert_eq!(broken(&|keys| keys.sealing = 6), (vec![8], 8));
        assert_eq!(broken(&|keys| keys.keys[0].key.truncate(31)), (vec![8], 8));
        assert_eq!(broken(&|keys| keys.keys[0].made_at = None), (vec![8], 8));
        assert_eq!(
            broken(&|keys| keys.keys.push(keys.keys[0].clone())),
            (vec![8], 8)
        );
        assert_eq!(broken(&|keys| keys.keys.clear()), (vec![1], 1));
    }

    #[test]
    fn a_clock_that_goes_back_changes_nothing() {
        let keys = due(None, at(1000 * DAY), || [1; KEY]).unwrap();
        assert_eq!(due(Some(&keys), at(0), || [2; KEY]), None);
    }
}
