//! Whoever knows an address can guess at its password. That must not keep its account from moving, nor its
//! users waiting: servers as Dovecot comes, which answer a wrong password late and look at nothing meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::time::Duration;

use ferrypost_proto::v1::{Migration, MigrationState};
use ferrypost_tests::dovecot::Pace;
use ferrypost_tests::imap::Connect;
use ferrypost_tests::story::{SOON, landing, migrate, move_to, roll_back};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Limits, World};
use tokio::task::JoinSet;

const GUESSERS: usize = 12;

/// A fence waits a second for a verdict, however many have none. Were it to wait for all of them, it would be held
/// for as long as a connection is given to close. Far from both, since the machine has other things to do.
const SHORT: Duration = Duration::from_secs(10);

/// The longest window there is, and in it as long for a connection to close as a stop grants.
fn limits() -> Limits {
    Limits {
        window: Duration::from_secs(24),
        close: Duration::from_secs(19),
        drain: Duration::from_secs(1),
        hold: Duration::from_secs(28),
        ..Limits::default()
    }
}

#[tokio::test]
async fn guessers_neither_stretch_a_move_nor_end_it() {
    let world = World::builder()
        .data_planes(1)
        .delta_hook(false)
        .limits(limits())
        .pace(Pace::AsShipped)
        .start()
        .await
        .unwrap();
    let (operator, account) = (world.operator(0), world.accounts()[0].clone());
    let mut guessers = JoinSet::new();
    for _ in 0..GUESSERS {
        guessers.spawn(guess(world.imaps(0), account.clone()));
    }
    for (home, back) in [("target", false), ("source", true), ("target", false)] {
        undecided(&world, GUESSERS / 2).await;
        let moved = if back {
            roll_back(&operator, &account).await
        } else {
            migrate(&operator, move_to(&account, home)).await
        };
        is_short(&moved.unwrap());
        // Who knows the password is served there at once, whatever goes on beside it.
        let server = landing(&world.imaps(0), &account, world.password()).await;
        assert_eq!(server.unwrap(), home);
    }
    // There were guesses on their way when the fences came, and they were held. After the flip they were judged, or overtaken
    // by the next fence too, and then told to come again.
    let log = world.data_planes()[0].plane.log();
    log.wait_for(&[" login ", "overtaken=1"], SOON)
        .await
        .unwrap();
    guessers.shutdown().await;
    world.stop().await.unwrap();
}

/// Guesses again and again, on one connection after the other.
async fn guess(connect: Connect, account: String) {
    loop {
        let Ok(mut client) = connect.open().await else {
            continue;
        };
        while client.login(&account, "wrong").await.is_ok() {}
    }
}

/// Waits until that many logins are at their server and have no verdict yet.
async fn undecided(world: &World, count: usize) {
    let admin = world.admin(0);
    eventually("guesses wait for their verdict", SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let routed = stats["sessions"]["routed"].as_array().cloned();
        let waiting: u64 = routed
            .iter()
            .flatten()
            .filter(|row| row["stage"] == "connecting")
            .filter_map(|row| row["count"].as_u64())
            .sum();
        if waiting >= count as u64 {
            Ok(())
        } else {
            Err(format!("{waiting} of {count}"))
        }
    })
    .await
    .unwrap();
}

fn is_short(migration: &Migration) {
    assert_eq!(
        migration.state(),
        MigrationState::Succeeded,
        "{migration:?}"
    );
    let held = Duration::try_from(migration.held.unwrap()).unwrap();
    assert!(held < SHORT, "{held:?}: {migration:?}");
}
