//! The start of a move: what Migrate and Rollback write, or why they do not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ferrypost_proto::{
    AccountId, DestinationId, MigrationId, Name, NameError, NoRoute, Phase, RoutingConfig,
    TraceParent, store::v1::MigrationRecord, v1,
};
use ferrypost_runtime::Random;

use super::{
    commit::RoutingChange,
    http_risks, mail_risks,
    placement::Placement,
    resolution::{Route, Subject, WriteRefused, find, resolve},
};
use crate::{
    domain::state::{Account, State},
    kv::{Rev, value::Stored},
};

/// Which account goes where.
#[derive(Debug, Clone, Copy)]
pub struct MoveRequest<'a> {
    /// The account's id or any of its logins.
    pub account: &'a str,
    /// All its logins; empty: `account` alone, or those of its record.
    pub names: &'a [String],
    /// Where to; `None`: back to where it came from.
    pub destination: Option<&'a str>,
    /// Where it must live now; `None`: wherever.
    pub expected_source: Option<&'a str>,
}

/// What the installation gives every move.
#[derive(Debug, Clone, Copy)]
pub struct MoveTerms {
    /// How long the held window may last.
    pub window: Duration,
    /// Whether the delta hook runs.
    pub delta_hook: bool,
}

/// Who asked, for the record.
#[derive(Debug, Clone, Default)]
pub struct Requester {
    /// The caller's request id; may be empty.
    pub request_id: String,
    /// The caller.
    pub requested_by: String,
    /// Why; may be empty.
    pub reason: String,
    /// What the move is to be found by.
    pub labels: BTreeMap<String, String>,
    /// The trace that the request belongs to.
    pub trace: Option<TraceParent>,
}

/// What a request comes to.
#[derive(Debug, Clone)]
pub enum MoveVerdict {
    /// A new move can start.
    Start(Box<MoveStart>),
    /// The same move is under way, or over but for its last bookkeeping.
    Join(MigrationId),
}

/// A move that can start.
#[derive(Debug, Clone)]
pub struct MoveStart {
    /// Migrate or Rollback.
    pub kind: v1::MigrationKind,
    /// The account's record as it is, or would be without the move. Its epoch is 0 if there is none.
    pub placement: Placement,
    /// Where it lives now.
    pub source: DestinationId,
    /// Where it goes.
    pub target: DestinationId,
    terms: MoveTerms,
    config: Rev,
    /// Ways to log in as somebody else that the target does not know.
    lost_second_names: Vec<String>,
    /// What may become of mail, and what HTTP requests may do.
    routing_risks: Vec<String>,
}

/// Why a move does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartRefused {
    /// A login has no name.
    #[error("{login}: {error}")]
    BadName {
        /// What was asked for.
        login: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// There is no such account.
    #[error("there is no account {0}")]
    UnknownAccount(AccountId),
    /// There is no such destination.
    #[error("there is no destination {0}")]
    UnknownDestination(String),
    /// The names of an account with a record are those of its record.
    #[error("the names given are not those of the account's record")]
    OtherNames,
    /// The names of a new account go to different places, so they are not one account's.
    #[error("{name} goes to {to}, while {first} goes to {home}")]
    NamesDiverge {
        /// The first name.
        first: String,
        /// Where it goes.
        home: DestinationId,
        /// The name that goes elsewhere.
        name: String,
        /// Where that goes.
        to: DestinationId,
    },
    /// A name goes nowhere today, so there is nothing to move.
    #[error("{name} goes nowhere today; say where the account lives with SetPlacement")]
    GoesNowhere {
        /// The name.
        name: String,
    },
    /// The account does not live where the caller thinks.
    #[error("the account lives at {home}, not at {expected}")]
    OtherSource {
        /// Where it lives.
        home: DestinationId,
        /// Where the caller thinks.
        expected: String,
    },
    /// The account lives there already.
    #[error("the account lives at {0} already")]
    AlreadyThere(DestinationId),
    /// Another move of the account is under way.
    #[error("the account is on its way to {target} by {migration}")]
    MoveUnderWay {
        /// The move.
        migration: MigrationId,
        /// Where it goes.
        target: DestinationId,
    },
    /// There is no way back.
    #[error("the account has no previous home to go back to")]
    NoWayBack,
    /// The routing configuration is missing or of another version.
    #[error("there is no routing configuration that can be used")]
    NoRouting,
    /// A rule about records forbids it.
    #[error(transparent)]
    Record(#[from] WriteRefused),
}

/// Decides what a request to move comes to.
pub fn start(
    state: &State,
    random: &Random,
    request: &MoveRequest<'_>,
    terms: MoveTerms,
) -> Result<MoveVerdict, StartRefused> {
    let (config, routing) = state
        .config()
        .zip(state.routing())
        .ok_or(StartRefused::NoRouting)?;
    let canonical = |login: &str| {
        routing
            .names()
            .canonicalise(login)
            .map_err(|error| StartRefused::BadName {
                login: login.to_owned(),
                error,
            })
    };
    let names = request
        .names
        .iter()
        .map(|login| canonical(login))
        .collect::<Result<Vec<_>, _>>()?;
    let subject = find(state, routing, request.account).map_err(|error| StartRefused::BadName {
        login: request.account.to_owned(),
        error,
    })?;
    let placement = match subject {
        Subject::NoRecord(id) => return Err(StartRefused::UnknownAccount(id)),
        Subject::Known(account) => {
            known(&account, canonical(request.account).ok().as_ref(), &names)?
        }
        Subject::Unlisted(name) => unlisted(state, routing, random, name, names)?,
    };
    let target = target(routing, &placement, request.destination)?;
    if let Some(expected) = request.expected_source
        && expected != placement.home.as_str()
        && !is_joined(&placement, &target)
    {
        return Err(StartRefused::OtherSource {
            home: placement.home,
            expected: expected.to_owned(),
        });
    }
    if let Some(verdict) = under_way(&placement, &target)? {
        return Ok(verdict);
    }
    if placement.home == target {
        return Err(StartRefused::AlreadyThere(target));
    }
    let lost_second_names = routing.lost_second_names(&placement.home, &target);
    let mut routing_risks = mail_risks::of(routing, &placement.home, &target);
    routing_risks.extend(http_risks::of(routing, &placement.home, &target));
    Ok(MoveVerdict::Start(Box::new(MoveStart {
        kind: match request.destination {
            Some(_) => v1::MigrationKind::Migrate,
            None => v1::MigrationKind::Rollback,
        },
        source: placement.home.clone(),
        target,
        placement,
        terms,
        config: config.version,
        lost_second_names,
        routing_risks,
    })))
}

/// The record of an account that has one. `called`: the name that the request calls it by. It counts
/// among the names, as it does when there is no record yet: the request that has written the record
/// must mean the same when it comes again.
fn known(
    account: &Arc<Account>,
    called: Option<&Name>,
    names: &[Name],
) -> Result<Placement, StartRefused> {
    let placement = account
        .placement()
        .ok_or_else(|| WriteRefused::Unreadable(account.id().clone()))?;
    let own: BTreeSet<&str> = placement.names.iter().map(|name| &**name).collect();
    let called = called.map(Name::as_str);
    let given: BTreeSet<&str> = names
        .iter()
        .map(Name::as_str)
        .chain(called.filter(|name| own.contains(name)))
        .collect();
    if !names.is_empty() && given != own {
        return Err(StartRefused::OtherNames);
    }
    Ok(placement.clone())
}

/// The record that an account without one gets: its names must all go to one place today.
fn unlisted(
    state: &State,
    routing: &RoutingConfig,
    random: &Random,
    name: Name,
    mut names: Vec<Name>,
) -> Result<Placement, StartRefused> {
    names.insert(0, name);
    let mut first: Option<(&Name, DestinationId)> = None;
    for name in &names {
        let (route, account) = resolve(state, routing, name);
        if let Some(account) = account {
            return Err(StartRefused::Record(WriteRefused::NameTaken {
                name: name.as_str().to_owned(),
                account: account.id().clone(),
            }));
        }
        let to = match route {
            Route::Placement(to) | Route::DomainDefault(to) | Route::Default(to) => to,
            Route::Refused(NoRoute::UnknownDomain) => {
                return Err(StartRefused::Record(WriteRefused::NotServed {
                    name: name.as_str().to_owned(),
                }));
            }
            Route::Held | Route::Refused(_) => {
                return Err(StartRefused::GoesNowhere {
                    name: name.as_str().to_owned(),
                });
            }
        };
        match &first {
            None => first = Some((name, to)),
            Some((_, home)) if *home == to => {}
            Some((first, home)) => {
                return Err(StartRefused::NamesDiverge {
                    first: first.as_str().to_owned(),
                    home: home.clone(),
                    name: name.as_str().to_owned(),
                    to,
                });
            }
        }
    }
    let (_, home) = first.expect("there is at least the first name");
    let names = names.iter().map(|name| Arc::from(name.as_str()));
    Ok(Placement::new(
        AccountId::generate(random.bytes()),
        names,
        home,
    ))
}

fn target(
    routing: &RoutingConfig,
    placement: &Placement,
    destination: Option<&str>,
) -> Result<DestinationId, StartRefused> {
    match destination {
        Some(text) => DestinationId::parse(text)
            .ok()
            .filter(|id| routing.destination(id).is_some())
            .ok_or_else(|| StartRefused::UnknownDestination(text.to_owned())),
        // Under way there only when that is where it goes: a move forward is not a rollback.
        None => placement
            .previous_home
            .clone()
            .filter(|_| placement.phase != Phase::Retired)
            .ok_or_else(|| in_the_way(placement).unwrap_or(StartRefused::NoWayBack)),
    }
}

const fn is_before_flip(phase: Phase) -> bool {
    matches!(phase, Phase::Copying) || phase.is_fenced()
}

fn is_joined(placement: &Placement, target: &DestinationId) -> bool {
    is_before_flip(placement.phase) && placement.target.as_ref() == Some(target)
}

/// The move that is under way, as a reason against another one.
fn in_the_way(placement: &Placement) -> Option<StartRefused> {
    let migration = placement.migration_id.clone()?;
    is_before_flip(placement.phase).then(|| StartRefused::MoveUnderWay {
        migration,
        target: placement
            .target
            .clone()
            .unwrap_or_else(|| placement.home.clone()),
    })
}

/// A move of the account that is under way: joined if it goes there, else in the way. From FLIPPED on the
/// account lives at the target, and the next move may be asked for; it is not fenced before every data
/// plane has applied that flip.
fn under_way(
    placement: &Placement,
    target: &DestinationId,
) -> Result<Option<MoveVerdict>, StartRefused> {
    let Some(migration) = placement.migration_id.clone() else {
        return Ok(None);
    };
    if is_joined(placement, target) {
        return Ok(Some(MoveVerdict::Join(migration)));
    }
    if let Some(refused) = in_the_way(placement) {
        return Err(refused);
    }
    let flipping = matches!(placement.phase, Phase::Flipped | Phase::Released);
    if flipping && placement.home == *target {
        return Ok(Some(MoveVerdict::Join(migration)));
    }
    Ok(None)
}

impl MoveStart {
    /// The account and its names, as the API shows them.
    pub fn accounts(&self) -> Vec<v1::MigratingAccount> {
        vec![v1::MigratingAccount {
            account_id: self.placement.account.as_str().to_owned(),
            names: self
                .placement
                .names
                .iter()
                .map(|n| (**n).to_owned())
                .collect(),
        }]
    }

    /// What this move does not carry.
    pub fn residual_risks(&self) -> Vec<String> {
        let mut risks = residual_risks(self.terms.delta_hook);
        if !self.lost_second_names.is_empty() {
            risks.push(format!(
                "Who logs in on the source as somebody else is refused on the target, whose endpoints are not \
                 said to know: {}.",
                self.lost_second_names.join(", ")
            ));
        }
        risks.extend_from_slice(&self.routing_risks);
        risks
    }

    /// The record in COPYING and the migration, with the names if the account is new, in one
    /// transaction. It changes no route.
    pub fn change(
        &self,
        random: &Random,
        migration: &MigrationId,
        requester: Requester,
        requested_at: prost_types::Timestamp,
    ) -> RoutingChange {
        let mut placement = self.placement.clone();
        placement.phase = Phase::Copying;
        placement.target = Some(self.target.clone());
        placement.migration_id = Some(migration.clone());
        placement.window = self.terms.window;
        placement.fence_epoch = None;
        let mut change = RoutingChange::new(random).configured(self.config);
        if placement.epoch == 0 {
            for name in &placement.names {
                change = change.add_name(name, &placement);
            }
        }
        let record = MigrationRecord {
            kind: self.kind.into(),
            accounts: self.accounts(),
            source: self.source.as_str().to_owned(),
            target: self.target.as_str().to_owned(),
            request_id: requester.request_id,
            requested_by: requester.requested_by,
            reason: requester.reason,
            labels: requester.labels,
            requested_at: Some(requested_at),
            residual_risks: self.residual_risks(),
            state: v1::MigrationState::Queued.into(),
            phase: v1::Phase::Copying.into(),
            delta_hook: self.terms.delta_hook,
            traceparent: requester
                .trace
                .map(|trace| trace.to_string())
                .unwrap_or_default(),
            ..MigrationRecord::default()
        };
        change
            .record(&placement)
            .migration(migration, &Stored::new(record), 0)
    }
}

/// What no move carries, as one sentence each.
fn residual_risks(delta_hook: bool) -> Vec<String> {
    let mut risks = Vec::new();
    if !delta_hook {
        risks.push(
            "There is no delta hook: what was written on the source since the last copy stays behind."
                .to_owned(),
        );
    }
    risks.push(
        "There is no quiesce hook: whatever reaches the source without Ferrypost (direct ports, \
         webmail on the server, scheduled jobs, other people's sessions in a shared folder) is not \
         stopped."
            .to_owned(),
    );
    risks.push(
        "Names that the servers know beside the account's own (aliases of their own, sub-addresses, other \
         spellings), and accounts that they let it act as without saying so in the login, are not fenced: \
         list all of its names in `names`."
            .to_owned(),
    );
    risks
}
