//! Replaying a login and reading the verdict. Here alone credentials leave us, and only on a leg that may
//! carry them.

use std::time::Duration;

use ferrypost_wire::{BackendViolation, Login, LoginStep, Rejection};
use tokio::time::timeout;

use super::outcome::{AttemptError, ReplayError};
use crate::{
    net::{
        CloseProof,
        leg::{BackendLeg, LegError},
    },
    registry::CloseReason,
};

/// What a backend says to a login.
pub(super) enum LoginVerdict<W> {
    /// Yes.
    Accepted(W),
    /// No.
    Rejected(Rejection),
}

/// Sends the login and waits for the verdict.
///
/// # Errors
/// [`ReplayError`]: there is none.
pub(super) async fn replay<L: Login>(
    leg: &mut BackendLeg,
    login: &mut L,
    limit: Duration,
) -> Result<LoginVerdict<L::Welcome>, ReplayError> {
    let verdict = async {
        loop {
            match login.step(leg.buffer())? {
                LoginStep::NeedMore => leg.fill().await.map_err(too_long)?,
                LoginStep::Send(secret) => leg.write_secret(secret).await?,
                LoginStep::Accepted(welcome) => return Ok(LoginVerdict::Accepted(welcome)),
                LoginStep::Rejected(rejection) => return Ok(LoginVerdict::Rejected(rejection)),
            }
        }
    };
    timeout(limit, verdict)
        .await
        .unwrap_or(Err(ReplayError::Timeout))
}

fn too_long(error: LegError) -> ReplayError {
    match error {
        LegError::Full => BackendViolation::ReplyTooLong.into(),
        error => error.into(),
    }
}

/// How long a fence waits for the verdict on a login that the old server has been sent. A right password has
/// its answer by then, so that the old server's own log names nobody after the flip; a wrong one may be thought
/// about for much longer, and whoever guesses must not keep the account fenced (decision 0005).
const LAST_WORD: Duration = Duration::from_secs(1);

/// The verdict on a login that is told to end: under a fence it is waited for a moment longer.
pub(super) async fn last_word<W>(
    replay: impl Future<Output = Result<LoginVerdict<W>, ReplayError>>,
    reason: CloseReason,
    limit: Duration,
) -> Result<LoginVerdict<W>, AttemptError> {
    if reason != CloseReason::Moved {
        return Err(AttemptError::Told(reason));
    }
    match timeout(limit.min(LAST_WORD), replay).await {
        Ok(verdict) => verdict.map_err(AttemptError::from),
        Err(_) => Err(AttemptError::Told(reason)),
    }
}

/// Ends a connection whose login was accepted and is not relayed, and says how the backend's own end was
/// seen, if it was.
pub(super) async fn close(mut leg: BackendLeg, limit: Duration) -> Option<CloseProof> {
    let closed = async {
        // What fails here ends the writing and proves nothing: the backend may be reading still.
        _ = leg.finish().await;
        leg.peer_closed().await
    };
    timeout(limit, closed).await.ok()?.ok()
}

/// Ends a connection whose login was not accepted, without waiting for the backend: it may think about a
/// wrong password for many seconds and not look at its socket meanwhile. A login that was sent in part stays
/// in part, so that nothing leaves us once the session is over.
pub(super) async fn abandon(mut leg: BackendLeg, limit: Duration) {
    if !leg.is_mid_write() {
        _ = timeout(limit, leg.finish()).await;
    }
}
