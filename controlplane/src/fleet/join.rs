//! From Hello to a registration: what is checked, what is written, and when a restore is found out.

use std::time::Duration;

use ferrypost_proto::{
    BootId, InstallationId, InstanceId, Revision, StateId, TablePosition, Versions,
    routing::v1::{self as wire, Hello},
    store::v1::{RefusedClaim, Registration, Rewound, StoredPlace},
};

use super::{
    Claimable, Fleet, bounds,
    registration::{self, Claim, ClaimOutcome, JoinRefused, Known},
};
use crate::{
    domain::commit::change_fleet,
    domain::state::State,
    mirror::changelog::History,
    refusal::{Answer, Reason, Refusal},
    store::{Rev, StoreError, Txn, TxnOutcome, keys, value::Stored},
    wall_clock,
};

/// A registration that keeps being overtaken by others gives up after so many attempts; its data plane
/// comes again.
const ATTEMPTS: u32 = 8;

/// How long a joining data plane may wait for the mirror to catch up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A claim that is refused again and again is written again after so many seconds.
const SHOWN_AGAIN: i64 = 60;

/// A data plane that has joined.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    /// Its name.
    pub(super) instance: InstanceId,
    /// Its life.
    pub(super) boot: BootId,
    /// The installation that it joined.
    pub(super) installation: InstallationId,
    /// The contract that is spoken with it.
    pub(super) contract: u32,
    /// When its registration was written: no older snapshot may be sent.
    pub(super) registered: Rev,
    /// How far this replica had read when it joined.
    pub(super) seen: Rev,
    /// Its base at that time.
    pub(super) base: u64,
    /// Where it goes on from; `None`: it needs a snapshot.
    pub(super) position: Option<TablePosition>,
    /// The store was restored: it is told no more than what it can compare.
    pub(super) rewound: bool,
    /// It has acknowledged a table, and remembers which.
    pub(super) compares: bool,
}

/// Hello, with its identifiers checked.
struct Introduction {
    instance: InstanceId,
    claim: Claim,
    applied: Option<TablePosition>,
    /// What it has acknowledged, in this life or an earlier one.
    held: Option<TablePosition>,
    hello: Hello,
}

impl Fleet {
    /// Admits a data plane: compares histories, judges the claim, writes the registration.
    pub(super) async fn join(&self, hello: Hello, claimable: &Claimable) -> Answer<Joined> {
        let who = introduce(hello)?;
        claimable.expect(&who.instance)?;
        for _ in 0..ATTEMPTS {
            // Rule 9: a replica that may be behind its subscriber catches up before it says anything.
            let state = self.mirror().catch_up(PATIENCE).await.map_err(behind)?;
            // First of all: the table of another installation's data plane proves nothing about ours.
            let contract = registration::belongs(&who.claim, installation_of(&state)?)
                .map_err(|refusal| refused(refusal, &who))?;
            if state.rewound().is_none()
                && let Some(proof) = self.proof_of_a_restore(&state, &who)
            {
                self.write_rewound(&who, proof, &state).await?;
                continue;
            }
            if let Some(registered) = self.register(&who, &state).await? {
                return joined(&who, &state, contract, registered);
            }
        }
        Err(Refusal::new(
            Reason::Contended,
            "the registration was overtaken again and again",
        ))
    }

    fn proof_of_a_restore<'a>(
        &self,
        state: &State,
        who: &'a Introduction,
    ) -> Option<&'a TablePosition> {
        let mut said = who.applied.iter().chain(&who.held);
        said.find(|position| self.proves_a_restore(state, position))
    }

    /// Rule 11. The state is as new as the store was when this began, so a position above it was never
    /// in this store; and a head that this history does not have comes from another one.
    pub(crate) fn proves_a_restore(&self, state: &State, held: &TablePosition) -> bool {
        if held.revision.base() != state.base() {
            // A lower base is a table from before a restore that was resolved: it gets a snapshot.
            return held.revision.base() > state.base();
        }
        held.revision > state.wire_revision()
            || held.head.store > state.head().store
            || self.mirror().history(&held.head) == History::Foreign
    }

    /// Writes the proof down before anything else is answered.
    async fn write_rewound(
        &self,
        who: &Introduction,
        held: &TablePosition,
        state: &State,
    ) -> Answer<()> {
        tracing::error!(
            instance = %who.instance,
            held = %held.revision,
            store = %state.wire_revision(),
            "the store was restored to an older state: nothing moves until that is resolved"
        );
        let rewound = Stored::new(Rewound {
            instance: who.instance.as_str().to_owned(),
            held: Some(held.revision.into()),
            store: Some(state.wire_revision().into()),
            detected_at: Some(wall_clock::now()),
            ..Rewound::default()
        });
        let txn = Txn::new()
            .absent(keys::REWOUND)
            .put(keys::REWOUND, rewound.bytes());
        self.reach("rewound.before").await;
        // A conflict: somebody else has found it too.
        self.commit(txn).await?;
        self.reach("rewound.after").await;
        Ok(())
    }

    /// One attempt: when the registration was written; `None` when somebody else wrote first.
    async fn register(&self, who: &Introduction, state: &State) -> Answer<Option<Rev>> {
        let registration = state.registrations().get(&who.instance);
        let life = (who.instance.clone(), who.claim.boot.clone());
        let known = Known {
            registration: registration.map(|registration| &*registration.value),
            live_boot: state
                .live()
                .get(&who.instance)
                .map(|live| live.value.boot.as_str()),
            expelled: state.expelled().contains_key(&life),
            rewound: state.rewound().is_some(),
            needs: state.config().map(|config| config.raw.schema),
        };
        let predecessor = match registration::judge(&who.claim, &known) {
            ClaimOutcome::Refuse(refusal) => {
                self.show_refused(who, state, refusal).await;
                return Err(refused(refusal, who));
            }
            ClaimOutcome::Resume => return self.resume(who, state).await,
            ClaimOutcome::Register => None,
            ClaimOutcome::Succeed { .. } => registration.map(|registration| &*registration.value),
        };
        let new = Stored::new(new_registration(who, predecessor));
        self.reach("registration.before").await;
        let committed = self.commit(writing(who, state, &new)).await?;
        self.reach("registration.after").await;
        if let Some(revision) = committed {
            let succeeded = predecessor.map(|predecessor| predecessor.boot.as_str());
            tracing::info!(
                instance = %who.instance, boot = %who.claim.boot, succeeded, revision,
                version = who.hello.version, contracts = %who.claim.contracts,
                schemas = %who.claim.schemas, "a data plane has registered"
            );
        }
        Ok(committed)
    }

    /// Lets operators see who asks for the place of a registered data plane: moves may be waiting for it.
    async fn show_refused(&self, who: &Introduction, state: &State, refusal: JoinRefused) {
        use registration::JoinRefused as Why;
        if !matches!(refusal, Why::InstanceInUse | Why::Elsewhere) {
            return;
        }
        let now = wall_clock::now();
        let shown = state.claims().get(&who.instance).is_some_and(|claim| {
            let at = claim.value.at.map_or(0, |at| at.seconds);
            claim.value.boot == who.claim.boot.as_str()
                && claim.value.why == refusal.to_string()
                && now.seconds - at < SHOWN_AGAIN
        });
        let Some(lease) = (*self.0.lease.borrow()).filter(|_| !shown) else {
            return;
        };
        let claim = Stored::new(RefusedClaim {
            boot: who.claim.boot.as_str().to_owned(),
            why: refusal.to_string(),
            at: Some(now),
            ..RefusedClaim::default()
        });
        let txn = Txn::new()
            .exists(keys::registration(&who.instance))
            .put_leased(keys::claim(&who.instance), claim.bytes(), lease);
        if let Err(error) = self.commit(txn).await {
            tracing::debug!(instance = %who.instance, %error, "a refused claim is not shown");
        }
    }

    /// A stream that comes back. Its registration may lack what the data plane says of itself, if a replica of an
    /// earlier version has written it.
    async fn resume(&self, who: &Introduction, state: &State) -> Answer<Option<Rev>> {
        let Some(registration) = state.registrations().get(&who.instance) else {
            return Ok(None);
        };
        let mut restated = registration.value.clone();
        who.state(&mut restated);
        if restated == registration.value || state.rewound().is_some() {
            return Ok(Some(registration.revision));
        }
        self.commit(writing(who, state, &restated)).await
    }

    /// Ends a registration by the data plane's own word. True once it is gone.
    pub(super) async fn depart(&self, joined: &Joined, unconfirmed: u32) -> Answer<()> {
        for _ in 0..ATTEMPTS {
            let state = self.mirror().catch_up(PATIENCE).await.map_err(behind)?;
            let registration = match state.registrations().get(&joined.instance) {
                Some(own) if own.value.boot == joined.boot.as_str() => own,
                // Succeeded or expelled: there is nothing left to end.
                _ => return Ok(()),
            };
            let key = keys::registration(&joined.instance);
            let mut txn = Txn::new()
                .at(key.clone(), registration.revision)
                .delete(key)
                .delete(keys::live(&joined.instance));
            // Nobody saw some backends' close, now or at an earlier succession: fences wait.
            if unconfirmed > 0 || !registration.value.unsettled_predecessor.is_empty() {
                let departed = ferrypost_proto::store::v1::Departed {
                    unconfirmed,
                    ..Default::default()
                };
                let key = keys::departed(&joined.instance, &joined.boot);
                txn = txn.put(key, Stored::new(departed).bytes());
            }
            if self
                .commit(change_fleet(txn, state.fleet()))
                .await?
                .is_some()
            {
                tracing::info!(instance = %joined.instance, unconfirmed, "a data plane said goodbye");
                return Ok(());
            }
        }
        Err(Refusal::new(
            Reason::Contended,
            "the goodbye was overtaken again and again",
        ))
    }

    /// Commits; `None` on a conflict.
    async fn commit(&self, txn: Txn) -> Answer<Option<Rev>> {
        match self.mirror().store().transact(txn).await {
            Ok(TxnOutcome::Committed(revision)) => Ok(Some(revision)),
            // An unknown write may have happened: the next attempt reads what is there.
            Ok(TxnOutcome::Conflict { .. }) | Err(StoreError::UnknownOutcome(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn installation_of(state: &State) -> Answer<&InstallationId> {
    state
        .installation()
        .ok_or_else(|| Refusal::new(Reason::StoreUnavailable, "the installation has no id yet"))
}

/// The write of a registration. It holds for the registration that was there, for the fleet, and for the
/// routing configuration that the data plane must read.
fn writing(who: &Introduction, state: &State, registration: &Stored<Registration>) -> Txn {
    let key = keys::registration(&who.instance);
    let before = state.registrations().get(&who.instance);
    let txn = Txn::new()
        .at(key.clone(), before.map_or(0, |before| before.revision))
        .at(
            keys::CONFIG,
            state.config().map_or(0, |config| config.version),
        )
        .absent(keys::expelled(&who.instance, &who.claim.boot))
        .at(
            keys::REWOUND,
            state.rewound().map_or(0, |proof| proof.revision),
        )
        .put(key, registration.bytes())
        .delete(keys::claim(&who.instance));
    change_fleet(txn, state.fleet())
}

fn joined(who: &Introduction, state: &State, contract: u32, registered: Rev) -> Answer<Joined> {
    let resumes = |position: &TablePosition| position.revision.base() == state.base();
    Ok(Joined {
        instance: who.instance.clone(),
        boot: who.claim.boot.clone(),
        installation: installation_of(state)?.clone(),
        contract,
        registered,
        seen: state.revision(),
        base: state.base(),
        position: who.applied.clone().filter(resumes),
        rewound: state.rewound().is_some(),
        compares: who.held.is_some(),
    })
}

impl Introduction {
    /// Writes down what the data plane speaks, how long it lets things take, and where it is.
    fn state(&self, registration: &mut Registration) {
        registration.contracts = Some(self.claim.contracts.into());
        registration.schemas = Some(self.claim.schemas.into());
        registration.limits = self.hello.limits;
        registration.place = self.hello.place.clone().map(stored_place);
    }
}

fn new_registration(who: &Introduction, predecessor: Option<&Registration>) -> Registration {
    let mut registration = Registration {
        boot: who.claim.boot.as_str().to_owned(),
        state_id: who.claim.state.as_str().to_owned(),
        group: who.hello.group.clone(),
        version: who.hello.version.clone(),
        admin_address: who.hello.admin_address.clone(),
        registered_at: Some(wall_clock::now()),
        unsettled_predecessor: predecessor.map(|p| p.boot.clone()).unwrap_or_default(),
        past_boots: predecessor
            .map(registration::past_boots)
            .unwrap_or_default(),
        ..Registration::default()
    };
    who.state(&mut registration);
    registration
}

fn introduce(hello: Hello) -> Answer<Introduction> {
    let invalid = |field| Refusal::new(Reason::FieldInvalid, format!("hello.{field} is not valid"));
    if let Some(field) = bounds::oversized(&hello) {
        return Err(invalid(field));
    }
    let installation = match hello.installation.as_str() {
        "" => None,
        pinned => Some(InstallationId::parse(pinned).map_err(|_| invalid("installation"))?),
    };
    let applied = position(&hello, hello.applied.as_ref());
    let held = position(&hello, hello.held.as_ref());
    Ok(Introduction {
        instance: InstanceId::parse(&hello.instance).map_err(|_| invalid("instance"))?,
        claim: Claim {
            contracts: contracts(&hello).ok_or_else(|| invalid("contracts"))?,
            schemas: Versions::stated(hello.schemas).map_err(|_| invalid("schemas"))?,
            installation,
            boot: BootId::parse(&hello.boot).map_err(|_| invalid("boot"))?,
            state: StateId::parse(&hello.state_id).map_err(|_| invalid("state_id"))?,
            acknowledged: applied.is_some() || held.is_some(),
            place: hello.place.clone().map(stored_place).unwrap_or_default(),
        },
        applied,
        held,
        hello,
    })
}

fn stored_place(place: wire::Place) -> StoredPlace {
    StoredPlace {
        kernel: place.kernel,
        machine: place.machine,
        file: place.file,
    }
}

/// Whoever has a table has pinned the installation that it is of: without that it is nobody's.
fn position(hello: &Hello, said: Option<&wire::TablePosition>) -> Option<TablePosition> {
    said.filter(|_| !hello.installation.is_empty())
        .map(|said| TablePosition::from(said.clone()))
        .filter(|position| position.revision > Revision::ZERO)
}

/// One of contract 1 states no range.
fn contracts(hello: &Hello) -> Option<Versions> {
    match hello.contracts {
        Some(range) => range.try_into().ok(),
        None => (hello.contract > 0).then(|| Versions::only(hello.contract)),
    }
}

fn refused(refusal: JoinRefused, who: &Introduction) -> Refusal {
    use registration::JoinRefused as Why;
    tracing::warn!(instance = %who.instance, boot = %who.claim.boot, reason = refusal.reason(),
        "a data plane was refused");
    let reason = match refusal {
        Why::ContractUnsupported { .. } => Reason::ContractUnsupported,
        Why::SchemaUnsupported { .. } => Reason::SchemaUnsupported,
        Why::InstallationMismatch => Reason::InstallationMismatch,
        Why::InstanceInUse | Why::Elsewhere => Reason::InstanceInUse,
        Why::Expelled => Reason::Expelled,
        Why::Superseded => Reason::Superseded,
        Why::Rewound => Reason::Rewound,
    };
    Refusal::new(reason, refusal.to_string()).with("instance", &who.instance)
}

fn behind(error: crate::mirror::BehindError) -> Refusal {
    match error {
        crate::mirror::BehindError::Late => Refusal::new(
            Reason::Behind,
            "this replica has not caught up with the store",
        ),
        crate::mirror::BehindError::Store(error) => error.into(),
    }
}
