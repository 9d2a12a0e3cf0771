//! `ManageSieve`: an editor that keeps a script, and stores one version of it after the other.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;

use crate::history::{Action, Moment, Protocol, Side};
use crate::sieve::{SieveClient, SieveConnect};

use super::client::{Answer, Landing, PATIENCE, Session};
use super::landings::{Flight, Landings};
use super::mailbox::script;
use super::user::User;

/// How many of a hundred things that it does are a look at the list of scripts.
const LOOKS: u32 = 40;

/// Where an editor connects. Which server it landed on, logs tell.
pub(super) struct Door {
    pub(super) connect: SieveConnect,
    pub(super) landings: Landings,
}

pub(super) struct Sieve {
    client: SieveClient,
    flight: Flight,
}

impl Session for Sieve {
    const PROTOCOL: Protocol = Protocol::ManageSieve;

    type Door = Door;

    async fn open(door: &Door, user: &User) -> anyhow::Result<Self> {
        let connect = door.connect.clone().limit(PATIENCE);
        let client = connect.open().await?;
        let flight = door.landings.expect(user.data_plane, client.local());
        Ok(Self { client, flight })
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.flight.from())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        let command = format!("AUTHENTICATE \"PLAIN\" \"{}\"", user.plain());
        let answer = self.client.command(&command).await?;
        let status = answer.last().map_or("", String::as_str);
        if status.starts_with("OK") {
            return Ok(Answer::Granted);
        }
        // RFC 5804 §1.3.
        let (_, behind) = status.split_once('(').unwrap_or_default();
        let code = behind.split_once(')').map(|(code, _)| code.to_owned());
        Ok(Answer::Refused(code))
    }

    async fn served_by(&mut self) -> anyhow::Result<Side> {
        self.flight.side().await
    }

    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        while !user.stop.is_cancelled() {
            user.rest().await;
            if user.happens(user.habit.login_percent) {
                break;
            }
            let (action, begun) = if user.happens(LOOKS) {
                let begun = Moment::now();
                self.yes("LISTSCRIPTS").await?;
                (Action::Noop, begun)
            } else {
                self.put(user).await?
            };
            let times = (begun, Moment::now());
            user.record(Protocol::ManageSieve, action, Some(landing.server), times);
        }
        self.yes("LOGOUT").await
    }
}

impl Sieve {
    /// Stores the next version of the user's script.
    async fn put(&mut self, user: &mut User) -> anyhow::Result<(Action, Moment)> {
        user.made += 1;
        let (name, version) = (format!("c{}", user.id), user.made);
        let text = script(version);
        let command = format!("PUTSCRIPT \"{name}\" {{{}+}}\r\n{text}", text.len());
        let mut rest = command.as_str();
        if user.is_slow() {
            let (early, late) = rest.split_at(rest.len() - text.len() / 2);
            self.client.send(early.as_bytes()).await?;
            user.wait_for_line().await;
            rest = late;
        }
        // No server can store a script before it has all of it.
        let begun = Moment::now();
        self.yes(rest).await?;
        let name = Arc::from(name);
        Ok((Action::PutScript { name, version }, begun))
    }

    async fn yes(&mut self, command: &str) -> anyhow::Result<()> {
        let answer = self.client.command(command).await?;
        let is_ok = answer.last().is_some_and(|line| line.starts_with("OK"));
        ensure!(is_ok, "{answer:?}");
        Ok(())
    }
}
