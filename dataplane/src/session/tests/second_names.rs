//! Logins that name two people. Which of them a server logs in is a fact of that server, and a fence that goes
//! by the other one sees nothing.

use std::time::Duration;

use base64::Engine as _;
use ferrypost_proto::v1::AuthorizationIdentity::{self, Honoured, Ignored, Unspecified};
use tokio::time::Instant;

use super::{
    backend::{Backend, Manners},
    client::Client,
    eventually,
    world::{Plan, Way, World},
};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";

fn plan(authorization: [AuthorizationIdentity; 2]) -> Plan {
    Plan {
        way: Way {
            authorization,
            ..Way::default()
        },
        ..Plan::default()
    }
}

/// `%` parts a master user off, and these servers know it.
fn masters(known: [bool; 2]) -> Plan {
    Plan {
        way: Way {
            masters: ("%", known),
            ..Way::default()
        },
        ..Plan::default()
    }
}

/// Tries to log in as `acts_as` with the password of `user`.
async fn act_as(client: &mut Client, acts_as: &str, user: &str) -> String {
    let message = format!("{acts_as}\0{user}\0secret");
    let message = base64::engine::general_purpose::STANDARD.encode(message);
    client
        .send(format!("l AUTHENTICATE PLAIN {message}\r\n"))
        .await;
    client.answer("l ").await
}

fn connections(backend: &Backend) -> usize {
    backend.seen.count(&backend.seen.connections)
}

/// As Stalwart does it, the server logs in the owner of the password.
#[tokio::test]
async fn two_names_reach_no_server_that_is_not_known_to_honour_the_first() {
    for said in [Unspecified, Ignored] {
        let world = World::with(plan([said; 2]));
        let mut client = world.client().await;
        for (acts_as, user) in [(ALICE, BOB), (BOB, ALICE), (ALICE, "admin")] {
            let answer = act_as(&mut client, acts_as, user).await;
            assert!(
                answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
                "{answer}"
            );
        }
        assert_eq!((connections(&world.old), connections(&world.new)), (0, 0));
        assert_eq!(world.registry.counts().sessions, 0);
        // Nothing is refused that has one name.
        world.client().await.login(ALICE).await;
    }
}

#[tokio::test]
async fn two_names_are_refused_as_a_wrong_password_is_in_words_and_time_and_number() {
    let mut plan = plan([Unspecified; 2]);
    plan.limits.preauth.failures = 3;
    plan.limits.preauth.failure_floor = Duration::from_millis(300);
    let world = World::with(plan);
    let mut client = world.client().await;
    let wrong = client.try_login(ALICE, "wrong").await;
    for acts_as in [ALICE, "nobody@example.org"] {
        let began = Instant::now();
        assert_eq!(act_as(&mut client, acts_as, BOB).await, wrong);
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn one_name_in_two_spellings_is_one_name() {
    let world = World::new();
    let mut client = world.client().await;
    let answer = act_as(&mut client, "Alice@EXAMPLE.org", ALICE).await;
    assert!(answer.starts_with("l OK"), "{answer}");
}

#[tokio::test]
async fn a_session_by_two_names_is_closed_by_a_move_of_the_first() {
    let world = World::with(plan([Honoured; 2]));
    let mut client = world.client().await;
    let answer = act_as(&mut client, ALICE, BOB).await;
    assert!(answer.starts_with("l OK"), "{answer}");
    assert_eq!((connections(&world.old), connections(&world.new)), (1, 0));
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn each_server_is_asked_for_itself_whether_it_honours_two_names() {
    let world = World::with(plan([Honoured, Unspecified]));
    world.fence();
    let mut client = world.client().await;
    let acting = act_as(&mut client, ALICE, BOB);
    let flipping = async {
        eventually("it is held", || world.registry.counts().held == 1).await;
        world.flip();
    };
    let (answer, ()) = tokio::join!(acting, flipping);
    assert!(
        answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
        "{answer}"
    );
    assert_eq!(connections(&world.new), 0);
}

#[tokio::test]
async fn a_server_that_calls_itself_one_that_ignores_the_first_name_is_believed() {
    let mut plan = plan([Honoured; 2]);
    plan.old = Manners {
        greeting: b"* OK Stalwart IMAP4rev2 at your service.\r\n".to_vec(),
        ..Manners::default()
    };
    let world = World::with(plan);
    let mut client = world.client().await;
    let answer = act_as(&mut client, ALICE, BOB).await;
    assert!(
        answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
        "{answer}"
    );
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 0);
    client.login(ALICE).await;
}

/// To a server that does not know the separator, the login is another name: Dovecot can be told that `%` is `@`.
#[tokio::test]
async fn a_master_user_reaches_no_server_that_is_not_known_to_part_it_off() {
    let world = World::with(masters([false, true]));
    let mut client = world.client().await;
    let answer = client.try_login("alice@example.org%boss", "secret").await;
    assert!(
        answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
        "{answer}"
    );
    assert_eq!(connections(&world.old), 0);
    client.login("bob@example.org%boss").await;
}

#[tokio::test]
async fn a_master_user_s_session_is_closed_by_a_move_of_the_user() {
    let world = World::with(masters([true; 2]));
    let mut client = world.client().await;
    client.login("alice@example.org%boss").await;
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn a_login_that_names_three_people_is_refused_everywhere() {
    let mut plan = masters([true; 2]);
    plan.way.authorization = [Honoured; 2];
    let world = World::with(plan);
    let mut client = world.client().await;
    for (acts_as, user) in [
        (BOB, "alice@example.org%boss"),
        ("alice@example.org%boss", BOB),
        ("", "alice@example.org%bob@example.org%boss"),
    ] {
        let answer = act_as(&mut client, acts_as, user).await;
        assert!(
            answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
            "{answer}"
        );
    }
    assert_eq!((connections(&world.old), connections(&world.new)), (0, 0));
}
