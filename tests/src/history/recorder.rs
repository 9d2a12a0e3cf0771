//! Where clients write down what they did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{History, Moment, Move, Operation};

/// A history that grows; clones write to the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    written: Arc<Mutex<Written>>,
}

#[derive(Debug, Default)]
struct Written {
    history: History,
    /// When the move of an account was asked for whose outcome is not known yet.
    under_way: BTreeMap<Arc<str>, Moment>,
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    pub fn operation(&self, operation: Operation) {
        self.lock().history.operations.push(operation);
    }

    /// A move of an account is about to be asked for, not before the moment that is given back.
    pub fn asks(&self, account: &Arc<str>) -> Moment {
        let mut written = self.lock();
        let now = Moment::now();
        written.under_way.insert(Arc::clone(account), now);
        now
    }

    /// Adds a move whose outcome is known.
    pub fn movement(&self, movement: Move) {
        let mut written = self.lock();
        written.under_way.remove(&movement.account);
        written.history.moves.push(movement);
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    /// What was recorded so far, without the operations of which a move that is under way may yet tell
    /// where they belonged.
    pub fn settled(&self) -> History {
        let written = self.lock();
        let mut history = written.history.clone();
        history.operations.retain(|operation| {
            let asked = written.under_way.get(&operation.account);
            asked.is_none_or(|asked| operation.ended < *asked)
        });
        history
    }

    /// How many operations a server has accepted so far.
    pub fn accepted(&self) -> usize {
        let written = self.lock();
        let accepted = written.history.operations.iter();
        accepted.filter(|op| op.action.is_accepted()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // A client that panicked has written either all that it meant to or nothing.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Outcome, Protocol, Side};

    fn noop(account: &Arc<str>, begun: Moment) -> Operation {
        Operation {
            client: 1,
            protocol: Protocol::Imap,
            account: Arc::clone(account),
            data_plane: 0,
            server: Some(Side::Target),
            begun,
            ended: Moment::now(),
            action: Action::Noop,
        }
    }

    #[test]
    fn what_a_move_under_way_may_explain_is_not_settled() {
        let (alice, bob): (Arc<str>, Arc<str>) = ("alice".into(), "bob".into());
        let recorder = Recorder::new();
        recorder.operation(noop(&alice, Moment::now()));
        let asked = recorder.asks(&alice);
        recorder.operation(noop(&alice, asked));
        recorder.operation(noop(&bob, asked));
        assert_eq!(recorder.settled().operations.len(), 2);
        assert_eq!(recorder.history().operations.len(), 3);
        recorder.movement(Move {
            account: alice,
            migration: "m".to_owned(),
            from: Side::Source,
            asked,
            answered: Moment::now(),
            outcome: Outcome::Flipped,
            held: None,
            one_fence: true,
        });
        assert_eq!(recorder.settled().operations.len(), 3);
    }
}
