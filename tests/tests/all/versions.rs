//! Planes of two versions side by side, in both directions (decision 0017, `docs/upgrading.md`). The rolling
//! upgrade under load is the torture run's.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_proto::v1::endpoint_tls::{Mode, Verification};
use ferrypost_proto::v1::{
    Announcement, ApplyRoutingConfigRequest, ApplyRoutingConfigResponse, Condition, Endpoint,
    EndpointTls, GetRoutingConfigRequest, HttpRouting, HttpRule, MigrationState, Protocol,
    RoutingConfig, VersionRange,
};
use ferrypost_tests::story::{
    SOON, data_plane, landing, migrate, migration, move_to, roll_back, served_by, session,
    short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, Operator, StoreKind, World, reason};
use tonic::Status;

const SPEAKS: &str = "FERRYPOST_SPEAKS";

fn world() -> Builder {
    World::builder().limits(short_limits())
}

/// What a program of the version before speaks.
const PREVIOUS_CONTRACTS: Option<VersionRange> = Some(VersionRange {
    oldest: 1,
    newest: 2,
});

/// The schemas that it reads.
const PREVIOUS_SCHEMAS: Option<VersionRange> = Some(VersionRange {
    oldest: 1,
    newest: 2,
});

async fn document(operator: &Operator) -> RoutingConfig {
    let request = GetRoutingConfigRequest {};
    let answer = operator.routing_config().get_routing_config(request).await;
    answer.unwrap().into_inner().config.unwrap()
}

/// A document that needs schema 3: with rules for HTTP, and servers that are nobody's.
fn of_schema_3(mut config: RoutingConfig) -> RoutingConfig {
    for destination in &mut config.destinations {
        destination.endpoints.push(Endpoint {
            protocol: Protocol::Http.into(),
            when: Some(Condition {
                group: "nobody".to_owned(),
            }),
            host: "127.0.0.1".to_owned(),
            port: 1,
            tls: Some(EndpointTls {
                mode: Mode::Implicit.into(),
                verification: Some(Verification::PinSha256("a".repeat(64))),
                ..EndpointTls::default()
            }),
            announcement: Announcement::Forwarded.into(),
            ..Endpoint::default()
        });
    }
    config.http = Some(HttpRouting {
        rules: vec![HttpRule {
            name: "login page".to_owned(),
            paths: vec!["/login".to_owned()],
            pin: "source".to_owned(),
            writes_to_accounts: Some(false),
            ..HttpRule::default()
        }],
    });
    config
}

async fn apply(
    operator: &Operator,
    config: RoutingConfig,
) -> Result<ApplyRoutingConfigResponse, Status> {
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        ..ApplyRoutingConfigRequest::default()
    };
    let answer = operator
        .routing_config()
        .apply_routing_config(request)
        .await?;
    Ok(answer.into_inner())
}

/// Moves an account and takes it back, with a session that goes with it.
async fn moves_and_returns(world: &World, operator: &Operator, account: &str) {
    let password = world.password();
    for (data_plane, there) in [(0, "target"), (1, "source")] {
        let mut client = session(&world.imaps(data_plane), account, password)
            .await
            .unwrap();
        served_by(&mut client).await.unwrap();
        let moved = match there {
            "target" => migrate(operator, move_to(account, there)).await,
            _ => roll_back(operator, account).await,
        };
        let moved = moved.unwrap();
        assert_eq!(moved.state(), MigrationState::Succeeded, "{moved:?}");
        for data_plane in 0..world.data_planes().len() {
            let landed = landing(&world.imaps(data_plane), account, password).await;
            assert_eq!(landed.unwrap(), there);
        }
    }
}

async fn contract(world: &World, data_plane: usize) -> serde_json::Value {
    let stats = world.admin(data_plane).stats().await.unwrap();
    stats["control_plane"]["contract"].clone()
}

#[tokio::test]
async fn data_planes_of_the_version_before_serve_under_a_new_control_plane() {
    let world = world().data_plane_env(SPEAKS, "previous");
    let mut world = world.start().await.unwrap();
    let operator = world.operator(0);
    let account = world.accounts()[0].clone();
    let shown = data_plane(&operator, "gateway-1").await.unwrap();
    assert_eq!(
        (shown.contracts, shown.schemas),
        (PREVIOUS_CONTRACTS, PREVIOUS_SCHEMAS)
    );
    assert_eq!(contract(&world, 0).await, 2);
    moves_and_returns(&world, &operator, &account).await;

    // What they do not read does not come into force, until the last of them is upgraded.
    let latest = of_schema_3(document(&operator).await);
    for data_plane in [1, 0] {
        let refused = apply(&operator, latest.clone()).await.unwrap_err();
        assert_eq!(reason(&refused).as_deref(), Some("SCHEMA_UNSUPPORTED"));
        assert!(refused.message().contains("gateway-1"), "{refused:?}");
        world.data_plane(data_plane).stop().await.unwrap();
        world
            .data_plane(data_plane)
            .speaks_the_previous_version(false);
        world.data_plane(data_plane).start().unwrap();
        world.wait_until_ready(data_plane).await.unwrap();
    }
    apply(&operator, latest).await.unwrap();
    assert_eq!(contract(&world, 0).await, 3);

    // From then on one that is taken back is told so, serves nobody, and holds up no move.
    world.data_plane(1).stop().await.unwrap();
    world.data_plane(1).speaks_the_previous_version(true);
    world.data_plane(1).start().unwrap();
    let admin = world.admin(1);
    eventually("it says why it is refused", SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let said = &stats["control_plane"];
        let why = said["last_error"].as_str().unwrap_or_default();
        let refused = said["state"] == "refused" && why.contains("schema");
        refused.then_some(()).ok_or_else(|| said.to_string())
    })
    .await
    .unwrap();
    assert_eq!(
        data_plane(&operator, "gateway-2").await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    let moved = migrate(&operator, move_to(&account, "target")).await;
    assert_eq!(moved.unwrap().state(), MigrationState::Succeeded);
    world.data_plane(1).stop().await.unwrap();
    world.data_plane(1).speaks_the_previous_version(false);
    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn new_data_planes_serve_under_a_control_plane_of_the_version_before() {
    let world = world().control_plane_env(SPEAKS, "previous");
    let world = world.start().await.unwrap();
    let operator = world.operator(0);
    let account = world.accounts()[0].clone();
    let stats = operator.get_stats().await.unwrap();
    assert_eq!(
        (stats.contracts, stats.schemas),
        (PREVIOUS_CONTRACTS, PREVIOUS_SCHEMAS)
    );
    assert_eq!(contract(&world, 0).await, 2);
    moves_and_returns(&world, &operator, &account).await;
    // A replica that does not know what a document says does not drop it silently.
    let refused = apply(&operator, of_schema_3(document(&operator).await)).await;
    assert_eq!(
        reason(&refused.unwrap_err()).as_deref(),
        Some("CONFIG_INVALID")
    );
    world.stop().await.unwrap();
}

#[tokio::test]
async fn replicas_of_two_versions_over_one_etcd_drive_each_others_moves() {
    let world = world().store(StoreKind::Etcd).control_planes(2);
    let mut world = world.start().await.unwrap();
    world.control_plane(1).stop().await.unwrap();
    world.control_plane(1).speaks_the_previous_version(true);
    world.control_plane(1).start().unwrap();
    world.wait_for_leader(1).await.unwrap();
    let (new, old) = (world.operator(0), world.operator(1));
    let newest = async |operator: &Operator| {
        let stats = operator.get_stats().await.unwrap();
        stats.contracts.map(|range| range.newest)
    };
    assert_eq!((newest(&new).await, newest(&old).await), (Some(3), Some(2)));
    let accounts = world.accounts().to_vec();
    moves_and_returns(&world, &new, &accounts[0]).await;
    moves_and_returns(&world, &old, &accounts[1]).await;

    // What only one of them knows stays with the move, whoever writes it.
    let moved = migrate(&new, move_to(&accounts[2], "target"))
        .await
        .unwrap();
    assert_ne!(moved.traceparent, "");
    let seen = migration(&old, &moved.migration_id).await.unwrap();
    assert_eq!(seen.traceparent, moved.traceparent);

    // A document of the later version: the old replica says that it cannot use it, the new one goes on.
    apply(&new, of_schema_3(document(&new).await))
        .await
        .unwrap();
    eventually(
        "the old replica knows that it does not know",
        SOON,
        || async {
            match migrate(&old, move_to(&accounts[3], "target")).await {
                Err(status) if reason(&status).as_deref() == Some("NO_ROUTING_CONFIG") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await
    .unwrap();
    moves_and_returns(&world, &new, &accounts[0]).await;
    world.stop().await.unwrap();
}
