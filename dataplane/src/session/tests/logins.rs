//! Logins: who is served where, and what the servers see of it.

use std::time::Duration;

use ferrypost_proto::{EndpointTls, Trust, Verification, v1};
use ferrypost_wire::{ClientFacts, HopLimit, Introduction, SessionReference};

use super::{
    backend::Manners,
    client::Client,
    eventually,
    world::{Plan, Way, World},
};
use crate::{
    config::ListenerTls,
    net::proxy::{Announced, announce},
};

#[tokio::test]
async fn a_login_reaches_the_server_that_holds_the_account() {
    let world = World::new();
    world.client().await.login("alice@example.org").await;
    world.client().await.login("BOB@example.org").await;
    let seen = |backend: &super::backend::Backend| backend.seen.count(&backend.seen.logins);
    assert_eq!((seen(&world.old), seen(&world.new)), (1, 1));
}

#[tokio::test]
async fn what_is_typed_all_at_once_with_bare_line_feeds_is_answered_in_full() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send("a1 LOGIN alice@example.org \"secret\"\na2 LIST \"\" \"*\"\na3 LOGOUT\n")
        .await;
    let rest = client.rest().await;
    for part in ["a1 OK", "* LIST", "a2 OK", "* BYE", "a3 OK"] {
        assert!(rest.contains(part), "{part} is missing in {rest}");
    }
    // Byte for byte: nobody put a CR in.
    assert!(world.old.seen.has("a2 LIST \"\" \"*\""));
}

#[tokio::test]
async fn a_client_that_closes_its_side_still_gets_all_its_answers() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send("a1 LOGIN alice@example.org secret\r\na2 LIST \"\" *\r\na3 NOOP\r\n")
        .await;
    client.half_close().await;
    let rest = client.rest().await;
    assert!(rest.contains("a3 OK"), "{rest}");
    eventually("the server saw the end", || {
        world.old.seen.count(&world.old.seen.ended) == 1
    })
    .await;
    eventually("the session is gone", || {
        world.registry.counts().sessions == 0
    })
    .await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_server_learns_of_the_client_s_end_only_when_it_has_answered_everything() {
    let world = World::new();
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("s SLOW\r\n").await;
    client.half_close().await;
    assert_eq!(client.rest().await, "s OK done\r\n");
}

#[tokio::test]
async fn the_server_s_close_after_logout_closes_the_client_at_once() {
    let world = World::new();
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    client.send("z LOGOUT\r\n").await;
    assert!(client.rest().await.ends_with("z OK done\r\n"));
    eventually("the session is gone", || {
        world.registry.counts().sessions == 0
    })
    .await;
}

#[tokio::test]
async fn what_the_server_says_behind_its_ok_reaches_the_client() {
    let world = World::with(Plan {
        old: Manners {
            behind_ok: "* 23 EXISTS\r\n",
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    client.login("alice@example.org").await;
    assert_eq!(client.line().await, "* 23 EXISTS");
}

#[tokio::test]
async fn reject_then_retry_routes_afresh() {
    let world = World::new();
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "wrong").await;
    assert!(answer.starts_with("l NO"), "{answer}");
    eventually("the first server is left", || {
        world.old.seen.count(&world.old.seen.ended) == 1
    })
    .await;
    client.login("bob@example.org").await;
    client.send("x NOOP\r\n").await;
    client.answer("x OK").await;
    assert!(world.new.seen.has("x NOOP"));
    assert!(!world.old.seen.has("bob"));
}

#[tokio::test]
async fn nothing_that_a_refused_client_says_reaches_a_server() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send(
            "l LOGIN alice@example.org wrong\r\n\
             i ID (\"x-originating-ip\" \"192.0.2.66\")\r\n\
             x XCLIENT ADDR=192.0.2.66\r\n\
             s SELECT INBOX\r\n",
        )
        .await;
    client.answer("l NO").await;
    client.answer("s BAD").await;
    let lines = world.old.seen.lines();
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("192.0.2.66") || line.contains("SELECT"))
    );
}

#[tokio::test]
async fn refusals_look_alike_wherever_they_come_from() {
    let world = World::new();
    let mut client = world.client().await;
    let wrong = client.try_login("alice@example.org", "wrong").await;
    let elsewhere = client.try_login("eve@example.net", "secret").await;
    assert_eq!(wrong, elsewhere);
}

#[tokio::test]
async fn failed_logins_take_as_long_wherever_they_fail_and_are_counted() {
    let mut plan = Plan::default();
    plan.limits.preauth.failures = 2;
    plan.limits.preauth.failure_floor = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    for name in ["eve@example.net", "alice@example.org"] {
        let began = tokio::time::Instant::now();
        client.try_login(name, "wrong").await;
        assert!(began.elapsed() >= Duration::from_millis(300), "{name}");
    }
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn who_goes_on_guessing_waits_longer_on_whatever_connection_and_the_right_password_does_not()
{
    let mut plan = Plan::default();
    plan.limits.preauth.failures = 1;
    plan.limits.preauth.failure_floor = Duration::from_millis(20);
    plan.limits.preauth.failure_ceiling = Duration::from_hours(1);
    let world = World::with(plan);
    // 20, 20, 20, 40, 80, 160 and 320 milliseconds.
    for (failure, least) in [20, 20, 20, 40, 80, 160, 320].into_iter().enumerate() {
        let mut client = world.client().await;
        let began = tokio::time::Instant::now();
        client.try_login("alice@example.org", "wrong").await;
        assert!(began.elapsed() >= Duration::from_millis(least), "{failure}");
    }
    // An hour is due after all these, and nobody who is right waits for it.
    for _ in 0..20 {
        world.guess("alice@example.org");
    }
    let mut client = world.client().await;
    client.login("alice@example.org").await;
}

#[tokio::test]
async fn a_master_user_is_routed_by_whom_it_acts_as() {
    let world = World::with(Plan {
        way: Way {
            authorization: [v1::AuthorizationIdentity::Honoured; 2],
            ..Way::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    // bob, authenticated as alice: bob's server decides.
    client
        .send("a AUTHENTICATE PLAIN Ym9iQGV4YW1wbGUub3JnAGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n")
        .await;
    client.answer("a OK").await;
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
}

#[tokio::test]
async fn a_server_that_is_away_means_unavailable_and_never_the_other_server() {
    let world = World::with(Plan {
        old: Manners {
            greeting: b"* BYE overloaded\r\n".to_vec(),
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert_eq!(world.new.seen.count(&world.new.seen.connections), 0);
    // The client may try again, on the same connection.
    client.login("bob@example.org").await;
}

#[tokio::test]
async fn before_tls_no_login_is_taken() {
    let world = World::with(Plan {
        listener: ListenerTls::StartTls,
        ..Plan::default()
    });
    let mut client = Client::plain(world.address).await;
    let greeting = client.line().await;
    assert!(
        greeting.contains("LOGINDISABLED") && !greeting.contains("AUTH="),
        "{greeting}"
    );
    let answer = client.try_login("alice@example.org", "secret").await;
    assert!(answer.starts_with("l NO [PRIVACYREQUIRED]"), "{answer}");
    client.send("s STARTTLS\r\n").await;
    client.answer("s OK").await;
    let mut client = client.upgrade(&world.root).await;
    client.login("alice@example.org").await;
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 1);
}

#[tokio::test]
async fn a_server_that_trusts_proxy_headers_learns_the_client_from_one() {
    let world = World::with(Plan {
        old: Manners {
            proxy: true,
            ..Manners::default()
        },
        way: Way {
            announcement: v1::Announcement::ProxyV2,
            ..Way::default()
        },
        ..Plan::default()
    });
    world.client().await.login("alice@example.org").await;
    let header = world.old.seen.header();
    let values: Vec<_> = header.tlvs().map(|value| value.unwrap()).collect();
    let value = |kind: u8| {
        values
            .iter()
            .find(|value| value.kind == kind)
            .map(|v| v.value.to_vec())
    };
    assert_eq!(value(2).as_deref(), Some(&b"localhost"[..]));
    let reference = world.registry.sessions(&[], 1).sessions[0]
        .reference
        .clone();
    assert_eq!(value(5), Some(reference.into_bytes()));
    assert!(
        value(0x20)
            .unwrap()
            .windows(7)
            .any(|window| window == b"TLSv1.3")
    );
    // It is never announced twice.
    assert!(!world.old.seen.has("ID ("));
}

#[tokio::test]
async fn a_server_that_trusts_id_learns_the_client_from_it() {
    let world = World::with(Plan {
        way: Way {
            announcement: v1::Announcement::ImapId,
            ..Way::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    client
        .send("i ID (\"name\" \"Phone\" \"x-originating-ip\" \"192.0.2.66\")\r\n")
        .await;
    client.answer("i OK").await;
    client.login("alice@example.org").await;
    let lines = world.old.seen.lines();
    let id: Vec<_> = lines.iter().filter(|line| line.contains("ID (")).collect();
    assert_eq!(id.len(), 1, "{lines:?}");
    assert!(
        id[0].contains("\"x-originating-ip\" \"127.0.0.1\""),
        "{id:?}"
    );
    assert!(!id[0].contains("192.0.2.66"), "{id:?}");
}

/// Some servers refuse SELECT to a session that never said who it is.
#[tokio::test]
async fn what_a_client_says_about_itself_reaches_a_server_that_believes_nothing_of_us() {
    for (announcement, proxy) in [
        (v1::Announcement::None, false),
        (v1::Announcement::ProxyV2, true),
    ] {
        let world = World::with(Plan {
            old: Manners {
                proxy,
                ..Manners::default()
            },
            way: Way {
                announcement,
                ..Way::default()
            },
            ..Plan::default()
        });
        let mut client = world.client().await;
        client
            .send("i ID (\"name\" \"Phone\" \"x-originating-ip\" \"192.0.2.66\")\r\n")
            .await;
        client.answer("i OK").await;
        client.login("alice@example.org").await;
        let lines = world.old.seen.lines();
        let mut id = lines.iter().filter(|line| line.contains("ID ("));
        let words = id.next().and_then(|line| line.split_once(' '));
        assert_eq!(words.unwrap().1, "ID (\"name\" \"Phone\")");
        assert_eq!(id.next(), None);
    }
}

#[tokio::test]
async fn a_load_balancer_that_is_trusted_tells_who_the_client_is() {
    let plan = Plan {
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    };
    let world = World::with(plan);
    let mut stream = crate::net::connect(world.address).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.9 4000 993\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, header)
        .await
        .unwrap();
    let mut client = Client::handshake(Box::new(stream), &world.root, &[])
        .await
        .unwrap();
    client.line().await;
    client.login("alice@example.org").await;
    let session = world.registry.sessions(&[], 1).sessions.remove(0);
    assert_eq!(session.client, "192.0.2.7:4000".parse().ok());
}

#[tokio::test]
async fn a_login_that_data_planes_send_round_in_circles_is_told_to_come_back_later() {
    let plan = Plan {
        proxy_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    };
    let world = World::with(plan);
    let mut facts = ClientFacts {
        peer: "192.0.2.7:4000".parse().unwrap(),
        local: "192.0.2.9:993".parse().unwrap(),
        tls: None,
        session: SessionReference::new("fp-1".to_owned()).unwrap(),
        hops: HopLimit::FIRST,
        introduction: Introduction::default(),
    };
    for (hops, answer) in [(2, "l OK"), (1, "l NO [UNAVAILABLE]")] {
        facts.hops = HopLimit::after(hops + 1).unwrap();
        let tls = EndpointTls::Implicit(Verification {
            trust: Trust::Platform,
            server_name: "mail.example.org".to_owned(),
        });
        let announced = Announced {
            client: &facts,
            alpn: None,
        };
        let header = announce(announced, &tls);
        let mut stream = crate::net::connect(world.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &header)
            .await
            .unwrap();
        let mut client = Client::handshake(Box::new(stream), &world.root, &[])
            .await
            .unwrap();
        client.line().await;
        let said = client.try_login("alice@example.org", "secret").await;
        assert!(said.starts_with(answer), "{hops} left: {said}");
    }
    assert_eq!(world.old.seen.count(&world.old.seen.connections), 1);
}

#[tokio::test]
async fn the_latest_logins_of_a_server_are_known_and_wrong_passwords_are_not_its_fault() {
    let world = World::with(Plan {
        old: Manners {
            refusal: "[AUTHENTICATIONFAILED] wrong",
            ..Manners::default()
        },
        new: Manners {
            refusal: "[UNAVAILABLE] no directory",
            ..Manners::default()
        },
        ..Plan::default()
    });
    let known = |destination| {
        let latest = world.logins(destination);
        (latest.accepted.is_some(), latest.failed.is_some())
    };
    let mut client = world.client().await;
    client.try_login("alice@example.org", "wrong").await;
    assert_eq!(known("old"), (false, false));
    client.try_login("bob@example.org", "wrong").await;
    assert_eq!(known("new"), (false, true));
    client.login("alice@example.org").await;
    assert_eq!((known("old"), known("new")), ((true, false), (false, true)));
}
