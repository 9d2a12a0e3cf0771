//! The store in an etcd cluster, for control planes with several replicas.
//!
//! Transactions are etcd's, guarded by modification revisions; etcd's revision is ours. One cluster
//! may serve several installations (and others' data): every key carries the installation's prefix,
//! which is added and removed here and never seen above. The key that is the bare prefix belongs
//! to the watches, see `etcd/watch.rs`.
//!
//! Reads are linearizable. Every call has a time limit. A call that certainly did nothing, because
//! no connection was made or the member had no leader, is tried again on whichever member the
//! client turns to next; any other failure is the caller's to judge.

mod access;
mod failure;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, Error, GetOptions, GetResponse, KvClient,
    PutOptions, ResponseHeader, TxnOp, WatchClient,
};
use ferrypost_runtime::reload::{LOOK_EVERY, Stamps};
use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::{MissedTickBehavior, timeout};

pub use access::{ConnectError, EtcdConfig, EtcdTls, Password};
use failure::Failure;
use watch::Watcher;

use super::{
    Guard, KeyValue, LeaseError, LeaseId, Outage, Range, Rev, Store, StoreError, Txn, TxnOutcome,
    WatchStream, Write,
};
use crate::kv::check_key;

/// The store in etcd. See the [module documentation](self).
#[derive(Clone, Debug)]
pub struct EtcdStore {
    connection: EtcdConnection,
    load_limit: Duration,
}

/// A client with the prefix and limits that go with it. Clones share it.
#[derive(Clone)]
struct EtcdConnection {
    client: Arc<RwLock<Client>>,
    access: Arc<EtcdConfig>,
    prefix: Vec<u8>,
    call_limit: Duration,
    /// How often to turn to another member with a call that certainly did nothing.
    attempts: u32,
}

/// The pause before a call is tried on another member.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(25);

/// Attempts for each member. The client picks members at random, dead ones too, so that with one
/// of three down twelve attempts all meet it once in half a million calls.
const ATTEMPTS_PER_MEMBER: u32 = 4;

impl EtcdStore {
    /// Prepares to speak to the cluster. Connections are made when needed, and made again when
    /// lost; only a user's token is fetched at once.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect(config: EtcdConfig) -> Result<Self, ConnectError> {
        let mut prefix = config.prefix.clone().into_bytes();
        if prefix.is_empty() {
            return Err(ConnectError::Config);
        }
        if !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        let client = config.client().await?;
        let members = u32::try_from(config.endpoints.len()).unwrap_or(u32::MAX);
        Ok(Self {
            load_limit: config.load_limit,
            connection: EtcdConnection {
                client: Arc::new(RwLock::new(client)),
                prefix,
                call_limit: config.call_limit,
                attempts: members.saturating_mul(ATTEMPTS_PER_MEMBER),
                access: Arc::new(config),
            },
        })
    }

    /// Takes certificates and the password over whenever their files have changed. Never returns.
    ///
    /// What is under way ends on the connections that it began on. What cannot be used is logged, and
    /// tried again once the files, or the cluster, have changed; what was in force stays so.
    pub async fn keep_fresh(&self) {
        let files = self.connection.access.files();
        let mut in_force = Stamps::of(&files);
        let mut complained = None;
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stamps = Stamps::of(&files);
            if stamps == in_force {
                continue;
            }
            match self.connection.renew().await {
                Ok(()) => {
                    tracing::info!(?files, "etcd is spoken to as the changed files say");
                    in_force = stamps;
                }
                Err(_) if complained.as_ref() == Some(&stamps) => {}
                Err(error) => {
                    tracing::error!(?files, %error,
                        "changed files cannot be used for etcd yet; what was in force stays so");
                    complained = Some(stamps);
                }
            }
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &[u8]) -> Result<(Option<KeyValue>, Rev), StoreError> {
        check_key(key)?;
        let range = self
            .read(
                self.connection.etcd_key(key),
                GetOptions::new(),
                self.connection.call_limit,
            )
            .await?;
        Ok((range.entries.into_iter().next(), range.revision))
    }

    async fn range(&self, prefix: &[u8], at: Option<Rev>) -> Result<Range, StoreError> {
        let mut options = GetOptions::new().with_prefix();
        match at {
            // To etcd, revision 0 is the present one.
            Some(0) => return Err(StoreError::Compacted { floor: Some(1) }),
            Some(at) => options = options.with_revision(to_etcd(at)),
            None => {}
        }
        let range = self
            .read(self.connection.etcd_key(prefix), options, self.load_limit)
            .await?;
        Ok(Range {
            revision: at.unwrap_or(range.revision),
            ..range
        })
    }

    async fn whole(&self, most: usize) -> Result<Option<Range>, StoreError> {
        // One more than wanted, since the barrier may be among them and is none of ours.
        let limit = most.saturating_add(1).try_into().unwrap_or(i64::MAX);
        let options = GetOptions::new().with_prefix().with_limit(limit);
        let prefix = self.connection.etcd_key(b"");
        let answer = self.fetch(prefix, options, self.load_limit).await?;
        let is_whole = !answer.more();
        let range = self.own(answer);
        Ok((is_whole && range.entries.len() <= most).then_some(range))
    }

    async fn transact(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn.check()?;
        let txn = self.connection.etcd_txn(txn);
        let answer = self
            .connection
            .call(self.connection.call_limit, async |client| {
                client.kv_client().txn(txn.clone()).await
            })
            .await
            .map_err(Failure::of_write)?;
        let revision = revision(answer.header());
        Ok(if answer.succeeded() {
            TxnOutcome::Committed(revision)
        } else {
            TxnOutcome::Conflict { revision }
        })
    }

    async fn watch(&self, from: Rev) -> Result<WatchStream, StoreError> {
        let watcher = Watcher::new(self.connection.clone(), from);
        Ok(stream::unfold(watcher, Watcher::step).boxed())
    }

    async fn revision(&self) -> Result<Rev, StoreError> {
        // Any key will do, and this one is always ours to read.
        let key = self.connection.prefix.clone();
        Ok(self
            .read(key, GetOptions::new(), self.connection.call_limit)
            .await?
            .revision)
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).max(1);
        self.connection
            .call(self.connection.call_limit, async |client| {
                client.lease_client().grant(seconds, None).await
            })
            .await
            .map(|answer| LeaseId(answer.id()))
            .map_err(Failure::of_read)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), LeaseError> {
        self.connection
            .call(self.connection.call_limit, async |client| {
                match client.lease_client().keep_alive(lease.0).await {
                    Ok(_) => Ok(true),
                    // The client's word for an answer that leaves no time to live.
                    Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await
            .map_err(|failure| LeaseError::Store(failure.of_read()))
            .and_then(|alive| if alive { Ok(()) } else { Err(LeaseError::Lost) })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoked = self
            .connection
            .call(self.connection.call_limit, async |client| {
                client.lease_client().revoke(lease.0).await
            })
            .await;
        match revoked.map_err(Failure::of_write) {
            Ok(_) | Err(StoreError::LeaseLost) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn compact(&self, to: Rev) -> Result<(), StoreError> {
        let to = to.min(self.revision().await?);
        let compacted = self
            .connection
            .call(self.load_limit, async |client| {
                // Physically: the space is free when the call returns, as an operator expects.
                let options = CompactionOptions::new().with_physical();
                client.kv_client().compact(to_etcd(to), Some(options)).await
            })
            .await;
        match compacted.map_err(Failure::of_write) {
            Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl EtcdStore {
    async fn read(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        limit: Duration,
    ) -> Result<Range, StoreError> {
        Ok(self.own(self.fetch(key, options, limit).await?))
    }

    async fn fetch(
        &self,
        key: Vec<u8>,
        options: GetOptions,
        limit: Duration,
    ) -> Result<GetResponse, StoreError> {
        let answer = self.connection.call(limit, async |client| {
            kv_client(&client)
                .get(key.clone(), Some(options.clone()))
                .await
        });
        answer.await.map_err(Failure::of_read)
    }

    /// What of an answer is ours.
    fn own(&self, mut answer: GetResponse) -> Range {
        let entries = answer.take_kvs();
        let entries = entries
            .iter()
            .filter_map(|entry| Some(own_entry(self.connection.own_key(entry.key())?, entry)));
        Range {
            entries: entries.collect(),
            revision: revision(answer.header()),
        }
    }
}

/// A client that takes answers of any size: etcd bounds what a transaction may write, and a range
/// of many keys is what its caller asked for.
fn kv_client(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(usize::MAX)
}

impl EtcdConnection {
    fn client(&self) -> Client {
        let client = self.client.read();
        client.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins anew, as the files say now.
    async fn renew(&self) -> Result<(), ConnectError> {
        let client = self.access.client().await?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        Ok(())
    }

    /// Makes a call within a time limit, on as many members as it takes to be heard by one.
    async fn call<T, F>(&self, limit: Duration, attempt: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let attempts = async {
            let mut left = self.attempts;
            loop {
                left -= 1;
                match attempt(self.client()).await.map_err(Failure::from) {
                    Err(failure) if left > 0 && failure.is_worth_another_member() => {
                        tokio::time::sleep(ATTEMPT_PAUSE).await;
                    }
                    outcome => return outcome,
                }
            }
        };
        timeout(limit, attempts)
            .await
            .unwrap_or(Err(Failure::Unknown(Outage::Timeout)))
    }

    fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn watch_client(&self) -> WatchClient {
        self.client()
            .watch_client()
            .max_decoding_message_size(usize::MAX)
    }

    /// Writes the key that only watches know.
    async fn write_barrier(&self) -> Result<(), Failure> {
        self.call(self.call_limit, async |mut client| {
            client.put(self.prefix.clone(), [], None).await
        })
        .await
        .map(drop)
    }

    async fn renew_token(&self) {
        // If it cannot be had, the next attempt says so.
        let client = self.client();
        let _ = timeout(self.call_limit, client.refresh_token()).await;
    }

    fn etcd_key(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix, key].concat()
    }

    /// A key of etcd's as one of ours; `None` for the barrier.
    fn own_key<'a>(&self, key: &'a [u8]) -> Option<&'a [u8]> {
        key.strip_prefix(self.prefix.as_slice())
            .filter(|key| !key.is_empty())
    }

    fn etcd_txn(&self, txn: Txn) -> etcd_client::Txn {
        let compares = txn.guards.into_iter().map(|guard| match guard {
            Guard::Revision { key, is } => {
                Compare::mod_revision(self.etcd_key(&key), CompareOp::Equal, to_etcd(is))
            }
            Guard::Exists { key } => {
                Compare::mod_revision(self.etcd_key(&key), CompareOp::Greater, 0)
            }
        });
        let operations = txn.writes.into_iter().map(|write| match write {
            Write::Put { key, value, lease } => {
                let options = lease.map(|LeaseId(lease)| PutOptions::new().with_lease(lease));
                TxnOp::put(self.etcd_key(&key), value, options)
            }
            Write::Delete { key } => TxnOp::delete(self.etcd_key(&key), None),
        });
        etcd_client::Txn::new()
            .when(compares.collect::<Vec<_>>())
            .and_then(operations.collect::<Vec<_>>())
    }
}

impl fmt::Debug for EtcdConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConnection")
            .field("prefix", &self.prefix.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}

fn own_entry(key: &[u8], entry: &etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        key: key.to_vec(),
        value: Bytes::copy_from_slice(entry.value()),
        mod_revision: from_etcd(entry.mod_revision()),
        create_revision: from_etcd(entry.create_revision()),
    }
}

fn revision(header: Option<&ResponseHeader>) -> Rev {
    header.map_or(0, |header| from_etcd(header.revision()))
}

/// etcd counts revisions in signed numbers and uses none below zero.
fn from_etcd(revision: i64) -> Rev {
    Rev::try_from(revision).unwrap_or(0)
}

/// A revision too high for etcd is one that it will never reach.
fn to_etcd(revision: Rev) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
