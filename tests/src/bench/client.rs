//! An IMAP client that stays, and moves messages.

use anyhow::ensure;

use super::backend::{FETCHED, MESSAGE, message};
use super::connection::{Connection, PIECE, Target};

/// A connection that is logged in.
pub(super) struct Client(Connection);

impl Client {
    /// Connects and logs in.
    pub(super) async fn logged_in(target: &Target) -> anyhow::Result<Self> {
        let mut connection = Connection::open(target).await?;
        connection.ask("", "* OK").await?;
        let mut client = Self(connection);
        client
            .command(&format!("LOGIN {} secret", target.login))
            .await?;
        Ok(client)
    }

    /// As [`Connection::agreed`].
    pub(super) fn agreed(&self) -> Option<String> {
        self.0.agreed()
    }

    /// Sends a command and waits for its OK.
    pub(super) async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.0.send(format!("a {command}\r\n")).await?;
        self.accepted().await
    }

    /// Begins to wait for news, and stays so.
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        self.0.ask("a IDLE", "+").await?;
        self.0.input = Vec::new();
        Ok(())
    }

    /// Reads the one message.
    pub(super) async fn fetch(&mut self) -> anyhow::Result<()> {
        self.0.send(b"a FETCH 1 BODY[]\r\n").await?;
        self.0.input.reserve(PIECE);
        let mut left = FETCHED.len();
        loop {
            let taken = left.min(self.0.input.len());
            self.0.input.drain(..taken);
            left -= taken;
            if left == 0 {
                return self.accepted().await;
            }
            self.0.read().await?;
        }
    }

    /// Stores a message; `octets` is what [`appended`] made.
    pub(super) async fn append(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        self.0.send(octets).await?;
        self.accepted().await
    }

    /// Logs out and waits for the close.
    pub(super) async fn logout(mut self) -> anyhow::Result<()> {
        self.command("LOGOUT").await?;
        self.0.end().await
    }

    /// Reads untagged lines up to the tagged one.
    async fn accepted(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.0.line().await?;
            if let Some(answer) = line.strip_prefix("a ") {
                ensure!(answer.starts_with("OK"), "refused: {answer:?}");
                return Ok(());
            }
        }
    }
}

/// The command that stores a message, with the message.
pub(super) fn appended() -> Vec<u8> {
    let mut octets = format!("a APPEND INBOX {{{MESSAGE}+}}\r\n").into_bytes();
    octets.extend(message());
    octets.extend(b"\r\n");
    octets
}
