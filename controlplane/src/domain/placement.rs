//! An account's record as the control plane uses it.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    AccountId, DestinationId, MigrationId, Phase, Revision, TraceParent, routing::v1 as wire,
    store::v1::AccountRecord, v1,
};

use crate::kv::{Rev, value::Stored};

/// Where an account lives and what its move does: its record, checked.
///
/// A million of them are kept in memory, so strings are shared with whoever knew them before.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Whose.
    pub account: AccountId,
    /// Canonical, sorted.
    pub names: Box<[Arc<str>]>,
    /// Where it lives.
    pub home: DestinationId,
    /// Where a move takes it.
    pub target: Option<DestinationId>,
    /// Where it lived before its last move.
    pub previous_home: Option<DestinationId>,
    /// Where its move stands.
    pub phase: Phase,
    /// The move under way, or the last one.
    pub migration_id: Option<MigrationId>,
    /// The revision of the FENCING write. `None` outside the held window, and on that write itself.
    pub fence_epoch: Option<Rev>,
    /// How long the held window may last.
    pub window: Duration,
    /// The trace that the move belongs to, in the held window. Boxed: few accounts have one at a time.
    pub trace: Option<Box<TraceParent>>,
    /// The store revision of the record; 0 for one that is not written yet.
    pub epoch: Rev,
    /// Encoded fields of a newer version, written back as they came.
    later: Box<[u8]>,
    /// The schema that it was read with.
    schema: u32,
}

/// A record that this version cannot act on: one of its fields has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record cannot be read: {field}")]
pub struct UnreadableRecord {
    /// The field that is wrong.
    pub field: &'static str,
}

impl Placement {
    /// A settled account that has no record yet. `names` are canonical.
    pub fn new(
        account: AccountId,
        names: impl IntoIterator<Item = Arc<str>>,
        home: DestinationId,
    ) -> Self {
        let mut placement = Self {
            account,
            names: Box::default(),
            home,
            target: None,
            previous_home: None,
            phase: Phase::Settled,
            migration_id: None,
            fence_epoch: None,
            window: Duration::ZERO,
            trace: None,
            epoch: 0,
            later: Box::default(),
            schema: 0,
        };
        placement.set_names(names);
        placement
    }

    /// Replaces the names, sorted and each once.
    pub fn set_names(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        self.names = names.into();
    }

    /// Checks a stored record.
    pub fn from_stored(
        account: AccountId,
        stored: Stored<AccountRecord>,
        epoch: Rev,
    ) -> Result<Self, UnreadableRecord> {
        let (record, later) = stored.into_parts();
        let phase =
            Phase::try_from(record.phase).map_err(|_| UnreadableRecord { field: "phase" })?;
        let window = match record.window {
            None => Duration::ZERO,
            Some(window) => {
                Duration::try_from(window).map_err(|_| UnreadableRecord { field: "window" })?
            }
        };
        Ok(Self {
            account,
            names: record
                .names
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            home: destination(&record.home, "home")?.ok_or(UnreadableRecord { field: "home" })?,
            target: destination(&record.target, "target")?,
            previous_home: destination(&record.previous_home, "previous_home")?,
            phase,
            migration_id: match record.migration_id.as_str() {
                "" => None,
                id => Some(MigrationId::parse(id).map_err(|_| UnreadableRecord {
                    field: "migration_id",
                })?),
            },
            fence_epoch: (record.fence_epoch != 0).then_some(record.fence_epoch),
            window,
            trace: record.traceparent.parse().ok().map(Box::new),
            epoch,
            later,
            schema: record.schema,
        })
    }

    /// The record to write. Its epoch is not in it: the write makes the new one.
    pub fn to_stored(&self) -> Stored<AccountRecord> {
        let text = |id: &Option<DestinationId>| id.clone().map(String::from).unwrap_or_default();
        let record = AccountRecord {
            schema: self.schema,
            names: self.names.iter().map(|name| (**name).to_owned()).collect(),
            home: self.home.as_str().to_owned(),
            target: text(&self.target),
            previous_home: text(&self.previous_home),
            phase: v1::Phase::from(self.phase).into(),
            migration_id: self
                .migration_id
                .clone()
                .map(String::from)
                .unwrap_or_default(),
            fence_epoch: self.fence_epoch.unwrap_or_default(),
            window: prost_types::Duration::try_from(self.window).ok(),
            traceparent: self.traceparent(),
        };
        Stored::from_parts(record, self.later.clone())
    }

    /// The epoch of the fence, in the held window.
    pub fn fence(&self) -> Option<Rev> {
        self.phase
            .is_fenced()
            .then(|| self.fence_epoch.unwrap_or(self.epoch))
    }

    fn traceparent(&self) -> String {
        let trace = self.trace.as_deref();
        trace.map(ToString::to_string).unwrap_or_default()
    }

    /// What data planes are told.
    pub fn entry(&self, base: u64) -> wire::AccountEntry {
        wire::AccountEntry {
            account_id: self.account.as_str().to_owned(),
            names: self.names.iter().map(|name| (**name).to_owned()).collect(),
            home: self.home.as_str().to_owned(),
            target: self.target.clone().map(String::from).unwrap_or_default(),
            phase: v1::Phase::from(self.phase).into(),
            epoch: Some(Revision::new(base, self.epoch).into()),
            fence_epoch: self
                .fence_epoch
                .map(|fence| Revision::new(base, fence).into()),
            migration_id: self
                .migration_id
                .clone()
                .map(String::from)
                .unwrap_or_default(),
            // A replica of an earlier version leaves it in the record when the window ends.
            traceparent: if self.phase.is_fenced() {
                self.traceparent()
            } else {
                String::new()
            },
        }
    }

    /// What operators are told.
    pub fn to_v1(&self, base: u64) -> v1::Placement {
        v1::Placement {
            account_id: self.account.as_str().to_owned(),
            names: self.names.iter().map(|name| (**name).to_owned()).collect(),
            destination: self.home.as_str().to_owned(),
            previous_destination: self
                .previous_home
                .clone()
                .map(String::from)
                .unwrap_or_default(),
            target: self.target.clone().map(String::from).unwrap_or_default(),
            phase: v1::Phase::from(self.phase).into(),
            epoch: Some(Revision::new(base, self.epoch).into()),
            migration_id: self
                .migration_id
                .clone()
                .map(String::from)
                .unwrap_or_default(),
        }
    }
}

fn destination(id: &str, field: &'static str) -> Result<Option<DestinationId>, UnreadableRecord> {
    if id.is_empty() {
        return Ok(None);
    }
    DestinationId::parse(id)
        .map(Some)
        .map_err(|_| UnreadableRecord { field })
}

#[cfg(test)]
mod tests {
    use ferrypost_runtime::Random;

    use super::*;

    fn placement() -> Placement {
        let random = Random::seeded(1);
        let id = |id| DestinationId::parse(id).unwrap();
        let mut placement = Placement::new(
            AccountId::generate(random.bytes()),
            [
                "b@example.org".into(),
                "a@example.org".into(),
                "b@example.org".into(),
            ],
            id("source"),
        );
        placement.target = Some(id("target"));
        placement.previous_home = Some(id("older"));
        placement.phase = Phase::Quiesced;
        placement.migration_id = Some(MigrationId::generate(random.bytes()));
        placement.fence_epoch = Some(7);
        placement.window = Duration::from_secs(20);
        placement.trace = Some(Box::new(TraceParent::generate(random.bytes())));
        placement.epoch = 9;
        placement
    }

    #[test]
    fn names_are_sorted_and_each_is_there_once() {
        let names: Vec<_> = placement().names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a@example.org", "b@example.org"]);
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let before = placement();
        let bytes = before.to_stored().bytes();
        let after =
            Placement::from_stored(before.account.clone(), Stored::read(&bytes).unwrap(), 9)
                .unwrap();
        assert_eq!(after.to_stored().bytes(), bytes);
        assert_eq!(after.schema, 1);
        assert_eq!(after.entry(0), before.entry(0));
        assert_eq!(after.to_v1(3), before.to_v1(3));
    }

    #[test]
    fn what_a_newer_version_added_is_written_back() {
        let before = placement();
        let mut bytes = before.to_stored().bytes().to_vec();
        bytes.extend_from_slice(b"\x5a\x03new");
        let mut after =
            Placement::from_stored(before.account.clone(), Stored::read(&bytes).unwrap(), 9)
                .unwrap();
        after.phase = Phase::Flipped;
        assert!(after.to_stored().bytes().ends_with(b"\x5a\x03new"));
    }

    #[test]
    fn the_fence_is_that_of_the_fencing_write() {
        let mut placement = placement();
        assert_eq!(placement.fence(), Some(7));
        placement.phase = Phase::Fencing;
        placement.fence_epoch = None;
        assert_eq!(placement.fence(), Some(9));
        placement.phase = Phase::Flipped;
        assert_eq!(placement.fence(), None);
    }

    #[test]
    fn data_planes_are_told_the_trace_in_the_held_window_alone() {
        let mut placement = placement();
        let trace = placement.trace.as_deref().map(ToString::to_string);
        assert_eq!(Some(placement.entry(0).traceparent), trace);
        placement.phase = Phase::Flipped;
        assert_eq!(placement.entry(0).traceparent, "");
    }

    #[test]
    fn a_phase_of_another_version_is_not_guessed() {
        let mut stored = placement().to_stored();
        stored.phase = 77;
        let unreadable = Placement::from_stored(placement().account, stored, 9).unwrap_err();
        assert_eq!(unreadable.field, "phase");
    }
}
