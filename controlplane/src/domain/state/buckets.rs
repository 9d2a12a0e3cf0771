//! A map that is cheap to copy: 256 shared parts, of which a writer copies only the one that it changes
//! and a reader may still hold.

use std::{
    borrow::Borrow, cmp::Reverse, collections::BTreeMap, collections::BinaryHeap, ops::Bound,
    sync::Arc,
};

use crate::kv::keys;

/// A map by text-like keys. A clone is 256 reference counts whatever the size.
#[derive(Debug, Clone)]
pub struct Buckets<K, V> {
    parts: Box<[Arc<BTreeMap<K, V>>]>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Default for Buckets<K, V> {
    fn default() -> Self {
        Self {
            parts: (0..keys::BUCKETS).map(|_| Arc::default()).collect(),
            len: 0,
        }
    }
}

impl<K: Ord + Clone, V: Clone> Buckets<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of `key`, whose text is `text`.
    pub fn entry<Q: Ord + ?Sized>(&self, text: &str, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.parts[part(text)].get_key_value(key)
    }

    /// Sets an entry and gives back what it was.
    pub fn insert(&mut self, text: &str, key: K, value: V) -> Option<V> {
        let before = Arc::make_mut(&mut self.parts[part(text)]).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes an entry and gives back what it was.
    pub fn remove<Q: Ord + ?Sized>(&mut self, text: &str, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let part = &mut self.parts[part(text)];
        if !part.contains_key(key) {
            return None;
        }
        self.len -= 1;
        Arc::make_mut(part).remove(key)
    }

    /// All entries, in an order that is the same for the same entries.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The entries after `after` (all, without it) in the order of their keys.
    pub fn iter_sorted<'a>(&'a self, after: Option<&K>) -> impl Iterator<Item = (&'a K, &'a V)> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let mut ranges: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.range((start.clone(), Bound::Unbounded)))
            .collect();
        let mut values: Vec<Option<&'a V>> = vec![None; ranges.len()];
        let mut heads = BinaryHeap::new();
        for (n, range) in ranges.iter_mut().enumerate() {
            if let Some((key, value)) = range.next() {
                values[n] = Some(value);
                heads.push(Reverse((key, n)));
            }
        }
        std::iter::from_fn(move || {
            let Reverse((key, n)) = heads.pop()?;
            let value = values[n].take()?;
            if let Some((next, value)) = ranges[n].next() {
                values[n] = Some(value);
                heads.push(Reverse((next, n)));
            }
            Some((key, value))
        })
    }
}

fn part(text: &str) -> usize {
    usize::from(keys::bucket_of(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_saw() {
        let mut map = Buckets::default();
        for n in 0..1000 {
            map.insert(&n.to_string(), n.to_string(), n);
        }
        let copy = map.clone();
        assert_eq!(map.remove("7", "7"), Some(7));
        assert_eq!(map.remove("7", "7"), None);
        assert_eq!(map.insert("8", "8".to_owned(), 80), Some(8));
        assert_eq!((map.len(), copy.len()), (999, 1000));
        assert_eq!(copy.entry("7", "7"), Some((&"7".to_owned(), &7)));
        assert_eq!(copy.entry("8", "8").unwrap().1, &8);
    }

    #[test]
    fn pages_follow_each_other_in_order() {
        let mut map = Buckets::default();
        for n in 0..500 {
            let key = format!("{n:03}");
            map.insert(&key, key.clone(), n);
        }
        let mut seen = Vec::new();
        let mut last = None;
        loop {
            let page: Vec<_> = map.iter_sorted(last.as_ref()).take(7).collect();
            let Some((key, _)) = page.last() else { break };
            last = Some((*key).clone());
            seen.extend(page.iter().map(|(_, n)| **n));
        }
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }
}
