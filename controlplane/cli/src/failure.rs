//! Why a command was not done, with its exit code and what to do next.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::exit::Exit;

/// A command that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What happened.
    message: String,
    /// What to do next.
    hint: Option<String>,
}

/// What a call does, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It looks. Without an answer nothing has happened.
    Look,
    /// It changes something. Without an answer nobody knows.
    Change,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// With what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the answer to a call means that was not OK.
    pub(crate) fn of(status: &Status, intent: Intent) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map_or("", |info| &info.reason);
        let exit = exit_of(status.code(), reason, intent);
        let message = match reason {
            "" if exit == Exit::Unknown => format!("the answer was lost: {}", status.message()),
            "" => format!("{:?}: {}", status.code(), status.message()),
            reason => format!("{reason}: {}", status.message()),
        };
        let mut failure = Self::new(exit, message);
        if exit == Exit::Failed && is_foreign(status.code(), reason) {
            failure = failure.hint(
                "does the operators' API listen there? its port is `operators.listen` of the control plane's configuration",
            );
        }
        let fields = details.bad_request().map(|it| &it.field_violations);
        for violation in fields.into_iter().flatten() {
            failure.add(&violation.field, &violation.description);
        }
        let standing = details.precondition_failure().map(|it| &it.violations);
        for violation in standing.into_iter().flatten() {
            failure.add(&violation.subject, &violation.description);
        }
        failure
    }

    fn add(&mut self, subject: &str, description: &str) {
        if !self.message.contains(description) {
            self.message = format!("{}\n  {subject}: {description}", self.message);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.exit.word(), self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// The reasons are those of `docs/errors.md`; one that this version does not know goes by its code.
fn exit_of(code: Code, reason: &str, intent: Intent) -> Exit {
    match code {
        Code::InvalidArgument => Exit::Usage,
        Code::FailedPrecondition | Code::AlreadyExists => Exit::Refused,
        Code::Aborted => Exit::Aborted,
        Code::DeadlineExceeded if intent == Intent::Look => Exit::Deadline,
        code if intent == Intent::Change && may_have_happened(code, reason) => Exit::Unknown,
        _ => Exit::Failed,
    }
}

/// Whether it is no word of a control plane's, which gives a reason with each of these: something else answers there.
fn is_foreign(code: Code, reason: &str) -> bool {
    let codes = [
        Code::Cancelled,
        Code::Internal,
        Code::Unimplemented,
        Code::Unknown,
    ];
    reason.is_empty() && codes.contains(&code)
}

/// Whether a change may have been made all the same. Two reasons say that nothing was written; of the others with these
/// codes none does, and without a reason it was no word of the control plane's.
fn may_have_happened(code: Code, reason: &str) -> bool {
    match code {
        Code::Unavailable => !matches!(reason, "STORE_UNAVAILABLE" | "CONTENDED"),
        Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn said(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, "ferrypost", HashMap::new());
        Status::with_error_details(code, "because", details)
    }

    #[test]
    fn every_kind_of_refusal_has_its_exit_code() {
        for (code, reason, looking, changing) in [
            (Code::InvalidArgument, "FIELD_REQUIRED", 64, 64),
            (Code::FailedPrecondition, "SOURCE_MISMATCH", 73, 73),
            (Code::AlreadyExists, "REQUEST_ID_REUSED", 73, 73),
            (Code::Aborted, "MIGRATION_ABORTED", 74, 74),
            (Code::NotFound, "ACCOUNT_NOT_FOUND", 1, 1),
            (Code::Unauthenticated, "CREDENTIALS_REQUIRED", 1, 1),
            (Code::PermissionDenied, "ROLE_TOO_LOW", 1, 1),
            (Code::Unavailable, "OUTCOME_UNKNOWN", 1, 78),
            (Code::Unavailable, "STORE_UNAVAILABLE", 1, 1),
            (Code::Unavailable, "CONTENDED", 1, 1),
            (Code::Unavailable, "SHUTTING_DOWN", 1, 78),
            (Code::Unavailable, "BEHIND", 1, 78),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", 124, 78),
            (Code::Internal, "INTERNAL", 1, 78),
        ] {
            let status = said(code, reason);
            let exits =
                [Intent::Look, Intent::Change].map(|it| Failure::of(&status, it).exit.code());
            assert_eq!(exits, [looking, changing], "{reason}");
        }
    }

    #[test]
    fn a_lost_answer_to_a_change_is_an_unknown_outcome() {
        for code in [Code::Unavailable, Code::Unknown, Code::Cancelled] {
            let lost = Status::new(code, "connection reset");
            assert_eq!(Failure::of(&lost, Intent::Change).exit, Exit::Unknown);
            assert_eq!(Failure::of(&lost, Intent::Look).exit, Exit::Failed);
        }
    }

    #[test]
    fn who_asks_at_another_port_is_told_so() {
        for (code, reason, is_told) in [
            (Code::Internal, "", true),
            (Code::Unimplemented, "", true),
            (Code::Internal, "INTERNAL", false),
            (Code::PermissionDenied, "", false),
        ] {
            let failure = Failure::of(&said(code, reason), Intent::Look).to_string();
            assert_eq!(failure.contains("operators.listen"), is_told, "{failure}");
        }
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let mut details =
            ErrorDetails::with_error_info("SOURCE_MISMATCH", "ferrypost", HashMap::new());
        details.add_precondition_failure_violation("SOURCE_MISMATCH", "account", "lives at target");
        let status =
            Status::with_error_details(Code::FailedPrecondition, "it does not live there", details);
        let failure = Failure::of(&status, Intent::Change).hint("look again");
        assert_eq!(
            failure.to_string(),
            "refused: SOURCE_MISMATCH: it does not live there\n  account: lives at target\nhint: look again"
        );
    }
}
