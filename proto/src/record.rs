//! An account's record as a data plane receives it.

use crate::{
    AccountId, DestinationId, Epoch, MigrationId, Name, NamePolicy, Phase, Revision, TraceParent,
    routing::v1::{self as wire, RejectReason},
};

/// What a data plane needs of an account's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub account: AccountId,
    /// All names, in the order of the wire.
    pub names: Vec<Name>,
    /// Where it lives.
    pub home: DestinationId,
    /// Where a move takes it.
    pub target: Option<DestinationId>,
    /// Where a move stands.
    pub phase: Phase,
    /// The store revision of the record.
    pub epoch: Epoch,
    /// In the held window: the epoch of the FENCING write.
    pub fence: Option<Epoch>,
    /// The move under way, or the last one.
    pub migration: Option<MigrationId>,
    /// In the held window: the trace that the move belongs to. It is carried, and decides nothing.
    pub trace: Option<TraceParent>,
}

/// An entry that cannot be taken over. The data plane holds its account fenced and reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry of {account} rejected: {field} ({reason:?})")]
pub struct Rejected {
    /// As it came, valid or not.
    pub account: String,
    /// What is wrong.
    pub reason: RejectReason,
    /// Where.
    pub field: &'static str,
}

impl From<Rejected> for wire::RejectedEntry {
    fn from(rejected: Rejected) -> Self {
        Self {
            account_id: rejected.account,
            reason: rejected.reason.into(),
            field: rejected.field.to_owned(),
        }
    }
}

impl Record {
    /// Converts and checks an entry. Whether the destinations exist is the table's to say, which knows
    /// the configuration that goes with it.
    pub fn from_wire(entry: &wire::AccountEntry, policy: &NamePolicy) -> Result<Self, Rejected> {
        let reject = |reason, field| Rejected {
            account: entry.account_id.clone(),
            reason,
            field,
        };
        let destination = |id: &str, field| {
            DestinationId::parse(id).map_err(|_| reject(RejectReason::UnknownDestination, field))
        };
        let account = AccountId::parse(&entry.account_id)
            .map_err(|_| reject(RejectReason::BadAccountId, "account_id"))?;
        let names = entry
            .names
            .iter()
            .map(|text| canonical(text, policy))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| reject(RejectReason::BadName, "names"))?;
        let phase = Phase::try_from(entry.phase)
            .map_err(|_| reject(RejectReason::UnknownPhase, "phase"))?;
        let epoch = entry
            .epoch
            .map(Revision::from)
            .filter(|epoch| *epoch > Revision::ZERO)
            .map(Epoch::new)
            .ok_or_else(|| reject(RejectReason::BadEpoch, "epoch"))?;
        let fence = match (phase.is_fenced(), entry.fence_epoch) {
            (false, _) => None,
            (true, None) => Some(epoch),
            (true, Some(fence)) if Epoch::new(fence.into()) <= epoch => {
                Some(Epoch::new(fence.into()))
            }
            (true, Some(_)) => return Err(reject(RejectReason::BadEpoch, "fence_epoch")),
        };
        let target = match entry.target.as_str() {
            "" => None,
            target => Some(destination(target, "target")?),
        };
        Ok(Self {
            account,
            names,
            home: destination(&entry.home, "home")?,
            target,
            phase,
            epoch,
            fence,
            migration: MigrationId::parse(&entry.migration_id).ok(),
            trace: entry.traceparent.parse().ok(),
        })
    }
}

/// A name on the wire must be its own canonical form: under another policy it would never be found.
fn canonical(text: &str, policy: &NamePolicy) -> Option<Name> {
    policy
        .canonicalise(text)
        .ok()
        .filter(|name| name.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BareNames, v1};

    fn policy() -> NamePolicy {
        NamePolicy {
            bare_names: BareNames::Listed,
            master_separators: Vec::new(),
            sub_address_separator: None,
            local_part_case_sensitive: false,
        }
    }

    fn entry() -> wire::AccountEntry {
        wire::AccountEntry {
            account_id: format!("acct-{}", "0".repeat(26)),
            names: vec!["alice".into(), "alice@example.org".into()],
            home: "source".into(),
            target: "target".into(),
            phase: v1::Phase::Fencing.into(),
            epoch: Some(v1::Revision { base: 0, store: 7 }),
            fence_epoch: None,
            migration_id: format!("move-{}", "1".repeat(26)),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
        }
    }

    fn rejection(change: impl FnOnce(&mut wire::AccountEntry)) -> RejectReason {
        let mut entry = entry();
        change(&mut entry);
        Record::from_wire(&entry, &policy())
            .expect_err("rejected")
            .reason
    }

    #[test]
    fn the_fencing_write_is_its_own_fence_epoch() {
        let record = Record::from_wire(&entry(), &policy()).expect("valid");
        assert_eq!(record.fence, Some(record.epoch));
        let mut later = entry();
        later.phase = v1::Phase::Delta.into();
        later.epoch = Some(v1::Revision { base: 0, store: 9 });
        later.fence_epoch = Some(v1::Revision { base: 0, store: 7 });
        let later = Record::from_wire(&later, &policy()).expect("valid");
        assert_eq!(later.fence, record.fence);
    }

    #[test]
    fn a_trace_that_is_none_rejects_nothing() {
        let traced = Record::from_wire(&entry(), &policy()).expect("valid");
        let trace = traced.trace.map(|trace| trace.to_string());
        assert_eq!(trace, Some(entry().traceparent));
        let mut wrong = entry();
        wrong.traceparent = "x".repeat(100_000);
        let record = Record::from_wire(&wrong, &policy()).expect("valid all the same");
        let untraced = Record {
            trace: None,
            ..traced
        };
        assert_eq!(record, untraced);
    }

    #[test]
    fn bad_entries_are_named_with_their_reason() {
        assert_eq!(
            rejection(|e| e.account_id = "x".into()),
            RejectReason::BadAccountId
        );
        assert_eq!(
            rejection(|e| e.names.push("ALICE".into())),
            RejectReason::BadName
        );
        assert_eq!(rejection(|e| e.phase = 77), RejectReason::UnknownPhase);
        assert_eq!(rejection(|e| e.epoch = None), RejectReason::BadEpoch);
        assert_eq!(
            rejection(|e| e.home = "NO".into()),
            RejectReason::UnknownDestination
        );
        assert_eq!(
            rejection(|e| e.fence_epoch = Some(v1::Revision { base: 0, store: 8 })),
            RejectReason::BadEpoch
        );
    }
}
