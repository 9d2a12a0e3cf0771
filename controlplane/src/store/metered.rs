//! A store that is measured: each answer by what was asked, what was answered and how long it took.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use ferrypost_runtime::metrics::Metrics;
use tokio::time::Instant;

use super::{
    KeyValue, LeaseError, LeaseId, Range, Rev, Store, StoreError, Txn, TxnOutcome, WatchStream,
};
use crate::metrics::{Operation, STORE, StoreAnswer};

/// Another store, and where it is counted.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    /// Measures this store from now on.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    /// Waits for an answer and counts it.
    async fn ask<T, E>(
        &self,
        operation: Operation,
        answer: impl Future<Output = Result<T, E>>,
        word: impl Fn(&Result<T, E>) -> StoreAnswer,
    ) -> Result<T, E> {
        let asked = Instant::now();
        let answer = answer.await;
        let values = [operation.into_str(), word(&answer).into_str()];
        let series = self.metrics.histogram(&STORE, &values);
        series.record(asked.elapsed());
        answer
    }
}

impl fmt::Debug for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        self.ask(Operation::Get, self.inner.get(key), plain).await
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        let answer = self.inner.range(prefix, at);
        self.ask(Operation::Range, answer, plain).await
    }

    async fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        let answer = self.inner.whole(most);
        self.ask(Operation::Range, answer, plain).await
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let answer = self.inner.transact(txn);
        self.ask(Operation::Transact, answer, |answer| match answer {
            Ok(TxnOutcome::Conflict { .. }) => StoreAnswer::Conflict,
            other => plain(other),
        })
        .await
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        let answer = self.inner.watch(from);
        self.ask(Operation::Watch, answer, plain).await
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        let answer = self.inner.revision();
        self.ask(Operation::Revision, answer, plain).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let answer = self.inner.grant(ttl);
        self.ask(Operation::Grant, answer, plain).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        let answer = self.inner.keep_alive(lease);
        self.ask(Operation::KeepAlive, answer, |answer| match answer {
            Ok(()) => StoreAnswer::Ok,
            Err(LeaseError::Lost) => StoreAnswer::LeaseLost,
            Err(LeaseError::Store(error)) => error.into(),
        })
        .await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self.inner.revoke(lease);
        self.ask(Operation::Revoke, answer, plain).await
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        let answer = self.inner.compact(to);
        self.ask(Operation::Compact, answer, plain).await
    }
}

fn plain<T>(answer: &Result<T, StoreError>) -> StoreAnswer {
    match answer {
        Ok(_) => StoreAnswer::Ok,
        Err(error) => error.into(),
    }
}

impl From<&StoreError> for StoreAnswer {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable,
            StoreError::UnknownOutcome(_) => Self::UnknownOutcome,
            StoreError::Compacted { .. } => Self::Compacted,
            StoreError::Future => Self::Future,
            StoreError::TooLarge => Self::TooLarge,
            StoreError::Malformed => Self::Malformed,
            StoreError::LeaseLost => Self::LeaseLost,
            StoreError::Denied => Self::Denied,
            StoreError::Corrupt => Self::Corrupt,
            StoreError::Closed => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::TABLE,
        store::embedded::{EmbeddedConfig, EmbeddedStore},
    };

    #[tokio::test]
    async fn every_answer_is_counted_as_what_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let inner = Arc::new(EmbeddedStore::open(config).await.unwrap());
        let metrics = Arc::new(Metrics::new(TABLE));
        let store = MeteredStore::new(inner.clone(), Arc::clone(&metrics));
        let written = store.transact(Txn::new().put("/a", "1")).await.unwrap();
        assert!(written.committed().is_some());
        let refused = store.transact(Txn::new().absent("/a").put("/a", "2"));
        assert!(refused.await.unwrap().committed().is_none());
        assert!(store.get(b"/a").await.unwrap().0.is_some());
        let lease = store.grant(Duration::from_secs(5)).await.unwrap();
        store.revoke(lease).await.unwrap();
        assert_eq!(store.keep_alive(lease).await, Err(LeaseError::Lost));
        inner.close().await;
        assert_eq!(store.revision().await, Err(StoreError::Closed));
        for (operation, answer) in [
            (Operation::Transact, StoreAnswer::Ok),
            (Operation::Transact, StoreAnswer::Conflict),
            (Operation::Get, StoreAnswer::Ok),
            (Operation::KeepAlive, StoreAnswer::LeaseLost),
            (Operation::Revision, StoreAnswer::Closed),
        ] {
            let values = [operation.into_str(), answer.into_str()];
            assert_eq!(metrics.histogram(&STORE, &values).count(), 1, "{values:?}");
        }
    }
}
