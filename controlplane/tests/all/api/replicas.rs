//! Several replicas on one etcd: any of them serves every call, and moves survive the one that drove
//! them.

use ferrypost_controlplane::store::testing::EtcdServer;
use ferrypost_proto::v1::{self, MigrationState};
use tonic::Code;
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};

use super::{
    data_plane::{DataPlane, Manner, session},
    world::{QUICK, ROUTING, World, eventually, milliseconds, refusal},
};

fn config(replica: &str, etcd: &EtcdServer) -> String {
    let endpoint = etcd.endpoint();
    format!(
        "replica = \"{replica}\"\n[store]\nkind = \"etcd\"\nendpoints = [\"{endpoint}\"]\n{QUICK}"
    )
}

async fn replica(name: &str, etcd: &EtcdServer) -> World {
    World::with(&config(name, etcd), ROUTING).await
}

async fn header(world: &World) -> v1::ResponseHeader {
    let request = v1::GetRoutingConfigRequest {};
    let answer = world
        .routing()
        .get_routing_config(request)
        .await
        .expect("read");
    answer.into_inner().header.expect("a header")
}

fn migrate(request_id: &str) -> v1::MigrateRequest {
    v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        request_id: request_id.to_owned(),
        ..v1::MigrateRequest::default()
    }
}

#[tokio::test]
async fn any_replica_serves_every_call() {
    let etcd = EtcdServer::start().await;
    let (one, two) = (replica("one", &etcd).await, replica("two", &etcd).await);
    let (said_one, said_two) = (header(&one).await, header(&two).await);
    assert_eq!((&*said_one.replica, &*said_two.replica), ("one", "two"));
    assert_eq!(said_one.installation, said_two.installation);
    assert_eq!(said_one.leader, said_two.leader);

    // Each serves a stream, and each answers for both.
    let shown = v1::ListenerCertificate {
        listener: "imaps".to_owned(),
        name: "mail.example.org".to_owned(),
        not_after: Some(prost_types::Timestamp {
            seconds: 1_900_000_000,
            nanos: 0,
        }),
    };
    let manner = || Manner {
        sessions: vec![session("alice@example.org", "relaying")],
        certificates: vec![shown.clone()],
        ..Manner::default()
    };
    let _here = DataPlane::join(&one, "dp-1", manner()).await;
    let _there = DataPlane::join(&two, "dp-2", manner()).await;
    for world in [&one, &two] {
        eventually(async || {
            let request = v1::ListSessionsRequest::default();
            let answer = world
                .stats()
                .list_sessions(request)
                .await
                .ok()?
                .into_inner();
            let unreachable = &answer.header.as_ref()?.unreachable;
            (answer.sessions.len() == 2 && unreachable.is_empty()).then_some(())
        })
        .await;
        eventually(async || {
            let request = v1::ListDataPlanesRequest {};
            let answer = world.stats().list_data_planes(request).await.ok()?;
            let planes = answer.into_inner().data_planes;
            let is_whole = |plane: &v1::DataPlane| {
                plane.connected && plane.sessions == 1 && plane.certificates == [shown.clone()]
            };
            planes.iter().all(is_whole).then_some(())
        })
        .await;
    }

    let follower = if said_one.leader == "one" { &two } else { &one };
    let answer = follower
        .migrations()
        .migrate(migrate(""))
        .await
        .expect("moved")
        .into_inner();
    assert_eq!(
        answer.migration.expect("it").state(),
        MigrationState::Succeeded
    );
    for world in [&one, &two] {
        eventually(async || {
            let route = world.route("alice@example.org").await;
            (route.destination == "target").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_move_goes_on_when_the_leader_ends() {
    let etcd = EtcdServer::start().await;
    let (one, two) = (replica("one", &etcd).await, replica("two", &etcd).await);
    let (leader, other) = match &*header(&one).await.leader {
        "one" => (one, two),
        _ => (two, one),
    };
    // Nobody is registered, so the move waits.
    let at_once = v1::MigrateRequest {
        wait: milliseconds(0),
        ..migrate("r")
    };
    let answer = leader
        .migrations()
        .migrate(at_once)
        .await
        .expect("begun")
        .into_inner();
    let id = answer.migration.expect("it").migration_id;
    leader.shut_down().await;
    let _plane = DataPlane::join(&other, "dp-1", Manner::default()).await;
    let answer = other
        .migrations()
        .migrate(migrate("r"))
        .await
        .expect("moved")
        .into_inner();
    let migration = answer.migration.expect("it");
    assert_eq!(migration.migration_id, id);
    assert_eq!(migration.state(), MigrationState::Succeeded);
    assert_ne!(header(&other).await.leader, "");
}

/// What a load balancer is told.
async fn serves(world: &World) -> bool {
    let mut health = HealthClient::new(world.channel.clone());
    let request = HealthCheckRequest {
        service: "ferrypost.v1.MigrationService".to_owned(),
    };
    let answer = health.check(request).await.expect("answered").into_inner();
    answer.status == ServingStatus::Serving as i32
}

#[tokio::test]
async fn without_its_store_a_replica_says_so_and_comes_back_with_it() {
    let mut etcd = EtcdServer::start().await;
    let world = replica("one", &etcd).await;
    assert!(serves(&world).await);
    etcd.kill();
    eventually(async || (!serves(&world).await).then_some(())).await;
    // What misleads nobody is still answered; what could is not.
    let stats = world.stats().get_stats(v1::GetStatsRequest {}).await;
    assert!(stats.expect("answered").into_inner().header.is_some());
    let (code, why, _) = refusal(world.migrations().migrate(migrate("")).await);
    assert_eq!(code, Code::Unavailable);
    assert!(matches!(&*why, "STORE_UNAVAILABLE" | "BEHIND"), "{why}");
    etcd.restart().await;
    eventually(async || serves(&world).await.then_some(())).await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    world
        .migrations()
        .migrate(migrate(""))
        .await
        .expect("moved");
}

#[tokio::test]
async fn a_replica_starts_before_its_store() {
    let mut etcd = EtcdServer::start().await;
    etcd.kill();
    let config = config("one", &etcd);
    let (world, ()) = tokio::join!(World::with(&config, ROUTING), etcd.restart());
    assert!(serves(&world).await);
}
