//! POP3: looks how much there is, reads the newest message, and now and then deletes the oldest.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::history::{Action, MessageId, Moment, Protocol, Side};
use crate::imap::Connect;
use crate::line::LineClient;

use super::Tls;
use super::client::{Answer, Landing, PATIENCE, Session};
use super::landings::{Flight, Landings};
use super::mailbox::message_id;
use super::seeds::may_go;
use super::user::User;

/// In how many of a hundred sessions a message is deleted.
const DELETES: u32 = 25;

/// Where a POP3 client connects. POP3 has no way to ask a server for its name: logs tell.
pub(super) struct Door {
    pub(super) connect: Connect,
    pub(super) tls: Tls,
    pub(super) landings: Landings,
}

pub(super) struct Pop3 {
    client: LineClient,
    flight: Flight,
}

impl Session for Pop3 {
    const PROTOCOL: Protocol = Protocol::Pop3;

    type Door = Door;

    async fn open(door: &Door, user: &User) -> anyhow::Result<Self> {
        let connect = door.connect.clone().limit(PATIENCE);
        let mut client = LineClient::open(&connect).await?;
        let greeting = client.line().await?.unwrap_or_default();
        ensure!(greeting.starts_with("+OK"), "{greeting:?}");
        if door.tls == Tls::Starttls {
            yes(&mut client, "STLS").await?;
            client = client.secure(&connect).await?;
        }
        yes(&mut client, &format!("USER {}", user.account)).await?;
        let flight = door.landings.expect(user.data_plane, client.local());
        Ok(Self { client, flight })
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.flight.from())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        let answer = self.client.ask(&format!("PASS {}", user.password)).await?;
        if answer.starts_with("+OK") {
            return Ok(Answer::Granted);
        }
        // RFC 2449 §8.
        let (_, behind) = answer.split_once('[').unwrap_or_default();
        let code = behind.split_once(']').map(|(code, _)| code.to_owned());
        Ok(Answer::Refused(code))
    }

    async fn served_by(&mut self) -> anyhow::Result<Side> {
        self.flight.side().await
    }

    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        let record = |user: &User, action, begun| {
            let times = (begun, Moment::now());
            user.record(Protocol::Pop3, action, Some(landing.server), times);
        };
        // The mailbox is as it was at the login, whatever is stored meanwhile (RFC 1939 §8).
        let count = self.count().await?;
        record(user, Action::Counted(count), landing.begun);
        if let Some(newest) = self.id_of(count).await? {
            record(user, Action::Retrieved(newest), landing.begun);
        }
        let mut deleted = None;
        if user.happens(DELETES)
            && let Some(oldest) = self.id_of(1).await?
            && may_go(&oldest)
        {
            let marked = self.client.ask("DELE 1").await?;
            deleted = marked.starts_with("+OK").then_some(oldest);
        }
        user.rest().await;
        let begun = Moment::now();
        let answer = self.client.ask("QUIT").await;
        let is_done = answer
            .as_ref()
            .is_ok_and(|answer| answer.starts_with("+OK"));
        if let Some(deleted) = deleted {
            record(user, deletion(deleted, is_done), begun);
        }
        ensure!(is_done, "{answer:?}");
        Ok(())
    }
}

impl Pop3 {
    /// How many messages there are.
    async fn count(&mut self) -> anyhow::Result<usize> {
        let answer = yes(&mut self.client, "STAT").await?;
        let count = answer.split(' ').nth(1).context("STAT without a number")?;
        Ok(count.parse()?)
    }

    /// The id of a message, if it is one of ours and has not been deleted by somebody else meanwhile.
    async fn id_of(&mut self, number: usize) -> anyhow::Result<Option<MessageId>> {
        if number == 0 {
            return Ok(None);
        }
        let answer = self.client.ask(&format!("TOP {number} 0")).await?;
        if !answer.starts_with("+OK") {
            return Ok(None);
        }
        let header = self.client.list().await?;
        let mut ids = header
            .iter()
            .filter_map(|line| line.strip_prefix("Message-ID: "));
        Ok(ids.next().and_then(message_id).map(Arc::from))
    }
}

/// Messages go when QUIT is answered (RFC 1939 §6); without an answer they may have.
fn deletion(message: MessageId, is_done: bool) -> Action {
    let deletion = Action::Delete(message);
    if is_done {
        deletion
    } else {
        Action::Unanswered(Box::new(deletion))
    }
}

async fn yes(client: &mut LineClient, command: &str) -> anyhow::Result<String> {
    let answer = client.ask(command).await?;
    ensure!(answer.starts_with("+OK"), "{answer:?}");
    Ok(answer)
}
