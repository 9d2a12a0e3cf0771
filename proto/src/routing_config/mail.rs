//! What is known of the way of mail.

use super::{Destination, Endpoint, RoutingConfig};
use crate::{DestinationId, v1};

/// Who decides which server gets the mail that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MailSplit {
    /// Nobody has said.
    #[default]
    NotKnown,
    /// The placement.
    ByPlacement,
    /// A mail system that delivers to whomever it knows.
    ByExistence,
}

/// What a server's 250 to a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceptance {
    /// Nobody has said.
    #[default]
    NotKnown,
    /// The message is stored.
    Delivered,
    /// It will be, some time later.
    Queued,
}

impl From<v1::MailSplit> for MailSplit {
    fn from(wire: v1::MailSplit) -> Self {
        match wire {
            v1::MailSplit::Unspecified => Self::NotKnown,
            v1::MailSplit::ByPlacement => Self::ByPlacement,
            v1::MailSplit::ByExistence => Self::ByExistence,
        }
    }
}

impl From<v1::Acceptance> for Acceptance {
    fn from(wire: v1::Acceptance) -> Self {
        match wire {
            v1::Acceptance::Unspecified => Self::NotKnown,
            v1::Acceptance::Delivered => Self::Delivered,
            v1::Acceptance::Queued => Self::Queued,
        }
    }
}

impl RoutingConfig {
    /// Who decides which server gets the mail that arrives.
    pub const fn mail_split(&self) -> MailSplit {
        self.mail_split
    }

    /// Whether there is an endpoint by which a message could be delivered to a destination.
    pub fn takes_messages(&self, destination: &DestinationId) -> bool {
        self.endpoints_for_messages(destination).next().is_some()
    }

    /// The protocols by which a destination's 250 to a message means this, each once.
    pub fn accepting(
        &self,
        destination: &DestinationId,
        acceptance: Acceptance,
    ) -> Vec<v1::Protocol> {
        let endpoints = self.endpoints_for_messages(destination);
        let mut protocols: Vec<_> = endpoints
            .filter(|endpoint| endpoint.acceptance == acceptance)
            .map(|endpoint| endpoint.protocol)
            .collect();
        protocols.sort_unstable();
        protocols.dedup();
        protocols
    }

    fn endpoints_for_messages(&self, of: &DestinationId) -> impl Iterator<Item = &Endpoint> {
        let endpoints = self.destination(of).map(Destination::endpoints);
        let is_for_messages = |endpoint: &&Endpoint| {
            matches!(endpoint.protocol, v1::Protocol::Lmtp | v1::Protocol::Smtp)
        };
        endpoints.unwrap_or_default().iter().filter(is_for_messages)
    }
}
