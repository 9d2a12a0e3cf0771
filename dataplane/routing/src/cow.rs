//! A map whose clone shares everything that is not changed after it.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash},
    sync::Arc,
};

use super::KeyedState;

/// A hash map in [`SHARDS`] parts behind pointers. A clone copies pointers; the first change to a part
/// copies that part. So a table with one entry changed costs the same however large it is, as long as the
/// map itself stays small; merging keeps it so.
#[derive(Debug, Clone)]
pub(super) struct CowMap<K, V> {
    parts: Vec<Arc<HashMap<K, V, KeyedState>>>,
    len: usize,
    hash: KeyedState,
}

/// With the merge threshold a part holds about a hundred entries: a change copies a few kilobytes.
const SHARDS: usize = 256;

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    pub(super) fn new(hash: KeyedState) -> Self {
        let empty = Arc::new(HashMap::with_hasher(hash.clone()));
        Self {
            parts: vec![empty; SHARDS],
            len: 0,
            hash,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        self.parts[self.part(key)].get(key)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let part = self.part(&key);
        if Arc::make_mut(&mut self.parts[part])
            .insert(key, value)
            .is_none()
        {
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        // Looked up first: removing nothing must not copy the part.
        self.get(key)?;
        let part = self.part(key);
        let removed = Arc::make_mut(&mut self.parts[part]).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    fn part(&self, key: &K) -> usize {
        // Bits from the middle: the map inside a part spends the low and the high ones of the same hash.
        usize::try_from(self.hash.hash_one(key) >> 32 & 0xff).expect("8 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrypost_runtime::Random;

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut map = CowMap::new(KeyedState::new(&Random::seeded(1)));
        for n in 0..1000 {
            map.insert(n, n);
        }
        let before = map.clone();
        map.insert(7, 70);
        assert_eq!(map.remove(&8), Some(8));
        assert_eq!(map.remove(&8), None);
        assert_eq!((map.len(), before.len()), (999, 1000));
        assert_eq!((map.get(&7), before.get(&7)), (Some(&70), Some(&7)));
        assert_eq!((map.get(&8), before.get(&8)), (None, Some(&8)));
        assert_eq!(map.iter().count(), 999);
    }
}
