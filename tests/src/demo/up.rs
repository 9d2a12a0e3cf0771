//! `demo-up`: starts everything and leaves it running.

use std::fs;

use anyhow::{Context as _, bail};

use crate::dovecot::scratch;
use crate::world::{Entrance, World};

use super::down::stop;
use super::installed::Installed;
use super::{Paths, env_file, world};

/// Starts everything, writes `target/demo/env` last, and leaves it running. What runs already is left
/// alone.
///
/// # Errors
/// When something does not come up, or only a part of an earlier demo still runs.
pub async fn up() -> anyhow::Result<()> {
    let paths = Paths::new();
    if already_runs(&paths)? {
        println!(
            "the demo is running already ({}); `make demo-down` stops it",
            paths.env().display()
        );
        return Ok(());
    }
    fs::create_dir_all(paths.folder())?;
    let folder = scratch()?.keep();
    Installed::begin(&paths.installed(), &folder)?;
    println!(
        "==> starting two Dovecots, a control plane and two data planes in {}",
        folder.display()
    );
    let start = world().survives(&folder, &paths.installed()).start();
    let started = tokio::select! {
        started = start => started.map_err(anyhow::Error::from),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let finished = started.and_then(|world| {
        env_file::write(&world, &paths.env())?;
        Ok(world)
    });
    match finished {
        Ok(world) => {
            announce(&world, &paths);
            Ok(())
        }
        Err(error) => {
            stop(&paths)
                .await
                .context("while stopping what had started")?;
            Err(error.context("the demo did not come up; what had started was stopped"))
        }
    }
}

/// Whether all of an earlier demo runs.
fn already_runs(paths: &Paths) -> anyhow::Result<bool> {
    let Some(installed) = Installed::read(&paths.installed())? else {
        return Ok(false);
    };
    let ended = installed.ended();
    if ended.is_empty() && paths.env().is_file() {
        return Ok(true);
    }
    if ended.len() == installed.processes.len() {
        // Nothing is left of it but files, for example after a restart of the machine.
        _ = fs::remove_file(paths.env());
        _ = fs::remove_dir_all(&installed.folder);
        return Ok(false);
    }
    bail!(
        "only a part of an earlier demo runs (ended: {}); stop it by `make demo-down` first",
        if ended.is_empty() {
            "none, but it never came up".to_owned()
        } else {
            ended.join(", ")
        }
    );
}

fn announce(world: &World, paths: &Paths) {
    println!(
        "    source    {} accounts live here, IMAP at {}",
        world.accounts().len(),
        world.source().addr(crate::dovecot::Service::Imap)
    );
    println!(
        "    target    IMAP at {}, behind a PROXY header",
        world.target().addr(crate::dovecot::Service::Imap)
    );
    for data_plane in world.data_planes() {
        println!(
            "    {} IMAPS at {}, IMAP with STARTTLS at {}, POP3S at {}, POP3 with STLS at {}, \
             ManageSieve at {}, /stats at https://{}",
            data_plane.plane.name(),
            data_plane.imaps(),
            data_plane.imap(),
            data_plane.addr(Entrance::Pop3s),
            data_plane.addr(Entrance::Pop3),
            data_plane.sieve(),
            data_plane.admin()
        );
        if let Some(submission) = data_plane.submission() {
            println!("        submission with STARTTLS at {submission}");
        }
        if let Some(submissions) = data_plane.submissions() {
            println!("        submission over TLS at {submissions}");
        }
        if let Some(web) = data_plane.web() {
            println!("        JMAP, CalDAV and CardDAV at https://{web}");
        }
    }
    for control_plane in world.control_planes() {
        println!(
            "    {}, gRPC at {}",
            control_plane.plane.name(),
            control_plane.operators()
        );
    }
    println!(
        "==> it is up: {} says where everything is; `make demo-down` stops it",
        paths.env().display()
    );
}
