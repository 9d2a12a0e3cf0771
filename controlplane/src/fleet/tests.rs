//! The server side of the stream's rules, on the embedded store.

mod cookie_keys;
mod versions;
pub(crate) mod world;

use std::time::Duration;

use ferrypost_proto::{
    BootId, CONTRACTS, InstallationId, MigrationId, Phase, ReplicaId, Revision, TablePosition,
    TraceParent,
    routing::v1::{
        self as wire, Applied, CommandResult, Drained, DrainedAccount, Goodbye, Health, Hello,
        KickedSessions, command, command_result, stream_request::Message as Said,
        stream_response::Message as Told,
    },
    store::v1::{DrainedReport, MigrationRecord, StoredCommand},
    v1,
};
use tokio::time;

use crate::{
    domain::state::State,
    store::{Txn, keys, value::Stored},
};
use world::{OFTEN, SELDOM, World, reason};

#[tokio::test]
async fn rule_1_a_subscriber_resumes_by_revision() {
    let world = World::new().await;
    let (peer, position) = world.join(world.hello("dp")).await;
    let hello = Hello {
        applied: Some(position.clone().into()),
        ..peer.hello.clone()
    };
    drop(peer);
    let (_, revision) = world.account("alice", Phase::Settled).await;
    let mut peer = world.connect(hello).await.unwrap();
    peer.welcome().await;
    let delta = peer.delta().await;
    assert_eq!(delta.from.map(Revision::from), Some(position.revision));
    let to = TablePosition::from(delta.to.unwrap());
    assert_eq!((to.revision.store(), to.head.store), (revision, revision));
    assert_eq!(delta.changes.len(), 1);
}

#[tokio::test]
async fn rule_1_without_a_table_or_after_too_long_there_is_a_snapshot() {
    let world = World::with(2, SELDOM).await;
    let (peer, position) = world.join(world.hello("dp")).await;
    let hello = Hello {
        applied: Some(position.into()),
        ..peer.hello.clone()
    };
    drop(peer);
    for name in ["a", "b", "c", "d"] {
        world.account(name, Phase::Settled).await;
    }
    let mut peer = world.connect(hello).await.unwrap();
    peer.welcome().await;
    assert_eq!(
        peer.snapshot().await.revision,
        world.state().await.wire_revision()
    );
}

#[tokio::test]
async fn rule_6_a_slow_subscriber_gets_every_change_or_a_snapshot() {
    let world = World::with(8, SELDOM).await;
    let (mut peer, mut position) = world.join(world.hello("dp")).await;
    // It takes nothing while far more changes than the log and the queue hold go by.
    for n in 0..40 {
        world.account(&format!("user{n}"), Phase::Settled).await;
    }
    let end = world.state().await.position().revision;
    let mut accounts = 0;
    while position.revision < end && accounts < 40 {
        match peer.told().await {
            Told::Delta(delta) => {
                assert_eq!(
                    delta.from.map(Revision::from),
                    Some(position.revision),
                    "no gap"
                );
                position = delta.to.unwrap().into();
                accounts += delta.changes.len();
            }
            Told::SnapshotChunk(chunk) => {
                assert!(chunk.last);
                position = chunk.position.unwrap().into();
                accounts = chunk.accounts.len();
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(accounts, 40);
}

#[tokio::test]
async fn rule_7_drained_is_written_for_its_boot_and_only_for_its_own_fence() {
    let world = World::new().await;
    let (peer, _) = world.join(world.hello("dp")).await;
    let (account, migration, epoch) = world.fenced("alice").await;
    let drained = |store| Drained {
        migration_id: migration.as_str().to_owned(),
        accounts: vec![DrainedAccount {
            account_id: account.as_str().to_owned(),
            fence_epoch: Some(v1::Revision { base: 0, store }),
            closed: 3,
            unconfirmed: 0,
        }],
    };
    peer.say(Said::Drained(drained(epoch - 1)));
    // Nor may it fill the memory with reports for moves that are not this account's.
    let other = MigrationId::generate(world.random.bytes());
    peer.say(Said::Drained(Drained {
        migration_id: other.as_str().to_owned(),
        ..drained(epoch)
    }));
    peer.say(Said::Drained(drained(epoch)));
    let dp = World::instance("dp");
    world
        .until("a drained report", |state| {
            state
                .drained(&migration)
                .is_some_and(|reports| reports.contains_key(&dp))
        })
        .await;
    let state = world.state().await;
    let report = &state.drained(&migration).unwrap()[&dp].value;
    assert_eq!(report.boot, peer.hello.boot);
    assert_eq!(report.accounts.len(), 1);
    assert_eq!(
        (report.accounts[0].fence_epoch, report.accounts[0].closed),
        (epoch, 3)
    );
    assert!(state.drained(&other).is_none());
}

#[tokio::test]
async fn rule_10_another_installation_is_refused_and_ours_is_named() {
    let world = World::new().await;
    let mut peer = world.connect(world.hello("dp")).await.unwrap();
    assert_eq!(
        peer.welcome().await.installation,
        world.installation.as_str()
    );
    let elsewhere = InstallationId::generate(world.random.bytes());
    let hello = Hello {
        installation: elsewhere.into(),
        ..world.hello("other")
    };
    let refused = world.connect(hello).await.err().unwrap();
    assert_eq!(reason(&refused), "INSTALLATION_MISMATCH");
}

#[tokio::test]
async fn rule_11_a_subscriber_above_the_store_proves_a_restore() {
    let world = World::new().await;
    let (peer, mut position) = world.join(world.hello("dp")).await;
    let (other, _) = world.join(world.hello("other")).await;
    position.revision = Revision::new(0, position.revision.store() + 1000);
    let hello = Hello {
        applied: Some(position.into()),
        ..peer.hello.clone()
    };
    drop(peer);
    let mut peer = world.connect(hello).await.unwrap();
    assert!(peer.welcome().await.rewound, "it keeps what it has");
    world
        .until("rewound", |state| state.rewound().is_some())
        .await;
    let refused = world.connect(world.hello("third")).await.err().unwrap();
    assert_eq!(reason(&refused), "REWOUND");
    assert_eq!(world.state().await.rewound().unwrap().value.instance, "dp");
    drop(other);
}

#[tokio::test]
async fn rule_11_a_head_of_another_history_proves_a_restore() {
    let world = World::new().await;
    let (peer, mut position) = world.join(world.hello("dp")).await;
    world.account("alice", Phase::Settled).await;
    world.account("bob", Phase::Settled).await;
    position.head.nonce = vec![7; 16];
    let hello = Hello {
        applied: Some(position.into()),
        ..peer.hello.clone()
    };
    drop(peer);
    let mut peer = world.connect(hello).await.unwrap();
    assert!(peer.welcome().await.rewound);
    assert!(world.state().await.rewound().is_some());
}

/// All that a gateway knows after a restart is in its state directory.
#[tokio::test]
async fn rule_11_a_data_plane_that_restarts_proves_a_restore() {
    let world = World::new().await;
    let (peer, mut position) = world.join(world.hello("dp")).await;
    world.account("alice", Phase::Settled).await;
    let successor = Hello {
        state_id: peer.hello.state_id.clone(),
        installation: peer.hello.installation.clone(),
        ..world.hello("dp")
    };
    drop(peer);
    let dp = World::instance("dp");
    world
        .until("no /live", |state| !state.live().contains_key(&dp))
        .await;
    position.head.nonce = vec![7; 16];
    let hello = Hello {
        held: Some(position.into()),
        ..successor
    };
    let mut peer = world.connect(hello).await.unwrap();
    assert!(peer.welcome().await.rewound);
    assert_eq!(world.state().await.rewound().unwrap().value.instance, "dp");
    // It is shown what the store holds, and not to serve from.
    match peer.told().await {
        Told::SnapshotChunk(chunk) => assert!(chunk.comparison && chunk.last),
        other => panic!("nothing to compare with: {other:?}"),
    }
}

/// A gateway of another installation that was pointed here by mistake, and one that cannot know this
/// installation, prove nothing: or one wrong line in a configuration stopped every move for good.
#[tokio::test]
async fn rule_11_a_table_of_another_installation_proves_nothing() {
    let world = World::new().await;
    let (_peer, mut position) = world.join(world.hello("dp")).await;
    position.revision = Revision::new(0, position.revision.store() + 1000);
    let stranger = |installation: String, contract| Hello {
        applied: Some(position.clone().into()),
        installation,
        contract,
        contracts: None,
        ..world.hello("stranger")
    };
    let elsewhere = InstallationId::generate(world.random.bytes()).into();
    let contract = CONTRACTS.newest();
    let refused = world.connect(stranger(elsewhere, contract)).await.err();
    assert_eq!(reason(&refused.unwrap()), "INSTALLATION_MISMATCH");
    let ours = world.installation.as_str().to_owned();
    let refused = world.connect(stranger(ours, contract + 1)).await.err();
    assert_eq!(reason(&refused.unwrap()), "CONTRACT_UNSUPPORTED");
    let mut peer = world
        .connect(stranger(String::new(), contract))
        .await
        .unwrap();
    assert!(!peer.welcome().await.rewound);
    peer.snapshot().await;
    assert!(world.state().await.rewound().is_none());
}

#[tokio::test]
async fn a_second_process_waits_and_a_successor_is_remembered() {
    let world = World::new().await;
    let (peer, _) = world.join(world.hello("dp")).await;
    let dp = World::instance("dp");
    world
        .until("/live", |state| state.live().contains_key(&dp))
        .await;
    let successor = Hello {
        state_id: peer.hello.state_id.clone(),
        ..world.hello("dp")
    };
    for hello in [world.hello("dp"), successor.clone()] {
        let refused = world.connect(hello).await.err().unwrap();
        assert_eq!(reason(&refused), "INSTANCE_IN_USE");
    }
    let predecessor = peer.hello.clone();
    drop(peer);
    world
        .until("no /live", |state| !state.live().contains_key(&dp))
        .await;
    let mut peer = world.connect(successor).await.unwrap();
    peer.welcome().await;
    let state = world.state().await;
    let registration = &state.registrations()[&dp].value;
    assert_eq!(registration.unsettled_predecessor, predecessor.boot);
    let refused = world.connect(predecessor).await.err().unwrap();
    assert_eq!(reason(&refused), "SUPERSEDED");
}

#[tokio::test]
async fn a_goodbye_ends_the_registration_and_unconfirmed_closes_leave_a_note() {
    let world = World::new().await;
    for (instance, unconfirmed) in [("one", 0), ("two", 2)] {
        let (mut peer, _) = world.join(world.hello(instance)).await;
        peer.say(Said::Goodbye(Goodbye { unconfirmed }));
        assert!(matches!(peer.told().await, Told::GoodbyeAccepted(_)));
        let state = world.state().await;
        assert!(state.registrations().is_empty());
        assert_eq!(state.departed().len(), usize::from(unconfirmed > 0));
    }
}

#[tokio::test]
async fn the_expelled_are_told_and_stay_out() {
    let world = World::new().await;
    let (mut peer, _) = world.join(world.hello("dp")).await;
    let dp = World::instance("dp");
    let boot = BootId::parse(&peer.hello.boot).unwrap();
    let expelled = Stored::new(ferrypost_proto::store::v1::Expelled::default());
    let txn = Txn::new()
        .put(keys::expelled(&dp, &boot), expelled.bytes())
        .delete(keys::registration(&dp));
    world.commit(txn).await;
    assert_eq!(peer.end().await, "EXPELLED");
    let refused = world.connect(peer.hello.clone()).await.err().unwrap();
    assert_eq!(reason(&refused), "EXPELLED");
}

#[tokio::test]
async fn live_says_what_a_data_plane_applied_when_somebody_waits_for_it() {
    let world = World::new().await;
    let (mut peer, position) = world.join(world.hello("dp")).await;
    peer.say(Said::Applied(Applied {
        position: Some(position.into()),
    }));
    let dp = World::instance("dp");
    let applied = |state: &State| {
        state
            .live()
            .get(&dp)
            .and_then(|live| live.value.applied)
            .map_or(0, |applied| applied.store)
    };
    world
        .until("the first table", |state| applied(state) > 0)
        .await;
    let first = applied(&*world.state().await);
    // Nobody waits for this one.
    world.account("bob", Phase::Settled).await;
    let delta = peer.delta().await;
    peer.say(Said::Applied(Applied { position: delta.to }));
    // But for this one.
    let (account, epoch) = world.account("alice", Phase::Copying).await;
    let record = MigrationRecord {
        state: v1::MigrationState::Queued.into(),
        accounts: vec![v1::MigratingAccount {
            account_id: account.as_str().to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let migration = MigrationId::generate(world.random.bytes());
    world
        .commit(Txn::new().put(keys::migration(&migration), Stored::new(record).bytes()))
        .await;
    assert_eq!(applied(&*world.state().await), first);
    let delta = peer.delta().await;
    peer.say(Said::Applied(Applied { position: delta.to }));
    world
        .until("the awaited table", |state| applied(state) >= epoch)
        .await;
}

#[tokio::test]
async fn silence_takes_live_away_but_never_the_registration() {
    let world = World::with(100, OFTEN).await;
    let (mut peer, _) = world.join(world.hello("dp")).await;
    let dp = World::instance("dp");
    peer.say(Said::Health(Health {
        ready: true,
        ..Health::default()
    }));
    world
        .until("/live", |s| {
            s.live().get(&dp).is_some_and(|live| live.value.ready)
        })
        .await;
    world
        .until("no /live", |state| !state.live().contains_key(&dp))
        .await;
    assert_eq!(peer.end().await, "DEADLINE_EXCEEDED");
    assert!(world.state().await.registrations().contains_key(&dp));
}

/// Whoever took it away: an older stream's last word that came late, a lease that ran out.
#[tokio::test]
async fn what_a_stream_has_written_is_written_again_when_it_is_gone() {
    let world = World::with(100, OFTEN).await;
    let (peer, position) = world.join(world.hello("dp")).await;
    let dp = World::instance("dp");
    let talks = async {
        loop {
            peer.say(Said::Health(Health {
                ready: true,
                ..Health::default()
            }));
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ready = |state: &State| state.live().get(&dp).is_some_and(|live| live.value.ready);
    let taken_away = async {
        world.until("/live", ready).await;
        world.commit(Txn::new().delete(keys::live(&dp))).await;
        world.until("/live is back", ready).await;
    };
    tokio::select! {
        () = taken_away => {}
        () = talks => {}
    }
    drop(position);
}

/// The last word of a stream of an earlier boot must not stand in for the report of this one.
#[tokio::test]
async fn a_report_that_was_written_over_is_written_again() {
    let world = World::with(100, OFTEN).await;
    let (peer, _) = world.join(world.hello("dp")).await;
    let (account, migration, epoch) = world.fenced("alice").await;
    peer.say(Said::Drained(Drained {
        migration_id: migration.as_str().to_owned(),
        accounts: vec![DrainedAccount {
            account_id: account.as_str().to_owned(),
            fence_epoch: Some(Revision::new(0, epoch).into()),
            ..Default::default()
        }],
    }));
    let dp = World::instance("dp");
    let boot = peer.hello.boot.clone();
    let ours = |state: &State| {
        let reports = state.drained(&migration);
        reports.is_some_and(|of| of.get(&dp).is_some_and(|report| report.value.boot == boot))
    };
    let talks = async {
        loop {
            peer.say(Said::Health(Health::default()));
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let written_over = async {
        world.until("the report", ours).await;
        let stale = DrainedReport {
            boot: "an earlier one".to_owned(),
            ..DrainedReport::default()
        };
        world
            .commit(Txn::new().put(keys::drained(&migration, &dp), Stored::new(stale).bytes()))
            .await;
        world.until("the report is back", ours).await;
    };
    tokio::select! {
        () = written_over => {}
        () = talks => {}
    }
}

/// An answer that comes when nobody waits for it any more must not stay in the store for as long as
/// the replica lives.
#[tokio::test]
async fn an_answer_for_another_replica_that_nobody_takes_is_removed() {
    let world = World::new().await;
    let (mut peer, _) = world.join(world.hello("dp")).await;
    let ours = ReplicaId::parse("one").unwrap();
    let command = wire::Command {
        command_id: "c-1".to_owned(),
        command: Some(command::Command::KickSessions(wire::KickSessions {
            names: vec!["a".into()],
        })),
        traceparent: String::new(),
    };
    let stored = StoredCommand {
        instance: "dp".to_owned(),
        command: prost::Message::encode_to_vec(&command).into(),
        ..Default::default()
    };
    world
        .commit(Txn::new().put(keys::command(&ours, "c-1"), Stored::new(stored).bytes()))
        .await;
    let Told::Command(asked) = peer.told().await else {
        panic!("not a command")
    };
    peer.say(Said::CommandResult(CommandResult {
        command_id: asked.command_id,
        ..Default::default()
    }));
    world
        .until("the answer", |state| state.results().len() == 1)
        .await;
    world
        .until("nothing is left", |state| {
            state.results().is_empty() && state.commands().is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_question_reaches_every_data_plane_and_names_the_silent_ones() {
    let world = World::new().await;
    let (mut peer, _) = world.join(world.hello("talks")).await;
    let (_silent, _) = world.join(world.hello("silent")).await;
    let both = |state: &State| state.registrations().len() == 2;
    world.until("both are registered", both).await;
    let question = command::Command::KickSessions(wire::KickSessions {
        names: vec!["a".into()],
    });
    let answering = async {
        let Told::Command(command) = peer.told().await else {
            panic!("not a command")
        };
        peer.say(Said::CommandResult(CommandResult {
            command_id: command.command_id,
            result: Some(command_result::Result::KickedSessions(KickedSessions {
                kicked: 2,
            })),
        }));
    };
    let trace = TraceParent::generate(world.random.bytes());
    let (asked, ()) = tokio::join!(
        world.fleet.ask(&question, Duration::from_secs(5), trace),
        answering
    );
    assert_eq!(asked.unreachable, [World::instance("silent")]);
    assert_eq!(asked.answers.len(), 1);
    assert_eq!(asked.answers[0].0, World::instance("talks"));
}
