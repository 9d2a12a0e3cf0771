//! Files that clients keep by HTTP, and what servers say that they did with them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::history::{Action, Disturbance, Operation};

use super::Violation;
use super::timeline::Timeline;

/// How long after a data plane was killed a server may still be executing what that had sent, on a busy machine. (The
/// product's word for it is the settle time; here the servers share the processors with everything else.)
const READING: Duration = Duration::from_secs(5);

/// Shown older than a version whose acknowledgement had arrived before the request was sent.
pub(super) fn outdated(operations: &[&Operation]) -> Vec<Violation> {
    let stored = operations.iter().filter_map(|op| match &op.action {
        Action::PutFile { name, version } => Some((name, *version, op.ended)),
        _ => None,
    });
    let stored: Vec<_> = stored.collect();
    let newest = |name, before| {
        let earlier = stored
            .iter()
            .filter(|(of, _, ended)| *of == name && *ended < before);
        earlier.map(|(_, version, _)| *version).max()
    };
    operations
        .iter()
        .filter_map(|operation| {
            let Action::SawFile { name, version } = &operation.action else {
                return None;
            };
            let acknowledged = newest(name, operation.begun)?;
            (*version < acknowledged).then(|| Violation::Outdated {
                operation: (*operation).clone(),
                acknowledged,
            })
        })
        .collect()
}

/// Executed where the account did not live, or while it was held.
pub(super) fn strayed(
    timeline: &Timeline,
    executed: &[&Operation],
    disturbances: &[Disturbance],
) -> Vec<Violation> {
    let is_excused = |operation: &Operation| {
        let mut killed = disturbances.iter().filter(|it| it.killed);
        killed.any(|it| it.is_around(operation, READING))
    };
    let judged = executed.iter().filter(|operation| !is_excused(operation));
    judged
        .filter_map(|operation| {
            let how = timeline.misplaced(operation)?;
            let operation = (*operation).clone();
            Some(Violation::Misplaced { operation, how })
        })
        .collect()
}

/// Each version is sent in one request.
pub(super) fn executed_twice(executed: &[&Operation]) -> Vec<Violation> {
    let mut in_order = executed.to_vec();
    in_order.sort_by_key(|operation| operation.begun);
    let mut before = BTreeSet::new();
    let again = in_order.into_iter().filter(|operation| {
        let Action::PutFile { name, version } = &operation.action else {
            return false;
        };
        !before.insert((name, *version))
    });
    again
        .map(|operation| Violation::ExecutedTwice(operation.clone()))
        .collect()
}
