//! One data plane's stream, from Welcome to its end.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::{
    AccountId, InstanceId, MigrationId, Revision, Speaks, TablePosition,
    routing::v1::{
        self as wire, Command, CommandResult, Goodbye, GoodbyeAccepted, Health, Heartbeat, Hello,
        StreamRequest, StreamResponse, Welcome, stream_request::Message as Said,
        stream_response::Message as Told,
    },
    store::v1 as stored,
};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Claimable, Fleet, View, bounds,
    join::Joined,
    report::{self, PlaneReport},
};
use crate::{
    domain::placement::Placement,
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    store::Rev,
};

/// Messages that may lie ready for a subscriber. Small, because a chunk is up to 1 MiB: what it does
/// not take is not even built.
const QUEUE: usize = 4;

/// Commands that may be under way to one data plane.
const MOST_COMMANDS: usize = 64;

/// How long Hello may take.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// What the response side of a stream carries.
pub(super) type Outgoing = mpsc::Sender<Result<StreamResponse, Status>>;

/// Commands under way, by id.
type Pending = Arc<Mutex<HashMap<String, oneshot::Sender<CommandResult>>>>;

/// A stream as the rest of the fleet sees it.
#[derive(Clone)]
pub(super) struct Handle {
    serial: u64,
    view: watch::Receiver<View>,
    outgoing: Outgoing,
    pending: Pending,
    end: CancellationToken,
}

impl Handle {
    /// The last that was heard.
    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Sends a command and waits for its result; `None` when the stream ends first.
    pub(super) async fn run(&self, command: Command) -> Option<CommandResult> {
        let (answer, result) = oneshot::channel();
        let id = command.command_id.clone();
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.len() >= MOST_COMMANDS {
                return None;
            }
            pending.insert(id.clone(), answer);
        }
        let _forget = Forget {
            id,
            pending: self.pending.clone(),
        };
        self.outgoing
            .send(Ok(told(Told::Command(command))))
            .await
            .ok()?;
        tokio::select! {
            result = result => result.ok(),
            () = self.end.cancelled() => None,
        }
    }
}

/// Forgets a command when nobody waits for it any more.
struct Forget {
    id: String,
    pending: Pending,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

impl Fleet {
    /// Serves a stream: reads Hello, then answers until it ends. What it returns before that is the
    /// refusal of the whole call.
    pub(crate) async fn serve<S>(
        &self,
        mut requests: S,
        claimable: &Claimable,
    ) -> Answer<mpsc::Receiver<Result<StreamResponse, Status>>>
    where
        S: Stream<Item = Result<StreamRequest, Status>> + Send + Unpin + 'static,
    {
        let hello = introduction(&mut requests).await?;
        let joined = self.join(hello, claimable).await?;
        let (outgoing, responses) = mpsc::channel(QUEUE);
        let fleet = self.clone();
        self.0.tasks.spawn(async move {
            fleet.serve_joined(joined, requests, outgoing).await;
        });
        Ok(responses)
    }

    async fn serve_joined<S>(&self, joined: Joined, requests: S, outgoing: Outgoing)
    where
        S: Stream<Item = Result<StreamRequest, Status>> + Send + Unpin + 'static,
    {
        let replica = self.0.options.replica.as_str();
        let end = self.0.cancel.child_token();
        let view = View {
            boot: joined.boot.as_str().to_owned(),
            applied: joined.position.as_ref().map(|p| p.revision),
            sent: joined.position.as_ref().map(|p| p.revision),
            answers: true,
            ..View::default()
        };
        let (view, view_of) = watch::channel(view);
        let (report, reports) = watch::channel(report::first(&joined, replica));
        let handle = Handle {
            serial: next_serial(),
            view: view_of,
            outgoing: outgoing.clone(),
            pending: Pending::default(),
            end: end.clone(),
        };
        let pending = handle.pending.clone();
        let serial = self.put_in_place(&joined.instance, handle);

        let writer = self.0.tasks.spawn({
            let (fleet, joined) = (self.clone(), joined.clone());
            async move { fleet.write_reports(&joined, reports).await }
        });
        let mut listener = Listener {
            fleet: self,
            joined: &joined,
            outgoing: outgoing.clone(),
            view: &view,
            report,
            pending,
            heard: Instant::now(),
            unleased: None,
            sequence: 0,
        };
        // Before anything else is said, a snapshot above all.
        let outcome = if let Err(gone) = listener.welcome().await {
            Err(gone)
        } else {
            tokio::select! {
                () = end.cancelled() => Err(Refusal::new(
                    Reason::ShuttingDown,
                    "the stream is served elsewhere, or this replica is stopping",
                )),
                outcome = listener.run(requests) => outcome,
                outcome = self.talk(&joined, &outgoing, &view) => outcome,
                outcome = self.tell_cookie_keys(&joined, &outgoing) => outcome,
            }
        };
        drop(listener);
        end.cancel();
        self.take_away(&joined.instance, serial);
        if let Err(refusal) = outcome {
            tracing::info!(instance = %joined.instance, %refusal, "a stream ends");
            // Nobody reads it if the data plane is gone.
            let _ = time::timeout(Duration::from_secs(1), outgoing.send(Err(refusal.into()))).await;
        }
        // It ends by itself now that nothing is reported any more, and takes `/live` with it.
        let _ = writer.await;
    }

    /// At most one stream an instance: a data plane that reconnects has given up its old one, which may
    /// not have noticed yet.
    fn put_in_place(&self, instance: &InstanceId, handle: Handle) -> u64 {
        let serial = handle.serial;
        let before = self.with_streams(|streams| streams.insert(instance.clone(), handle));
        if let Some(before) = before {
            before.end.cancel();
        }
        serial
    }

    fn take_away(&self, instance: &InstanceId, serial: u64) {
        self.with_streams(|streams| {
            if streams
                .get(instance)
                .is_some_and(|handle| handle.serial == serial)
            {
                streams.remove(instance);
            }
        });
    }
}

fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn introduction<S>(requests: &mut S) -> Answer<Hello>
where
    S: Stream<Item = Result<StreamRequest, Status>> + Unpin,
{
    let first = time::timeout(INTRODUCTION, requests.next()).await;
    match first {
        Ok(Some(Ok(StreamRequest {
            message: Some(Said::Hello(hello)),
        }))) => Ok(hello),
        _ => Err(Refusal::new(
            Reason::RequestMalformed,
            "the first request must be Hello",
        )),
    }
}

pub(super) fn told(message: Told) -> StreamResponse {
    StreamResponse {
        message: Some(message),
    }
}

/// The receiving side of a stream.
struct Listener<'a> {
    fleet: &'a Fleet,
    joined: &'a Joined,
    outgoing: Outgoing,
    view: &'a watch::Sender<View>,
    report: watch::Sender<PlaneReport>,
    pending: Pending,
    /// When the data plane last answered.
    heard: Instant,
    /// Since when this replica has had no lease, which is the store's word that it has it.
    unleased: Option<Instant>,
    sequence: u64,
}

impl Listener<'_> {
    async fn run<S>(&mut self, mut requests: S) -> Answer<()>
    where
        S: Stream<Item = Result<StreamRequest, Status>> + Unpin,
    {
        let mut changed = self.fleet.mirror().changed();
        let mut heartbeat = time::interval(self.fleet.heartbeat());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(StreamRequest { message: Some(Said::Goodbye(goodbye)) })) => {
                        return self.goodbye(goodbye).await;
                    }
                    Some(Ok(StreamRequest { message: Some(said) })) => self.hear(said)?,
                    // A message of a later contract: nothing that this version could act on.
                    Some(Ok(StreamRequest { message: None })) => {}
                    Some(Err(_)) | None => return Ok(()),
                },
                _ = heartbeat.tick() => self.beat()?,
                reached = changed.changed() => {
                    reached.map_err(|_| Refusal::new(Reason::ShuttingDown, "the replica is stopping"))?;
                    self.look()?;
                }
            }
        }
    }

    async fn welcome(&self) -> Answer<()> {
        let welcome = Welcome {
            contract: self.joined.contract,
            installation: self.joined.installation.as_str().to_owned(),
            registered: Some(Revision::new(self.joined.base, self.joined.registered).into()),
            heartbeat_interval: prost_types::Duration::try_from(self.fleet.heartbeat()).ok(),
            rewound: self.joined.rewound,
            replica: self.fleet.0.options.replica.as_str().to_owned(),
            contracts: Some(Speaks::here().contracts.into()),
            schemas: Some(Speaks::here().schemas.into()),
            settle: prost_types::Duration::try_from(self.fleet.0.options.settle).ok(),
        };
        self.outgoing
            .send(Ok(told(Told::Welcome(welcome))))
            .await
            .map_err(|_| gone())
    }

    fn hear(&mut self, said: Said) -> Answer<()> {
        match said {
            Said::Hello(_) => {
                return Err(Refusal::new(Reason::RequestMalformed, "Hello comes once"));
            }
            Said::Applied(applied) => self.applied(applied),
            Said::Drained(drained) => self.drained(drained),
            Said::Draining(draining) => self.draining(draining),
            Said::Rejected(rejected) => self.rejected(&rejected),
            Said::Health(health) => self.health(health),
            Said::CommandResult(result) => {
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(waiting) = pending.remove(&result.command_id) {
                    // Nobody waits any more: then it is of no use.
                    let _ = waiting.send(result);
                }
            }
            Said::Goodbye(_) => {}
        }
        Ok(())
    }

    fn applied(&mut self, applied: wire::Applied) {
        let position = TablePosition::from(applied.position.unwrap_or_default());
        self.view
            .send_modify(|view| view.applied = Some(position.revision));
        self.report
            .send_modify(|report| report.applied = Some(position.revision));
    }

    /// Keeps a report for as long as its fence lasts; what is said about another fence is late.
    fn drained(&mut self, drained: wire::Drained) {
        let state = self.fleet.mirror().read();
        let accounts: Vec<_> = drained
            .accounts
            .into_iter()
            .filter_map(|account| {
                let fence = account.fence_epoch.unwrap_or_default();
                let counts = is_this_fence(
                    &state,
                    &drained.migration_id,
                    &account.account_id,
                    fence.into(),
                );
                counts.then_some(stored::DrainedReportAccount {
                    account_id: account.account_id,
                    fence_epoch: fence.store,
                    closed: account.closed,
                    unconfirmed: account.unconfirmed,
                    sessions_left: 0,
                })
            })
            .map(|said| (said.fence_epoch, said))
            .collect();
        self.put_drained(&drained.migration_id, accounts);
    }

    fn draining(&mut self, draining: wire::Draining) {
        let state = self.fleet.mirror().read();
        let fence = Revision::from(draining.fence_epoch.unwrap_or_default());
        if is_this_fence(&state, &draining.migration_id, &draining.account_id, fence) {
            let account = stored::DrainedReportAccount {
                account_id: draining.account_id,
                sessions_left: draining.sessions_left,
                ..stored::DrainedReportAccount::default()
            };
            self.put_drained(&draining.migration_id, vec![(fence.store(), account)]);
        }
    }

    /// Merges by account, each with the fence that it is about. Drained is never taken back within a fence;
    /// what was said about an earlier one of the same move counts no more.
    fn put_drained(&mut self, migration: &str, accounts: Vec<(Rev, stored::DrainedReportAccount)>) {
        let Ok(migration) = MigrationId::parse(migration) else {
            return;
        };
        if accounts.is_empty() {
            return;
        }
        let boot = self.joined.boot.as_str();
        self.report.send_if_modified(|report| {
            let whole = report.drained.entry(migration).or_default();
            let before = whole.clone();
            boot.clone_into(&mut whole.boot);
            for (fence, account) in accounts {
                let same = |known: &&mut stored::DrainedReportAccount| {
                    known.account_id == account.account_id
                };
                match whole.accounts.iter_mut().find(same) {
                    Some(known) if account.fence_epoch == 0 && known.fence_epoch == fence => {}
                    Some(known) => *known = account,
                    None => whole.accounts.push(account),
                }
            }
            *whole != before
        });
    }

    fn rejected(&mut self, rejected: &wire::Rejected) {
        for entry in bounds::logged(rejected) {
            tracing::warn!(instance = %self.joined.instance, account = entry.account_id,
                reason = entry.reason().as_str_name(), field = entry.field,
                rejected = rejected.entries.len(),
                "a data plane rejected an entry and holds its account");
        }
        let endpoints = bounds::rejected_endpoints(rejected);
        for endpoint in &endpoints {
            tracing::warn!(instance = %self.joined.instance, destination = endpoint.destination,
                field = endpoint.field, "a data plane does not use an endpoint that says something its \
                version does not know");
        }
        let kept = bounds::rejected(rejected);
        self.live(|live| {
            live.rejected = kept;
            live.rejected_endpoints = endpoints;
        });
    }

    fn health(&mut self, health: Health) {
        self.heard = Instant::now();
        let endpoints = bounds::endpoints(health.endpoints);
        let kept = bounds::to_live(&endpoints);
        let ready = health.ready;
        let certificates = bounds::certificates(health.certificates);
        let (unsettled, more) = bounds::unsettled(health.unsettled.unwrap_or_default());
        self.live(|live| {
            live.ready = ready;
            live.endpoints = kept;
            live.unsettled = unsettled;
            live.unsettled_more = more;
            live.certificates = certificates;
        });
        self.view.send_modify(|view| {
            view.answers = true;
            view.ready = ready;
            view.sessions = health.sessions;
            view.held_logins = health.held_logins;
            view.endpoints = endpoints;
        });
    }

    /// Changes `/live`, and puts it back if silence had taken it away.
    fn live(&mut self, change: impl FnOnce(&mut stored::Live)) {
        let replica = self.fleet.0.options.replica.as_str();
        self.report.send_if_modified(|report| {
            let mut live = report
                .live
                .clone()
                .or_else(|| report::first(self.joined, replica).live)
                .unwrap_or_default();
            change(&mut live);
            let before = report.live.replace(live);
            report.live != before
        });
    }

    /// Sends a heartbeat and draws conclusions from silence.
    fn beat(&mut self) -> Answer<()> {
        let silent = self.heard.elapsed();
        let interval = self.fleet.heartbeat();
        if silent > interval * 3 {
            return Err(Refusal::new(
                Reason::DeadlineExceeded,
                "no answer for three heartbeats",
            ));
        }
        if silent > interval * 2 {
            self.view.send_modify(|view| view.answers = false);
            self.report
                .send_if_modified(|report| report.live.take().is_some());
        }
        if self.has_lost_the_store() {
            return Err(Refusal::new(
                Reason::StoreUnavailable,
                "this replica has lost its store; another one may have it",
            ));
        }
        // What was written may have been taken away meanwhile: the writer looks again.
        self.report.send_modify(|_| ());
        self.sequence += 1;
        let heartbeat = told(Told::Heartbeat(Heartbeat {
            sequence: self.sequence,
        }));
        // A full queue holds something else that shows that we are here.
        match self.outgoing.try_send(Ok(heartbeat)) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
        }
    }

    /// A replica without its store has nothing to tell, and what it is told it can tell nobody: a data plane
    /// that stayed with it would hold up every move.
    fn has_lost_the_store(&mut self) -> bool {
        if self.fleet.0.lease.borrow().is_some() {
            self.unleased = None;
            return false;
        }
        let since = *self.unleased.get_or_insert_with(Instant::now);
        since.elapsed() > self.fleet.heartbeat() * 2
    }

    /// Looks whether the store still wants this stream.
    fn look(&mut self) -> Answer<()> {
        let state = self.fleet.mirror().read();
        let (instance, boot) = (&self.joined.instance, &self.joined.boot);
        if state
            .expelled()
            .contains_key(&(instance.clone(), boot.clone()))
        {
            return Err(Refusal::new(
                Reason::Expelled,
                "an operator has expelled this process",
            ));
        }
        match (self.joined.rewound, state.rewound()) {
            (false, Some(_)) => {
                return Err(Refusal::new(
                    Reason::Rewound,
                    "the store was restored to an older state: compare with it",
                ));
            }
            (true, None) if state.revision() >= self.joined.seen => {
                return Err(Refusal::new(Reason::Behind, "the restore is resolved"));
            }
            _ => {}
        }
        // The mirror may not have come to our own registration yet.
        if state.revision() >= self.joined.registered && state.rewound().is_none() {
            let registered = state
                .registrations()
                .get(instance)
                .map(|r| r.value.boot.as_str());
            if registered != Some(boot.as_str()) {
                return Err(Refusal::new(
                    Reason::Superseded,
                    "this process is not registered any more",
                ));
            }
        }
        if report::is_taken_over(&state, self.joined, self.fleet.0.options.replica.as_str()) {
            return Err(Refusal::new(
                Reason::ShuttingDown,
                "the stream is served elsewhere",
            ));
        }
        if !self.report.borrow().drained.is_empty() {
            self.report.send_if_modified(|report| {
                let before = report.drained.len();
                report::prune(report, &state);
                report.drained.len() != before
            });
        }
        Ok(())
    }

    async fn goodbye(&mut self, goodbye: Goodbye) -> Answer<()> {
        self.fleet.depart(self.joined, goodbye.unconfirmed).await?;
        self.outgoing
            .send(Ok(told(Told::GoodbyeAccepted(GoodbyeAccepted {}))))
            .await
            .map_err(|_| gone())
    }
}

/// Whether an account is fenced, at this fence of this move.
fn is_this_fence(state: &State, migration: &str, account: &str, fence: Revision) -> bool {
    AccountId::parse(account)
        .ok()
        .and_then(|id| state.account(&id))
        .and_then(|account| account.placement())
        .filter(|placement| {
            let moved_by = placement.migration_id.as_ref().map(MigrationId::as_str);
            moved_by == Some(migration)
        })
        .and_then(Placement::fence)
        .is_some_and(|ours| Revision::new(state.base(), ours) == fence)
}

fn gone() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the data plane has gone")
}
