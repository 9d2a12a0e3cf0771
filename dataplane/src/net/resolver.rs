//! The addresses of hosts: asked for once however many wait, and kept while nobody knows better.
//!
//! ```text
//!   age of the last good answer      what a caller gets
//!   below FRESH                      it
//!   below TRUSTED                    it, and the host is asked for behind
//!   below KEPT                       a newer one if there is one within PATIENCE, otherwise it
//!   there is none                    the answer of the look-up under way, or why there is none
//! ```
//!
//! An address that is served although its name cannot be resolved is as safe as one that was resolved: a server
//! is known by its certificate, never by its address.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_runtime::shutdown::Shutdown;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

/// How old an answer may be before it is asked for again, so that a thousand logins in a second are not a
/// thousand questions, and a server that moves is found within seconds.
const FRESH: Duration = Duration::from_secs(5);

/// How old it may be and still be served at once. Every server is probed, and so asked for, more often than
/// this: only an answer that cannot be renewed, or a host that was left alone (a control plane whose stream
/// lasted for a week), grows older.
const TRUSTED: Duration = Duration::from_secs(30);

/// How long a caller waits for a newer answer than one that is older than that: many times what a resolver
/// takes that works.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time from a look-up that failed to the next one of the same host.
const RETRY: Duration = Duration::from_secs(1);

/// How long the last good answer is kept when there is no other (RFC 8767 §5 recommends one to three days), and
/// a host that nobody asks for.
const KEPT: Duration = Duration::from_hours(24);

/// Addresses of a host that are tried. An answer may hold thousands, which would be copied for every login, and
/// nobody waits for so many attempts.
const MOST_ADDRESSES: usize = 32;

/// Look-ups at once. The system's blocks a thread for as long as it lasts (half a minute when no name server
/// answers), of the pool from which snapshots and certificates are read too.
const AT_ONCE: usize = 8;

/// Who knows the addresses of hosts.
pub trait LookUp: Send + Sync + 'static {
    /// The addresses of a host in the order in which they should be tried. Their port means nothing.
    fn look_up(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl LookUp for System {
    fn look_up(&self, host: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { super::resolve(&host).await })
    }
}

/// Finds and remembers addresses. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Resolver(Arc<Known>);

/// Why a host has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The resolver knows the name, and no address.
    #[error("the name has no address")]
    NoAddress,
    /// What the resolver says.
    #[error("{0}")]
    Failed(Arc<io::Error>),
    /// The resolver says nothing.
    #[error("no answer from the resolver within the limit")]
    Timeout,
}

struct Known {
    look_up: Box<dyn LookUp>,
    at_once: Semaphore,
    tasks: Shutdown,
    hosts: Mutex<HashMap<String, Host>>,
}

type Addresses = Arc<[SocketAddr]>;
type Outcome = Result<Addresses, ResolveError>;

/// What is known of a host.
struct Host {
    last_good: Option<(Instant, Addresses)>,
    /// The latest failure, if no success came after it.
    failure: Option<(Instant, ResolveError)>,
    flight: Option<Flight>,
    /// When somebody last asked for it.
    wanted: Instant,
}

/// A look-up under way, or one that has ended.
#[derive(Clone)]
struct Flight {
    began: Instant,
    outcome: Shared<oneshot::Receiver<Outcome>>,
}

/// What a caller is to do.
enum Advice {
    Take(Outcome),
    Wait(Flight, Option<Addresses>),
}

impl Resolver {
    /// A resolver that asks `look_up`, in tasks of `tasks`.
    pub fn new(look_up: impl LookUp, tasks: Shutdown) -> Self {
        Self(Arc::new(Known {
            look_up: Box::new(look_up),
            at_once: Semaphore::new(AT_ONCE),
            tasks,
            hosts: Mutex::default(),
        }))
    }

    /// The addresses of a host, each with this port, in the order in which they should be tried. An address is
    /// its own. How long it takes is the caller's to limit.
    ///
    /// # Errors
    /// [`ResolveError`]: there is no answer, and has been none for a day.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut addresses = self.addresses(host).await?.to_vec();
        for address in &mut addresses {
            address.set_port(port);
        }
        Ok(addresses)
    }

    async fn addresses(&self, host: &str) -> Outcome {
        match self.advice(host) {
            Advice::Take(outcome) => outcome,
            Advice::Wait(flight, None) => flight.outcome().await,
            Advice::Wait(flight, Some(last_good)) => {
                let newer = timeout_at(flight.began + PATIENCE, flight.outcome()).await;
                Ok(newer.ok().and_then(Result::ok).unwrap_or(last_good))
            }
        }
    }

    fn advice(&self, name: &str) -> Advice {
        let now = Instant::now();
        let mut hosts = self.0.hosts();
        hosts.retain(|_, host| now - host.wanted < KEPT);
        let host = hosts.entry(name.to_owned()).or_insert(Host {
            last_good: None,
            failure: None,
            flight: None,
            wanted: now,
        });
        host.wanted = now;
        let last_good = host.last_good_at(now);
        let age = last_good.as_ref().map(|(age, _)| *age);
        let last_good = last_good.map(|(_, addresses)| addresses);
        match (last_good, host.failed_just_now(now)) {
            (Some(known), _) if age < Some(FRESH) => Advice::Take(Ok(known)),
            (Some(known), Some(_)) => Advice::Take(Ok(known)),
            (None, Some(failure)) => Advice::Take(Err(failure)),
            (last_good, None) => {
                let flight = host.flight(|| self.take_off(name, now));
                match last_good {
                    Some(known) if age < Some(TRUSTED) => Advice::Take(Ok(known)),
                    last_good => Advice::Wait(flight, last_good),
                }
            }
        }
    }

    /// Begins a look-up, which goes on when nobody waits for it any more: what it costs is spent, and the thread
    /// that it may block is not free before its end.
    fn take_off(&self, name: &str, began: Instant) -> Flight {
        let (tell, outcome) = oneshot::channel();
        let (known, name) = (Arc::clone(&self.0), name.to_owned());
        self.0.tasks.spawn_background(async move {
            let outcome = known.ask(&name).await;
            known.note(&name, &outcome);
            // Perhaps nobody waits.
            _ = tell.send(outcome);
        });
        let outcome = outcome.shared();
        Flight { began, outcome }
    }
}

impl Known {
    async fn ask(&self, name: &str) -> Outcome {
        let _place = self.at_once.acquire().await;
        let found = self.look_up.look_up(name.to_owned()).await;
        match found {
            Ok(addresses) if addresses.is_empty() => Err(ResolveError::NoAddress),
            Ok(mut addresses) => {
                addresses.truncate(MOST_ADDRESSES);
                Ok(addresses.into())
            }
            Err(error) => Err(ResolveError::Failed(Arc::new(error))),
        }
    }

    fn note(&self, name: &str, outcome: &Outcome) {
        let now = Instant::now();
        let mut hosts = self.hosts();
        let Some(host) = hosts.get_mut(name) else {
            return;
        };
        match outcome {
            Ok(addresses) => {
                if host.failure.take().is_some() {
                    tracing::info!(host = name, "the host is resolved again");
                }
                host.last_good = Some((now, Arc::clone(addresses)));
            }
            Err(reason) => {
                if host.failure.is_none() {
                    let known = host.last_good_at(now).is_some();
                    tracing::warn!(host = name, %reason, known, "a host cannot be resolved; what is known of it serves on");
                }
                host.failure = Some((now, reason.clone()));
            }
        }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// The last good answer and its age.
    fn last_good_at(&self, now: Instant) -> Option<(Duration, Addresses)> {
        let (since, addresses) = self.last_good.as_ref()?;
        let age = now - *since;
        (age < KEPT).then(|| (age, Arc::clone(addresses)))
    }

    fn failed_just_now(&self, now: Instant) -> Option<ResolveError> {
        let (when, failure) = self.failure.as_ref()?;
        (now - *when < RETRY).then(|| failure.clone())
    }

    /// The look-up under way, or a new one.
    fn flight(&mut self, take_off: impl FnOnce() -> Flight) -> Flight {
        match &self.flight {
            Some(flight) if !flight.is_over() => flight.clone(),
            _ => self.flight.insert(take_off()).clone(),
        }
    }
}

impl Flight {
    fn is_over(&self) -> bool {
        self.outcome.clone().now_or_never().is_some()
    }

    async fn outcome(self) -> Outcome {
        // The task is gone without a word only when the process stops.
        let stopping = |_| ResolveError::Failed(Arc::new(io::ErrorKind::Interrupted.into()));
        self.outcome.await.map_err(stopping)?
    }
}

#[cfg(test)]
pub(crate) mod tests;
