//! Moves as operators and users live through them, on real processes and servers.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::time::Duration;

use ferrypost_proto::v1::{
    ApplyRoutingConfigRequest, Blocker, BlockerReason, GetRoutingConfigRequest, MigrateRequest,
    Migration, MigrationState, Phase,
};
use ferrypost_tests::dovecot::Service;
use ferrypost_tests::story::{
    SOON, closed, landing, migrate, move_to, placement, roll_back, served_by, session, short_limits,
};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{BareNames, Builder, Limits, Operator, World, reason};
use tokio::time::timeout;
use tonic::Code;

use crate::stubborn::Stubborn;

fn world() -> Builder {
    World::builder().limits(short_limits())
}

fn succeeded(migration: &Migration) -> bool {
    migration.state() == MigrationState::Succeeded
}

/// Everything of a move is done, and nobody waits for anything.
async fn settled(operator: &Operator, account: &str) {
    eventually("the account is settled", SOON, || async {
        let placement = placement(operator, account)
            .await
            .map_err(|s| s.to_string())?;
        match placement.phase() {
            Phase::Settled => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

async fn held_logins(operator: &Operator) -> u64 {
    operator.get_stats().await.unwrap().held_logins
}

#[tokio::test]
async fn a_move_that_lists_both_names_closes_the_sessions_of_both() {
    let world = world().bare_names(BareNames::Listed).start().await.unwrap();
    let (operator, password) = (world.operator(0), world.password());
    let names = ["user1@example.org", "user1"];
    // No record exists: one login follows its domain, the other the default.
    let mut sessions = Vec::new();
    for name in names {
        for data_plane in 0..2 {
            let mut client = session(&world.imaps(data_plane), name, password)
                .await
                .unwrap();
            assert_eq!(served_by(&mut client).await.unwrap(), "source");
            sessions.push(client);
        }
    }
    let mut request = move_to(names[0], "target");
    request.names = names.map(str::to_owned).to_vec();
    let moved = migrate(&operator, request).await.unwrap();
    assert!(succeeded(&moved), "{moved:?}");
    assert_eq!(moved.accounts.len(), 1);
    assert_eq!(moved.accounts[0].names.len(), 2, "{moved:?}");
    for client in &mut sessions {
        let bye = closed(client).await.unwrap();
        assert!(bye.unwrap().contains("UNAVAILABLE"));
    }
    for name in names {
        for data_plane in 0..2 {
            let server = landing(&world.imaps(data_plane), name, password).await;
            assert_eq!(server.unwrap(), "target", "{name}");
        }
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_will_not_drain_aborts_the_move_and_nobody_is_left_held() {
    let limits = Limits {
        drain: Duration::from_millis(500),
        close: Duration::from_millis(500),
        settle: Duration::from_secs(10),
        ..short_limits()
    };
    let world = World::builder().limits(limits).start().await.unwrap();
    let (operator, password) = (world.operator(0), world.password());
    let stubborn = Stubborn::before(world.source().addr(Service::Imaps))
        .await
        .unwrap();
    reach_source_through(&operator, &stubborn).await;
    let (moving, bystander) = (&world.accounts()[0], &world.accounts()[1]);
    let mut other = session(&world.imaps(0), bystander, password).await.unwrap();
    eventually("the source is reached through the detour", SOON, || async {
        landing(&world.imaps(0), bystander, password)
            .await
            .map_err(|e| e.to_string())?;
        match stubborn.connections() {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    let mut stuck = session(&world.imaps(0), moving, password).await.unwrap();
    stubborn.never_close(true);

    let refused = migrate(&operator, move_to(moving, "target"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Aborted, "{refused:?}");
    assert_eq!(reason(&refused).as_deref(), Some("MIGRATION_ABORTED"));
    assert!(refused.message().contains("gateway-1"), "{refused:?}");
    closed(&mut stuck).await.unwrap();
    // The account is where it was, and free.
    stubborn.never_close(false);
    for data_plane in 0..2 {
        let server = landing(&world.imaps(data_plane), moving, password)
            .await
            .unwrap();
        assert_eq!(server, "source");
    }
    assert_eq!(held_logins(&operator).await, 0);
    assert_eq!(placement_home(&operator, moving).await, "source");
    // Nobody else noticed.
    assert_eq!(served_by(&mut other).await.unwrap(), "source");

    // For as long as its server may be at work the next move waits unfenced, instead of throwing everybody out for
    // an abort.
    let plan = MigrateRequest {
        validate_only: true,
        ..move_to(moving, "target")
    };
    let planned = operator.migrations().migrate(plan).await.unwrap();
    let planned = planned.into_inner().plan.unwrap().blockers;
    let is_it = |it: &Blocker| it.reason() == BlockerReason::CloseUnconfirmed;
    assert!(planned.iter().any(is_it), "{planned:?}");
    let moved = migrate(&operator, move_to(moving, "target")).await.unwrap();
    assert!(succeeded(&moved), "{moved:?}");
    assert_eq!(moved.attempts, 1, "one fence");
    assert_eq!(
        landing(&world.imaps(1), moving, password).await.unwrap(),
        "target"
    );
    assert_eq!(served_by(&mut other).await.unwrap(), "source");
    world.stop().await.unwrap();
}

/// Puts a detour between data planes and the source.
async fn reach_source_through(operator: &Operator, detour: &Stubborn) {
    let mut configuration = operator.routing_config();
    let present = configuration
        .get_routing_config(GetRoutingConfigRequest {})
        .await
        .unwrap();
    let mut config = present.into_inner().config.unwrap();
    let source = config
        .destinations
        .iter_mut()
        .find(|it| it.id == "source")
        .unwrap();
    source.endpoints[0].port = u32::from(detour.address().port());
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        reason: "a detour".to_owned(),
        ..ApplyRoutingConfigRequest::default()
    };
    configuration.apply_routing_config(request).await.unwrap();
}

async fn placement_home(operator: &Operator, account: &str) -> String {
    match placement(operator, account).await {
        Ok(placement) => placement.destination,
        // An account that never moved follows its domain.
        Err(status) if status.code() == Code::NotFound => "source".to_owned(),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_move_without_a_hook_names_what_it_does_not_carry() {
    let world = world()
        .data_planes(1)
        .delta_hook(false)
        .start()
        .await
        .unwrap();
    let operator = world.operator(0);
    let account = &world.accounts()[0];
    let moved = migrate(&operator, move_to(account, "target"))
        .await
        .unwrap();
    assert!(succeeded(&moved), "{moved:?}");
    let risks = moved.residual_risks.join("\n");
    assert!(risks.contains("no delta hook"), "{risks}");
    assert!(risks.contains("no quiesce hook"), "{risks}");
    assert!(!world.journal().exists());
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_id_means_one_move_whoever_repeats_it_and_when() {
    let world = world().data_planes(1).start().await.unwrap();
    let operator = world.operator(0);
    let account = &world.accounts()[0];
    let mut request = move_to(account, "target");
    request.request_id = "wave-1/user1".to_owned();
    // Twice at the same time, and once afterwards.
    let (first, second) = tokio::join!(
        migrate(&operator, request.clone()),
        migrate(&operator, request.clone()),
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(succeeded(&first) && succeeded(&second));
    assert_eq!(first.migration_id, second.migration_id);
    let late = migrate(&operator, request.clone()).await.unwrap();
    assert_eq!(late.migration_id, first.migration_id);
    // Even after the account has gone back: it is an old question, not a new wish.
    roll_back(&operator, account).await.unwrap();
    let later = migrate(&operator, request.clone()).await.unwrap();
    assert_eq!(later.migration_id, first.migration_id);
    assert_eq!(placement_home(&operator, account).await, "source");

    request.account.clone_from(&world.accounts()[1]);
    let refused = migrate(&operator, request).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("REQUEST_ID_REUSED"));
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_caller_that_gives_up_changes_nothing_about_the_move() {
    let world = world().data_planes(1).start().await.unwrap();
    let operator = world.operator(0);
    for (account, how) in world.accounts().iter().zip(["deadline", "cancel"]) {
        let mut request = move_to(account, "target");
        request.request_id = how.to_owned();
        let mut asked = tonic::Request::new(request.clone());
        let given = Duration::from_millis(30);
        if how == "deadline" {
            asked.set_timeout(given);
            // On a fast machine the move itself is done by then.
            if let Err(status) = operator.migrations().migrate(asked).await {
                let codes = [Code::DeadlineExceeded, Code::Cancelled];
                assert!(codes.contains(&status.code()), "{status:?}");
            }
        } else {
            _ = timeout(given, operator.migrations().migrate(asked)).await;
        }
        let moved = migrate(&operator, request).await.unwrap();
        assert!(succeeded(&moved), "{how}: {moved:?}");
        let server = landing(&world.imaps(0), account, world.password())
            .await
            .unwrap();
        assert_eq!(server, "target", "{how}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_move_from_elsewhere_than_the_operator_thinks_is_refused() {
    let world = world().data_planes(1).start().await.unwrap();
    let (operator, account) = (world.operator(0), &world.accounts()[0]);
    let mut request = move_to(account, "target");
    request.expected_source = "target".to_owned();
    let refused = migrate(&operator, request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        matches!(reason(&refused).as_deref(), Some("SOURCE_MISMATCH")),
        "{refused:?}"
    );
    assert_eq!(placement_home(&operator, account).await, "source");
    request.expected_source = "source".to_owned();
    assert!(succeeded(&migrate(&operator, request).await.unwrap()));
    world.stop().await.unwrap();
}

#[tokio::test]
async fn one_connection_fails_for_one_account_and_then_serves_another_that_lives_elsewhere() {
    let world = world().data_planes(1).start().await.unwrap();
    let operator = world.operator(0);
    let (on_source, on_target) = (&world.accounts()[0], &world.accounts()[1]);
    migrate(&operator, move_to(on_target, "target"))
        .await
        .unwrap();
    for connect in [world.imaps(0), world.imap_starttls(0)] {
        let mut client = connect.open().await.unwrap();
        let refused = client.login(on_source, "wrong").await.unwrap();
        assert_eq!(refused.code(), Some("AUTHENTICATIONFAILED"), "{refused:?}");
        client
            .login(on_target, world.password())
            .await
            .unwrap()
            .accepted()
            .unwrap();
        assert_eq!(served_by(&mut client).await.unwrap(), "target");
        // It is that account's session: a move of the other does not touch it, its own closes it.
        let moved = migrate(&operator, move_to(on_source, "target"))
            .await
            .unwrap();
        assert!(succeeded(&moved));
        client.noop().await.unwrap().accepted().unwrap();
        roll_back(&operator, on_target).await.unwrap();
        closed(&mut client).await.unwrap();
        // As it was, for the next round.
        roll_back(&operator, on_source).await.unwrap();
        migrate(&operator, move_to(on_target, "target"))
            .await
            .unwrap();
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_move_can_be_taken_back_at_once_and_made_again() {
    let world = world().start().await.unwrap();
    let (operator, password) = (world.operator(0), world.password());
    let account = &world.accounts()[0];
    let there = migrate(&operator, move_to(account, "target"))
        .await
        .unwrap();
    assert!(succeeded(&there));
    let mut client = session(&world.imaps(0), account, password).await.unwrap();
    let message = b"Subject: written on the target\r\n\r\nhello\r\n";
    client
        .append("INBOX", message)
        .await
        .unwrap()
        .accepted()
        .unwrap();
    let back = roll_back(&operator, account).await.unwrap();
    assert!(succeeded(&back), "{back:?}");
    assert_ne!(there.migration_id, back.migration_id);
    closed(&mut client).await.unwrap();
    let mut client = session(&world.imaps(1), account, password).await.unwrap();
    assert_eq!(served_by(&mut client).await.unwrap(), "source");
    let inbox = client.select("INBOX").await.unwrap();
    // The delta hook carried back what was written on the target.
    assert!(
        inbox
            .untagged("EXISTS")
            .is_some_and(|it| it.text == "* 1 EXISTS"),
        "{inbox:?}"
    );
    let again = migrate(&operator, move_to(account, "target"))
        .await
        .unwrap();
    assert!(succeeded(&again));
    settled(&operator, account).await;
    world.stop().await.unwrap();
}
