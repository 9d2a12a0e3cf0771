//! Where a name goes, by the same rules as on a data plane, and whether a write would change it (G0).

use std::sync::Arc;

use ferrypost_proto::{
    AccountId, BareNames, DestinationId, Epoch, Name, NoRoute, Phase, Revision, RoutingConfig,
    UnlistedRoute, v1,
};

use super::{commit::RoutingChange, placement::Placement};
use crate::{
    domain::state::{Account, State},
    kv::Rev,
};

/// Where a login under a name goes now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To the home in the account's record.
    Placement(DestinationId),
    /// To the default destination of its domain.
    DomainDefault(DestinationId),
    /// To the installation's default destination.
    Default(DestinationId),
    /// Nowhere for now: the account is fenced, or its record cannot be used.
    Held,
    /// Nowhere.
    Refused(NoRoute),
}

impl Route {
    /// The destination, if there is one.
    pub fn destination(&self) -> Option<&DestinationId> {
        match self {
            Self::Placement(id) | Self::DomainDefault(id) | Self::Default(id) => Some(id),
            Self::Held | Self::Refused(_) => None,
        }
    }

    /// The rule that said so.
    pub fn rule(&self) -> v1::RouteRule {
        match self {
            Self::Placement(_) => v1::RouteRule::Placement,
            Self::DomainDefault(_) => v1::RouteRule::DomainDefault,
            Self::Default(_) => v1::RouteRule::Default,
            Self::Held => v1::RouteRule::Held,
            Self::Refused(_) => v1::RouteRule::Refused,
        }
    }
}

impl From<UnlistedRoute> for Route {
    fn from(route: UnlistedRoute) -> Self {
        match route {
            UnlistedRoute::DomainDefault(id) => Self::DomainDefault(id),
            UnlistedRoute::Default(id) => Self::Default(id),
            UnlistedRoute::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

/// Where a name goes, and the record that says so.
pub fn resolve<'a>(
    state: &'a State,
    routing: &RoutingConfig,
    name: &Name,
) -> (Route, Option<&'a Arc<Account>>) {
    match state.by_name(name.as_str()) {
        None => (routing.unlisted(name).into(), None),
        Some(account) => (of_record(account, routing), Some(account)),
    }
}

/// An account that lives elsewhere than `destination`, where `name` goes by default, and has a name with the same
/// local part.
pub fn namesake<'a>(
    state: &'a State,
    routing: &RoutingConfig,
    name: &Name,
    destination: &DestinationId,
) -> Option<(&'a Account, &'a DestinationId)> {
    let local = name.local_part();
    let bare = (routing.names().bare_names == BareNames::Listed).then(|| local.to_owned());
    let mut domains: Vec<_> = routing.domains().keys().collect();
    domains.sort_unstable();
    let in_domains = domains
        .into_iter()
        .map(|domain| format!("{local}@{}", domain.as_str()));
    let accounts = bare.into_iter().chain(in_domains);
    let mut accounts = accounts.filter_map(|name| {
        let account = state.by_name(&name)?;
        Some((&**account, &account.placement()?.home))
    });
    accounts.find(|(_, home)| *home != destination)
}

fn of_record(account: &Account, routing: &RoutingConfig) -> Route {
    match account.placement() {
        Some(placement)
            if !placement.phase.is_fenced() && routing.destination(&placement.home).is_some() =>
        {
            Route::Placement(placement.home.clone())
        }
        _ => Route::Held,
    }
}

/// Whom a caller means by an account id or a login.
#[derive(Debug, Clone)]
pub enum Subject {
    /// An account with a record.
    Known(Arc<Account>),
    /// A name without a record.
    Unlisted(Name),
    /// An account id without a record.
    NoRecord(AccountId),
}

/// Finds whom `text` means: an account id, or any login of an account.
pub fn find(
    state: &State,
    routing: &RoutingConfig,
    text: &str,
) -> Result<Subject, ferrypost_proto::NameError> {
    if let Ok(id) = AccountId::parse(text) {
        if let Some(account) = state.account(&id) {
            return Ok(Subject::Known(account.clone()));
        }
        // A bare login may look like an account id; one that is listed is meant as such.
        if state.account_of(text).is_none() {
            return Ok(Subject::NoRecord(id));
        }
    }
    let name = routing.names().canonicalise(text)?;
    Ok(match state.by_name(name.as_str()) {
        Some(account) => Subject::Known(account.clone()),
        None => Subject::Unlisted(name),
    })
}

/// Why a write to a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// It would change where a name goes; that is what Migrate is for.
    #[error("{name} goes to {} today and would go to {}; use Migrate", or_nowhere(.from.as_ref()), or_nowhere(.to.as_ref()))]
    WouldChangeRoute {
        /// The name.
        name: String,
        /// Where it goes now; `None`: nowhere.
        from: Option<DestinationId>,
        /// Where it would go; `None`: nowhere.
        to: Option<DestinationId>,
    },
    /// A move is under way; names and records change only while an account is settled.
    #[error("a move of the account is under way, in {phase:?}")]
    NotSettled {
        /// Where it stands.
        phase: Phase,
    },
    /// A name belongs to another account.
    #[error("{name} belongs to {account}")]
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        account: AccountId,
    },
    /// There is no such destination.
    #[error("there is no destination {0}")]
    UnknownDestination(DestinationId),
    /// The record was written by a version that this one does not understand.
    #[error("the record of {0} cannot be read")]
    Unreadable(AccountId),
    /// The record has another epoch than was expected.
    #[error("the record is at {}, not at the expected epoch", .found)]
    EpochMismatch {
        /// The epoch that it has; zero without a record.
        found: Epoch,
    },
    /// The name's domain is not configured, so that nobody may log in by it.
    #[error(
        "{name} is in a domain that is not configured, and so not served; configure the domain first"
    )]
    NotServed {
        /// The name.
        name: String,
    },
    /// An account needs at least one name.
    #[error("an account needs at least one name")]
    NoNames,
}

fn or_nowhere(destination: Option<&DestinationId>) -> &str {
    destination.map_or("nowhere", DestinationId::as_str)
}

/// A write of a record that changes no route, ready to be committed.
#[derive(Debug, Clone)]
pub struct RecordChange {
    /// The record as it will be; its epoch is the one that it replaces.
    pub placement: Placement,
    added: Vec<Arc<str>>,
    removed: Vec<Arc<str>>,
    delete: bool,
    config: Rev,
}

impl RecordChange {
    /// True if the store holds all of it already.
    pub fn is_empty(&self) -> bool {
        !self.delete
            && self.placement.epoch != 0
            && self.added.is_empty()
            && self.removed.is_empty()
    }

    /// The transaction, guarded by everything that the comparison has looked at: the record, every name
    /// that is new to it, and the routing configuration.
    pub fn change(&self, random: &ferrypost_runtime::Random) -> RoutingChange {
        let mut change = RoutingChange::new(random).configured(self.config);
        for name in &self.added {
            change = change.add_name(name, &self.placement);
        }
        for name in &self.removed {
            change = change.remove_name(name);
        }
        if self.delete {
            change.remove_record(&self.placement)
        } else {
            change.record(&self.placement)
        }
    }
}

/// What a caller wants a record to be.
#[derive(Debug, Clone)]
pub struct WantedRecord {
    /// The record as it is; `None` for a new one.
    pub before: Option<Placement>,
    /// The id of a new record.
    pub new_id: AccountId,
    /// All its names.
    pub names: Vec<Name>,
    /// Where it lives.
    pub home: DestinationId,
    /// The epoch that the caller has seen.
    pub expected: Option<Revision>,
}

/// Creates a record, or changes the names of a settled one, where that leaves every name where it goes.
///
/// A name that goes nowhere today because its domain refuses names without a record may come to go somewhere:
/// nobody serves it now, so there are never two who do. One in a domain that is not configured stays unserved,
/// whatever record it has got: a server that ignores the domain part would take its login for another's.
pub fn set_record(state: &State, wanted: WantedRecord) -> Result<RecordChange, WriteRefused> {
    let Some((config, routing)) = state.config().zip(state.routing()) else {
        return Err(WriteRefused::UnknownDestination(wanted.home));
    };
    expect_epoch(state, wanted.before.as_ref(), wanted.expected)?;
    if routing.destination(&wanted.home).is_none() {
        return Err(WriteRefused::UnknownDestination(wanted.home));
    }
    if wanted.names.is_empty() {
        return Err(WriteRefused::NoNames);
    }
    let mut placement = match wanted.before {
        None => Placement::new(wanted.new_id, [], wanted.home.clone()),
        Some(before) if before.phase != Phase::Settled => {
            return Err(WriteRefused::NotSettled {
                phase: before.phase,
            });
        }
        Some(before) => before,
    };
    let before = std::mem::take(&mut placement.names);
    let mut added = Vec::new();
    for name in &wanted.names {
        let (route, account) = resolve(state, routing, name);
        match account {
            Some(account) if *account.id() == placement.account => {}
            Some(account) => {
                return Err(WriteRefused::NameTaken {
                    name: name.as_str().to_owned(),
                    account: account.id().clone(),
                });
            }
            None if matches!(route, Route::Refused(NoRoute::UnknownDomain)) => {
                return Err(WriteRefused::NotServed {
                    name: name.as_str().to_owned(),
                });
            }
            None => added.push(Arc::from(name.as_str())),
        }
        keeps_route(name.as_str(), route.destination(), Some(&wanted.home))?;
    }
    placement.set_names(wanted.names.iter().map(|name| name.as_str().into()));
    let removed = gone(&before, &placement.names);
    for name in &removed {
        keeps_unlisted(routing, name, &wanted.home)?;
    }
    // What neither added nor removed touches must not move either.
    if placement.home != wanted.home {
        let name = placement.names.first().map_or("", |name| &**name);
        keeps_route(name, Some(&placement.home), Some(&wanted.home))?;
    }
    Ok(RecordChange {
        placement,
        added,
        removed,
        delete: false,
        config: config.version,
    })
}

/// Removes a settled record whose names all go to the same place without it.
pub fn delete_record(
    state: &State,
    placement: Placement,
    expected: Option<Revision>,
) -> Result<RecordChange, WriteRefused> {
    let Some((config, routing)) = state.config().zip(state.routing()) else {
        return Err(WriteRefused::UnknownDestination(placement.home));
    };
    expect_epoch(state, Some(&placement), expected)?;
    if placement.phase != Phase::Settled {
        return Err(WriteRefused::NotSettled {
            phase: placement.phase,
        });
    }
    for name in &placement.names {
        keeps_unlisted(routing, name, &placement.home)?;
    }
    Ok(RecordChange {
        removed: placement.names.to_vec(),
        added: Vec::new(),
        delete: true,
        config: config.version,
        placement,
    })
}

fn gone(before: &[Arc<str>], after: &[Arc<str>]) -> Vec<Arc<str>> {
    before
        .iter()
        .filter(|name| !after.contains(name))
        .cloned()
        .collect()
}

fn expect_epoch(
    state: &State,
    before: Option<&Placement>,
    expected: Option<Revision>,
) -> Result<(), WriteRefused> {
    let found = before.map_or(Revision::ZERO, |placement| {
        Revision::new(state.base(), placement.epoch)
    });
    match expected {
        Some(expected) if expected != found => Err(WriteRefused::EpochMismatch {
            found: Epoch::new(found),
        }),
        _ => Ok(()),
    }
}

/// A name that loses its record must go to the same place by its domain's rule.
fn keeps_unlisted(
    routing: &RoutingConfig,
    name: &str,
    home: &DestinationId,
) -> Result<(), WriteRefused> {
    let after = routing
        .names()
        .canonicalise(name)
        .ok()
        .map(|name| Route::from(routing.unlisted(&name)));
    keeps_route(
        name,
        Some(home),
        after.as_ref().and_then(Route::destination),
    )
}

fn keeps_route(
    name: &str,
    from: Option<&DestinationId>,
    to: Option<&DestinationId>,
) -> Result<(), WriteRefused> {
    if from.is_none() || from == to {
        return Ok(());
    }
    Err(WriteRefused::WouldChangeRoute {
        name: name.to_owned(),
        from: from.cloned(),
        to: to.cloned(),
    })
}

/// A change of the routing configuration that would change where a name goes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefused {
    /// Logins would become other names.
    #[error("names: the name policy cannot change, since logins would become other names")]
    NamePolicy,
    /// Names without a rule of their own would go elsewhere.
    #[error(
        "default_destination: is {from} and cannot become {to}; move the accounts with Migrate"
    )]
    DefaultDestination {
        /// The default in force.
        from: DestinationId,
        /// The one asked for.
        to: DestinationId,
    },
    /// The domain's unlisted names would go elsewhere.
    #[error("domains: what becomes of names without a record in {0} cannot change")]
    DomainRule(String),
    /// The domain's names would go nowhere, and could come back to another place.
    #[error("domains: {0} cannot be removed")]
    DomainRemoved(String),
    /// Records name the destination.
    #[error("destinations: {0} is in use by records and cannot be removed")]
    DestinationInUse(DestinationId),
}

/// Everything in `after` that would change where a name goes; empty when it may be applied.
///
/// Before any data plane has ever registered nobody is routed, and only what the records need is kept.
/// The answer is true for [`State::head`]: a transaction that rests on it guards on that.
pub fn config_refusals(state: &State, after: &RoutingConfig) -> Vec<ConfigRefused> {
    let mut refusals = Vec::new();
    let Some(before) = state.routing() else {
        return refusals;
    };
    let served = state.fleet() > 0;
    if before.names() != after.names() && (served || state.account_count() > 0) {
        refusals.push(ConfigRefused::NamePolicy);
    }
    if served && before.default_destination() != after.default_destination() {
        refusals.push(ConfigRefused::DefaultDestination {
            from: before.default_destination().clone(),
            to: after.default_destination().clone(),
        });
    }
    if served {
        refusals.extend(domain_refusals(before, after));
    }
    for id in before.destinations().keys() {
        if after.destination(id).is_none() && state.counts().uses(id) {
            refusals.push(ConfigRefused::DestinationInUse(id.clone()));
        }
    }
    refusals
}

fn domain_refusals(before: &RoutingConfig, after: &RoutingConfig) -> Vec<ConfigRefused> {
    let mut domains: Vec<_> = before.domains().iter().collect();
    domains.sort_unstable_by_key(|(domain, _)| domain.as_str());
    domains
        .into_iter()
        .filter_map(|(domain, rule)| match after.domains().get(domain) {
            None => Some(ConfigRefused::DomainRemoved(domain.as_str().to_owned())),
            Some(now) if now != rule => Some(ConfigRefused::DomainRule(domain.as_str().to_owned())),
            Some(_) => None,
        })
        .collect()
}
