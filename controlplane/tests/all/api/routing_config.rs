//! `RoutingConfigService` and the control plane's own file.

use ferrypost_proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    data_plane::{DataPlane, Manner},
    world::{QUICK, ROUTING, World, eventually, reason, refusal},
};

const API: &str = "[routing]\nsource = \"api\"\n[migrations]\nheartbeat = \"2s\"\n";

async fn in_force(world: &World) -> v1::GetRoutingConfigResponse {
    let request = v1::GetRoutingConfigRequest {};
    world
        .routing()
        .get_routing_config(request)
        .await
        .expect("read")
        .into_inner()
}

fn store(version: Option<v1::Revision>) -> u64 {
    version.expect("a version").store
}

fn apply(config: v1::RoutingConfig) -> v1::ApplyRoutingConfigRequest {
    v1::ApplyRoutingConfigRequest {
        config: Some(config),
        ..v1::ApplyRoutingConfigRequest::default()
    }
}

fn with_domain(mut config: v1::RoutingConfig, name: &str) -> v1::RoutingConfig {
    config.domains.push(v1::Domain {
        name: name.to_owned(),
        unlisted: None,
    });
    config
}

#[tokio::test]
async fn the_leader_applies_its_file_whenever_it_changes() {
    let world = World::new().await;
    let before = in_force(&world).await;
    assert_eq!(before.source, "file");
    assert_eq!(before.file_difference, "");
    let refused = world
        .routing()
        .apply_routing_config(apply(before.config.expect("a document")))
        .await;
    assert_eq!(reason(refused), "ROUTING_OWNED_BY_FILE");

    let more = format!("{ROUTING}\n[[domains]]\nname = \"more.example\"\n");
    std::fs::write(world.routing_file(), more).expect("written");
    eventually(async || {
        let route = world.route("a@more.example").await;
        (route.destination == "source").then_some(())
    })
    .await;
    assert!(store(in_force(&world).await.version) > store(before.version));
}

#[tokio::test]
async fn a_file_that_would_change_routes_is_not_applied_and_says_why() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let before = in_force(&world).await;
    let changed = ROUTING.replace(
        "default_destination = \"source\"",
        "default_destination = \"target\"",
    );
    std::fs::write(world.routing_file(), changed).expect("written");
    eventually(async || {
        let difference = in_force(&world).await.file_difference;
        difference.contains("default_destination").then_some(())
    })
    .await;
    // Neither is one that is not valid; and neither is a failed start.
    let world = world.restart(QUICK).await;
    let now = in_force(&world).await;
    assert_eq!(now.config, before.config);
    assert_eq!(now.version, before.version);
    std::fs::write(world.routing_file(), "nonsense = 1\n").expect("written");
    let now = in_force(&world).await;
    assert!(now.file_difference.contains("nonsense"));
    assert_eq!(now.config, before.config);
}

#[tokio::test]
async fn under_api_the_file_seeds_and_calls_replace() {
    let world = World::with(API, ROUTING).await;
    let seeded = in_force(&world).await;
    assert_eq!((&*seeded.source, &*seeded.file_difference), ("api", ""));
    let document = seeded.config.expect("a document");

    let more = with_domain(document.clone(), "more.example");
    let checked = v1::ApplyRoutingConfigRequest {
        validate_only: true,
        ..apply(more.clone())
    };
    let answer = world
        .routing()
        .apply_routing_config(checked)
        .await
        .expect("valid")
        .into_inner();
    assert_eq!(answer.version, seeded.version);
    let stale = v1::ApplyRoutingConfigRequest {
        expected_version: Some(v1::Revision { base: 0, store: 1 }),
        ..apply(more.clone())
    };
    let refused = world.routing().apply_routing_config(stale).await;
    assert_eq!(reason(refused), "VERSION_MISMATCH");
    let exact = v1::ApplyRoutingConfigRequest {
        expected_version: seeded.version,
        ..apply(more.clone())
    };
    let answer = world
        .routing()
        .apply_routing_config(exact)
        .await
        .expect("applied")
        .into_inner();
    assert!(store(answer.version) > store(seeded.version));
    let now = in_force(&world).await;
    assert_eq!(now.config, Some(more.clone()));
    assert_eq!(now.version, answer.version);
    assert!(now.file_difference.contains("only seeds"));

    // The same document again is no new version, and a restart does not sow again.
    let again = world
        .routing()
        .apply_routing_config(apply(more.clone()))
        .await
        .expect("applied");
    assert_eq!(again.into_inner().version, answer.version);
    let world = world.restart(API).await;
    assert_eq!(in_force(&world).await.config, Some(more));
}

#[tokio::test]
async fn all_mistakes_are_reported_with_their_places() {
    let world = World::with(API, ROUTING).await;
    let mut document = in_force(&world).await.config.expect("a document");
    document.default_destination = "nowhere".to_owned();
    document.destinations[1].endpoints[0].port = 0;
    document.names = None;
    let status = world
        .routing()
        .apply_routing_config(apply(document))
        .await
        .expect_err("mistakes");
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("info").reason, "CONFIG_INVALID");
    let mut fields: Vec<_> = details
        .bad_request()
        .expect("which")
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "config.default_destination",
            "config.destinations[1].endpoints[0].port",
            "config.names",
        ]
    );
    let nothing = v1::ApplyRoutingConfigRequest::default();
    assert_eq!(
        reason(world.routing().apply_routing_config(nothing).await),
        "FIELD_REQUIRED"
    );
}

#[tokio::test]
async fn once_a_data_plane_has_registered_no_document_changes_a_route() {
    let world = World::with(API, ROUTING).await;
    let document = in_force(&world).await.config.expect("a document");
    // Before, everything is free.
    let mut other = document.clone();
    other.default_destination = "target".to_owned();
    world
        .routing()
        .apply_routing_config(apply(other.clone()))
        .await
        .expect("nobody is routed");
    world
        .routing()
        .apply_routing_config(apply(document.clone()))
        .await
        .expect("nobody is routed");

    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let (code, why, _) = refusal(world.routing().apply_routing_config(apply(other)).await);
    assert_eq!(
        (code, &*why),
        (Code::FailedPrecondition, "WOULD_CHANGE_ROUTE")
    );
    let mut fewer = document.clone();
    fewer.domains.remove(0);
    assert_eq!(
        reason(world.routing().apply_routing_config(apply(fewer)).await),
        "WOULD_CHANGE_ROUTE"
    );
    let mut elsewhere = document;
    elsewhere.destinations[0].endpoints[0].host = "192.0.2.9".to_owned();
    let moved = with_domain(elsewhere, "more.example");
    world
        .routing()
        .apply_routing_config(apply(moved))
        .await
        .expect("an address may change");
}
