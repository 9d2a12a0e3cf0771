//! After the last fault: every migration ends, no login stays held, everybody can log in where they
//! live.

use std::time::Duration;

use anyhow::Context as _;
use ferrypost_proto::v1::{ExplainRouteRequest, GetStatsResponse, Phase};

use crate::dovecot::ID_FIELD;
use crate::wait::eventually;
use crate::world::World;

/// Waits until all accounts are settled and nobody is held, then logs in as everybody through every
/// data plane. Gives back what did not come to rest.
pub(super) async fn come_to_rest(
    world: &mut World,
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for replica in 0..world.control_planes().len() {
        let operator = world.operator(replica);
        let rest = eventually("everything comes to rest", limit, async || {
            let stats = operator.get_stats().await.map_err(|s| s.to_string())?;
            at_rest(&stats)
        });
        if let Err(late) = rest.await {
            complaints.push(late.to_string());
        }
    }
    for account in world.accounts() {
        for data_plane in 0..world.data_planes().len() {
            if let Err(error) = log_in(world, account, data_plane).await {
                complaints.push(format!(
                    "{account} through data plane {}: {error:#}",
                    data_plane + 1
                ));
            }
        }
    }
    Ok(complaints)
}

/// Where the control plane says that an account lives.
pub(super) async fn destination(world: &World, account: &str) -> anyhow::Result<String> {
    let request = ExplainRouteRequest {
        login: account.to_owned(),
        ..ExplainRouteRequest::default()
    };
    let mut placements = world.operator(0).placements();
    let answer = placements.explain_route(request).await?;
    Ok(answer.into_inner().destination)
}

fn at_rest(stats: &GetStatsResponse) -> Result<(), String> {
    let unsettled: Vec<String> = stats
        .phases
        .iter()
        .filter(|count| count.accounts > 0 && count.phase() != Phase::Settled)
        .map(|count| format!("{} {}", count.accounts, count.phase().as_str_name()))
        .collect();
    if !unsettled.is_empty() {
        return Err(format!("not settled: {}", unsettled.join(", ")));
    }
    if stats.held_logins > 0 {
        return Err(format!("{} logins are held", stats.held_logins));
    }
    if stats.data_planes_connected != stats.data_planes_registered {
        return Err("a data plane is not connected".to_owned());
    }
    Ok(())
}

async fn log_in(world: &World, account: &str, data_plane: usize) -> anyhow::Result<()> {
    let home = destination(world, account).await?;
    let mut client = world.imaps(data_plane).open().await?;
    client
        .login(account, world.password())
        .await?
        .accepted()
        .context("nothing breaks any more, but no login")?;
    let server = client.id_field(ID_FIELD).await?.unwrap_or_default();
    anyhow::ensure!(server == home, "lives at {home}, landed on {server}");
    client.logout().await?;
    Ok(())
}
