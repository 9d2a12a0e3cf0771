//! Mail delivered by LMTP through a whole data plane to a real Cyrus, beside a Dovecot.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_proto::v1::{Protocol, RoutingConfig};
use ferrypost_tests::certs::Authority;
use ferrypost_tests::cyrus::{self, Cyrus, Service};
use ferrypost_tests::dovecot::Role;
use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;

use super::announcement::{endpoint_of, reconfigure};
use super::lmtp::{Sender, subjects};

/// Sends a message to both as soon as both may have mail.
async fn send(world: &World, subject: &str, to: [&str; 2]) -> Vec<String> {
    let address = world.data_planes()[0].deliveries().unwrap();
    eventually("both may have mail", SOON, || async {
        let mut trial = Sender::connect(address, "LHLO").await;
        trial.ask("MAIL FROM:<>").await;
        for account in to {
            let said = trial.ask(&format!("RCPT TO:<{account}>")).await;
            if !said.starts_with("250 ") {
                return Err(said);
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    let mut sender = Sender::connect(address, "LHLO").await;
    sender.send(subject, &to, 2).await
}

#[tokio::test]
async fn one_message_reaches_a_cyrus_and_a_dovecot_and_follows_an_account_from_one_to_the_other() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    // What a delta hook would carry over is another's to show.
    let world = builder
        .deliveries()
        .delta_hook(false)
        .start()
        .await
        .unwrap();
    let [alice, bob] = [0, 1].map(|n| &*world.accounts()[n]);
    let authority = Authority::new("Cyrus").unwrap();
    let cyrus = Cyrus::start(
        world.folder(),
        cyrus::Setup {
            role: Role::Target,
            identity: &authority.server().unwrap(),
            accounts: world.accounts(),
            password: world.password(),
            survives: false,
        },
    )
    .await
    .unwrap();
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, Role::Target, Protocol::Lmtp);
        endpoint.port = cyrus.addr(Service::Lmtp).port().into();
    };
    reconfigure(&world, "to a Cyrus", edit).await;
    migrate(&world.operator(0), move_to(bob, "target"))
        .await
        .unwrap();
    let said = send(&world, "one", [alice, bob]).await;
    assert!(said[0].starts_with("250 2.0.0 "), "Dovecot: {said:?}");
    assert!(said[1].starts_with("250 2.1.5 Success"), "Cyrus: {said:?}");
    assert_eq!(subjects(world.source(), alice).await, ["one"]);
    assert_eq!(cyrus.subjects(bob).await.unwrap(), ["one"]);
    assert!(cyrus.subjects(alice).await.unwrap().is_empty());

    migrate(&world.operator(0), move_to(alice, "target"))
        .await
        .unwrap();
    send(&world, "two", [alice, bob]).await;
    assert_eq!(cyrus.subjects(alice).await.unwrap(), ["two"]);
    assert_eq!(cyrus.subjects(bob).await.unwrap(), ["one", "two"]);

    roll_back(&world.operator(0), alice).await.unwrap();
    send(&world, "three", [alice, bob]).await;
    assert_eq!(subjects(world.source(), alice).await, ["one", "three"]);
    assert_eq!(cyrus.subjects(alice).await.unwrap(), ["two"]);
    assert_eq!(cyrus.subjects(bob).await.unwrap(), ["one", "three", "two"]);
    drop(cyrus);
    world.stop().await.unwrap();
}
