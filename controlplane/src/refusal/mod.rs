//! Why a call was refused or failed: one closed list of reasons, documented in `docs/errors.md`.
//!
//! A reason is the part that programs read. The message is for people; what varies in it is repeated
//! as metadata.

mod from_domain;

use std::{fmt, time::Duration};

use crate::store::{Outage, StoreError};

/// The kinds of failure, as gRPC's codes tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request can never succeed as it is.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// What it would create exists with another meaning.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// Not until somebody changes something.
    FailedPrecondition,
    /// It was tried and did not happen; nothing changed.
    Aborted,
    /// This version cannot do it.
    Unimplemented,
    /// A mistake of ours.
    Internal,
    /// Repeat the call.
    Unavailable,
    /// Nobody knows who the caller is.
    Unauthenticated,
    /// The caller's own deadline is over.
    DeadlineExceeded,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $kind:ident;)*) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word on the wire.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// Which kind of failure it is.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                }
            }
        }
    };
}

reasons! {
    /// A field that must be set is not.
    FieldRequired = "FIELD_REQUIRED", InvalidArgument;
    /// A field's value has no meaning.
    FieldInvalid = "FIELD_INVALID", InvalidArgument;
    /// A login has no canonical name.
    NameInvalid = "NAME_INVALID", InvalidArgument;
    /// No destination has this id.
    DestinationUnknown = "DESTINATION_UNKNOWN", InvalidArgument;
    /// The routing configuration has mistakes.
    ConfigInvalid = "CONFIG_INVALID", InvalidArgument;
    /// A page token is not one of ours.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// The request is no message of this method.
    RequestMalformed = "REQUEST_MALFORMED", InvalidArgument;

    /// No record has this id or name.
    AccountNotFound = "ACCOUNT_NOT_FOUND", NotFound;
    /// No migration has this id.
    MigrationNotFound = "MIGRATION_NOT_FOUND", NotFound;
    /// No data plane is registered under this id.
    DataPlaneNotFound = "DATA_PLANE_NOT_FOUND", NotFound;

    /// The request id was used for another request.
    RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists;

    /// The caller's role does not reach.
    RoleTooLow = "ROLE_TOO_LOW", PermissionDenied;
    /// A data plane's certificate does not name its instance id.
    IdentityMismatch = "IDENTITY_MISMATCH", PermissionDenied;

    /// The write would change where a name goes.
    WouldChangeRoute = "WOULD_CHANGE_ROUTE", FailedPrecondition;
    /// There is no routing configuration in force yet, or none that this version understands.
    NoRoutingConfig = "NO_ROUTING_CONFIG", FailedPrecondition;
    /// The routing configuration serves no such name.
    NameNotServed = "NAME_NOT_SERVED", FailedPrecondition;
    /// The names given are not those of the record.
    NamesDiffer = "NAMES_DIFFER", FailedPrecondition;
    /// A name belongs to another account.
    NameTaken = "NAME_TAKEN", FailedPrecondition;
    /// The account lives at the destination already.
    AlreadyThere = "ALREADY_THERE", FailedPrecondition;
    /// Another move of the account is under way.
    MoveUnderWay = "MOVE_UNDER_WAY", FailedPrecondition;
    /// The account has no previous home.
    NothingToRollBack = "NOTHING_TO_ROLL_BACK", FailedPrecondition;
    /// The account does not live where the caller thinks.
    SourceMismatch = "SOURCE_MISMATCH", FailedPrecondition;
    /// The record was written since the caller read it.
    EpochMismatch = "EPOCH_MISMATCH", FailedPrecondition;
    /// The routing configuration was replaced since the caller read it.
    VersionMismatch = "VERSION_MISMATCH", FailedPrecondition;
    /// The routing configuration belongs to the control plane's file.
    RoutingOwnedByFile = "ROUTING_OWNED_BY_FILE", FailedPrecondition;
    /// The migration has passed the point up to which it can be aborted, or has ended.
    AlreadyDecided = "ALREADY_DECIDED", FailedPrecondition;
    /// Another process is registered under this instance id.
    BootMismatch = "BOOT_MISMATCH", FailedPrecondition;
    /// The record was written by a version that this one does not understand.
    RecordUnreadable = "RECORD_UNREADABLE", FailedPrecondition;
    /// The store was restored to an older state.
    Rewound = "REWOUND", FailedPrecondition;
    /// There is no restore to resolve.
    NotRewound = "NOT_REWOUND", FailedPrecondition;
    /// A registered data plane does not answer that must.
    DataPlaneSilent = "DATA_PLANE_SILENT", FailedPrecondition;
    /// No data plane remembers what a restored store has lost.
    NobodyRemembers = "NOBODY_REMEMBERS", FailedPrecondition;
    /// Another decision about a restore was begun, and is kept to.
    DecidedOtherwise = "DECIDED_OTHERWISE", FailedPrecondition;
    /// The list that is decided on is not named, or is not the present one.
    DigestMismatch = "DIGEST_MISMATCH", FailedPrecondition;
    /// Sessions are not closed in time.
    NotDrained = "NOT_DRAINED", FailedPrecondition;
    /// The two sides of a stream speak no common contract.
    ContractUnsupported = "CONTRACT_UNSUPPORTED", FailedPrecondition;
    /// A data plane does not read the routing configuration.
    SchemaUnsupported = "SCHEMA_UNSUPPORTED", FailedPrecondition;
    /// The data plane belongs to another installation.
    InstallationMismatch = "INSTALLATION_MISMATCH", FailedPrecondition;
    /// The instance id is in use.
    InstanceInUse = "INSTANCE_IN_USE", FailedPrecondition;
    /// The data plane was expelled.
    Expelled = "EXPELLED", FailedPrecondition;
    /// A later life of the data plane has registered.
    Superseded = "SUPERSEDED", FailedPrecondition;

    /// The move was given up; the account stayed.
    MigrationAborted = "MIGRATION_ABORTED", Aborted;

    /// Fenced writes do not exist yet.
    FencedUnsupported = "FENCED_UNSUPPORTED", Unimplemented;
    /// There is no such method.
    MethodUnknown = "METHOD_UNKNOWN", Unimplemented;

    /// A mistake of ours.
    Internal = "INTERNAL", Internal;

    /// The store does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE", Unavailable;
    /// The store stopped answering while it was written to: the write may have happened.
    OutcomeUnknown = "OUTCOME_UNKNOWN", Unavailable;
    /// This replica has not caught up with the store.
    Behind = "BEHIND", Unavailable;
    /// Others wrote the same things again and again.
    Contended = "CONTENDED", Unavailable;
    /// This replica ends.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;

    /// The caller showed no credentials, or none that are known here.
    CredentialsRequired = "CREDENTIALS_REQUIRED", Unauthenticated;

    /// The caller's deadline is over; what it asked for goes on.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
}

/// A call that was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people: what is wrong, and what would be right.
    pub message: String,
    /// The message's variable parts.
    pub metadata: Vec<(&'static str, String)>,
    /// Fields at fault, or preconditions that do not hold.
    pub violations: Vec<Violation>,
    /// When to try again, for [`Kind::Unavailable`].
    pub retry_after: Option<Duration>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, or what the precondition is about.
    pub subject: String,
    /// What is wrong with it.
    pub description: String,
}

/// What every call of a use case answers.
pub type Answer<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal without further parts.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: (reason.kind() == Kind::Unavailable).then_some(Duration::from_secs(1)),
        }
    }

    /// A field that must be set.
    pub fn required(field: &'static str) -> Self {
        Self::new(Reason::FieldRequired, format!("`{field}` is required"))
            .with("field", field)
            .violated(field, "must be set")
    }

    /// A field whose value has no meaning.
    pub fn invalid(field: &'static str, description: impl fmt::Display) -> Self {
        Self::new(Reason::FieldInvalid, format!("`{field}` {description}"))
            .with("field", field)
            .violated(field, description)
    }

    /// Adds metadata.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    /// Adds something that is wrong.
    #[must_use]
    pub fn violated(mut self, subject: impl fmt::Display, description: impl fmt::Display) -> Self {
        self.violations.push(Violation {
            subject: subject.to_string(),
            description: description.to_string(),
        });
        self
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownOutcome(outage) => Self::new(
                Reason::OutcomeUnknown,
                format!("{error}; look before you repeat the call, or repeat it with a request id"),
            )
            .with("outage", outage),
            StoreError::TooLarge => Self::new(
                Reason::FieldInvalid,
                "the request is too large for one transaction of the store",
            ),
            StoreError::Malformed => {
                tracing::error!(%error, "a transaction of ours");
                Self::new(Reason::Internal, error.to_string())
            }
            StoreError::Unavailable(outage) => {
                Self::new(Reason::StoreUnavailable, error.to_string()).with("outage", outage)
            }
            StoreError::Compacted { .. }
            | StoreError::Future
            | StoreError::LeaseLost
            | StoreError::Denied
            | StoreError::Corrupt
            | StoreError::Closed => Self::new(Reason::StoreUnavailable, error.to_string())
                .with("outage", Outage::Unexpected),
        }
    }
}
