//! How a data plane comes to its end, and what it answers until then.

use ferrypost_proto::routing::v1::{
    Command, ExplainName, KickSessions, ListSessions, ListUnlisted, Probe,
    command::Command as Kind, command_result::Result as Outcome, stream_request::Message as Up,
    stream_response::Message as Down,
};
use ferrypost_proto::v1::RouteRule;
use ferrypost_routing::testing::*;
use tokio::time::{Duration, Instant};

use super::scripted::{Served, TIMING, World, verdict, welcome};
use crate::{
    feed::{ConnectionState, FeedEnd, GoodbyeError, StreamRefused},
    registry::{Admission, CloseReason},
};

#[tokio::test(start_paused = true)]
async fn expelled_and_superseded_stop_serving_at_once_and_for_good() {
    for (reason, end) in [
        ("EXPELLED", FeedEnd::Expelled),
        ("SUPERSEDED", FeedEnd::Superseded),
    ] {
        let mut world = World::new();
        let stream = world.synced(chunk(5, vec![])).await;
        let Admission::Routed(session) = world.admit("alice") else {
            panic!("alice is routed");
        };
        stream.refuse(reason).await;
        assert_eq!(session.closing().await, CloseReason::Expelled);
        assert_eq!(world.feed.await.unwrap(), end);
        assert!(!world.readiness.is_ready());
        let admission = world.registry.admit(crate::registry::AdmitRequest {
            subject: crate::registry::Subject::Name(name("bob")),
            kind: crate::registry::SessionKind::Session,
            on_fence: crate::registry::OnFence::Hold,
            protocol: ferrypost_proto::v1::Protocol::Imap,
            client: "192.0.2.1:1".parse().ok(),
            reference: String::new(),
        });
        assert!(matches!(
            admission,
            Admission::Closed(CloseReason::Expelled)
        ));
        assert_eq!(
            world.handle.status().borrow().connection,
            ConnectionState::Ended(end)
        );
        let goodbye = world.handle.goodbye(0, Duration::from_secs(1)).await;
        assert_eq!(goodbye, Err(GoodbyeError::Ended));
    }
}

#[tokio::test(start_paused = true)]
async fn a_data_plane_whose_instance_is_in_use_stays_unready_says_so_and_tries_slowly() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    stream.hello().await;
    stream.refuse("INSTANCE_IN_USE").await;
    let refused = Instant::now();
    let mut status = world.handle.status();
    status
        .wait_for(|status| {
            status.connection == ConnectionState::Refused(StreamRefused::InstanceInUse)
        })
        .await
        .unwrap();
    let blockers = world.readiness.reasons();
    assert!(
        blockers[0].ends_with("the instance id is in use by another data plane"),
        "{blockers:?}"
    );
    let _stream = world.synced(chunk(5, vec![])).await;
    assert!(refused.elapsed() >= TIMING.refused_pause);
    assert!(world.readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn goodbye_ends_the_registration() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let handle = world.handle.clone();
    let goodbye = tokio::spawn(async move { handle.goodbye(3, Duration::from_secs(5)).await });
    let unconfirmed = stream.find(|message| goodbye_of(&message)).await;
    assert_eq!(unconfirmed, 3);
    stream.accept_goodbye().await;
    assert_eq!(goodbye.await.unwrap(), Ok(()));
    assert_eq!(world.feed.await.unwrap(), FeedEnd::Goodbye);
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_said_on_a_new_connection_if_the_old_one_is_lost() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let handle = world.handle.clone();
    let goodbye = tokio::spawn(async move { handle.goodbye(0, Duration::from_secs(5)).await });
    stream.find(|message| goodbye_of(&message)).await;
    drop(stream);
    let (mut stream, _) = world.welcomed().await;
    stream.find(|message| goodbye_of(&message)).await;
    stream.accept_goodbye().await;
    assert_eq!(goodbye.await.unwrap(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn goodbye_waits_no_longer_than_it_is_told() {
    let mut world = World::new();
    let _stream = world.synced(chunk(5, vec![])).await;
    let began = Instant::now();
    let goodbye = world.handle.goodbye(0, Duration::from_secs(5)).await;
    assert_eq!(goodbye, Err(GoodbyeError::TimedOut));
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn who_was_never_registered_has_nobody_to_say_goodbye_to() {
    let mut world = World::new();
    drop(world.stream().await);
    let began = Instant::now();
    let goodbye = world.handle.goodbye(0, Duration::from_mins(1)).await;
    assert_eq!(goodbye, Err(GoodbyeError::NotRegistered));
    assert!(began.elapsed() < Duration::from_secs(11));
}

fn goodbye_of(message: &Up) -> Option<u32> {
    match message {
        Up::Goodbye(goodbye) => Some(goodbye.unconfirmed),
        _ => None,
    }
}

async fn run(stream: &mut Served, command: Kind) -> Outcome {
    stream
        .send(Down::Command(Command {
            command_id: "c1".into(),
            command: Some(command),
            traceparent: String::new(),
        }))
        .await;
    let result = stream
        .find(|message| match message {
            Up::CommandResult(result) => Some(result),
            _ => None,
        })
        .await;
    assert_eq!(result.command_id, "c1");
    result.result.expect("a result")
}

#[tokio::test(start_paused = true)]
async fn a_name_is_explained_by_the_table_in_force() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let explain = |name: &str| {
        Kind::ExplainName(ExplainName {
            name: name.to_owned(),
        })
    };
    let Outcome::NameRoute(route) = run(&mut stream, explain("ALICE")).await else {
        panic!("a route");
    };
    assert_eq!(route.destination, "source");
    assert_eq!(route.rule(), RouteRule::Default);
    assert_eq!(route.applied.expect("a revision").store, 5);
    let bad = run(&mut stream, explain("a\"b")).await;
    assert!(matches!(bad, Outcome::Failed(_)), "{bad:?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_listed_and_kicked_by_name() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let Admission::Routed(alice) = world.admit("alice") else {
        panic!("alice is routed");
    };
    let _bob = world.admit("bob");
    let list = |names: &[&str]| {
        Kind::ListSessions(ListSessions {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            limit: 10,
            from: 0,
        })
    };
    let Outcome::SessionList(all) = run(&mut stream, list(&[])).await else {
        panic!("a list");
    };
    assert_eq!((all.total, all.held, all.truncated), (2, 0, false));
    // Page by page.
    let page = |from| {
        Kind::ListSessions(ListSessions {
            names: Vec::new(),
            limit: 1,
            from,
        })
    };
    let Outcome::SessionList(first) = run(&mut stream, page(0)).await else {
        panic!("a list");
    };
    assert_eq!(
        (&first.sessions[..], first.truncated),
        (&all.sessions[..1], true)
    );
    let next = first.sessions[0].serial + 1;
    let Outcome::SessionList(second) = run(&mut stream, page(next)).await else {
        panic!("a list");
    };
    assert_eq!(
        (&second.sessions[..], second.truncated),
        (&all.sessions[1..], false)
    );
    assert_eq!(second.total, 2);
    // As a person types it.
    let Outcome::SessionList(hers) = run(&mut stream, list(&["ALICE"])).await else {
        panic!("a list");
    };
    assert_eq!(hers.sessions.len(), 1);
    assert_eq!(hers.sessions[0].destination, "source");
    assert_eq!(hers.sessions[0].stage, "connecting");
    let kick = |names: &[&str]| {
        Kind::KickSessions(KickSessions {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    let Outcome::KickedSessions(kicked) = run(&mut stream, kick(&["alice"])).await else {
        panic!("kicked");
    };
    assert_eq!(kicked.kicked, 1);
    assert_eq!(alice.close_reason(), Some(CloseReason::Kicked));
    for bad in [kick(&[]), kick(&["a\"b"])] {
        assert!(matches!(run(&mut stream, bad).await, Outcome::Failed(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn names_without_a_record_are_listed_once_somebody_was_let_in() {
    let mut world = World::new();
    let alice = entry(1, &["alice"], "target", 4);
    let mut stream = world.synced(chunk(5, vec![alice])).await;
    for (name, is_let_in) in [
        ("alice", true),
        ("bob", true),
        ("carol", true),
        ("dave", false),
    ] {
        let Admission::Routed(session) = world.admit(name) else {
            panic!("{name} is routed");
        };
        if is_let_in {
            session.relaying();
        }
    }
    let mut list = async |local_parts: &[&str], after: &str, limit| {
        let list = Kind::ListUnlisted(ListUnlisted {
            local_parts: local_parts.iter().map(|it| (*it).to_owned()).collect(),
            after: after.to_owned(),
            limit,
        });
        let Outcome::Unlisted(list) = run(&mut stream, list).await else {
            panic!("a list");
        };
        let names: Vec<_> = list.names.into_iter().map(|it| it.name).collect();
        (names, list.truncated)
    };
    let owned = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&[], "", 10).await, (owned(&["bob", "carol"]), false));
    assert_eq!(list(&[], "", 1).await, (owned(&["bob"]), true));
    assert_eq!(list(&[], "bob", 1).await, (owned(&["carol"]), false));
    assert_eq!(
        list(&["carol", "erin"], "", 10).await,
        (owned(&["carol"]), false)
    );
}

#[tokio::test(start_paused = true)]
async fn probes_are_run_on_demand() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let probe = |destination: &str| {
        Kind::Probe(Probe {
            destination: destination.into(),
        })
    };
    let Outcome::Probed(probed) = run(&mut stream, probe("target")).await else {
        panic!("probed");
    };
    assert_eq!(probed.endpoints, [verdict(Some("target"), true)]);
    assert!(matches!(
        run(&mut stream, probe("NO")).await,
        Outcome::Failed(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_answered_with_health_and_changes_are_said_unasked() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, vec![])).await;
    let _session = world.admit("alice");
    stream.heartbeat(7).await;
    let health = stream
        .find(|message| match message {
            Up::Health(health) => Some(health),
            _ => None,
        })
        .await;
    assert_eq!((health.sequence, health.ready), (7, true));
    assert_eq!((health.sessions, health.held_logins), (1, 0));
    world
        .verdicts
        .send_replace([verdict(Some("source"), false)].into());
    let endpoints = loop {
        let message = stream.unasked().await;
        if !message.endpoints.is_empty() {
            break message.endpoints;
        }
    };
    assert_eq!(endpoints, [verdict(Some("source"), false)]);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_only_a_snapshot_can_tell_is_asked_for_as_one() {
    let mut world = World::new();
    let stream = world
        .synced(chunk(5, vec![entry(1, &["alice"], "third", 4)]))
        .await;
    stream
        .send(Down::Delta(delta(
            5,
            6,
            vec![reconfigured(config_without("third"))],
        )))
        .await;
    stream.given_up().await;
    let (mut stream, hello) = world.welcomed().await;
    assert_eq!(hello.applied, None);
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
    let mut snapshot = chunk(6, vec![entry(1, &["alice"], "third", 4)]);
    snapshot.config = Some(config_without("third"));
    let rejected = stream.snapshot(snapshot).await.expect("a rejection");
    assert_eq!(rejected.entries.len(), 1);
    drop(stream);
    let (_, hello) = world.welcomed().await;
    assert!(hello.applied.is_some(), "asked for once");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_begins_with_anything_but_a_good_welcome_is_given_up() {
    let mut world = World::new();
    let stream = world.stream().await;
    stream.send(Down::Delta(delta(0, 5, vec![]))).await;
    stream.given_up().await;
    let stream = world.stream().await;
    let mut nameless = welcome();
    nameless.installation = "not an id".into();
    stream.send(Down::Welcome(nameless)).await;
    stream.given_up().await;
    // And one that says nothing at all, after its deadline.
    let stream = world.stream().await;
    let opened = Instant::now();
    stream.given_up().await;
    assert!(opened.elapsed() >= TIMING.welcome_within * 99 / 100);
    world.synced(chunk(5, vec![])).await;
}
