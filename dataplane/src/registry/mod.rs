//! The registry: every session and held login, keyed by its subject. Most are names: a canonical *name* is all that
//! is known of an account before and after it has a record.
//!
//! Whoever holds a [`SessionGuard`] is registered, and the relay demands one by value. The guard is also
//! how the registry reaches the session: [`SessionGuard::closing`] resolves when it must end.

mod admit;
mod entry;
mod guard;
mod ledger;
mod list;
mod shard;
mod step;
mod subject;
#[cfg(test)]
mod tests;
mod unlisted;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::Name;
use ferrypost_routing::{KeyedState, Resolution};
use ferrypost_runtime::Random;
use tokio::{sync::Notify, time::Instant};

pub use admit::{Admission, AdmitRequest, HoldLimit, OnFence, SessionKind};
pub use entry::{CloseReason, Stage, Told};
pub use guard::{Ending, Exchanged, HeldLogin, OnlyAsked, Proof, Recheck, SessionGuard};
pub use list::{Counts, Group, Listing, SessionSnapshot};
pub use subject::Subject;
pub use unlisted::UnlistedLogin;

pub(crate) use ledger::Ledger;

use self::{entry::Entry, shard::Shard, step::Lock as _, unlisted::UnlistedNames};
use crate::{limits::HoldLimits, tables::Tables};

/// How long a backend whose close nobody saw may still be at work, until the control plane has said its own settle
/// time, which answers the same question: a fence that begins within this time counts it as unconfirmed.
pub const SETTLE_TIME: Duration = Duration::from_secs(30);

/// The longest that is taken for it.
const LONGEST_SETTLE_TIME: Duration = Duration::from_hours(1);

/// Enough that two logins rarely meet, and that a sweep holds no lock for long.
const SHARDS: usize = 256;
/// The same, to divide times by.
const SHARDS_IN_TIME: u32 = 256;

/// Between two sessions that are closed because the process stops: fifty come back in a second.
const PACE: Duration = Duration::from_millis(20);

/// Every session of this data plane.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[Mutex<Shard>]>,
    hash: KeyedState,
    tables: Tables,
    limits: HoldLimits,
    /// See [`SETTLE_TIME`], in milliseconds.
    settle: AtomicU64,
    routed: AtomicUsize,
    held: AtomicUsize,
    unlisted: UnlistedNames,
    /// Set before the sessions are closed, so that an admission is either refused or seen by the close.
    closed: OnceLock<CloseReason>,
    /// Wakes [`Registry::empty`].
    left: Notify,
}

impl Registry {
    /// An empty registry that routes by what is published in `tables`.
    pub fn new(tables: Tables, limits: HoldLimits, random: &Random) -> Arc<Self> {
        let hash = KeyedState::new(random);
        Arc::new(Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(Shard::new(hash.clone())))
                .collect(),
            unlisted: UnlistedNames::new(hash.clone()),
            hash,
            tables,
            limits,
            settle: AtomicU64::new(milliseconds(SETTLE_TIME)),
            routed: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            closed: OnceLock::new(),
            left: Notify::new(),
        })
    }

    /// Registers a session and chooses its route, in one step under one lock (see
    /// the module `admit`). Memory only.
    pub fn admit(self: &Arc<Self>, request: AdmitRequest) -> Admission {
        let subject = request.subject.clone();
        step::admit(
            self.shard(&subject),
            &self.tables,
            &subject,
            |shard, resolution| self.enter(shard, resolution, request),
        )
    }

    fn enter(
        self: &Arc<Self>,
        shard: &mut Shard,
        resolution: Option<Resolution>,
        request: AdmitRequest,
    ) -> Admission {
        if let Some(reason) = self.closed.get() {
            return Admission::Closed(*reason);
        }
        match resolution {
            None => Admission::NoTable,
            Some(Resolution::Refused(refusal)) => Admission::Refused(refusal),
            Some(Resolution::Route(route)) => {
                let entry = Arc::new(Entry::new(request, Some(route), Instant::now()));
                self.routed.fetch_add(1, Ordering::Relaxed);
                shard.insert(Arc::clone(&entry));
                Admission::Routed(SessionGuard::new(Arc::clone(self), entry))
            }
            Some(Resolution::Fenced(_)) if request.on_fence == OnFence::Defer => {
                Admission::Deferred
            }
            Some(Resolution::Fenced(_)) => {
                if let Err(limit) = self.may_hold(shard, &request) {
                    return Admission::TooManyHeld(limit);
                }
                let entry = Arc::new(Entry::new(request, None, Instant::now()));
                shard.insert(Arc::clone(&entry));
                Admission::Held(HeldLogin::new(Arc::clone(self), entry))
            }
        }
    }

    /// Takes one of the places for held logins.
    fn may_hold(&self, shard: &Shard, request: &AdmitRequest) -> Result<(), HoldLimit> {
        let client = request.client.map(|client| client.ip());
        let held = shard.held(&request.subject, client);
        // First, since whoever has filled his own share is not to be told of the others'.
        if held.from_customer >= self.limits.per_name_and_address {
            return Err(HoldLimit::PerNameAndAddress);
        }
        if held.all >= self.limits.per_name {
            return Err(HoldLimit::PerName);
        }
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < self.limits.total).then_some(held + 1)
            })
            .map(drop)
            .map_err(|_| HoldLimit::Total)
    }

    /// Ends every session and held login under these names, whatever they do. Returns how many were
    /// told to end by this call.
    pub fn kick(&self, names: &[Name]) -> usize {
        names
            .iter()
            .map(Subject::from)
            .map(|subject| {
                self.shard(&subject)
                    .with(|shard| shard.close(&subject, CloseReason::Kicked))
            })
            .sum()
    }

    /// Admits nobody any more and ends every session and held login. The first reason stays.
    pub fn close_all(&self, reason: CloseReason) {
        let reason = *self.closed.get_or_init(|| reason);
        for shard in &self.shards {
            shard.with(|shard| shard.close_all(reason));
        }
    }

    /// The same at a pace: held logins end at once and sessions one after another, so that their clients do not all
    /// come back elsewhere in one second. Fifty sessions a second as far as that fits into `limit`, else all of them
    /// within it. Cancel-safe.
    pub async fn close_paced(&self, reason: CloseReason, limit: Duration) {
        let reason = *self.closed.get_or_init(|| reason);
        for shard in &self.shards {
            shard.with(|shard| shard.close_held(reason));
        }
        let routed = u32::try_from(self.routed.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let pause = limit.min(PACE.saturating_mul(routed)) / SHARDS_IN_TIME;
        for shard in &self.shards {
            shard.with(|shard| shard.close_all(reason));
            // A timer rounds up to it.
            if pause >= Duration::from_millis(1) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Waits until no session is left. Held logins do not count: they have no backend.
    pub async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.routed.load(Ordering::Acquire) == 0 {
                return;
            }
            left.await;
        }
    }

    /// How long a backend may still be at work whose close nobody saw: the control plane's word.
    pub fn settle_within(&self, time: Duration) {
        let time = milliseconds(time.min(LONGEST_SETTLE_TIME));
        self.settle.store(time, Ordering::Relaxed);
    }

    /// Sessions that ended within the settle time without anybody having seen their backend's close.
    pub fn unconfirmed(&self) -> usize {
        let since = self.unsettled_since();
        self.each_shard(|shard| shard.unconfirmed(since).count())
            .sum()
    }

    /// The names of those sessions, one for each.
    pub(crate) fn unsettled_names(&self) -> Vec<Name> {
        let since = self.unsettled_since();
        let names = |shard: &Shard| -> Vec<Name> {
            let subjects = shard.unconfirmed(since);
            subjects.filter_map(Subject::name).cloned().collect()
        };
        self.each_shard(names).flatten().collect()
    }

    fn unsettled_since(&self) -> Option<Instant> {
        let settle = Duration::from_millis(self.settle.load(Ordering::Relaxed));
        Instant::now().checked_sub(settle)
    }

    /// Begins a fence under one name: counts its sessions, and those whose backend's close was not seen
    /// lately, on the fence's ledger, and closes them. The table that fences the name is in force.
    pub(crate) fn fence(&self, name: &Name, ledger: &Arc<Ledger>) {
        let since = self.unsettled_since();
        let subject = Subject::from(name);
        step::close_changed(self.shard(&subject), &self.tables, &subject, |shard| {
            shard.count_on(&subject, ledger, since);
        });
    }

    /// Closes the sessions under one subject that the table in force fences or sends elsewhere.
    pub(crate) fn close_changed(&self, subject: &Subject) {
        step::close_changed(self.shard(subject), &self.tables, subject, |_| ());
    }

    /// The same for everybody who has a session.
    pub(crate) fn sweep(&self) {
        for shard in &self.shards {
            step::sweep(shard, &self.tables);
        }
    }

    /// How many sessions under these names have a route.
    pub(crate) fn routed_under<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> usize {
        names
            .into_iter()
            .map(Subject::from)
            .map(|subject| self.shard(&subject).with(|shard| shard.routed(&subject)))
            .sum()
    }

    /// Takes an entry out. `unconfirmed`: its backend leg was opened and its end was not seen.
    fn leave(&self, entry: &Arc<Entry>, unconfirmed: bool) {
        self.shard(&entry.request.subject).with(|shard| {
            shard.forget_before(self.unsettled_since());
            shard.remove(entry, unconfirmed.then(Instant::now));
        });
        if entry.route.is_some() {
            self.routed.fetch_sub(1, Ordering::Release);
            self.left.notify_waiters();
        } else {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn each_shard<R>(&self, mut read: impl FnMut(&Shard) -> R) -> impl Iterator<Item = R> {
        self.shards
            .iter()
            .map(move |shard| shard.with(|shard| read(shard)))
    }

    fn shard(&self, subject: &Subject) -> &Mutex<Shard> {
        let hash = self.hash.hash(subject.as_bytes());
        &self.shards[usize::try_from(hash >> 56).expect("8 bits")]
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
