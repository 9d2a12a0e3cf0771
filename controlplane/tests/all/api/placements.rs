//! `PlacementService`.

use ferrypost_proto::v1::{self, RouteRule};
use tonic::Code;

use super::{
    data_plane::{DataPlane, Manner},
    world::{World, milliseconds, reason, refusal},
};

fn set(account: &str, names: &[&str], destination: &str) -> v1::SetPlacementRequest {
    v1::SetPlacementRequest {
        account: account.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        destination: destination.to_owned(),
        ..v1::SetPlacementRequest::default()
    }
}

fn delete(account: &str) -> v1::DeletePlacementRequest {
    v1::DeletePlacementRequest {
        account: account.to_owned(),
        ..v1::DeletePlacementRequest::default()
    }
}

async fn placed(world: &World, request: v1::SetPlacementRequest) -> v1::Placement {
    let answer = world.placements().set_placement(request).await;
    answer
        .expect("set")
        .into_inner()
        .placement
        .expect("a placement")
}

async fn get(world: &World, account: &str) -> Option<v1::Placement> {
    let request = v1::GetPlacementRequest {
        account: account.to_owned(),
    };
    let answer = world.placements().get_placement(request).await;
    answer.ok()?.into_inner().placement
}

/// Whoever mistypes it would read that nobody lives there.
#[tokio::test]
async fn a_list_of_a_destination_that_there_is_not_is_refused() {
    let world = World::new().await;
    let of = |destination: &str| v1::ListPlacementsRequest {
        destination: destination.to_owned(),
        ..v1::ListPlacementsRequest::default()
    };
    let refused = world.placements().list_placements(of("targets")).await;
    let (_, reason, details) = refusal(refused);
    assert_eq!(reason, "DESTINATION_UNKNOWN");
    assert!(details["known"].contains("target"), "{details:?}");
    let empty = world.placements().list_placements(of("target")).await;
    assert!(empty.expect("an answer").into_inner().placements.is_empty());
}

#[tokio::test]
async fn a_record_is_made_where_its_names_go_and_found_by_id_and_name() {
    let world = World::new().await;
    let made = placed(&world, set("Alice@example.org", &["alice"], "source")).await;
    assert_eq!(made.names, ["alice", "alice@example.org"]);
    assert_eq!(made.destination, "source");
    assert_eq!(made.phase(), v1::Phase::Settled);
    assert_eq!(get(&world, "ALICE").await.as_ref(), Some(&made));
    assert_eq!(get(&world, &made.account_id).await.as_ref(), Some(&made));

    // The same again writes nothing.
    let again = placed(
        &world,
        set("alice", &["alice", "alice@example.org"], "source"),
    )
    .await;
    assert_eq!(again, made);

    let changed = placed(
        &world,
        set(&made.account_id, &["alice", "al@example.org"], "source"),
    )
    .await;
    assert_eq!(changed.names, ["al@example.org", "alice"]);
    assert!(changed.epoch.expect("an epoch").store > made.epoch.expect("an epoch").store);
    assert_eq!(get(&world, "alice@example.org").await, None);
}

#[tokio::test]
async fn no_write_changes_where_a_name_goes() {
    let world = World::new().await;
    let mut placements = world.placements();
    let (code, reason, metadata) = refusal(
        placements
            .set_placement(set("alice@example.org", &[], "target"))
            .await,
    );
    assert_eq!(
        (code, &*reason),
        (Code::FailedPrecondition, "WOULD_CHANGE_ROUTE")
    );
    assert_eq!((&*metadata["from"], &*metadata["to"]), ("source", "target"));

    // Two names that go to two places are not one account's.
    let split = set("alice@example.org", &["alice@new.example"], "source");
    assert_eq!(
        super::world::reason(placements.set_placement(split).await),
        "WOULD_CHANGE_ROUTE"
    );

    // Nobody serves a name that is refused, so it may get a place; and it must not lose it again.
    let made = placed(&world, set("alice@closed.example", &[], "target")).await;
    assert_eq!(
        world.route("alice@closed.example").await.destination,
        "target"
    );
    let deleted = placements
        .delete_placement(delete("alice@closed.example"))
        .await;
    assert_eq!(super::world::reason(deleted), "WOULD_CHANGE_ROUTE");
    let moved = set(&made.account_id, &["alice@closed.example"], "source");
    assert_eq!(
        super::world::reason(placements.set_placement(moved).await),
        "WOULD_CHANGE_ROUTE"
    );

    // Nor is there a way around it by a fence yet.
    let fenced = v1::SetPlacementRequest {
        fenced: true,
        ..set("alice@example.org", &[], "target")
    };
    let (code, reason, _) = refusal(placements.set_placement(fenced).await);
    assert_eq!(
        (code, &*reason),
        (Code::Unimplemented, "FENCED_UNSUPPORTED")
    );
}

#[tokio::test]
async fn after_a_move_the_record_cannot_be_dropped() {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let request = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        ..v1::MigrateRequest::default()
    };
    world.migrations().migrate(request).await.expect("moved");
    super::world::eventually(async || {
        let refused = world
            .placements()
            .delete_placement(delete("alice@example.org"))
            .await;
        (reason(refused) == "WOULD_CHANGE_ROUTE").then_some(())
    })
    .await;
    let placement = get(&world, "alice@example.org").await.expect("a record");
    assert_eq!(placement.previous_destination, "source");
}

#[tokio::test]
async fn names_change_only_while_the_account_is_settled() {
    let world = World::new().await;
    let request = v1::MigrateRequest {
        account: "alice@example.org".to_owned(),
        destination: "target".to_owned(),
        wait: milliseconds(0),
        ..v1::MigrateRequest::default()
    };
    world.migrations().migrate(request).await.expect("waits");
    let mut placements = world.placements();
    let more = set(
        "alice@example.org",
        &["alice@example.org", "alice"],
        "source",
    );
    assert_eq!(
        reason(placements.set_placement(more).await),
        "MOVE_UNDER_WAY"
    );
    let deleted = placements
        .delete_placement(delete("alice@example.org"))
        .await;
    assert_eq!(reason(deleted), "MOVE_UNDER_WAY");
    let route = world.route("alice@example.org").await;
    assert_eq!(
        (&*route.destination, &*route.destination_after_move),
        ("source", "target")
    );
}

#[tokio::test]
async fn a_record_that_changes_nothing_can_be_dropped() {
    let world = World::new().await;
    let made = placed(&world, set("alice@example.org", &[], "source")).await;
    let only_checked = v1::DeletePlacementRequest {
        validate_only: true,
        ..delete("alice@example.org")
    };
    world
        .placements()
        .delete_placement(only_checked)
        .await
        .expect("could be");
    assert!(get(&world, "alice@example.org").await.is_some());
    let stale = v1::DeletePlacementRequest {
        expected_epoch: Some(v1::Revision { base: 0, store: 1 }),
        ..delete("alice@example.org")
    };
    assert_eq!(
        reason(world.placements().delete_placement(stale).await),
        "EPOCH_MISMATCH"
    );
    let exact = v1::DeletePlacementRequest {
        expected_epoch: made.epoch,
        ..delete(&made.account_id)
    };
    world
        .placements()
        .delete_placement(exact)
        .await
        .expect("deleted");
    assert!(get(&world, "alice@example.org").await.is_none());
    let gone = v1::GetPlacementRequest {
        account: made.account_id,
    };
    assert_eq!(
        reason(world.placements().get_placement(gone).await),
        "ACCOUNT_NOT_FOUND"
    );
}

#[tokio::test]
async fn what_cannot_be_a_record_is_refused() {
    let world = World::new().await;
    placed(&world, set("bob@example.org", &[], "source")).await;
    let mut placements = world.placements();
    let mut refused = async |request| reason(placements.set_placement(request).await);
    assert_eq!(refused(set("", &[], "source")).await, "FIELD_REQUIRED");
    assert_eq!(
        refused(set("alice@example.org", &[], "")).await,
        "FIELD_REQUIRED"
    );
    assert_eq!(
        refused(set("alice@example.org", &[], "NO")).await,
        "FIELD_INVALID"
    );
    assert_eq!(
        refused(set("alice@example.org", &[], "nowhere")).await,
        "DESTINATION_UNKNOWN"
    );
    assert_eq!(
        refused(set("a b@example.org", &[], "source")).await,
        "NAME_INVALID"
    );
    let taken = set("alice@example.org", &["bob@example.org"], "source");
    assert_eq!(refused(taken).await, "NAME_TAKEN");
    assert_eq!(
        refused(set("bob@example.org", &[], "source")).await,
        "FIELD_REQUIRED"
    );
    let many: Vec<_> = (0..101).map(|n| format!("a{n}@example.org")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(
        refused(set("alice@example.org", &many, "source")).await,
        "FIELD_INVALID"
    );

    let checked = v1::SetPlacementRequest {
        validate_only: true,
        ..set("carol@example.org", &["carol"], "source")
    };
    let placement = placed(&world, checked).await;
    assert_eq!(placement.names, ["carol", "carol@example.org"]);
    assert!(get(&world, "carol").await.is_none());
}

#[tokio::test]
async fn a_name_in_a_domain_that_is_not_configured_gets_no_record_and_the_remedy_is_to_configure_it()
 {
    let world = World::new().await;
    let _plane = DataPlane::join(&world, "dp-1", Manner::default()).await;
    let migrate = |account: &str| v1::MigrateRequest {
        account: account.to_owned(),
        destination: "target".to_owned(),
        ..v1::MigrateRequest::default()
    };
    let elsewhere = "alice@elsewhere.example";
    let (mut placements, mut migrations) = (world.placements(), world.migrations());
    let mut placed_as = async |account, names: &[&str]| {
        let answer = placements.set_placement(set(account, names, "source"));
        answer.await.map(drop_answer)
    };
    let mut moved = async |account| migrations.migrate(migrate(account)).await.map(drop_answer);
    for (answer, remedy) in [
        (placed_as(elsewhere, &[]).await, "configure the domain"),
        // Also as one of several names.
        (
            placed_as("alice@example.org", &[elsewhere]).await,
            "configure the domain",
        ),
        (moved(elsewhere).await, "configure the domain"),
        // Where only names with a record are served, a record is the remedy.
        (moved("alice@closed.example").await, "SetPlacement"),
    ] {
        let message = answer.as_ref().expect_err("a refusal").message().to_owned();
        assert!(message.contains(remedy), "{message}");
        assert_eq!(reason(answer), "NAME_NOT_SERVED");
    }
    assert!(get(&world, elsewhere).await.is_none());
    placed(&world, set("alice@closed.example", &[], "source")).await;
}

/// Answers of different calls in one list.
fn drop_answer<T>(answer: tonic::Response<T>) -> tonic::Response<()> {
    answer.map(drop)
}

#[tokio::test]
async fn records_are_listed_in_pages_by_id() {
    let world = World::new().await;
    for n in 0..5 {
        placed(&world, set(&format!("user{n}@example.org"), &[], "source")).await;
    }
    placed(&world, set("user@new.example", &[], "target")).await;
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListPlacementsRequest {
            page_size: 2,
            page_token: token,
            destination: "source".to_owned(),
        };
        let page = world
            .placements()
            .list_placements(request)
            .await
            .expect("listed")
            .into_inner();
        found.extend(page.placements.into_iter().map(|p| p.account_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 5);
    assert!(found.is_sorted());
    let of_source = v1::ListPlacementsRequest {
        page_size: 2,
        destination: "source".to_owned(),
        ..v1::ListPlacementsRequest::default()
    };
    let page = world.placements().list_placements(of_source).await;
    let of_source = page.expect("listed").into_inner().next_page_token;
    for (destination, page_token) in [("", "bm9uc2Vuc2U".to_owned()), ("target", of_source)] {
        let wrong = v1::ListPlacementsRequest {
            destination: destination.to_owned(),
            page_token,
            ..v1::ListPlacementsRequest::default()
        };
        assert_eq!(
            reason(world.placements().list_placements(wrong).await),
            "PAGE_TOKEN_INVALID"
        );
    }
}

#[tokio::test]
async fn a_route_is_explained() {
    let world = World::new().await;
    let explained = async |login: &str| {
        let route = world.route(login).await;
        assert!(!route.explanation.is_empty());
        (route.rule(), route.destination, route.name)
    };
    let told =
        |rule, destination: &str, name: &str| (rule, destination.to_owned(), name.to_owned());
    assert_eq!(
        explained("A@Example.ORG").await,
        told(RouteRule::Default, "source", "a@example.org")
    );
    assert_eq!(
        explained("a@new.example").await,
        told(RouteRule::DomainDefault, "target", "a@new.example")
    );
    assert_eq!(
        explained("a").await,
        told(RouteRule::Default, "source", "a")
    );
    assert_eq!(
        explained("a@closed.example").await,
        told(RouteRule::Refused, "", "a@closed.example")
    );
    assert_eq!(
        explained("a@elsewhere.example").await,
        told(RouteRule::Refused, "", "a@elsewhere.example")
    );
    assert_eq!(explained("a@b@c").await, told(RouteRule::Refused, "", ""));
    let empty = v1::ExplainRouteRequest::default();
    assert_eq!(
        reason(world.placements().explain_route(empty).await),
        "FIELD_REQUIRED"
    );
}

#[tokio::test]
async fn a_route_is_what_each_data_plane_says_as_well() {
    let world = World::new().await;
    let elsewhere = Manner {
        route: Some("target".to_owned()),
        ..Manner::default()
    };
    let _stale = DataPlane::join(&world, "dp-1", elsewhere).await;
    let _old = DataPlane::join(&world, "dp-2", Manner::default()).await;
    let ask = async |ask_data_planes: bool| {
        let request = v1::ExplainRouteRequest {
            login: "alice@example.org".to_owned(),
            ask_data_planes,
        };
        let answer = world.placements().explain_route(request).await;
        answer.expect("explained").into_inner()
    };
    let answer = ask(true).await;
    assert_eq!(answer.destination, "source");
    let said: Vec<_> = answer
        .data_planes
        .iter()
        .map(|it| (&*it.instance, &*it.destination))
        .collect();
    assert_eq!(said, [("dp-1", "target")]);
    assert_eq!(answer.header.expect("a header").unreachable, ["dp-2"]);
    let unasked = ask(false).await;
    assert!(unasked.data_planes.is_empty());
    assert!(unasked.header.expect("a header").unreachable.is_empty());
}
