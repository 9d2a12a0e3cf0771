//! One client of any protocol: a session after the other until it is told to stop.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use anyhow::bail;

use crate::history::{Action, Moment, Protocol, Side};

use super::user::User;

/// Above the longest that a login is held, so that every held login's end is seen.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How soon a client comes back after a session was lost or a connection refused.
const COME_BACK_MS: Range<u64> = 20..120;

/// One connection of a client, in the words of its protocol. An error of any of these is the loss of the connection,
/// which is no evidence: what was acknowledged is recorded.
pub(super) trait Session: Sized + Send {
    /// What is spoken.
    const PROTOCOL: Protocol;

    /// Where to connect.
    type Door: Send + Sync + 'static;

    /// Connects and says all that comes before what a login needs.
    fn open(door: &Self::Door, user: &User) -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Our end of the connection.
    fn local(&self) -> Option<SocketAddr>;

    /// Sends what a login needs, and waits for the answer.
    fn log_in(&mut self, user: &User) -> impl Future<Output = anyhow::Result<Answer>> + Send;

    /// Which server that was.
    fn served_by(&mut self) -> impl Future<Output = anyhow::Result<Side>> + Send;

    /// Works until the client fancies a new session or is told to stop, and ends the session.
    fn live(
        self,
        user: &mut User,
        landing: Landing,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What is said to a login.
pub(super) enum Answer {
    /// Yes.
    Granted,
    /// No, with this code.
    Refused(Option<String>),
}

/// A login that was granted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Landing {
    /// By whom.
    pub(super) server: Side,
    /// When it was asked for.
    pub(super) begun: Moment,
}

/// Lives until it is told to stop.
pub(super) async fn run<S: Session>(mut user: User, door: S::Door) {
    let mut lost = None;
    while !user.stop.is_cancelled() {
        if let Ok((session, landing)) = log_in::<S>(&user, &door, lost).await {
            let outcome = session.live(&mut user, landing).await;
            lost = outcome.err().map(|_| Moment::now());
        }
        user.pause(COME_BACK_MS).await;
    }
}

async fn log_in<S: Session>(
    user: &User,
    door: &S::Door,
    lost: Option<Moment>,
) -> anyhow::Result<(S, Landing)> {
    let mut session = S::open(door, user).await?;
    let begun = Moment::now();
    let answer = session.log_in(user).await;
    let times = (begun, Moment::now());
    let record = |action, server| user.record(S::PROTOCOL, action, server, times);
    match answer {
        Ok(Answer::Granted) => {}
        Ok(Answer::Refused(code)) => {
            let from = session.local();
            record(Action::LoginRefused { code, from }, None);
            bail!("refused");
        }
        Err(error) => {
            let login = Box::new(Action::Login { lost });
            record(Action::Unanswered(login), None);
            return Err(error);
        }
    }
    let server = session.served_by().await;
    record(Action::Login { lost }, server.as_ref().ok().copied());
    let landing = Landing {
        server: server?,
        begun,
    };
    Ok((session, landing))
}
