//! The routing configuration as both planes use it: checked once, every mistake reported with its
//! place, and from then on valid by type.

mod check;
mod http;
mod mail;
mod second_names;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use ferrypost_http::rules::Rules;

use crate::{BareNames, DestinationId, DomainName, Name, NamePolicy, Speaks, Versions, v1};

pub use http::{HttpTerms, HttpVersions};
pub use mail::{Acceptance, MailSplit};
pub use second_names::AuthorizationIdentity;

/// The versions of the document that this code reads.
///
/// 2: the certificate that is to follow a pinned one; a server that ignores authorization identities. 3: rules for HTTP,
/// and what is spoken there. What a reader of an older version would get wrong by passing it over raises the version
/// that a document needs ([`RoutingConfig::schema`]).
pub const SCHEMAS: Versions = Versions::new(1, 3);

/// A valid routing configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingConfig {
    schema: u32,
    names: NamePolicy,
    default_destination: DestinationId,
    domains: HashMap<DomainName, Unlisted>,
    destinations: BTreeMap<DestinationId, Destination>,
    mail_split: MailSplit,
    http_rules: Option<Rules>,
}

/// What becomes of the names of a domain that have no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisted {
    /// The installation's default destination.
    Default,
    /// This destination.
    Destination(DestinationId),
    /// Refused.
    Refuse,
}

/// Where a name without a record goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnlistedRoute {
    /// The domain's own default destination.
    DomainDefault(DestinationId),
    /// The installation's default destination.
    Default(DestinationId),
    /// Nowhere.
    Refused(NoRoute),
}

impl UnlistedRoute {
    /// The destination, if there is one.
    pub fn destination(&self) -> Option<&DestinationId> {
        match self {
            Self::DomainDefault(id) | Self::Default(id) => Some(id),
            Self::Refused(_) => None,
        }
    }
}

/// Why a name, or whoever else is to be routed, goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Its domain is not configured.
    #[error("the domain is not configured")]
    UnknownDomain,
    /// Its domain refuses names without a record.
    #[error("the domain refuses names that have no record")]
    Unlisted,
    /// Bare names are not names of their own under this policy.
    #[error("bare names are not served")]
    BareName,
    /// A server was asked for by its id, and there is none.
    #[error("the destination is not configured")]
    UnknownDestination,
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    endpoints: Vec<Endpoint>,
    disabled: Vec<DisabledEndpoint>,
    without: Vec<i32>,
}

/// An endpoint that says something that this version does not know, so that nothing may be sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisabledEndpoint {
    /// What is spoken there, as it came: it may be what is not known.
    pub protocol: i32,
    /// As in [`Endpoint`].
    pub group: Option<String>,
    /// What is not known, as `tls.mode`; `http.rules` on every endpoint for HTTP, if it is in a rule.
    pub field: &'static str,
}

impl Destination {
    /// The endpoint for a protocol, as a data plane of `group` reaches it: the one for its group, else
    /// the one for every group. None if that one is disabled: another one is another way.
    pub fn endpoint(&self, protocol: v1::Protocol, group: &str) -> Option<&Endpoint> {
        let of = |wanted: Option<&str>| {
            self.endpoints
                .iter()
                .find(|e| e.protocol == protocol && e.group.as_deref() == wanted)
        };
        let disabled = self
            .disabled
            .iter()
            .any(|e| e.protocol == i32::from(protocol) && e.group.as_deref() == Some(group));
        of(Some(group)).or_else(|| of(None).filter(|_| !disabled))
    }

    /// The disabled endpoints that a data plane of `group` would use.
    pub fn disabled(&self, group: &str) -> impl Iterator<Item = &DisabledEndpoint> {
        self.disabled
            .iter()
            .filter(move |disabled| match &disabled.group {
                Some(of) => of == group,
                None => !self.has_own(disabled.protocol, group),
            })
    }

    /// Whether `group` has an endpoint of its own for a protocol.
    fn has_own(&self, protocol: i32, group: &str) -> bool {
        let usable = self
            .endpoints
            .iter()
            .map(|e| (i32::from(e.protocol), &e.group));
        let disabled = self.disabled.iter().map(|e| (e.protocol, &e.group));
        usable
            .chain(disabled)
            .any(|(spoken, of)| spoken == protocol && of.as_deref() == Some(group))
    }

    /// All endpoints.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Whether it lacks a protocol on purpose.
    pub fn is_without(&self, protocol: v1::Protocol) -> bool {
        self.without.contains(&protocol.into())
    }
}

/// One way to reach a destination.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// What is spoken there.
    pub protocol: v1::Protocol,
    /// `None`: for every group without an endpoint of its own.
    pub group: Option<String>,
    /// A host name or an address.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: EndpointTls,
    /// How the client's address is made known.
    pub announcement: Announcement,
    /// Overrides the probe's capability list. `None`: the probe decides.
    pub capabilities: Option<Vec<String>>,
    /// Whose session a login with two names becomes there.
    pub authorization_identity: AuthorizationIdentity,
    /// Where the server itself parts a user from a master user.
    pub master_separators: Vec<char>,
    /// What its 250 to a message says.
    pub acceptance: Acceptance,
    /// What is spoken there, if that is HTTP.
    pub http: HttpTerms,
}

/// How a connection to an endpoint is encrypted.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointTls {
    /// From the first byte.
    Implicit(Verification),
    /// By the protocol's upgrade command.
    StartTls(Verification),
    /// Not at all; the operator has consented to credentials in clear.
    PlaintextByConsent(PlaintextConsent),
}

/// The operator's word that credentials may cross one leg in clear. Made by validation alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaintextConsent(());

/// How a server's certificate is checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    /// Who vouches for it.
    pub trust: Trust,
    /// The name to verify and to send as SNI.
    pub server_name: String,
}

/// Who vouches for a certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum Trust {
    /// The platform's roots.
    Platform,
    /// These certificates, in PEM.
    Ca(String),
    /// Nobody: it is this very certificate.
    PinSha256 {
        /// Its digest.
        pin: [u8; 32],
        /// The digest of the one that is to follow it, which is taken as well.
        next: Option<[u8; 32]>,
    },
}

/// How the client's address is made known to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// Not at all.
    None,
    /// PROXY protocol version 2.
    ProxyV2,
    /// IMAP ID.
    ImapId,
    /// XCLIENT, as Postfix and Dovecot have it.
    Xclient,
    /// The header field `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For` and its companions.
    XForwarded,
}

impl Announcement {
    /// As logs write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ProxyV2 => "proxy_v2",
            Self::ImapId => "imap_id",
            Self::Xclient => "xclient",
            Self::Forwarded => "forwarded",
            Self::XForwarded => "x_forwarded",
        }
    }

    /// Whether it is made in the words of the endpoint's own protocol.
    pub const fn is_in_protocol(self) -> bool {
        match self {
            Self::None | Self::ProxyV2 => false,
            Self::ImapId | Self::Xclient | Self::Forwarded | Self::XForwarded => true,
        }
    }
}

/// One mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as `destinations[1].endpoints[0].port`.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Every mistake in a document, never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// A document of a version that is not read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the routing configuration needs schema {needs}, and {reads} is read here")]
pub struct UnreadableSchema {
    /// The version that the document needs.
    pub needs: u32,
    /// The versions that are read here.
    pub reads: Versions,
}

impl RoutingConfig {
    /// Reads a document as it is in force, which another version may have written. An endpoint with a
    /// value that is not known here is disabled; whatever else is wrong is a mistake.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn in_force(wire: &v1::RoutingConfig) -> Result<Self, Problems> {
        check::in_force(wire)
    }

    /// Whether this process reads documents like this one.
    ///
    /// # Errors
    /// When it does not.
    pub fn expect_readable(wire: &v1::RoutingConfig) -> Result<(), UnreadableSchema> {
        let reads = Speaks::here().schemas;
        if reads.contains(wire.schema) {
            return Ok(());
        }
        Err(UnreadableSchema {
            needs: wire.schema,
            reads,
        })
    }

    /// The oldest version of the document that has all that this one uses: what its readers must read.
    pub const fn schema(&self) -> u32 {
        self.schema
    }

    /// How a login becomes a name.
    pub fn names(&self) -> &NamePolicy {
        &self.names
    }

    /// The installation's default destination.
    pub fn default_destination(&self) -> &DestinationId {
        &self.default_destination
    }

    /// The domains that are served.
    pub fn domains(&self) -> &HashMap<DomainName, Unlisted> {
        &self.domains
    }

    /// The servers, by id.
    pub fn destinations(&self) -> &BTreeMap<DestinationId, Destination> {
        &self.destinations
    }

    /// One server.
    pub fn destination(&self, id: &DestinationId) -> Option<&Destination> {
        self.destinations.get(id)
    }

    /// Where a name goes that has no record. A configured fact, never the outcome of a failed look-up.
    pub fn unlisted(&self, name: &Name) -> UnlistedRoute {
        let Some(domain) = name.domain() else {
            return match self.names.bare_names {
                BareNames::Listed => UnlistedRoute::Default(self.default_destination.clone()),
                BareNames::DefaultDomain(_) | BareNames::Refuse => {
                    UnlistedRoute::Refused(NoRoute::BareName)
                }
            };
        };
        // A `Name`'s domain is canonical, so parsing it gives it back.
        match DomainName::parse(domain) {
            Ok(domain) => self.unlisted_in(&domain),
            Err(_) => UnlistedRoute::Refused(NoRoute::UnknownDomain),
        }
    }

    /// Where a name of this domain goes that has no record.
    pub fn unlisted_in(&self, domain: &DomainName) -> UnlistedRoute {
        match self.domains.get(domain) {
            None => UnlistedRoute::Refused(NoRoute::UnknownDomain),
            Some(Unlisted::Refuse) => UnlistedRoute::Refused(NoRoute::Unlisted),
            Some(Unlisted::Default) => UnlistedRoute::Default(self.default_destination.clone()),
            Some(Unlisted::Destination(id)) => UnlistedRoute::DomainDefault(id.clone()),
        }
    }

    /// What an operator should know about a valid document: legs in clear, separators that a server is not said to
    /// know, and HTTP that nobody is let through to.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = self.http_without_rules().into_iter().collect();
        for (id, destination) in &self.destinations {
            for endpoint in &destination.endpoints {
                let (protocol, host, port) =
                    (endpoint.protocol.word(), &endpoint.host, endpoint.port);
                if matches!(endpoint.tls, EndpointTls::PlaintextByConsent(_)) {
                    let what = match endpoint.protocol {
                        v1::Protocol::Lmtp | v1::Protocol::Smtp => "messages",
                        _ => "passwords",
                    };
                    warnings.push(format!(
                        "{id}: {what} cross the {protocol} connection to {host}:{port} unencrypted",
                    ));
                }
                let refused = self.refused_separators(endpoint);
                if !refused.is_empty() {
                    warnings.push(format!(
                        "{id}: master users' logins with {refused} are refused at the {protocol} endpoint \
                         {host}:{port}, which is not said to know it (master_separators)",
                    ));
                }
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
