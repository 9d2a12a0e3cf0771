//! The decision: the store's word, or the fleet's.

use std::{collections::BTreeSet, sync::Arc};

use ferrypost_proto::{
    AccountId, DestinationId, InstanceId, Phase,
    routing::v1::AccountEntry,
    store::v1::{Installation, Resolution as StoredResolution},
    v1,
};
use tokio::time;

use super::{Picture, RestoreUseCases, silent};
use crate::{
    domain::{
        commit::RoutingChange,
        placement::Placement,
        state::{Account, State},
    },
    refusal::{Answer, Reason, Refusal},
    service::{Step, contended, migration::check_reason},
    store::{KeyValue, Rev, Txn, keys, value::Stored},
    wall_clock,
};

/// Resolutions that are remembered.
const REMEMBERED: usize = 16;

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The restored store's: accounts go back to where they were when the backup was taken.
    Store,
    /// The data planes': accounts stay where the newest of them has acknowledged them.
    Fleet,
}

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct ResolveOrder {
    /// Whose word counts.
    pub keep: Keep,
    /// The list that the operator has seen; required when the store's word counts.
    pub digest: String,
    /// Why.
    pub reason: String,
    /// Repeated, the decision is not made again. May be empty.
    pub request_id: String,
    /// Who says so.
    pub requested_by: String,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Accounts that were in doubt.
    pub accounts: u64,
    /// The base from now on.
    pub base: u64,
}

/// A decision on its way into the store.
#[derive(Clone, Copy)]
struct Decided<'a> {
    order: &'a ResolveOrder,
    picture: &'a Picture,
    /// The revision of `/meta/rewound` under which it was made: of two decisions at once one counts as a whole.
    proof: Rev,
}

impl RestoreUseCases {
    /// Settles a restore under a fence of every registered data plane. Repeated after any failure, it goes on.
    ///
    /// # Errors
    /// [`Reason::NotRewound`]; [`Reason::DataPlaneSilent`]; [`Reason::DigestMismatch`] when the store's word
    /// is to count and the list is not named; [`Reason::DecidedOtherwise`] when the fleet's is being written;
    /// [`Reason::NotDrained`].
    pub async fn resolve(&self, order: &ResolveOrder) -> Answer<(Arc<State>, Resolution)> {
        if order.reason.is_empty() {
            return Err(Refusal::required("reason"));
        }
        check_reason(&order.reason)?;
        let state = self.core.caught_up().await?;
        let installation = self.installation().await?;
        if let Some(done) = repeated(&installation.0, order) {
            return Ok((state, done));
        }
        if state.rewound().is_none() {
            return Err(not_rewound());
        }
        let picture = self.agreed_on(order).await?;
        self.hold(&picture).await?;
        if !picture.accounts.is_empty() {
            // Of a process that died around the restore nobody knows what a server still executes for it.
            time::sleep(self.core.migrations.settle).await;
        }
        // Whoever has come meanwhile is not held.
        let picture = self.same_as(&picture).await?;
        let proof = match order.keep {
            Keep::Store => revision_of_proof(&state),
            Keep::Fleet => self.keep_fleet(&picture, &state).await?,
        };
        self.core.failpoints.reach("resolved.before").await?;
        let decided = Decided {
            order,
            picture: &picture,
            proof,
        };
        let resolution = self.end(decided, &state, installation).await?;
        self.core.failpoints.reach("resolved.after").await?;
        tracing::warn!(keep = ?order.keep, by = order.requested_by, reason = order.reason,
            accounts = resolution.1.accounts, base = resolution.1.base, "a restore was resolved");
        Ok(resolution)
    }

    async fn installation(&self) -> Answer<(Stored<Installation>, Rev)> {
        let (found, _) = self.core.mirror.store().get(keys::INSTALLATION).await?;
        let read = |found: KeyValue| {
            let value = Stored::<Installation>::read(&found.value).ok()?;
            Some((value, found.mod_revision))
        };
        found.and_then(read).ok_or_else(|| {
            Refusal::new(Reason::Internal, "the store's installation cannot be read")
        })
    }

    /// The list that is decided on: whole, and the one that the operator means.
    async fn agreed_on(&self, order: &ResolveOrder) -> Answer<Picture> {
        let picture = self.look().await?;
        if !picture.missing.is_empty() {
            return Err(silent(&picture.missing));
        }
        if order.keep == Keep::Store
            && let Some(begun) = picture.begun()
        {
            return Err(decided_otherwise(begun.as_str()));
        }
        // What is left of a decision whose author is gone nobody has seen yet.
        let unread = order.keep == Keep::Store || picture.is_orphaned();
        let must_name = unread && !picture.accounts.is_empty();
        if (must_name || !order.digest.is_empty()) && order.digest != picture.digest() {
            return Err(unnamed(&picture));
        }
        Ok(picture)
    }

    async fn same_as(&self, before: &Picture) -> Answer<Picture> {
        let now = self.look().await?;
        if !now.missing.is_empty() {
            return Err(silent(&now.missing));
        }
        let planes = |picture: &Picture| picture.planes.keys().cloned().collect::<Vec<_>>();
        if now.digest() != before.digest() || planes(&now) != planes(before) {
            return Err(contended());
        }
        Ok(now)
    }

    /// Writes what the newest data plane has acknowledged into the records. Data planes hear nothing of it
    /// before the end. Returns the revision of the proof, in which the choice stands.
    async fn keep_fleet(&self, picture: &Picture, state: &State) -> Answer<Rev> {
        let newest = picture.newest().ok_or_else(nobody_remembers)?;
        let proof = self.choose(newest, state).await?;
        for (id, account) in &picture.accounts {
            let word = account.word_of(newest);
            let id = AccountId::parse(id)
                .map_err(|_| Refusal::new(Reason::Internal, "an account id that is none"))?;
            self.core.failpoints.reach("resolving.before").await?;
            self.core
                .transact(|state| self.keeping(state, &id, word, proof))
                .await?;
            self.core.failpoints.reach("resolving.after").await?;
        }
        Ok(proof)
    }

    /// Writes down whose word it is that goes into the records: with some of them written, another data plane may
    /// look like the newest.
    async fn choose(&self, newest: &InstanceId, state: &State) -> Answer<Rev> {
        let rewound = state.rewound().ok_or_else(not_rewound)?;
        if rewound.value.word_of == newest.as_str() {
            return Ok(rewound.revision);
        }
        let mut chosen = rewound.value.clone();
        newest.as_str().clone_into(&mut chosen.word_of);
        let txn = Txn::new()
            .at(keys::REWOUND, rewound.revision)
            .put(keys::REWOUND, chosen.bytes());
        self.core.failpoints.reach("chosen.before").await?;
        let written = self.core.write(txn).await?;
        self.core.failpoints.reach("chosen.after").await?;
        match written {
            Some(state) => Ok(revision_of_proof(&state)),
            None => Err(self.overtaken(Keep::Fleet, rewound.revision).await),
        }
    }

    /// What came between a decision and its write.
    async fn overtaken(&self, keep: Keep, proof: Rev) -> Refusal {
        match self.core.caught_up().await {
            Ok(state) => still_open(&state, keep, proof).map_or_else(|why| why, |()| contended()),
            Err(unknown) => unknown,
        }
    }

    fn keeping(
        &self,
        state: &State,
        id: &AccountId,
        word: Option<&AccountEntry>,
        proof: Rev,
    ) -> Answer<Step<()>> {
        still_open(state, Keep::Fleet, proof)?;
        let stored = match state.account(id).map(|account| &**account) {
            Some(Account::Known(placement)) => Some(placement),
            Some(Account::Unreadable(_)) => {
                return Err(Refusal::new(
                    Reason::RecordUnreadable,
                    format!("the record of {id} was written by a later version: upgrade first"),
                )
                .with("account", id));
            }
            None => None,
        };
        let change = RoutingChange::resolving(&self.core.random, proof);
        let change = match (word, stored) {
            (None, None) => return Ok(Step::Done(())),
            (None, Some(stored)) => stored
                .names
                .iter()
                .filter(|name| state.account_of(name) == Some(id))
                .fold(change.remove_record(stored), |change, name| {
                    change.remove_name(name)
                }),
            (Some(word), stored) => match kept(id, word, stored)? {
                None => return Ok(Step::Done(())),
                Some(placement) => with_names(change.record(&placement), state, &placement, stored),
            },
        };
        Ok(Step::Write(change.txn(), ()))
    }

    /// The last write: from here on everything is above what anybody holds.
    async fn end(
        &self,
        Decided {
            order,
            picture,
            proof,
        }: Decided<'_>,
        seen: &State,
        (mut installation, revision): (Stored<Installation>, Rev),
    ) -> Answer<(Arc<State>, Resolution)> {
        let held = picture
            .planes
            .values()
            .map(|word| word.held.revision.base());
        let base = held.fold(installation.base, u64::max) + 1;
        let accounts = picture.accounts.len() as u64;
        installation.base = base;
        installation.resolutions.push(StoredResolution {
            request_id: order.request_id.clone(),
            keep: v1::Keep::from(order.keep).into(),
            resolved_by: order.requested_by.clone(),
            reason: order.reason.clone(),
            resolved_at: Some(wall_clock::now()),
            accounts,
            base,
            digest: picture.digest(),
        });
        let excess = installation.resolutions.len().saturating_sub(REMEMBERED);
        installation.resolutions.drain(..excess);
        let txn = RoutingChange::resolving(&self.core.random, proof)
            .fleet(seen.fleet())
            .at(keys::INSTALLATION.to_vec(), revision)
            .with(|txn: Txn| {
                txn.put(keys::INSTALLATION, installation.bytes())
                    .delete(keys::REWOUND)
            })
            .txn();
        match self.core.write(txn).await? {
            Some(state) => Ok((state, Resolution { accounts, base })),
            None => Err(self.overtaken(order.keep, proof).await),
        }
    }
}

/// The record that the fleet's word makes; `None` when it is there already.
fn kept(
    id: &AccountId,
    word: &AccountEntry,
    stored: Option<&Placement>,
) -> Answer<Option<Placement>> {
    let home = DestinationId::parse(&word.home)
        .map_err(|_| Refusal::new(Reason::Internal, "a destination that is none"))?;
    let names = word.names.iter().map(|name| name.as_str().into());
    let mut next = match stored {
        Some(stored) => stored.clone(),
        None => Placement::new(id.clone(), [], home.clone()),
    };
    next.set_names(names);
    if next.home != home {
        next.previous_home = Some(std::mem::replace(&mut next.home, home));
    }
    next.target = None;
    next.phase = Phase::Settled;
    next.migration_id = None;
    next.fence_epoch = None;
    next.trace = None;
    Ok((stored != Some(&next)).then_some(next))
}

fn with_names(
    change: RoutingChange,
    state: &State,
    next: &Placement,
    stored: Option<&Placement>,
) -> RoutingChange {
    let wanted: BTreeSet<_> = next.names.iter().collect();
    let before = stored.into_iter().flat_map(|stored| stored.names.iter());
    let change = before
        .filter(|name| !wanted.contains(name))
        .filter(|name| state.account_of(name) == Some(&next.account))
        .fold(change, |change, name| change.remove_name(name));
    next.names
        .iter()
        .filter(|name| state.account_of(name) != Some(&next.account))
        .fold(change, |change, name| change.take_name(name, next))
}

fn repeated(installation: &Installation, order: &ResolveOrder) -> Option<Resolution> {
    let mut done = installation.resolutions.iter();
    let same = |done: &&StoredResolution| {
        !order.request_id.is_empty() && done.request_id == order.request_id
    };
    done.find(same).map(|done| Resolution {
        accounts: done.accounts,
        base: done.base,
    })
}

fn revision_of_proof(state: &State) -> Rev {
    state.rewound().map_or(0, |proof| proof.revision)
}

/// Refuses to go on when somebody else has decided since `proof` was read.
fn still_open(state: &State, keep: Keep, proof: Rev) -> Answer<()> {
    let now = state.rewound().ok_or_else(not_rewound)?;
    let word_of = &now.value.word_of;
    match keep {
        _ if now.revision == proof => Ok(()),
        Keep::Store if !word_of.is_empty() => Err(decided_otherwise(word_of)),
        Keep::Store | Keep::Fleet => Err(contended()),
    }
}

fn decided_otherwise(instance: &str) -> Refusal {
    Refusal::new(
        Reason::DecidedOtherwise,
        format!(
            "the fleet's word, which is {instance}'s, was decided for before and is being written: repeat the call \
             with it"
        ),
    )
    .with("instance", instance)
}

fn nobody_remembers() -> Refusal {
    Refusal::new(
        Reason::NobodyRemembers,
        "no registered data plane has acknowledged anything else than the store says, so there is no word of the \
         fleet to keep: start those that were in service last, or keep the store's word",
    )
}

fn not_rewound() -> Refusal {
    Refusal::new(
        Reason::NotRewound,
        "the store was not found restored, or that was resolved before: GetStats shows it",
    )
}

fn unnamed(picture: &Picture) -> Refusal {
    let (accounts, digest) = (picture.accounts.len(), picture.digest());
    Refusal::new(
        Reason::DigestMismatch,
        format!(
            "{accounts} accounts are in doubt: look at them with GetRewound, and repeat the call with the \
             digest of that list ({digest} at the moment)"
        ),
    )
    .with("accounts", accounts)
    .with("digest", digest)
}

impl From<Keep> for v1::Keep {
    fn from(keep: Keep) -> Self {
        match keep {
            Keep::Store => Self::Store,
            Keep::Fleet => Self::Fleet,
        }
    }
}
