//! The judge: reads a [`History`] and the final mailboxes, and names what must not have happened.
//!
//! It knows nothing of how Ferrypost works, only what a move promises (cutover, G1): at every instant
//! one server alone serves an account, nothing that a server acknowledged is lost, and nobody with
//! the right password is told that it is wrong. Clients only know that an operation took effect
//! somewhere between its beginning and its end, and a caller only that a flip happened between the
//! call and its answer; so an operation is a violation only when *no* course of events could make it
//! right. What the delta hook saw narrows that down: while it ran, nobody was served. And it ran once
//! at a time, and never after the end of its move, or it might write to a server that people use.
//!
//! What an acknowledgement means, by protocol: a message or a flag that IMAP stored and a script that
//! `ManageSieve` stored are on the final home; POP3 shows all that was stored before its login, and what
//! it has deleted by its QUIT does not come back; a message that was submitted gets its answer, or its
//! client would send it again; one that was delivered is on the final home, once; a file that was PUT is on the final
//! home, whoever reads it later sees that version or a later one, and no server executed it a second time.
//!
//! Servers of HTTP tell what they have executed, and when. So a request is judged of which nobody heard any more: it may
//! not have been executed where its account did not live, unless its data plane was killed, whose last requests a server
//! may be reading still.

mod deletions;
mod files;
mod refusals;
mod timeline;
mod violation;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::history::{Action, Disturbance, FinalState, History, HookRun, Mailbox, Operation};

use deletions::Deletions;
use files::{executed_twice, outdated, strayed};
use refusals::is_temporary;
use timeline::Timeline;
pub use violation::{Misplaced, Violation};

/// How much must have happened for a clean verdict to mean anything.
#[derive(Debug, Clone, Copy)]
pub struct Floors {
    /// Operations that a server accepted.
    pub operations: usize,
    /// Moves that ended with the account on the other side.
    pub moves: usize,
}

impl Floors {
    /// Whether enough has happened.
    pub fn are_reached(&self, history: &History) -> bool {
        shortfalls(history, self).is_empty()
    }
}

/// What the judge found.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What must not have happened.
    pub violations: Vec<Violation>,
    /// What did not happen often enough, in words.
    pub shortfalls: Vec<String>,
}

impl Verdict {
    /// Nothing bad happened, and enough did.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.shortfalls.is_empty()
    }
}

/// Judges a run.
pub fn judge(history: &History, finally: &FinalState, floors: &Floors) -> Verdict {
    let mut violations = judge_so_far(history);
    for (account, operations) in by_account(&history.operations) {
        let deletions = Deletions::of(&operations);
        if let Some(mailbox) = finally.get(&account) {
            violations.extend(deletions.undone_at_the_end(mailbox));
            violations.extend(delivered_twice(&operations, mailbox));
        }
        violations.extend(lost(&operations, &deletions, finally.get(&account)));
    }
    Verdict {
        violations,
        shortfalls: shortfalls(history, floors),
    }
}

/// Judges the part of a run that is certain already ([`Recorder::settled`]): all but what is lost, which
/// only the mailboxes at the end can say. What is found here, [`judge`] finds again.
///
/// [`Recorder::settled`]: crate::history::Recorder::settled
pub fn judge_so_far(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (account, operations) in by_account(&history.operations) {
        let timeline = Timeline::of(&account, history);
        violations.extend(misplaced(&timeline, &operations));
        violations.extend(both_sides(&timeline, &operations));
        violations.extend(wrongly_refused(&operations));
        violations.extend(unanswered(&operations, &history.disturbances));
        let deletions = Deletions::of(&operations);
        violations.extend(deletions.undone(&operations));
        violations.extend(deletions.unseen(&operations));
        violations.extend(outdated(&operations));
    }
    for (account, executed) in by_account(&history.executed) {
        let timeline = Timeline::of(&account, history);
        violations.extend(strayed(&timeline, &executed, &history.disturbances));
        violations.extend(executed_twice(&executed));
    }
    violations.extend(outlived(history));
    violations.extend(twice(history));
    violations
}

fn by_account(all: &[Operation]) -> BTreeMap<Arc<str>, Vec<&Operation>> {
    let mut accounts: BTreeMap<Arc<str>, Vec<&Operation>> = BTreeMap::new();
    for operation in all {
        let account = Arc::clone(&operation.account);
        accounts.entry(account).or_default().push(operation);
    }
    accounts
}

/// Accepted by a server on which the account did not live at any time in between, or while nobody
/// was to be served.
fn misplaced<'h>(
    timeline: &'h Timeline,
    operations: &'h [&Operation],
) -> impl Iterator<Item = Violation> + 'h {
    let accepted = operations.iter().filter(|op| op.action.is_accepted());
    accepted.filter_map(|operation| {
        let how = timeline.misplaced(operation)?;
        let operation = (*operation).clone();
        Some(Violation::Misplaced { operation, how })
    })
}

/// Writes on both sides of a flip which no single moment of the flip explains: the new side had
/// acknowledged one before another was even sent to the old side, which acknowledged it, too.
fn both_sides(timeline: &Timeline, operations: &[&Operation]) -> Vec<Violation> {
    let writes: Vec<_> = operations
        .iter()
        .filter(|operation| operation.action.is_write())
        .filter_map(|operation| Some((timeline.only_period(operation)?, *operation)))
        .collect();
    let in_period = |wanted| {
        writes
            .iter()
            .filter(move |(period, _)| *period == wanted)
            .map(|(_, operation)| *operation)
    };
    (1..timeline.periods())
        .filter_map(|new| {
            let last_on_old = in_period(new - 1).max_by_key(|operation| operation.begun)?;
            let first_on_new = in_period(new).min_by_key(|operation| operation.ended)?;
            (first_on_new.ended < last_on_old.begun).then(|| Violation::BothSides {
                old: last_on_old.clone(),
                new: first_on_new.clone(),
            })
        })
        .collect()
}

/// Acknowledged, and not there at the end.
fn lost(
    operations: &[&Operation],
    deletions: &Deletions<'_>,
    mailbox: Option<&Mailbox>,
) -> Vec<Violation> {
    let nothing = Mailbox::default();
    let Mailbox {
        messages,
        scripts,
        files,
        ..
    } = mailbox.unwrap_or(&nothing);
    let is_there = |operation: &Operation| match &operation.action {
        Action::Append(message) | Action::Deliver(message) => {
            messages.contains_key(message) || deletions.concern(message)
        }
        Action::Flag(message, flag) => {
            let flags = messages.get(message);
            flags.is_some_and(|flags| flags.contains(*flag)) || deletions.concern(message)
        }
        // A later one may have been stored without an answer.
        Action::PutScript { name, version } => scripts.get(name) >= Some(version),
        Action::PutFile { name, version } => files.get(name) >= Some(version),
        _ => true,
    };
    operations
        .iter()
        .filter(|operation| !is_there(operation))
        .map(|operation| Violation::Lost((*operation).clone()))
        .collect()
}

/// Sent once, whether or not it was acknowledged, and there more than once.
fn delivered_twice<'h>(
    operations: &'h [&Operation],
    mailbox: &'h Mailbox,
) -> impl Iterator<Item = Violation> + 'h {
    let delivered = |action: &Action| match action {
        Action::Deliver(message) => mailbox.twice.contains(message),
        _ => false,
    };
    let is_twice = move |operation: &&&Operation| match &operation.action {
        Action::Unanswered(sent) => delivered(sent),
        action => delivered(action),
    };
    let twice = operations.iter().filter(is_twice);
    twice.map(|operation| Violation::Twice((*operation).clone()))
}

/// The right password, and an answer that says otherwise.
fn wrongly_refused(operations: &[&Operation]) -> Vec<Violation> {
    let is_final = |operation: &Operation| match &operation.action {
        Action::LoginRefused { code, .. } => !is_temporary(operation.protocol, code.as_deref()),
        _ => false,
    };
    operations
        .iter()
        .filter(|operation| is_final(operation))
        .map(|operation| Violation::WronglyRefused((*operation).clone()))
        .collect()
}

/// Messages whose end was sent and that got no answer, though nothing took the connection away: they are sent again. A
/// data plane that was frozen may wake to a drain that is over, before it has passed that end on.
fn unanswered(operations: &[&Operation], disturbances: &[Disturbance]) -> Vec<Violation> {
    let is_excused = |operation: &Operation| {
        let mut stopped = disturbances.iter().filter(|it| it.killed || it.frozen);
        stopped.any(|it| it.is_around(operation, Duration::ZERO))
    };
    let is_message = |operation: &Operation| match &operation.action {
        Action::Unanswered(sent) => matches!(**sent, Action::Submit(_) | Action::Deliver(_)),
        _ => false,
    };
    operations
        .iter()
        .filter(|operation| is_message(operation) && !is_excused(operation))
        .map(|operation| Violation::Unanswered((*operation).clone()))
        .collect()
}

/// Hooks that were at work when the outcome of their move was known already.
fn outlived(history: &History) -> impl Iterator<Item = Violation> + '_ {
    history.hook_runs.iter().filter_map(|run| {
        let mut moves = history.moves.iter();
        let movement = moves.find(|movement| movement.migration == run.migration)?;
        let last_seen = run.ended.unwrap_or(run.begun);
        (last_seen > movement.answered).then(|| Violation::HookOutlived {
            run: run.clone(),
            movement: movement.clone(),
        })
    })
}

/// Hooks of one move that began before an earlier run of the same move had ended well.
fn twice(history: &History) -> impl Iterator<Item = Violation> + '_ {
    let runs = &history.hook_runs;
    runs.iter().flat_map(move |first| {
        let overlaps = move |second: &&HookRun| {
            second.migration == first.migration
                && first.begun < second.begun
                && first.ended.is_some_and(|ended| second.begun < ended)
        };
        runs.iter()
            .filter(overlaps)
            .map(|second| Violation::HookTwice {
                first: first.clone(),
                second: second.clone(),
            })
    })
}

fn shortfalls(history: &History, floors: &Floors) -> Vec<String> {
    let operations = history.operations.iter();
    let accepted = operations.filter(|op| op.action.is_accepted()).count();
    let flipped = history.flips().count();
    let short = |what: &str, is: usize, least: usize| {
        (is < least).then(|| format!("only {is} {what}, at least {least} are needed"))
    };
    [
        short("accepted operations", accepted, floors.operations),
        short("moves that flipped", flipped, floors.moves),
    ]
    .into_iter()
    .flatten()
    .collect()
}
