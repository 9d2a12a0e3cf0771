//! What is learned of a sign-in by a form.

use super::{message::Message, world::World};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\nuser=bob%40example.org";

/// The cookies that a response sets, as a browser sends them.
fn cookies(response: &Message) -> Vec<String> {
    let set = response
        .fields
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    set.map(|(_, line)| line.split(';').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_session_follows_the_account_that_signed_in_and_no_server_sees_our_cookie() {
    let world = World::new();
    let mut client = world.client().await;
    let response = client.ask("POST /sign-in", "", FORM).await;
    let [servers, ours] = cookies(&response).try_into().unwrap();
    assert!(servers == "sid=1234" && ours.starts_with("__Host-ferrypost="));
    let both = format!("Cookie: a=b; {servers}; {ours}\r\n");
    let mut another = world.client().await;
    assert_eq!(
        another.ask("GET /mailbox/1", "", &both).await.text(),
        "new /mailbox/1"
    );
    assert_eq!(world.new.seen.last().field("cookie"), Some("a=b; sid=1234"));
}

#[tokio::test]
async fn a_cookie_of_ours_beside_another_session_or_changed_is_as_if_it_were_not_there() {
    let world = World::new();
    let mut client = world.client().await;
    let response = client.ask("POST /sign-in", "", FORM).await;
    let [_, ours] = cookies(&response).try_into().unwrap();
    for others in [
        format!("sid=9999; {ours}"),
        ours.clone(),
        format!("sid=1234; {}x", &ours[..ours.len() - 1]),
    ] {
        let line = format!("Cookie: {others}\r\n");
        assert_eq!(
            client.ask("GET /mailbox/1", "", &line).await.text(),
            "old /mailbox/1"
        );
        let seen = world.old.seen.last();
        assert!(
            seen.field("cookie")
                .is_none_or(|line| !line.contains("ferrypost"))
        );
    }
}

#[tokio::test]
async fn nothing_is_learned_of_a_sign_in_that_its_server_did_not_take() {
    let world = World::new();
    let mut client = world.client().await;
    let response = client.ask("POST /form", "", FORM).await;
    assert!(response.status() == 200 && cookies(&response).is_empty());
}

/// Its server might go by either.
#[tokio::test]
async fn a_request_of_two_accounts_is_refused_and_one_that_names_one_account_twice_is_not() {
    let world = World::new();
    let mut client = world.client().await;
    let response = client.ask("POST /sign-in", "", FORM).await;
    let [servers, ours] = cookies(&response).try_into().unwrap();
    let bobs = format!("Cookie: {servers}; {ours}\r\n");
    let over = format!("Cookie: sid=9999; {ours}\r\n");
    let (bobs, over) = (bobs.as_str(), over.as_str());
    let seen = || [world.old.seen.count(), world.new.seen.count()];
    let before = seen();
    for (line, user, more, status) in [
        ("PUT /either?user=bob%40example.org", "alice", "", 400),
        ("PUT /either?user=alice%40example.org", "", bobs, 400),
        ("PUT /either", "alice", bobs, 400),
        ("PUT /either?user=BOB%40example.org", "bob", bobs, 200),
        ("PUT /either?user=alice%40example.org", "alice", over, 200),
        // No source of the rule's.
        ("PUT /elsewhere?user=bob%40example.org", "alice", bobs, 200),
    ] {
        let answer = client.ask(line, user, more).await;
        assert_eq!(answer.status(), status, "{line} {user} {more}");
    }
    assert_eq!(seen(), [before[0] + 2, before[1] + 1]);
}
