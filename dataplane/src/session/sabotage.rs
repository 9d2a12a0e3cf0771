//! For the tests: the order that loses sessions, and clients that nobody is told of. See [`crate::sabotage`].

use ferrypost_proto::LoginIdentity;
use ferrypost_routing::Resolution;
use ferrypost_wire::LineProtocol;

use super::{attempt::Attempt, outcome::AttemptError};
use crate::{
    backend::open::{Caller, Opened},
    net::proxy::Announced,
    registry::SessionGuard,
    sabotage,
};

/// Stands in for the sound order, which admits first.
pub(super) async fn reach<P: LineProtocol>(
    attempt: &mut Attempt<'_, P>,
    identity: &LoginIdentity,
) -> Result<(SessionGuard, Opened<P::Back>), AttemptError> {
    let table = attempt.services.tables.current();
    match table.map(|table| table.resolve(identity.name())) {
        Some(Resolution::Route(route)) if sabotage::registers_after_dial() => {
            let second = identity.second_name();
            let opened = attempt.open(&route.destination, second).await?;
            let guard = attempt.admit(identity.name()).await?;
            Ok((guard, opened))
        }
        _ => attempt.reach(identity).await,
    }
}

/// Stands in for the sound one, which announces the client.
pub(super) fn caller(client: Announced<'_>) -> Caller<'_> {
    if sabotage::announces_nobody() {
        Caller::Probe
    } else {
        Caller::Client(client)
    }
}
