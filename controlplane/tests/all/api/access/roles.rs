//! What each role may call.

use std::collections::BTreeMap;

use ferrypost_proto::{
    DESCRIPTORS,
    v1::{self, stats_service_client::StatsServiceClient},
};
use prost::Message as _;
use tonic::Code;

use super::{ADMIN, OPERATOR, VIEWER, call, channel, guarded, reason_of};
use crate::api::world::{World, reason};

/// What each method asks for, written down once more than in the code.
fn needed_roles() -> BTreeMap<&'static str, &'static str> {
    let mut needed = BTreeMap::new();
    for method in [
        "MigrationService/GetMigration",
        "MigrationService/ListMigrations",
        "MigrationService/WaitMigration",
        "MigrationService/WatchMigration",
        "MigrationService/WatchMigrations",
        "PlacementService/GetPlacement",
        "PlacementService/ListPlacements",
        "PlacementService/ExplainRoute",
        "StatsService/GetRewound",
        "StatsService/GetStats",
        "StatsService/ListDataPlanes",
        "StatsService/ListDestinations",
        "StatsService/ListSessions",
        "StatsService/ListUnlistedLogins",
        "RoutingConfigService/GetRoutingConfig",
    ] {
        needed.insert(method, "viewer");
    }
    for method in [
        "MigrationService/Migrate",
        "MigrationService/Rollback",
        "MigrationService/AbortMigration",
        "PlacementService/SetPlacement",
        "PlacementService/DeletePlacement",
        "StatsService/KickSessions",
    ] {
        needed.insert(method, "operator");
    }
    for method in [
        "StatsService/ExpelDataPlane",
        "StatsService/ResolveRewound",
        "RoutingConfigService/ApplyRoutingConfig",
    ] {
        needed.insert(method, "admin");
    }
    needed
}

/// Every method of the operators' API, as the contract has it.
fn methods_of_the_contract() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let files = set
        .file
        .iter()
        .filter(|file| file.package() == "ferrypost.v1");
    files
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

#[test]
fn every_method_has_a_role() {
    let needed = needed_roles();
    let mut methods = methods_of_the_contract();
    methods.sort();
    assert_eq!(methods, needed.into_keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn each_role_may_do_what_its_table_says_and_no_more() {
    let (bound, _directory) = guarded("", "").await;
    let channel = channel(bound.operators()).await;
    let roles = [("viewer", VIEWER), ("operator", OPERATOR), ("admin", ADMIN)];
    let rank = |role: &str| roles.iter().position(|(name, _)| *name == role);
    for (method, needed) in needed_roles() {
        let path = format!("/ferrypost.v1.{method}");
        for stranger in [None, Some("wrong-token-0123456789abcdef0123456789")] {
            let refused = call(&channel, &path, stranger).await.expect_err("refused");
            assert_eq!(refused.code(), Code::Unauthenticated, "{method}");
            assert_eq!(reason_of(&refused), "CREDENTIALS_REQUIRED", "{method}");
        }
        for (role, token) in roles {
            let denied = match call(&channel, &path, Some(token)).await {
                Ok(()) => false,
                Err(status) => {
                    assert!(!reason_of(&status).is_empty(), "{method}: {status:?}");
                    status.code() == Code::PermissionDenied
                }
            };
            assert_eq!(denied, rank(role) < rank(needed), "{method} as {role}");
        }
    }
    bound.shut_down().await.expect("ended");
}

#[tokio::test]
async fn on_loopback_without_credentials_everybody_may_do_everything() {
    let world = World::new().await;
    let mut stats = StatsServiceClient::new(world.channel.clone());
    let request = v1::ExpelDataPlaneRequest::default();
    assert_eq!(
        reason(stats.expel_data_plane(request).await),
        "FIELD_REQUIRED"
    );
    assert!(world.operators().starts_with("http://127.0.0.1:"));
}
