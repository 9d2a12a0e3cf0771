//! What a history amounts to, in numbers for people.

use std::time::Duration;

use super::{Action, History, Operation};

/// Counts and times of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Operations that a server accepted, logins included.
    pub accepted: usize,
    /// Logins among them.
    pub logins: usize,
    /// Writes among them.
    pub writes: usize,
    /// Logins that were refused.
    pub refused: usize,
    /// Logins whose connection ended before an answer.
    pub unanswered: usize,
    /// From the loss of each session to the client's next login, shortest first.
    pub reconnects: Vec<Duration>,
}

impl Summary {
    /// Counts the operations that `counts`.
    pub fn of(history: &History, counts: impl Fn(&Operation) -> bool) -> Self {
        let operations: Vec<_> = history.operations.iter().filter(|op| counts(op)).collect();
        let number = |what: fn(&Action) -> bool| {
            let matching = operations.iter().filter(|op| what(&op.action));
            matching.count()
        };
        let mut reconnects: Vec<_> = operations.iter().filter_map(|op| reconnect(op)).collect();
        reconnects.sort_unstable();
        Self {
            accepted: number(Action::is_accepted),
            logins: number(|action| matches!(action, Action::Login { .. })),
            writes: number(Action::is_write),
            refused: number(|action| matches!(action, Action::LoginRefused { .. })),
            unanswered: number(|action| {
                action.is_login() && matches!(action, Action::Unanswered(_))
            }),
            reconnects,
        }
    }

    /// The median time to reconnect.
    pub fn reconnect_p50(&self) -> Option<Duration> {
        self.reconnects.get(self.reconnects.len() / 2).copied()
    }

    /// The longest time to reconnect.
    pub fn reconnect_max(&self) -> Option<Duration> {
        self.reconnects.last().copied()
    }
}

fn reconnect(operation: &Operation) -> Option<Duration> {
    match operation.action {
        Action::Login { lost: Some(lost) } => Some(operation.ended.since(lost)),
        _ => None,
    }
}
