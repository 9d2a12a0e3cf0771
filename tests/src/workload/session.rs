//! One session of a client, from the login to its logout or loss.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::sleep;

use crate::history::{Action, Flag, MessageId, Moment, Side};
use crate::imap::{ImapClient, ImapError};

use super::client::{Client, Habit};

/// How long a busy client waits in IDLE.
const SHORT_IDLE_MS: Range<u64> = 50..600;

/// How often an idle client looks up from its IDLE.
const LONG_IDLE: Duration = Duration::from_mins(5);

/// How long a slow line takes for a message.
const SLOW_LINE_MS: Range<u64> = 50..500;

const FLAGS: [Flag; 3] = ["\\Flagged", "\\Answered", "\\Seen"];

pub(super) struct Session<'c> {
    client: &'c mut Client,
    imap: ImapClient,
    server: Side,
    /// Counts the client's messages over all its sessions.
    messages: &'c mut u64,
    /// Messages stored in this session, whose UIDs on this server are known, and how many of
    /// [`FLAGS`] they have.
    stored: Vec<(MessageId, u32, usize)>,
    slow_percent: u32,
}

impl<'c> Session<'c> {
    pub(super) fn new(
        client: &'c mut Client,
        imap: ImapClient,
        server: Side,
        messages: &'c mut u64,
    ) -> Self {
        Self {
            client,
            imap,
            server,
            messages,
            stored: Vec::new(),
            slow_percent: 0,
        }
    }

    /// Works until the client is told to stop or fancies a new session; an error is a loss.
    pub(super) async fn live(mut self) -> Result<(), ImapError> {
        self.imap.select("INBOX").await?.accepted()?;
        match self.client.habit.clone() {
            Habit::Idle => {
                while !self.client.stop.is_cancelled() {
                    self.idle(LONG_IDLE).await?;
                }
            }
            Habit::Busy {
                pause,
                slow_percent,
                login_percent,
            } => {
                self.slow_percent = slow_percent;
                while !self.client.stop.is_cancelled() {
                    self.pause(pause.clone()).await;
                    if self.happens(login_percent) {
                        break;
                    }
                    self.one_thing().await?;
                }
            }
        }
        self.imap.logout().await
    }

    async fn one_thing(&mut self) -> Result<(), ImapError> {
        match self.client.random.random_range(0..100) {
            0..50 => self.append().await,
            50..75 => self.flag().await,
            75..90 => self.noop().await,
            _ => {
                let time = self.client.random.random_range(SHORT_IDLE_MS);
                self.idle(Duration::from_millis(time)).await
            }
        }
    }

    /// True in `percent` of a hundred cases.
    fn happens(&mut self, percent: u32) -> bool {
        self.client.random.random_range(0..100) < percent
    }

    async fn pause(&mut self, milliseconds: Range<u64>) {
        let pause = self.client.random.random_range(milliseconds);
        let stop = self.client.stop.clone();
        let pause = sleep(Duration::from_millis(pause));
        _ = stop.run_until_cancelled(pause).await;
    }

    async fn append(&mut self) -> Result<(), ImapError> {
        *self.messages += 1;
        let id: MessageId = format!("c{}-{}", self.client.id, self.messages).into();
        let padding = self.client.random.random_range(0..2000);
        let message = message(&id, &self.client.account, padding);
        let appending = self.imap.start_append("INBOX", message.len()).await?;
        let mut rest = message.as_bytes();
        if self.happens(self.slow_percent) {
            let (early, late) = rest.split_at(rest.len() / 2);
            self.imap.send(early).await?;
            let pause = self.client.random.random_range(SLOW_LINE_MS);
            sleep(Duration::from_millis(pause)).await;
            rest = late;
        }
        // No server can store a message before it has all of it.
        let begun = Moment::now();
        let reply = appending.finish(&mut self.imap, rest).await?;
        if reply.is_ok() {
            self.record(Action::Append(Arc::clone(&id)), begun);
            let uid = reply.append_uid().map(|(_, uid)| (id, uid, 0));
            self.stored.extend(uid);
        }
        Ok(())
    }

    /// A STORE of a UID that is not there is OK, too (RFC 9051 §6.4.9): only the FETCH data says that
    /// the flag is set.
    async fn flag(&mut self) -> Result<(), ImapError> {
        let Some((id, uid, set)) = self.stored.last_mut() else {
            return self.append().await;
        };
        let Some(flag) = FLAGS.get(*set) else {
            return self.append().await;
        };
        let (id, uid) = (Arc::clone(id), *uid);
        *set += 1;
        let begun = Moment::now();
        let command = format!("UID STORE {uid} +FLAGS ({flag})");
        let reply = self.imap.command(&command).await?;
        let said = |text: &str| {
            text.contains(&format!("UID {uid} ")) || text.contains(&format!("UID {uid})"))
        };
        let confirmed = reply
            .untagged
            .iter()
            .any(|r| r.is("FETCH") && said(&r.text) && r.text.contains(flag));
        if reply.is_ok() && confirmed {
            self.record(Action::Flag(id, flag), begun);
        }
        Ok(())
    }

    async fn noop(&mut self) -> Result<(), ImapError> {
        let begun = Moment::now();
        if self.imap.noop().await?.is_ok() {
            self.record(Action::Noop, begun);
        }
        Ok(())
    }

    async fn idle(&mut self, time: Duration) -> Result<(), ImapError> {
        let idle = self.imap.idle().await?;
        let begun = Moment::now();
        let stop = self.client.stop.clone();
        let waiting = self.imap.next_response_within(time);
        match stop.run_until_cancelled(waiting).await {
            Some(Ok(_)) => self.record(Action::Woken, begun),
            Some(Err(ImapError::Late(_))) | None => {}
            Some(Err(error)) => return Err(error),
        }
        let begun = Moment::now();
        if idle.done(&mut self.imap).await?.is_ok() {
            self.record(Action::Noop, begun);
        }
        Ok(())
    }

    fn record(&self, action: Action, begun: Moment) {
        let server = Some(self.server);
        self.client.record(action, server, begun, Moment::now());
    }
}

fn message(id: &str, account: &str, padding: usize) -> String {
    format!(
        "Message-ID: <{id}@ferrypost.test>\r\nFrom: <{account}>\r\nTo: <{account}>\r\n\
         Subject: {id}\r\n\r\n{}\r\n",
        "x".repeat(padding)
    )
}
