//! A data plane as the store sees it: a registration, what it has said, and its drained reports. What it
//! says can be changed while it runs.

use std::sync::{Arc, Mutex};

use ferrypost_proto::{
    BootId, InstanceId, MigrationId, Revision, StateId,
    store::v1::{
        DrainedReport, DrainedReportAccount, Live, LiveEndpoint, LiveRejected, Registration,
    },
    v1,
};

use super::world::{World, instance};
use crate::{
    domain::state::State,
    mirror::Mirror,
    store::{Store, Txn, TxnOutcome, keys, value::Stored},
};

/// Seconds for which a data plane of the tests holds logins: more than any window of theirs.
pub(super) const HOLD: i64 = 3600;

/// What a data plane says about a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drains {
    /// All sessions are closed.
    Yes,
    /// Nothing.
    No,
    /// This many are left.
    Left(u32),
    /// This many closes were not seen.
    Unconfirmed(u32),
}

/// How a data plane behaves.
#[derive(Debug, Clone)]
pub(super) struct Behaviour {
    pub(super) answers: bool,
    pub(super) applies: bool,
    pub(super) drains: Drains,
    pub(super) rejects: Vec<LiveRejected>,
    pub(super) unreachable: Vec<&'static str>,
    /// Sessions of these accounts ended lately, and nobody saw their server close.
    pub(super) unsettled: Vec<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            answers: true,
            applies: true,
            drains: Drains::Yes,
            rejects: Vec::new(),
            unreachable: Vec::new(),
            unsettled: Vec::new(),
        }
    }
}

/// A handle of a data plane; clones share it.
#[derive(Clone)]
pub(super) struct Plane {
    pub(super) instance: InstanceId,
    pub(super) boot: BootId,
    store: Arc<dyn Store>,
    mirror: Mirror,
    behaviour: Arc<Mutex<Behaviour>>,
    again: Arc<tokio::sync::Notify>,
}

impl Plane {
    pub(super) async fn register(world: &World, name: &str) -> Self {
        Self::register_after(world, name, None, |_| ()).await
    }

    /// A data plane that took over from another boot, whose end nobody saw. It behaves so from its first word on.
    pub(super) async fn register_after(
        world: &World,
        name: &str,
        predecessor: Option<&BootId>,
        behaves: impl FnOnce(&mut Behaviour),
    ) -> Self {
        let plane = Self {
            instance: instance(name),
            boot: BootId::generate(world.random.bytes()),
            store: world.store.clone(),
            mirror: world.observer(),
            behaviour: Arc::default(),
            again: Arc::default(),
        };
        let registration = Registration {
            boot: plane.boot.as_str().to_owned(),
            state_id: StateId::generate(world.random.bytes()).as_str().to_owned(),
            limits: Some(limits(HOLD)),
            unsettled_predecessor: predecessor.map_or_else(String::new, |b| b.as_str().to_owned()),
            ..Registration::default()
        };
        let registration = Stored::new(registration).bytes();
        let key = keys::registration(&plane.instance);
        world
            .commit_to_fleet(|_| Txn::new().put(key.clone(), registration.clone()))
            .await;
        plane.behave(behaves);
        let speaker = plane.clone();
        world.spawn(async move { speaker.speak().await });
        plane
    }

    /// Says other limits than it did.
    pub(super) async fn limit(&self, world: &World, limits: Option<v1::DataPlaneLimits>) {
        world
            .commit_to_fleet(|state| {
                let mut registration = state.registrations()[&self.instance].value.clone();
                registration.limits = limits;
                Txn::new().put(keys::registration(&self.instance), registration.bytes())
            })
            .await;
    }

    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
        self.again.notify_one();
    }

    /// Its registration ends in order, or by an operator's word; it says nothing any more.
    pub(super) async fn leave(&self, world: &World, with: impl FnOnce(Txn) -> Txn) {
        self.behave(|behaviour| {
            behaviour.answers = false;
            behaviour.drains = Drains::No;
        });
        let txn = Txn::new()
            .delete(keys::registration(&self.instance))
            .delete(keys::live(&self.instance));
        let txn = with(txn);
        world.commit_to_fleet(|_| txn.clone()).await;
    }

    /// Says what its behaviour is, at every change.
    async fn speak(&self) {
        let mut changed = self.mirror.changed();
        loop {
            changed.borrow_and_update();
            let state = self.mirror.read();
            let behaviour = self.behaviour.lock().unwrap().clone();
            self.say_live(&state, &behaviour).await;
            self.say_drained(&state, &behaviour).await;
            tokio::select! {
                _ = changed.changed() => {}
                () = self.again.notified() => {}
            }
        }
    }

    fn is_registered(&self, state: &State) -> bool {
        let registration = state.registrations().get(&self.instance);
        registration.is_some_and(|found| found.value.boot == self.boot.as_str())
    }

    /// Like the streams: written only when it says something new.
    async fn say_live(&self, state: &State, behaviour: &Behaviour) {
        let key = keys::live(&self.instance);
        let before = state.live().get(&self.instance);
        if !self.is_registered(state) || !behaviour.answers {
            if before.is_some_and(|live| live.value.boot == self.boot.as_str()) {
                self.write(Txn::new().delete(key)).await;
            }
            return;
        }
        let said = before
            .map(|before| (*before.value).clone())
            .unwrap_or_default();
        let applied = said.applied.map(Revision::from).unwrap_or_default();
        let own = said.boot == self.boot.as_str();
        let applied = match behaviour.applies {
            true if !own || applied.store() < state.head().store => state.wire_revision(),
            _ if own => applied,
            _ => Revision::ZERO,
        };
        let live = Live {
            schema: said.schema,
            boot: self.boot.as_str().to_owned(),
            replica: "cp".to_owned(),
            ready: true,
            applied: Some(applied.into()),
            rejected: behaviour.rejects.clone(),
            endpoints: behaviour
                .unreachable
                .iter()
                .map(|destination| LiveEndpoint {
                    destination: (*destination).to_owned(),
                    protocol: v1::Protocol::Imap.into(),
                    reachable: false,
                    problem: "connection refused".to_owned(),
                })
                .collect(),
            rejected_endpoints: Vec::new(),
            unsettled: behaviour.unsettled.clone(),
            unsettled_more: false,
            certificates: Vec::new(),
        };
        if live != said {
            self.write(Txn::new().put(key, Stored::new(live).bytes()))
                .await;
        }
    }

    async fn say_drained(&self, state: &State, behaviour: &Behaviour) {
        let (sessions_left, unconfirmed) = match behaviour.drains {
            Drains::No => return,
            Drains::Yes => (0, 0),
            Drains::Left(left) => (left, 0),
            Drains::Unconfirmed(unconfirmed) => (0, unconfirmed),
        };
        for account in state.accounts() {
            let fence = account
                .placement()
                .and_then(|placement| Some((placement.migration_id.clone()?, placement.fence()?)));
            let Some((migration, fence)) = fence else {
                continue;
            };
            let said = DrainedReportAccount {
                account_id: account.id().as_str().to_owned(),
                fence_epoch: if sessions_left == 0 { fence } else { 0 },
                closed: 1,
                unconfirmed,
                sessions_left,
            };
            self.report(state, &migration, said).await;
        }
    }

    async fn report(&self, state: &State, migration: &MigrationId, said: DrainedReportAccount) {
        let report = DrainedReport {
            schema: 1,
            boot: self.boot.as_str().to_owned(),
            accounts: vec![said],
        };
        let before = state
            .drained(migration)
            .and_then(|reports| reports.get(&self.instance));
        if before.is_none_or(|before| *before.value != report) {
            let key = keys::drained(migration, &self.instance);
            self.write(Txn::new().put(key, Stored::new(report).bytes()))
                .await;
        }
    }

    /// Only as long as it is registered, as the streams do.
    async fn write(&self, txn: Txn) {
        let guarded = txn.exists(keys::registration(&self.instance));
        if let Ok(TxnOutcome::Committed(revision)) = self.store.transact(guarded).await {
            let _ = self.mirror.at_least(revision, super::world::PATIENCE).await;
        }
    }
}

/// Those of a data plane that holds logins for so many seconds and closes sessions at once.
pub(super) fn limits(hold: i64) -> v1::DataPlaneLimits {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::DataPlaneLimits {
        hold: seconds(hold),
        drain: seconds(0),
        close: seconds(0),
    }
}
