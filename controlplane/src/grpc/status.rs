//! From a refusal to a gRPC status with `google.rpc` details.

use std::collections::HashMap;

use http::HeaderValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::refusal::{Kind, Reason, Refusal};

/// Whose reasons these are, in every `ErrorInfo`.
pub(crate) const DOMAIN: &str = "ferrypost";

const STATUS_DETAILS: &str = "grpc-status-details-bin";

impl Kind {
    /// gRPC's code for it.
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::Aborted => Code::Aborted,
            Self::Unimplemented => Code::Unimplemented,
            Self::Internal => Code::Internal,
            Self::Unavailable => Code::Unavailable,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let kind = refusal.reason.kind();
        let metadata: HashMap<String, String> = refusal
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut details = ErrorDetails::with_error_info(refusal.reason.word(), DOMAIN, metadata);
        for violation in refusal.violations {
            if kind == Kind::InvalidArgument {
                details.add_bad_request_violation(violation.subject, violation.description);
            } else {
                details.add_precondition_failure_violation(
                    refusal.reason.word(),
                    violation.subject,
                    violation.description,
                );
            }
        }
        if let Some(pause) = refusal.retry_after {
            details.set_retry_info(Some(pause));
        }
        Self::with_error_details(kind.code(), refusal.message, details)
    }
}

/// Gives an `ErrorInfo` to errors that the gRPC library makes itself (an unknown method, a message
/// that cannot be decoded, a deadline), so that really every error has one.
pub(crate) fn complete<B>(response: &mut http::Response<B>) {
    let headers = response.headers();
    if headers.contains_key(STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let reason = match status.code() {
        Code::Ok => return,
        Code::Unimplemented => Reason::MethodUnknown,
        Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
        // The library's word for a body that is no message of the method.
        Code::Internal | Code::InvalidArgument | Code::OutOfRange => Reason::RequestMalformed,
        Code::Unavailable => Reason::ShuttingDown,
        _ => Reason::Internal,
    };
    let message = match status.message() {
        "" => "the call failed before it reached its service".to_owned(),
        message => message.to_owned(),
    };
    let completed = Status::from(Refusal::new(reason, message));
    // A status that cannot be written as headers does not exist: the message was escaped by the
    // library, and details are base64.
    let mut replaced = http::HeaderMap::new();
    if completed.add_header(&mut replaced).is_ok() {
        for (name, value) in replaced {
            if let Some(name) = name {
                response
                    .headers_mut()
                    .insert(name, HeaderValue::from(&value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_its_details() {
        let status = Status::from(
            Refusal::new(Reason::AlreadyThere, "it lives there")
                .with("destination", "target")
                .violated("account", "lives at target"),
        );
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!((&*info.reason, &*info.domain), ("ALREADY_THERE", DOMAIN));
        assert_eq!(info.metadata["destination"], "target");
        assert!(details.precondition_failure().is_some());
        assert!(details.retry_info().is_none());
        let away = Status::from(Refusal::new(Reason::StoreUnavailable, "away"));
        assert!(away.get_error_details().retry_info().is_some());
        let field = Status::from(Refusal::required("account"));
        assert!(field.get_error_details().bad_request().is_some());
    }

    #[test]
    fn errors_of_the_library_get_a_reason_too() {
        let mut response = Status::unimplemented("").into_http::<()>();
        complete(&mut response);
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), Code::Unimplemented);
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, "METHOD_UNKNOWN");
    }

    /// `docs/errors.md` is what scripts are written from.
    #[test]
    fn every_reason_is_documented_with_its_code_and_exit_code() {
        let documented: Vec<(String, String, String)> = include_str!("../../../docs/errors.md")
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
                let word = cells.next()?.trim_end_matches('`').to_owned();
                Some((word, cells.next()?.to_owned(), cells.next()?.to_owned()))
            })
            .collect();
        let ours: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| {
                let code = reason.kind().code();
                let name = format!("{code:?}").chars().fold(String::new(), |name, c| {
                    let gap = if c.is_uppercase() && !name.is_empty() {
                        "_"
                    } else {
                        ""
                    };
                    format!("{name}{gap}{}", c.to_ascii_uppercase())
                });
                (
                    reason.word().to_owned(),
                    name,
                    (64 + code as i32).to_string(),
                )
            })
            .collect();
        assert_eq!(documented, ours);
    }
}
