//! What waits to be sent: bounded, and what does not fit is counted and gone.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use super::environment::Batch;
use crate::metrics::Counter;

/// Items of one signal. Whoever puts one in never waits: not for a collector, and for others who do the same only as
/// long as it takes to put one in.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    batch: Batch,
    /// Told when there is a batch.
    enough: Notify,
    dropped: Counter,
}

impl<T> Queue<T> {
    /// An empty one that counts what it has no room for.
    pub(super) fn new(batch: Batch, dropped: Counter) -> Self {
        Self {
            items: Mutex::default(),
            batch,
            enough: Notify::new(),
            dropped,
        }
    }

    /// Puts one in, or drops and counts it.
    pub(super) fn put(&self, item: T) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if items.len() >= self.batch.queue {
            self.dropped.add(1);
            return;
        }
        items.push_back(item);
        if items.len() == self.batch.size {
            self.enough.notify_one();
        }
    }

    /// Takes the oldest, as many as go together.
    pub(super) fn take(&self) -> Vec<T> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let count = items.len().min(self.batch.size);
        items.drain(..count).collect()
    }

    /// Waits until a batch is there, or for as long as the first item may wait.
    pub(super) async fn filled(&self) {
        let enough = self.enough.notified();
        // It is time in both cases.
        _ = tokio::time::timeout(self.batch.delay, enough).await;
    }

    pub(super) const fn batch(&self) -> Batch {
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    fn queue(dropped: &Counter) -> Queue<u32> {
        let batch = Batch {
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            queue: 5,
            size: 2,
        };
        Queue::new(batch, dropped.clone())
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_oldest_are_kept() {
        let dropped = Counter::default();
        let queue = queue(&dropped);
        (0..9).for_each(|item| queue.put(item));
        assert_eq!(dropped.value(), 4);
        let taken: Vec<_> = (0..4).map(|_| queue.take()).collect();
        assert_eq!(taken, [vec![0, 1], vec![2, 3], vec![4], vec![]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_sent_when_it_is_full_or_when_its_time_has_come() {
        let queue = queue(&Counter::default());
        let begun = Instant::now();
        queue.put(0);
        queue.put(1);
        queue.filled().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        queue.filled().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }
}
