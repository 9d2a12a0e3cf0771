//! Logins under names that no record lists: what a move by name would leave behind, shown before it and after.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_proto::v1::{
    ListUnlistedLoginsRequest, MigrateRequest, MigrationState, UnlistedLogin,
};
use ferrypost_tests::story::{migrate, move_to, served_by, short_limits};
use ferrypost_tests::world::{BareNames, Operator, World};

async fn left_behind(operator: &Operator) -> Vec<UnlistedLogin> {
    let request = ListUnlistedLoginsRequest::default();
    let answer = operator.stats().list_unlisted_logins(request).await;
    let answer = answer.unwrap().into_inner();
    assert!(answer.header.unwrap().unreachable.is_empty());
    answer.logins
}

#[tokio::test]
async fn a_bare_name_that_does_not_move_with_its_account_is_shown_before_and_after() {
    let world = World::builder()
        .limits(short_limits())
        .data_planes(2)
        .bare_names(BareNames::Listed);
    let world = world.start().await.unwrap();
    let operator = world.operator(0);
    let account = world.accounts()[0].clone();
    let (bare, _) = account.split_once('@').unwrap();
    for data_plane in [0, 1] {
        let mut client = world.imaps(data_plane).open().await.unwrap();
        let reply = client.login(bare, world.password()).await.unwrap();
        assert!(reply.is_ok(), "{reply:?}");
        assert_eq!(served_by(&mut client).await.unwrap(), "source");
    }
    assert_eq!(left_behind(&operator).await, []);
    let request = MigrateRequest {
        validate_only: true,
        ..move_to(&account, "target")
    };
    let planned = operator.migrations().migrate(request).await.unwrap();
    let plan = planned.into_inner().plan.unwrap();
    let names: Vec<_> = plan
        .unlisted_logins
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(names, [bare]);
    assert_eq!(plan.unlisted_logins[0].instances.len(), 2);
    let moved = migrate(&operator, move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    let logins = left_behind(&operator).await;
    let [login] = logins.as_slice() else {
        panic!("{logins:?}");
    };
    assert_eq!(login.name, bare);
    assert_eq!(
        (login.destination.as_str(), login.home.as_str()),
        ("source", "target")
    );
    assert!(!login.account_id.is_empty() && login.age.is_some());
    world.stop().await.unwrap();
}
