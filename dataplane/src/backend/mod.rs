//! What is known of the servers behind us, by asking them.
//!
//! ```text
//!   dialers  who dials which server
//!   open     from an endpoint to a server that may be given a login
//!   health   asks every destination, for each protocol, again and again ──▶ verdicts
//!   web      the same of web servers
//!   stranger asks as somebody unknown would, where mail systems are passed through
//!   (here)   the verdicts in force: for `/stats`, for the control plane, for the offer
//!   logins   how real logins have fared there ──▶ `/stats`
//!   breaker  where one client after the other fails, the next one is told so at once
//!   offer    what all of them can do: what clients are offered before login
//! ```
//!
//! A verdict never changes where anybody goes nor whether this data plane is ready: a login to a server
//! that is away gets a temporary error, and a dead server must not take every data plane down with it.

pub mod breaker;
pub mod dialers;
pub mod health;
mod jmap;
pub mod logins;
pub mod offer;
mod offered;
pub mod open;
mod second_look;
pub mod stranger;
#[cfg(test)]
mod tests;
mod web;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ferrypost_proto::{Announcement, DestinationId, routing::v1::EndpointHealth, v1};
use ferrypost_wire::{LineProtocol, ProtocolKind};
use tokio::{sync::watch, time::Instant};

pub use offered::Offered;

/// One thing to know something about: a destination, for one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The server.
    pub destination: DestinationId,
    /// What is spoken with it.
    pub protocol: v1::Protocol,
}

/// What is known of a [`Target`].
#[derive(Debug, Clone)]
pub struct TargetHealth {
    /// When it was last asked.
    pub checked: Instant,
    /// When it last answered as it should.
    pub last_success: Option<Instant>,
    /// What the last probe found.
    pub report: ProbeReport,
    /// What it offers after TLS and before login: what one of its last two answers named, so that one that is
    /// short by accident takes nothing away. Kept while it is down.
    pub capabilities: Option<Offered>,
    /// The last answer by itself.
    said: Option<Offered>,
}

impl TargetHealth {
    /// What is known now that a probe has found this.
    fn after(old: Option<&Self>, report: ProbeReport) -> Self {
        let now = Instant::now();
        let before = old.and_then(|old| old.said.as_ref());
        let (capabilities, said) = match &report.capabilities {
            Some(said) => (
                Some(before.map_or_else(|| said.clone(), |before| said.and(before))),
                Some(said.clone()),
            ),
            None => (
                old.and_then(|old| old.capabilities.clone()),
                before.cloned(),
            ),
        };
        Self {
            checked: now,
            last_success: match report.problem {
                None => Some(now),
                Some(_) => old.and_then(|old| old.last_success),
            },
            capabilities,
            said,
            report,
        }
    }

    /// Whether sessions can be relayed there, as far as a probe can tell.
    pub fn reachable(&self) -> bool {
        self.report.problem.is_none()
    }

    /// Why not; empty when reachable.
    pub fn word(&self) -> &'static str {
        self.report.problem.map_or("", Problem::word)
    }

    /// What was seen there, as the control plane is told it.
    fn facts(&self) -> v1::ServerFacts {
        let tls = &self.report.tls;
        let mut facts = v1::ServerFacts {
            tls: tls.word().to_owned(),
            greeting: self.report.greeting.clone(),
            capabilities: self
                .capabilities
                .as_ref()
                .map_or_else(Vec::new, |it| it.items().to_vec()),
            ..v1::ServerFacts::default()
        };
        if let TlsVerdict::Verified {
            trust,
            version,
            certificate_end,
            ..
        } = *tls
        {
            trust.clone_into(&mut facts.trust);
            version.clone_into(&mut facts.tls_version);
            facts.certificate_not_after =
                certificate_end.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
        }
        facts
    }

    /// Why not; when reachable, what there is to know all the same.
    fn told(&self) -> &'static str {
        let caution = self.report.caution.map_or("", Caution::word);
        self.report.problem.map_or(caution, Problem::word)
    }
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// The endpoint as configured, `host:port`; empty when there is none for the protocol.
    pub endpoint: String,
    /// The address that answered.
    pub address: Option<SocketAddr>,
    /// How the leg is protected.
    pub tls: TlsVerdict,
    /// The greeting, printable and shortened.
    pub greeting: String,
    /// What it offers after TLS and before login.
    pub capabilities: Option<Offered>,
    /// Why sessions cannot be relayed there.
    pub problem: Option<Problem>,
    /// What to know of it although they are.
    pub caution: Option<Caution>,
}

/// What an operator should know of a server that sessions are relayed to all the same: a closed set of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caution {
    /// One client's login after the other has failed there by the server's fault, so that its breaker is open: logins
    /// get a temporary error, and one is tried now and then.
    BreakerOpen,
    /// Clients are to be announced to it in its protocol's own words, and it is seen not to read them from us: it
    /// does not take our connection for one of a trusted network, or never reads them. It takes our address for
    /// every client's.
    AnnouncementUnread,
    /// Its endpoint says that it honours authorization identities, and it is seen to be a server that ignores
    /// them. Logins with two names are refused.
    AuthorizationIgnored,
    /// Its JMAP session resource leads clients to another host than the one that they came by, or to one without TLS.
    JmapElsewhere,
}

impl Caution {
    /// What is seen of how a server takes the announcement of clients that its endpoint says.
    pub(crate) fn of_announcement<P: LineProtocol>(
        announcement: Announcement,
        back: &P::Back,
    ) -> Option<Self> {
        let unread = announcement.is_in_protocol() && P::ignores_announcements(back);
        unread.then_some(Self::AnnouncementUnread)
    }

    /// As `/stats`, the log and the control plane say it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::AnnouncementUnread => "announcement_unread",
            Self::AuthorizationIgnored => "authorization_ignored",
            Self::JmapElsewhere => "jmap_elsewhere",
        }
    }
}

/// How the leg to a server is protected, as a probe saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsVerdict {
    /// The probe did not get so far.
    Unknown,
    /// The certificate was verified.
    Verified {
        /// By what: `platform`, `ca` or `pin`.
        trust: &'static str,
        /// As `TLSv1.3`.
        version: &'static str,
        /// The cipher suite.
        cipher: &'static str,
        /// When the certificate ends, in seconds since 1970, if that can be read.
        certificate_end: Option<i64>,
    },
    /// It was not; the problem says why.
    Refused,
    /// There is none, as the routing configuration wants it.
    Plaintext,
}

impl TlsVerdict {
    /// In one word, as `/stats` and the control plane say it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Verified { .. } => "verified",
            Self::Refused => "refused",
            Self::Plaintext => "plaintext",
        }
    }
}

/// Why sessions cannot be relayed to a server: a closed set of words, as `/stats` and the control plane
/// show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The routing configuration gives the destination no endpoint for the protocol and our group.
    NoEndpoint,
    /// The host name has no address.
    Unresolved,
    /// It is one of this data plane's own listeners.
    Loop,
    /// The address that connections are to come from is not this machine's.
    SourceAddress,
    /// Nothing listens there.
    Refused,
    /// The network has no way there, or the connection broke.
    Unreachable,
    /// No answer within the limits.
    Timeout,
    /// Nobody that is trusted vouches for the certificate.
    TlsUntrusted,
    /// The certificate is for other names.
    TlsWrongName,
    /// The certificate is expired or not valid yet.
    TlsNotInTime,
    /// It is not the pinned certificate.
    TlsPinMismatch,
    /// The server speaks no TLS version, cipher suite or key exchange that we do.
    TlsTooOld,
    /// The server wants a certificate of ours, or does not take the one that it is shown.
    ClientCertificate,
    /// The handshake failed for another reason.
    TlsFailed,
    /// The server wants a PROXY header, and none is configured.
    ProxyMissing,
    /// A PROXY header is configured, and the server expects none, or none from us.
    ProxyUnexpected,
    /// STARTTLS is demanded and not offered, or refused.
    NoStartTls,
    /// Something was injected around STARTTLS.
    Injected,
    /// The greeting is not of the protocol.
    BadGreeting,
    /// The server said goodbye.
    Bye,
    /// The server greeted us as logged in.
    Preauthenticated,
    /// It does not say what it offers.
    NoCapabilities,
    /// It does not take the announcement of clients that is configured for it.
    NoAnnouncement,
    /// It offers no way to log in that we can use.
    NoLogin,
    /// It said something that we do not understand.
    BadReply,
    /// Mail systems are passed through to it, and its endpoint is none for that.
    UnfitEndpoint,
    /// Mail systems are passed through to it, and it lets any of them say who somebody else is.
    BelievesStrangers,
}

impl Problem {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no_endpoint",
            Self::Unresolved => "unresolved",
            Self::Loop => "loop",
            Self::SourceAddress => "source_address",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::TlsUntrusted => "tls_untrusted",
            Self::TlsWrongName => "tls_wrong_name",
            Self::TlsNotInTime => "tls_not_in_time",
            Self::TlsPinMismatch => "tls_pin_mismatch",
            Self::TlsTooOld => "tls_too_old",
            Self::ClientCertificate => "client_certificate",
            Self::TlsFailed => "tls_failed",
            Self::ProxyMissing => "proxy_missing",
            Self::ProxyUnexpected => "proxy_unexpected",
            Self::NoStartTls => "no_starttls",
            Self::Injected => "injected",
            Self::BadGreeting => "bad_greeting",
            Self::Bye => "bye",
            Self::Preauthenticated => "preauthenticated",
            Self::NoCapabilities => "no_capabilities",
            Self::NoAnnouncement => "no_announcement",
            Self::NoLogin => "no_login",
            Self::BadReply => "bad_reply",
            Self::UnfitEndpoint => "unfit_endpoint",
            Self::BelievesStrangers => "believes_strangers",
        }
    }
}

/// The contract's name for a protocol: the one that is written like ours.
///
/// # Panics
/// Never: a test walks over all protocols.
pub fn on_the_wire(protocol: ProtocolKind) -> v1::Protocol {
    (1..)
        .map_while(|number| v1::Protocol::try_from(number).ok())
        .find(|named| named.word() == protocol.as_str())
        .expect("the contract knows every protocol that is spoken here")
}

/// The verdicts in force. Cheap to clone; clones share one state.
#[derive(Debug, Clone)]
pub struct Backends(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: not asked yet.
    known: Mutex<BTreeMap<Target, Option<TargetHealth>>>,
    /// Counts changes of what is known: not every probe, only those that found something new.
    changes: watch::Sender<u64>,
    /// What the control plane is told of it.
    endpoints: watch::Sender<Arc<[EndpointHealth]>>,
}

impl Default for Backends {
    fn default() -> Self {
        Self::new()
    }
}

impl Backends {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            known: Mutex::default(),
            changes: watch::Sender::default(),
            endpoints: watch::Sender::new(Arc::default()),
        }))
    }

    /// All targets, with what is known of them.
    pub fn all(&self) -> BTreeMap<Target, Option<TargetHealth>> {
        self.known().clone()
    }

    /// What is known of one target.
    pub fn verdict(&self, target: &Target) -> Option<TargetHealth> {
        self.known().get(target).cloned().flatten()
    }

    /// What the control plane is told: every target that has been asked.
    pub fn endpoints(&self) -> Arc<[EndpointHealth]> {
        Arc::clone(&self.0.endpoints.borrow())
    }

    /// Follows what the control plane is told.
    pub fn watch_endpoints(&self) -> watch::Receiver<Arc<[EndpointHealth]>> {
        self.0.endpoints.subscribe()
    }

    /// Follows changes: of the set of targets, of reachability, problems and capabilities.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// These are the targets now. What is known of those that stay is kept: a destination may change its
    /// address, not its identity.
    fn retarget(&self, targets: impl IntoIterator<Item = Target>) {
        let mut known = self.known();
        let mut old = std::mem::take(&mut *known);
        *known = targets
            .into_iter()
            .map(|target| {
                let verdict = old.remove(&target).flatten();
                (target, verdict)
            })
            .collect();
        self.changed(&known);
    }

    /// Takes note of a probe. One that found something new is logged here. Says whether it left a doubt that
    /// another look can settle: it named less than the one before.
    fn record(&self, target: &Target, report: ProbeReport) -> bool {
        let mut known = self.known();
        // A destination that was removed while it was being asked.
        let Some(slot) = known.get_mut(target) else {
            return false;
        };
        let old = slot.take();
        let new = TargetHealth::after(old.as_ref(), report);
        let news = old
            .as_ref()
            .is_none_or(|old| old.told() != new.told() || old.capabilities != new.capabilities);
        if news {
            log(target, old.as_ref(), &new);
        }
        let doubt = new.capabilities != new.said;
        // A certificate that was renewed is told, and nothing to log. A greeting that differs each time is no news.
        let is_told = news || old.is_none_or(|old| old.report.tls != new.report.tls);
        *slot = Some(new);
        if is_told {
            self.changed(&known);
        }
        doubt
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Target, Option<TargetHealth>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who follow. Under the lock, so that they are told in the order of the changes.
    fn changed(&self, known: &BTreeMap<Target, Option<TargetHealth>>) {
        let asked = known
            .iter()
            .filter_map(|(target, verdict)| Some((target, verdict.as_ref()?)));
        let endpoints: Arc<[EndpointHealth]> = asked
            .map(|(target, verdict)| EndpointHealth {
                destination: target.destination.to_string(),
                protocol: target.protocol.into(),
                reachable: verdict.reachable(),
                problem: verdict.told().to_owned(),
                facts: Some(verdict.facts()),
            })
            .collect();
        self.0.endpoints.send_if_modified(|told| {
            let news = **told != *endpoints;
            *told = endpoints;
            news
        });
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

fn log(target: &Target, old: Option<&TargetHealth>, new: &TargetHealth) {
    let report = &new.report;
    let destination = &target.destination;
    let protocol = target.protocol.word();
    let address = report.address.map(tracing::field::display);
    let endpoint = &report.endpoint;
    if let Some(problem) = report.problem {
        let problem = problem.word();
        tracing::error!(%destination, protocol, endpoint, address, problem, "destination not reachable");
    } else {
        let greeting = &report.greeting;
        let caution = report.caution.map(Caution::word);
        tracing::info!(%destination, protocol, endpoint, address, greeting, caution, "destination reachable");
    }
    let before = old.and_then(|old| old.capabilities.as_ref());
    if let (Some(before), Some(now)) = (before, &new.capabilities)
        && before != now
    {
        tracing::warn!(%destination, protocol, %before, %now, "the destination offers something else now");
    }
}
