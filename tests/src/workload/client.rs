//! One client: a session after the other until it is told to stop.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::dovecot::ID_FIELD;
use crate::history::{Action, Moment, Operation, Recorder, Side};
use crate::imap::{Connect, ImapClient, ImapError};

use super::session::Session;

/// Above the longest that a login is held, so that every held login's end is seen.
const PATIENCE: Duration = Duration::from_secs(30);

/// How soon a client comes back after a session was lost or a connection refused.
const COME_BACK_MS: Range<u64> = 20..120;

/// What a client does all day.
#[derive(Debug, Clone)]
pub enum Habit {
    /// Appends, flags, NOOP, short IDLEs and a new login now and then.
    Busy {
        /// The pause before each, in milliseconds.
        pause: Range<u64>,
        /// How many of a hundred messages are sent over a slow line, so that the command stays open
        /// for a while.
        slow_percent: u32,
        /// How many of a hundred things that it does are a logout and a new login.
        login_percent: u32,
    },
    /// Waits in IDLE for as long as it is let.
    Idle,
}

/// A client and what it needs.
pub struct Client {
    /// Its number, unique in the run.
    pub id: usize,
    /// The account, by its address.
    pub account: Arc<str>,
    /// The data plane that it connects to.
    pub data_plane: usize,
    /// How it connects there.
    pub connect: Connect,
    /// The account's password.
    pub password: Arc<str>,
    /// What it does.
    pub habit: Habit,
    /// Where it writes down what was acknowledged.
    pub recorder: Recorder,
    /// Where its decisions come from.
    pub random: StdRng,
    /// Tells it to stop.
    pub stop: CancellationToken,
}

impl Client {
    /// Lives until it is told to stop.
    pub async fn run(mut self) {
        let mut messages = 0;
        let mut lost = None;
        while !self.stop.is_cancelled() {
            // What went wrong with a connection is no evidence; what was acknowledged is recorded.
            if let Ok((imap, server)) = self.log_in(lost).await {
                let outcome = Session::new(&mut self, imap, server, &mut messages)
                    .live()
                    .await;
                lost = outcome.err().map(|_| Moment::now());
            }
            let pause = self.random.random_range(COME_BACK_MS);
            let stop = self.stop.clone();
            let pause = sleep(Duration::from_millis(pause));
            _ = stop.run_until_cancelled(pause).await;
        }
    }

    async fn log_in(&mut self, lost: Option<Moment>) -> Result<(ImapClient, Side), ImapError> {
        let mut imap = self.connect.clone().limit(PATIENCE).open().await?;
        let begun = Moment::now();
        let reply = imap.login(&self.account, &self.password).await?;
        let ended = Moment::now();
        if !reply.is_ok() {
            let code = reply.code().map(str::to_owned);
            let from = imap.local();
            self.record(Action::LoginRefused { code, from }, None, begun, ended);
            reply.accepted()?;
        }
        let named = imap.id_field(ID_FIELD).await;
        let server = named
            .as_ref()
            .ok()
            .and_then(|name| Side::named(name.as_deref()?));
        self.record(Action::Login { lost }, server, begun, ended);
        named?;
        server
            .map(|server| (imap, server))
            .ok_or(ImapError::Protocol("a server that does not say its name"))
    }

    pub(super) fn record(
        &self,
        action: Action,
        server: Option<Side>,
        begun: Moment,
        ended: Moment,
    ) {
        self.recorder.operation(Operation {
            client: self.id,
            account: Arc::clone(&self.account),
            data_plane: self.data_plane,
            server,
            begun,
            ended,
            action,
        });
    }
}
