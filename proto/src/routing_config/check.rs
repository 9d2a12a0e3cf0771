//! From the document on the wire to a valid one, with every mistake and its place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferrypost_http::rules::Rules;

use super::{
    Announcement, AuthorizationIdentity, Destination, DisabledEndpoint, Endpoint, EndpointTls,
    PlaintextConsent, Problem, Problems, RoutingConfig, Trust, Unlisted, Verification, http,
};
use crate::{
    BareNames, DestinationId, DomainName, NamePolicy, Speaks,
    v1::{self, endpoint_tls::Mode},
};

impl TryFrom<&v1::RoutingConfig> for RoutingConfig {
    type Error = Problems;

    fn try_from(wire: &v1::RoutingConfig) -> Result<Self, Problems> {
        Checker::default().check(wire)
    }
}

pub(super) fn in_force(wire: &v1::RoutingConfig) -> Result<RoutingConfig, Problems> {
    let checker = Checker {
        unknown_disables: true,
        ..Checker::default()
    };
    checker.check(wire)
}

/// Collects mistakes while it walks the document.
#[derive(Default)]
struct Checker {
    problems: Vec<Problem>,
    /// A value that is not known here disables its endpoint instead of being a mistake.
    unknown_disables: bool,
    /// Where a login is read as a user's and a master user's.
    separators: String,
}

impl Checker {
    fn wrong(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem {
            place: place.into(),
            message: message.into(),
        });
    }

    fn check(mut self, wire: &v1::RoutingConfig) -> Result<RoutingConfig, Problems> {
        let reads = Speaks::here().schemas;
        if !reads.contains(wire.schema) {
            self.wrong("schema", format!("must be {reads}, is {}", wire.schema));
        }
        let schema = needed(wire);
        if !reads.contains(schema) {
            self.wrong("schema", format!("{schema} is used, and {reads} is read"));
        }
        let separators = wire
            .names
            .as_ref()
            .map_or("", |names| names.master_separators.as_str());
        separators.clone_into(&mut self.separators);
        let mut destinations = self.destinations(&wire.destinations);
        let http_rules = self.http_rules(wire);
        if http_rules.is_none() {
            destinations.values_mut().for_each(http::disable);
        }
        let known: BTreeSet<&str> = destinations.keys().map(DestinationId::as_str).collect();
        let default_destination =
            self.known_destination("default_destination", &wire.default_destination, &known);
        let domains = self.domains(&wire.domains, &known);
        let names = self.names(wire.names.as_ref(), &domains);
        match (names, default_destination) {
            (Some(names), Some(default_destination)) if self.problems.is_empty() => {
                Ok(RoutingConfig {
                    schema,
                    names,
                    default_destination,
                    domains,
                    destinations,
                    mail_split: wire.mail_split().into(),
                    http_rules,
                })
            }
            _ => Err(Problems(self.problems)),
        }
    }

    /// The rules for HTTP requests; `None` if one of them cannot be read.
    fn http_rules(&mut self, wire: &v1::RoutingConfig) -> Option<Rules> {
        match http::rules(wire) {
            Ok(rules) => Some(rules),
            Err(problems) => {
                if !self.unknown_disables {
                    self.problems.extend(problems);
                }
                None
            }
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
            let read = self.destination(&place, destination);
            self.same_protocols(&place, destination, wire);
            match DestinationId::parse(&destination.id) {
                Err(_) => self.wrong(
                    format!("{place}.id"),
                    "must be 1 to 63 of a-z, 0-9 and hyphen, starting with a letter",
                ),
                Ok(id) => {
                    if destinations.insert(id, read).is_some() {
                        self.wrong(format!("{place}.id"), "is there twice");
                    }
                }
            }
        }
        destinations
    }

    fn destination(&mut self, place: &str, wire: &v1::Destination) -> Destination {
        if wire.endpoints.is_empty() {
            self.wrong(format!("{place}.endpoints"), "there must be at least one");
        }
        let mut seen = BTreeSet::new();
        let mut endpoints = Vec::new();
        let mut disabled = Vec::new();
        for (n, endpoint) in wire.endpoints.iter().enumerate() {
            let place = format!("{place}.endpoints[{n}]");
            let group = endpoint.when.as_ref().map(|when| when.group.clone());
            if !seen.insert((endpoint.protocol, group)) {
                self.wrong(&place, "another endpoint has the same protocol and group");
            }
            // What else such an endpoint says may mean something else there.
            match unknown_value(endpoint) {
                Some(unknown) if self.unknown_disables => disabled.push(unknown),
                None if self.unknown_disables && http::begins_in_clear(endpoint) => {
                    disabled.push(DisabledEndpoint::of(endpoint, "tls.mode"));
                }
                Some(unknown) => self.wrong(
                    format!("{place}.{}", unknown.field),
                    "is a value that this version does not know",
                ),
                None => endpoints.extend(self.endpoint(&place, endpoint)),
            }
        }
        Destination {
            endpoints,
            disabled,
            without: wire.without.clone(),
        }
    }

    /// What any destination speaks in a group, this one speaks there too, or says that it does not.
    fn same_protocols(&mut self, place: &str, this: &v1::Destination, all: &[v1::Destination]) {
        let mut missing = BTreeMap::new();
        for other in all {
            for (protocol, group) in other.endpoints.iter().map(spoken) {
                let served = this
                    .endpoints
                    .iter()
                    .map(spoken)
                    .any(|(own, of)| own == protocol && (of.is_none() || of == group));
                if !served && !this.without.contains(&protocol) {
                    missing.entry((protocol, group)).or_insert(&other.id);
                }
            }
        }
        for ((protocol, group), other) in missing {
            let Ok(protocol) = v1::Protocol::try_from(protocol) else {
                continue;
            };
            let group = group.map_or(String::new(), |group| format!(" for group \"{group}\""));
            self.wrong(
                format!("{place}.endpoints"),
                format!(
                    "no {} endpoint{group}, which \"{other}\" has: an account here could not use \
                     it. Add one, or list the protocol in `without`",
                    protocol.word()
                ),
            );
        }
        for protocol in &this.without {
            let spoken = this.endpoints.iter().any(|e| e.protocol == *protocol);
            if spoken || *protocol == v1::Protocol::Unspecified as i32 {
                self.wrong(
                    format!("{place}.without"),
                    "lists a protocol that has an endpoint, or none at all",
                );
            }
        }
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
        self.capabilities(&format!("{place}.capabilities"), wire);
        self.acceptance(&format!("{place}.acceptance"), wire);
        let http = match http::terms(wire) {
            Ok(terms) => Some(terms),
            Err((field, message)) => {
                self.wrong(format!("{place}.{field}"), message);
                None
            }
        };
        let master_separators = self.master_separators(
            &format!("{place}.master_separators"),
            &wire.master_separators,
        );
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
            authorization_identity: match wire.authorization_identity() {
                v1::AuthorizationIdentity::Unspecified => AuthorizationIdentity::NotKnown,
                v1::AuthorizationIdentity::Honoured => AuthorizationIdentity::Honoured,
                v1::AuthorizationIdentity::Ignored => AuthorizationIdentity::Ignored,
            },
            master_separators,
            acceptance: wire.acceptance().into(),
            http: http?,
        })
    }

    fn acceptance(&mut self, place: &str, wire: &v1::Endpoint) {
        let takes_messages = matches!(wire.protocol(), v1::Protocol::Lmtp | v1::Protocol::Smtp);
        if wire.acceptance != 0 && !takes_messages {
            self.wrong(
                place,
                "is for endpoints of lmtp and smtp: leave it out here",
            );
        }
    }

    /// A server that knows a separator which is not read as one here would log in the owner of another name.
    fn master_separators(&mut self, place: &str, wire: &str) -> Vec<char> {
        let separators: Vec<char> = wire.chars().collect();
        for c in &separators {
            if !self.separators.contains(*c) {
                let message = format!("{c:?} has to be in names.master_separators as well");
                self.wrong(place, message);
            }
        }
        separators
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
            Mode::None if verified || !wire.next_pin_sha256.is_empty() => {
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
            Mode::Starttls if http::begins_in_clear(endpoint) => {
                self.wrong(
                    format!("{place}.mode"),
                    "http has no command for that: say implicit or none",
                );
                None
            }
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
                let pin = self.pin(format!("{place}.pin_sha256"), hex);
                let next = match wire.next_pin_sha256.as_str() {
                    "" => None,
                    hex => Some(self.pin(format!("{place}.next_pin_sha256"), hex)?),
                };
                Trust::PinSha256 { pin: pin?, next }
            }
        };
        if !matches!(trust, Trust::PinSha256 { .. }) && !wire.next_pin_sha256.is_empty() {
            self.wrong(
                format!("{place}.next_pin_sha256"),
                "goes with pin_sha256, which it is to follow",
            );
        }
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

    fn pin(&mut self, place: String, hex: &str) -> Option<[u8; 32]> {
        let pin = parse_pin(hex);
        if pin.is_none() {
            self.wrong(
                place,
                "must be the certificate's SHA-256 as 64 hex digits (colons may stand between \
                 bytes)",
            );
        }
        pin
    }

    fn announcement(
        &mut self,
        place: &str,
        wire: &v1::Endpoint,
        protocol: Option<v1::Protocol>,
    ) -> Option<Announcement> {
        match wire.announcement() {
            v1::Announcement::Unspecified => {
                self.wrong(
                    place,
                    "say none, proxy_v2, imap_id, xclient, forwarded or x_forwarded",
                );
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
            v1::Announcement::Xclient if protocol.is_some_and(has_xclient) => {
                Some(Announcement::Xclient)
            }
            v1::Announcement::Xclient => {
                self.wrong(
                    place,
                    "xclient goes with protocol pop3, managesieve, submission, smtp or lmtp only",
                );
                None
            }
            v1::Announcement::Forwarded if protocol == Some(v1::Protocol::Http) => {
                Some(Announcement::Forwarded)
            }
            v1::Announcement::XForwarded if protocol == Some(v1::Protocol::Http) => {
                Some(Announcement::XForwarded)
            }
            v1::Announcement::Forwarded | v1::Announcement::XForwarded => {
                self.wrong(
                    place,
                    "forwarded and x_forwarded go with protocol http only",
                );
                None
            }
        }
    }

    /// Capabilities are written into what clients are told: in IMAP one is an atom in a greeting (RFC 9051 §9,
    /// `capability`), in other protocols a line.
    fn capabilities(&mut self, place: &str, wire: &v1::Endpoint) {
        let is_one = match wire.protocol() {
            v1::Protocol::Imap => is_capability_atom,
            _ => is_capability_line,
        };
        for capability in &wire.capabilities {
            if !is_one(capability) {
                self.wrong(place, format!("{capability:?} is no capability"));
            }
        }
    }
}

/// Whether XCLIENT is spoken there.
fn has_xclient(protocol: v1::Protocol) -> bool {
    use v1::Protocol::{Lmtp, Managesieve, Pop3, Smtp, Submission};
    matches!(protocol, Pop3 | Managesieve | Submission | Smtp | Lmtp)
}

fn is_capability_atom(capability: &str) -> bool {
    let is_atom_char = |octet: u8| {
        octet.is_ascii_graphic()
            && !matches!(
                octet,
                b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']'
            )
    };
    !capability.is_empty() && capability.bytes().all(is_atom_char)
}

fn is_capability_line(capability: &str) -> bool {
    let is_printable = |octet: u8| matches!(octet, b' '..=b'~');
    !capability.trim().is_empty() && capability.bytes().all(is_printable)
}

/// The oldest version of the document that has all that this one uses. Every field and every value that
/// a later version adds is asked for here, unless a reader that passes it over is still right.
fn needed(wire: &v1::RoutingConfig) -> u32 {
    if http::is_said(wire) {
        return 3;
    }
    let mut endpoints = wire.destinations.iter().flat_map(|d| &d.endpoints);
    let second = endpoints.any(|endpoint| {
        let tls = endpoint.tls.as_ref();
        let ignored = v1::AuthorizationIdentity::Ignored as i32;
        tls.is_some_and(|tls| !tls.next_pin_sha256.is_empty())
            || endpoint.authorization_identity == ignored
    });
    if second { 2 } else { 1 }
}

/// What an endpoint says that this version does not know, if anything.
fn unknown_value(endpoint: &v1::Endpoint) -> Option<DisabledEndpoint> {
    let mode = endpoint.tls.as_ref().map(|tls| tls.mode);
    let field = if v1::Protocol::try_from(endpoint.protocol).is_err() {
        "protocol"
    } else if mode.is_some_and(|mode| Mode::try_from(mode).is_err()) {
        "tls.mode"
    } else if v1::Announcement::try_from(endpoint.announcement).is_err() {
        "announcement"
    } else if v1::AuthorizationIdentity::try_from(endpoint.authorization_identity).is_err() {
        "authorization_identity"
    } else if http::unknown_version(endpoint) {
        "versions"
    } else {
        return None;
    };
    Some(DisabledEndpoint::of(endpoint, field))
}

impl DisabledEndpoint {
    fn of(endpoint: &v1::Endpoint, field: &'static str) -> Self {
        Self {
            protocol: endpoint.protocol,
            group: endpoint.when.as_ref().map(|when| when.group.clone()),
            field,
        }
    }
}

/// A protocol, and the group that it is spoken in (none: in each).
fn spoken(endpoint: &v1::Endpoint) -> (i32, Option<&str>) {
    let group = endpoint.when.as_ref().map(|when| when.group.as_str());
    (endpoint.protocol, group)
}

pub(super) fn parse_pin(hex: &str) -> Option<[u8; 32]> {
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
