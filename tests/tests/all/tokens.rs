//! Logins by bearer token, on real Dovecots that ask the same issuer as we do. What servers do that go by the token
//! alone is in the data plane's own tests.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::dovecot::Service;
use ferrypost_tests::imap::{Connect, ImapClient, Reply, Security};
use ferrypost_tests::issuer::Issuer;
use ferrypost_tests::story::{SOON, closed, migrate, move_to, served_by, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;

async fn world(issuer: &Issuer) -> World {
    let world = World::builder().limits(short_limits()).data_planes(1);
    let world = world.issuer(issuer).start().await.unwrap();
    eventually("tokens are offered", SOON, async || {
        let client = world
            .imaps(0)
            .open()
            .await
            .map_err(|error| error.to_string())?;
        if client.has("AUTH=XOAUTH2") && client.has("AUTH=OAUTHBEARER") {
            Ok(())
        } else {
            Err(client.greeting().to_owned())
        }
    })
    .await
    .unwrap();
    world
}

/// Tries to log in; what the server said of the token comes too.
async fn bring(world: &World, name: &str, token: &str) -> (ImapClient, Reply, Option<String>) {
    let mut client = world.imaps(0).open().await.unwrap();
    let (reply, explanation) = client.authenticate_token(name, token).await.unwrap();
    (client, reply, explanation)
}

#[tokio::test]
async fn a_session_by_token_moves_with_its_owner() {
    let issuer = Issuer::start().await.unwrap();
    let world = world(&issuer).await;
    let account = world.accounts()[0].clone();
    issuer.issue("t0ken", &account);
    let (mut session, reply, _) = bring(&world, &account, "t0ken").await;
    assert!(reply.is_ok(), "{reply:?}");
    assert_eq!(served_by(&mut session).await.unwrap(), "source");
    let moved = migrate(&world.operator(0), move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    assert!(closed(&mut session).await.unwrap().is_some());
    let (mut session, reply, _) = bring(&world, &account, "t0ken").await;
    assert!(reply.is_ok(), "{reply:?}");
    assert_eq!(served_by(&mut session).await.unwrap(), "target");
    world.stop().await.unwrap();
}

/// What makes "honoured" true of Dovecot where a token nobody but Dovecot reads comes with a name beside it.
#[tokio::test]
async fn dovecot_holds_the_name_beside_a_token_against_it() {
    let issuer = Issuer::start().await.unwrap();
    let world = world(&issuer).await;
    let [one, other] = [0, 1].map(|n| world.accounts()[n].clone());
    issuer.issue("t0ken", &one);
    let imaps = world.source().addr(Service::Imaps);
    for (name, is_let_in) in [(&one, true), (&other, false)] {
        let direct = Connect::new(imaps, Security::Tls(world.trust()));
        let mut direct = direct.open().await.unwrap();
        let (reply, _) = direct.authenticate_token(name, "t0ken").await.unwrap();
        assert_eq!(reply.is_ok(), is_let_in, "{name}: {reply:?}");
    }
    // And we do not even ask it.
    let (_, reply, _) = bring(&world, &other, "t0ken").await;
    assert!(
        reply.text.starts_with("[AUTHENTICATIONFAILED]"),
        "{reply:?}"
    );
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_refused_in_its_words() {
    let issuer = Issuer::start().await.unwrap();
    let world = world(&issuer).await;
    let account = world.accounts()[0].clone();
    issuer.issue("t0ken", &account);
    let (_, reply, _) = bring(&world, &account, "t0ken").await;
    assert!(reply.is_ok(), "{reply:?}");
    // We remember whose it is; the server asks again.
    issuer.revoke("t0ken");
    let (_, reply, explanation) = bring(&world, &account, "t0ken").await;
    assert!(
        reply.text.starts_with("[AUTHENTICATIONFAILED]"),
        "{reply:?}"
    );
    let explanation = explanation.expect("Dovecot says why it refuses a token");
    assert!(explanation.contains("\"status\":"), "{explanation}");
    // What the issuer does not know we refuse ourselves, in the same way.
    let (_, reply, explanation) = bring(&world, &account, "another").await;
    assert!(
        reply.text.starts_with("[AUTHENTICATIONFAILED]"),
        "{reply:?}"
    );
    assert_eq!(
        explanation.as_deref(),
        Some("{\"status\":\"invalid_token\"}")
    );
    world.stop().await.unwrap();
}

#[tokio::test]
async fn while_the_issuer_is_away_a_token_is_not_refused_and_goes_nowhere() {
    let issuer = Issuer::start().await.unwrap();
    let world = world(&issuer).await;
    let account = world.accounts()[0].clone();
    issuer.issue("t0ken", &account);
    issuer.is_away(true);
    let (_, reply, _) = bring(&world, &account, "t0ken").await;
    assert!(reply.text.starts_with("[UNAVAILABLE]"), "{reply:?}");
    let log = world.data_planes()[0].plane.log();
    let line = log
        .wait_for(&["outcome=\"issuer_away\""], SOON)
        .await
        .unwrap();
    assert!(!line.contains("t0ken") && !line.contains("name="), "{line}");
    issuer.is_away(false);
    let (_, reply, _) = bring(&world, &account, "t0ken").await;
    assert!(reply.is_ok(), "{reply:?}");
    world.stop().await.unwrap();
}
