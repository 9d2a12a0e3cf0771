//! Relays: back-pressure, bulk, time, and what a session costs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ferrypost_runtime::metrics::{Levels, prometheus};
use tracing::{Id, Subscriber, span};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _, registry::LookupSpan};

use super::{
    backend::Manners,
    eventually,
    log::subscribe,
    noops,
    world::{Plan, World},
};

const FLOOD: usize = 64 << 20;

fn flooding() -> Plan {
    Plan {
        old: Manners {
            flood: FLOOD,
            ..Manners::default()
        },
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_arrives_whole() {
    let world = World::with(flooding());
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("f FLOOD\r\n").await;
    client.answer("* 1 FETCH").await;
    let mut left = FLOOD;
    while left > 0 {
        let count = left.min(1 << 20);
        assert!(
            client
                .read_exact(count)
                .await
                .iter()
                .all(|octet| *octet == b'x')
        );
        left -= count;
    }
    client.answer("f OK").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_server_and_not_our_memory() {
    let world = World::with(flooding());
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("f FLOOD\r\n").await;
    let flooded = || world.old.seen.count(&world.old.seen.flooded);
    eventually("the flood has begun", || flooded() > 0).await;
    // Another session is not slowed down. Everything runs on this thread, so each of its round trips gives whatever
    // can move its turn: the kernel's buffers fill up, and then nothing does.
    let mut other = world.client().await;
    other.login("bob@example.org").await;
    let (mut before, mut idle_turns) = (usize::MAX, 0);
    while idle_turns < 50 {
        other.send("n NOOP\r\n").await;
        other.answer("n OK").await;
        idle_turns = if before == flooded() {
            idle_turns + 1
        } else {
            0
        };
        before = flooded();
    }
    assert!(
        flooded() < FLOOD,
        "everything was taken from the server: {}",
        flooded()
    );
    // And the stuck one is ended when its time comes.
    world.fence();
    eventually("the stuck session is told", || {
        let sessions = world.registry.sessions(&[], 10).sessions;
        sessions
            .iter()
            .any(|s| s.stage == crate::registry::Stage::Closing)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_given_up() {
    let mut plan = flooding();
    plan.limits.relay.stalled = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("f FLOOD\r\n").await;
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
}

#[tokio::test]
async fn a_session_in_which_nothing_is_said_ends_with_a_goodbye() {
    let mut plan = Plan::default();
    plan.limits.relay.idle = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    assert!(client.rest().await.starts_with("* BYE"));
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

/// What it means depends on the server's answer, so it waits for it, and not for ever.
#[tokio::test]
async fn what_a_client_sends_ahead_of_an_answer_goes_on_after_a_time() {
    let mut plan = Plan::default();
    plan.old.mute = true;
    plan.limits.relay.answer = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("a IDLE\r\nb NOOP\r\n").await;
    eventually("the server is asked to idle", || {
        world.old.seen.has("a IDLE")
    })
    .await;
    assert!(!world.old.seen.has("b NOOP"));
    eventually("the rest goes on", || world.old.seen.has("b NOOP")).await;
    client.send("c NOOP\r\n").await;
    eventually("so does what comes later", || world.old.seen.has("c NOOP")).await;
    world.fence();
    eventually("the session is over", || {
        world.registry.counts().sessions == 0
    })
    .await;
}

/// A phone that loses its network in an upload: what it began is never answered.
#[tokio::test]
async fn a_client_that_ends_within_a_command_ends_its_session() {
    let world = World::new();
    for begun in ["a APPEND INBOX {100+}\r\nabc", "a APP"] {
        let mut client = world.client().await;
        client.login("alice@example.org").await;
        client.send(begun).await;
        drop(client);
        eventually("the session is over", || {
            world.registry.counts().sessions == 0
        })
        .await;
    }
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn both_directions_move_at_once() {
    let world = World::with(flooding());
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    // The server answers while it is still being asked.
    client.send(noops(20_000)).await;
    client.answer("n19999 OK").await;
}

/// What an idle session's task holds: everything of the login is in a box that is gone by then.
#[tokio::test]
async fn the_future_of_a_session_is_small() {
    let world = World::new();
    let size = world.future_size().await;
    assert!(size <= 1024, "{size}");
}

#[tokio::test]
async fn octets_are_counted_while_the_session_goes_on() {
    let world = World::with(Plan::default());
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("n NOOP\r\n").await;
    client.answer("n OK").await;
    let text = prometheus(&world.metrics.read(&Levels::default()));
    let up = "ferrypost_dataplane_relay_io_bytes_total{protocol=\"imap\",direction=\"up\"} 8\n";
    assert!(text.contains(up), "{text}");
    assert!(text.contains("direction=\"down\""), "{text}");
    let login = "ferrypost_dataplane_logins_total{protocol=\"imap\",outcome=\"accepted\",blame=\"nobody\"} 1\n";
    assert!(text.contains(login), "{text}");
    assert!(!text.contains("alice"), "{text}");
    assert!(!text.contains("stage=\"relay\""), "it goes on: {text}");
    drop(client);
    eventually("its end is counted", || {
        let text = prometheus(&world.metrics.read(&Levels::default()));
        text.contains("end=\"client_ended\"") && !text.contains("_OTHER")
    })
    .await;
}

/// The spans that are open, and those that have been closed, by name.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<(Vec<&'static str>, Vec<&'static str>)>>);

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.0.lock().unwrap().0.push(attributes.metadata().name());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let name = context.span(&id).unwrap().name();
        let mut spans = self.0.lock().unwrap();
        let open = spans.0.iter().position(|open| *open == name).unwrap();
        spans.0.swap_remove(open);
        spans.1.push(name);
    }
}

#[tokio::test]
async fn no_span_is_open_while_a_session_is_relayed_and_its_relay_has_one_at_its_end() {
    let spans = Spans::default();
    let exporter = tracing_subscriber::registry().with(spans.clone());
    let _default = subscribe(exporter);
    let world = World::with(Plan::default());
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("n NOOP\r\n").await;
    client.answer("n OK").await;
    {
        let spans = spans.0.lock().unwrap();
        assert!(spans.0.is_empty(), "open: {:?}", spans.0);
        assert!(spans.1.contains(&"session"), "{:?}", spans.1);
        assert!(!spans.1.contains(&"relay"), "{:?}", spans.1);
    }
    drop(client);
    let closed = |name| spans.0.lock().unwrap().1.contains(&name);
    eventually("the relay's span is there", || closed("relay")).await;
}
