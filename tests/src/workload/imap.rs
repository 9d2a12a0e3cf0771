//! IMAP: stores messages, flags them, and waits for news.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;

use crate::dovecot::ID_FIELD;
use crate::history::{Action, Flag, MessageId, Moment, Protocol, Side};
use crate::imap::{Connect, ImapClient, ImapError};

use super::client::{Answer, Landing, PATIENCE, Session};
use super::user::User;

/// How long a busy client waits in IDLE.
const SHORT_IDLE_MS: Range<u64> = 50..600;

/// How often an idle client looks up from its IDLE.
const LONG_IDLE: Duration = Duration::from_mins(5);

const FLAGS: [Flag; 3] = ["\\Flagged", "\\Answered", "\\Seen"];

/// Where an IMAP client connects.
pub(super) struct Door {
    pub(super) connect: Connect,
    /// Whether it waits in IDLE for as long as it is let, and does nothing else.
    pub(super) idles: bool,
}

pub(super) struct Imap {
    client: ImapClient,
    idles: bool,
}

impl Session for Imap {
    const PROTOCOL: Protocol = Protocol::Imap;

    type Door = Door;

    async fn open(door: &Door, _: &User) -> anyhow::Result<Self> {
        let connect = door.connect.clone().limit(PATIENCE);
        Ok(Self {
            client: connect.open().await?,
            idles: door.idles,
        })
    }

    fn local(&self) -> Option<SocketAddr> {
        self.client.local()
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        let reply = self.client.login(&user.account, &user.password).await?;
        if reply.is_ok() {
            return Ok(Answer::Granted);
        }
        Ok(Answer::Refused(reply.code().map(str::to_owned)))
    }

    async fn served_by(&mut self) -> anyhow::Result<Side> {
        let named = self.client.id_field(ID_FIELD).await?.unwrap_or_default();
        Side::named(&named).context("a server that does not say its name")
    }

    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        self.client.select("INBOX").await?.accepted()?;
        let mut day = Day {
            user,
            imap: self.client,
            server: landing.server,
            stored: Vec::new(),
        };
        day.pass(self.idles).await?;
        Ok(day.imap.logout().await?)
    }
}

/// What a session does between its login and its logout.
struct Day<'u> {
    user: &'u mut User,
    imap: ImapClient,
    server: Side,
    /// Messages stored in this session, whose UIDs on this server are known, and how many of
    /// [`FLAGS`] they have.
    stored: Vec<(MessageId, u32, usize)>,
}

impl Day<'_> {
    async fn pass(&mut self, idles: bool) -> Result<(), ImapError> {
        while !self.user.stop.is_cancelled() {
            if idles {
                self.idle(LONG_IDLE).await?;
                continue;
            }
            self.user.rest().await;
            if self.user.happens(self.user.habit.login_percent) {
                break;
            }
            self.one_thing().await?;
        }
        Ok(())
    }

    async fn one_thing(&mut self) -> Result<(), ImapError> {
        match self.user.random.random_range(0..100) {
            0..50 => self.append().await,
            50..75 => self.flag().await,
            75..90 => self.noop().await,
            _ => {
                let time = self.user.random.random_range(SHORT_IDLE_MS);
                self.idle(Duration::from_millis(time)).await
            }
        }
    }

    async fn append(&mut self) -> Result<(), ImapError> {
        let (id, message) = self.user.write_message();
        let appending = self.imap.start_append("INBOX", message.len()).await?;
        let mut rest = message.as_bytes();
        if self.user.is_slow() {
            let (early, late) = rest.split_at(rest.len() / 2);
            self.imap.send(early).await?;
            self.user.wait_for_line().await;
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
        let stop = self.user.stop.clone();
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
        let times = (begun, Moment::now());
        self.user
            .record(Protocol::Imap, action, Some(self.server), times);
    }
}
