//! Where accounts live: reading it, and the writes that leave every name where it goes (G0).

use std::sync::Arc;

use ferrypost_proto::{AccountId, DestinationId, Name, Phase, Revision, v1};

use super::{
    Core, Step,
    migration::{check_reason, with_known_destinations},
    not_rewound, routing, subject,
};
use crate::{
    domain::resolution::{self, Route, Subject, WantedRecord, WriteRefused},
    domain::state::{Account, State},
    refusal::{Answer, Reason, Refusal},
};

/// Most names of one account: each is a key of the transaction that writes the record.
const MOST_NAMES: usize = 100;

/// The use cases of `PlacementService`.
#[derive(Debug, Clone)]
pub struct PlacementUseCases {
    core: Arc<Core>,
}

/// What a record is to be.
#[derive(Debug, Clone)]
pub struct RecordOrder {
    /// The account's id or any of its names.
    pub account: String,
    /// All names of the record.
    pub names: Vec<String>,
    /// Where the account lives.
    pub destination: String,
    /// Refuse unless the record has this epoch.
    pub expected_epoch: Option<Revision>,
    /// Check everything, change nothing.
    pub validate_only: bool,
    /// Why, for the log.
    pub reason: String,
    /// Who.
    pub requested_by: String,
}

/// Which record to remove.
#[derive(Debug, Clone)]
pub struct DeleteOrder {
    /// The account's id or any of its names.
    pub account: String,
    /// Refuse unless the record has this epoch.
    pub expected_epoch: Option<Revision>,
    /// Check everything, change nothing.
    pub validate_only: bool,
    /// Why, for the log.
    pub reason: String,
    /// Who.
    pub requested_by: String,
}

/// Why a login goes where it goes.
#[derive(Debug)]
pub struct Explanation {
    /// Its canonical name, if it has one.
    pub name: Option<Name>,
    /// The rule that decides.
    pub rule: v1::RouteRule,
    /// Where it goes now.
    pub destination: Option<DestinationId>,
    /// The account's record.
    pub placement: Option<v1::Placement>,
    /// Where it goes if the move under way succeeds.
    pub after_move: Option<DestinationId>,
    /// One sentence.
    pub sentence: String,
}

/// Some records, by account id.
#[derive(Debug)]
pub struct PlacementPage {
    /// The state that they are of.
    pub state: Arc<State>,
    /// The records.
    pub placements: Vec<v1::Placement>,
    /// The account after which the next page begins; `None` at the end.
    pub next: Option<AccountId>,
}

impl PlacementUseCases {
    /// A desk over a store.
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// What every answer says about itself.
    pub fn header(&self, state: &State) -> v1::ResponseHeader {
        self.core.header(state, Vec::new())
    }

    /// An account's record.
    ///
    /// # Errors
    /// [`Reason::AccountNotFound`].
    pub async fn get(&self, account: &str) -> Answer<(Arc<State>, v1::Placement)> {
        subject::given(account)?;
        let state = self.core.caught_up().await?;
        let (routing, _) = routing(&state)?;
        let found = subject::find_record(&state, routing, account)?;
        let placement = shown(&state, &found);
        Ok((state, placement))
    }

    /// Records by account id, `size` of them at most.
    ///
    /// # Errors
    /// When `destination` is no id, there is no such destination and nobody lives there, or this replica has loaded
    /// nothing yet.
    pub fn list(
        &self,
        destination: &str,
        after: Option<&AccountId>,
        size: usize,
    ) -> Answer<PlacementPage> {
        let state = self.core.present()?;
        let home = match destination {
            "" => None,
            id => Some(
                DestinationId::parse(id).map_err(|error| Refusal::invalid("destination", error))?,
            ),
        };
        let lives_there = |account: &Account| {
            let lives = account.placement().map(|placement| &placement.home);
            home.as_ref().is_none_or(|home| lives == Some(home))
        };
        if let Some(home) = &home
            && !is_configured(&state, home)
            && !state.accounts().any(|account| lives_there(account))
        {
            // Whoever mistypes it would read that nobody lives there.
            let refusal = Refusal::from(WriteRefused::UnknownDestination(home.clone()));
            return Err(with_known_destinations(refusal, &state));
        }
        let mut page: Vec<_> = state
            .accounts_sorted(after)
            .filter(|account| lives_there(account))
            .take(size + 1)
            .cloned()
            .collect();
        let more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| more).map(|last| last.id().clone());
        let placements = page.iter().map(|account| shown(&state, account)).collect();
        Ok(PlacementPage {
            state,
            placements,
            next,
        })
    }

    /// Creates a record or changes the names of a settled one.
    ///
    /// # Errors
    /// [`Reason::WouldChangeRoute`] when a name would go elsewhere, [`Reason::NameNotServed`] when its domain is not
    /// configured, and what is wrong with the order.
    pub async fn set(&self, order: &RecordOrder) -> Answer<(Arc<State>, v1::Placement)> {
        subject::given(&order.account)?;
        check_reason(&order.reason)?;
        let home = DestinationId::parse(&order.destination).map_err(|error| {
            match order.destination.as_str() {
                "" => Refusal::required("destination"),
                _ => Refusal::invalid("destination", error),
            }
        })?;
        let new_id = AccountId::generate(self.core.random.bytes());
        let (state, written) = self
            .core
            .transact(|state| {
                let wanted = wanted(state, order, &home, &new_id)?;
                let change = resolution::set_record(state, wanted)?;
                let placement = change.placement.clone();
                if order.validate_only || change.is_empty() {
                    return Ok(Step::Done(placement));
                }
                Ok(Step::Write(
                    change.change(&self.core.random).txn(),
                    placement,
                ))
            })
            .await?;
        if order.validate_only {
            let placement = written.to_v1(state.base());
            return Ok((state, placement));
        }
        tracing::info!(account = %written.account, home = %written.home, by = order.requested_by,
            reason = order.reason, "a record was set");
        // As it is in the store, with its new epoch.
        let placement = match state.account(&written.account) {
            Some(account) => shown(&state, account),
            None => written.to_v1(state.base()),
        };
        Ok((state, placement))
    }

    /// Removes a settled record.
    ///
    /// # Errors
    /// [`Reason::WouldChangeRoute`] when a name would go elsewhere without it.
    pub async fn delete(&self, order: &DeleteOrder) -> Answer<Arc<State>> {
        subject::given(&order.account)?;
        check_reason(&order.reason)?;
        let (state, account) = self
            .core
            .transact(|state| {
                not_rewound(state)?;
                let (routing, _) = routing(state)?;
                let account = subject::find_record(state, routing, &order.account)?;
                let Some(placement) = account.placement().cloned() else {
                    return Err(WriteRefused::Unreadable(account.id().clone()).into());
                };
                let change = resolution::delete_record(state, placement, order.expected_epoch)?;
                let id = account.id().clone();
                if order.validate_only {
                    return Ok(Step::Done(id));
                }
                Ok(Step::Write(change.change(&self.core.random).txn(), id))
            })
            .await?;
        if !order.validate_only {
            tracing::info!(%account, by = order.requested_by, reason = order.reason,
                "a record was deleted");
        }
        Ok(state)
    }

    /// Why a login goes where it goes.
    ///
    /// # Errors
    /// When `login` is empty or there is no routing configuration.
    pub async fn explain(&self, login: &str) -> Answer<(Arc<State>, Explanation)> {
        if login.is_empty() {
            return Err(Refusal::required("login"));
        }
        let state = self.core.caught_up().await?;
        let (routing, _) = routing(&state)?;
        let name = match routing.names().canonicalise(login) {
            Ok(name) => name,
            Err(error) => return Ok((state.clone(), nameless(error))),
        };
        let (route, account) = resolution::resolve(&state, routing, &name);
        let explanation = Explanation {
            rule: route.rule(),
            destination: route.destination().cloned(),
            placement: account.map(|account| shown(&state, account)),
            after_move: account
                .and_then(|account| account.placement())
                .filter(|placement| placement.phase < Phase::Flipped)
                .and_then(|placement| placement.target.clone()),
            sentence: sentence(&name, &route, account.map(|account| &**account)),
            name: Some(name),
        };
        Ok((state, explanation))
    }
}

/// What the order wants, in a state.
fn wanted(
    state: &State,
    order: &RecordOrder,
    home: &DestinationId,
    new_id: &AccountId,
) -> Answer<WantedRecord> {
    not_rewound(state)?;
    let (routing, _) = routing(state)?;
    let found = subject::find(state, routing, &order.account)?;
    let mut names = order
        .names
        .iter()
        .map(|login| subject::canonical(routing, "names", login))
        .collect::<Answer<Vec<_>>>()?;
    let before = match found {
        Subject::Known(account) => Some(
            account
                .placement()
                .cloned()
                .ok_or_else(|| WriteRefused::Unreadable(account.id().clone()))?,
        ),
        Subject::Unlisted(name) => {
            names.push(name);
            None
        }
        Subject::NoRecord(id) => {
            return Err(Refusal::new(
                Reason::AccountNotFound,
                format!("{id} has no record; a new one is created under a name"),
            )
            .with("account", id));
        }
    };
    names.sort();
    names.dedup();
    if names.len() > MOST_NAMES {
        return Err(Refusal::invalid(
            "names",
            format!("must be at most {MOST_NAMES}"),
        ));
    }
    Ok(WantedRecord {
        before,
        new_id: new_id.clone(),
        names,
        home: home.clone(),
        expected: order.expected_epoch,
    })
}

/// A record as operators see it. One that cannot be read shows what could be.
fn shown(state: &State, account: &Account) -> v1::Placement {
    match account {
        Account::Known(placement) => placement.to_v1(state.base()),
        Account::Unreadable(unreadable) => v1::Placement {
            account_id: unreadable.id.as_str().to_owned(),
            names: unreadable.names.iter().map(|n| (**n).to_owned()).collect(),
            destination: unreadable.record.home.clone(),
            previous_destination: unreadable.record.previous_home.clone(),
            target: unreadable.record.target.clone(),
            phase: v1::Phase::Unspecified.into(),
            epoch: Some(Revision::new(state.base(), unreadable.epoch).into()),
            migration_id: unreadable.record.migration_id.clone(),
        },
    }
}

fn is_configured(state: &State, destination: &DestinationId) -> bool {
    routing(state).is_ok_and(|(config, _)| config.destinations().contains_key(destination))
}

fn nameless(error: ferrypost_proto::NameError) -> Explanation {
    Explanation {
        name: None,
        rule: v1::RouteRule::Refused,
        destination: None,
        placement: None,
        after_move: None,
        sentence: format!("It is refused like a wrong password: {error}."),
    }
}

fn sentence(name: &Name, route: &Route, account: Option<&Account>) -> String {
    match (route, account) {
        (Route::Placement(home), Some(account)) => {
            format!(
                "{name} goes to {home} because the record of {} says so.",
                account.id()
            )
        }
        (Route::Placement(home), None) => format!("{name} goes to {home}."),
        (Route::DomainDefault(home), _) => format!(
            "{name} has no record and goes to {home}, the default destination of its domain."
        ),
        (Route::Default(home), _) => {
            format!("{name} has no record and goes to {home}, the installation's default.")
        }
        (Route::Held, Some(Account::Known(placement))) if placement.phase.is_fenced() => format!(
            "{name} is held: the account is on its way from {} to {}.",
            placement.home,
            placement
                .target
                .as_ref()
                .map_or("its target", DestinationId::as_str),
        ),
        (Route::Held, _) => {
            format!("{name} is held: the account's record cannot be used by this version.")
        }
        (Route::Refused(why), _) => format!("{name} is refused like a wrong password: {why}."),
    }
}
