//! Fleets of several versions, and traces: what both planes carry for each other.

use ferrypost_proto::{
    Phase, TraceParent,
    routing::v1::{RejectedEndpoint, routing_service_client::RoutingServiceClient},
    v1::{self, BlockerReason},
};
use tonic::{Code, Request};

use super::{
    data_plane::{DataPlane, Manner, hello, opening},
    world::{ROUTING, SHORT_WINDOW, World, eventually, milliseconds, reason, refusal},
};

const API: &str = "[routing]\nsource = \"api\"\n[migrations]\nheartbeat = \"2s\"\n";

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A data plane that reads the first schema alone, as one of contract 1 does.
async fn old(world: &World) -> DataPlane {
    DataPlane::join_as(world, of_contract_1("old"), Manner::default()).await
}

fn of_contract_1(instance: &str) -> ferrypost_proto::routing::v1::Hello {
    ferrypost_proto::routing::v1::Hello {
        contracts: None,
        schemas: None,
        ..hello(instance)
    }
}

async fn document(world: &World) -> v1::RoutingConfig {
    let request = v1::GetRoutingConfigRequest {};
    let answer = world.routing().get_routing_config(request).await;
    answer.expect("read").into_inner().config.expect("one")
}

/// The document with a certificate that is to follow a pinned one: schema 2.
fn rotating(mut document: v1::RoutingConfig) -> v1::RoutingConfig {
    let tls = document.destinations[0].endpoints[0].tls.as_mut();
    let tls = tls.expect("TLS");
    let pin = "a".repeat(64);
    tls.verification = Some(v1::endpoint_tls::Verification::PinSha256(pin));
    tls.next_pin_sha256 = "b".repeat(64);
    document
}

async fn apply(
    world: &World,
    config: v1::RoutingConfig,
) -> Result<tonic::Response<v1::ApplyRoutingConfigResponse>, tonic::Status> {
    let request = v1::ApplyRoutingConfigRequest {
        config: Some(config),
        ..v1::ApplyRoutingConfigRequest::default()
    };
    world.routing().apply_routing_config(request).await
}

async fn plane(world: &World, instance: &str) -> Option<v1::DataPlane> {
    let request = v1::ListDataPlanesRequest {};
    let answer = world.stats().list_data_planes(request).await.ok()?;
    let mut planes = answer.into_inner().data_planes.into_iter();
    planes.find(|plane| plane.instance == instance)
}

#[tokio::test]
async fn a_document_that_the_oldest_data_plane_does_not_read_is_refused_and_names_it() {
    let world = World::with(API, ROUTING).await;
    let _new = DataPlane::join(&world, "new", Manner::default()).await;
    let before = document(&world).await;
    let oldest = old(&world).await;
    let (code, reason, metadata) = refusal(apply(&world, rotating(before.clone())).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert_eq!(reason, "SCHEMA_UNSUPPORTED");
    let named = ["data_plane", "reads", "needs"].map(|key| metadata[key].clone());
    assert_eq!(named, ["old", "1", "2"]);
    assert_eq!(document(&world).await, before);
    let shown = plane(&world, "old").await.expect("it is registered");
    assert_eq!(
        shown.schemas,
        Some(v1::VersionRange {
            oldest: 1,
            newest: 1
        })
    );

    // What uses only old things comes into force, for whichever version it was written.
    let mut plain = before.clone();
    plain.schema = 2;
    plain.domains.push(v1::Domain {
        name: "more.example".to_owned(),
        unlisted: None,
    });
    apply(&world, plain).await.expect("all of it is old");
    assert_eq!(document(&world).await.schema, 1);

    let expelled = v1::ExpelDataPlaneRequest {
        instance: "old".to_owned(),
        boot: oldest.boot.clone(),
        reason: "it is upgraded".to_owned(),
    };
    world
        .stats()
        .expel_data_plane(expelled)
        .await
        .expect("expelled");
    let in_force = document(&world).await;
    apply(&world, rotating(in_force))
        .await
        .expect("everybody reads it");
    assert_eq!(document(&world).await.schema, 2);
}

#[tokio::test]
async fn a_file_that_a_data_plane_does_not_read_is_not_applied_and_says_why() {
    let world = World::new().await;
    let before = document(&world).await;
    let _old = old(&world).await;
    let pins = format!(
        "tls = \"implicit\", pin_sha256 = \"{}\", next_pin_sha256 = \"{}\"",
        "a".repeat(64),
        "b".repeat(64)
    );
    let changed = ROUTING.replace("tls = \"implicit\"", &pins);
    std::fs::write(world.routing_file(), changed).expect("written");
    eventually(async || {
        let request = v1::GetRoutingConfigRequest {};
        let answer = world.routing().get_routing_config(request).await.ok()?;
        let difference = answer.into_inner().file_difference;
        difference.contains("data plane old reads 1").then_some(())
    })
    .await;
    assert_eq!(document(&world).await, before);
}

/// Of a document that needs more and a data plane that reads less, one comes first and the other is
/// refused: never both.
#[tokio::test]
async fn a_data_plane_that_registers_while_a_document_is_applied_is_not_overlooked() {
    let world = World::with(API, ROUTING).await;
    let plain = document(&world).await;
    let (mut documents, mut planes) = (0, 0);
    for round in 0..40 {
        let hello = of_contract_1(&format!("old-{round}"));
        let boot = hello.boot.clone();
        let mut client = RoutingServiceClient::connect(world.data_planes())
            .await
            .expect("it listens");
        let (applied, joined) = tokio::join!(
            apply(&world, rotating(plain.clone())),
            client.stream(opening(hello.clone())),
        );
        match (applied, joined) {
            (Ok(_), Err(refused)) => {
                documents += 1;
                assert_eq!(reason::<()>(Err(refused)), "SCHEMA_UNSUPPORTED");
                apply(&world, plain.clone()).await.expect("old things");
            }
            (Err(refused), Ok(_)) => {
                planes += 1;
                assert_eq!(reason::<()>(Err(refused)), "SCHEMA_UNSUPPORTED");
                let gone = v1::ExpelDataPlaneRequest {
                    instance: hello.instance.clone(),
                    boot,
                    reason: "the next round".to_owned(),
                };
                world
                    .stats()
                    .expel_data_plane(gone)
                    .await
                    .expect("expelled");
            }
            (applied, joined) => panic!("{applied:?}, {:?}", joined.map(|_| "joined")),
        }
    }
    assert_eq!(documents + planes, 40);
}

#[tokio::test]
async fn an_endpoint_that_a_data_plane_does_not_know_blocks_moves_of_its_destination() {
    let world = World::new().await;
    let manner = Manner {
        rejected_endpoints: vec![RejectedEndpoint {
            destination: "target".to_owned(),
            protocol: v1::Protocol::Imap.into(),
            field: "announcement".to_owned(),
        }],
        ..Manner::default()
    };
    let plane_1 = DataPlane::join(&world, "dp-1", manner).await;
    eventually(async || {
        let shown = plane(&world, "dp-1").await?;
        let rejected = shown.rejected_endpoints.first()?;
        assert_eq!(
            (&*rejected.destination, &*rejected.field),
            ("target", "announcement")
        );
        (shown.sync() == v1::SyncState::Error).then_some(())
    })
    .await;
    let request = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        wait: milliseconds(0),
        ..v1::MigrateRequest::default()
    };
    let answer = world.migrations().migrate(request).await.expect("queued");
    let id = answer.into_inner().migration.expect("one").migration_id;
    let find = async || {
        let migration_id = id.clone();
        let request = v1::GetMigrationRequest { migration_id };
        let answer = world.migrations().get_migration(request).await.ok()?;
        answer.into_inner().migration
    };
    eventually(async || {
        let blockers = find().await?.blockers;
        let blocks = |b: &v1::Blocker| {
            b.reason() == BlockerReason::EntryRejected
                && b.who == "dp-1"
                && b.message.contains("announcement")
        };
        blockers.iter().any(blocks).then_some(())
    })
    .await;
    plane_1.change(|manner| manner.rejected_endpoints.clear());
    plane_1.reject_endpoints().await;
    eventually(async || (find().await?.state() == v1::MigrationState::Succeeded).then_some(()))
        .await;
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_to_the_record_to_the_data_planes_and_no_further() {
    let world = World::with(SHORT_WINDOW, ROUTING).await;
    let manner = Manner {
        drains: false,
        ..Manner::default()
    };
    let plane = DataPlane::join(&world, "dp-1", manner).await;
    let migrate = |traceparent: &'static str| {
        let mut request = Request::new(v1::MigrateRequest {
            account: "alice@example.org".to_owned(),
            destination: "target".to_owned(),
            wait: milliseconds(0),
            ..v1::MigrateRequest::default()
        });
        let value = traceparent.parse().expect("a header");
        request.metadata_mut().insert(TraceParent::HEADER, value);
        request
    };
    let answer = world.migrations().migrate(migrate(TRACEPARENT)).await;
    let started = answer
        .expect("started")
        .into_inner()
        .migration
        .expect("one");
    assert_eq!(started.traceparent, TRACEPARENT);
    let account = started.accounts[0].account_id.clone();
    let entry = eventually(async || {
        let entry = plane.entry(&account)?;
        let fenced = Phase::try_from(entry.phase).is_ok_and(Phase::is_fenced);
        fenced.then_some(entry)
    })
    .await;
    assert_eq!(entry.traceparent, TRACEPARENT);
    // Nothing drains, so the window ends the move, and the trace leaves the entry with it.
    let entry = eventually(async || {
        let entry = plane.entry(&account)?;
        (entry.phase() == v1::Phase::Settled).then_some(entry)
    })
    .await;
    assert_eq!(entry.traceparent, "");

    let mut kick = Request::new(v1::KickSessionsRequest {
        account: "alice@example.org".to_owned(),
        ..v1::KickSessionsRequest::default()
    });
    let value = TRACEPARENT.parse().expect("a header");
    kick.metadata_mut().insert(TraceParent::HEADER, value);
    world.stats().kick_sessions(kick).await.expect("kicked");
    assert!(plane.traces().contains(&TRACEPARENT.to_owned()));

    // What is not valid is as none: a new trace is made.
    let answer = world.migrations().migrate(migrate("00-nonsense")).await;
    let started = answer
        .expect("started")
        .into_inner()
        .migration
        .expect("one");
    let made: TraceParent = started.traceparent.parse().expect("a valid one");
    assert_ne!(made.to_string(), TRACEPARENT);
}
