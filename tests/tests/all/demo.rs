//! What `make demo` shows, so that whatever breaks it is found by `make test`.

use ferrypost_tests::demo::{tour, world};
use ferrypost_tests::dovecot::Pace;
use ferrypost_tests::story::short_limits;

/// The whole tour: every recipe as it is typed, an account that moves and comes back under load, and no promise broken.
/// Only the servers hurry, and what waits for a time waits for less.
#[tokio::test(flavor = "multi_thread")]
async fn the_tour_keeps_every_promise() {
    let world = world().pace(Pace::Hurried).limits(short_limits());
    tour(world).await.expect("every promise");
}
