//! Mail clients that live through moves as real ones do: they log in, read, write, wait, send, log out, and
//! when a session is lost they come back, writing down all that a server acknowledged.

mod client;
mod doors;
mod imap;
mod landings;
mod lmtp;
mod mailbox;
mod pop3;
mod seeds;
mod sieve;
mod submission;
mod user;
mod web;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::{Protocol, Recorder};
use crate::world::World;

use client::{Session, run};
use doors::Doors;
use imap::Imap;
use landings::Landings;
use pop3::Pop3;
use seeds::sow;
use sieve::Sieve;
use submission::Submission;
use user::User;
use web::{Events, Files, Sockets};

pub use mailbox::read_mailbox;
pub use user::Habit;
pub use web::{executed, read_files};

/// The habit of whoever only waits.
const NOTHING: Habit = Habit {
    pause: 0..1,
    slow_percent: 0,
    login_percent: 0,
};

/// Clients that run until they are told to stop.
pub struct Workload {
    recorder: Recorder,
    /// By data plane.
    doors: Vec<Doors>,
    landings: Landings,
    accounts: Arc<[Arc<str>]>,
    password: Arc<str>,
    seed: u64,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

/// How a client's connection becomes a secret, where its protocol has two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first octet.
    Implicit,
    /// By a command.
    Starttls,
}

/// What a client does all day.
#[derive(Debug, Clone)]
pub enum Job {
    /// Speaks a protocol.
    Busy(Protocol, Habit),
    /// Waits in IMAP's IDLE for as long as it is let.
    Idle,
    /// Writes over a WebSocket.
    Socket(Habit),
    /// Listens to an event stream for as long as it is let.
    Listen,
}

/// Whose client it is, and how it connects.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The account, by its address.
    pub account: &'a str,
    /// The data plane, counted from 0.
    pub data_plane: usize,
    /// How connections become a secret.
    pub tls: Tls,
}

impl Workload {
    /// Nobody yet. What clients do depends on `seed` alone; when they do it does not.
    pub fn new(world: &World, recorder: Recorder, seed: u64) -> Self {
        Self {
            recorder,
            doors: (0..world.data_planes().len())
                .map(|data_plane| Doors::of(world, data_plane))
                .collect(),
            landings: Landings::of(world),
            accounts: world
                .accounts()
                .iter()
                .map(|it| it.as_str().into())
                .collect(),
            password: world.password().into(),
            seed,
            stop: CancellationToken::new(),
            clients: JoinSet::new(),
        }
    }

    /// Puts messages into accounts that live on the source, before anybody moves: POP3 clients delete these alone.
    ///
    /// # Errors
    /// When the source does not take them.
    pub async fn sow(&self, world: &World, accounts: &[String]) -> anyhow::Result<()> {
        sow(world, accounts, &self.recorder).await
    }

    /// Starts one more client. In a world without submission nobody submits, in one without deliveries nobody delivers,
    /// and in one without HTTP nobody speaks it.
    pub fn add(&mut self, place: Place<'_>, job: Job) {
        let (protocol, habit) = match job {
            Job::Busy(protocol, habit) => (protocol, Some(habit)),
            Job::Idle => (Protocol::Imap, None),
            Job::Socket(habit) => return self.surf::<Sockets>(self.user(place, habit)),
            Job::Listen => return self.surf::<Events>(self.user(place, NOTHING)),
        };
        let idles = habit.is_none();
        let user = self.user(place, habit.unwrap_or(NOTHING));
        let doors = &self.doors[place.data_plane];
        let landings = self.landings.clone();
        match protocol {
            Protocol::Imap => {
                let connect = doors.imap(place.tls);
                let door = imap::Door { connect, idles };
                self.clients.spawn(run::<Imap>(user, door));
            }
            Protocol::Pop3 => {
                let door = pop3::Door {
                    connect: doors.pop3(place.tls, user.address()),
                    tls: place.tls,
                    landings,
                };
                self.clients.spawn(run::<Pop3>(user, door));
            }
            Protocol::ManageSieve => {
                let connect = doors.sieve(user.address());
                let door = sieve::Door { connect, landings };
                self.clients.spawn(run::<Sieve>(user, door));
            }
            Protocol::Submission => {
                if let Some(door) = doors.submission() {
                    self.clients.spawn(run::<Submission>(user, door));
                }
            }
            Protocol::Lmtp => {
                if let Some(connect) = doors.lmtp() {
                    let others = Arc::clone(&self.accounts);
                    let door = lmtp::Door { connect, others };
                    self.clients.spawn(lmtp::run(user, door));
                }
            }
            Protocol::Http => self.surf::<Files>(user),
        }
    }

    /// Starts a client that speaks HTTP.
    fn surf<S: Session<Door = web::Door> + 'static>(&mut self, user: User) {
        if let Some(connect) = self.doors[user.data_plane].web() {
            let door = web::Door::of(&user, connect);
            self.clients.spawn(run::<S>(user, door));
        }
    }

    fn user(&self, place: Place<'_>, habit: Habit) -> User {
        let id = self.clients.len() + 1;
        User {
            id,
            account: place.account.into(),
            data_plane: place.data_plane,
            password: Arc::clone(&self.password),
            habit,
            recorder: self.recorder.clone(),
            random: StdRng::seed_from_u64(self.seed.wrapping_add(id as u64)),
            stop: self.stop.clone(),
            made: 0,
        }
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
