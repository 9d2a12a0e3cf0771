//! A breaker for the endpoint of every server: where many fail, the next one is told so at once, and a server that
//! comes back is not run over.
//!
//! ```text
//!             logins of `clients` different ones failed
//!   closed ──────────────────────────────────────────────▶ open ──┐
//!      ▲                                                     │    │ one login every `pause` is let through
//!      └──────────── the server answered somebody ───────────┘◀───┘
//! ```
//!
//! It counts *clients*, by where they come from: one for whom a server fails, however often, closes it to nobody
//! else. And it counts since the server last answered anybody: where some succeed it never opens. What it opens to is
//! a temporary error, which is what the login would have come to, and never another server.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ferrypost_proto::Endpoint;
use tokio::time::Instant;

use super::{Target, open::OpenError};
use crate::{limits::BreakerLimits, network::Network};

/// The breakers of all servers. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Breakers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: BreakerLimits,
    known: Mutex<BTreeMap<Target, Breaker>>,
}

/// What is known of the logins at one endpoint.
#[derive(Debug)]
struct Breaker {
    endpoint: Endpoint,
    /// When its first login came.
    appeared: Instant,
    /// When the server last answered one. A failure of a login that is older says nothing.
    answered: Option<Instant>,
    /// Who failed after that, and when last. Never more than open it.
    failing: HashMap<Network, Instant>,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    /// When the next login is let through.
    next: Instant,
}

/// The breaker is open: the login is not to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsOpen;

/// A login that may be sent. Says at its end what the server made of it; where it ends for another reason nothing is
/// learnt.
#[derive(Debug)]
#[must_use]
pub struct Pass {
    breakers: Breakers,
    target: Target,
    client: Network,
    began: Instant,
}

impl Breakers {
    /// Nothing has failed yet.
    pub fn new(limits: BreakerLimits) -> Self {
        Self(Arc::new(Inner {
            limits,
            known: Mutex::default(),
        }))
    }

    /// Whether a login of this client may be sent to the endpoint of the target.
    pub(crate) fn pass(
        &self,
        target: Target,
        endpoint: &Endpoint,
        client: IpAddr,
    ) -> Result<Pass, IsOpen> {
        let now = Instant::now();
        let mut known = self.known();
        match known.get_mut(&target) {
            Some(breaker) if breaker.endpoint == *endpoint => {
                if let Some(open) = &mut breaker.open {
                    if now < open.next {
                        return Err(IsOpen);
                    }
                    open.next = now + self.0.limits.pause;
                }
            }
            _ => _ = known.insert(target.clone(), Breaker::new(endpoint, now)),
        }
        drop(known);
        Ok(Pass {
            breakers: self.clone(),
            target,
            client: Network::of_customer(client),
            began: now,
        })
    }

    /// Since when the breaker of a target has been open.
    pub fn open_since(&self, target: &Target) -> Option<Instant> {
        let known = self.known();
        Some(known.get(target)?.open?.since)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Target, Breaker>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// The server answered, whatever it said.
    pub(crate) fn answered(self) {
        let now = Instant::now();
        let mut known = self.breakers.known();
        let Some(breaker) = self.of_now(&mut known) else {
            return;
        };
        breaker.answered = Some(now);
        breaker.failing.clear();
        if let Some(open) = breaker.open.take() {
            let seconds = (now - open.since).as_secs();
            let (destination, protocol) = (&self.target.destination, self.target.protocol.word());
            tracing::info!(%destination, protocol, seconds, "the breaker is closed: the server answers logins again");
        }
    }

    /// The server could not be opened.
    pub(crate) fn could_not_open(self, error: &OpenError) {
        match error {
            // Who is turned away has been answered.
            OpenError::Refused(_) => self.answered(),
            error if error.is_ours() => {}
            _ => self.failed(),
        }
    }

    /// The server could not be reached, or did not answer.
    pub(crate) fn failed(self) {
        let now = Instant::now();
        let limits = self.breakers.0.limits;
        let mut known = self.breakers.known();
        let Some(breaker) = self.of_now(&mut known) else {
            return;
        };
        if breaker.open.is_some() || Some(self.began) < breaker.answered {
            return;
        }
        breaker
            .failing
            .retain(|_, failed| now - *failed < limits.window);
        breaker.failing.insert(self.client, now);
        let clients = breaker.failing.len();
        if clients < limits.clients {
            return;
        }
        breaker.failing.clear();
        breaker.open = Some(Open {
            since: now,
            next: now + limits.pause,
        });
        let (destination, protocol) = (&self.target.destination, self.target.protocol.word());
        let endpoint = format!("{}:{}", breaker.endpoint.host, breaker.endpoint.port);
        tracing::error!(
            %destination, protocol, endpoint, clients,
            "the breaker is open: the server fails one client after the other; a login is tried now and then"
        );
    }

    /// The breaker that it passed, unless the endpoint has become another one since.
    fn of_now<'k>(&self, known: &'k mut BTreeMap<Target, Breaker>) -> Option<&'k mut Breaker> {
        let breaker = known.get_mut(&self.target)?;
        (self.began >= breaker.appeared).then_some(breaker)
    }
}

impl Breaker {
    fn new(endpoint: &Endpoint, now: Instant) -> Self {
        Self {
            endpoint: endpoint.clone(),
            appeared: now,
            answered: None,
            failing: HashMap::new(),
            open: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;
    use crate::{backend::tests::target, net::dial::tests::endpoint};

    const LIMITS: BreakerLimits = BreakerLimits {
        clients: 3,
        window: Duration::from_secs(30),
        pause: Duration::from_secs(5),
    };

    struct Scene {
        breakers: Breakers,
        endpoint: Endpoint,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                breakers: Breakers::new(LIMITS),
                endpoint: endpoint("mail.example.org", 143),
            }
        }

        fn pass(&self, client: &str) -> Result<Pass, IsOpen> {
            let client = client.parse().unwrap();
            self.breakers.pass(target("old"), &self.endpoint, client)
        }

        fn fail(&self, clients: &[&str]) {
            for client in clients {
                self.pass(client).unwrap().failed();
            }
        }

        fn is_open(&self) -> bool {
            self.breakers.open_since(&target("old")).is_some()
        }
    }

    const THREE: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];

    #[tokio::test(start_paused = true)]
    async fn one_client_that_fails_however_often_closes_the_server_to_nobody() {
        let scene = Scene::new();
        scene.fail(&["192.0.2.1"; 100]);
        // The addresses of one IPv6 customer are one client's.
        scene.fail(&["2001:db8::1", "2001:db8::2", "2001:db8::3"]);
        assert!(!scene.is_open() && scene.pass("192.0.2.2").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_limit_of_different_clients_and_for_this_server_alone() {
        let scene = Scene::new();
        scene.fail(&THREE[..2]);
        assert!(!scene.is_open());
        scene.fail(&THREE[2..]);
        assert!(scene.is_open());
        assert_eq!(scene.pass("192.0.2.9").unwrap_err(), IsOpen);
        let client = "192.0.2.9".parse().unwrap();
        let other = scene.breakers.pass(target("new"), &scene.endpoint, client);
        assert!(other.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn where_somebody_is_answered_it_does_not_open() {
        let scene = Scene::new();
        for _ in 0..10 {
            scene.fail(&THREE[..2]);
            scene.pass("192.0.2.9").unwrap().answered();
        }
        assert!(!scene.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_comes_late_of_a_login_from_before_an_answer_does_not_count() {
        let scene = Scene::new();
        let late = THREE.map(|client| scene.pass(client).unwrap());
        advance(Duration::from_secs(1)).await;
        scene.pass("192.0.2.9").unwrap().answered();
        late.into_iter().for_each(Pass::failed);
        assert!(!scene.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten() {
        let scene = Scene::new();
        scene.fail(&THREE[..2]);
        advance(LIMITS.window).await;
        scene.fail(&THREE[2..]);
        assert!(!scene.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_one_lets_one_login_through_at_a_time_until_the_server_answers() {
        let scene = Scene::new();
        scene.fail(&THREE);
        let since = scene.breakers.open_since(&target("old"));
        for _ in 0..3 {
            advance(LIMITS.pause).await;
            let trial = scene.pass("192.0.2.9").unwrap();
            assert_eq!(scene.pass("192.0.2.8").unwrap_err(), IsOpen);
            trial.failed();
            assert_eq!(scene.pass("192.0.2.8").unwrap_err(), IsOpen);
        }
        assert_eq!(scene.breakers.open_since(&target("old")), since);
        advance(LIMITS.pause).await;
        scene.pass("192.0.2.9").unwrap().answered();
        assert!(!scene.is_open() && scene.pass("192.0.2.8").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_ends_without_a_word_keeps_nobody_out_for_longer_than_the_pause() {
        let scene = Scene::new();
        scene.fail(&THREE);
        advance(LIMITS.pause).await;
        drop(scene.pass("192.0.2.9").unwrap());
        advance(LIMITS.pause).await;
        assert!(scene.pass("192.0.2.9").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_was_changed_begins_anew() {
        let mut scene = Scene::new();
        let before = scene.pass("192.0.2.9").unwrap();
        scene.fail(&THREE);
        scene.endpoint = endpoint("mail.example.org", 1143);
        advance(Duration::from_secs(1)).await;
        assert!(scene.pass("192.0.2.1").is_ok());
        scene.fail(&THREE[..2]);
        before.failed();
        assert!(!scene.is_open());
    }
}
