//! Sessions and logins when their account is fenced, moved, kicked, or the process stops.

use std::{sync::Arc, time::Duration};

use ferrypost_proto::{
    routing::v1::DrainedAccount,
    v1::endpoint_tls::{Mode, Verification},
};
use rustls::{
    CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    backend::{Judges, Manners, Tls},
    client::{Client, PATIENCE},
    eventually,
    world::{Authority, Plan, Way, World},
};
use crate::{fence::FenceReport, limits::Limits, net::tls_client::ClientTls};

/// What is told about alice's fence when no session is left.
async fn drained(world: &World) -> DrainedAccount {
    loop {
        let report = timeout(PATIENCE, world.fences.report());
        if let FenceReport::Drained(drained) = report.await.expect("the fence never drained") {
            return drained.accounts[0].clone();
        }
    }
}

async fn alice(world: &World) -> Client {
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client
}

#[tokio::test]
async fn a_held_login_lands_on_the_new_server() {
    let mut plan = Plan::default();
    plan.limits.hold.keep_alive = Duration::from_millis(50);
    let world = World::with(plan);
    world.fence();
    let mut client = world.client().await;
    client
        .send("l LOGIN alice@example.org secret\r\nn NOOP\r\n")
        .await;
    // Two signs of life, so it is held and not merely slow.
    assert!(client.line().await.starts_with("* OK"));
    assert!(client.line().await.starts_with("* OK"));
    assert_eq!(world.registry.counts().held, 1);
    world.flip();
    client.answer("l OK").await;
    client.answer("n OK").await;
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
    assert!(world.new.seen.has("n NOOP"));
}

/// The process has just started, and whoever sent the client here has not asked whether it is ready.
#[tokio::test]
async fn a_login_that_comes_before_the_first_table_waits_for_it() {
    let mut plan = Plan::default();
    plan.limits.hold.keep_alive = Duration::from_millis(50);
    let world = World::with(plan);
    let table = world.tables.current().expect("it has one");
    world.tables.withdraw();
    let mut client = world.client().await;
    client.send("l LOGIN alice@example.org secret\r\n").await;
    assert!(client.line().await.starts_with("* OK"));
    world.tables.publish(table);
    client.answer("l OK").await;
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 1);
}

#[tokio::test]
async fn without_a_table_a_login_waits_no_longer_than_it_is_held() {
    let mut plan = Plan::default();
    plan.limits.hold.timeout = Duration::from_millis(100);
    let world = World::with(plan);
    world.tables.withdraw();
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
}

#[tokio::test]
async fn a_login_held_for_too_long_gets_a_temporary_error_and_the_account_stays_fenced() {
    let mut plan = Plan::default();
    plan.limits.hold.timeout = Duration::from_millis(200);
    let world = World::with(plan);
    world.fence();
    let mut client = world.client().await;
    for _ in 0..2 {
        let answer = client.try_login("alice@example.org", "secret").await;
        assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    }
    // Others are served meanwhile.
    client.login("bob@example.org").await;
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
}

#[tokio::test]
async fn an_aborted_move_lets_held_logins_in_where_they_were() {
    let world = World::new();
    world.fence();
    let mut client = world.client().await;
    client.send("l LOGIN alice@example.org secret\r\n").await;
    eventually("it is held", || world.registry.counts().held == 1).await;
    world.abort();
    client.answer("l OK").await;
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 1);
}

#[tokio::test]
async fn a_session_in_idle_is_told_goodbye_and_its_server_is_seen_to_close() {
    let world = World::new();
    let mut client = alice(&world).await;
    client.send("i IDLE\r\n").await;
    client.answer("+ ").await;
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
    let drained = drained(&world).await;
    assert_eq!((drained.closed, drained.unconfirmed), (1, 0));
    assert!(!world.old.seen.has("DONE"));
}

#[tokio::test]
async fn an_open_command_ends_before_the_session_does() {
    let world = World::new();
    let mut client = alice(&world).await;
    client.send("a APPEND INBOX {5}\r\n").await;
    client.answer("+ ").await;
    client.send("12").await;
    world.fence();
    eventually("the session is closing", || {
        let session = &world.registry.sessions(&[], 1).sessions[0];
        session.stage == crate::registry::Stage::Closing
    })
    .await;
    client.send("345\r\nb NOOP\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("a OK"), "{rest}");
    assert!(rest.contains("* BYE") && !rest.contains("b OK"), "{rest}");
    assert!(!world.old.seen.has("b NOOP"));
    assert_eq!(drained(&world).await.unconfirmed, 0);
}

#[tokio::test]
async fn a_session_that_does_not_come_to_an_end_is_cut_at_the_limit() {
    let mut plan = Plan::default();
    plan.limits.relay.drain = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = alice(&world).await;
    client.send("s SILENCE\r\n").await;
    eventually("the command is open", || world.old.seen.has("SILENCE")).await;
    let began = Instant::now();
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    // Its server closed when we did, so it does nothing any more.
    assert_eq!(drained(&world).await.unconfirmed, 0);
}

/// Cryptography whose keys are worn out after a handful of records, where TLS 1.2 closes and cannot renew them.
fn soon_worn_out() -> Arc<CryptoProvider> {
    let suite = aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
    let SupportedCipherSuite::Tls12(suite) = suite else {
        panic!("it is one of TLS 1.2");
    };
    let suite: &'static _ = Box::leak(Box::new(Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: 20,
        },
        ..*suite
    }));
    Arc::new(CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls12(suite)],
        ..aws_lc_rs::default_provider()
    })
}

#[tokio::test]
async fn a_fence_does_not_take_our_own_failure_to_write_for_the_server_s_end() {
    let authority = Authority::new();
    let trust = Verification::CaPem(authority.pem.clone());
    let world = World::with(Plan {
        old: Manners {
            tls: Tls::Implicit(authority.sign("localhost").server()),
            never_closes: true,
            ..Manners::default()
        },
        way: Way::tls(Mode::Implicit, trust),
        backend_tls: ClientTls::with_crypto(soon_worn_out()),
        ..Plan::default()
    });
    let mut client = alice(&world).await;
    for n in 0..20 {
        _ = client.try_send(format!("n{n} NOOP\r\n").as_bytes()).await;
        client.line().await;
    }
    assert!(client.line().await.is_empty(), "the keys were not worn out");
    world.fence();
    let drained = drained(&world).await;
    assert_eq!((drained.closed, drained.unconfirmed), (1, 1));
}

#[tokio::test]
async fn a_server_that_does_not_close_leaves_the_close_unconfirmed() {
    let world = World::with(Plan {
        old: Manners {
            never_closes: true,
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = alice(&world).await;
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
    let drained = drained(&world).await;
    assert_eq!((drained.closed, drained.unconfirmed), (1, 1));
}

/// A server that thinks about every login until it is given a permit, and a close limit that no test lives to
/// see the end of.
fn thoughtful() -> (World, Arc<Semaphore>) {
    thoughtful_and(Manners::default(), |_| ())
}

/// The same with more to it.
fn thoughtful_and(manners: Manners, change: impl FnOnce(&mut Limits)) -> (World, Arc<Semaphore>) {
    let verdicts = Arc::new(Semaphore::new(0));
    let mut plan = Plan {
        old: Manners {
            verdicts: Some(Arc::clone(&verdicts)),
            ..manners
        },
        ..Plan::default()
    };
    plan.limits.relay.close = Duration::from_hours(1);
    change(&mut plan.limits);
    (World::with(plan), verdicts)
}

/// As Dovecot does it: the more wrong passwords, the later the verdict, and no look at the socket before.
#[tokio::test]
async fn guesses_that_the_server_thinks_about_do_not_keep_their_account_fenced() {
    let (world, _) = thoughtful();
    let mut guessers = Vec::new();
    for _ in 0..20 {
        let mut guesser = world.client().await;
        guesser.send("l LOGIN alice@example.org wrong\r\n").await;
        guessers.push(guesser);
    }
    eventually("the server has the guesses", || {
        world.old.seen.count(&world.old.seen.logins) == guessers.len()
    })
    .await;
    world.fence();
    let drained = drained(&world).await;
    assert_eq!((drained.closed, drained.unconfirmed), (20, 0));
    world.flip();
    alice(&world).await;
    // Each is tried once more where the account lives now, and no client hears anything else.
    for mut guesser in guessers {
        guesser.answer("l NO [AUTHENTICATIONFAILED]").await;
    }
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 21);
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 20);
}

/// A client whose login lies with such a server, a write behind it.
async fn undecided(world: &World) -> Client {
    let mut client = world.client().await;
    client
        .send("l LOGIN alice@example.org secret\r\nx CREATE a-write\r\n")
        .await;
    eventually("the server has the login", || {
        world.old.seen.count(&world.old.seen.logins) == 1
    })
    .await;
    client
}

#[tokio::test]
async fn a_fence_waits_a_moment_for_the_verdict_on_a_login() {
    let (world, verdicts) = thoughtful();
    let mut client = undecided(&world).await;
    world.fence();
    verdicts.add_permits(1);
    let drained = drained(&world).await;
    assert_eq!((drained.closed, drained.unconfirmed), (1, 0));
    // Accepted before the flip, and its end was seen before the flip.
    assert_eq!(world.old.seen.count(&world.old.seen.ended), 1);
    is_served_anew(&world, &mut client).await;
}

/// The login that a fence overtook is held, and after the flip it is the new server's, with all that came behind
/// it.
async fn is_served_anew(world: &World, client: &mut Client) {
    eventually("it is held", || world.registry.counts().held == 1).await;
    assert_eq!(world.new.seen.count(&world.new.seen.connections), 0);
    world.flip();
    let said = client.until("l ").await;
    assert!(
        said.last().is_some_and(|said| said.starts_with("l OK")),
        "{said:?}"
    );
    client.answer("x OK").await;
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
    assert!(world.new.seen.has("x CREATE") && !world.old.seen.has("x CREATE"));
}

#[tokio::test]
async fn a_login_that_the_old_server_accepts_after_the_flip_is_nobody_s() {
    let (world, verdicts) = thoughtful();
    let mut client = undecided(&world).await;
    world.fence();
    assert_eq!(drained(&world).await.unconfirmed, 0);
    // The client is served soon, and not when the server has made up its mind.
    is_served_anew(&world, &mut client).await;
    assert_eq!(world.old.seen.count(&world.old.seen.ended), 0);
    verdicts.add_permits(1);
    eventually("the server found the connection closed", || {
        world.old.seen.count(&world.old.seen.ended) == 1
    })
    .await;
    let lines = world.old.seen.lines();
    assert!(
        lines
            .last()
            .is_some_and(|line| line.contains("AUTHENTICATE")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn after_the_server_s_ok_the_route_is_looked_up_once_more() {
    let (world, verdicts) = thoughtful();
    let mut client = undecided(&world).await;
    // Nobody tells the session: it has to see for itself.
    world.fence_unseen();
    verdicts.add_permits(1);
    is_served_anew(&world, &mut client).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn whatever_but_a_refusal_comes_of_a_login_under_a_fence_it_is_held_and_served() {
    let temporary = Manners {
        refusal: "[UNAVAILABLE] closed for now",
        judges: Judges::RefusesEverybody,
        ..Manners::default()
    };
    let gone = Manners {
        judges: Judges::HangsUp,
        ..Manners::default()
    };
    for manners in [temporary, gone] {
        let (world, verdicts) = thoughtful_and(manners, |_| ());
        let mut client = undecided(&world).await;
        world.fence_unseen();
        verdicts.add_permits(1);
        is_served_anew(&world, &mut client).await;
    }
}

#[tokio::test]
async fn a_refusal_under_a_fence_is_final_and_the_client_s() {
    let (world, verdicts) = thoughtful();
    let mut client = world.client().await;
    client.send("l LOGIN alice@example.org wrong\r\n").await;
    eventually("the server has the login", || {
        world.old.seen.count(&world.old.seen.logins) == 1
    })
    .await;
    world.fence();
    verdicts.add_permits(1);
    client.answer("l NO [AUTHENTICATIONFAILED]").await;
    world.flip();
    client.login("bob@example.org").await;
    assert!(!world.new.seen.lines().join(" ").contains("YWxpY2V"));
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
}

#[tokio::test]
async fn an_aborted_move_serves_the_login_that_it_overtook_where_it_was() {
    let (world, verdicts) = thoughtful();
    let mut client = undecided(&world).await;
    world.fence();
    eventually("it is held", || world.registry.counts().held == 1).await;
    verdicts.add_permits(2);
    world.abort();
    client.answer("l OK").await;
    client.answer("x OK").await;
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 2);
}

#[tokio::test]
async fn a_password_that_no_server_has_judged_is_sent_twice_at_most() {
    let (world, _) = thoughtful();
    let mut client = undecided(&world).await;
    for logins in [1, 2] {
        eventually("the server has the login", || {
            world.old.seen.count(&world.old.seen.logins) == logins
        })
        .await;
        world.fence();
        drained(&world).await;
        world.abort();
    }
    let rest = client.rest().await;
    assert!(
        rest.starts_with("l NO [UNAVAILABLE]") && rest.contains("* BYE"),
        "{rest}"
    );
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 2);
}

#[tokio::test]
async fn a_right_password_comes_through_any_number_of_fences() {
    let (world, verdicts) = thoughtful();
    let mut client = undecided(&world).await;
    for logins in 1..=4 {
        eventually("the server has the login", || {
            world.old.seen.count(&world.old.seen.logins) == logins
        })
        .await;
        world.fence_unseen();
        verdicts.add_permits(1);
        eventually("it is held", || world.registry.counts().held == 1).await;
        world.abort();
    }
    verdicts.add_permits(1);
    client.answer("l OK").await;
    client.answer("x OK").await;
}

#[tokio::test]
async fn a_login_that_was_overtaken_is_held_as_long_as_any_other_and_hears_signs_of_life() {
    let (world, verdicts) = thoughtful_and(Manners::default(), |limits| {
        limits.hold.timeout = Duration::from_millis(300);
        limits.hold.keep_alive = Duration::from_millis(50);
    });
    let mut client = undecided(&world).await;
    world.fence_unseen();
    let began = Instant::now();
    verdicts.add_permits(1);
    let said = client.until("l ").await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(said[0].starts_with("* OK"), "{said:?}");
    let answer = &said[said.len() - 1];
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{said:?}");
}

#[tokio::test]
async fn a_fence_that_comes_while_the_server_is_dialled_holds_the_login() {
    // The old server accepts and never greets, so that the login is caught on its way.
    let world = World::with(Plan {
        old: Manners {
            greeting: Vec::new(),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    client.send("l LOGIN alice@example.org secret\r\n").await;
    eventually("it is being dialled", || {
        world.old.seen.count(&world.old.seen.connections) == 1
    })
    .await;
    world.fence();
    eventually("it is held", || world.registry.counts().held == 1).await;
    assert_eq!(drained(&world).await.unconfirmed, 0);
    world.flip();
    client.answer("l OK").await;
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
}

#[tokio::test]
async fn a_kick_ends_a_session_in_every_stage() {
    let mut plan = Plan::default();
    plan.old.verdicts = Some(Arc::new(Semaphore::new(1)));
    let world = World::with(plan);
    let mut relayed = alice(&world).await;
    let mut replaying = world.client().await;
    replaying.send("l LOGIN alice@example.org secret\r\n").await;
    eventually("both are at their server", || {
        world.old.seen.count(&world.old.seen.logins) == 2
    })
    .await;
    world.kick();
    assert!(relayed.rest().await.starts_with("* BYE"));
    assert!(replaying.rest().await.contains("* BYE"));
    world.fence();
    let mut held = world.client().await;
    held.send("l LOGIN alice@example.org secret\r\n").await;
    eventually("it is held", || world.registry.counts().held == 1).await;
    world.kick();
    assert!(held.rest().await.contains("* BYE"));
}

#[tokio::test]
async fn a_process_that_stops_says_goodbye_to_everybody() {
    let world = World::new();
    let mut relayed = alice(&world).await;
    let mut waiting = world.client().await;
    world.stop();
    assert!(relayed.rest().await.starts_with("* BYE"));
    assert!(waiting.rest().await.starts_with("* BYE"));
    assert_eq!(world.shutdown.wait(PATIENCE).await, 0);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_process_that_stops_waits_for_nobody_who_has_said_nothing_yet() {
    for proxied in [false, true] {
        let mut plan = Plan::default();
        plan.limits.preauth.handshake = Duration::from_hours(1);
        if proxied {
            plan.proxy_from.push("127.0.0.0/8".parse().unwrap());
        }
        let world = World::with(plan);
        let _stranger = crate::net::connect(world.address).await.unwrap();
        eventually("it is accepted", || world.counts.open() == 1).await;
        world.stop();
        assert_eq!(world.shutdown.wait(PATIENCE).await, 0, "{proxied}");
    }
}

#[tokio::test]
async fn a_moved_account_is_served_by_its_new_server_on_the_next_connection() {
    let world = World::new();
    let mut client = alice(&world).await;
    world.fence();
    client.rest().await;
    drained(&world).await;
    world.flip();
    alice(&world).await;
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 1);
}
