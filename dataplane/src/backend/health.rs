//! Asks every destination how it is: as a login would, up to the point where a secret would be sent.
//!
//! Connect, PROXY header (as `LOCAL`: nobody is announced), TLS with its verification, greeting,
//! capabilities after TLS, goodbye.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferrypost_http::target::Host;
use ferrypost_proto::{
    AuthorizationIdentity, DestinationId, Endpoint, EndpointTls, RoutingConfig, Trust,
    routing::v1::EndpointHealth, v1::Protocol,
};
use ferrypost_runtime::{Random, shutdown::Shutdown};
use ferrypost_wire::{
    BackSettings, BackendViolation, LineProtocol, Negotiate, Open, ProtocolKind, TlsFacts,
    dispatch, lmtp::LmtpOpening,
};
use futures_util::future::join_all;
use rustls::AlertDescription;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Backends, Caution, Offered, ProbeReport, Problem, Target, TlsVerdict,
    breaker::Breakers,
    dialers::Dialers,
    jmap, on_the_wire,
    open::{Caller, OpenError, Opened, open},
    second_look::about_the_header,
    stranger, web,
};
use crate::{
    limits::ProbeLimits,
    net::{
        dial::{DialError, Dialer},
        leg::LegError,
        tls_client::{CertificateRefused, TlsError},
    },
    tables::Tables,
};

/// Time for the goodbye of a probe.
const MANNERS: Duration = Duration::from_secs(1);

/// Asks all destinations of the routing configuration in force.
pub struct Prober {
    backends: Backends,
    dialers: Arc<Dialers>,
    group: String,
    /// What our listeners speak.
    protocols: Vec<Spoken>,
    /// Where mail systems are passed through to.
    pass_throughs: BTreeSet<DestinationId>,
    pace: ProbeLimits,
    breakers: Breakers,
    random: Random,
    asked: Mutex<BTreeMap<Target, Asked>>,
    /// The first host that the rules for HTTP name in full.
    public: Mutex<Option<Host>>,
}

/// What a server is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// A protocol that clients log in with.
    Line(ProtocolKind),
    /// LMTP: what mail systems deliver by.
    Lmtp,
    /// SMTP: the same where the first recipient chooses the server.
    Smtp,
    /// HTTP.
    Http,
}

impl Spoken {
    /// The contract's name for it.
    pub fn on_the_wire(self) -> Protocol {
        match self {
            Self::Line(kind) => on_the_wire(kind),
            Self::Lmtp => Protocol::Lmtp,
            Self::Smtp => Protocol::Smtp,
            Self::Http => Protocol::Http,
        }
    }
}

/// A target that is asked again and again.
struct Asked {
    how: Question,
    /// `None`: the destination has no endpoint for the protocol and our group.
    endpoint: Option<Endpoint>,
    /// Ends the asking.
    stop: CancellationToken,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// What somebody meets who logs in, or delivers.
    Spoken(Spoken),
    /// What somebody meets who is passed through.
    Stranger,
}

/// When to ask again.
enum Next {
    /// [`ProbeLimits::interval`]
    Later,
    /// [`ProbeLimits::retry`]
    Soon,
}

/// What a prober needs beside the servers.
pub struct ProberSettings {
    /// Chooses endpoints.
    pub group: String,
    /// What our listeners speak.
    pub protocols: Vec<Spoken>,
    /// Where mail systems are passed through to.
    pub pass_throughs: BTreeSet<DestinationId>,
    /// How often to ask.
    pub pace: ProbeLimits,
    /// Where logins fail whatever a probe finds.
    pub breakers: Breakers,
}

impl Prober {
    /// A prober that writes its verdicts into `backends`.
    pub fn new(
        settings: ProberSettings,
        backends: Backends,
        dialers: Arc<Dialers>,
        random: Random,
    ) -> Self {
        Self {
            backends,
            dialers,
            group: settings.group,
            protocols: settings.protocols,
            pass_throughs: settings.pass_throughs,
            pace: settings.pace,
            breakers: settings.breakers,
            random,
            asked: Mutex::default(),
            public: Mutex::default(),
        }
    }

    /// Follows the routing configuration and asks what it names, in tasks of `shutdown`. Never returns.
    pub async fn run(self: Arc<Self>, tables: Tables, shutdown: Shutdown) {
        let mut changes = tables.watch();
        let mut followed: Option<Arc<RoutingConfig>> = None;
        loop {
            changes.mark_unchanged();
            let config = tables.current().map(|table| Arc::clone(table.config()));
            if let Some(config) = config
                && !followed
                    .as_ref()
                    .is_some_and(|old| Arc::ptr_eq(old, &config))
            {
                self.retarget(&config, &shutdown);
                followed = Some(config);
            }
            // The sender lives as long as `tables`.
            _ = changes.changed().await;
        }
    }

    /// Asks now, whatever the pace: one destination or all. Returns what is known afterwards.
    pub async fn probe(&self, destination: Option<&DestinationId>) -> Vec<EndpointHealth> {
        let wanted = |target: &Target| destination.is_none_or(|id| *id == target.destination);
        let targets: Vec<_> = {
            let asked = lock(&self.asked);
            let asked = asked.iter().filter(|(target, _)| wanted(target));
            asked
                .map(|(target, asked)| (target.clone(), asked.how, asked.endpoint.clone()))
                .collect()
        };
        join_all(targets.iter().map(|(target, how, endpoint)| async move {
            let endpoint = endpoint.as_ref();
            self.ask(target, *how, endpoint, &mut None).await
        }))
        .await;
        let known = self.backends.endpoints();
        let wanted =
            |known: &&EndpointHealth| destination.is_none_or(|id| id.as_str() == known.destination);
        known.iter().filter(wanted).cloned().collect()
    }

    /// Begins with what is new, goes on with what is unchanged, ends what is gone.
    fn retarget(self: &Arc<Self>, config: &RoutingConfig, shutdown: &Shutdown) {
        *lock(&self.public) = public_host(config);
        let mut asked = lock(&self.asked);
        let mut old = std::mem::take(&mut *asked);
        let mut begun = Vec::new();
        for (target, how) in self.targets(config) {
            let destination = config.destination(&target.destination);
            let endpoint = destination.and_then(|it| it.endpoint(target.protocol, &self.group));
            match old.remove(&target) {
                Some(same) if same.endpoint.as_ref() == endpoint => {
                    asked.insert(target, same);
                    continue;
                }
                Some(changed) => changed.stop.cancel(),
                None => {}
            }
            let stop = shutdown.stopping().child_token();
            begun.push((target.clone(), how, endpoint.cloned(), stop.clone()));
            let fresh = Asked {
                how,
                endpoint: endpoint.cloned(),
                stop,
            };
            asked.insert(target, fresh);
        }
        for (_, gone) in old {
            gone.stop.cancel();
        }
        self.backends.retarget(asked.keys().cloned());
        for (target, how, endpoint, stop) in begun {
            let prober = Arc::clone(self);
            shutdown.spawn(async move {
                let asking = prober.keep_asking(&target, how, endpoint.as_ref());
                _ = stop.run_until_cancelled(asking).await;
            });
        }
    }

    /// Everything that there is to know something about. What a destination is without on purpose is nothing that could
    /// be reached there.
    fn targets(&self, config: &RoutingConfig) -> BTreeMap<Target, Question> {
        let mut targets = BTreeMap::new();
        for (id, destination) in config.destinations() {
            let asked = self.protocols.iter();
            let asked = asked.filter(|kind| !destination.is_without(kind.on_the_wire()));
            targets.extend(asked.map(|&kind| {
                let target = Target {
                    destination: id.clone(),
                    protocol: kind.on_the_wire(),
                };
                (target, Question::Spoken(kind))
            }));
        }
        // In place of whatever else is asked there, and whether there is such a destination or not: that there is none is
        // something to know.
        targets.extend(self.pass_throughs.iter().map(|id| {
            let target = Target {
                destination: id.clone(),
                protocol: Protocol::Smtp,
            };
            (target, Question::Stranger)
        }));
        targets
    }

    async fn keep_asking(&self, target: &Target, how: Question, endpoint: Option<&Endpoint>) {
        let mut jmap = None;
        loop {
            let pause = match self.ask(target, how, endpoint, &mut jmap).await {
                Next::Later => self.pace.interval,
                Next::Soon => self.pace.retry,
            };
            // A fleet that was started at one moment does not ask at one moment for ever.
            sleep(pause.mul_f64(0.9 + self.random.fraction() / 5.0)).await;
        }
    }

    /// Asks once and takes note of the answer. Says when to ask again.
    async fn ask(
        &self,
        target: &Target,
        how: Question,
        endpoint: Option<&Endpoint>,
        jmap: &mut Option<JmapSeen>,
    ) -> Next {
        let mut report = match endpoint {
            None => ProbeReport::without_endpoint(),
            Some(endpoint) => {
                let dialer = self.dialers.of(target);
                match how {
                    Question::Spoken(Spoken::Line(kind)) => {
                        dispatch!(kind, P => visit::<P>(dialer, endpoint).await)
                    }
                    Question::Spoken(Spoken::Lmtp) => {
                        visit_for_mail(dialer, endpoint, LmtpOpening::new).await
                    }
                    Question::Spoken(Spoken::Smtp) => {
                        visit_for_mail(dialer, endpoint, LmtpOpening::smtp).await
                    }
                    Question::Spoken(Spoken::Http) => {
                        let mut report = web::visit(dialer, endpoint).await;
                        if report.problem.is_none() {
                            report.caution = self.jmap(dialer, endpoint, jmap).await;
                        }
                        report
                    }
                    Question::Stranger => stranger::visit(dialer, endpoint).await,
                }
            }
        };
        if self.breakers.open_since(target).is_some() {
            report.caution = Some(Caution::BreakerOpen);
        }
        let well = report.problem.is_none();
        let doubt = self.backends.record(target, report);
        if well && !doubt {
            Next::Later
        } else {
            Next::Soon
        }
    }

    /// What there is to know of where it leads JMAP's clients.
    async fn jmap(
        &self,
        dialer: &Dialer,
        endpoint: &Endpoint,
        seen: &mut Option<JmapSeen>,
    ) -> Option<Caution> {
        let public = lock(&self.public).clone()?;
        if !seen.as_ref().is_some_and(|seen| seen.is_fresh(&public)) {
            *seen = Some(JmapSeen {
                elsewhere: jmap::leads_elsewhere(dialer, endpoint, &public).await,
                public,
                at: Instant::now(),
            });
        }
        let elsewhere = seen.as_ref().is_some_and(|seen| seen.elsewhere);
        elsewhere.then_some(Caution::JmapElsewhere)
    }
}

/// How long what was seen of a server's JMAP is taken for true: it is a page more to ask for, and the server's
/// configuration, which seldom changes.
const JMAP_PAUSE: Duration = Duration::from_mins(10);

/// What was seen of a server's JMAP.
struct JmapSeen {
    /// Of whom it was looked whether its URLs are there.
    public: Host,
    elsewhere: bool,
    at: Instant,
}

impl JmapSeen {
    fn is_fresh(&self, public: &Host) -> bool {
        self.public == *public && self.at.elapsed() < JMAP_PAUSE
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn public_host(config: &RoutingConfig) -> Option<Host> {
    let mut hosts = config.http_rules()?.hosts();
    hosts.find_map(|host| Host::parse(host.as_bytes()).ok())
}

/// Visits an endpoint and tells what was found there.
pub async fn visit<P: LineProtocol>(dialer: &Dialer, endpoint: &Endpoint) -> ProbeReport {
    look(dialer, endpoint, P::back, |back, report| {
        let offered = Negotiate::offered(back);
        let announced = endpoint.announcement.is_in_protocol();
        report.capabilities = offered.map(Offered::of);
        let fit = P::fit(offered, announced);
        report.problem = fit.err().map(violation_problem);
        report.caution = caution::<P>(endpoint, back);
    })
    .await
}

/// The same of one that takes messages.
async fn visit_for_mail(
    dialer: &Dialer,
    endpoint: &Endpoint,
    machine: fn(BackSettings) -> LmtpOpening,
) -> ProbeReport {
    look(dialer, endpoint, machine, |opening, report| {
        report.capabilities = opening.offered().map(Offered::of);
        let unread = endpoint.announcement.is_in_protocol() && !opening.takes_announcements();
        report.caution = unread.then_some(Caution::AnnouncementUnread);
    })
    .await
}

/// Opens a connection, notes what is `seen` there, and leaves.
async fn look<B: Open>(
    dialer: &Dialer,
    endpoint: &Endpoint,
    machine: fn(BackSettings) -> B,
    seen: impl FnOnce(&B, &mut ProbeReport),
) -> ProbeReport {
    let mut report = ProbeReport::of(endpoint);
    match open(dialer, endpoint, Caller::Probe, machine).await {
        Ok(opened) => {
            report.address = Some(opened.address);
            report.tls = protection(endpoint, opened.tls.as_ref(), opened.leg.certificate_end());
            opened.back.greeting().clone_into(&mut report.greeting);
            seen(&opened.back, &mut report);
            leave(opened).await;
        }
        Err(failure) => {
            report.address = failure.address;
            report.tls = certificate_verdict(&failure.error)
                .unwrap_or_else(|| protection(endpoint, failure.tls.as_ref(), None));
            let header = about_the_header(dialer, endpoint, (&failure, machine)).await;
            report.problem = Some(header.unwrap_or_else(|| problem(&failure.error)));
            report.greeting = failure.greeting;
        }
    }
    report
}

/// What is seen of a server that its endpoint says otherwise, the worst first.
fn caution<P: LineProtocol>(endpoint: &Endpoint, back: &P::Back) -> Option<Caution> {
    let honoured = endpoint.authorization_identity == AuthorizationIdentity::Honoured;
    if honoured && P::ignores_authorization(back) {
        return Some(Caution::AuthorizationIgnored);
    }
    Caution::of_announcement::<P>(endpoint.announcement, back)
}

/// Says goodbye. Manners only: what we came for is known.
pub(super) async fn leave<B: Open>(mut opened: Opened<B>) {
    let mut farewell = Vec::new();
    opened.back.leave(&mut farewell);
    let leaving = async {
        if opened.leg.write_public(&farewell).await.is_ok() {
            _ = opened.leg.finish().await;
        }
    };
    _ = timeout(MANNERS, leaving).await;
}

impl ProbeReport {
    fn blank() -> Self {
        Self {
            endpoint: String::new(),
            address: None,
            tls: TlsVerdict::Unknown,
            greeting: String::new(),
            capabilities: None,
            problem: None,
            caution: None,
        }
    }

    /// Nothing is known of it yet.
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: format!("{}:{}", endpoint.host, endpoint.port),
            ..Self::blank()
        }
    }

    fn without_endpoint() -> Self {
        Self {
            problem: Some(Problem::NoEndpoint),
            ..Self::blank()
        }
    }
}

pub(super) fn protection(
    endpoint: &Endpoint,
    facts: Option<&TlsFacts>,
    certificate_end: Option<i64>,
) -> TlsVerdict {
    let trust = match &endpoint.tls {
        EndpointTls::PlaintextByConsent(_) => return TlsVerdict::Plaintext,
        EndpointTls::Implicit(verification) | EndpointTls::StartTls(verification) => {
            match verification.trust {
                Trust::Platform => "platform",
                Trust::Ca(_) => "ca",
                Trust::PinSha256 { .. } => "pin",
            }
        }
    };
    facts.map_or(TlsVerdict::Unknown, |facts| TlsVerdict::Verified {
        trust,
        version: facts.version,
        cipher: facts.cipher,
        certificate_end,
    })
}

/// The verdict on a certificate that was refused.
pub(super) fn certificate_verdict(error: &OpenError) -> Option<TlsVerdict> {
    let refused = matches!(
        error,
        OpenError::Tls(TlsError::Certificate(_))
            | OpenError::Dial(DialError::Tls(TlsError::Certificate(_)))
    );
    refused.then_some(TlsVerdict::Refused)
}

pub(super) fn problem(error: &OpenError) -> Problem {
    match error {
        OpenError::Dial(error) => dial_problem(error),
        OpenError::Violation(violation) => violation_problem(*violation),
        // Nobody was announced, so it is we who were turned away.
        OpenError::Refused(_) => Problem::Bye,
        OpenError::Leg(LegError::Full) => Problem::BadReply,
        OpenError::Leg(LegError::Io(error)) if wants_another_certificate(error) => {
            Problem::ClientCertificate
        }
        OpenError::Leg(LegError::Ended | LegError::Io(_)) => Problem::Unreachable,
        OpenError::Tls(error) => tls_problem(error),
        OpenError::Timeout => Problem::Timeout,
    }
}

pub(super) fn dial_problem(error: &DialError) -> Problem {
    match error {
        DialError::Resolve(_) => Problem::Unresolved,
        DialError::Ourselves => Problem::Loop,
        DialError::Source { .. } => Problem::SourceAddress,
        DialError::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Problem::Refused
        }
        DialError::Connect(_) | DialError::Io(_) => Problem::Unreachable,
        DialError::ConnectTimeout | DialError::HandshakeTimeout => Problem::Timeout,
        DialError::Tls(error) => tls_problem(error),
        DialError::NoHttp2 => Problem::BadReply,
    }
}

fn tls_problem(error: &TlsError) -> Problem {
    match error {
        TlsError::Injected(_) => Problem::Injected,
        TlsError::Certificate(refused) => match refused {
            CertificateRefused::PinMismatch => Problem::TlsPinMismatch,
            CertificateRefused::WrongName => Problem::TlsWrongName,
            CertificateRefused::Expired | CertificateRefused::NotYetValid => Problem::TlsNotInTime,
            CertificateRefused::UnknownIssuer | CertificateRefused::Other => Problem::TlsUntrusted,
        },
        TlsError::Handshake(error) if is_about_our_certificate(error) => Problem::ClientCertificate,
        TlsError::Handshake(error) if nothing_in_common(error) => Problem::TlsTooOld,
        TlsError::ServerName | TlsError::Roots(_) | TlsError::Handshake(_) | TlsError::Io(_) => {
            Problem::TlsFailed
        }
    }
}

/// Whether a server ends the connection over our certificate, or the want of it. Under TLS 1.3 it judges that when the
/// handshake is over for us.
fn wants_another_certificate(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    tls.is_some_and(is_about_our_certificate)
}

fn is_about_our_certificate(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                // An authority of the right name and another key.
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied
        )
    )
}

/// Whether one side has no TLS version, cipher suite or key exchange that the other has.
fn nothing_in_common(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(
                AlertDescription::ProtocolVersion
                    | AlertDescription::HandshakeFailure
                    | AlertDescription::InsufficientSecurity
            )
    )
}

fn violation_problem(violation: BackendViolation) -> Problem {
    match violation {
        BackendViolation::Bye => Problem::Bye,
        BackendViolation::Preauthenticated => Problem::Preauthenticated,
        BackendViolation::ForeignGreeting => Problem::BadGreeting,
        BackendViolation::StartTlsMissing | BackendViolation::StartTlsRefused => {
            Problem::NoStartTls
        }
        BackendViolation::AnnounceMissing | BackendViolation::AnnounceRefused => {
            Problem::NoAnnouncement
        }
        BackendViolation::PrefaceRefused => Problem::ProxyUnexpected,
        BackendViolation::CapabilitiesMissing => Problem::NoCapabilities,
        BackendViolation::NoMechanism => Problem::NoLogin,
        BackendViolation::LoginNotUnderstood
        | BackendViolation::Malformed
        | BackendViolation::ReplyTooLong
        | BackendViolation::NotReady => Problem::BadReply,
    }
}
