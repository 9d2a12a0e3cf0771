//! The keys of cookies in the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use ferrypost_proto::{SCHEMAS, store::v1::CookieKeys, v1};

use super::{
    on_both_stores,
    world::{Orchestrator, World},
};
use crate::{
    domain::{
        commit::RoutingChange,
        cookie_keys::{KEY, ROTATE_EVERY, SPREAD},
        state::State,
    },
    store::{Txn, keys},
    wall_clock::{self, WallClock},
};

on_both_stores! {
    keys_are_made_when_a_rule_remembers_sign_ins_and_not_before,
    keys_are_replaced_in_two_steps_whoever_leads,
    a_restored_store_keeps_the_keys_that_it_has,
}

/// Seconds that the tests' clock is ahead.
type Ahead = Arc<AtomicI64>;

fn leading(world: &World, name: &str, ahead: &Ahead) -> Orchestrator {
    let ahead = ahead.clone();
    world.orchestrator_with(name, |options| {
        options.clock = WallClock::new(move || {
            let mut now = wall_clock::now();
            now.seconds += ahead.load(Ordering::SeqCst);
            now
        });
    })
}

fn later(ahead: &Ahead, by: Duration) {
    let seconds = i64::try_from(by.as_secs()).unwrap();
    ahead.fetch_add(seconds, Ordering::SeqCst);
}

impl World {
    /// Puts a document in force in which a sign-in is remembered, or is not. Whoever leads looks again.
    async fn serves_http(&self, remembers: bool) {
        let state = self.state().await;
        let config = state.config().unwrap();
        let mut document = config.raw.clone();
        for destination in &mut document.destinations {
            let mut endpoint = destination.endpoints[0].clone();
            endpoint.protocol = v1::Protocol::Http.into();
            destination.endpoints.truncate(1);
            destination.endpoints.push(endpoint);
        }
        document.schema = SCHEMAS.newest();
        document.http = Some(v1::HttpRouting {
            rules: vec![v1::HttpRule {
                name: "sign in".into(),
                pin: "source".into(),
                writes_to_accounts: Some(false),
                learns: remembers.then(|| v1::HttpLearns {
                    account_from: vec!["form:user".into()],
                    status: vec![302],
                    server_cookie: "sid".into(),
                    seconds: 60,
                }),
                ..v1::HttpRule::default()
            }],
        });
        let change = RoutingChange::new(&self.random).config(document, config.version);
        self.commit(change.txn()).await;
    }

    async fn keys(&self, what: &str, are: impl Fn(&CookieKeys) -> bool) -> CookieKeys {
        self.eventually(what, |state| {
            let keys: &CookieKeys = &state.cookie_keys()?.value;
            are(keys).then(|| keys.clone())
        })
        .await
    }
}

fn ids(keys: &CookieKeys) -> Vec<u32> {
    keys.keys.iter().map(|key| key.id).collect()
}

fn none(state: &State) -> bool {
    state.cookie_keys().is_none()
}

async fn keys_are_made_when_a_rule_remembers_sign_ins_and_not_before(world: World) {
    let _plane = world.plane("dp-1").await;
    let _orchestrator = leading(&world, "cp-1", &Ahead::default());
    world.serves_http(false).await;
    // It leads, and has looked at that document.
    let migration = world.migrate("target").await;
    world.succeeds(&migration).await;
    assert!(none(&world.state().await));
    world.serves_http(true).await;
    let made = world.keys("a first key", |_| true).await;
    assert_eq!((ids(&made), made.sealing), (vec![1], 1));
    assert_eq!(made.keys[0].key.len(), KEY);
    assert_ne!(made.keys[0].key, vec![0; KEY]);
}

async fn keys_are_replaced_in_two_steps_whoever_leads(world: World) {
    let ahead = Ahead::default();
    world.serves_http(true).await;
    let first = leading(&world, "cp-1", &ahead);
    let old = world.keys("a first key", |_| true).await;
    first.stop().await;

    later(&ahead, ROTATE_EVERY);
    let second = leading(&world, "cp-2", &ahead);
    let both = world
        .keys("a second key", |keys| keys.keys.len() == 2)
        .await;
    assert_eq!((ids(&both), both.sealing), (vec![1, 2], 1));
    assert_eq!(both.keys[0], old.keys[0]);
    assert_ne!(both.keys[0].key, both.keys[1].key);
    second.stop().await;

    later(&ahead, SPREAD);
    let third = leading(&world, "cp-1", &ahead);
    let sealing = world.keys("it seals", |keys| keys.sealing == 2).await;
    assert_eq!(sealing.keys, both.keys);
    third.stop().await;

    later(&ahead, ROTATE_EVERY);
    let _fourth = leading(&world, "cp-1", &ahead);
    let next = world
        .keys("the first one is gone", |keys| keys.keys[0].id == 2)
        .await;
    assert_eq!((ids(&next), next.sealing), (vec![2, 3], 2));
}

async fn a_restored_store_keeps_the_keys_that_it_has(world: World) {
    let ahead = Ahead::default();
    world.serves_http(true).await;
    let first = leading(&world, "cp-1", &ahead);
    world.keys("a first key", |_| true).await;
    first.stop().await;
    world.rewind().await;
    later(&ahead, ROTATE_EVERY);
    let _second = leading(&world, "cp-2", &ahead);
    let second_leads = |state: &State| {
        let (leader, _) = state.leader()?;
        (leader.as_str() == "cp-2").then_some(())
    };
    world.eventually("the second one leads", second_leads).await;
    let resolved = world.commit(Txn::new().delete(keys::REWOUND)).await;
    let replaced = world
        .eventually("a second key", |state| {
            let keys = state.cookie_keys()?;
            (keys.value.keys.len() == 2).then_some(keys.revision)
        })
        .await;
    assert!(replaced > resolved, "nothing was written before");
}
