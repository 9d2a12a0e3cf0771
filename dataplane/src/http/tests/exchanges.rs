//! Requests and responses while nobody moves.

use std::time::Duration;

use ferrypost_proto::v1::Announcement;
use tokio::time::Instant;

use super::{
    backend::count,
    world::{Plan, World, basic},
};
use crate::session::tests::eventually;

#[tokio::test]
async fn each_request_goes_to_where_its_account_lives_and_each_account_has_a_connection_of_its_own()
{
    let world = World::new();
    let mut client = world.client().await;
    for _ in 0..2 {
        assert_eq!(
            client.ask("GET /a?b=c", "alice", "").await.text(),
            "old /a?b=c"
        );
        assert_eq!(client.ask("GET /", "bob", "").await.text(), "new /");
        assert_eq!(client.ask("GET /", "carol", "").await.text(), "old /");
    }
    // Carol's is not alice's, though it leads to the same server.
    assert_eq!(count(&world.old.seen.connections), 2);
    assert_eq!(count(&world.new.seen.connections), 1);
    let requests = world.old.seen.requests();
    let (connection, request) = &requests[0];
    assert_eq!(request.field("host"), Some("mail.example.org"));
    assert_eq!(
        request.field("authorization").unwrap().len(),
        basic("alice").trim().len() - 15
    );
    assert_eq!(requests[2].0, *connection, "alice's second is on her first");
}

#[tokio::test]
async fn no_connection_to_a_server_is_used_for_another_client() {
    let world = World::new();
    for _ in 0..2 {
        let mut client = world.client().await;
        client.ask("GET /", "alice", "").await;
    }
    assert_eq!(count(&world.old.seen.connections), 2);
}

#[tokio::test]
async fn when_a_client_leaves_its_connections_to_servers_end_and_nothing_is_registered() {
    let world = World::new();
    let mut client = world.client().await;
    client.ask("GET /", "alice", "").await;
    client.ask("GET /", "bob", "").await;
    assert_eq!(world.registered(), 2, "what is kept is registered");
    client.finish().await;
    eventually("they have seen our end", || {
        count(&world.old.seen.ended) == 1 && count(&world.new.seen.ended) == 1
    })
    .await;
    eventually("nothing is registered", || world.registered() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn who_says_of_no_account_is_asked_to_and_what_is_pinned_goes_to_its_server() {
    let world = World::new();
    let mut client = world.client().await;
    let challenged = client
        .ask("GET /jmap", "", "Accept: application/json\r\n")
        .await;
    assert_eq!(challenged.status(), 401);
    let ways = challenged
        .fields
        .iter()
        .filter(|(name, _)| name == "www-authenticate");
    assert_eq!(ways.count(), 2);
    assert_eq!(
        challenged.field("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(
        client.ask("GET /login/page", "", "").await.text(),
        "old /login/page"
    );
    assert_eq!(world.new.seen.count() + world.old.seen.count(), 1);
}

#[tokio::test]
async fn a_name_in_a_form_decides_and_the_server_gets_the_same_octets() {
    let world = World::new();
    let mut client = world.client().await;
    let form = "user=bob%40example.org&password=x";
    let media_type = "Content-Type: application/x-www-form-urlencoded\r\n";
    let counted = format!("{media_type}Content-Length: {}\r\n\r\n{form}", form.len());
    assert_eq!(
        client.ask("POST /form", "", &counted).await.text(),
        "new /form"
    );
    let chunked = format!(
        "{media_type}Transfer-Encoding: chunked\r\n\r\n4\r\nuser\r\n1d\r\n{}\r\n0\r\n\r\n",
        &form[4..]
    );
    assert_eq!(
        client.ask("POST /form", "", &chunked).await.text(),
        "new /form"
    );
    let requests = world.new.seen.requests();
    assert_eq!(
        requests[0].1.field("content-length"),
        Some(&*form.len().to_string())
    );
    assert_eq!(requests[1].1.field("transfer-encoding"), Some("chunked"));
    assert_eq!(count(&world.new.seen.octets), 2 * form.len());
    let none = format!("{media_type}Content-Length: 3\r\n\r\na=b");
    assert_eq!(client.ask("POST /form", "", &none).await.status(), 401);
}

#[tokio::test]
async fn nobody_tells_a_server_lies_about_himself_unless_he_is_trusted() {
    let lies = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\nX-Http-Method-Override: DELETE\r\n";
    let world = World::new();
    world.client().await.ask("GET /", "alice", lies).await;
    let seen = world.old.seen.last();
    for name in ["x-forwarded-for", "forwarded", "x-http-method-override"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    let world = World::with(Plan {
        trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
        ..Plan::default()
    });
    world.client().await.ask("GET /", "alice", lies).await;
    let seen = world.old.seen.last();
    assert_eq!(seen.field("x-forwarded-for"), Some("192.0.2.1"));
    assert_eq!(seen.field("x-http-method-override"), None);
}

#[tokio::test]
async fn a_server_is_told_of_the_client_as_its_endpoint_says() {
    let told = async |announcement| {
        let world = World::with(Plan {
            announcement,
            ..Plan::default()
        });
        world.client().await.ask("GET /", "alice", "").await;
        world.old.seen.last()
    };
    let seen = told(Announcement::Forwarded).await;
    let forwarded = seen.field("forwarded").unwrap();
    assert!(forwarded.starts_with("for=\"127.0.0.1:"), "{forwarded}");
    assert!(
        forwarded.ends_with(";host=\"mail.example.org\";proto=https"),
        "{forwarded}"
    );
    let seen = told(Announcement::XForwarded).await;
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
}

#[tokio::test]
async fn what_leads_past_us_is_taken_out_and_redirects_stay_on_the_public_host() {
    let world = World::new();
    let mut client = world.client().await;
    for (to, stays) in [
        (
            format!("http://{}/next", world.old.address),
            "https://mail.example.org/next",
        ),
        (
            "http://mail.example.org/next".into(),
            "https://mail.example.org/next",
        ),
        ("/next".into(), "/next"),
        (
            "https://elsewhere.example/".into(),
            "https://elsewhere.example/",
        ),
    ] {
        let fields = format!("X-To: {to}\r\n");
        let response = client.ask("GET /redirect", "alice", &fields).await;
        assert_eq!(response.status(), 302);
        assert_eq!(response.field("location"), Some(stays));
        assert_eq!(response.field("alt-svc"), None);
        assert_eq!(response.field("keep-alive"), None);
    }
}

#[tokio::test]
async fn a_move_within_a_server_must_end_where_it_begins() {
    let world = World::new();
    let mut client = world.client().await;
    let to = |url: &str| format!("Destination: {url}\r\n");
    let moved = client
        .ask(
            "MOVE /dav/a",
            "alice",
            &to("https://mail.example.org/dav/./b"),
        )
        .await;
    assert_eq!(moved.status(), 200);
    let seen = world.old.seen.last();
    assert_eq!(
        seen.field("destination"),
        Some("https://mail.example.org/dav/b")
    );
    for elsewhere in ["https://evil.example/dav/b", "/login/b"] {
        let refused = client.ask("MOVE /dav/a", "alice", &to(elsewhere)).await;
        assert_eq!(refused.status(), 502, "{elsewhere}");
    }
    assert_eq!(world.old.seen.count(), 1);
}

#[tokio::test]
async fn responses_of_every_framing_arrive_as_they_are() {
    let world = World::new();
    let mut client = world.client().await;
    let head = client.ask("HEAD /x", "alice", "").await;
    assert_eq!(head.status(), 200);
    assert_eq!(client.ask("GET /nothing", "alice", "").await.status(), 204);
    let trailers = client.ask("GET /trailers", "alice", "").await;
    assert!(trailers.is_whole && trailers.text() == "ab");
    assert_eq!(client.ask("GET /closes", "alice", "").await.text(), "bye");
    assert_eq!(client.ask("GET /denied", "alice", "").await.status(), 401);
    assert_eq!(
        client.ask("GET /after", "alice", "").await.text(),
        "old /after"
    );
    assert_eq!(count(&world.old.seen.connections), 2, "one was closed");
}

#[tokio::test]
async fn a_server_that_closed_what_was_kept_is_connected_to_again_and_asked_once() {
    let world = World::new();
    let mut client = world.client().await;
    for n in 1..=5 {
        assert_eq!(client.ask("GET /closes", "alice", "").await.text(), "bye");
        assert_eq!(count(&world.old.seen.connections), n);
        assert_eq!(world.old.seen.count(), n);
    }
}

#[tokio::test]
async fn what_was_sent_is_never_sent_again_and_the_client_hears_that_it_is_not_known() {
    let world = World::new();
    let mut client = world.client().await;
    for path in ["/hangs-up", "/garbage", "/two-lengths", "/upgrades"] {
        for method in ["GET", "DELETE"] {
            let before = world.old.seen.count();
            let lost = client.ask(&format!("{method} {path}"), "alice", "").await;
            assert_eq!(lost.status(), 502, "{method} {path}");
            assert_eq!(world.old.seen.count(), before + 1, "{method} {path}");
            assert!(!lost.text().contains("127.0.0.1"), "{}", lost.text());
        }
    }
    assert_eq!(client.ask("GET /", "alice", "").await.status(), 200);
}

#[tokio::test]
async fn a_response_that_was_cut_short_is_never_taken_for_whole() {
    let world = World::new();
    let mut client = world.client().await;
    let half = client.ask("GET /half", "alice", "").await;
    assert!(!half.is_whole && half.text() == "half of it");
}

#[tokio::test]
async fn a_server_that_is_away_is_502_and_one_that_does_not_answer_504() {
    let world = World::with(Plan {
        response_limit: Some(Duration::from_secs(1)),
        ..Plan::default()
    });
    let mut client = world.client().await;
    assert_eq!(client.ask("GET /slow", "alice", "").await.status(), 504);
    // What it may still be doing is waited for, and the registration with it.
    eventually("the server has seen our end", || world.routed() == 1).await;
    world.old.steps.add_permits(1);
    eventually("it is over", || world.routed() == 0).await;
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_its_server_to_end_by_itself() {
    let world = World::new();
    let mut client = world.client().await;
    client
        .send(super::world::request("GET /slow", "alice", ""))
        .await
        .unwrap();
    eventually("it is there", || world.old.seen.count() == 1).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.routed(), 1, "the server is still at it");
    world.old.steps.add_permits(1);
    eventually("it is over", || world.routed() == 0).await;
    assert_eq!(count(&world.old.seen.executed), 1);
    assert_eq!(world.registry.unconfirmed(), 0);
}

#[tokio::test]
async fn requests_in_a_pipeline_are_answered_in_their_order() {
    let world = World::new();
    let mut client = world.client().await;
    let requests =
        ["/1", "/2", "/3"].map(|path| super::world::request(&format!("GET {path}"), "alice", ""));
    client.send(requests.concat()).await.unwrap();
    for path in ["old /1", "old /2", "old /3"] {
        assert_eq!(client.message().await.unwrap().text(), path);
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_a_long_poll_is_not() {
    let mut plan = Plan::default();
    plan.limits.web.idle = Duration::from_secs(2);
    let world = World::with(plan);
    let mut client = world.client().await;
    client
        .send(super::world::request("GET /slow", "alice", ""))
        .await
        .unwrap();
    eventually("it is there", || world.old.seen.count() == 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.old.steps.add_permits(1);
    assert_eq!(client.message().await.unwrap().status(), 200);
    assert!(client.has_ended().await);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_408() {
    let mut plan = Plan::default();
    plan.limits.web.head = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: ma").await.unwrap();
    assert_eq!(client.message().await.unwrap().status(), 408);
    assert!(client.has_ended().await);
}

#[tokio::test]
async fn a_process_that_stops_answers_what_it_has_and_takes_no_more() {
    let world = World::new();
    let mut busy = world.client().await;
    let mut idle = world.client().await;
    idle.ask("GET /", "alice", "").await;
    busy.send(super::world::request("GET /slow", "alice", ""))
        .await
        .unwrap();
    eventually("it is there", || world.old.seen.count() == 2).await;
    world.stop();
    assert!(idle.has_ended().await);
    let last = busy.message().await.unwrap();
    assert_eq!(
        last.status(),
        503,
        "what may be asked again is not waited for"
    );
    assert!(busy.has_ended().await);
    world.old.steps.add_permits(1);
    eventually("nothing is registered", || world.registered() == 0).await;
}

#[tokio::test]
async fn who_guesses_passwords_waits_longer_each_time_for_the_answer() {
    let mut plan = Plan::default();
    plan.limits.preauth.failure_floor = Duration::from_millis(200);
    let world = World::with(plan);
    let mut client = world.client().await;
    for least in [200, 200, 200, 400, 800] {
        let begun = Instant::now();
        assert_eq!(client.ask("GET /denied", "alice", "").await.status(), 401);
        assert!(begun.elapsed() >= Duration::from_millis(least));
    }
}
