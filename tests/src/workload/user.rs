//! Who a client is, and what it decides by chance.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::history::{Action, MessageId, Moment, Operation, Protocol, Recorder, Side};

/// How long a slow line takes for a message or a script.
const SLOW_LINE_MS: Range<u64> = 50..500;

/// How a client spends its day.
#[derive(Debug, Clone)]
pub struct Habit {
    /// The pause before each thing that it does, in milliseconds.
    pub pause: Range<u64>,
    /// How many of a hundred messages and scripts are sent over a slow line, so that the command stays open for
    /// a while.
    pub slow_percent: u32,
    /// How many of a hundred things that it does are a logout and a new login. (POP3 logs in for each.)
    pub login_percent: u32,
}

/// Whose client it is, and what it needs in any protocol.
pub(super) struct User {
    /// The client's number, unique in the run.
    pub(super) id: usize,
    /// The account, by its address.
    pub(super) account: Arc<str>,
    /// The data plane that it connects to.
    pub(super) data_plane: usize,
    pub(super) password: Arc<str>,
    pub(super) habit: Habit,
    /// Where it writes down what was acknowledged.
    pub(super) recorder: Recorder,
    /// Where its decisions come from.
    pub(super) random: StdRng,
    /// Tells it to stop.
    pub(super) stop: CancellationToken,
    /// Counts what it has made, over all its sessions.
    pub(super) made: u64,
}

impl User {
    /// A message, by its id and as it is sent.
    pub(super) fn write_message(&mut self) -> (MessageId, String) {
        self.made += 1;
        let id = format!("c{}-{}", self.id, self.made);
        let padding = self.random.random_range(0..2000);
        let account = &self.account;
        let text = format!(
            "Message-ID: <{id}@ferrypost.test>\r\nFrom: <{account}>\r\nTo: <{account}>\r\n\
             Subject: {id}\r\n\r\n{}\r\n",
            // No line is longer than SMTP has it.
            format!("{}\r\n", "x".repeat(70)).repeat(padding / 72)
        );
        (id.into(), text)
    }

    /// What PLAIN says.
    pub(super) fn plain(&self) -> String {
        BASE64.encode(format!("\0{}\0{}", self.account, self.password))
    }

    /// A loopback address that no other client comes from.
    pub(super) fn address(&self) -> IpAddr {
        let id = u16::try_from(self.id).expect("clients are not that many");
        let [high, low] = id.to_be_bytes();
        Ipv4Addr::new(127, 1, high, low).into()
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn happens(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// Where the pause is in what is sent, if the line is slow.
    pub(super) fn is_slow(&mut self) -> bool {
        self.happens(self.habit.slow_percent)
    }

    /// What a slow line takes, whether or not the day is over.
    pub(super) async fn wait_for_line(&mut self) {
        let pause = self.random.random_range(SLOW_LINE_MS);
        sleep(Duration::from_millis(pause)).await;
    }

    /// A pause before the next thing; over at once when the day is.
    pub(super) async fn rest(&mut self) {
        self.pause(self.habit.pause.clone()).await;
    }

    pub(super) async fn pause(&mut self, milliseconds: Range<u64>) {
        let pause = self.random.random_range(milliseconds);
        let pause = sleep(Duration::from_millis(pause));
        _ = self.stop.run_until_cancelled(pause).await;
    }

    pub(super) fn record(
        &self,
        protocol: Protocol,
        action: Action,
        server: Option<Side>,
        (begun, ended): (Moment, Moment),
    ) {
        self.recorder.operation(Operation {
            client: self.id,
            protocol,
            account: Arc::clone(&self.account),
            data_plane: self.data_plane,
            server,
            begun,
            ended,
            action,
        });
    }
}
