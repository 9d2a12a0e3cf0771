//! What a caller asks for, checked for form, and its meaning as a fingerprint.

use std::collections::BTreeMap;

use ferrypost_proto::TraceParent;
use sha2::{Digest as _, Sha256};

use crate::refusal::{Answer, Refusal};

/// Longest request id, in characters.
const LONGEST_REQUEST_ID: usize = 128;

/// Longest reason, in bytes. It is kept with the migration.
const LONGEST_REASON: usize = 1024;

/// Most labels of a move.
const MOST_LABELS: usize = 16;

/// Longest key of a label, in characters.
const LONGEST_KEY: usize = 63;

/// Longest value of a label, in characters.
const LONGEST_VALUE: usize = 128;

/// Most names of one account: each is a key of the transaction that starts the move, and a store takes
/// 128 of them.
pub(super) const MOST_NAMES: usize = 100;

/// An order to move an account.
#[derive(Debug, Clone)]
pub struct MoveOrder {
    /// Whereto.
    pub kind: MoveKind,
    /// The account's id or any of its names.
    pub account: String,
    /// Refuse unless the account lives there now. Empty: wherever it lives.
    pub expected_source: String,
    /// Chosen by the caller. Empty: none.
    pub request_id: String,
    /// Why, for the record.
    pub reason: String,
    /// What the move is to be found by.
    pub labels: BTreeMap<String, String>,
    /// Who.
    pub requested_by: String,
    /// The trace that the order belongs to.
    pub trace: TraceParent,
}

/// Whereto an account is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveKind {
    /// To a destination that the caller names.
    Migrate {
        /// All login forms of an account without a record. Empty: the one that was given.
        names: Vec<String>,
        /// The destination.
        destination: String,
    },
    /// To its previous home.
    Rollback,
}

impl MoveOrder {
    /// Refuses what has no meaning in any state of the store.
    pub(super) fn check_form(&self) -> Answer<()> {
        if self.account.is_empty() {
            return Err(Refusal::required("account"));
        }
        if let MoveKind::Migrate { names, destination } = &self.kind {
            if destination.is_empty() {
                return Err(Refusal::required("destination"));
            }
            if names.len() > MOST_NAMES {
                return Err(Refusal::invalid(
                    "names",
                    format!("must be at most {MOST_NAMES}"),
                ));
            }
        }
        check_reason(&self.reason)?;
        check_labels(&self.labels)?;
        let printable = |b: u8| b.is_ascii_graphic() || b == b' ';
        if self.request_id.len() > LONGEST_REQUEST_ID || !self.request_id.bytes().all(printable) {
            return Err(Refusal::invalid(
                "request_id",
                format!("must be 1 to {LONGEST_REQUEST_ID} printable ASCII characters"),
            ));
        }
        Ok(())
    }

    /// The same for two orders that mean the same. What says how to wait and why is not part of it.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        match &self.kind {
            MoveKind::Rollback => part("rollback"),
            MoveKind::Migrate { names, destination } => {
                part("migrate");
                part(destination);
                let mut names = names.clone();
                names.sort();
                names.dedup();
                for name in &names {
                    part(name);
                }
            }
        }
        part(&self.account);
        part(&self.expected_source);
        digest.finalize().to_vec()
    }
}

/// Reasons are kept and shown; they are not a place for documents.
pub(in crate::service) fn check_reason(reason: &str) -> Answer<()> {
    if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
        return Err(Refusal::invalid(
            "reason",
            format!("must be at most {LONGEST_REASON} bytes on one line"),
        ));
    }
    Ok(())
}

/// They are kept with the migration and looked for by people: few, and words.
fn check_labels(labels: &BTreeMap<String, String>) -> Answer<()> {
    let is_key = |key: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./".contains(&b);
        (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(plain)
    };
    let is_value = |value: &str| {
        let printable = |b: u8| b.is_ascii_graphic() || b == b' ';
        value.len() <= LONGEST_VALUE && value.bytes().all(printable)
    };
    let fit = labels
        .iter()
        .all(|(key, value)| is_key(key) && is_value(value));
    if !fit || labels.len() > MOST_LABELS {
        return Err(Refusal::invalid(
            "labels",
            format!(
                "must be at most {MOST_LABELS}, with keys of 1 to {LONGEST_KEY} of a-z, 0-9, hyphen, dot and slash, and \
                 values of at most {LONGEST_VALUE} printable ASCII characters"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> MoveOrder {
        MoveOrder {
            kind: MoveKind::Migrate {
                names: vec!["b".into(), "a".into()],
                destination: "target".into(),
            },
            account: "a".into(),
            expected_source: String::new(),
            request_id: "r 1".into(),
            reason: "because".into(),
            labels: BTreeMap::from([("wave".into(), "1".into())]),
            requested_by: "somebody".into(),
            trace: TraceParent::generate([1; 16]),
        }
    }

    #[test]
    fn a_fingerprint_is_about_what_is_asked_for() {
        let same = MoveOrder {
            kind: MoveKind::Migrate {
                names: vec!["a".into(), "b".into(), "a".into()],
                destination: "target".into(),
            },
            reason: "another".into(),
            labels: BTreeMap::new(),
            requested_by: "else".into(),
            trace: TraceParent::generate([2; 16]),
            ..order()
        };
        assert_eq!(order().fingerprint(), same.fingerprint());
        let elsewhere = MoveOrder {
            expected_source: "source".into(),
            ..order()
        };
        assert_ne!(order().fingerprint(), elsewhere.fingerprint());
        let back = MoveOrder {
            kind: MoveKind::Rollback,
            ..order()
        };
        assert_ne!(order().fingerprint(), back.fingerprint());
    }

    #[test]
    fn forms_have_bounds() {
        assert!(order().check_form().is_ok());
        let with = |change: &dyn Fn(&mut MoveOrder)| {
            let mut changed = order();
            change(&mut changed);
            changed.check_form()
        };
        assert!(with(&|o| o.account.clear()).is_err());
        assert!(with(&|o| o.request_id = "ü".into()).is_err());
        assert!(with(&|o| o.request_id = "x".repeat(128)).is_ok());
        assert!(with(&|o| o.request_id = "x".repeat(129)).is_err());
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(with(&|o| o.labels = label("a.b/c-1", "")).is_ok());
        assert!(with(&|o| o.labels = label("", "x")).is_err());
        assert!(with(&|o| o.labels = label("Wave", "x")).is_err());
        assert!(with(&|o| o.labels = label("wave", "1\n")).is_err());
        assert!(with(&|o| o.labels = label("wave", &"x".repeat(129))).is_err());
        let many = || (0..17).map(|n| (n.to_string(), String::new())).collect();
        assert!(with(&|o| o.labels = many()).is_err());
        assert!(with(&|o| o.reason = "x".repeat(1025)).is_err());
        assert!(with(&|o| o.reason = "two\nlines".into()).is_err());
    }
}
