//! Mail that arrives while its recipient moves. Port 25 is passed through to the target's Postfix, which asks the first
//! data plane where each recipient lives and delivers through it; every message must be there once.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::demo::console::{command, say};
use crate::dovecot::Role;
use crate::history::{Moment, Side};
use crate::postfix::Postfix;
use crate::shell::shell;
use crate::story::SOON;
use crate::wait::eventually;

use super::{TRAVELLER, Tour, word};

/// Where another mail system's messages come from.
const SENDER: &str = "127.0.0.77";

/// How often is looked whether the account is held: a move takes much longer.
const LOOK: Duration = Duration::from_millis(5);

/// How often Postfix is told to try again.
const AGAIN: Duration = Duration::from_secs(1);

impl Tour {
    /// Step 4 of the walk-through, before anybody has moved.
    pub(super) async fn try_mail(&mut self) -> anyhow::Result<()> {
        if self.mail_system().is_none() {
            return Ok(());
        }
        self.console
            .step("Mail arrives at port 25, and goes where its recipient lives");
        say(
            "The connection is passed through to the target's Postfix. It asks Ferrypost for the way of",
        );
        say(
            "each recipient, since an account may exist on the target long before it lives there, and",
        );
        say("delivers through Ferrypost by LMTP, so that a move waits for what is on its way.");
        let log = self.world.data_planes()[0].plane.log().from_now();
        self.receive("before").await?;
        self.is_once_at(Side::Source).await?;
        say(format!(
            "It is in {TRAVELLER}'s mailbox on source. The target's Postfix saw who sent it, {SENDER}, and passed it on."
        ));
        let line = log.wait_for(&[" delivery ", TRAVELLER], SOON).await?;
        let said = |key| word(&line, key).with_context(|| format!("no {key} in {line}"));
        let server = said("destination=")?;
        ensure!(server == Side::Source.name(), "{line}");
        say(format!(
            "Ferrypost's log says: {}, rule {}, {} to {server} at {}",
            said("name=")?,
            said("rule=")?,
            said("outcome=")?,
            said("address=")?,
        ));
        Ok(())
    }

    /// Waits for a move, and lets a message come while its account is held.
    pub(super) async fn receive_while<T>(
        &mut self,
        subject: &str,
        moving: impl Future<Output = T>,
    ) -> anyhow::Result<(T, Moment)> {
        let mut moving = pin!(async { (moving.await, Moment::now()) });
        if self.mail_system().is_none() {
            return Ok(moving.await);
        }
        let early = tokio::select! {
            held = self.until_held() => {
                held?;
                None
            }
            moved = &mut moving => Some(moved),
        };
        if let Some(moved) = early {
            self.receive(subject).await?;
            return Ok(moved);
        }
        let (moved, received) = tokio::join!(moving, self.receive(subject));
        received?;
        Ok(moved)
    }

    /// After a move: another message, and whatever has waited is let go on.
    pub(super) async fn receive_after(&mut self, subject: &str, home: Side) -> anyhow::Result<()> {
        let Some(configuration) = self.mail_system().map(Postfix::configuration) else {
            return Ok(());
        };
        self.receive(subject).await?;
        // Postfix keeps its last answer for half a minute: this one has to be another's.
        self.arrives(subject, home).await?;
        let flush = format!("postqueue -c {} -f", configuration.display());
        command(&flush);
        // What is put off just now would have been flushed a moment too early.
        eventually("what has waited has gone on", SOON, async || {
            let flushed = shell(&flush).await;
            flushed.map_err(|error| error.to_string())?;
            sleep(AGAIN).await;
            self.have_come(home).await
        })
        .await?;
        self.is_once_at(home).await?;
        say(format!(
            "Mail that came before, during and after is on {home}, each message once: {}.",
            self.mail.join(", ")
        ));
        Ok(())
    }

    fn mail_system(&self) -> Option<&Postfix> {
        self.world.postfix(Role::Target)
    }

    /// A message comes to port 25. Postfix remembers answers by sender as well, so each has its own.
    async fn receive(&mut self, subject: &str) -> anyhow::Result<()> {
        let mx = self.world.data_planes()[0].mx();
        let mx = mx.map(|at| at.to_string()).unwrap_or_default();
        let script = format!(
            "curl -sS --crlf --interface {SENDER} smtp://{mx} --mail-from {subject}@example.net \\\n  \
             --mail-rcpt {TRAVELLER} --upload-file - <<'END'\n\
             Subject: mail-{subject}\n\nA message.\nEND\n"
        );
        command(script.trim_end().replace('\n', "\n     "));
        let log = self.mail_system().map(|postfix| postfix.log().from_now());
        shell(&script).await?;
        if let Some(log) = log {
            let sender = format!("[{SENDER}]");
            log.wait_for(&["client=", &sender], SOON).await?;
        }
        self.mail.push(format!("mail-{subject}"));
        Ok(())
    }

    /// Looks until the account is held.
    async fn until_held(&self) -> anyhow::Result<()> {
        while !self.way().await?.contains("OK retry:") {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What Postfix is told of the traveller.
    async fn way(&self) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(self.world.lookups()).await?;
        let question = format!("transport {TRAVELLER}");
        let question = format!("{}:{question},", question.len());
        stream.write_all(question.as_bytes()).await?;
        stream.shutdown().await?;
        let mut told = String::new();
        stream.read_to_string(&mut told).await?;
        Ok(told)
    }

    /// Every message that has come is in the traveller's mailbox there, once.
    pub(super) async fn is_once_at(&self, home: Side) -> anyhow::Result<()> {
        for subject in &self.mail {
            self.is_there(subject, home).await?;
        }
        Ok(())
    }

    async fn arrives(&self, subject: &str, home: Side) -> anyhow::Result<()> {
        self.is_there(&format!("mail-{subject}"), home).await
    }

    async fn is_there(&self, subject: &str, home: Side) -> anyhow::Result<()> {
        let what = format!("{subject} is on {home}");
        let copies = eventually(&what, SOON, async || self.copies(subject, home).await).await?;
        ensure!(copies == 1, "{subject} is on {home} {copies} times");
        Ok(())
    }

    async fn have_come(&self, home: Side) -> Result<(), String> {
        for subject in &self.mail {
            self.copies(subject, home).await?;
        }
        Ok(())
    }

    /// How many of a message are there, if any.
    async fn copies(&self, subject: &str, home: Side) -> Result<usize, String> {
        let server = match home {
            Side::Source => self.world.source(),
            Side::Target => self.world.target(),
        };
        let query = [
            "search", "-u", TRAVELLER, "mailbox", "INBOX", "subject", subject,
        ];
        let found = server.doveadm(&query).await;
        match found.map_err(|error| error.to_string())?.lines().count() {
            0 => Err(format!("{subject} is not on {home}")),
            copies => Ok(copies),
        }
    }
}
