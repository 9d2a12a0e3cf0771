//! LMTP: delivers a message after the other, each once, some to two accounts.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rand::RngExt as _;

use crate::history::{Action, MessageId, Moment, Operation, Protocol};
use crate::imap::Connect;
use crate::line::LineClient;

use super::client::PATIENCE;
use super::user::User;

/// What the data plane says when it goes: no answer to what was sent.
const GOODBYE: &str = "421";

/// How many of a hundred messages are for a second account too.
const FOR_TWO: u32 = 40;

/// How soon a mail system comes back.
const COME_BACK_MS: Range<u64> = 20..120;

/// Where a mail system delivers, and for whom.
pub(super) struct Door {
    pub(super) connect: Connect,
    pub(super) others: Arc<[Arc<str>]>,
}

/// Delivers until it is told to stop.
pub(super) async fn run(mut user: User, door: Door) {
    while !user.stop.is_cancelled() {
        // The loss of a connection is no evidence: what was acknowledged is recorded.
        _ = session(&mut user, &door).await;
        user.pause(COME_BACK_MS).await;
    }
}

async fn session(user: &mut User, door: &Door) -> anyhow::Result<()> {
    let connect = door.connect.clone().limit(PATIENCE);
    let client = LineClient::open(&connect).await?;
    let mut mail = MailSystem { client };
    mail.expect("220").await?;
    mail.ask("LHLO mx.example.net", "250").await?;
    while !user.stop.is_cancelled() {
        user.rest().await;
        if user.happens(user.habit.login_percent) {
            break;
        }
        mail.deliver(user, &door.others).await?;
    }
    mail.ask("QUIT", "221").await?;
    Ok(())
}

struct MailSystem {
    client: LineClient,
}

impl MailSystem {
    async fn deliver(&mut self, user: &mut User, others: &[Arc<str>]) -> anyhow::Result<()> {
        let (id, message) = user.write_message();
        let mut recipients = vec![Arc::clone(&user.account)];
        if user.happens(FOR_TWO) {
            let other = &others[user.random.random_range(0..others.len())];
            recipients.extend((*other != user.account).then(|| Arc::clone(other)));
        }
        let accepted = self.name(recipients).await?;
        self.client.send("DATA\r\n").await?;
        if !self.reply().await?.starts_with("354") {
            self.ask("RSET", "250").await?;
            return Ok(());
        }
        let message = message + ".\r\n";
        let mut rest = message.as_bytes();
        if user.is_slow() {
            let (early, late) = rest.split_at(rest.len() / 2);
            self.client.send(early).await?;
            user.wait_for_line().await;
            rest = late;
        }
        // No server delivers a message before it has its end.
        let begun = Moment::now();
        let mut sent = self.client.send(rest).await.map_err(anyhow::Error::from);
        for account in accepted {
            let reply = match sent {
                Ok(()) => self.reply().await,
                Err(error) => Err(error),
            };
            record(user, &account, outcome(&reply, &id), begun);
            sent = reply.map(drop);
        }
        sent
    }

    /// Those of them that may have a message now.
    async fn name(&mut self, recipients: Vec<Arc<str>>) -> anyhow::Result<Vec<Arc<str>>> {
        self.ask("MAIL FROM:<someone@example.net>", "250").await?;
        let mut accepted = Vec::new();
        for account in recipients {
            self.client.send(format!("RCPT TO:<{account}>\r\n")).await?;
            let reply = self.reply().await?;
            ensure!(
                reply.starts_with('2') || reply.starts_with('4'),
                "{reply:?}"
            );
            if reply.starts_with('2') {
                accepted.push(account);
            }
        }
        Ok(accepted)
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

    /// The last line of the next reply (RFC 5321 §4.2.1).
    async fn reply(&mut self) -> anyhow::Result<String> {
        loop {
            let line = self.client.line().await?.context("no reply")?;
            if line.get(3..4) != Some("-") {
                return Ok(line);
            }
        }
    }
}

/// What is known of a message for one recipient, if it is anything.
fn outcome(reply: &anyhow::Result<String>, id: &MessageId) -> Option<Action> {
    let delivery = Action::Deliver(Arc::clone(id));
    match reply {
        Ok(reply) if reply.starts_with("250") => Some(delivery),
        Ok(reply) if !reply.starts_with(GOODBYE) => None,
        _ => Some(Action::Unanswered(Box::new(delivery))),
    }
}

fn record(user: &User, account: &Arc<str>, action: Option<Action>, begun: Moment) {
    let Some(action) = action else { return };
    user.recorder.operation(Operation {
        client: user.id,
        protocol: Protocol::Lmtp,
        account: Arc::clone(account),
        data_plane: user.data_plane,
        // Nobody says which it was.
        server: None,
        begun,
        ended: Moment::now(),
        action,
    });
}
