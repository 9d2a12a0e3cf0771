//! The table.

use std::sync::Arc;

use ferrypost_proto::{Name, RoutingConfig, TablePosition, UnlistedRoute};

use super::{Resolution, Route, Rule};

/// All routing at one position of the store's history. Immutable.
#[derive(Debug)]
pub struct RoutingTable {
    position: TablePosition,
    config: Arc<RoutingConfig>,
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

    /// Where a name goes. Memory only; under a microsecond.
    pub fn resolve(&self, name: &Name) -> Resolution {
        let route = |destination, rule| {
            Resolution::Route(Route {
                destination,
                account: None,
                epoch: None,
                rule,
            })
        };
        match self.config.unlisted(name) {
            UnlistedRoute::DomainDefault(destination) => route(destination, Rule::DomainDefault),
            UnlistedRoute::Default(destination) => route(destination, Rule::Default),
            UnlistedRoute::Refused(refusal) => Resolution::Refused(refusal),
        }
    }
}
