//! Whose turn it is: which of the unfinished migrations somebody must drive now. All others cost nothing
//! until their turn comes, however many they are.

use ferrypost_proto::{
    AccountId, MigrationId,
    store::v1::MigrationRecord,
    v1::{Blocker, BlockerReason},
};

use super::{
    fence::{Outlook, Prospect, before_fence},
    state::{Lane, State, Waiting},
    transition::Move,
};
use crate::kv::Rev;

/// What the leader gives all moves.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Accounts that may be between FENCING and FLIPPED at once.
    pub budget: usize,
    /// There is a delta hook to run.
    pub hook: bool,
}

/// The migrations to drive: those under way, the first of every lane (which shows what its lane waits for),
/// and as many more, in the order in which they were asked for, as may be fenced now.
pub fn due(state: &State, means: Means) -> Vec<MigrationId> {
    let moves = state.moves();
    let firsts = moves.lanes().filter_map(|(_, waiting)| waiting.first());
    let mut due: Vec<_> = moves.active().cloned().collect();
    due.extend(firsts.map(|(_, id)| id.clone()));
    due.extend(next(state, means));
    due
}

/// The moves whose fences may begin, as far as the budget goes.
fn next(state: &State, means: Means) -> Vec<MigrationId> {
    let fenced = usize::try_from(state.counts().fenced()).unwrap_or(usize::MAX);
    let mut room = means.budget.saturating_sub(fenced);
    if room == 0 {
        return Vec::new();
    }
    let mut ready = Vec::new();
    for (lane, waiting) in state.moves().lanes() {
        let outlook = Outlook::of(state, &lane.source, &lane.target);
        if outlook.is_clear() && (means.hook || !lane.delta_hook) {
            ready.extend(ready_in(state, &outlook, waiting, room));
        }
    }
    ready.sort_unstable_by_key(|(since, _)| *since);
    let fits = ready.iter().take_while(|(_, of)| {
        let accounts = of.placements.len();
        // A set that is larger than all room waits at the front until it is alone: nobody overtakes it.
        let fits = accounts <= room || fenced == 0 && room == means.budget;
        room = room.saturating_sub(accounts);
        fits
    });
    fits.map(|(_, of)| of.id.clone()).collect()
}

/// The first of a lane that nothing of their own holds back, with when they were asked for.
fn ready_in(
    state: &State,
    outlook: &Outlook<'_>,
    waiting: &Waiting,
    most: usize,
) -> Vec<(Rev, Move)> {
    let held_back = outlook.held_back();
    waiting
        .iter()
        // What was asked for later was written later, and is not applied either.
        .take_while(|(since, _)| outlook.is_applied(*since))
        .filter_map(|(since, id)| Some((*since, Move::of(state, id).ok()?)))
        .filter(|(_, of)| {
            let free = |id: &AccountId| !held_back.contains(id);
            of.accounts().iter().all(free)
                && outlook.is_applied(of.epoch())
                && outlook.fits(of.window())
        })
        .take(most)
        .collect()
}

/// What a move that waits for its fence waits for. It is looked at anew, since a record is written for that only
/// while it is the first of its lane; the leader's own reasons are those of that first one. A move whose fence
/// was withdrawn stands in no lane, and its leader writes its reasons for itself.
pub fn waits_for(state: &State, record: &MigrationRecord, budget: usize) -> Vec<Blocker> {
    let accounts: Vec<_> = record
        .accounts
        .iter()
        .filter_map(|account| AccountId::parse(&account.account_id).ok())
        .collect();
    let records = || accounts.iter().filter_map(|id| state.account(id));
    let windows = records().filter_map(|account| Some(account.placement()?.window));
    let prospect = Prospect {
        accounts: &accounts,
        source: &record.source,
        target: &record.target,
        written: records()
            .map(|account| account.epoch())
            .max()
            .unwrap_or_default(),
        budget,
        window: windows.min().unwrap_or_default(),
    };
    let mut blockers = if record.attempts == 0 {
        let first = state.moves().first(&Lane::of(record));
        let first = first.and_then(|first| state.migration(first));
        first.map_or_else(Vec::new, |first| of_leader(&first.value))
    } else {
        of_leader(record)
    };
    blockers.extend(before_fence(state, &prospect));
    blockers
}

/// Reasons that no state shows: the leader's configuration, and its clock.
fn of_leader(record: &MigrationRecord) -> Vec<Blocker> {
    let own = record.blockers.iter().filter(|blocker| {
        matches!(
            blocker.reason(),
            BlockerReason::HookFailed | BlockerReason::HookMayRun | BlockerReason::FenceWithdrawn
        )
    });
    own.cloned().collect()
}
