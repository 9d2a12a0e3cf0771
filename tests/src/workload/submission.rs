//! Submission: sends a message after the other.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};

use crate::history::{Action, Moment, Protocol, Side};
use crate::imap::Connect;
use crate::line::LineClient;

use super::client::{Answer, Landing, PATIENCE, Session};
use super::user::User;

/// What the server says when it goes (RFC 5321 §3.8): no answer to what was sent.
const GOODBYE: &str = "421";

pub(super) struct Submission {
    client: LineClient,
}

impl Session for Submission {
    const PROTOCOL: Protocol = Protocol::Submission;

    /// With STARTTLS.
    type Door = Connect;

    async fn open(door: &Connect, _: &User) -> anyhow::Result<Self> {
        let connect = door.clone().limit(PATIENCE);
        let client = LineClient::open(&connect).await?;
        let mut session = Self { client };
        session.expect("220").await?;
        session.ask("EHLO client.example.org", "250").await?;
        session.ask("STARTTLS", "220").await?;
        let client = session.client.secure(&connect).await?;
        let mut session = Self { client };
        session.ask("EHLO client.example.org", "250").await?;
        Ok(session)
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.client.local())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        let command = format!("AUTH PLAIN {}\r\n", user.plain());
        self.client.send(command).await?;
        let reply = self.reply().await?;
        if reply.starts_with("235") {
            return Ok(Answer::Granted);
        }
        Ok(Answer::Refused(reply.get(..3).map(str::to_owned)))
    }

    /// Whoever is greeted again says its own name (RFC 5321 §4.1.1.1).
    async fn served_by(&mut self) -> anyhow::Result<Side> {
        let reply = self.ask("EHLO client.example.org", "250").await?;
        let host = reply.get(4..).unwrap_or_default();
        let name = host.split('.').next().unwrap_or_default();
        Side::named(name).context("a server that does not say its name")
    }

    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        while !user.stop.is_cancelled() {
            user.rest().await;
            if user.happens(user.habit.login_percent) {
                break;
            }
            self.submit(user, landing.server).await?;
        }
        self.ask("QUIT", "221").await?;
        Ok(())
    }
}

impl Submission {
    async fn submit(&mut self, user: &mut User, server: Side) -> anyhow::Result<()> {
        let (id, message) = user.write_message();
        let account = &user.account;
        let envelope =
            format!("MAIL FROM:<{account}>\r\nRCPT TO:<someone@example.net>\r\nDATA\r\n");
        self.client.send(envelope).await?;
        for code in ["250", "250", "354"] {
            self.expect(code).await?;
        }
        let message = message + ".\r\n";
        let mut rest = message.as_bytes();
        if user.is_slow() {
            let (early, late) = rest.split_at(rest.len() / 2);
            self.client.send(early).await?;
            user.wait_for_line().await;
            rest = late;
        }
        // No server takes a message before it has its end.
        let begun = Moment::now();
        let reply = self.end_of_data(rest).await;
        let action = match &reply {
            Ok(reply) if reply.starts_with("250") => Some(Action::Submit(id)),
            Ok(reply) if !reply.starts_with(GOODBYE) => None,
            _ => Some(Action::Unanswered(Box::new(Action::Submit(id)))),
        };
        if let Some(action) = action {
            let times = (begun, Moment::now());
            user.record(Protocol::Submission, action, Some(server), times);
        }
        reply.map(drop)
    }

    async fn end_of_data(&mut self, rest: &[u8]) -> anyhow::Result<String> {
        self.client.send(rest).await?;
        self.reply().await
    }

    async fn ask(&mut self, command: &str, code: &str) -> anyhow::Result<String> {
        self.client.send(format!("{command}\r\n")).await?;
        self.expect(code).await
    }

    async fn expect(&mut self, code: &str) -> anyhow::Result<String> {
        let reply = self.reply().await?;
        ensure!(reply.starts_with(code), "{reply:?}");
        Ok(reply)
    }

    /// The first line of the next reply (RFC 5321 §4.2.1).
    async fn reply(&mut self) -> anyhow::Result<String> {
        let mut first = None;
        loop {
            let line = self.client.line().await?.context("no reply")?;
            let goes_on = line.get(3..4) == Some("-");
            let first = first.get_or_insert(line);
            if !goes_on {
                return Ok(std::mem::take(first));
            }
        }
    }
}
