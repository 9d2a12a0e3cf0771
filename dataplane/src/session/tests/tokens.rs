//! Logins by bearer token, in IMAP. The servers do as Stalwart does: the token decides, whatever name is beside it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ferrypost_proto::{
    Endpoint,
    v1::AuthorizationIdentity::{self, Honoured, Ignored, Unspecified},
};
use ferrypost_wire::Bearer;
use futures_util::future::BoxFuture;

use super::{
    backend::{Backend, Manners},
    client::Client,
    eventually,
    world::{Plan, Way, World},
};
use crate::tokens::{IssuerError, NoOwner, Owner, Proof, TokenOwner};

pub(super) const ALICE: &str = "alice@example.org";
pub(super) const BOB: &str = "bob@example.org";
const CAROL: &str = "carol@example.org";

/// A server that takes tokens.
const OFFERED: &str = "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2";
/// `{"status":"invalid_token"}`
pub(super) const INVALID: &str = "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=";

/// What is said of tokens. Those that the servers take have `secret` in them.
pub(super) struct Known(HashMap<&'static str, Result<Owner, NoOwner>>);

impl TokenOwner for Known {
    fn tells_at(&self, _: &Endpoint) -> bool {
        true
    }

    fn owner<'a>(&'a self, bearer: &'a Bearer) -> BoxFuture<'a, Result<Owner, NoOwner>> {
        let token = String::from_utf8_lossy(bearer.token().expose()).into_owned();
        let beside = bearer.name().map(|name| Owner {
            name: name.to_owned(),
            proof: Proof::Beside,
        });
        let known = self.0.get(token.as_str()).cloned();
        Box::pin(async { known.unwrap_or_else(|| beside.ok_or(NoOwner::Unread)) })
    }
}

pub(super) fn owner(name: &str, proof: Proof) -> Owner {
    Owner {
        name: name.to_owned(),
        proof,
    }
}

pub(super) fn known() -> Arc<Known> {
    Arc::new(Known(HashMap::from([
        ("secret-alice", Ok(owner(ALICE, Proof::Issuer))),
        ("secret-bob", Ok(owner(BOB, Proof::Issuer))),
        ("claims-alice", Ok(owner(ALICE, Proof::Claimed))),
        ("expired-alice", Ok(owner(ALICE, Proof::Issuer))),
        ("forged", Err(NoOwner::Refused)),
        ("secret-away", Err(NoOwner::Away(IssuerError::Timeout))),
    ])))
}

fn manners() -> Manners {
    Manners {
        capabilities: OFFERED,
        challenge: Some(INVALID),
        ..Manners::default()
    }
}

fn plan(authorization: [AuthorizationIdentity; 2]) -> Plan {
    Plan {
        old: manners(),
        new: manners(),
        way: Way {
            authorization,
            offered: &[
                "IMAP4rev1",
                "SASL-IR",
                "AUTH=PLAIN",
                "AUTH=OAUTHBEARER",
                "AUTH=XOAUTH2",
            ],
            ..Way::default()
        },
        tokens: known(),
        ..Plan::default()
    }
}

pub(super) fn xoauth2(user: &str, token: &str) -> String {
    STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"))
}

/// Tries to log in.
async fn bring(client: &mut Client, user: &str, token: &str) -> String {
    let message = xoauth2(user, token);
    client
        .send(format!("l AUTHENTICATE XOAUTH2 {message}\r\n"))
        .await;
    client.line().await
}

async fn log_in(client: &mut Client, user: &str, token: &str) {
    let answer = bring(client, user, token).await;
    assert!(answer.starts_with("l OK"), "{answer}");
}

fn connections(backend: &Backend) -> usize {
    backend.seen.count(&backend.seen.connections)
}

#[tokio::test]
async fn a_token_goes_to_the_server_of_its_owner() {
    let world = World::with(plan([Unspecified; 2]));
    log_in(&mut world.client().await, "", "secret-alice").await;
    log_in(&mut world.client().await, "Bob@EXAMPLE.org", "secret-bob").await;
    assert_eq!((connections(&world.old), connections(&world.new)), (1, 1));
}

#[tokio::test]
async fn a_name_beside_a_token_that_is_another_s_reaches_no_server_that_may_go_by_it() {
    for said in [Unspecified, Honoured] {
        let world = World::with(plan([said; 2]));
        let mut client = world.client().await;
        let answer = bring(&mut client, BOB, "secret-alice").await;
        assert!(
            answer.starts_with("l NO [AUTHENTICATIONFAILED]"),
            "{answer}"
        );
        assert_eq!((connections(&world.old), connections(&world.new)), (0, 0));
    }
}

/// dave NUL carol's trick, by token: the session is the token's owner's, and so is the fence.
#[tokio::test]
async fn where_the_server_goes_by_the_token_so_do_route_and_fence() {
    let world = World::with(plan([Ignored; 2]));
    let mut client = world.client().await;
    log_in(&mut client, BOB, "secret-alice").await;
    assert_eq!((connections(&world.old), connections(&world.new)), (1, 0));
    world.fence();
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn a_token_is_held_while_its_owner_is_fenced_and_goes_to_the_new_server() {
    let world = World::with(plan([Ignored; 2]));
    world.fence();
    let mut client = world.client().await;
    let logging_in = log_in(&mut client, "", "secret-alice");
    let flipping = async {
        eventually("it is held", || world.registry.counts().held == 1).await;
        world.flip();
    };
    tokio::join!(logging_in, flipping);
    assert_eq!((connections(&world.old), connections(&world.new)), (0, 1));
}

#[tokio::test]
async fn a_refused_token_is_explained_and_refused_in_the_server_s_own_words() {
    let mut plan = plan([Unspecified; 2]);
    plan.old.refusal = "[AUTHENTICATIONFAILED] Token has expired";
    let world = World::with(plan);
    let mut client = world.client().await;
    let explained = bring(&mut client, ALICE, "expired-alice").await;
    assert_eq!(explained, format!("+ {INVALID}"));
    client.send("\r\n").await;
    let refused = client.line().await;
    assert_eq!(refused, "l NO [AUTHENTICATIONFAILED] Token has expired");
    log_in(&mut client, ALICE, "secret-alice").await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_explanation_hears_the_refusal_at_its_last_failure() {
    let mut plan = plan([Unspecified; 2]);
    plan.limits.preauth.failures = 1;
    let world = World::with(plan);
    let mut client = world.client().await;
    assert_eq!(
        bring(&mut client, "", "expired-alice").await,
        format!("+ {INVALID}")
    );
    assert_eq!(client.line().await, "l NO [AUTHENTICATIONFAILED] wrong");
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn a_token_that_its_issuer_does_not_know_is_refused_as_a_server_would() {
    let world = World::with(plan([Unspecified; 2]));
    let mut client = world.client().await;
    assert_eq!(
        bring(&mut client, ALICE, "forged").await,
        format!("+ {INVALID}")
    );
    client.send("AQ==\r\n").await;
    let refused = client.line().await;
    assert!(
        refused.starts_with("l NO [AUTHENTICATIONFAILED]"),
        "{refused}"
    );
    assert_eq!((connections(&world.old), connections(&world.new)), (0, 0));
}

#[tokio::test]
async fn while_the_issuer_is_away_a_token_gets_a_temporary_error_and_goes_nowhere() {
    let world = World::with(plan([Ignored; 2]));
    let mut client = world.client().await;
    for _ in 0..5 {
        let answer = bring(&mut client, ALICE, "secret-away").await;
        assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    }
    assert_eq!((connections(&world.old), connections(&world.new)), (0, 0));
    log_in(&mut client, ALICE, "secret-alice").await;
}

#[tokio::test]
async fn a_name_beside_a_token_that_nobody_can_read_goes_where_it_is_held_against_the_token() {
    let world = World::with(plan([Honoured, Ignored]));
    log_in(&mut world.client().await, CAROL, "secret-opaque").await;
    assert_eq!((connections(&world.old), connections(&world.new)), (1, 0));
    let mut client = world.client().await;
    let answer = bring(&mut client, BOB, "secret-opaque").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    let answer = bring(&mut client, "", "secret-opaque").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert_eq!((connections(&world.old), connections(&world.new)), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_seen_to_go_by_the_token_gets_none_that_nobody_can_read() {
    let mut plan = plan([Honoured; 2]);
    plan.old.greeting = b"* OK Stalwart IMAP4rev2 at your service.\r\n".to_vec();
    let world = World::with(plan);
    let mut client = world.client().await;
    let answer = bring(&mut client, CAROL, "secret-opaque").await;
    assert!(answer.starts_with("l NO [UNAVAILABLE]"), "{answer}");
    assert_eq!(world.old.seen.count(&world.old.seen.logins), 0);
}

#[tokio::test]
async fn a_token_of_six_kilobytes_reaches_servers_with_and_without_initial_responses() {
    for capabilities in [
        OFFERED,
        "IMAP4rev1 AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2",
    ] {
        let mut plan = plan([Honoured; 2]);
        plan.old.capabilities = capabilities;
        let world = World::with(plan);
        let token = "secret".repeat(1000);
        let mut client = world.client().await;
        log_in(&mut client, CAROL, &token).await;
        assert!(world.old.seen.has(&token));
        let mut client = world.client().await;
        client.send("l AUTHENTICATE XOAUTH2\r\n").await;
        assert_eq!(client.line().await, "+");
        client.send(xoauth2(CAROL, &token) + "\r\n").await;
        let answer = client.line().await;
        assert!(answer.starts_with("l OK"), "{answer}");
    }
}

#[tokio::test]
async fn tokens_are_offered_where_their_owners_can_be_told() {
    let offered = |tokens| async {
        let world = World::with(Plan {
            tokens,
            ..plan([Unspecified; 2])
        });
        let mut client = world.client().await;
        client.send("a CAPABILITY\r\n").await;
        client
            .until("a OK")
            .await
            .remove(0)
            .contains("AUTH=XOAUTH2")
    };
    assert!(offered(known()).await);
    assert!(!offered(Plan::default().tokens).await);
}

#[tokio::test]
async fn a_fence_that_overtakes_a_token_sends_it_once_more() {
    let mut plan = plan([Unspecified; 2]);
    let verdicts = Arc::new(tokio::sync::Semaphore::new(0));
    plan.old.verdicts = Some(Arc::clone(&verdicts));
    plan.limits.relay.close = Duration::from_millis(100);
    let world = World::with(plan);
    let mut client = world.client().await;
    let logging_in = async {
        client
            .send(format!(
                "l AUTHENTICATE XOAUTH2 {}\r\n",
                xoauth2("", "secret-alice")
            ))
            .await;
        client.answer("l ").await
    };
    let moving = async {
        eventually("the old server has it", || {
            world.old.seen.count(&world.old.seen.logins) == 1
        })
        .await;
        world.fence();
        eventually("it is held", || world.registry.counts().held == 1).await;
        world.flip();
    };
    let (answer, ()) = tokio::join!(logging_in, moving);
    assert!(answer.starts_with("l OK"), "{answer}");
    assert_eq!(world.new.seen.count(&world.new.seen.logins), 1);
}
