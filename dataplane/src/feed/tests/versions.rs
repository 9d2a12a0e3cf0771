//! Control planes and documents of other versions (decision 0017).

use ferrypost_proto::{
    CONTRACTS, SCHEMAS,
    routing::v1::{
        SnapshotChunk, Welcome, change::Change as Kind, stream_response::Message as Down,
    },
    v1::RoutingConfig,
};
use ferrypost_routing::testing::*;

use super::scripted::{World, welcome};
use crate::feed::{ConnectionState, StreamRefused};

/// A snapshot with one account and a document.
fn chunk_under(config: RoutingConfig) -> SnapshotChunk {
    SnapshotChunk {
        config: Some(config),
        ..chunk(5, vec![entry(1, &["alice"], "third", 5)])
    }
}

/// A value of a version that is not known here, in the endpoint of the last destination.
fn later_announcement() -> RoutingConfig {
    let mut config = config();
    config.destinations[2].endpoints[0].announcement = 77;
    config
}

/// The data plane is refused for `why`, and serves what it has all the same.
async fn is_refused_and_serves(world: &World, why: StreamRefused) {
    let mut status = world.handle.status();
    status
        .wait_for(|status| status.connection == ConnectionState::Refused(why))
        .await
        .unwrap();
    assert!(world.readiness.is_ready());
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_of_contract_1_is_spoken_to_in_contract_1() {
    let mut world = World::new();
    let mut stream = world.stream().await;
    let hello = stream.hello().await;
    // All that it looks at.
    assert_eq!(hello.contract, 1);
    let first = Welcome {
        contract: 1,
        contracts: None,
        schemas: None,
        ..welcome()
    };
    stream.send(Down::Welcome(first)).await;
    stream.snapshot(chunk_under(config())).await;
    assert_eq!(world.handle.status().borrow().contract, Some(1));
    assert_eq!(world.destination("alice").as_deref(), Some("third"));
}

#[tokio::test(start_paused = true)]
async fn a_contract_that_was_not_offered_is_refused_and_the_table_goes_on_serving() {
    let mut world = World::new();
    drop(world.synced(chunk_under(config())).await);
    let mut stream = world.stream().await;
    stream.hello().await;
    let later = Welcome {
        contract: CONTRACTS.newest() + 1,
        ..welcome()
    };
    stream.send(Down::Welcome(later)).await;
    is_refused_and_serves(&world, StreamRefused::Contract).await;
}

#[tokio::test(start_paused = true)]
async fn refusals_of_versions_and_certificates_are_named_and_the_table_goes_on_serving() {
    for (reason, why) in [
        ("CONTRACT_UNSUPPORTED", StreamRefused::Contract),
        ("SCHEMA_UNSUPPORTED", StreamRefused::Schema),
        ("IDENTITY_MISMATCH", StreamRefused::Identity),
    ] {
        let mut world = World::new();
        drop(world.synced(chunk_under(config())).await);
        let mut stream = world.stream().await;
        stream.hello().await;
        stream.refuse(reason).await;
        is_refused_and_serves(&world, why).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_of_a_later_schema_is_refused_and_the_table_before_goes_on_serving() {
    let mut later = config();
    later.schema = SCHEMAS.newest() + 1;
    let mut world = World::new();
    let stream = world.synced(chunk_under(config())).await;
    let change = ferrypost_proto::routing::v1::Change {
        change: Some(Kind::Config(later.clone())),
    };
    stream.send(Down::Delta(delta(5, 6, vec![change]))).await;
    is_refused_and_serves(&world, StreamRefused::Schema).await;

    // A snapshot with it is no better, and what is held is not let go of for it.
    let (stream, hello) = world.welcomed().await;
    let held = hello.applied.and_then(|position| position.revision);
    assert_eq!(held, Some(revision(5)));
    let snapshot = SnapshotChunk {
        config: Some(later),
        ..chunk(7, vec![])
    };
    stream.send(Down::SnapshotChunk(snapshot)).await;
    is_refused_and_serves(&world, StreamRefused::Schema).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_with_a_value_of_a_later_version_is_reported_and_the_rest_serves() {
    let mut world = World::new();
    let (mut stream, _) = world.welcomed().await;
    let rejected = stream.snapshot(chunk_under(later_announcement())).await;
    let rejected = rejected
        .expect("said before the table is applied")
        .endpoints;
    let said = [(rejected[0].destination.as_str(), rejected[0].field.as_str())];
    assert_eq!(said, [("third", "announcement")]);
    assert_eq!(rejected.len(), 1);
    assert_eq!(world.destination("a@t.example").as_deref(), Some("target"));

    // When the document says something else, that is said too.
    let mended = ferrypost_proto::routing::v1::Change {
        change: Some(Kind::Config(config())),
    };
    let next = delta(5, 6, vec![mended]);
    let to = next.to.clone();
    stream.send(Down::Delta(next)).await;
    let rejected = stream.until_applied(to).await.expect("it has changed");
    assert!(rejected.endpoints.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_another_group_is_nobody_elses_trouble() {
    let mut config = later_announcement();
    let mut ours = config.destinations[2].endpoints[0].clone();
    ours.announcement = config.destinations[0].endpoints[0].announcement;
    ours.when = Some(ferrypost_proto::v1::Condition {
        group: "edge".into(),
    });
    config.destinations[2].endpoints.push(ours);
    let mut world = World::new();
    let (mut stream, _) = world.welcomed().await;
    let rejected = stream.snapshot(chunk_under(config)).await;
    assert!(rejected.is_none_or(|rejected| rejected.endpoints.is_empty()));
}
