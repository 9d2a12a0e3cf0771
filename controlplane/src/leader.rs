//! One replica drives migrations: the one that holds `/leader` under its lease.
//!
//! The store revision of that key is the *fencing token*. Everything that a leader writes is guarded by
//! it, so a leader that was frozen and wakes up after its successor cannot write anything. Stepping down
//! in time, which is done here too, only saves it the attempts (and ends its hooks).

use std::{future::Future, sync::Arc, time::Duration};

use ferrypost_proto::{ReplicaId, store::v1::Leader};
use ferrypost_runtime::{Backoff, Random};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::{
    mirror::Mirror,
    store::{LeaseError, LeaseId, Rev, Store, StoreError, Txn, TxnOutcome, keys, value::Stored},
};

/// Pauses between attempts when the store does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Who wants to lead, and for how long nobody needs to hear from it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The replica.
    pub replica: ReplicaId,
    /// Time to live of the lease: how long after its death another one leads. Renewed three times
    /// within it.
    pub ttl: Duration,
    /// For the jitter of retries.
    pub random: Random,
}

/// The time for which this replica leads.
#[derive(Debug, Clone)]
pub struct Leadership {
    token: Rev,
    since: Instant,
    until: watch::Receiver<Instant>,
    lost: CancellationToken,
}

impl Leadership {
    /// The fencing token: the revision of `/leader`.
    pub fn token(&self) -> Rev {
        self.token
    }

    /// When it began, as this replica knows: everything that the predecessor did under its own lease was
    /// before that.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// False once the lease could have ended.
    pub fn is_valid(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < *self.until.borrow()
    }
}

/// Campaigns until `cancel`; runs `lead` whenever and for as long as this replica leads, and drops it when
/// it does not any more. Gives the lease back at the end.
pub async fn campaign<F, L>(
    mirror: Mirror,
    candidate: Candidate,
    cancel: CancellationToken,
    lead: F,
) where
    F: Fn(Leadership) -> L,
    L: Future<Output = ()>,
{
    let mut backoff = Backoff::new(candidate.random.clone(), PAUSES.0, PAUSES.1);
    while cancel.run_until_cancelled(vacant(&mirror)).await.is_some() {
        // Not cancelled in the middle: a lease that was granted is served or given back. What a store
        // that does not answer takes is its own limit.
        match LeaseTerm::begin(&mirror, &candidate).await {
            Ok(Some(term)) => {
                backoff.reset();
                tracing::info!(token = term.token, "this replica drives migrations now");
                term.serve(&cancel, &lead).await;
                tracing::info!(token = term.token, "this replica drives migrations no more");
            }
            // Somebody else was faster: the mirror will show whom.
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "could not stand for leader"),
        }
        cancel
            .run_until_cancelled(time::sleep(backoff.pause()))
            .await;
    }
}

/// Waits until the mirror shows no leader.
async fn vacant(mirror: &Mirror) {
    let mut changed = mirror.changed();
    loop {
        changed.borrow_and_update();
        let state = mirror.read();
        if state.revision() > 0 && state.leader().is_none() {
            return;
        }
        if changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One term: a lease with `/leader` under it.
struct LeaseTerm {
    store: Arc<dyn Store>,
    mirror: Mirror,
    lease: LeaseId,
    token: Rev,
    ttl: Duration,
    since: Instant,
    until: watch::Sender<Instant>,
}

impl LeaseTerm {
    /// Takes the lead if nobody has it.
    async fn begin(mirror: &Mirror, candidate: &Candidate) -> Result<Option<Self>, StoreError> {
        let store = mirror.store().clone();
        let called = Instant::now();
        let lease = store.grant(candidate.ttl).await?;
        let leader = Stored::new(Leader {
            replica: candidate.replica.as_str().to_owned(),
            ..Leader::default()
        });
        let txn = Txn::new()
            .absent(keys::LEADER)
            .put_leased(keys::LEADER, leader.bytes(), lease);
        match store.transact(txn).await {
            Ok(TxnOutcome::Committed(token)) => Ok(Some(Self {
                mirror: mirror.clone(),
                lease,
                token,
                ttl: candidate.ttl,
                since: Instant::now(),
                until: watch::Sender::new(called + safe(candidate.ttl)),
                store,
            })),
            Ok(TxnOutcome::Conflict { .. }) => {
                let _ = store.revoke(lease).await;
                Ok(None)
            }
            // If it was written after all, it goes with the lease.
            Err(error) => {
                let _ = store.revoke(lease).await;
                Err(error)
            }
        }
    }

    /// Leads until the lease could have ended, somebody else leads, or `cancel`.
    async fn serve<F, L>(&self, cancel: &CancellationToken, lead: &F)
    where
        F: Fn(Leadership) -> L,
        L: Future<Output = ()>,
    {
        let lost = CancellationToken::new();
        let leadership = Leadership {
            token: self.token,
            since: self.since,
            until: self.until.subscribe(),
            lost: lost.clone(),
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = self.expired() => tracing::warn!("the lease was not renewed in time"),
            () = self.renew() => tracing::warn!("the lease has ended"),
            () = self.deposed() => tracing::warn!("another replica leads"),
            () = lead(leadership) => {}
        }
        lost.cancel();
        // Whoever comes next need not wait for the lease to end.
        let _ = time::timeout(self.ttl, self.store.revoke(self.lease)).await;
    }

    /// Renews the lease; ends when it cannot be.
    async fn renew(&self) {
        loop {
            time::sleep(self.ttl / 3).await;
            let called = Instant::now();
            match self.store.keep_alive(self.lease).await {
                Ok(()) => {
                    self.until.send_replace(called + safe(self.ttl));
                }
                Err(LeaseError::Lost) => return,
                Err(LeaseError::Store(error)) => {
                    tracing::warn!(%error, "could not renew the lease; trying again");
                }
            }
        }
    }

    /// Ends when the lease could have ended. Nobody else can lead before it has.
    async fn expired(&self) {
        let mut until = self.until.subscribe();
        loop {
            let now = *until.borrow_and_update();
            tokio::select! {
                biased;
                _ = until.changed() => {}
                () = time::sleep_until(now) => return,
            }
        }
    }

    /// Ends when the mirror shows another leader, or none, after this term has begun.
    async fn deposed(&self) {
        let mut changed = self.mirror.changed();
        loop {
            let seen = *changed.borrow_and_update();
            let leader = self.mirror.read().leader().map(|(_, token)| token);
            if seen >= self.token && leader != Some(self.token) {
                return;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How much of a time to live may be used: clocks run a little differently, and a step that has begun
/// takes a moment to stop.
fn safe(ttl: Duration) -> Duration {
    ttl * 4 / 5
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tempfile::TempDir;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        mirror::MirrorOptions,
        store::embedded::{EmbeddedConfig, EmbeddedStore},
    };

    const PATIENCE: Duration = Duration::from_mins(1);

    /// A time to live that nobody exceeds because the machine is busy.
    const LONG: Duration = Duration::from_secs(30);

    struct World {
        mirror: Mirror,
        random: Random,
        leading: Arc<AtomicUsize>,
        _directory: TempDir,
    }

    /// Counts how many lead at once.
    struct Leads(Arc<AtomicUsize>);

    impl Drop for Leads {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl World {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig::new(directory.path().join("store"));
            let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config).await.unwrap());
            let random = Random::seeded(1);
            let options = MirrorOptions::new(ReplicaId::parse("observer").unwrap(), random.clone());
            let cancel = CancellationToken::new();
            Self {
                mirror: Mirror::start(store, options, &TaskTracker::new(), cancel),
                random,
                leading: Arc::default(),
                _directory: directory,
            }
        }

        fn candidate(
            &self,
            name: &str,
            ttl: Duration,
            cancel: &CancellationToken,
        ) -> tokio::task::JoinHandle<()> {
            let candidate = Candidate {
                replica: ReplicaId::parse(name).unwrap(),
                ttl,
                random: self.random.clone(),
            };
            let leading = self.leading.clone();
            let lead = move |leadership: Leadership| {
                let leading = leading.clone();
                async move {
                    let before = leading.fetch_add(1, Ordering::SeqCst);
                    let _leads = Leads(leading);
                    assert_eq!(before, 0, "two lead at once");
                    assert!(leadership.is_valid());
                    std::future::pending::<()>().await;
                }
            };
            tokio::spawn(campaign(
                self.mirror.clone(),
                candidate,
                cancel.clone(),
                lead,
            ))
        }

        async fn leader(&self, not: Option<Rev>) -> (String, Rev) {
            let mut changed = self.mirror.changed();
            let looking = async {
                loop {
                    changed.borrow_and_update();
                    let state = self.mirror.read();
                    match state.leader() {
                        Some((replica, token)) if Some(token) != not => {
                            return (replica.as_str().to_owned(), token);
                        }
                        _ => changed.changed().await.unwrap(),
                    }
                }
            };
            time::timeout(PATIENCE, looking)
                .await
                .expect("somebody leads")
        }
    }

    #[tokio::test]
    async fn one_leads_and_the_next_one_follows_at_once() {
        let world = World::new().await;
        let (first_ends, second_ends) = (CancellationToken::new(), CancellationToken::new());
        let first = world.candidate("cp-1", LONG, &first_ends);
        let (leader, token) = world.leader(None).await;
        assert_eq!(leader, "cp-1");
        let second = world.candidate("cp-2", LONG, &second_ends);
        first_ends.cancel();
        first.await.unwrap();
        let (leader, next) = world.leader(Some(token)).await;
        assert_eq!(leader, "cp-2");
        assert!(next > token, "tokens rise");
        second_ends.cancel();
        second.await.unwrap();
        assert_eq!(world.leading.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_leader_that_dies_is_succeeded_when_its_lease_ends() {
        let world = World::new().await;
        let cancel = CancellationToken::new();
        let ttl = Duration::from_secs(6);
        let first = world.candidate("cp-1", ttl, &cancel);
        let (_, token) = world.leader(None).await;
        // It renews its lease for as long as it lives.
        time::sleep(ttl + Duration::from_secs(1)).await;
        assert_eq!(world.leader(None).await.1, token);
        first.abort();
        let _ = first.await;
        let died = Instant::now();
        let _second = world.candidate("cp-2", LONG, &cancel);
        let (leader, _) = world.leader(Some(token)).await;
        assert_eq!(leader, "cp-2");
        assert!(died.elapsed() >= ttl / 2, "its lease was waited out");
    }

    #[tokio::test]
    async fn a_leader_that_is_deposed_stops() {
        let world = World::new().await;
        let cancel = CancellationToken::new();
        let _candidate = world.candidate("cp-1", LONG, &cancel);
        let (_, token) = world.leader(None).await;
        let store = world.mirror.store();
        let _ = store
            .transact(Txn::new().delete(keys::LEADER))
            .await
            .unwrap();
        // It stands again, for a term of its own.
        let (_, next) = world.leader(Some(token)).await;
        assert!(next > token);
    }
}
