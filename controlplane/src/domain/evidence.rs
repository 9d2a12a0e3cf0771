//! The evidence of a move (G13): what is written into its record with every step, and above all with FLIPPED
//! and the abort, so that nothing has to be remembered by anybody.
//!
//! Its size is bounded: the last few fences, the first data planes of a large fleet by their names, and so many
//! reasons to wait.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use ferrypost_proto::{
    InstanceId, Phase,
    store::v1::DrainedReport,
    v1::{
        self, Blocker, DataPlaneEvidence, FenceEnd, FenceEvidence, HookEvidence, MigrationEvidence,
        PhaseEvidence, WaitEvidence,
    },
};

use super::{drain::Fence, state::State, transition::Move};

/// Fences of one move that are kept, the last ones.
const FENCES: usize = 8;

/// Data planes of one fence that are kept; a fence counts the others.
const DATA_PLANES: usize = 64;

/// Reasons to wait that are kept apart; what is beyond is counted under its reason alone.
const WAITS: usize = 32;

/// What the leader remembers of a move and has not written yet.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Who writes.
    pub leader: String,
    /// How long it has looked at the move.
    pub driven: Duration,
    /// How long the fence has lasted, on the leader's monotonic clock, if it has begun it.
    pub after: Option<Duration>,
    /// When each data plane's word on the fence came.
    pub heard: BTreeMap<InstanceId, Duration>,
    /// How the hook ended that has run.
    pub hook: Option<HookEvidence>,
    /// How long the move has waited, and for what.
    pub waits: Vec<WaitEvidence>,
}

/// A record's evidence, on its way into a transaction.
pub(super) struct Writing<'a> {
    /// What is written.
    pub(super) evidence: &'a mut MigrationEvidence,
    /// What is to be added.
    pub(super) notes: &'a Notes,
    /// For people.
    pub(super) now: prost_types::Timestamp,
}

impl Writing<'_> {
    /// Nobody has written of the move before: what is not spent on looking at it was spent in its queue.
    pub(super) fn queued(&mut self, requested_at: Option<prost_types::Timestamp>) {
        let age = requested_at.map(|at| {
            let moment = |at: prost_types::Timestamp| SystemTime::try_from(at).ok();
            moment(self.now)?.duration_since(moment(at)?).ok()
        });
        let age = age.flatten().unwrap_or_default();
        self.evidence.queued = wire(age.saturating_sub(self.notes.driven));
    }

    /// What the move has waited for.
    pub(super) fn waits(&mut self) {
        for wait in &self.notes.waits {
            add_wait(&mut self.evidence.waits, wait);
        }
    }

    /// A phase begins; FENCING begins a fence with it, and FLIPPED is the last that belongs to one.
    pub(super) fn phase(&mut self, phase: Phase) {
        if !phase.is_fenced() && phase != Phase::Flipped {
            return;
        }
        if phase == Phase::Fencing {
            self.evidence.fences.push(FenceEvidence {
                leader: self.notes.leader.clone(),
                ..FenceEvidence::default()
            });
            let beyond = self.evidence.fences.len().saturating_sub(FENCES);
            self.evidence.fences.drain(..beyond);
        }
        let (at, after) = (Some(self.now), self.after());
        if let Some(fence) = self.evidence.fences.last_mut() {
            fence.phases.push(PhaseEvidence {
                phase: v1::Phase::from(phase).into(),
                at,
                after,
            });
        }
    }

    /// What the hook came to. The run was counted when it was written down.
    pub(super) fn hook(&mut self) {
        if let (Some(hook), Some(fence)) = (&self.notes.hook, self.evidence.fences.last_mut())
            && !fence.hooks.contains(hook)
        {
            fence.hooks.push(hook.clone());
        }
    }

    /// The fence ends, with what every data plane has said of it.
    pub(super) fn end(&mut self, state: &State, of: &Move, end: FenceEnd) {
        self.hook();
        let fences = of.fences();
        let all = state.drained(&of.id).into_iter().flatten();
        let said: Vec<_> = all
            .map(|(instance, report)| of_data_plane(instance, &report.value, &fences, self.notes))
            .collect();
        let (ended_at, lasted) = (Some(self.now), self.after());
        let Some(fence) = self.evidence.fences.last_mut() else {
            return;
        };
        (fence.ended_at, fence.lasted) = (ended_at, lasted);
        fence.end = end.into();
        fence.sessions_closed = said.iter().map(|said| said.closed).sum();
        fence.more_data_planes =
            u32::try_from(said.len().saturating_sub(DATA_PLANES)).unwrap_or(u32::MAX);
        fence.data_planes = said;
        fence.data_planes.truncate(DATA_PLANES);
    }

    fn after(&self) -> Option<prost_types::Duration> {
        self.notes.after.and_then(wire)
    }
}

fn of_data_plane(
    instance: &InstanceId,
    report: &DrainedReport,
    fences: &[Fence],
    notes: &Notes,
) -> DataPlaneEvidence {
    let mut said = DataPlaneEvidence {
        instance: instance.as_str().to_owned(),
        drained: !fences.is_empty(),
        after: notes.heard.get(instance).copied().and_then(wire),
        ..DataPlaneEvidence::default()
    };
    for (account, epoch) in fences {
        let of_account = report
            .accounts
            .iter()
            .find(|of| of.account_id == account.as_str());
        let drained = of_account.filter(|of| of.fence_epoch == *epoch);
        said.drained &= drained.is_some();
        said.closed += drained.map_or(0, |of| of.closed);
        said.unconfirmed += drained.map_or(0, |of| of.unconfirmed);
        said.sessions_left += of_account.map_or(0, |of| of.sessions_left);
    }
    said
}

fn add_wait(waits: &mut Vec<WaitEvidence>, more: &WaitEvidence) {
    let beyond = waits.len() >= WAITS;
    let is_it = |wait: &&mut WaitEvidence| wait.reason == more.reason && wait.who == more.who;
    if let Some(wait) = waits.iter_mut().find(is_it) {
        return add(wait, more);
    }
    if !beyond {
        return waits.push(more.clone());
    }
    let of_reason = |wait: &&mut WaitEvidence| wait.reason == more.reason && wait.who.is_empty();
    match waits.iter_mut().find(of_reason) {
        Some(wait) => add(wait, more),
        // There are fewer reasons than places to spare.
        None => waits.push(WaitEvidence {
            who: String::new(),
            ..more.clone()
        }),
    }
}

fn add(wait: &mut WaitEvidence, more: &WaitEvidence) {
    let time = |of: &WaitEvidence| {
        let time = of.time.and_then(|time| Duration::try_from(time).ok());
        time.unwrap_or_default()
    };
    wait.time = wire(time(wait) + time(more));
    wait.times += more.times;
}

/// A wait for something that begins.
pub fn wait_for(blocker: &Blocker, time: Duration, times: u32) -> WaitEvidence {
    WaitEvidence {
        reason: blocker.reason,
        who: blocker.who.clone(),
        time: wire(time),
        times,
    }
}

fn wire(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(reason: v1::BlockerReason, who: &str, seconds: u64) -> WaitEvidence {
        let blocker = Blocker {
            reason: reason.into(),
            who: who.to_owned(),
            message: String::new(),
        };
        wait_for(&blocker, Duration::from_secs(seconds), 1)
    }

    #[test]
    fn what_is_kept_of_waits_and_fences_has_a_bound() {
        let mut evidence = MigrationEvidence::default();
        let silent = v1::BlockerReason::DataPlaneSilent;
        let mut notes = Notes {
            waits: (0..500)
                .map(|n| waited(silent, &format!("dp-{n}"), 1))
                .collect(),
            ..Notes::default()
        };
        notes.waits.push(waited(silent, "dp-0", 5));
        let mut writing = Writing {
            evidence: &mut evidence,
            notes: &notes,
            now: prost_types::Timestamp::default(),
        };
        writing.waits();
        for _ in 0..100 {
            for phase in [Phase::Fencing, Phase::Quiesced, Phase::Copying] {
                writing.phase(phase);
            }
        }
        assert_eq!(evidence.fences.len(), FENCES);
        assert!(evidence.fences.iter().all(|fence| fence.phases.len() == 2));
        assert_eq!(evidence.waits.len(), WAITS + 1);
        let seconds = |wait: &WaitEvidence| wait.time.map(|time| time.seconds);
        assert_eq!(
            (seconds(&evidence.waits[0]), evidence.waits[0].times),
            (Some(6), 2)
        );
        let rest = evidence.waits.last().expect("the rest");
        assert_eq!((rest.who.as_str(), rest.times), ("", 500 - 32));
    }
}
