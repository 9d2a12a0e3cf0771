//! A rolling upgrade in the order of `docs/upgrading.md`, and the way back, while accounts move.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use crate::world::{Builder, World, WorldError};

/// Between two steps, so that moves begin and end with every mixture of versions.
const PAUSE: Duration = Duration::from_secs(1);

/// A program of the version before, to begin with.
pub(super) fn beginning(world: Builder) -> Builder {
    world
        .data_plane_env("FERRYPOST_SPEAKS", "previous")
        .control_plane_env("FERRYPOST_SPEAKS", "previous")
}

/// Upgrades the control plane, then the data planes; goes back the other way round. Each process ends as
/// an operator ends it and must be back in service before the next. Gives back what was done how often.
pub(super) async fn there_and_back(
    world: &mut World,
) -> Result<BTreeMap<String, usize>, WorldError> {
    let mut done = BTreeMap::new();
    for previous in [false, true] {
        let what = if previous { "taken back" } else { "upgraded" };
        let mut order = ["control plane", "data plane"];
        if previous {
            order.reverse();
        }
        for kind in order {
            let count = replace_all(world, kind, previous).await?;
            done.insert(format!("{kind} {what}"), count);
        }
    }
    Ok(done)
}

async fn replace_all(world: &mut World, kind: &str, previous: bool) -> Result<usize, WorldError> {
    let data_planes = kind == "data plane";
    let count = if data_planes {
        world.data_planes().len()
    } else {
        world.control_planes().len()
    };
    for n in 0..count {
        let plane = if data_planes {
            world.data_plane(n)
        } else {
            world.control_plane(n)
        };
        plane.stop().await?;
        plane.speaks_the_previous_version(previous);
        plane.start()?;
        if data_planes {
            world.wait_until_ready(n).await?;
        } else {
            world.wait_for_leader(n).await?;
        }
        sleep(PAUSE).await;
    }
    Ok(count)
}
