//! Where clients write down what they did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{History, Move, Operation};

/// A history that grows; clones write to the same one.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    history: Arc<Mutex<History>>,
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation.
    pub fn operation(&self, operation: Operation) {
        self.lock().operations.push(operation);
    }

    /// Adds a move.
    pub fn movement(&self, movement: Move) {
        self.lock().moves.push(movement);
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        self.lock().clone()
    }

    /// How many operations a server has accepted so far.
    pub fn accepted(&self) -> usize {
        let history = self.lock();
        let accepted = history.operations.iter();
        accepted.filter(|op| op.action.is_accepted()).count()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // A client that panicked has pushed either all of its operation or nothing.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
