//! When an account may have been served by which side, as far as the evidence goes.

use std::sync::Arc;
use std::time::Duration;

use crate::history::{History, HookRun, Moment, Move, Operation, Outcome, Side};

use super::Misplaced;

const BEGINNING: Moment = Moment(Duration::ZERO);
const END: Moment = Moment(Duration::MAX);

/// One account's homes in order.
pub(super) struct Timeline {
    periods: Vec<Period>,
    /// While an account that stayed was certainly held.
    held: Vec<Span>,
}

/// A time during which the account may have lived on a side: as long as the evidence allows, so that
/// neighbours overlap by what is not known of the flip between them.
struct Period {
    side: Side,
    span: Span,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: Moment,
    until: Moment,
}

impl Span {
    fn meets(self, operation: &Operation) -> bool {
        operation.begun <= self.until && operation.ended >= self.from
    }

    fn contains(self, operation: &Operation) -> bool {
        self.from <= operation.begun && operation.ended <= self.until
    }
}

impl Timeline {
    /// The timeline of an account that began on the source.
    pub(super) fn of(account: &Arc<str>, history: &History) -> Self {
        let mut moves: Vec<&Move> = history
            .moves
            .iter()
            .filter(|movement| movement.account == *account)
            .collect();
        moves.sort_by_key(|movement| movement.asked);
        let mut timeline = Self {
            periods: vec![Period {
                side: Side::Source,
                span: Span {
                    from: BEGINNING,
                    until: END,
                },
            }],
            held: Vec::new(),
        };
        for movement in moves {
            let held = certainly_held(movement, &history.hook_runs);
            match movement.outcome {
                Outcome::Flipped => timeline.flip(movement, held),
                Outcome::Stayed => timeline.held.extend(held),
            }
        }
        timeline
    }

    /// How many homes there were.
    pub(super) fn periods(&self) -> usize {
        self.periods.len()
    }

    /// Why an accepted operation should not have been; `None` when it may have been right.
    pub(super) fn misplaced(&self, operation: &Operation) -> Option<Misplaced> {
        if self.held.iter().any(|held| held.contains(operation)) {
            return Some(Misplaced::WhileHeld);
        }
        let on_its_side =
            |period: &&Period| operation.server.is_none_or(|side| side == period.side);
        let mut after = None;
        let mut before = None;
        for period in self.periods.iter().filter(on_its_side) {
            if period.span.meets(operation) {
                return None;
            }
            if period.span.until < operation.begun {
                after = Some(operation.begun.since(period.span.until));
            } else {
                before.get_or_insert(period.span.from.since(operation.ended));
            }
        }
        Some(match (after, before) {
            (Some(after), Some(before)) if after <= before => Misplaced::AfterFlip,
            (Some(_), None) => Misplaced::AfterFlip,
            _ => Misplaced::BeforeFlip,
        })
    }

    /// The one home in which an operation can have been served, when there is only one.
    pub(super) fn only_period(&self, operation: &Operation) -> Option<usize> {
        let side = operation.server?;
        let mut possible = (0..self.periods.len()).filter(|&n| {
            let period = &self.periods[n];
            period.side == side && period.span.meets(operation)
        });
        let only = possible.next()?;
        possible.next().is_none().then_some(only)
    }

    /// The old side may have served until it was certainly quiesced, the new one from the moment at
    /// which the hook was certainly done.
    fn flip(&mut self, movement: &Move, held: Option<Span>) {
        let span = held.unwrap_or(Span {
            from: movement.answered,
            until: movement.asked,
        });
        if let Some(last) = self.periods.last_mut() {
            last.span.until = span.from;
        }
        self.periods.push(Period {
            side: movement.from.other(),
            span: Span {
                from: span.until,
                until: END,
            },
        });
    }
}

/// From the beginning of a move's first hook run to the last thing that is known of its last one:
/// once an account is quiesced, it stays so until the fence has ended. Of several fences only the one that
/// flipped is certain to have held the account while its hook ran, and that hook was the last.
fn certainly_held(movement: &Move, runs: &[HookRun]) -> Option<Span> {
    let of_move = || {
        runs.iter()
            .filter(|run| run.migration == movement.migration)
    };
    let begun = of_move().map(|run| run.begun);
    let from = match (movement.one_fence, movement.outcome) {
        (true, _) => begun.min()?,
        (false, Outcome::Flipped) => begun.max()?,
        (false, Outcome::Stayed) => return None,
    };
    Some(Span {
        from,
        until: of_move().map(|run| run.ended.unwrap_or(run.begun)).max()?,
    })
}
