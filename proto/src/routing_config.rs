//! The routing configuration as both planes use it: checked once, every mistake reported with its
//! place, and from then on valid by type.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use crate::{
    BareNames, DestinationId, DomainName, Name, NamePolicy,
    v1::{self, endpoint_tls::Mode},
};

/// The version of the document that this code understands.
pub const SCHEMA: u32 = 1;

/// A valid routing configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingConfig {
    names: NamePolicy,
    default_destination: DestinationId,
    domains: HashMap<DomainName, Unlisted>,
    destinations: BTreeMap<DestinationId, Destination>,
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
    Refused(Refusal),
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

/// Why a name goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its domain is not configured.
    #[error("the domain is not configured")]
    UnknownDomain,
    /// Its domain refuses names without a record.
    #[error("the domain refuses names that have no record")]
    Unlisted,
    /// Bare names are not names of their own under this policy.
    #[error("bare names are not served")]
    BareName,
}

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    endpoints: Vec<Endpoint>,
}

impl Destination {
    /// The endpoint for a protocol, as a data plane of `group` reaches it: the one for its group, else
    /// the one for every group.
    pub fn endpoint(&self, protocol: v1::Protocol, group: &str) -> Option<&Endpoint> {
        let of = |wanted: Option<&str>| {
            self.endpoints
                .iter()
                .find(|e| e.protocol == protocol && e.group.as_deref() == wanted)
        };
        of(Some(group)).or_else(|| of(None))
    }

    /// All endpoints.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
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
    PinSha256([u8; 32]),
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

impl RoutingConfig {
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
                    UnlistedRoute::Refused(Refusal::BareName)
                }
            };
        };
        // A `Name`'s domain is canonical, so parsing it gives it back.
        match DomainName::parse(domain)
            .ok()
            .and_then(|domain| self.domains.get(&domain))
        {
            None => UnlistedRoute::Refused(Refusal::UnknownDomain),
            Some(Unlisted::Refuse) => UnlistedRoute::Refused(Refusal::Unlisted),
            Some(Unlisted::Default) => UnlistedRoute::Default(self.default_destination.clone()),
            Some(Unlisted::Destination(id)) => UnlistedRoute::DomainDefault(id.clone()),
        }
    }

    /// What an operator should know about a valid document: legs in clear.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for (id, destination) in &self.destinations {
            for endpoint in &destination.endpoints {
                if matches!(endpoint.tls, EndpointTls::PlaintextByConsent(_)) {
                    warnings.push(format!(
                        "{id}: passwords cross the {} connection to {}:{} unencrypted",
                        endpoint
                            .protocol
                            .as_str_name()
                            .trim_start_matches("PROTOCOL_"),
                        endpoint.host,
                        endpoint.port,
                    ));
                }
            }
        }
        warnings
    }
}

impl TryFrom<&v1::RoutingConfig> for RoutingConfig {
    type Error = Problems;

    fn try_from(wire: &v1::RoutingConfig) -> Result<Self, Problems> {
        Checker::default().check(wire)
    }
}

/// Collects mistakes while it walks the document.
#[derive(Default)]
struct Checker {
    problems: Vec<Problem>,
}

impl Checker {
    fn wrong(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            place: place.into(),
            message: message.into(),
        });
    }

    fn check(mut self, wire: &v1::RoutingConfig) -> Result<RoutingConfig, Problems> {
        if wire.schema != SCHEMA {
            self.wrong("schema", format!("must be {SCHEMA}, is {}", wire.schema));
        }
        let destinations = self.destinations(&wire.destinations);
        let known: BTreeSet<&str> = destinations.keys().map(DestinationId::as_str).collect();
        let default_destination =
            self.known_destination("default_destination", &wire.default_destination, &known);
        let domains = self.domains(&wire.domains, &known);
        let names = self.names(wire.names.as_ref(), &domains);
        match (names, default_destination) {
            (Some(names), Some(default_destination)) if self.problems.is_empty() => {
                Ok(RoutingConfig {
                    names,
                    default_destination,
                    domains,
                    destinations,
                })
            }
            _ => Err(Problems(self.problems)),
        }
    }

    fn known_destination(
        &mut self,
        place: &str,
        id: &str,
        known: &BTreeSet<&str>,
    ) -> Option<DestinationId> {
        if known.contains(id) {
            return DestinationId::parse(id).ok();
        }
        let have: Vec<_> = known.iter().copied().collect();
        self.wrong(
            place,
            format!("\"{id}\" is no destination; there are: {}", have.join(", ")),
        );
        None
    }

    fn names(
        &mut self,
        wire: Option<&v1::NamePolicy>,
        domains: &HashMap<DomainName, Unlisted>,
    ) -> Option<NamePolicy> {
        use v1::name_policy::BareNames as Wire;
        let Some(wire) = wire else {
            self.wrong(
                "names",
                "missing; say at least what a login without a domain means",
            );
            return None;
        };
        let bare_names = match &wire.bare_names {
            None => {
                self.wrong(
                    "names.bare_names",
                    "say one of default_domain, listed, refuse",
                );
                None
            }
            Some(Wire::Listed(_)) => Some(BareNames::Listed),
            Some(Wire::Refuse(_)) => Some(BareNames::Refuse),
            Some(Wire::DefaultDomain(domain)) => match DomainName::parse(domain) {
                Ok(domain) if domains.contains_key(&domain) => {
                    Some(BareNames::DefaultDomain(domain))
                }
                _ => {
                    self.wrong(
                        "names.default_domain",
                        format!("\"{domain}\" is not one of the configured domains"),
                    );
                    None
                }
            },
        };
        let separators: Vec<char> = wire.master_separators.chars().collect();
        for &c in &separators {
            self.separator("names.master_separators", c);
        }
        let mut sub = wire.sub_address_separator.chars();
        let sub_address_separator = sub.next();
        if let Some(c) = sub_address_separator {
            self.separator("names.sub_address_separator", c);
            if sub.next().is_some() {
                self.wrong("names.sub_address_separator", "must be one character");
            }
            if separators.contains(&c) {
                self.wrong("names.sub_address_separator", "is a master separator too");
            }
        }
        Some(NamePolicy {
            bare_names: bare_names?,
            master_separators: separators,
            sub_address_separator,
            local_part_case_sensitive: wire.local_part_case_sensitive,
        })
    }

    fn separator(&mut self, place: &str, c: char) {
        if !c.is_ascii_punctuation() || matches!(c, '@' | '.') {
            self.wrong(
                place,
                format!("{c:?} cannot separate: use ASCII punctuation, not @ or ."),
            );
        }
    }

    fn domains(
        &mut self,
        wire: &[v1::Domain],
        known: &BTreeSet<&str>,
    ) -> HashMap<DomainName, Unlisted> {
        use v1::domain::Unlisted as Wire;
        let mut domains = HashMap::new();
        for (n, domain) in wire.iter().enumerate() {
            let place = format!("domains[{n}]");
            let unlisted = match &domain.unlisted {
                None => Some(Unlisted::Default),
                Some(Wire::Refuse(_)) => Some(Unlisted::Refuse),
                Some(Wire::Destination(id)) => self
                    .known_destination(&format!("{place}.destination"), id, known)
                    .map(Unlisted::Destination),
            };
            match DomainName::parse(&domain.name) {
                Err(_) => self.wrong(
                    format!("{place}.name"),
                    format!("\"{}\" is not a domain", domain.name),
                ),
                Ok(name) => {
                    let known_twice = domains
                        .insert(name, unlisted.unwrap_or(Unlisted::Refuse))
                        .is_some();
                    if known_twice {
                        self.wrong(format!("{place}.name"), "is there twice");
                    }
                }
            }
        }
        domains
    }

    fn destinations(&mut self, wire: &[v1::Destination]) -> BTreeMap<DestinationId, Destination> {
        let mut destinations = BTreeMap::new();
        if wire.is_empty() {
            self.wrong("destinations", "there must be at least one");
        }
        for (n, destination) in wire.iter().enumerate() {
            let place = format!("destinations[{n}]");
            let endpoints = self.endpoints(&place, &destination.endpoints);
            match DestinationId::parse(&destination.id) {
                Err(_) => self.wrong(
                    format!("{place}.id"),
                    "must be 1 to 63 of a-z, 0-9 and hyphen, starting with a letter",
                ),
                Ok(id) => {
                    if destinations.insert(id, Destination { endpoints }).is_some() {
                        self.wrong(format!("{place}.id"), "is there twice");
                    }
                }
            }
        }
        destinations
    }

    fn endpoints(&mut self, place: &str, wire: &[v1::Endpoint]) -> Vec<Endpoint> {
        if wire.is_empty() {
            self.wrong(format!("{place}.endpoints"), "there must be at least one");
        }
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        for (n, endpoint) in wire.iter().enumerate() {
            let place = format!("{place}.endpoints[{n}]");
            let group = endpoint.when.as_ref().map(|when| when.group.clone());
            if !seen.insert((endpoint.protocol, group)) {
                self.wrong(&place, "another endpoint has the same protocol and group");
            }
            endpoints.extend(self.endpoint(&place, endpoint));
        }
        endpoints
    }

    fn endpoint(&mut self, place: &str, wire: &v1::Endpoint) -> Option<Endpoint> {
        let before = self.problems.len();
        let protocol = v1::Protocol::try_from(wire.protocol)
            .ok()
            .filter(|protocol| *protocol != v1::Protocol::Unspecified);
        if protocol.is_none() {
            self.wrong(
                format!("{place}.protocol"),
                "say which protocol is spoken there",
            );
        }
        let group = wire.when.as_ref().map(|when| when.group.clone());
        if group.as_deref() == Some("") {
            self.wrong(
                format!("{place}.when.group"),
                "is empty; leave `when` out for every group",
            );
        }
        if wire.host.is_empty()
            || wire
                .host
                .chars()
                .any(|c| c.is_control() || c.is_whitespace())
        {
            self.wrong(format!("{place}.host"), "must be a host name or an address");
        }
        let port = u16::try_from(wire.port).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.wrong(format!("{place}.port"), "must be 1 to 65535");
        }
        let tls = self.tls(&format!("{place}.tls"), wire);
        let announcement = self.announcement(&format!("{place}.announcement"), wire, protocol);
        self.capabilities(&format!("{place}.capabilities"), &wire.capabilities);
        if self.problems.len() > before {
            return None;
        }
        Some(Endpoint {
            protocol: protocol?,
            group,
            host: wire.host.clone(),
            port: port?,
            tls: tls?,
            announcement: announcement?,
            capabilities: (!wire.capabilities.is_empty()).then(|| wire.capabilities.clone()),
        })
    }

    fn tls(&mut self, place: &str, endpoint: &v1::Endpoint) -> Option<EndpointTls> {
        let Some(wire) = &endpoint.tls else {
            self.wrong(place, "missing; say mode implicit, starttls or none");
            return None;
        };
        let verified = wire.verification.is_some() || !wire.server_name.is_empty();
        match wire.mode() {
            Mode::Unspecified => {
                self.wrong(format!("{place}.mode"), "say implicit, starttls or none");
                None
            }
            Mode::None if !wire.plaintext_consent => {
                self.wrong(
                    format!("{place}.plaintext_consent"),
                    "without TLS passwords cross this leg in clear; set it to true if that is \
                     really meant",
                );
                None
            }
            Mode::None if verified => {
                self.wrong(place, "without TLS there is no certificate to verify");
                None
            }
            Mode::None => Some(EndpointTls::PlaintextByConsent(PlaintextConsent(()))),
            Mode::Implicit | Mode::Starttls if wire.plaintext_consent => {
                self.wrong(
                    format!("{place}.plaintext_consent"),
                    "goes with mode none only",
                );
                None
            }
            Mode::Implicit => self
                .verification(place, endpoint, wire)
                .map(EndpointTls::Implicit),
            Mode::Starttls => self
                .verification(place, endpoint, wire)
                .map(EndpointTls::StartTls),
        }
    }

    fn verification(
        &mut self,
        place: &str,
        endpoint: &v1::Endpoint,
        wire: &v1::EndpointTls,
    ) -> Option<Verification> {
        use v1::endpoint_tls::Verification as Wire;
        let trust = match &wire.verification {
            None => Trust::Platform,
            Some(Wire::CaPem(pem)) if pem.contains("-----BEGIN CERTIFICATE-----") => {
                Trust::Ca(pem.clone())
            }
            Some(Wire::CaPem(_)) => {
                self.wrong(
                    format!("{place}.ca_pem"),
                    "holds no certificate in PEM form",
                );
                return None;
            }
            Some(Wire::PinSha256(hex)) => {
                let Some(pin) = parse_pin(hex) else {
                    self.wrong(
                        format!("{place}.pin_sha256"),
                        "must be the certificate's SHA-256 as 64 hex digits (colons may stand \
                         between bytes)",
                    );
                    return None;
                };
                Trust::PinSha256(pin)
            }
        };
        let server_name = if wire.server_name.is_empty() {
            &endpoint.host
        } else {
            &wire.server_name
        };
        Some(Verification {
            trust,
            server_name: server_name.clone(),
        })
    }

    fn announcement(
        &mut self,
        place: &str,
        wire: &v1::Endpoint,
        protocol: Option<v1::Protocol>,
    ) -> Option<Announcement> {
        match wire.announcement() {
            v1::Announcement::Unspecified => {
                self.wrong(place, "say none, proxy_v2 or imap_id");
                None
            }
            v1::Announcement::None => Some(Announcement::None),
            v1::Announcement::ProxyV2 => Some(Announcement::ProxyV2),
            v1::Announcement::ImapId if protocol == Some(v1::Protocol::Imap) => {
                Some(Announcement::ImapId)
            }
            v1::Announcement::ImapId => {
                self.wrong(place, "imap_id goes with protocol imap only");
                None
            }
        }
    }

    /// Capabilities are written into greetings, so only atoms pass (RFC 9051 §9, `capability`). COMPRESS
    /// beside UNAUTHENTICATE would let a session change its user out of the follower's sight.
    fn capabilities(&mut self, place: &str, wire: &[String]) {
        for capability in wire {
            let atom = !capability.is_empty()
                && capability.bytes().all(|b| {
                    b.is_ascii_graphic()
                        && !matches!(b, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
                });
            if !atom {
                self.wrong(place, format!("{capability:?} is no capability"));
            }
        }
        let has = |word: &str| wire.iter().any(|c| c.eq_ignore_ascii_case(word));
        if has("COMPRESS=DEFLATE") && has("UNAUTHENTICATE") {
            self.wrong(
                place,
                "a server that offers COMPRESS and UNAUTHENTICATE cannot be relayed",
            );
        }
    }
}

fn parse_pin(hex: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = hex.bytes().filter(|b| *b != b':').collect();
    let mut pin = [0; 32];
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in pin.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(pin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> v1::Endpoint {
        v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: "old.example.org".into(),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: Mode::Implicit.into(),
                ..Default::default()
            }),
            announcement: v1::Announcement::ImapId.into(),
            ..Default::default()
        }
    }

    fn document() -> v1::RoutingConfig {
        let destination = |id: &str| v1::Destination {
            id: id.into(),
            endpoints: vec![endpoint()],
        };
        v1::RoutingConfig {
            schema: SCHEMA,
            destinations: vec![destination("source"), destination("target")],
            default_destination: "source".into(),
            domains: vec![
                v1::Domain {
                    name: "Example.org".into(),
                    unlisted: None,
                },
                v1::Domain {
                    name: "new.example".into(),
                    unlisted: Some(v1::domain::Unlisted::Destination("target".into())),
                },
                v1::Domain {
                    name: "closed.example".into(),
                    unlisted: Some(v1::domain::Unlisted::Refuse(v1::UnlistedRefuse {})),
                },
            ],
            names: Some(v1::NamePolicy {
                bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
                ..Default::default()
            }),
        }
    }

    fn problems(document: &v1::RoutingConfig) -> Vec<String> {
        RoutingConfig::try_from(document)
            .expect_err("a mistake")
            .0
            .into_iter()
            .map(|problem| problem.place)
            .collect()
    }

    #[test]
    fn unlisted_names_follow_their_domain() {
        let config = RoutingConfig::try_from(&document()).expect("valid");
        let route =
            |login: &str| config.unlisted(&config.names().canonicalise(login).expect("a name"));
        let id = |id| DestinationId::parse(id).expect("an id");
        assert_eq!(route("a@example.org"), UnlistedRoute::Default(id("source")));
        assert_eq!(
            route("a@new.example"),
            UnlistedRoute::DomainDefault(id("target"))
        );
        assert_eq!(
            route("a@closed.example"),
            UnlistedRoute::Refused(Refusal::Unlisted)
        );
        assert_eq!(
            route("a@anything.example"),
            UnlistedRoute::Refused(Refusal::UnknownDomain)
        );
        assert_eq!(route("a"), UnlistedRoute::Default(id("source")));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_place() {
        let mut bad = document();
        bad.schema = 9;
        bad.default_destination = "nowhere".into();
        bad.names = None;
        bad.domains[1].name = "-".into();
        bad.destinations[1].id = "source".into();
        bad.destinations[0].endpoints[0].port = 70_000;
        bad.destinations[0].endpoints[0].tls = None;
        let mut places = problems(&bad);
        places.sort();
        assert_eq!(
            places,
            [
                "default_destination",
                "destinations[0].endpoints[0].port",
                "destinations[0].endpoints[0].tls",
                "destinations[1].id",
                "domains[1].destination",
                "domains[1].name",
                "names",
                "schema",
            ]
        );
    }

    #[test]
    fn plaintext_needs_consent_and_warns() {
        let mut plain = document();
        let tls = |consent| {
            Some(v1::EndpointTls {
                mode: Mode::None.into(),
                plaintext_consent: consent,
                ..Default::default()
            })
        };
        plain.destinations[0].endpoints[0].tls = tls(false);
        assert_eq!(
            problems(&plain),
            ["destinations[0].endpoints[0].tls.plaintext_consent"]
        );
        plain.destinations[0].endpoints[0].tls = tls(true);
        let config = RoutingConfig::try_from(&plain).expect("valid");
        assert_eq!(config.warnings().len(), 1);
    }

    #[test]
    fn endpoints_are_chosen_by_group() {
        let mut grouped = document();
        let mut own = endpoint();
        own.when = Some(v1::Condition {
            group: "source".into(),
        });
        own.host = "127.0.0.1".into();
        grouped.destinations[0].endpoints.push(own);
        let config = RoutingConfig::try_from(&grouped).expect("valid");
        let source = config.destination(&DestinationId::parse("source").expect("an id"));
        let host = |group: &str| {
            source
                .and_then(|source| source.endpoint(v1::Protocol::Imap, group))
                .map(|endpoint| endpoint.host.as_str())
        };
        assert_eq!(host("source"), Some("127.0.0.1"));
        assert_eq!(host("edge"), Some("old.example.org"));
        grouped.destinations[0].endpoints.push(endpoint());
        assert_eq!(problems(&grouped), ["destinations[0].endpoints[2]"]);
    }

    #[test]
    fn pins_are_read_with_and_without_colons() {
        assert_eq!(parse_pin(&"ab".repeat(32)), Some([0xab; 32]));
        assert_eq!(parse_pin(&vec!["AB"; 32].join(":")), Some([0xab; 32]));
        for bad in ["", "ab", &"zz".repeat(32), &"+a".repeat(32)] {
            assert_eq!(parse_pin(bad), None);
        }
    }

    #[test]
    fn compress_beside_unauthenticate_is_refused() {
        let mut bad = document();
        bad.destinations[0].endpoints[0].capabilities = vec![
            "IMAP4rev1".into(),
            "COMPRESS=DEFLATE".into(),
            "UNAUTHENTICATE".into(),
        ];
        assert_eq!(
            problems(&bad),
            ["destinations[0].endpoints[0].capabilities"]
        );
    }
}
