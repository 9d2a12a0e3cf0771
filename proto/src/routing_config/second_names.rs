//! What servers do with logins that name two people.

use super::{Endpoint, RoutingConfig};
use crate::{DestinationId, SecondName};

/// What a server does with an authorization identity that is another name than the authentication identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthorizationIdentity {
    /// Nobody has said.
    #[default]
    NotKnown,
    /// The session is the authorization identity's, or there is none.
    Honoured,
    /// The session is the authentication identity's.
    Ignored,
}

impl Endpoint {
    /// Whether a login that rests on this is known to open the session of the account that it is routed by.
    pub fn is_known_to_heed(&self, second: SecondName) -> bool {
        match second {
            // To whoever honours it, a name beside a token is one (RFC 7628 §3.1): held against the token's owner.
            SecondName::AuthorizationIdentity | SecondName::UnreadToken => {
                self.authorization_identity == AuthorizationIdentity::Honoured
            }
            SecondName::MasterUser(separator) => self.master_separators.contains(&separator),
            // The token's owner is who it is routed by.
            SecondName::BesideToken => {
                self.authorization_identity == AuthorizationIdentity::Ignored
            }
        }
    }
}

impl RoutingConfig {
    /// Ways to log in as somebody else that work at `source` and are refused at `target`, in words.
    pub fn lost_second_names(&self, source: &DestinationId, target: &DestinationId) -> Vec<String> {
        let mut lost = Vec::new();
        for second in self.second_names() {
            if self.all_heed(source, second) && !self.all_heed(target, second) {
                lost.push(second.to_string());
            }
        }
        lost
    }

    /// Those master separators that an endpoint is not said to know.
    pub(super) fn refused_separators(&self, endpoint: &Endpoint) -> String {
        let separators = self.names.master_separators.iter();
        separators
            .filter(|separator| !endpoint.is_known_to_heed(SecondName::MasterUser(**separator)))
            .collect()
    }

    fn second_names(&self) -> impl Iterator<Item = SecondName> {
        let separators = self.names.master_separators.iter();
        let masters = separators.map(|separator| SecondName::MasterUser(*separator));
        [SecondName::AuthorizationIdentity]
            .into_iter()
            .chain(masters)
    }

    fn all_heed(&self, destination: &DestinationId, second: SecondName) -> bool {
        self.destination(destination).is_some_and(|destination| {
            let mut endpoints = destination.endpoints().iter();
            endpoints.all(|endpoint| endpoint.is_known_to_heed(second))
        })
    }
}
