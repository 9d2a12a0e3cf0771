//! The thin road: one login through both planes, by a streamed snapshot from the embedded store.

use ferrypost_tests::dovecot::ID_FIELD;
use ferrypost_tests::world::World;

#[tokio::test]
async fn a_login_goes_to_the_source_by_the_streamed_default() {
    let world = World::builder().start().await.unwrap();
    let account = &world.accounts()[0];
    for connect in [world.imaps(0), world.imap_starttls(1)] {
        let mut client = connect.open().await.unwrap();
        let reply = client.login(account, world.password()).await.unwrap();
        reply.accepted().unwrap();
        let server = client.id_field(ID_FIELD).await.unwrap();
        assert_eq!(server.as_deref(), Some("source"));
        client.logout().await.unwrap();
    }
}
