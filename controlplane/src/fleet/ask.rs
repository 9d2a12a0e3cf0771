//! Commands to data planes: here, or by way of the store on the replica that serves the stream.

use std::{collections::BTreeSet, time::Duration};

use ferrypost_proto::{
    InstanceId, ReplicaId, TraceParent,
    routing::v1::{Command, CommandResult, command},
    store::v1::{StoredCommand, StoredResult},
    types::identifier,
};
use futures_util::future::join_all;
use prost::Message as _;
use tokio::time;

use super::Fleet;
use crate::store::{StoreError, Txn, TxnOutcome, keys, value::Stored};

/// The longest that anybody waits for an answer. What a replica keeps for another one, it keeps no longer:
/// whoever asked may have gone.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What came of a question to all data planes.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Those who answered.
    pub answers: Vec<(InstanceId, CommandResult)>,
    /// Registered data planes who did not, in time or at all.
    pub unreachable: Vec<InstanceId>,
}

impl Fleet {
    /// Asks every registered data plane, wherever its stream is served. Waits 5 s at most, whatever
    /// `within` says.
    pub async fn ask(
        &self,
        question: &command::Command,
        within: Duration,
        trace: TraceParent,
    ) -> Asked {
        self.ask_some(|_| true, question, within, trace).await
    }

    /// Asks those of them that `who` picks.
    pub async fn ask_some(
        &self,
        who: impl Fn(&InstanceId) -> bool,
        question: &command::Command,
        within: Duration,
        trace: TraceParent,
    ) -> Asked {
        let within = within.min(LONGEST_WAIT);
        let state = self.mirror().read();
        let registered = state.registrations().keys();
        let asking = registered
            .filter(|instance| who(instance))
            .map(|instance| async {
                let command = Command {
                    command_id: identifier(self.0.options.random.bytes()),
                    command: Some(question.clone()),
                    traceparent: trace.to_string(),
                };
                let result = time::timeout(within, self.ask_one(instance, command)).await;
                (instance.clone(), result.ok().flatten())
            });
        let mut asked = Asked::default();
        for (instance, result) in join_all(asking).await {
            match result {
                Some(result) => asked.answers.push((instance, result)),
                None => asked.unreachable.push(instance),
            }
        }
        asked
    }

    async fn ask_one(&self, instance: &InstanceId, command: Command) -> Option<CommandResult> {
        if let Some(stream) = self.with_streams(|streams| streams.get(instance).cloned()) {
            return stream.run(command).await;
        }
        let state = self.mirror().read();
        let replica = &state.live().get(instance)?.value.replica;
        let replica = ReplicaId::parse(replica)
            .ok()
            .filter(|r| *r != self.0.options.replica)?;
        self.ask_elsewhere(instance, &replica, command).await
    }

    async fn ask_elsewhere(
        &self,
        instance: &InstanceId,
        replica: &ReplicaId,
        command: Command,
    ) -> Option<CommandResult> {
        let id = command.command_id.clone();
        let lease = (*self.0.lease.borrow())?;
        let key = keys::command(replica, &id);
        let value = Stored::new(StoredCommand {
            instance: instance.as_str().to_owned(),
            command: command.encode_to_vec().into(),
            ..StoredCommand::default()
        });
        let mut changed = self.mirror().changed();
        let txn = Txn::new().put_leased(key, value.bytes(), lease);
        self.mirror()
            .store()
            .transact(txn)
            .await
            .ok()?
            .committed()?;
        let answer = (id.clone().into_boxed_str(), instance.clone());
        loop {
            if let Some(result) = self.mirror().read().results().get(&answer) {
                let result = CommandResult::decode(result.value.result.clone()).ok();
                let txn = Txn::new().delete(keys::command_result(&id, instance));
                // What stays ends with the lease of whoever answered.
                let _ = self.mirror().store().transact(txn).await;
                return result;
            }
            changed.changed().await.ok()?;
        }
    }
}

/// Runs the commands that other replicas have put down for this one.
pub(super) async fn serve(fleet: Fleet) {
    let mut changed = fleet.mirror().changed();
    let mut running: BTreeSet<Box<str>> = BTreeSet::new();
    loop {
        let state = fleet.mirror().read();
        let ours = &fleet.0.options.replica;
        let mut waiting = BTreeSet::new();
        for ((replica, id), stored) in state.commands() {
            if replica != ours {
                continue;
            }
            waiting.insert(id.clone());
            if running.insert(id.clone()) {
                let (fleet, id, stored) = (fleet.clone(), id.clone(), stored.clone());
                let cancel = fleet.0.cancel.clone();
                fleet.clone().0.tasks.spawn(async move {
                    let run = fleet.run_for_another(&id, &stored.value);
                    if let Some(Err(error)) = cancel.run_until_cancelled(run).await {
                        tracing::debug!(%error, "the result of a command is not written");
                    }
                });
            }
        }
        running.retain(|id| waiting.contains(id));
        if changed.changed().await.is_err() {
            return;
        }
    }
}

impl Fleet {
    async fn run_for_another(&self, id: &str, stored: &StoredCommand) -> Result<(), StoreError> {
        let asked = Command::decode(stored.command.clone())
            .ok()
            .zip(InstanceId::parse(&stored.instance).ok());
        let mut txn = Txn::new().delete(keys::command(&self.0.options.replica, id));
        let mut answered = None;
        if let Some((command, instance)) = asked
            && let Some(stream) = self.with_streams(|streams| streams.get(&instance).cloned())
            && let Ok(Some(result)) = time::timeout(LONGEST_WAIT, stream.run(command)).await
            && let Some(lease) = *self.0.lease.borrow()
        {
            let value = Stored::new(StoredResult {
                result: result.encode_to_vec().into(),
                ..StoredResult::default()
            });
            let key = keys::command_result(id, &instance);
            txn = txn.put_leased(key.clone(), value.bytes(), lease);
            answered = Some(key);
        }
        let store = self.mirror().store();
        let _: TxnOutcome = store.transact(txn).await?;
        if let Some(key) = answered {
            // Whoever asked takes it away, unless it has given up.
            time::sleep(LONGEST_WAIT).await;
            if store.get(&key).await?.0.is_some() {
                let _: TxnOutcome = store.transact(Txn::new().delete(key)).await?;
            }
        }
        Ok(())
    }
}
