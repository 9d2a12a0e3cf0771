//! Logins that name two people, on real Dovecots: a master user acts as an account by an authorization identity
//! and by a separator. Scripted servers that ignore the one or do not know the other are in the data plane's own
//! tests.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_proto::v1::{
    ApplyRoutingConfigRequest, AuthorizationIdentity, GetRoutingConfigRequest, MigrationState,
};
use ferrypost_tests::dovecot::{MASTER, MASTER_PASSWORD};
use ferrypost_tests::imap::ImapClient;
use ferrypost_tests::story::{SOON, closed, migrate, move_to, served_by, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Operator, World};

async fn world() -> World {
    let world = World::builder().limits(short_limits()).data_planes(1);
    world.start().await.unwrap()
}

/// Logs in as `acts_as` with the password of another.
async fn act_as(world: &World, acts_as: &str, user: &str, password: &str) -> Option<ImapClient> {
    let mut client = world.imaps(0).open().await.unwrap();
    let reply = client.authenticate_plain(acts_as, user, password).await;
    reply.unwrap().is_ok().then_some(client)
}

#[tokio::test]
async fn a_master_user_s_sessions_are_the_account_s_and_go_with_it() {
    let world = world().await;
    let operator = world.operator(0);
    let account = world.accounts()[0].clone();
    let by_separator = format!("{account}%{MASTER}");
    let mut sessions = Vec::new();
    for (acts_as, user) in [(account.as_str(), MASTER), ("", by_separator.as_str())] {
        let session = act_as(&world, acts_as, user, MASTER_PASSWORD).await;
        let mut session = session.expect("a master user may act as everybody");
        assert_eq!(served_by(&mut session).await.unwrap(), "source");
        sessions.push(session);
    }
    let moved = migrate(&operator, move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    for mut session in sessions {
        assert!(closed(&mut session).await.unwrap().is_some());
    }
    let again = act_as(&world, &account, MASTER, MASTER_PASSWORD).await;
    let mut again = again.expect("a master user may act as everybody");
    assert_eq!(served_by(&mut again).await.unwrap(), "target");
    world.stop().await.unwrap();
}

/// What makes "honoured" true of Dovecot: it never logs in the owner of the password instead.
#[tokio::test]
async fn dovecot_refuses_two_names_to_whoever_is_no_master_user_in_both_orders() {
    let world = world().await;
    let [one, other] = [0, 1].map(|n| world.accounts()[n].clone());
    for (acts_as, user) in [(&one, &other), (&other, &one)] {
        let session = act_as(&world, acts_as, user, world.password()).await;
        assert!(session.is_none(), "{user} acted as {acts_as}");
    }
    world.stop().await.unwrap();
}

async fn say_nothing_of_two_names(operator: &Operator) {
    let mut service = operator.routing_config();
    let request = GetRoutingConfigRequest {};
    let answer = service.get_routing_config(request).await.unwrap();
    let mut config = answer.into_inner().config.unwrap();
    let destinations = config.destinations.iter_mut();
    for endpoint in destinations.flat_map(|destination| &mut destination.endpoints) {
        endpoint.set_authorization_identity(AuthorizationIdentity::Unspecified);
    }
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        ..ApplyRoutingConfigRequest::default()
    };
    service.apply_routing_config(request).await.unwrap();
}

#[tokio::test]
async fn two_names_are_refused_where_the_routing_does_not_say_what_the_server_does() {
    let world = world().await;
    let account = world.accounts()[0].clone();
    say_nothing_of_two_names(&world.operator(0)).await;
    eventually("two names are refused", SOON, async || {
        match act_as(&world, &account, MASTER, MASTER_PASSWORD).await {
            None => Ok(()),
            Some(_) => Err("the master user got in".to_owned()),
        }
    })
    .await
    .unwrap();
    let log = world.data_planes()[0].plane.log();
    let why = ["outcome=\"second_name\"", "authorization_identity"];
    let line = log.wait_for(&why, SOON).await.unwrap();
    assert!(!line.contains(MASTER_PASSWORD), "{line}");
    world.stop().await.unwrap();
}
