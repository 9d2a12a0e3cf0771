//! The end of the tour: what the servers really hold, and whether every promise was kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::checker::{Floors, judge};
use crate::demo::console::{say, time};
use crate::history::{Action, FinalState, History, Move, Side, Summary, read_journal};
use crate::story::SOON;
use crate::wait::until;
use crate::workload::{Workload, read_mailbox};

use super::{SEED, TRAVELLER, Tour};

/// Below what a slow machine does; above what a broken tour would.
const FLOORS: Floors = Floors {
    operations: 500,
    moves: 2,
};

/// So many violations are shown.
const SHOWN: usize = 10;

impl Tour {
    /// Lets everybody finish and log out, once enough has been done to judge by.
    pub(super) async fn end_the_day(&mut self) -> anyhow::Result<()> {
        until("a day's work is done", SOON, || {
            FLOORS.are_reached(&self.recorder.history())
        })
        .await?;
        let nobody = Workload::new(&self.world, self.recorder.clone(), SEED);
        std::mem::replace(&mut self.workload, nobody).stop().await;
        Ok(())
    }

    /// Reads the mailboxes from the servers, and judges.
    pub(super) async fn conclude(&mut self, moves: [Move; 2]) -> anyhow::Result<()> {
        self.console.step("Summary");
        let mut history = self.recorder.history();
        history.hook_runs = read_journal(self.world.journal())?;
        let finally = self.final_state(&history).await?;
        let verdict = judge(&history, &finally, &FLOORS);
        say_numbers(&history, &moves);
        say(format!("violations: {}", verdict.violations.len()));
        for violation in verdict.violations.iter().take(SHOWN) {
            say(format!("  {violation}"));
        }
        if !verdict.violations.is_empty() {
            bail!("{} promises were broken", verdict.violations.len());
        }
        if !verdict.shortfalls.is_empty() {
            bail!(
                "too little happened to say that all is well: {}",
                verdict.shortfalls.join("; ")
            );
        }
        Ok(())
    }

    /// Everybody is back on the source.
    async fn final_state(&self, history: &History) -> anyhow::Result<FinalState> {
        let accounts: BTreeSet<_> = history.operations.iter().map(|op| &op.account).collect();
        let mut finally = FinalState::new();
        for account in accounts {
            let mailbox = read_mailbox(self.world.source(), account)
                .await
                .with_context(|| format!("the mailbox of {account} on {}", Side::Source))?;
            finally.insert(Arc::clone(account), mailbox);
        }
        Ok(finally)
    }
}

fn say_numbers(history: &History, [there, back]: &[Move; 2]) {
    let all = Summary::of(history, |_| true);
    let moved = Summary::of(history, |operation| &*operation.account == TRAVELLER);
    let or_unknown = |duration: Option<_>| duration.map_or("unknown".to_owned(), time);
    say(format!(
        "account held:  {} there, {} back (fence to flip)",
        or_unknown(there.held),
        or_unknown(back.held)
    ));
    say(format!(
        "of that:       {} and {} for `doveadm sync`, which waits for the disk at every message",
        or_unknown(hook_time(history, there)),
        or_unknown(hook_time(history, back))
    ));
    say(format!(
        "reconnect:     p50 {}, max {} over {} sessions that were closed",
        or_unknown(moved.reconnect_p50()),
        or_unknown(moved.reconnect_max()),
        moved.reconnects.len()
    ));
    say(format!(
        "acknowledged:  {} operations, {} of them writes, {} logins; {} logins told to come later",
        all.accepted, all.writes, all.logins, all.refused
    ));
    let submissions = Summary::of(history, |operation| {
        matches!(operation.action, Action::Submit(_))
    });
    let submitted = submissions.writes;
    say(format!(
        "submitted:     {submitted} messages, each answered by the server of its account"
    ));
    say(format!(
        "final home:    {} acknowledged messages, flags, deletions and scripts were looked for on the servers",
        all.writes - submitted
    ));
}

/// How long the delta hook took for a move.
fn hook_time(history: &History, movement: &Move) -> Option<Duration> {
    let run = history
        .hook_runs
        .iter()
        .rfind(|run| run.migration == movement.migration)?;
    Some(run.ended?.since(run.begun))
}
