//! Requests that one server may take for another than the next, over a connection.

use ferrypost_http::{
    Refusal,
    corpus::{CORPUS, Verdict},
};
use ferrypost_proto::v1::{self, http_without_account::Policy};

use super::world::{Plan, World, by_account, without_account};

/// Everything goes to the old server, so that whatever passes is seen there.
fn open() -> World {
    let all = v1::HttpRule {
        name: "all".into(),
        without_account: Some(without_account(Policy::Pin("old".into()))),
        writes_to_accounts: Some(false),
        ..by_account(&["basic"])
    };
    World::with(Plan {
        rules: vec![all],
        ..Plan::default()
    })
}

#[tokio::test]
async fn every_entry_of_the_corpus_meets_its_verdict_over_a_connection() {
    let world = open();
    for entry in CORPUS {
        let before = world.old.seen.count();
        let mut client = world.client().await;
        client.send(entry.octets).await.unwrap();
        let Some(response) = client.head().await else {
            panic!("{}: no answer", entry.name);
        };
        let seen = world.old.seen.requests().split_off(before);
        match entry.verdict {
            Verdict::Passes("*") => assert_eq!(response.status(), 204, "{}", entry.name),
            Verdict::Passes(target) => {
                assert_eq!(response.status(), 200, "{}", entry.name);
                assert_eq!(seen[0].1.target(), target, "{}", entry.name);
            }
            Verdict::Refused(refusal) => {
                assert_eq!(
                    response.status(),
                    refusal.status().as_u16(),
                    "{}",
                    entry.name
                );
                // Of a body that turns out to be malformed the server may have seen the head.
                let heads = usize::from(refusal == Refusal::Chunks);
                assert!(seen.len() <= heads, "{}: {seen:?}", entry.name);
                if refusal.ends_the_connection() {
                    let mut response = response;
                    client.body(&mut response).await;
                    assert!(client.has_ended().await, "{}", entry.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_is_said_behind_the_answers_that_are_due() {
    let world = open();
    let mut client = world.client().await;
    let good = "GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let bad = "GET /b HTTP/1.1\r\nHost: a.example\nX: y\r\n\r\n";
    client.send([good, good, bad, good].concat()).await.unwrap();
    world.old.steps.add_permits(2);
    for status in [200, 200, 400] {
        assert_eq!(client.message().await.unwrap().status(), status);
    }
    assert!(client.has_ended().await);
    assert_eq!(world.old.seen.count(), 2);
}
