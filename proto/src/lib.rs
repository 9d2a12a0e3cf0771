//! The contract between Ferrypost's planes and with its operators.
//!
//! ```text
//!   operator ── ferrypost.v1 ──▶ control plane ◀── ferrypost.routing.v1 ──▶ data plane
//! ```
//!
//! Both planes depend on this crate; it depends on neither, but for what decides about HTTP requests
//! (`ferrypost-http`, which has no I/O either), since the rules for them are part of the routing configuration. It holds the generated messages and the
//! few types and functions that must mean the same on both sides: identifiers and revisions
//! ([`types`]), versions ([`Versions`]) and traces ([`TraceParent`]), the canonicalisation of logins ([`Name`], [`NamePolicy`]), the validated
//! [`RoutingConfig`] and the account's [`Record`].
//!
//! # The rules of the stream
//!
//! 1. **Resume.** The subscriber's [`Hello`](routing::v1::Hello) names the versions that it speaks
//!    ([`Versions`]) and the position that it has *applied*. The server answers with deltas if its change log reaches back to that
//!    revision, else with a snapshot. A delta whose `from` is not the table's revision ends the
//!    stream, and the subscriber resyncs.
//! 2. **Check, then publish.** Everything is converted and checked before it is published. A bad entry
//!    is reported by account with its reason, is fenced on this data plane, and blocks that
//!    account's moves; a bad snapshot leaves the whole old table. Publishing is one swap.
//! 3. **Backoff** resets on the first *applied* message, not on a connect. Three heartbeat intervals of
//!    silence mean reconnect.
//! 4. **Readiness.** A data plane accepts clients only while it is registered and has a first table.
//! 5. **Unknown is not default.** While there is no table the answer is "temporarily unavailable"; a
//!    default destination is a configured route like any other.
//! 6. **No skipping.** A subscriber that is too slow is sent a snapshot; no delta is ever left out.
//! 7. **Drained is level-triggered**: reported again after every reconnect until the fence has
//!    ended. A flip waits for it from every registered data plane; a lost lease proves nothing.
//! 8. **The store is read whole**: one pinned revision for all pages of a load; what the load lacks is
//!    deleted; a watch goes on from the next revision; compaction, as a flag or as an error text,
//!    means another load.
//! 9. **Never backwards.** No snapshot or delta below the revision held is applied. A replica behind a
//!    subscriber, or behind its registration, catches up by a linearizable read or answers
//!    UNAVAILABLE.
//! 10. **One installation.** The first answer names the installation; a data plane pins it in its state
//!     directory and refuses another.
//! 11. **Rewound.** A subscriber that has pinned this installation and is above the store's revision
//!     after a linearizable read, or has a head whose nonce the store's history does not have, proves a
//!     restore: it is written down, nothing moves, and data planes keep what they have. What was acknowledged
//!     is durable before it is said, so that one that restarts proves it too; it serves what it and the store
//!     agree on.

mod identity;
mod name;
mod recipient;
mod record;
mod routing_config;
mod secrets;
mod trace;
pub mod types;
mod versions;

pub use identity::{LoginIdentity, SecondName};
pub use name::{
    BareNames, DomainName, MAX_LOGIN_BYTES, MAX_NAME_BYTES, Name, NameError, NamePolicy,
};
pub use recipient::Recipient;
pub use record::{Record, Rejected};
pub use routing_config::{
    Acceptance, Announcement, AuthorizationIdentity, Destination, DisabledEndpoint, Endpoint,
    EndpointTls, HttpTerms, HttpVersions, MailSplit, NoRoute, PlaintextConsent, Problem, Problems,
    RoutingConfig, SCHEMAS, Trust, Unlisted, UnlistedRoute, UnreadableSchema, Verification,
};
pub use trace::{BadTraceParent, TraceParent};
pub use types::{
    AccountId, BootId, DestinationId, Epoch, Head, InstallationId, InstanceId, MigrationId, Phase,
    ReplicaId, Revision, StateId, TablePosition,
};
pub use versions::{EmptyRange, Speaks, Versions};

/// The versions of the stream's contract that this code speaks.
///
/// 2: both sides state ranges; rejected endpoints; `traceparent`. 3: the keys of cookies. What a version adds is such that a side
/// that does not know it may pass it over, or is sent only where that version is spoken.
pub const CONTRACTS: Versions = Versions::new(1, 3);

/// The largest snapshot chunk that is sent, in bytes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptor.bin");

// The lints are not for generated code, whose style is prost's; it brings `allow(clippy::all)` of its own.

/// The operators' API: package `ferrypost.v1`.
#[allow(
    clippy::pedantic,
    rustdoc::all,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1 {
    include!("gen/ferrypost.v1.rs");
}

/// The stream.
pub mod routing {
    /// Package `ferrypost.routing.v1`.
    #[allow(
        clippy::pedantic,
        rustdoc::all,
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    pub mod v1 {
        include!("gen/ferrypost.routing.v1.rs");
    }
}

/// The control plane's stored values.
pub mod store {
    /// Package `ferrypost.store.v1`.
    #[allow(
        clippy::pedantic,
        rustdoc::all,
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    pub mod v1 {
        include!("gen/ferrypost.store.v1.rs");
    }
}
