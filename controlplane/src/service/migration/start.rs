//! Starting a move: one transaction that writes the record in COPYING, its names and the migration.

use std::sync::Arc;

use ferrypost_proto::{MigrationId, TraceParent, store::v1::RequestEntry, v1};

use super::{MigrationUseCases, MoveKind, MoveOrder, Patience, plan};
use crate::{
    domain::start::{self, MoveRequest, MoveStart, MoveTerms, MoveVerdict, Requester},
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    service::{ATTEMPTS, contended, not_rewound, routing},
    store::{Txn, keys, value::Stored},
    wall_clock,
};

/// A move that was started, by this call or by one before it.
pub(super) struct Started {
    pub(super) migration: MigrationId,
    pub(super) plan: v1::MigrationPlan,
    pub(super) unreachable: Vec<String>,
}

/// What is known of a move before it begins.
pub(super) struct Draft {
    pub(super) accounts: Vec<v1::MigratingAccount>,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) risks: Vec<String>,
    pub(super) trace: TraceParent,
    verdict: MoveVerdict,
}

impl MigrationUseCases {
    /// Starts the move that is ordered, or finds the one that serves the same purpose.
    pub(super) async fn start(&self, order: &MoveOrder, patience: Patience) -> Answer<Started> {
        order.check_form()?;
        for _ in 0..ATTEMPTS {
            let state = self.core.caught_up().await?;
            if let Some(migration) = self.repeated(order).await? {
                return self.joined(&state, migration).await;
            }
            let draft = self.draft(&state, order)?;
            match &draft.verdict {
                MoveVerdict::Join(migration) => {
                    if self.note_request(order, migration).await? {
                        return self.joined(&state, migration.clone()).await;
                    }
                }
                MoveVerdict::Start(start) => {
                    let asking = plan::patience(patience);
                    let (plan, unreachable) = self.plan(&state, &draft, asking).await;
                    if let Some(migration) = self.begin(order, start).await? {
                        return Ok(Started {
                            migration,
                            plan,
                            unreachable,
                        });
                    }
                }
            }
        }
        Err(contended())
    }

    /// What the order comes to in a state.
    pub(super) fn draft(&self, state: &State, order: &MoveOrder) -> Answer<Draft> {
        order.check_form()?;
        not_rewound(state)?;
        let (names, destination): (&[String], _) = match &order.kind {
            MoveKind::Migrate { names, destination } => (names, Some(destination.as_str())),
            MoveKind::Rollback => (&[], None),
        };
        let request = MoveRequest {
            account: &order.account,
            names,
            destination,
            expected_source: (!order.expected_source.is_empty()).then_some(&order.expected_source),
        };
        let terms = MoveTerms {
            window: self.core.migrations.window,
            delta_hook: self.core.delta_hook,
        };
        let verdict = start::start(state, &self.core.random, &request, terms)
            .map_err(|refused| with_known_destinations(refused.into(), state))?;
        match verdict {
            MoveVerdict::Start(start) => Ok(Draft {
                accounts: start.accounts(),
                source: start.source.clone().into(),
                target: start.target.clone().into(),
                risks: start.residual_risks(),
                trace: order.trace,
                verdict: MoveVerdict::Start(start),
            }),
            MoveVerdict::Join(migration) => Ok(self.joining(state, migration, order.trace)),
        }
    }

    /// The migration that a request id has started before.
    async fn repeated(&self, order: &MoveOrder) -> Answer<Option<MigrationId>> {
        if order.request_id.is_empty() {
            return Ok(None);
        }
        let key = keys::request(&order.request_id);
        let (Some(entry), _) = self.core.mirror.store().get(&key).await? else {
            return Ok(None);
        };
        let entry = Stored::<RequestEntry>::read(&entry.value).map_err(|error| {
            tracing::error!(%error, "a request entry");
            Refusal::new(Reason::Internal, error.to_string())
        })?;
        if entry.fingerprint != order.fingerprint() {
            return Err(Refusal::new(
                Reason::RequestIdReused,
                format!(
                    "request id {:?} has started {} for another request",
                    order.request_id, entry.migration_id
                ),
            )
            .with("request_id", &order.request_id)
            .with("migration", &entry.migration_id));
        }
        MigrationId::parse(&entry.migration_id)
            .map(Some)
            .map_err(|error| {
                tracing::error!(%error, "a request entry");
                Refusal::new(Reason::Internal, error.to_string())
            })
    }

    /// Begins; `None` when somebody else has written something that the decision rested on.
    async fn begin(&self, order: &MoveOrder, start: &MoveStart) -> Answer<Option<MigrationId>> {
        let migration = MigrationId::generate(self.core.random.bytes());
        let requester = Requester {
            request_id: order.request_id.clone(),
            requested_by: order.requested_by.clone(),
            reason: order.reason.clone(),
            labels: order.labels.clone(),
            trace: Some(order.trace),
        };
        let change = start
            .change(&self.core.random, &migration, requester, wall_clock::now())
            .with(|txn| requested(txn, order, &migration));
        self.core.failpoints.reach("copying.before").await?;
        match self.core.write(change.txn()).await {
            Ok(Some(_)) => {
                self.core.failpoints.reach("copying.after").await?;
                tracing::info!(%migration, account = %start.placement.account, source = %start.source,
                    target = %start.target, by = order.requested_by, reason = order.reason,
                    trace = %order.trace.trace_id(),
                    "a move was asked for");
                Ok(Some(migration))
            }
            Ok(None) => Ok(None),
            // The write may have happened: the migration's id is nobody else's, so to find it is proof.
            Err(refusal) if refusal.reason == Reason::OutcomeUnknown => {
                match self.core.caught_up().await {
                    Ok(state) if state.migration(&migration).is_some() => Ok(Some(migration)),
                    _ => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Lets the request id of a caller who joins stand for the move too. False: somebody has used it
    /// meanwhile.
    async fn note_request(&self, order: &MoveOrder, migration: &MigrationId) -> Answer<bool> {
        if order.request_id.is_empty() {
            return Ok(true);
        }
        let txn = requested(Txn::new(), order, migration);
        Ok(self.core.write(txn).await?.is_some())
    }

    async fn joined(&self, state: &Arc<State>, migration: MigrationId) -> Answer<Started> {
        let (_, shown) = self.migration(&migration).await?;
        let plan = v1::MigrationPlan {
            accounts: shown.accounts,
            source: shown.source,
            target: shown.target,
            disconnects: Vec::new(),
            blockers: self
                .shown(state, &migration)
                .map(|now| now.blockers)
                .unwrap_or_default(),
            residual_risks: shown.residual_risks,
            unlisted_logins: Vec::new(),
        };
        Ok(Started {
            migration,
            plan,
            unreachable: Vec::new(),
        })
    }
}

/// Writes the request id beside the move that it stands for.
fn requested(txn: Txn, order: &MoveOrder, migration: &MigrationId) -> Txn {
    if order.request_id.is_empty() {
        return txn;
    }
    let key = keys::request(&order.request_id);
    let entry = Stored::new(RequestEntry {
        migration_id: migration.as_str().to_owned(),
        fingerprint: order.fingerprint().into(),
        ..RequestEntry::default()
    });
    txn.absent(key.clone()).put(key, entry.bytes())
}

impl MigrationUseCases {
    fn joining(&self, state: &State, migration: MigrationId, trace: TraceParent) -> Draft {
        let shown = self.shown(state, &migration).unwrap_or_default();
        Draft {
            accounts: shown.accounts,
            source: shown.source,
            target: shown.target,
            risks: shown.residual_risks,
            trace,
            verdict: MoveVerdict::Join(migration),
        }
    }
}

/// Who mistypes a destination wants to see those that there are.
pub(in crate::service) fn with_known_destinations(refusal: Refusal, state: &State) -> Refusal {
    if refusal.reason != Reason::DestinationUnknown {
        return refusal;
    }
    let known = routing(state).map_or_else(
        |_| String::new(),
        |(routing, _)| {
            let ids: Vec<_> = routing
                .destinations()
                .keys()
                .map(ferrypost_proto::DestinationId::as_str)
                .collect();
            ids.join(", ")
        },
    );
    Refusal {
        message: format!("{}; there are: {known}", refusal.message),
        ..refusal
    }
    .with("known", known)
}
