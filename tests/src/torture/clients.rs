//! Who is at work meanwhile, and whether everybody was.

use std::collections::BTreeMap;

use crate::history::{Action, History, Operation, Protocol, Recorder};
use crate::workload::{Habit, Job, Place, Tls, Workload};
use crate::world::World;

use super::{Plan, Speaks};

/// What a writer does by IMAP.
const WRITER: Habit = Habit {
    pause: 5..80,
    slow_percent: 25,
    login_percent: 15,
};

/// What everybody else does: each login costs a handshake on either leg, and a process of the server's.
const OTHERS: Habit = Habit {
    pause: 100..700,
    slow_percent: 50,
    login_percent: 20,
};

/// The same by HTTP: a request is no more than that.
const SURFERS: Habit = Habit {
    pause: 20..300,
    slow_percent: 30,
    login_percent: 15,
};

/// Starts everybody.
pub(super) async fn start_clients(
    world: &World,
    recorder: &Recorder,
    plan: &Plan,
) -> anyhow::Result<Workload> {
    let mut workload = Workload::new(world, recorder.clone(), plan.seed);
    if plan.speaks != Speaks::Http {
        workload.sow(world, world.accounts()).await?;
    }
    for data_plane in 0..world.data_planes().len() {
        for (n, account) in world.accounts().iter().enumerate() {
            let tls = if n % 2 == 0 {
                Tls::Implicit
            } else {
                Tls::Starttls
            };
            let place = Place {
                account,
                data_plane,
                tls,
            };
            if plan.speaks != Speaks::Http {
                add_mail(&mut workload, place, plan.writers);
            }
            workload.add(place, Job::Busy(Protocol::Http, SURFERS));
            workload.add(place, Job::Socket(SURFERS));
            // A move waits for a stream until it is silent, and so only one account has them.
            if n == 0 {
                workload.add(place, Job::Listen);
            }
        }
    }
    Ok(workload)
}

fn add_mail(workload: &mut Workload, place: Place<'_>, writers: usize) {
    workload.add(place, Job::Idle);
    for _ in 0..writers {
        workload.add(place, Job::Busy(Protocol::Imap, WRITER));
    }
    for protocol in [
        Protocol::Pop3,
        Protocol::ManageSieve,
        Protocol::Submission,
        Protocol::Lmtp,
    ] {
        workload.add(place, Job::Busy(protocol, OTHERS));
    }
}

/// How many logins were granted, by protocol.
pub(super) fn logins(history: &History) -> BTreeMap<Protocol, usize> {
    let mut logins = BTreeMap::new();
    for operation in &history.operations {
        if operation.action.is_login() && operation.action.is_accepted() {
            *logins.entry(operation.protocol).or_default() += 1;
        }
    }
    logins
}

/// How many recipients had a message delivered.
pub(super) fn deliveries(history: &History) -> usize {
    let is_delivery = |operation: &&Operation| matches!(operation.action, Action::Deliver(_));
    history.operations.iter().filter(is_delivery).count()
}

/// Protocols of the world in which nobody ever got in, and what never happened.
pub(super) fn silent(world: &World, history: &History) -> Vec<String> {
    let plane = &world.data_planes()[0];
    let is_spoken = |protocol: &Protocol| match protocol {
        Protocol::Submission => plane.submission().is_some(),
        Protocol::Http => plane.web().is_some(),
        // Nobody logs in to deliver.
        Protocol::Lmtp => false,
        Protocol::Imap | Protocol::Pop3 | Protocol::ManageSieve => true,
    };
    let logins = logins(history);
    let spoken = Protocol::ALL.into_iter().filter(is_spoken);
    let mut silent: Vec<_> = spoken
        .filter(|protocol| !logins.contains_key(protocol))
        .map(|protocol| format!("nobody logged in by {protocol}"))
        .collect();
    if plane.deliveries().is_some() && deliveries(history) == 0 {
        silent.push("nobody delivered".to_owned());
    }
    silent
}
