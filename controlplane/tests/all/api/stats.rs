//! `StatsService`.

use ferrypost_proto::{routing::v1::EndpointHealth, v1};
use tonic::Code;

use super::{
    data_plane::{DataPlane, Manner, session},
    world::{World, eventually, milliseconds, reason, refusal},
};

async fn data_planes(world: &World) -> v1::ListDataPlanesResponse {
    let request = v1::ListDataPlanesRequest {};
    world
        .stats()
        .list_data_planes(request)
        .await
        .expect("listed")
        .into_inner()
}

async fn stats(world: &World) -> v1::GetStatsResponse {
    world
        .stats()
        .get_stats(v1::GetStatsRequest {})
        .await
        .expect("stats")
        .into_inner()
}

fn three_sessions() -> Manner {
    Manner {
        sessions: vec![
            session("alice@example.org", "relaying"),
            session("alice@example.org", "held"),
            session("bob@example.org", "relaying"),
        ],
        ..Manner::default()
    }
}

#[tokio::test]
async fn figures_count_what_is_where() {
    let world = World::new().await;
    let empty = stats(&world).await;
    assert_eq!((empty.accounts, empty.data_planes_registered), (0, 0));
    assert_eq!(empty.store, "embedded");
    assert!(!empty.header.expect("a header").installation.is_empty());

    let _plane = DataPlane::join(&world, "dp-1", three_sessions()).await;
    let move_one = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        names: vec!["alice".to_owned()],
        destination: "target".to_owned(),
        ..v1::MigrateRequest::default()
    };
    world.migrations().migrate(move_one).await.expect("moved");
    let now = stats(&world).await;
    assert_eq!((now.accounts, now.names), (1, 2));
    assert_eq!((now.sessions, now.held_logins), (3, 1));
    assert_eq!(
        (now.data_planes_registered, now.data_planes_connected),
        (1, 1)
    );
    assert_eq!(now.placements[0].destination, "target");
    assert_eq!(now.migrations[0].state, "SUCCEEDED");
    assert!(now.header.expect("a header").unreachable.is_empty());
}

#[tokio::test]
async fn a_data_plane_shows_what_it_has_applied_and_what_it_blocks() {
    let world = World::new().await;
    let manner = Manner {
        drains: false,
        ..Manner::default()
    };
    let plane = DataPlane::join(&world, "dp-1", manner).await;
    let shown = eventually(async || {
        let shown = data_planes(&world).await.data_planes.remove(0);
        (shown.ready && shown.sync() == v1::SyncState::Synced).then_some(shown)
    })
    .await;
    assert_eq!((&*shown.instance, &*shown.boot), ("dp-1", &*plane.boot));
    assert!(shown.connected && shown.blocks.is_empty());
    assert!(shown.applied.is_some() && shown.registered.is_some());

    let request = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        wait: milliseconds(0),
        ..v1::MigrateRequest::default()
    };
    let answer = world
        .migrations()
        .migrate(request)
        .await
        .expect("begun")
        .into_inner();
    let migration = answer.migration.expect("a migration").migration_id;
    let blocked =
        eventually(async || data_planes(&world).await.data_planes.remove(0).blocks.pop()).await;
    assert_eq!(blocked.migration_id, migration);
}

#[tokio::test]
async fn a_lost_data_plane_stays_registered_and_is_named() {
    let world = World::new().await;
    let plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    drop(plane);
    eventually(async || {
        let answer = data_planes(&world).await;
        let plane = &answer.data_planes[0];
        let unreachable = answer.header.as_ref()?.unreachable == ["dp-1"];
        (!plane.connected && plane.sync() == v1::SyncState::Stale && unreachable).then_some(())
    })
    .await;
    let now = stats(&world).await;
    assert_eq!(
        (now.data_planes_registered, now.data_planes_connected),
        (1, 0)
    );
}

#[tokio::test]
async fn sessions_are_listed_and_kicked_by_account() {
    let world = World::new().await;
    let _one = DataPlane::join(&world, "dp-1", three_sessions()).await;
    let _two = DataPlane::join(&world, "dp-2", three_sessions()).await;
    let page = async |account: &str, page_size, page_token: String| {
        let request = v1::ListSessionsRequest {
            account: account.to_owned(),
            page_size,
            page_token,
        };
        world
            .stats()
            .list_sessions(request)
            .await
            .expect("listed")
            .into_inner()
    };
    let list = async |account: &str, page_size| page(account, page_size, String::new()).await;
    let all = list("", 0).await;
    assert_eq!((all.sessions.len(), &*all.next_page_token), (6, ""));
    let of_alice = list("ALICE@example.org", 0).await;
    assert_eq!(of_alice.sessions.len(), 4);
    assert!(!of_alice.truncated);
    assert!(of_alice.sessions.iter().any(|s| s.instance == "dp-2"));
    // Page by page each of them comes once.
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let next = page("", 4, token).await;
        assert!(next.sessions.len() <= 4);
        assert_eq!(next.truncated, !next.next_page_token.is_empty());
        paged.extend(next.sessions);
        token = next.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all.sessions);
    // What goes on with the sessions of all does not go on with those of one account.
    let of_all = page("", 4, String::new()).await.next_page_token;
    for (account, page_token) in [("", "junk".to_owned()), ("alice@example.org", of_all)] {
        let wrong = v1::ListSessionsRequest {
            account: account.to_owned(),
            page_token,
            ..v1::ListSessionsRequest::default()
        };
        let refused = world.stats().list_sessions(wrong).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }

    let kick = |account: &str| v1::KickSessionsRequest {
        account: account.to_owned(),
        reason: String::new(),
    };
    let kicked = world
        .stats()
        .kick_sessions(kick("bob@example.org"))
        .await
        .expect("kicked");
    assert_eq!(kicked.into_inner().kicked, 2);
    assert_eq!(
        reason(world.stats().kick_sessions(kick("")).await),
        "FIELD_REQUIRED"
    );
}

#[tokio::test]
async fn a_dead_data_plane_is_expelled_on_an_operators_word() {
    let world = World::new().await;
    let plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let expel = |boot: &str, reason: &str| v1::ExpelDataPlaneRequest {
        instance: "dp-1".to_owned(),
        boot: boot.to_owned(),
        reason: reason.to_owned(),
    };
    let mut stats = world.stats();
    let mut refused = async |request| refusal(stats.expel_data_plane(request).await);
    assert_eq!(refused(expel(&plane.boot, "")).await.1, "FIELD_REQUIRED");
    let other = "0".repeat(26);
    let (code, why, metadata) = refused(expel(&other, "gone")).await;
    assert_eq!((code, &*why), (Code::FailedPrecondition, "BOOT_MISMATCH"));
    assert_eq!(metadata["registered"], plane.boot);
    let stranger = v1::ExpelDataPlaneRequest {
        instance: "dp-9".to_owned(),
        ..expel(&other, "gone")
    };
    assert_eq!(refused(stranger).await.1, "DATA_PLANE_NOT_FOUND");

    let boot = plane.boot.clone();
    drop(plane);
    let request = expel(&boot, "the machine burnt");
    let answer = world
        .stats()
        .expel_data_plane(request.clone())
        .await
        .expect("expelled");
    let expelled = answer.into_inner().expelled.expect("it");
    assert_eq!((&*expelled.instance, &*expelled.boot), ("dp-1", &*boot));
    assert_eq!(expelled.reason, "the machine burnt");
    assert!(!expelled.expelled_by.is_empty() && expelled.expelled_at.is_some());
    // Once more is no error, and changes nothing.
    let again = world
        .stats()
        .expel_data_plane(request)
        .await
        .expect("expelled");
    assert_eq!(again.into_inner().expelled, Some(expelled.clone()));
    let now = data_planes(&world).await;
    assert!(now.data_planes.is_empty());
    assert_eq!(now.expelled, [expelled]);
}

#[tokio::test]
async fn destinations_show_each_data_planes_verdict() {
    let world = World::new().await;
    let verdict = |destination: &str, reachable: bool| EndpointHealth {
        destination: destination.to_owned(),
        protocol: v1::Protocol::Imap.into(),
        reachable,
        problem: if reachable { "" } else { "refused" }.to_owned(),
        facts: Some(v1::ServerFacts {
            tls: "verified".to_owned(),
            capabilities: vec!["AUTH=PLAIN".to_owned()],
            ..v1::ServerFacts::default()
        }),
    };
    let manner = Manner {
        endpoints: vec![verdict("source", true), verdict("target", false)],
        ..Manner::default()
    };
    let _plane = DataPlane::join(&world, "dp-1", manner).await;
    let destinations = eventually(async || {
        let request = v1::ListDestinationsRequest {};
        let answer = world
            .stats()
            .list_destinations(request)
            .await
            .ok()?
            .into_inner();
        let is_seen = |verdict: &v1::EndpointVerdict| verdict.facts.is_some();
        let all = answer
            .destinations
            .iter()
            .all(|d| d.verdicts.iter().any(is_seen));
        all.then_some(answer.destinations)
    })
    .await;
    assert_eq!(destinations.len(), 2);
    assert!(destinations[0].verdicts[0].reachable);
    assert_eq!(destinations[1].verdicts[0].problem, "refused");
    let facts = destinations[0].verdicts[0]
        .facts
        .clone()
        .expect("what was seen");
    assert_eq!(
        (&*facts.tls, &*facts.capabilities[0]),
        ("verified", "AUTH=PLAIN")
    );

    // A destination that a data plane cannot reach holds moves back.
    let request = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        validate_only: true,
        ..v1::MigrateRequest::default()
    };
    eventually(async || {
        let answer = world.migrations().migrate(request.clone()).await.ok()?;
        let blockers = answer.into_inner().plan?.blockers;
        let reason = v1::BlockerReason::DestinationUnreachable;
        blockers
            .iter()
            .any(|b| b.reason() == reason && b.who == "target")
            .then_some(())
    })
    .await;
}
