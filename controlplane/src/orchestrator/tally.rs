//! What is counted of moves: their steps, how they ended, how long logins were held.

use ferrypost_proto::{MigrationId, v1};

use super::lead::DriverContext;
use crate::metrics::{HELD, Outcome, Reason, Step, count_end, count_step};

impl DriverContext {
    /// Counts a step whose failpoint behind it is `after`; it is written, and the mirror has it.
    pub(super) fn count(&self, after: &str, id: &MigrationId) {
        let Some(step) = step_of(after) else { return };
        let metrics = &self.options.metrics;
        count_step(metrics, step);
        let state = self.mirror.read();
        let migration = state.migration(id).map(|migration| &migration.value);
        match step {
            Step::Flipped => {
                count_end(metrics, Outcome::Succeeded, Reason::None);
                let held = migration.and_then(|migration| migration.held);
                if let Some(held) = held.and_then(|held| held.try_into().ok()) {
                    metrics.histogram(&HELD, &[]).record(held);
                }
            }
            Step::Aborted => {
                let cause = migration.and_then(|migration| migration.abort_cause.as_ref());
                let first = cause.and_then(|cause| cause.blockers.first());
                let reason = first.map_or(v1::BlockerReason::Unspecified, v1::Blocker::reason);
                count_end(metrics, Outcome::Aborted, reason.into());
            }
            _ => {}
        }
    }
}

/// Steps are named by their failpoints.
pub(super) fn step_of(after: &str) -> Option<Step> {
    after.strip_suffix(".after")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use strum::VariantNames as _;

    use super::*;
    use crate::failpoint;

    /// Not of the leader's own: what a caller, a data plane or the hook does.
    const OTHERS: [&str; 4] = ["registration", "copying", "drained", "hook"];

    #[test]
    fn every_step_that_a_failpoint_names_is_counted() {
        let named = failpoint::ALL
            .iter()
            .filter_map(|name| name.strip_suffix(".after"));
        let mut steps: Vec<_> = named.filter(|name| !OTHERS.contains(name)).collect();
        for step in &steps {
            assert!(step_of(&format!("{step}.after")).is_some(), "{step}");
        }
        let mut counted = Step::VARIANTS.to_vec();
        steps.sort_unstable();
        counted.sort_unstable();
        assert_eq!(steps, counted);
    }
}
