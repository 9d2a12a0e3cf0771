//! From sections to a [`Config`]: every check that can be made before anything is started.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ferrypost_proto::{DestinationId, InstanceId, v1};
use ferrypost_runtime::{
    config::{ConfigFile, Mistakes, Section},
    logging,
    tls::CertificateFiles,
};
use ferrypost_wire::ProtocolKind;
use http::Uri;

use super::{
    Admin, Config, ControlPlane, ControlPlaneTls, Listener, ListenerTls, Log, ServerMeans,
    is_loopback,
};
use crate::{
    limits::{
        KnownNetwork, LEAST_IDLE_PASSED_THROUGH, Limits, OwnLimits, PreauthLimits, RelayLimits,
        ShutdownLimits, least_idle,
    },
    net::{local::Place, source::Sources},
    network::Network,
    redact::Redact,
};

/// Where the admin endpoint is bound unless the file says otherwise.
const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9443);

pub(super) fn config(file: &ConfigFile) -> Result<Config, Mistakes> {
    let config = file.parse(|_, root| read(root))?;
    Ok(config.expect("a part that is missing has been noted as a mistake"))
}

/// See [`Config::for_order`].
pub(super) fn for_order(file: &ConfigFile) -> Result<(Admin, ShutdownLimits), Mistakes> {
    let part = file.part(|root| {
        let (limits, _) = root.section("limits", limits);
        let admin = root.section("admin", admin)?;
        Some((admin, limits.shutdown))
    })?;
    Ok(part.expect("a part that is missing has been noted as a mistake"))
}

pub(super) fn read(root: &Section<'_>) -> Option<Config> {
    let instance = root.required(
        "instance",
        "this data plane's own name, as \"dp-1\"",
        root.parsed("instance", InstanceId::parse),
    );
    let group = root.text("group").unwrap_or_default();
    let state_directory = root.required(
        "state_directory",
        "a directory of this data plane's own",
        root.path("state_directory"),
    );
    let control_plane = root.section("control_plane", control_plane);
    let admin = root.section("admin", admin);
    let listeners = listeners(root);
    let deliveries = super::deliveries::read(root);
    let pass_throughs = super::pass_throughs::read(root);
    let web = super::web::read(root);
    let no_clients = listeners.is_empty() && web.is_empty();
    if no_clients && pass_throughs.is_empty() && deliveries.is_empty() {
        root.wrong("listeners", "there is none; add a [[listeners]]");
    }
    let mut doors = Doors::beside(root, admin.as_ref());
    for (n, listener) in sound(&listeners) {
        let place = Place::Address(listener.address);
        doors.add(&format!("listeners[{n}]"), &listener.name, place);
    }
    for (n, through) in sound(&pass_throughs) {
        let place = Place::Address(through.address);
        doors.add(&format!("pass_throughs[{n}]"), &through.name, place);
    }
    for (n, listener) in sound(&web) {
        let place = Place::Address(listener.address);
        doors.add(&format!("web[{n}]"), &listener.name, place);
    }
    for (n, delivery) in sound(&deliveries) {
        let place = delivery.place.clone();
        doors.add(&format!("deliveries[{n}]"), &delivery.name, place);
    }
    let servers = servers(root);
    let lookups = root.tables("lookups", super::lookups::read);
    for (n, lookup) in sound(&lookups) {
        doors.add(&format!("lookups[{n}]"), &lookup.name, lookup.place.clone());
    }
    let (limits, known_networks) = root.section("limits", limits);
    let tokens = root.table("tokens", super::tokens::read);
    let log = root.section("log", log);
    Some(Config {
        instance: instance?,
        group,
        state_directory: state_directory?,
        control_plane: control_plane?,
        listeners: listeners.into_iter().collect::<Option<_>>()?,
        pass_throughs: pass_throughs.into_iter().collect::<Option<_>>()?,
        deliveries: deliveries.into_iter().collect::<Option<_>>()?,
        web: web.into_iter().collect::<Option<_>>()?,
        servers: servers?,
        lookups: lookups.into_iter().collect::<Option<_>>()?,
        limits,
        known_networks: known_networks?,
        tokens: match tokens {
            Some(tokens) => Some(tokens?),
            None => None,
        },
        admin: admin?,
        log: log?,
    })
}

fn control_plane(section: &Section<'_>) -> Option<ControlPlane> {
    let endpoints = section.parsed_texts("endpoints", endpoint);
    if !section.has("endpoints") || endpoints.as_ref().is_some_and(Vec::is_empty) {
        section.wrong(
            "endpoints",
            "name at least one, as [\"https://control-plane.example.org:7443\"]",
        );
    }
    let secure = |endpoints: &Vec<_>| endpoints.iter().any(|(_, secure)| *secure);
    let tls = if endpoints.as_ref().is_some_and(secure) {
        control_plane_tls(section).map(Some)
    } else {
        // Not a mistake of their own where the endpoints are one already.
        let mistake = endpoints
            .as_ref()
            .is_some_and(|endpoints| !endpoints.is_empty());
        for key in ["ca_file", "cert_file", "key_file", "server_name"] {
            if section.text(key).is_some() && mistake {
                section.wrong(key, "is for https endpoints, and there are none");
            }
        }
        Some(None)
    };
    Some(ControlPlane {
        endpoints: endpoints?.into_iter().map(|(uri, _)| uri).collect(),
        tls: tls?,
    })
}

fn control_plane_tls(section: &Section<'_>) -> Option<ControlPlaneTls> {
    let ca_file = section.authorities_file("ca_file");
    let server_name = section.parsed("server_name", |name| {
        let valid = rustls::pki_types::ServerName::try_from(name).is_ok();
        let name = valid.then(|| name.to_owned());
        name.ok_or("is neither a host name nor an address")
    });
    Some(ControlPlaneTls {
        ca_file,
        identity: section.certificate_files("who this data plane is to the control plane")?,
        server_name,
    })
}

/// Those of a list without a mistake, by their number in it.
fn sound<T>(list: &[Option<T>]) -> impl Iterator<Item = (usize, &T)> {
    let numbered = list.iter().enumerate();
    numbered.filter_map(|(n, item)| Some((n, item.as_ref()?)))
}

/// Everything that is connected to: no two may have one name or one address, nor the admin endpoint's.
struct Doors<'a> {
    root: &'a Section<'a>,
    names: Vec<String>,
    /// Whose each place is.
    taken: BTreeMap<Place, String>,
}

impl<'a> Doors<'a> {
    fn beside(root: &'a Section<'a>, admin: Option<&Admin>) -> Self {
        let mut doors = Self {
            root,
            names: Vec::new(),
            taken: BTreeMap::new(),
        };
        if let Some(admin) = admin {
            doors.take("admin.listen", Place::Address(admin.listen));
            if let Some(address) = admin.health_listen {
                doors.take("admin.health_listen", Place::Address(address));
            }
        }
        doors
    }

    fn add(&mut self, entry: &str, name: &str, place: Place) {
        if self.names.iter().any(|taken| taken == name) {
            let key = format!("{entry}.name");
            self.root.wrong(&key, format!("\"{name}\" is there twice"));
        }
        self.names.push(name.to_owned());
        let key = match place {
            Place::Address(_) => "address",
            Place::File { .. } => "socket",
        };
        self.take(&format!("{entry}.{key}"), place);
    }

    fn take(&mut self, key: &str, place: Place) {
        let place = match place {
            // Any free port is another one each time.
            Place::Address(address) if address.port() == 0 => return,
            address @ Place::Address(_) => address,
            // Who may connect makes it no other file.
            Place::File { path, .. } => Place::File { path, mode: 0 },
        };
        if let Some(other) = self.taken.insert(place.clone(), key.to_owned()) {
            self.root.wrong(key, format!("{place} is taken by {other}"));
        }
    }
}

fn listeners(root: &Section<'_>) -> Vec<Option<Listener>> {
    root.tables("listeners", listener)
}

fn listener(section: &Section<'_>) -> Option<Listener> {
    let name = section.required(
        "name",
        "what it is called in logs, as \"imaps\"",
        section.parsed("name", label),
    );
    let protocol = section.required_word("protocol", &protocols());
    let address = section.required(
        "address",
        "where clients connect, as \"0.0.0.0:993\"",
        section.address("address"),
    );
    let tls = section.required_word(
        "tls",
        &[
            ("implicit", ListenerTls::Implicit),
            ("starttls", ListenerTls::StartTls),
        ],
    );
    let certificates = listener_certificates(section);
    let trusted = proxy_protocol_from(section);
    let connections = connections(section);
    Some(Listener {
        name: name?,
        protocol: protocol?,
        address: address?,
        tls: tls?,
        certificates: certificates?,
        proxy_protocol_from: trusted?,
        connections,
    })
}

/// Peers whose PROXY header is believed; nobody's, where nothing is said.
pub(super) fn proxy_protocol_from(section: &Section<'_>) -> Option<Vec<Network>> {
    let trusted = section.parsed_texts("proxy_protocol_from", str::parse);
    let nobody = (!section.has("proxy_protocol_from")).then(Vec::new);
    trusted.or(nobody)
}

/// A limit on connections of one's own.
pub(super) fn connections(section: &Section<'_>) -> Option<usize> {
    section.section("limits", |limits| {
        limits.number("connections", 1..=usize::MAX)
    })
}

fn protocols() -> Vec<(&'static str, ProtocolKind)> {
    let all = ProtocolKind::ALL.iter();
    all.map(|kind| (kind.as_str(), *kind)).collect()
}

/// What is spoken with servers: what clients log in by, what mail comes by, and HTTP.
fn spoken_with_servers() -> Vec<(&'static str, v1::Protocol)> {
    let known = (1..).map_while(|number| v1::Protocol::try_from(number).ok());
    let is_spoken = |protocol: &v1::Protocol| {
        let others = matches!(
            protocol,
            v1::Protocol::Smtp | v1::Protocol::Lmtp | v1::Protocol::Http
        );
        others || ProtocolKind::NAMES.contains(&protocol.word())
    };
    known
        .filter(is_spoken)
        .map(|protocol| (protocol.word(), protocol))
        .collect()
}

fn servers(root: &Section<'_>) -> Option<Vec<ServerMeans>> {
    let mut seen = Vec::new();
    let servers = root.tables("servers", |section| {
        let means = server_means(section)?;
        let which = (means.destination.clone(), means.protocol);
        if seen.contains(&which) {
            section.wrong("destination", "these servers are there twice");
        }
        seen.push(which);
        Some(means)
    });
    servers.into_iter().collect()
}

fn server_means(section: &Section<'_>) -> Option<ServerMeans> {
    let destination = section.parsed("destination", DestinationId::parse);
    let protocol = section.word("protocol", &spoken_with_servers());
    let sources = match section.parsed_texts("source_addresses", source_address) {
        Some(addresses) => section.checked("source_addresses", Sources::new(&addresses)),
        None => (!section.has("source_addresses")).then(Sources::default),
    };
    let client_certificate = section.table("client_certificate", |certificate| {
        certificate.certificate_files("what servers are shown")
    });
    // What was there and is wrong must not be taken for what is not there.
    if section.has("destination") && destination.is_none() {
        return None;
    }
    Some(ServerMeans {
        destination,
        protocol,
        sources: sources?,
        client_certificate: match client_certificate {
            Some(files) => Some(files?),
            None => None,
        },
    })
}

/// An address that connections can come from. Whether it is this machine's is found out when one does.
fn source_address(text: &str) -> Result<IpAddr, &'static str> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| "must be an address, as \"192.0.2.10\" or \"2001:db8::10\"")?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err("nothing comes from this address");
    }
    Ok(address)
}

pub(super) fn listener_certificates(section: &Section<'_>) -> Option<Vec<CertificateFiles>> {
    let certificates = certificates(section);
    if certificates.is_empty() {
        section.wrong(
            "certificates",
            "name at least one, as [{ cert_file = \"mail.pem\", key_file = \"mail.key\" }]",
        );
        return None;
    }
    certificates.into_iter().collect()
}

pub(super) fn certificates(section: &Section<'_>) -> Vec<Option<CertificateFiles>> {
    section.tables("certificates", |certificate| {
        certificate.certificate_files("what clients are shown")
    })
}

fn admin(section: &Section<'_>) -> Option<Admin> {
    let listen = section.address("listen").unwrap_or(ADMIN_ADDRESS);
    let certificate = section.certificate_files("what callers of the admin endpoint are shown");
    let token_file = section.required(
        "token_file",
        "a file with the token that callers must know",
        section.token_file("token_file"),
    );
    let drain_token_file = section.token_file("drain_token_file");
    if drain_token_file.is_some() && drain_token_file == token_file {
        section.wrong(
            "drain_token_file",
            "is token_file, too: whoever reads figures could stop this data plane; give it a token of its own",
        );
    }
    // Read whatever is wrong with the others, or it would pass for a key that nobody knows.
    let health_listen = section.address("health_listen");
    Some(Admin {
        listen,
        certificate: certificate?,
        token_file: token_file?,
        drain_token_file,
        health_listen,
    })
}

fn log(section: &Section<'_>) -> Option<Log> {
    let default = logging::Settings::default();
    let lines = logging::Settings {
        format: section
            .word("format", logging::FORMATS)
            .unwrap_or(default.format),
        level: section
            .word("level", logging::LEVELS)
            .unwrap_or(default.level),
    };
    Some(Log {
        lines,
        redact: redact(section)?,
    })
}

fn redact(section: &Section<'_>) -> Option<Redact> {
    let words = &[("full", "full"), ("hashed", "hashed"), ("absent", "absent")];
    let accounts = section.word("accounts", words).unwrap_or("full");
    if accounts == "hashed" {
        let key = section.secret("accounts_key_file");
        let what = "the key of the hashes, random";
        let key = section.required("accounts_key_file", what, key)?;
        return Some(Redact::hashed(&key));
    }
    if section.has("accounts_key_file") {
        section.wrong("accounts_key_file", "is for accounts = \"hashed\"");
    }
    Some(if accounts == "full" {
        Redact::full()
    } else {
        Redact::absent()
    })
}

/// The networks are `None` when a mistake in them has been noted.
fn limits(section: &Section<'_>) -> (Limits, Option<Vec<KnownNetwork>>) {
    let mut limits = Limits::default();

    let known_networks = section.section("connections", |group| {
        let connections = &mut limits.connections;
        group.set("total", &mut connections.total);
        group.set_up_to(
            "per_network",
            &mut connections.per_network,
            connections.total,
        );
        group.set_up_to(
            "per_address",
            &mut connections.per_address,
            connections.per_network,
        );
        group.set("kept", &mut connections.kept);
        known_networks(group, limits.connections.total)
    });

    let preauth = &mut limits.preauth;
    section.section("preauth", |group| {
        set_preauth(group, preauth);
        group.set("failure_floor", &mut preauth.failure_floor);
        // One that is set alone may be above what the other is by default.
        preauth.failure_ceiling = preauth.failure_ceiling.max(preauth.failure_floor);
        group.set("failure_ceiling", &mut preauth.failure_ceiling);
    });

    let backend = &mut limits.backend;
    section.section("backend", |group| {
        group.set("connect", &mut backend.connect);
        group.set("handshake", &mut backend.handshake);
        group.set("negotiate", &mut backend.negotiate);
        group.set("login", &mut backend.login);
        group.set("max_line", &mut backend.back.max_line);
        group.set("max_lines", &mut backend.back.max_lines);
        group.set("max_untagged", &mut backend.back.max_untagged);
    });

    let breaker = &mut limits.breaker;
    section.section("breaker", |group| {
        group.set("clients", &mut breaker.clients);
        group.set("window", &mut breaker.window);
        group.set("pause", &mut breaker.pause);
    });
    let relay = &mut limits.relay;
    section.section("relay", |group| {
        set_relay(group, relay);
        group.set("drain", &mut relay.drain);
        group.set("close", &mut relay.close);
    });

    section.section("pass_through", |group| {
        group.set("idle", &mut limits.pass_through.idle);
    });

    section.section("hold", |group| {
        group.set("timeout", &mut limits.hold.timeout);
        group.set("keep_alive", &mut limits.hold.keep_alive);
        let hold = &mut limits.hold;
        group.set("total", &mut hold.total);
        group.set_up_to("per_name", &mut hold.per_name, hold.total);
        group.set_up_to(
            "per_name_and_address",
            &mut hold.per_name_and_address,
            hold.per_name,
        );
    });

    section.section("probe", |group| {
        group.set("interval", &mut limits.probe.interval);
        group.set("retry", &mut limits.probe.retry);
    });

    section.section("tokens", |group| {
        let tokens = &mut limits.tokens;
        group.set("answer", &mut tokens.answer);
        group.set("at_once", &mut tokens.at_once);
        group.set("owners", &mut tokens.owners);
        group.set("others", &mut tokens.others);
        group.set("kept", &mut tokens.kept);
        group.set("refused", &mut tokens.refused);
    });

    section.section("deliveries", |group| {
        let deliveries = &mut limits.deliveries;
        group.set("idle", &mut deliveries.idle);
        group.set("answer", &mut deliveries.answer);
        group.set("stalled", &mut deliveries.stalled);
        group.set("verdict", &mut deliveries.verdict);
        group.set("max_line", &mut deliveries.front.max_line);
        group.set("max_recipients", &mut deliveries.front.max_recipients);
        group.set("max_commands", &mut deliveries.front.max_commands);
        group.set("max_errors", &mut deliveries.front.max_errors);
    });

    section.section("web", |group| super::web::set(group, &mut limits.web));

    section.section("shutdown", |group| {
        group.set("grace", &mut limits.shutdown.grace);
        group.set("goodbye", &mut limits.shutdown.goodbye);
    });

    for &protocol in ProtocolKind::ALL {
        own_limits(section, protocol, &mut limits);
    }
    between(section, &limits);
    enough_idle(section, &limits);
    (limits, known_networks)
}

/// What a protocol has of its own; what it does not say is as for all.
fn own_limits(section: &Section<'_>, protocol: ProtocolKind, limits: &mut Limits) {
    let inherited = (limits.preauth_of(protocol), limits.relay_of(protocol));
    let (mut preauth, mut relay) = inherited;
    section.section(protocol.as_str(), |protocol| {
        protocol.section("preauth", |group| set_preauth(group, &mut preauth));
        protocol.section("relay", |group| set_relay(group, &mut relay));
    });
    limits.own[protocol as usize] = OwnLimits {
        preauth: Some(preauth).filter(|own| *own != inherited.0),
        relay: Some(relay).filter(|own| *own != inherited.1),
    };
}

/// What a protocol may have of its own, too.
fn set_preauth(group: &Section<'_>, preauth: &mut PreauthLimits) {
    group.set("handshake", &mut preauth.handshake);
    group.set("login", &mut preauth.login);
    group.set("failures", &mut preauth.failures);
    group.set("max_line", &mut preauth.front.max_line);
    group.set("max_literal", &mut preauth.front.max_literal);
    group.set("max_commands", &mut preauth.front.max_commands);
    group.set("max_errors", &mut preauth.front.max_errors);
}

/// The same of a relay.
fn set_relay(group: &Section<'_>, relay: &mut RelayLimits) {
    group.set("idle", &mut relay.idle);
    group.set("stalled", &mut relay.stalled);
    group.set("answer", &mut relay.answer);
}

/// Clients may count on a time in which they need say nothing, whether or not a listener speaks their protocol today.
fn enough_idle(section: &Section<'_>, limits: &Limits) {
    for &protocol in ProtocolKind::ALL {
        let (least, source) = least_idle(protocol);
        if limits.relay_of(protocol).idle >= least {
            continue;
        }
        let own = limits.own[protocol as usize].relay.is_some();
        let place = if own {
            format!("{}.relay.idle", protocol.as_str())
        } else {
            "relay.idle".to_owned()
        };
        let (minutes, protocol) = (least.as_secs() / 60, protocol.as_str());
        let message = format!("must be at least {minutes}m for {protocol} ({source})");
        section.wrong(&place, message);
    }
    if limits.pass_through.idle < LEAST_IDLE_PASSED_THROUGH {
        let minutes = LEAST_IDLE_PASSED_THROUGH.as_secs() / 60;
        let message = format!("must be at least {minutes}m (RFC 5321 §4.5.3.2.6)");
        section.wrong("pass_through.idle", message);
    }
}

fn known_networks(section: &Section<'_>, total: usize) -> Option<Vec<KnownNetwork>> {
    let mut seen = Vec::new();
    let networks = section.tables("networks", |section| {
        let known = known_network(section)?;
        if seen.contains(&known.network) {
            section.wrong("network", format!("{} is there twice", known.network));
        }
        if known.connections > total {
            section.wrong("connections", "must not be above connections.total");
        }
        seen.push(known.network);
        Some(known)
    });
    networks.into_iter().collect()
}

fn known_network(section: &Section<'_>) -> Option<KnownNetwork> {
    let network = section.required(
        "network",
        "addresses with a limit of their own, as \"192.0.2.10\" or \"2001:db8:1::/48\"",
        section.parsed("network", str::parse),
    );
    let connections = section.required(
        "connections",
        "how many connections they may have at once",
        section.number("connections", 1..=usize::MAX),
    );
    Some(KnownNetwork {
        network: network?,
        connections: connections?,
    })
}

/// What limits must be to each other.
fn between(section: &Section<'_>, limits: &Limits) {
    let (relay, shutdown) = (limits.relay, limits.shutdown);
    if shutdown.grace < relay.drain + relay.close {
        section.wrong(
            "shutdown.grace",
            "must be at least relay.drain and relay.close together",
        );
    }
    if limits.preauth.failure_ceiling < limits.preauth.failure_floor {
        section.wrong(
            "preauth.failure_ceiling",
            "must be at least preauth.failure_floor",
        );
    }
    if limits.hold.per_name > limits.hold.total {
        section.wrong("hold.per_name", "must not be above hold.total");
    }
    let hold = limits.hold;
    if hold.per_name_and_address > hold.per_name {
        section.wrong(
            "hold.per_name_and_address",
            "must not be above hold.per_name",
        );
    }
    let connections = limits.connections;
    if connections.per_address > connections.per_network {
        section.wrong(
            "connections.per_address",
            "must not be above connections.per_network",
        );
    }
    if connections.per_network > connections.total {
        section.wrong(
            "connections.per_network",
            "must not be above connections.total",
        );
    }
}

/// A replica of the control plane, and whether the way there is encrypted.
fn endpoint(text: &str) -> Result<(String, bool), &'static str> {
    const FORM: &str = "use https://host:port";
    let uri: Uri = text.parse().map_err(|_| FORM)?;
    let host = uri.host().ok_or(FORM)?.trim_matches(['[', ']']);
    if uri.port_u16().is_none_or(|port| port == 0) || !matches!(uri.path(), "" | "/") {
        return Err(FORM);
    }
    match uri.scheme_str() {
        Some("https") => Ok((text.to_owned(), true)),
        Some("http") if host == "localhost" || host.parse().is_ok_and(is_loopback) => {
            Ok((text.to_owned(), false))
        }
        Some("http") => Err("http is only for a loopback address; use https"),
        _ => Err(FORM),
    }
}

pub(super) fn label(text: &str) -> Result<String, &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (1..=63).contains(&text.len()) && text.bytes().all(allowed);
    let label = valid.then(|| text.to_owned());
    label.ok_or("use 1 to 63 of a-z, 0-9 and -")
}
