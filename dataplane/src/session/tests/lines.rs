//! What the log says of a login: one line each, with whose fault it was, and nothing that a peer made up.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{
    backend::Manners,
    log::Log,
    world::{Plan, World},
};

async fn refused(refusal: &'static str) -> (Value, String) {
    let (log, _guard) = Log::begin();
    let world = World::with(Plan {
        old: Manners {
            refusal,
            ..Manners::default()
        },
        ..Plan::default()
    });
    let mut client = world.client().await;
    client.try_login("alice@example.org", "wrong").await;
    (log.logins(1).await.remove(0), log.text())
}

#[tokio::test]
async fn a_refusal_is_blamed_on_whom_the_server_blames() {
    for (refusal, outcome, blame, code) in [
        ("wrong", "rejected", "client", None),
        (
            "[AUTHENTICATIONFAILED] wrong",
            "rejected",
            "client",
            Some("AUTHENTICATIONFAILED"),
        ),
        (
            "[AuthorizationFailed] no",
            "rejected",
            "client",
            Some("AUTHORIZATIONFAILED"),
        ),
        ("[EXPIRED] old", "rejected", "client", Some("EXPIRED")),
        (
            "[UNAVAILABLE] down",
            "server_refused",
            "backend",
            Some("UNAVAILABLE"),
        ),
        ("[INUSE] locked", "server_refused", "backend", Some("INUSE")),
        ("[LIMIT] many", "server_refused", "backend", Some("LIMIT")),
        (
            "[SERVERBUG] oops",
            "server_refused",
            "backend",
            Some("SERVERBUG"),
        ),
        (
            "[CONTACTADMIN] call",
            "server_refused",
            "backend",
            Some("CONTACTADMIN"),
        ),
        (
            "[X-MADE-UP hello] no",
            "server_refused",
            "backend",
            Some("X-MADE-UP"),
        ),
    ] {
        let (line, _) = refused(refusal).await;
        assert_eq!(line["outcome"], outcome, "{line}");
        assert_eq!(line["blame"], blame, "{line}");
        assert_eq!(
            line.get("server_code").and_then(Value::as_str),
            code,
            "{line}"
        );
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.contains(code.unwrap_or("no code")), "{line}");
    }
}

#[tokio::test]
async fn no_text_of_a_server_gets_into_the_log() {
    for refusal in [
        "mallory was here",
        "[mallory was here] mallory was here",
        "[mallory] was here",
        "[AUTHENTICATIONFAILED mallory] mallory",
        "[MALLORY1] x",
        "[MALLORYMALLORYMALLORYMALLORYMALLORY] x",
    ] {
        let (_, text) = refused(refusal).await;
        let text = text.to_ascii_lowercase();
        assert!(!text.contains("mallory"), "{text}");
    }
}

/// base64("alice"), which has no NUL; no base64; an empty name.
const UNFIT: [(&str, &str); 3] = [
    ("YWxpY2U=", "form"),
    ("!!!", "form"),
    ("AAB4", "login name is empty"),
];

#[tokio::test]
async fn a_malformed_login_waits_and_counts_and_is_logged_like_a_rejected_one() {
    let floor = Duration::from_millis(200);
    for (response, reason) in UNFIT {
        let (log, _guard) = Log::begin();
        let mut plan = Plan::default();
        plan.limits.preauth.failures = 2;
        plan.limits.preauth.failure_floor = floor;
        let world = World::with(plan);
        let mut client = world.client().await;
        for tag in ["a", "b"] {
            let began = Instant::now();
            client
                .send(format!("{tag} AUTHENTICATE PLAIN {response}\r\n"))
                .await;
            client.answer(&format!("{tag} ")).await;
            assert!(began.elapsed() >= floor, "{response}");
        }
        assert!(client.rest().await.starts_with("* BYE"), "{response}");
        for line in log.logins(2).await {
            assert_eq!(line["outcome"], "malformed", "{line}");
            assert_eq!(line["blame"], "client", "{line}");
            assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
        }
        assert!(!log.text().contains(response));
        assert_eq!(world.old.seen.count(&world.old.seen.connections), 0);
    }
}

#[tokio::test]
async fn an_endless_response_waits_and_is_logged_and_ends_the_session() {
    let floor = Duration::from_millis(200);
    let (log, _guard) = Log::begin();
    let mut plan = Plan::default();
    plan.limits.preauth.failure_floor = floor;
    let world = World::with(plan);
    let mut client = world.client().await;
    client.send("a AUTHENTICATE PLAIN\r\n").await;
    client.answer("+").await;
    let began = Instant::now();
    _ = client.try_send(&vec![b'A'; 1 << 20]).await;
    let rest = client.rest().await;
    assert!(began.elapsed() >= floor);
    let (answer, goodbye) = rest.split_once("\r\n").unwrap();
    assert!(
        answer.starts_with("a BAD") && goodbye.starts_with("* BYE"),
        "{rest}"
    );
    let line = log.logins(1).await.remove(0);
    assert_eq!(line["outcome"], "malformed", "{line}");
    assert!(
        line["reason"].as_str().unwrap().contains("too long"),
        "{line}"
    );
}
