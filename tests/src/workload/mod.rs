//! Mail clients that live through moves as real ones do: they log in, read, write, wait in IDLE, log
//! out, and when a session is lost they come back, writing down all that a server acknowledged.

mod client;
mod mailbox;
mod session;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;
use crate::imap::Connect;

pub use client::{Client, Habit};
pub use mailbox::read_mailbox;

/// Clients that run until they are told to stop.
pub struct Workload {
    recorder: Recorder,
    password: Arc<str>,
    seed: u64,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Workload {
    /// Nobody yet. What clients do depends on `seed` alone; when they do it does not.
    pub fn new(recorder: Recorder, password: &str, seed: u64) -> Self {
        Self {
            recorder,
            password: password.into(),
            seed,
            stop: CancellationToken::new(),
            clients: JoinSet::new(),
        }
    }

    /// Starts one more client of an account.
    pub fn add(&mut self, account: &str, data_plane: usize, connect: Connect, habit: Habit) {
        let id = self.clients.len() + 1;
        let client = Client {
            id,
            account: account.into(),
            data_plane,
            connect,
            password: Arc::clone(&self.password),
            habit,
            recorder: self.recorder.clone(),
            random: StdRng::seed_from_u64(self.seed.wrapping_add(id as u64)),
            stop: self.stop.clone(),
        };
        self.clients.spawn(client.run());
    }

    /// How many there are.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Lets every client finish what it is doing and log out.
    ///
    /// # Panics
    /// When a client has.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic, whatever it is sent");
        }
    }
}
