//! Data planes of other versions (decision 0017).

use ferrypost_proto::{
    CONTRACTS, SCHEMAS, Versions, routing::v1::Hello, store::v1::Registration, v1::VersionRange,
};

use super::world::{World, document, reason};
use crate::{
    domain::commit::{RoutingChange, change_fleet},
    store::{Txn, keys, value::Stored},
};

/// As a data plane of contract 1 says hello: it knows no ranges.
fn first(world: &World, instance: &str) -> Hello {
    Hello {
        contract: 1,
        contracts: None,
        schemas: None,
        ..world.hello(instance)
    }
}

async fn registration(world: &World, instance: &str) -> Option<Registration> {
    let state = world.state().await;
    let found = state.registrations().get(&World::instance(instance))?;
    Some((*found.value).clone())
}

/// Puts a document in force that needs the latest schema.
async fn apply_the_latest(world: &World) {
    let mut config = document();
    config.schema = SCHEMAS.newest();
    let version = world.state().await.config().unwrap().version;
    let change = RoutingChange::new(&world.random).config(config, version);
    world.commit(change.txn()).await;
}

#[tokio::test]
async fn the_highest_contract_of_both_is_spoken_and_both_ranges_are_said() {
    let world = World::new().await;
    let (mut old, mut new) = (
        world.connect(first(&world, "old")).await.unwrap(),
        world.connect(world.hello("new")).await.unwrap(),
    );
    let welcome = old.welcome().await;
    assert_eq!(welcome.contract, 1);
    assert_eq!(new.welcome().await.contract, CONTRACTS.newest());
    assert_eq!(welcome.contracts, Some(CONTRACTS.into()));
    assert_eq!(welcome.schemas, Some(SCHEMAS.into()));
    old.snapshot().await;
    new.snapshot().await;
    let written = registration(&world, "old").await.unwrap();
    assert_eq!(written.schemas, Some(Versions::FIRST.into()));
    let written = registration(&world, "new").await.unwrap();
    assert_eq!(written.contracts, Some(CONTRACTS.into()));
    assert_eq!(written.schemas, Some(SCHEMAS.into()));
}

#[tokio::test]
async fn without_a_common_contract_nobody_is_registered() {
    let world = World::new().await;
    let later = Hello {
        contracts: Some(Versions::only(CONTRACTS.newest() + 1).into()),
        ..world.hello("later")
    };
    let refused = world.connect(later).await.err().unwrap();
    assert_eq!(reason(&refused), "CONTRACT_UNSUPPORTED");
    // Each side's range, so that it is clear which of the two is to be upgraded.
    let ranges = ["contract 4", "control plane 1 to 3"];
    assert!(
        ranges.iter().all(|range| refused.message().contains(range)),
        "{refused}"
    );
    assert!(registration(&world, "later").await.is_none());
}

#[tokio::test]
async fn a_range_that_holds_nothing_is_no_range() {
    let world = World::new().await;
    let none = Some(VersionRange::default());
    for hello in [
        Hello {
            contracts: none,
            ..world.hello("dp")
        },
        Hello {
            schemas: none,
            ..world.hello("dp")
        },
        Hello {
            contract: 0,
            ..first(&world, "dp")
        },
    ] {
        let refused = world.connect(hello).await.err().unwrap();
        assert_eq!(reason(&refused), "FIELD_INVALID");
    }
}

#[tokio::test]
async fn a_data_plane_that_does_not_read_the_document_in_force_is_told_so() {
    let world = World::new().await;
    apply_the_latest(&world).await;
    let refused = world.connect(first(&world, "old")).await.err().unwrap();
    assert_eq!(reason(&refused), "SCHEMA_UNSUPPORTED");
    assert!(registration(&world, "old").await.is_none());
    world.join(world.hello("new")).await;
}

/// A replica of an earlier version does not write down what a data plane reads, which would hold up every
/// later document until the data plane is started again.
#[tokio::test]
async fn a_stream_that_comes_back_completes_its_registration() {
    let world = World::new().await;
    let limits = ferrypost_proto::v1::DataPlaneLimits {
        hold: Some(prost_types::Duration {
            seconds: 25,
            nanos: 0,
        }),
        ..Default::default()
    };
    let hello = Hello {
        limits: Some(limits),
        ..world.hello("dp")
    };
    let mut peer = world.connect(hello).await.unwrap();
    let settle = peer.welcome().await.settle;
    peer.snapshot().await;
    assert_eq!(settle.map(|settle| settle.seconds), Some(7));
    let hello = peer.hello.clone();
    drop(peer);
    let lacking = Registration {
        contracts: None,
        schemas: None,
        limits: None,
        place: None,
        ..registration(&world, "dp").await.unwrap()
    };
    let key = keys::registration(&World::instance("dp"));
    let txn = Txn::new().put(key, Stored::new(lacking).bytes());
    let fleet = world.state().await.fleet();
    world.commit(change_fleet(txn, fleet)).await;
    world.join(hello.clone()).await;
    let restated = registration(&world, "dp").await.unwrap();
    assert_eq!(restated.schemas, Some(SCHEMAS.into()));
    assert_eq!(restated.limits, Some(limits));
    assert!(restated.place.is_some_and(|place| !place.file.is_empty()));
    assert_eq!(restated.boot, hello.boot);
    let fleet = world.state().await.fleet();
    world.join(hello).await;
    assert_eq!(
        world.state().await.fleet(),
        fleet,
        "nothing is written twice"
    );
}
