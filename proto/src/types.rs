//! Identifiers and points in history. Each is its own type with no public field, so that an account
//! cannot be passed for a migration, nor an epoch be computed with.

use std::{fmt, sync::Arc};

use crate::v1;

/// A string that is no identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}")]
pub struct IdError {
    /// What it should have been.
    pub kind: &'static str,
}

impl v1::Protocol {
    /// As configuration files, logs and `/stats` write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Managesieve => "managesieve",
            Self::Submission => "submission",
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
            Self::Http => "http",
        }
    }
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $valid:path;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the form.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if $valid(text) { Ok(Self(text.into())) } else { Err(IdError { kind: $kind }) }
            }

            /// As text, for messages, keys and logs.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                (*id.0).to_owned()
            }
        }
    )*};
}

identifiers! {
    /// An account: immutable, `acct-` and 26 characters. No name has this form *and* a record under
    /// it at once, so a caller may give either.
    AccountId, "account id", account_form;
    /// A destination: 1 to 63 of `a-z`, `0-9` and `-`, starting with a letter.
    DestinationId, "destination id", label_form;
    /// A migration: `move-` and 26 characters.
    MigrationId, "migration id", migration_form;
    /// A data plane's name: 1 to 63 of `a-z`, `0-9`, `-` and `.`.
    InstanceId, "instance id", instance_form;
    /// One life of a data plane's process.
    BootId, "boot id", made_form;
    /// A data plane's state directory.
    StateId, "state id", made_form;
    /// One installation of Ferrypost: one store and its history.
    InstallationId, "installation id", made_form;
    /// A replica of the control plane: 1 to 63 of `a-z`, `0-9`, `-` and `.`.
    ReplicaId, "replica id", instance_form;
}

fn made_form(text: &str) -> bool {
    text.len() == 26
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn account_form(text: &str) -> bool {
    text.strip_prefix("acct-").is_some_and(made_form)
}

fn migration_form(text: &str) -> bool {
    text.strip_prefix("move-").is_some_and(made_form)
}

fn label_form(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn instance_form(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
}

/// 128 bits as 26 characters of Crockford's base 32 in lower case: the body of every identifier that is
/// made up. Readable aloud, safe in keys, URLs and file names.
pub fn identifier(bits: [u8; 16]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut rest = u128::from_ne_bytes(bits);
    (0..26)
        .map(|_| {
            let digit = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
            char::from(digit)
        })
        .collect()
}

impl AccountId {
    /// A new account, from 128 random bits.
    pub fn generate(bits: [u8; 16]) -> Self {
        Self(format!("acct-{}", identifier(bits)).into())
    }
}

impl MigrationId {
    /// A new migration, from 128 random bits.
    pub fn generate(bits: [u8; 16]) -> Self {
        Self(format!("move-{}", identifier(bits)).into())
    }
}

impl BootId {
    /// A new life of a process, from 128 random bits.
    pub fn generate(bits: [u8; 16]) -> Self {
        Self(identifier(bits).into())
    }
}

impl StateId {
    /// A new state directory, from 128 random bits.
    pub fn generate(bits: [u8; 16]) -> Self {
        Self(identifier(bits).into())
    }
}

impl InstallationId {
    /// A new installation, from 128 random bits.
    pub fn generate(bits: [u8; 16]) -> Self {
        Self(identifier(bits).into())
    }
}

/// A point in the store's history. Orders by base, then by the store's own revision; it has no
/// arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision {
    base: u64,
    store: u64,
}

impl Revision {
    /// Before everything.
    pub const ZERO: Self = Self { base: 0, store: 0 };

    /// The store's revision `store` under `base`.
    pub const fn new(base: u64, store: u64) -> Self {
        Self { base, store }
    }

    /// Raised by each resolved restore.
    pub const fn base(self) -> u64 {
        self.base
    }

    /// The store's own revision.
    pub const fn store(self) -> u64 {
        self.store
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.store)
    }
}

impl From<Revision> for v1::Revision {
    fn from(revision: Revision) -> Self {
        Self {
            base: revision.base,
            store: revision.store,
        }
    }
}

impl From<v1::Revision> for Revision {
    fn from(wire: v1::Revision) -> Self {
        Self::new(wire.base, wire.store)
    }
}

/// The revision of an account's record. Rises on every write of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(Revision);

impl Epoch {
    /// The epoch of a record that was written at `revision`.
    pub const fn new(revision: Revision) -> Self {
        Self(revision)
    }

    /// The revision at which the record was written.
    pub const fn revision(self) -> Revision {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Epoch> for v1::Revision {
    fn from(epoch: Epoch) -> Self {
        epoch.0.into()
    }
}

/// The last change of routing that a table or a store holds: its store revision and its nonce. Two
/// histories that share a revision differ in the nonce.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The store revision of the change; 0 when there was none yet.
    pub store: u64,
    /// Random; empty with revision 0.
    pub nonce: Vec<u8>,
}

/// How far a table reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablePosition {
    /// Everything up to here is in it.
    pub revision: Revision,
    /// The last change at or below `revision`.
    pub head: Head,
}

impl From<TablePosition> for crate::routing::v1::TablePosition {
    fn from(position: TablePosition) -> Self {
        Self {
            revision: Some(position.revision.into()),
            head: Some(crate::routing::v1::Head {
                store: position.head.store,
                nonce: position.head.nonce.into(),
            }),
        }
    }
}

impl From<crate::routing::v1::TablePosition> for TablePosition {
    /// An unset part means zero: a table without history.
    fn from(wire: crate::routing::v1::TablePosition) -> Self {
        let head = wire.head.unwrap_or_default();
        Self {
            revision: wire.revision.unwrap_or_default().into(),
            head: Head {
                store: head.store,
                nonce: head.nonce.into(),
            },
        }
    }
}

/// Where an account's move stands: the wire's phases without the unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// No move is under way.
    Settled,
    /// Asked for; waits or copies, unfenced.
    Copying,
    /// Sessions are being closed, none is admitted.
    Fencing,
    /// No session is left anywhere.
    Quiesced,
    /// The delta hook runs.
    Delta,
    /// The target was verified.
    Verified,
    /// The names resolve to the new home.
    Flipped,
    /// Every data plane has applied the flip.
    Released,
    /// No way back.
    Retired,
}

impl Phase {
    /// True in the held window FENCING to VERIFIED: every login of the account is held. Only a record
    /// with a higher epoch and a phase outside it ends a fence (G10).
    pub const fn is_fenced(self) -> bool {
        matches!(
            self,
            Self::Fencing | Self::Quiesced | Self::Delta | Self::Verified
        )
    }
}

impl From<Phase> for v1::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Settled => Self::Settled,
            Phase::Copying => Self::Copying,
            Phase::Fencing => Self::Fencing,
            Phase::Quiesced => Self::Quiesced,
            Phase::Delta => Self::Delta,
            Phase::Verified => Self::Verified,
            Phase::Flipped => Self::Flipped,
            Phase::Released => Self::Released,
            Phase::Retired => Self::Retired,
        }
    }
}

impl TryFrom<v1::Phase> for Phase {
    type Error = IdError;

    fn try_from(wire: v1::Phase) -> Result<Self, IdError> {
        Ok(match wire {
            v1::Phase::Unspecified => return Err(IdError { kind: "phase" }),
            v1::Phase::Settled => Self::Settled,
            v1::Phase::Copying => Self::Copying,
            v1::Phase::Fencing => Self::Fencing,
            v1::Phase::Quiesced => Self::Quiesced,
            v1::Phase::Delta => Self::Delta,
            v1::Phase::Verified => Self::Verified,
            v1::Phase::Flipped => Self::Flipped,
            v1::Phase::Released => Self::Released,
            v1::Phase::Retired => Self::Retired,
        })
    }
}

impl TryFrom<i32> for Phase {
    type Error = IdError;

    fn try_from(wire: i32) -> Result<Self, IdError> {
        v1::Phase::try_from(wire)
            .map_err(|_| IdError { kind: "phase" })?
            .try_into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_to_their_forms() {
        let account = AccountId::generate([0xa7; 16]);
        assert_eq!(AccountId::parse(account.as_str()), Ok(account.clone()));
        assert!(MigrationId::parse(account.as_str()).is_err());
        assert!(DestinationId::parse("old-server").is_ok());
        for bad in ["", "Old", "1st", "a_b", "a/b", &"a".repeat(64)] {
            assert!(DestinationId::parse(bad).is_err(), "{bad}");
        }
        assert!(InstanceId::parse("dp-1.mail").is_ok());
        for bits in [[0; 16], [0xff; 16], [0x5b; 16]] {
            assert!(made_form(&identifier(bits)), "{bits:?}");
        }
        assert_ne!(identifier([0; 16]), identifier([0xff; 16]));
    }

    #[test]
    fn revisions_order_by_base_first() {
        assert!(Revision::new(1, 5) > Revision::new(0, 900));
        assert!(Revision::new(1, 6) > Revision::new(1, 5));
    }

    #[test]
    fn phases_on_the_wire_are_ours_one_to_one() {
        for number in 1..=9 {
            let phase = Phase::try_from(number).expect("a phase");
            assert_eq!(v1::Phase::from(phase) as i32, number);
        }
        assert!(Phase::try_from(0).is_err());
        assert!(Phase::try_from(10).is_err());
    }
}
