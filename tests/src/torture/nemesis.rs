//! Kills and freezes processes at random, one at a time, and brings them back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::world::{Plane, World, WorldError};

/// Between faults.
const PEACE_MS: Range<u64> = 300..2000;

/// How long a process stands still: mostly past two heartbeats and below the window.
const FREEZE_MS: Range<u64> = 200..2500;

/// And in a few of a hundred cases longer than a window, so that what has begun cannot end well.
const LONG_FREEZE_MS: Range<u64> = 6500..8000;
const LONG_FREEZES: u32 = 20;

/// So many of a hundred faults are kills.
const KILLS: u32 = 55;

/// How long a killed process stays away.
const AWAY_MS: Range<u64> = 50..1500;

pub(super) struct Nemesis {
    random: StdRng,
    done: BTreeMap<String, usize>,
}

/// Whom it hits.
#[derive(Debug, Clone, Copy)]
enum Victim {
    DataPlane(usize),
    ControlPlane(usize),
    Etcd,
}

impl Nemesis {
    pub(super) fn new(random: StdRng) -> Self {
        Self {
            random,
            done: BTreeMap::new(),
        }
    }

    /// What was done, and how often.
    pub(super) fn done(self) -> BTreeMap<String, usize> {
        self.done
    }

    /// Breaks one thing after a while of peace and brings it back.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) async fn strike(&mut self, world: &mut World) -> Result<(), WorldError> {
        self.wait(PEACE_MS).await;
        let victim = self.choose(world);
        if self.random.random_range(0..100) < KILLS {
            self.count("kill", victim);
            kill(world, victim);
            self.wait(AWAY_MS).await;
            start(world, victim).await
        } else {
            self.count("freeze", victim);
            freeze(world, victim)?;
            let is_long = self.random.random_range(0..100) < LONG_FREEZES;
            self.wait(if is_long { LONG_FREEZE_MS } else { FREEZE_MS })
                .await;
            resume(world, victim)
        }
    }

    /// Leaves everything running.
    ///
    /// # Errors
    /// When a process has ended by itself.
    pub(super) async fn relent(&mut self, world: &mut World) -> Result<(), WorldError> {
        for replica in 0..world.control_planes().len() {
            world.control_plane(replica).check()?;
        }
        for n in 0..world.data_planes().len() {
            world.wait_until_ready(n).await?;
        }
        Ok(())
    }

    fn choose(&mut self, world: &mut World) -> Victim {
        let data_planes = world.data_planes().len();
        let control_planes = world.control_planes().len();
        let all = data_planes + control_planes + usize::from(world.etcd().is_some());
        match self.random.random_range(0..all) {
            n if n < data_planes => Victim::DataPlane(n),
            n if n < data_planes + control_planes => Victim::ControlPlane(n - data_planes),
            _ => Victim::Etcd,
        }
    }

    fn count(&mut self, fault: &str, victim: Victim) {
        *self.done.entry(format!("{fault} {victim:?}")).or_default() += 1;
    }

    async fn wait(&mut self, milliseconds: Range<u64>) {
        sleep(Duration::from_millis(
            self.random.random_range(milliseconds),
        ))
        .await;
    }
}

fn plane(world: &mut World, victim: Victim) -> Option<&mut Plane> {
    match victim {
        Victim::DataPlane(n) => Some(world.data_plane(n)),
        Victim::ControlPlane(n) => Some(world.control_plane(n)),
        Victim::Etcd => None,
    }
}

fn kill(world: &mut World, victim: Victim) {
    if let Some(plane) = plane(world, victim) {
        plane.kill();
    } else if let Some(etcd) = world.etcd() {
        etcd.process().kill();
    }
}

async fn start(world: &mut World, victim: Victim) -> Result<(), WorldError> {
    if let Some(plane) = plane(world, victim) {
        plane.start()?;
    } else if let Some(etcd) = world.etcd() {
        etcd.start_again().await?;
    }
    Ok(())
}

fn freeze(world: &mut World, victim: Victim) -> Result<(), WorldError> {
    if let Some(plane) = plane(world, victim) {
        plane.freeze()?;
    } else if let Some(etcd) = world.etcd() {
        etcd.process().freeze()?;
    }
    Ok(())
}

fn resume(world: &mut World, victim: Victim) -> Result<(), WorldError> {
    if let Some(plane) = plane(world, victim) {
        plane.resume()?;
    } else if let Some(etcd) = world.etcd() {
        etcd.process().resume()?;
    }
    Ok(())
}
