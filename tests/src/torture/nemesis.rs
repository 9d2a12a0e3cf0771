//! Kills, freezes, cuts off and compacts at random, one thing or two at a time, and mends everything
//! again.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::history::{Disturbance, Moment};
use crate::process::Process;
use crate::world::{Etcd, Link, Plane, Traffic, World, WorldError};

/// Between faults.
const PEACE_MS: Range<u64> = 300..2000;

/// How long a process stands still or is cut off: mostly past two heartbeats and below the window.
const PAUSE_MS: Range<u64> = 200..2500;

/// And in a few of a hundred cases longer than a window, so that what has begun cannot end well.
const LONG_PAUSE_MS: Range<u64> = 6500..8000;
const LONG_PAUSES: u32 = 15;

/// So many of a hundred faults come together with another one.
const COMPANY: u32 = 40;

/// How long a killed process stays away.
const AWAY_MS: Range<u64> = 50..1500;

/// How long a leader is left in peace that has just come: longer than it needs to find the fences of the one
/// before, and mostly shorter than a fence.
const REIGN_MS: Range<u64> = 1000..3000;

/// How long a leader stands still at most.
pub(super) const LONGEST_STUPOR: Duration = Duration::from_millis(3500);

/// How long a killed leader's process stays away at most.
pub(super) const LONGEST_ABSENCE: Duration = Duration::from_millis(600);

pub(super) struct Nemesis {
    random: StdRng,
    done: BTreeMap<String, usize>,
    disturbances: Vec<Disturbance>,
}

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    DataPlane(usize),
    ControlPlane(usize),
    Etcd,
    /// What a data plane and a replica have between them.
    Stream(usize, usize),
    /// What a replica and etcd have between them.
    Store(usize),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Killed, and started again.
    Kill,
    /// Frozen, and woken.
    Freeze,
    /// Nothing arrives, until everything does.
    Stall,
    /// Connections are gone, and none come about.
    Cut,
    /// Its history is gone.
    Compact,
}

#[derive(Debug, Clone, Copy)]
struct Fault {
    victim: Victim,
    deed: Deed,
    until: Instant,
}

impl Fault {
    /// What it was to clients, now that it is over.
    fn disturbance(self, begun: Moment) -> Disturbance {
        Disturbance {
            data_plane: match self.victim {
                Victim::DataPlane(n) | Victim::Stream(n, _) => Some(n),
                Victim::ControlPlane(_) | Victim::Etcd | Victim::Store(_) => None,
            },
            killed: matches!((self.victim, self.deed), (Victim::DataPlane(_), Deed::Kill)),
            frozen: matches!(
                (self.victim, self.deed),
                (Victim::DataPlane(_), Deed::Freeze)
            ),
            begun,
            mended: Moment::now(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.deed, self.victim)
    }
}

impl Nemesis {
    pub(super) fn new(random: StdRng) -> Self {
        Self {
            random,
            done: BTreeMap::new(),
            disturbances: Vec::new(),
        }
    }

    /// When it was done.
    pub(super) fn disturbances(&self) -> &[Disturbance] {
        &self.disturbances
    }

    /// What was done, and how often.
    pub(super) fn done(self) -> BTreeMap<String, usize> {
        self.done
    }

    /// Breaks one thing, or two together, after a while of peace and mends them.
    ///
    /// # Errors
    /// When something does not come back.
    pub(super) async fn strike(&mut self, world: &mut World) -> Result<(), WorldError> {
        let peace = self.milliseconds(PEACE_MS);
        sleep(peace).await;
        let mut faults = vec![self.choose(world)];
        if self.happens(COMPANY) {
            let other = self.choose(world);
            if other.victim != faults[0].victim {
                faults.push(other);
            }
        }
        let begun = Moment::now();
        for fault in &faults {
            *self.done.entry(fault.to_string()).or_default() += 1;
            begin(world, *fault).await?;
        }
        if faults.len() > 1 {
            *self.done.entry("two at once".to_owned()).or_default() += 1;
        }
        faults.sort_by_key(|fault| fault.until);
        for fault in faults {
            self.mend(world, fault, begun).await?;
        }
        Ok(())
    }

    /// Waits until a fault has lasted, and ends it.
    async fn mend(
        &mut self,
        world: &mut World,
        fault: Fault,
        begun: Moment,
    ) -> Result<(), WorldError> {
        sleep_until(fault.until).await;
        end(world, fault).await?;
        self.disturbances.push(fault.disturbance(begun));
        Ok(())
    }

    /// Waits until somebody leads, and soon kills or freezes just that one.
    ///
    /// # Errors
    /// When something does not come back.
    pub(super) async fn strike_the_leader(&mut self, world: &mut World) -> Result<(), WorldError> {
        world.wait_for_leader(0).await?;
        let reign = self.milliseconds(REIGN_MS);
        sleep(reign).await;
        let Some(replica) = leader(world).await else {
            return Ok(());
        };
        let (deed, longest) = if self.happens(50) {
            (Deed::Kill, LONGEST_ABSENCE)
        } else {
            (Deed::Freeze, LONGEST_STUPOR)
        };
        let fault = Fault {
            victim: Victim::ControlPlane(replica),
            deed,
            until: Instant::now() + longest,
        };
        *self.done.entry(format!("{deed:?} the leader")).or_default() += 1;
        let begun = Moment::now();
        begin(world, fault).await?;
        self.mend(world, fault, begun).await
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

    fn choose(&mut self, world: &mut World) -> Fault {
        let victims = victims(world);
        let victim = victims[self.random.random_range(0..victims.len())];
        let deeds: &[Deed] = match victim {
            Victim::DataPlane(_) | Victim::ControlPlane(_) => &[Deed::Kill, Deed::Freeze],
            Victim::Etcd => &[Deed::Kill, Deed::Freeze, Deed::Compact],
            Victim::Stream(..) | Victim::Store(_) => &[Deed::Stall, Deed::Cut],
        };
        let deed = deeds[self.random.random_range(0..deeds.len())];
        let time = match deed {
            Deed::Kill | Deed::Compact => AWAY_MS,
            _ if self.happens(LONG_PAUSES) => LONG_PAUSE_MS,
            _ => PAUSE_MS,
        };
        Fault {
            victim,
            deed,
            until: Instant::now() + self.milliseconds(time),
        }
    }

    /// True in `percent` of a hundred cases.
    fn happens(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn milliseconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }
}

/// The replica that leads, as one that answers says.
async fn leader(world: &World) -> Option<usize> {
    let replicas = world.control_planes();
    for n in 0..replicas.len() {
        let operator = world.operator(n);
        let asked = timeout(Duration::from_secs(1), operator.get_stats());
        if let Ok(Ok(stats)) = asked.await {
            let leader = stats.header?.leader;
            return replicas.iter().position(|it| it.plane.name() == leader);
        }
    }
    None
}

/// Everything that can be hit. Networks are there only in a world with links.
fn victims(world: &mut World) -> Vec<Victim> {
    let (data_planes, control_planes) = (world.data_planes().len(), world.control_planes().len());
    let mut victims: Vec<_> = (0..data_planes).map(Victim::DataPlane).collect();
    victims.extend((0..control_planes).map(Victim::ControlPlane));
    victims.extend(world.etcd().map(|_| Victim::Etcd));
    let streams = (0..data_planes).flat_map(|n| (0..control_planes).map(move |m| (n, m)));
    let networks = streams
        .map(|(n, m)| Victim::Stream(n, m))
        .chain((0..control_planes).map(Victim::Store));
    victims.extend(networks.filter(|victim| link(world, *victim).is_some()));
    victims
}

async fn begin(world: &mut World, fault: Fault) -> Result<(), WorldError> {
    match fault.deed {
        Deed::Kill => match plane(world, fault.victim) {
            Some(plane) => plane.kill(),
            None => {
                if let Some(etcd) = etcd(world, fault.victim) {
                    etcd.kill();
                }
            }
        },
        Deed::Freeze => match plane(world, fault.victim) {
            Some(plane) => plane.freeze()?,
            None => {
                if let Some(etcd) = etcd(world, fault.victim) {
                    etcd.freeze()?;
                }
            }
        },
        Deed::Stall => set(world, fault.victim, Traffic::Stalls),
        Deed::Cut => set(world, fault.victim, Traffic::Broken),
        Deed::Compact => {
            if let Some(etcd) = world.etcd() {
                etcd.compact().await?;
            }
        }
    }
    Ok(())
}

async fn end(world: &mut World, fault: Fault) -> Result<(), WorldError> {
    match fault.deed {
        Deed::Kill => match plane(world, fault.victim) {
            Some(plane) => plane.start()?,
            None => {
                if let Some(etcd) = world.etcd() {
                    etcd.start_again().await?;
                }
            }
        },
        Deed::Freeze => match plane(world, fault.victim) {
            Some(plane) => plane.resume()?,
            None => {
                if let Some(etcd) = etcd(world, fault.victim) {
                    etcd.resume()?;
                }
            }
        },
        Deed::Stall | Deed::Cut => set(world, fault.victim, Traffic::Flows),
        Deed::Compact => {}
    }
    Ok(())
}

fn plane(world: &mut World, victim: Victim) -> Option<&mut Plane> {
    match victim {
        Victim::DataPlane(n) => Some(world.data_plane(n)),
        Victim::ControlPlane(n) => Some(world.control_plane(n)),
        Victim::Etcd | Victim::Stream(..) | Victim::Store(_) => None,
    }
}

fn etcd(world: &mut World, victim: Victim) -> Option<&mut Process> {
    match victim {
        Victim::Etcd => world.etcd().map(Etcd::process),
        _ => None,
    }
}

fn link(world: &World, victim: Victim) -> Option<&Link> {
    match victim {
        Victim::Stream(data_plane, replica) => world.data_planes()[data_plane].link(replica),
        Victim::Store(replica) => world.control_planes()[replica].store_link(),
        _ => None,
    }
}

fn set(world: &World, victim: Victim, traffic: Traffic) {
    if let Some(link) = link(world, victim) {
        link.set(traffic);
    }
}
