//! The table.

use std::{collections::BTreeSet, sync::Arc};

use ferrypost_proto::{
    AccountId, DestinationId, DomainName, Epoch, Name, NoRoute, Record, RoutingConfig,
    TablePosition, UnlistedRoute, routing::v1::RejectedEntry,
};

use super::{
    Fenced, KeyedState, Resolution, Route, Rule,
    account_key::AccountKey,
    base::{Base, Packed},
    overlay::{Exact, Overlay},
    rejections::Rejections,
};
#[cfg(feature = "sabotage")]
use crate::sabotage::fence;

/// All routing at one position of the store's history. Immutable.
///
/// Most accounts lie packed in a *base*; what changed since it was built, and what it cannot hold, lies
/// exact in an *overlay*. A delta makes a new overlay that shares all but what it changes with the old
/// one, so it costs the same at any size; when the overlay has grown, a new base is built beside the
/// table and swapped in.
#[derive(Debug)]
pub struct RoutingTable {
    pub(super) position: TablePosition,
    pub(super) config: Arc<RoutingConfig>,
    pub(super) base: Arc<Base>,
    pub(super) overlay: Overlay,
    pub(super) rejections: Arc<Rejections>,
    /// The key of this table's hash maps.
    pub(super) hash: KeyedState,
}

/// Who a name belongs to.
enum Owner<'a> {
    Nobody,
    Record(&'a Record),
    Packed(Packed<'a>),
    /// An entry that was rejected, or two accounts at once.
    Unclear(Option<AccountId>),
}

impl RoutingTable {
    /// How far it reaches.
    pub fn position(&self) -> &TablePosition {
        &self.position
    }

    /// The routing configuration that belongs to it.
    pub fn config(&self) -> &Arc<RoutingConfig> {
        &self.config
    }

    /// Where a name goes. Memory only, and it cannot fail.
    pub fn resolve(&self, name: &Name) -> Resolution {
        match self.owner(name) {
            Owner::Nobody => without_record(self.config.unlisted(name)),
            Owner::Record(record) => of_record(record),
            Owner::Packed(packed) => of_packed(&packed),
            Owner::Unclear(account) => rejected(account),
        }
    }

    /// Where a name of this domain goes that has no record.
    pub fn resolve_unlisted_in(&self, domain: &DomainName) -> Resolution {
        without_record(self.config.unlisted_in(domain))
    }

    /// A server by its id, while it is configured.
    pub fn resolve_destination(&self, destination: &DestinationId) -> Resolution {
        match self.config.destination(destination) {
            Some(_) => Resolution::Route(Route {
                destination: destination.clone(),
                account: None,
                epoch: None,
                rule: Rule::Named,
            }),
            None => Resolution::Refused(NoRoute::UnknownDestination),
        }
    }

    /// A server by its id, for what may concern any account there and says of none which: held while one that lives
    /// there is fenced.
    pub fn resolve_somebody_at(&self, destination: &DestinationId) -> Resolution {
        let named = self.resolve_destination(destination);
        if !matches!(named, Resolution::Route(_)) {
            return named;
        }
        let there = self.fenced().filter(|record| record.home == *destination);
        let resolved = there.map(|record| of_record(record));
        let mut held = resolved.filter(|it| matches!(it, Resolution::Fenced(_)));
        held.next().unwrap_or(named)
    }

    /// The servers where somebody lives who is fenced, each once.
    pub fn fenced_at(&self) -> BTreeSet<DestinationId> {
        self.fenced().map(|record| record.home.clone()).collect()
    }

    /// Whether an account may be living there. No answer by error is "no": a destination that accounts
    /// have left may be answered with "yes" until the base is built anew from a snapshot.
    pub fn has_accounts_at(&self, destination: &DestinationId) -> bool {
        let at_home = |exact: &Exact| match exact {
            Exact::Record(record) => record.home == *destination,
            Exact::Gone => false,
        };
        self.base.homes().contains(destination)
            || self.overlay.accounts().any(|(_, exact)| at_home(exact))
    }

    /// The accounts in their held window.
    pub fn fenced(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.overlay.fenced()
    }

    /// The entries that could not be taken over, as the control plane is told: the whole list. Their
    /// names are fenced.
    pub fn rejected(&self) -> Vec<RejectedEntry> {
        self.rejections.report()
    }

    /// How many those are.
    pub fn rejected_count(&self) -> usize {
        self.rejections.entries().len()
    }

    fn owner(&self, name: &Name) -> Owner<'_> {
        if let Some(account) = self.rejections.carries(name) {
            return Owner::Unclear(account.clone());
        }
        if let Some(record) = self.overlay.by_name(name) {
            let contested =
                self.rejections.any_packed() && self.claims(name).any(|packed| packed.fenced);
            return if contested {
                Owner::Unclear(None)
            } else {
                Owner::Record(record)
            };
        }
        let mut claims = self.claims(name);
        match (claims.next(), claims.next()) {
            (None, _) => Owner::Nobody,
            (Some(packed), None) => Owner::Packed(packed),
            (Some(_), Some(_)) => Owner::Unclear(None),
        }
    }

    /// The accounts of the base that claim a name and that the overlay does not mask.
    pub(super) fn claims(&self, name: &Name) -> impl Iterator<Item = Packed<'_>> {
        self.base
            .claims(self.base.key().hash(name))
            .filter(|packed| !self.overlay.masks(packed.key))
    }

    /// The epoch at which an account is held, below which nothing is taken over for it.
    pub(super) fn epoch(&self, key: AccountKey) -> Option<Epoch> {
        match self.overlay.account(key) {
            Some(Exact::Record(record)) => Some(record.epoch),
            Some(Exact::Gone) => self.rejections.floor(key),
            None => match self.base.find(key) {
                Some(packed) => Some(packed.epoch),
                None => self.rejections.floor(key),
            },
        }
    }
}

fn without_record(unlisted: UnlistedRoute) -> Resolution {
    let route = |destination, rule| {
        Resolution::Route(Route {
            destination,
            account: None,
            epoch: None,
            rule,
        })
    };
    match unlisted {
        UnlistedRoute::DomainDefault(destination) => route(destination, Rule::DomainDefault),
        UnlistedRoute::Default(destination) => route(destination, Rule::Default),
        UnlistedRoute::Refused(refusal) => Resolution::Refused(refusal),
    }
}

fn of_record(record: &Record) -> Resolution {
    match fence(record) {
        Some(fence) => Resolution::Fenced(Fenced {
            account: Some(record.account.clone()),
            migration: record.migration.clone(),
            fence: Some(fence),
        }),
        None => Resolution::Route(Route {
            destination: record.home.clone(),
            account: Some(record.account.clone()),
            epoch: Some(record.epoch),
            rule: Rule::Placement,
        }),
    }
}

/// The fence of an account, if it is in its held window.
#[cfg(not(feature = "sabotage"))]
fn fence(record: &Record) -> Option<Epoch> {
    record.fence
}

fn of_packed(packed: &Packed<'_>) -> Resolution {
    let account = packed.key.account();
    if packed.fenced {
        return rejected(Some(account));
    }
    Resolution::Route(Route {
        destination: packed.home.clone(),
        account: Some(account),
        epoch: Some(packed.epoch),
        rule: Rule::Placement,
    })
}

fn rejected(account: Option<AccountId>) -> Resolution {
    Resolution::Fenced(Fenced {
        account,
        migration: None,
        fence: None,
    })
}
