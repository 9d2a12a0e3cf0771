//! A data plane that is nothing but what it has acknowledged and where it sends people.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_proto::{
    BootId, CONTRACTS, SCHEMAS, StateId, TablePosition,
    routing::v1::{
        AccountEntry, Applied, Command, CommandResult, Doubt, Doubts, Health, HeldDoubts, Hello,
        HoldDoubts, ListDoubts, Place, SnapshotChunk, StreamRequest, StreamResponse,
        command::Command as Asked, command_result::Result as Answer,
        stream_request::Message as Said, stream_response::Message as Told,
    },
};
use ferrypost_runtime::Random;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use crate::fleet::{Claimable, Fleet};

/// Between two attempts to be served.
const PAUSE: Duration = Duration::from_millis(5);

/// The replica that streams go to; `None` while there is none.
pub(super) type Served = watch::Receiver<Option<Fleet>>;

/// Accounts by their ids.
pub(super) type Accounts = BTreeMap<String, AccountEntry>;

/// A running one. It ends when it is dropped, without a goodbye.
pub(super) struct Plane {
    life: Arc<Mutex<Life>>,
    task: JoinHandle<()>,
}

struct Life {
    hello: Hello,
    position: Option<TablePosition>,
    acknowledged: Accounts,
    /// Where accounts are sent that are not held.
    serves: BTreeMap<String, String>,
    /// What the comparison with a restored store came to.
    doubts: Option<Vec<Doubt>>,
    /// And what others have in doubt.
    elsewhere: Vec<Doubt>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plane {
    /// One that serves what it has acknowledged.
    pub(super) fn runs(
        hello: Hello,
        (position, acknowledged): (Option<TablePosition>, Accounts),
        served: Served,
    ) -> Self {
        let life = Life {
            hello,
            position,
            serves: homes(&acknowledged),
            acknowledged,
            doubts: None,
            elsewhere: Vec::new(),
        };
        let life = Arc::new(Mutex::new(life));
        let task = tokio::spawn(live(life.clone(), served));
        Self { life, task }
    }

    /// Where it sends an account; `None` while it holds it.
    pub(super) fn sends(&self, account: &str) -> Option<String> {
        lock(&self.life).serves.get(account).cloned()
    }
}

fn lock(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}

fn homes(accounts: &Accounts) -> BTreeMap<String, String> {
    let homes = accounts.iter();
    homes
        .map(|(id, entry)| (id.clone(), entry.home.clone()))
        .collect()
}

/// How a new one introduces itself.
pub(super) fn hello(instance: &str, random: &Random) -> Hello {
    Hello {
        contract: CONTRACTS.oldest(),
        contracts: Some(CONTRACTS.into()),
        schemas: Some(SCHEMAS.into()),
        instance: instance.to_owned(),
        boot: BootId::generate(random.bytes()).into(),
        state_id: StateId::generate(random.bytes()).into(),
        place: Some(Place {
            kernel: "kernel".into(),
            machine: "machine".into(),
            file: instance.to_owned(),
        }),
        held_current: true,
        ..Hello::default()
    }
}

/// Goes to whichever replica there is, again and again.
async fn live(life: Arc<Mutex<Life>>, mut served: Served) {
    loop {
        let fleet = served.borrow_and_update().clone();
        if let Some(fleet) = fleet {
            tokio::select! {
                () = talk(&life, &fleet) => {}
                _ = served.changed() => {}
            }
        }
        time::sleep(PAUSE).await;
    }
}

/// One stream, to its end.
#[expect(clippy::disallowed_methods, reason = "a test says only so much")]
async fn talk(life: &Mutex<Life>, fleet: &Fleet) {
    let (said, requests) = mpsc::unbounded_channel();
    let say = |message| {
        // A stream that has ended is seen below.
        let _ = said.send(Ok::<_, Status>(StreamRequest {
            message: Some(message),
        }));
    };
    say(Said::Hello(lock(life).hello()));
    let requests = UnboundedReceiverStream::new(requests);
    let Ok(mut told) = fleet.serve(requests, &Claimable::Any).await else {
        return;
    };
    while let Some(Ok(StreamResponse {
        message: Some(told),
    })) = told.recv().await
    {
        let mut life = lock(life);
        match told {
            Told::Welcome(welcome) => life.hello.installation = welcome.installation,
            Told::SnapshotChunk(stored) if stored.comparison => life.compare(stored),
            Told::SnapshotChunk(chunk) => say(life.apply(chunk)),
            Told::Command(command) => say(life.answer(command)),
            Told::Heartbeat(beat) => say(Said::Health(Health {
                sequence: beat.sequence,
                ready: true,
                ..Health::default()
            })),
            Told::CookieKeys(_) => {}
            // It comes again for a snapshot.
            Told::Delta(_) | Told::GoodbyeAccepted(_) => return,
        }
    }
}

impl Life {
    fn hello(&mut self) -> Hello {
        self.doubts = None;
        Hello {
            held: self.position.clone().map(Into::into),
            ..self.hello.clone()
        }
    }

    fn apply(&mut self, chunk: SnapshotChunk) -> Said {
        assert!(chunk.last, "a few accounts fit in one chunk");
        let position = chunk.position.clone().map(TablePosition::from);
        let revision = |it: &Option<TablePosition>| it.as_ref().map(|it| it.revision);
        assert!(
            revision(&position) >= revision(&self.position),
            "revisions never run backwards"
        );
        self.acknowledged = by_id(chunk.accounts);
        self.serves = homes(&self.acknowledged);
        self.position = position;
        self.elsewhere.clear();
        Said::Applied(Applied {
            position: chunk.position,
        })
    }

    fn compare(&mut self, stored: SnapshotChunk) {
        let stored = by_id(stored.accounts);
        let ids = self.acknowledged.keys().chain(stored.keys());
        let ids: std::collections::BTreeSet<_> = ids.collect();
        let doubts = ids.into_iter().filter_map(|id| {
            let (held, stored) = (self.acknowledged.get(id), stored.get(id));
            let word = |it: &AccountEntry| (it.home.clone(), it.names.clone());
            (held.map(word) != stored.map(word)).then(|| Doubt {
                account_id: id.clone(),
                held: held.cloned(),
                stored: stored.cloned(),
            })
        });
        self.doubts = Some(doubts.collect());
    }

    fn answer(&mut self, command: Command) -> Said {
        let answer = match command.command {
            _ if self.doubts.is_none() => Answer::Failed("not compared yet".to_owned()),
            Some(Asked::ListDoubts(asked)) => Answer::Doubts(self.list(&asked)),
            Some(Asked::HoldDoubts(hold)) => Answer::HeldDoubts(self.hold(hold)),
            other => Answer::Failed(format!("{other:?}")),
        };
        Said::CommandResult(CommandResult {
            command_id: command.command_id,
            result: Some(answer),
        })
    }

    fn list(&self, asked: &ListDoubts) -> Doubts {
        let doubts = self.doubts.iter().flatten();
        let behind = doubts.filter(|doubt| doubt.account_id > asked.after);
        // It is of few words, so that a list of two accounts has two pages.
        let listed: Vec<_> = behind.cloned().collect();
        Doubts {
            more: listed.len() > 1,
            doubts: listed.into_iter().take(1).collect(),
            total: self.doubts.iter().flatten().count() as u64,
            held: self.position.clone().map(Into::into),
            held_current: true,
        }
    }

    fn hold(&mut self, hold: HoldDoubts) -> HeldDoubts {
        self.elsewhere.extend(hold.also);
        if hold.more {
            return HeldDoubts::default();
        }
        let served = self.serves.len();
        for doubt in self.doubts.iter().flatten().chain(&self.elsewhere) {
            self.serves.remove(&doubt.account_id);
        }
        // A session takes one look more to be closed.
        HeldDoubts {
            sessions_left: u32::from(self.serves.len() < served),
        }
    }
}

fn by_id(accounts: Vec<AccountEntry>) -> Accounts {
    let accounts = accounts.into_iter();
    accounts
        .map(|entry| (entry.account_id.clone(), entry))
        .collect()
}
