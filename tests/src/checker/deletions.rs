//! What POP3 shows and deletes.

use std::collections::BTreeMap;

use crate::history::{Action, Mailbox, MessageId, Moment, Operation};

use super::Violation;

/// The messages of an account that somebody deleted, or may have.
pub(super) struct Deletions<'h> {
    /// From when on each may have been gone.
    begun: BTreeMap<&'h MessageId, Moment>,
    /// The first acknowledgement of each.
    acknowledged: BTreeMap<&'h MessageId, &'h Operation>,
}

impl<'h> Deletions<'h> {
    pub(super) fn of(operations: &[&'h Operation]) -> Self {
        let mut deletions = Self {
            begun: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        };
        for operation in operations {
            match &operation.action {
                Action::Delete(message) => {
                    deletions.begins(message, operation.begun);
                    let first = deletions.acknowledged.entry(message).or_insert(operation);
                    if operation.ended < first.ended {
                        *first = operation;
                    }
                }
                Action::Unanswered(sent) => {
                    if let Action::Delete(message) = &**sent {
                        deletions.begins(message, operation.begun);
                    }
                }
                _ => {}
            }
        }
        deletions
    }

    fn begins(&mut self, message: &'h MessageId, at: Moment) {
        let begun = self.begun.entry(message).or_insert(at);
        *begun = at.min(*begun);
    }

    /// Whether a message may be gone.
    pub(super) fn concern(&self, message: &MessageId) -> bool {
        self.begun.contains_key(message)
    }

    /// Messages that are on the final home, though their deletion was acknowledged.
    pub(super) fn undone_at_the_end(&self, finally: &Mailbox) -> Vec<Violation> {
        let is_there = |message: &MessageId| finally.messages.contains_key(message);
        self.acknowledged
            .iter()
            .filter(|(message, _)| is_there(message))
            .map(|(_, deleted)| Violation::Undeleted((*deleted).clone()))
            .collect()
    }

    /// Messages that were shown to somebody who came after their deletion was acknowledged.
    pub(super) fn undone(&self, operations: &[&Operation]) -> Vec<Violation> {
        operations
            .iter()
            .filter_map(|operation| {
                let Action::Retrieved(message) = &operation.action else {
                    return None;
                };
                let deleted = *self.acknowledged.get(message)?;
                (deleted.ended < operation.begun).then(|| Violation::Undeleted(deleted.clone()))
            })
            .collect()
    }

    /// Mailboxes that showed fewer messages than had been acknowledged before, and not deleted.
    pub(super) fn unseen(&self, operations: &[&Operation]) -> Vec<Violation> {
        let stored: Vec<_> = operations
            .iter()
            .filter_map(|operation| match &operation.action {
                Action::Append(message) => Some((message, operation.ended)),
                _ => None,
            })
            .collect();
        operations
            .iter()
            .filter_map(|operation| {
                let Action::Counted(count) = operation.action else {
                    return None;
                };
                let certain = stored.iter().filter(|(message, stored)| {
                    let deleted = self.begun.get(message);
                    *stored < operation.begun && deleted.is_none_or(|at| *at > operation.ended)
                });
                let missing = certain.count().saturating_sub(count);
                (missing > 0).then(|| Violation::Unseen {
                    operation: (*operation).clone(),
                    missing,
                })
            })
            .collect()
    }
}
