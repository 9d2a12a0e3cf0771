//! The keys of cookies, as the stream brings them.

use ferrypost_http::cookie::{HASH, NotValid, Ticket};
use ferrypost_proto::routing::v1::{
    CookieKey, CookieKeys, stream_request::Message as Up, stream_response::Message as Down,
};
use ferrypost_routing::testing::*;

use super::scripted::{Served, World};

fn keys(octet: u8, id: u32) -> CookieKeys {
    CookieKeys {
        keys: vec![CookieKey {
            id,
            key: vec![octet; 32].into(),
        }],
        sealing: id,
    }
}

/// Sends keys and waits until something that was sent after them is answered.
async fn told(stream: &mut Served, keys: CookieKeys) {
    stream.send(Down::CookieKeys(keys)).await;
    stream.heartbeat(9).await;
    let answered = |message| match message {
        Up::Health(health) => (health.sequence == 9).then_some(()),
        _ => None,
    };
    stream.find(answered).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_said_last_counts_and_outlives_the_connection() {
    let mut world = World::new();
    let mut stream = world.synced(chunk(5, Vec::new())).await;
    let ticket = Ticket {
        login: "alice".into(),
        cookie_hash: [1; HASH],
        expires: 1,
    };
    assert_eq!(world.cookie_keys.seal(&ticket), None);
    told(&mut stream, keys(7, 1)).await;
    let sealed = world.cookie_keys.seal(&ticket).unwrap().encode();
    drop(stream);
    let (mut stream, _) = world.welcomed().await;
    assert_eq!(world.cookie_keys.open(&sealed), Ok(ticket));
    told(&mut stream, keys(8, 2)).await;
    assert_eq!(world.cookie_keys.open(&sealed), Err(NotValid::NotOurs));
}
