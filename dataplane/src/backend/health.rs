//! Asks every destination how it is: as a login would, up to the point where a secret would be sent.
//!
//! Connect, PROXY header (as `LOCAL`: nobody is announced), TLS with its verification, greeting,
//! capabilities after TLS, goodbye.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ferrypost_proto::{
    Announcement, DestinationId, Endpoint, EndpointTls, Random, RoutingConfig, Trust, Verification,
    routing::v1::EndpointHealth, v1,
};
use ferrypost_wire::{
    BackSettings, BackendViolation, Capabilities, Channel, LineProtocol, Negotiate, NegotiateStep,
    ProtocolKind, TlsFacts, imap::Imap,
};
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Backends, Problem, Report, Target, TlsVerdict, on_the_wire};
use crate::{
    config::ProbeLimits,
    net::{
        dial::{DialError, Dialer, Fresh},
        leg::{Encrypted, Leg, LegError, LegState, Plaintext},
        proxy,
        tls_client::{Refused, TlsError},
    },
    routing::{
        Tables,
        feed::{self, BoxFuture},
    },
    shutdown::Shutdown,
};

/// Asks all destinations of the routing configuration in force.
pub struct Prober {
    backends: Backends,
    dialer: Arc<Dialer>,
    group: String,
    /// What our listeners speak.
    protocols: Vec<ProtocolKind>,
    pace: ProbeLimits,
    random: Random,
    asked: Mutex<BTreeMap<Target, Asked>>,
}

impl feed::Prober for Arc<Prober> {
    fn probe(&self, destination: Option<DestinationId>) -> BoxFuture<'static, Vec<EndpointHealth>> {
        let prober = Self::clone(self);
        Box::pin(async move { Prober::probe(&prober, destination.as_ref()).await })
    }
}

/// A target that is asked again and again.
struct Asked {
    kind: ProtocolKind,
    /// `None`: the destination has no endpoint for the protocol and our group.
    endpoint: Option<Endpoint>,
    /// Ends the asking.
    stop: CancellationToken,
}

/// What a prober needs beside the servers.
pub struct ProberSettings {
    /// Chooses endpoints.
    pub group: String,
    /// What our listeners speak.
    pub protocols: Vec<ProtocolKind>,
    /// How often to ask.
    pub pace: ProbeLimits,
}

impl Prober {
    /// A prober that writes its verdicts into `backends`.
    pub fn new(
        settings: ProberSettings,
        backends: Backends,
        dialer: Arc<Dialer>,
        random: Random,
    ) -> Self {
        Self {
            backends,
            dialer,
            group: settings.group,
            protocols: settings.protocols,
            pace: settings.pace,
            random,
            asked: Mutex::default(),
        }
    }

    /// Follows the routing configuration and asks what it names, until the process stops.
    pub async fn run(self: Arc<Self>, tables: Tables, shutdown: Shutdown) {
        let stop = shutdown.draining().clone();
        let following = async {
            let mut changes = tables.watch();
            let mut followed: Option<Arc<RoutingConfig>> = None;
            loop {
                changes.mark_unchanged();
                let config = tables.current().map(|table| Arc::clone(table.config()));
                if let Some(config) = config
                    && !followed.as_ref().is_some_and(|old| Arc::ptr_eq(old, &config))
                {
                    self.retarget(&config, &shutdown);
                    followed = Some(config);
                }
                // The sender lives as long as `tables`.
                _ = changes.changed().await;
            }
        };
        _ = stop.run_until_cancelled(following).await;
    }

    /// Asks now, whatever the pace: one destination or all. Returns what is known afterwards.
    pub async fn probe(&self, destination: Option<&DestinationId>) -> Vec<EndpointHealth> {
        let wanted = |target: &Target| destination.is_none_or(|id| *id == target.destination);
        let targets: Vec<_> = {
            let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = asked.iter().filter(|(target, _)| wanted(target));
            asked
                .map(|(target, asked)| (target.clone(), asked.kind, asked.endpoint.clone()))
                .collect()
        };
        join_all(targets.iter().map(|(target, kind, endpoint)| {
            self.ask(target, *kind, endpoint.as_ref())
        }))
        .await;
        let known = self.backends.endpoints();
        let wanted = |known: &&EndpointHealth| {
            destination.is_none_or(|id| id.as_str() == known.destination)
        };
        known.iter().filter(wanted).cloned().collect()
    }

    /// Begins with what is new, goes on with what is unchanged, ends what is gone.
    fn retarget(self: &Arc<Self>, config: &RoutingConfig, shutdown: &Shutdown) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *asked);
        let mut begun = Vec::new();
        for (id, destination) in config.destinations() {
            for &kind in &self.protocols {
                let protocol = on_the_wire(kind);
                let target = Target {
                    destination: id.clone(),
                    protocol,
                };
                let endpoint = destination.endpoint(protocol, &self.group).cloned();
                match old.remove(&target) {
                    Some(same) if same.endpoint == endpoint => {
                        asked.insert(target, same);
                        continue;
                    }
                    Some(changed) => changed.stop.cancel(),
                    None => {}
                }
                let stop = shutdown.draining().child_token();
                begun.push((target.clone(), kind, endpoint.clone(), stop.clone()));
                let fresh = Asked {
                    kind,
                    endpoint,
                    stop,
                };
                asked.insert(target, fresh);
            }
        }
        for (_, gone) in old {
            gone.stop.cancel();
        }
        self.backends.retarget(asked.keys().cloned());
        for (target, kind, endpoint, stop) in begun {
            let prober = Arc::clone(self);
            shutdown.spawn(async move {
                let asking = prober.keep_asking(&target, kind, endpoint.as_ref());
                _ = stop.run_until_cancelled(asking).await;
            });
        }
    }

    async fn keep_asking(&self, target: &Target, kind: ProtocolKind, endpoint: Option<&Endpoint>) {
        loop {
            let pause = match self.ask(target, kind, endpoint).await {
                None => self.pace.interval,
                Some(_) => self.pace.retry,
            };
            // A fleet that was started at one moment does not ask at one moment for ever.
            sleep(pause.mul_f64(0.9 + self.random.fraction() / 5.0)).await;
        }
    }

    /// Asks once and takes note of the answer.
    async fn ask(
        &self,
        target: &Target,
        kind: ProtocolKind,
        endpoint: Option<&Endpoint>,
    ) -> Option<Problem> {
        let report = match (endpoint, kind) {
            (None, _) => Report::without_endpoint(),
            (Some(endpoint), ProtocolKind::Imap) => visit::<Imap>(&self.dialer, endpoint).await,
        };
        let problem = report.problem;
        self.backends.record(target, report);
        problem
    }
}

/// Visits an endpoint and tells what was found there.
pub async fn visit<P: LineProtocol>(dialer: &Dialer, endpoint: &Endpoint) -> Report {
    let mut report = Report {
        endpoint: format!("{}:{}", endpoint.host, endpoint.port),
        address: None,
        tls: TlsVerdict::Unknown,
        greeting: String::new(),
        capabilities: None,
        problem: None,
    };
    report.problem = Visit {
        dialer,
        endpoint,
        report: &mut report,
    }
    .make::<P>()
    .await
    .err();
    report
}

impl Report {
    fn without_endpoint() -> Self {
        Self {
            endpoint: String::new(),
            address: None,
            tls: TlsVerdict::Unknown,
            greeting: String::new(),
            capabilities: None,
            problem: Some(Problem::NoEndpoint),
        }
    }
}

/// A visit under way. The report is filled in as far as the visit gets.
struct Visit<'a> {
    dialer: &'a Dialer,
    endpoint: &'a Endpoint,
    report: &'a mut Report,
}

impl Visit<'_> {
    async fn make<P: LineProtocol>(&mut self) -> Result<(), Problem> {
        let leg = self.connect().await?;
        let limits = self.dialer.limits();
        let channel = match leg {
            Fresh::Clear(_) => Channel::Clear,
            Fresh::Tls(_) | Fresh::Consented(_) => Channel::Secure,
        };
        let mut back = P::back(BackSettings {
            channel,
            announce: None,
            limits: limits.back,
        });
        let talked = timeout(limits.negotiate, self.talk(&mut back, leg)).await;
        back.greeting().clone_into(&mut self.report.greeting);
        talked.map_err(|_| Problem::Timeout)??;
        let offered = back.offered().ok_or(Problem::NoCapabilities)?;
        self.report.capabilities = Some(offered.clone());
        match self.endpoint.protocol {
            v1::Protocol::Imap => fit_for_imap(offered, self.endpoint.announcement),
            _ => Ok(()),
        }
    }

    async fn connect(&mut self) -> Result<Fresh, Problem> {
        let addresses = self.dialer.resolve(self.endpoint).await.map_err(|e| problem(&e))?;
        let preface = match self.endpoint.announcement {
            Announcement::ProxyV2 => proxy::local(),
            Announcement::None | Announcement::ImapId => Vec::new(),
        };
        let dialled = self.dialer.dial(self.endpoint, &addresses, &preface).await;
        match dialled {
            Ok(dialled) => {
                self.report.address = Some(dialled.address);
                if let Some(facts) = dialled.tls {
                    self.secured(&facts);
                }
                Ok(dialled.leg)
            }
            Err(failure) => {
                self.report.address = failure.address;
                if let DialError::Tls(TlsError::Certificate(_)) = failure.error {
                    self.report.tls = TlsVerdict::Refused;
                }
                Err(problem(&failure.error))
            }
        }
    }

    /// Talks until the server could be given a login, and leaves.
    async fn talk<B: Negotiate>(&mut self, back: &mut B, leg: Fresh) -> Result<(), Problem> {
        match leg {
            Fresh::Clear(mut leg) => {
                let StepDone::StartTls = pump(&mut leg, back).await? else {
                    return Err(Problem::NoStartTls);
                };
                let mut leg = self.upgrade(leg).await?;
                back.secured();
                finish(&mut leg, back).await
            }
            Fresh::Tls(mut leg) => finish(&mut leg, back).await,
            Fresh::Consented(mut leg) => {
                self.report.tls = TlsVerdict::Plaintext;
                finish(&mut leg, back).await
            }
        }
    }

    async fn upgrade(
        &mut self,
        leg: Leg<Plaintext>,
    ) -> Result<Leg<Encrypted>, Problem> {
        let Some(verification) = verification(self.endpoint) else {
            return Err(Problem::NoStartTls);
        };
        let connecting = self.dialer.tls().connect(leg, verification);
        let connected = timeout(self.dialer.limits().handshake, connecting).await;
        match connected.map_err(|_| Problem::Timeout)? {
            Ok((leg, facts)) => {
                self.secured(&facts);
                Ok(leg)
            }
            Err(error) => {
                if let TlsError::Certificate(_) = error {
                    self.report.tls = TlsVerdict::Refused;
                }
                Err(tls_problem(&error))
            }
        }
    }

    fn secured(&mut self, facts: &TlsFacts) {
        let trust = match verification(self.endpoint).map(|verification| &verification.trust) {
            Some(Trust::Platform) | None => "platform",
            Some(Trust::Ca(_)) => "ca",
            Some(Trust::PinSha256(_)) => "pin",
        };
        self.report.tls = TlsVerdict::Verified {
            trust,
            version: facts.version,
            cipher: facts.cipher,
        };
    }
}

enum StepDone {
    StartTls,
    Ready,
}

/// Lets the machine talk until it wants something else.
async fn pump<S: LegState, B: Negotiate>(
    leg: &mut Leg<S>,
    back: &mut B,
) -> Result<StepDone, Problem> {
    let mut out = Vec::new();
    loop {
        let step = back.step(leg.buffer(), &mut out).map_err(violation)?;
        if !out.is_empty() {
            leg.write_public(&out).await.map_err(|error| broken(&error))?;
            out.clear();
        }
        match step {
            NegotiateStep::NeedMore => leg.fill().await.map_err(|error| broken(&error))?,
            NegotiateStep::StartTls => return Ok(StepDone::StartTls),
            NegotiateStep::Ready => return Ok(StepDone::Ready),
        }
    }
}

async fn finish<S: LegState, B: Negotiate>(leg: &mut Leg<S>, back: &mut B) -> Result<(), Problem> {
    let StepDone::Ready = pump(leg, back).await? else {
        return Err(Problem::BadReply);
    };
    let mut farewell = Vec::new();
    back.leave(&mut farewell);
    // Manners only: what we came for is known.
    if leg.write_public(&farewell).await.is_ok() {
        _ = leg.finish().await;
    }
    Ok(())
}

fn verification(endpoint: &Endpoint) -> Option<&Verification> {
    match &endpoint.tls {
        EndpointTls::Implicit(verification) | EndpointTls::StartTls(verification) => {
            Some(verification)
        }
        EndpointTls::PlaintextByConsent(_) => None,
    }
}

/// Whether sessions can be relayed to an IMAP server that offers this.
fn fit_for_imap(offered: &Capabilities, announcement: Announcement) -> Result<(), Problem> {
    let mechanism = offered.has("AUTH=PLAIN") || offered.has("AUTH=LOGIN");
    if !mechanism && offered.has("LOGINDISABLED") {
        return Err(Problem::NoLogin);
    }
    if announcement == Announcement::ImapId && !offered.has("ID") {
        return Err(Problem::NoAnnouncement);
    }
    if offered.has("UNAUTHENTICATE") && offered.has("COMPRESS=DEFLATE") {
        return Err(Problem::ReloginUnderCompression);
    }
    Ok(())
}

fn problem(error: &DialError) -> Problem {
    match error {
        DialError::Resolve(_) => Problem::Unresolved,
        DialError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Problem::Refused
        }
        DialError::Connect(_) | DialError::Io(_) => Problem::Unreachable,
        DialError::ConnectTimeout | DialError::HandshakeTimeout => Problem::Timeout,
        DialError::Tls(error) => tls_problem(error),
    }
}

fn tls_problem(error: &TlsError) -> Problem {
    match error {
        TlsError::Injected(_) => Problem::Injected,
        TlsError::Certificate(refused) => match refused {
            Refused::PinMismatch => Problem::TlsPinMismatch,
            Refused::WrongName => Problem::TlsWrongName,
            Refused::Expired | Refused::NotYetValid => Problem::TlsNotInTime,
            Refused::UnknownIssuer | Refused::Other => Problem::TlsUntrusted,
        },
        TlsError::ServerName | TlsError::Roots(_) | TlsError::Handshake(_) | TlsError::Io(_) => {
            Problem::TlsFailed
        }
    }
}

fn broken(error: &LegError) -> Problem {
    match error {
        LegError::Full => Problem::BadReply,
        LegError::Ended | LegError::Io(_) => Problem::Unreachable,
    }
}

fn violation(violation: BackendViolation) -> Problem {
    match violation {
        BackendViolation::Bye => Problem::Bye,
        BackendViolation::Preauthenticated => Problem::Preauthenticated,
        BackendViolation::ForeignGreeting => Problem::BadGreeting,
        BackendViolation::StartTlsMissing | BackendViolation::StartTlsRefused => Problem::NoStartTls,
        BackendViolation::AnnounceMissing | BackendViolation::AnnounceRefused => {
            Problem::NoAnnouncement
        }
        BackendViolation::CapabilitiesMissing => Problem::NoCapabilities,
        BackendViolation::NoMechanism => Problem::NoLogin,
        BackendViolation::LoginNotUnderstood
        | BackendViolation::Malformed
        | BackendViolation::ReplyTooLong
        | BackendViolation::NotReady => Problem::BadReply,
    }
}
