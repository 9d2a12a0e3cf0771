//! From sections to a [`Config`]: every check that can be made before anything is started.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ferrypost_proto::{InstanceId, Problems};
use ferrypost_wire::ProtocolKind;
use http::Uri;
use tracing::level_filters::LevelFilter;

use super::{
    Admin, Config, ControlPlane, ControlPlaneTls, Listener, ListenerTls,
    files::{certificates, pair, private_key, secret, token},
    is_loopback,
    raw::{Document, Section},
};
use crate::{
    certificate::CertificateFiles,
    limits::Limits,
    telemetry::{LogFormat, LogSettings, Redact},
};

/// Where the admin endpoint is bound unless the file says otherwise.
const ADMIN_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9443);

pub(super) fn config(text: &str, directory: &Path) -> Result<Config, Problems> {
    let document = Document::new(text);
    let config = document
        .root()
        .and_then(|root| Checker { directory }.config(root));
    document.problems()?;
    Ok(config.expect("a part that is missing has been noted as a problem"))
}

struct Checker<'a> {
    directory: &'a Path,
}

impl Checker<'_> {
    fn config(&self, mut root: Section<'_, '_>) -> Option<Config> {
        if !root.has("instance") {
            root.required::<String>("instance", "this data plane's own name, as \"dp-1\"");
        }
        let instance = root.parsed("instance", InstanceId::parse);
        let group = root.optional::<String>("group").unwrap_or_default();
        let state_directory = root
            .required("state_directory", "a directory of this data plane's own")
            .map(|path| self.resolve(path));
        let control_plane = self.control_plane(root.section("control_plane"));
        let admin = self.admin(root.section("admin"));
        let listeners = self.listeners(&mut root, admin.as_ref());
        let limits = limits(root.section("limits"));
        let log = self.log(root.section("log"));
        root.finish();
        Some(Config {
            instance: instance?,
            group,
            state_directory: state_directory?,
            control_plane: control_plane?,
            listeners: listeners?,
            limits,
            admin: admin?,
            log: log?,
        })
    }

    fn control_plane(&self, mut section: Section<'_, '_>) -> Option<ControlPlane> {
        let endpoints = section.texts("endpoints", endpoint);
        if endpoints.as_ref().is_some_and(Vec::is_empty) {
            section.wrong(
                "endpoints",
                "name at least one, as [\"https://control-plane.example.org:7443\"]",
            );
        }
        let secure = |endpoints: &Vec<_>| endpoints.iter().any(|(_, secure)| *secure);
        let tls = if endpoints.as_ref().is_some_and(secure) {
            self.control_plane_tls(&mut section).map(Some)
        } else {
            // Not a mistake of their own where the endpoints are one already.
            let mistake = endpoints
                .as_ref()
                .is_some_and(|endpoints| !endpoints.is_empty());
            for key in ["ca_file", "cert_file", "key_file", "server_name"] {
                if section.optional::<String>(key).is_some() && mistake {
                    section.wrong(key, "is for https endpoints, and there are none");
                }
            }
            Some(None)
        };
        section.finish();
        Some(ControlPlane {
            endpoints: endpoints?.into_iter().map(|(uri, _)| uri).collect(),
            tls: tls?,
        })
    }

    fn control_plane_tls(&self, section: &mut Section<'_, '_>) -> Option<ControlPlaneTls> {
        let ca_file = section.optional("ca_file").map(|path| self.resolve(path));
        if let Some(path) = &ca_file {
            check(section, "ca_file", certificates(path));
        }
        let server_name = section.optional::<String>("server_name");
        if let Some(name) = &server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            section.wrong(
                "server_name",
                format!("\"{name}\" is neither a host name nor an address"),
            );
        }
        Some(ControlPlaneTls {
            ca_file,
            identity: self.certificate(section, "who this data plane is to the control plane")?,
            server_name,
        })
    }

    fn listeners(
        &self,
        root: &mut Section<'_, '_>,
        admin: Option<&Admin>,
    ) -> Option<Vec<Listener>> {
        let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
        if let Some(admin) = admin {
            taken.insert(admin.listen, "admin.listen".to_owned());
            if let Some(address) = admin.health_listen
                && address.port() != 0
                && taken
                    .insert(address, "admin.health_listen".to_owned())
                    .is_some()
            {
                root.wrong("admin.health_listen", "is the address of admin.listen");
            }
        }
        let mut names: Vec<String> = Vec::new();
        let sections = root.sections("listeners");
        if sections.is_empty() {
            root.wrong("listeners", "there is none; add a [[listeners]]");
        }
        let mut listeners = Vec::new();
        let mut complete = true;
        for (n, mut section) in sections.into_iter().enumerate() {
            let Some(listener) = self.listener(&mut section) else {
                complete = false;
                section.finish();
                continue;
            };
            if names.contains(&listener.name) {
                section.wrong("name", format!("\"{}\" is there twice", listener.name));
            }
            names.push(listener.name.clone());
            if listener.address.port() != 0 {
                let place = format!("listeners[{n}].address");
                if let Some(other) = taken.insert(listener.address, place) {
                    section.wrong(
                        "address",
                        format!("{} is taken by {other}", listener.address),
                    );
                }
            }
            section.finish();
            listeners.push(listener);
        }
        complete.then_some(listeners)
    }

    fn listener(&self, section: &mut Section<'_, '_>) -> Option<Listener> {
        let name = section.required::<String>("name", "what it is called in logs, as \"imaps\"");
        if let Some(name) = &name
            && !is_label(name)
        {
            section.wrong("name", "use 1 to 63 of a-z, 0-9 and -");
        }
        let protocol = required_choice(section, "protocol", &[("imap", ProtocolKind::Imap)]);
        let address = section.required("address", "where clients connect, as \"0.0.0.0:993\"");
        let tls = required_choice(
            section,
            "tls",
            &[
                ("implicit", ListenerTls::Implicit),
                ("starttls", ListenerTls::StartTls),
            ],
        );
        let certificates = self.listener_certificates(section);
        let proxy_protocol_from = section.texts("proxy_protocol_from", str::parse);
        let mut limits = section.section("limits");
        let connections = limits.optional("connections");
        limits.finish();
        Some(Listener {
            name: name?,
            protocol: protocol?,
            address: address?,
            tls: tls?,
            certificates: certificates?,
            proxy_protocol_from: proxy_protocol_from?,
            connections,
        })
    }

    fn listener_certificates(
        &self,
        section: &mut Section<'_, '_>,
    ) -> Option<Vec<CertificateFiles>> {
        let sections = section.sections("certificates");
        if sections.is_empty() {
            section.wrong(
                "certificates",
                "name at least one, as [{ cert_file = \"mail.pem\", key_file = \"mail.key\" }]",
            );
            return None;
        }
        let certificates: Vec<_> = sections
            .into_iter()
            .map(|mut section| {
                let files = self.certificate(&mut section, "what clients are shown");
                section.finish();
                files
            })
            .collect();
        certificates.into_iter().collect()
    }

    fn admin(&self, mut section: Section<'_, '_>) -> Option<Admin> {
        let listen = section.optional("listen").unwrap_or(ADMIN_ADDRESS);
        let certificate =
            self.certificate(&mut section, "what callers of the admin endpoint are shown");
        let token_file = section
            .required("token_file", "a file with the token that callers must know")
            .map(|path| self.resolve(path));
        if let Some(path) = &token_file {
            check(&section, "token_file", token(path));
        }
        let health_listen = section.optional("health_listen");
        section.finish();
        Some(Admin {
            listen,
            certificate: certificate?,
            token_file: token_file?,
            health_listen,
        })
    }

    fn log(&self, mut section: Section<'_, '_>) -> Option<LogSettings> {
        let format = section
            .choice(
                "format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
            .unwrap_or(LogFormat::Text);
        let levels = [
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
        ];
        let level = section
            .choice("level", &levels)
            .unwrap_or(LevelFilter::INFO);
        let redact = self.redact(&mut section);
        section.finish();
        Some(LogSettings {
            format,
            level,
            redact: redact?,
        })
    }

    fn redact(&self, section: &mut Section<'_, '_>) -> Option<Redact> {
        let accounts = section
            .choice(
                "accounts",
                &[("full", "full"), ("hashed", "hashed"), ("absent", "absent")],
            )
            .unwrap_or("full");
        if accounts == "hashed" {
            let path: PathBuf =
                section.required("accounts_key_file", "the key of the hashes, random")?;
            let key = check(section, "accounts_key_file", secret(&self.resolve(path)))?;
            return Some(Redact::hashed(&key));
        }
        if section.optional::<PathBuf>("accounts_key_file").is_some() {
            section.wrong("accounts_key_file", "is for accounts = \"hashed\"");
        }
        Some(if accounts == "full" {
            Redact::full()
        } else {
            Redact::absent()
        })
    }

    /// The keys `cert_file` and `key_file`, which must hold what they should.
    fn certificate(&self, section: &mut Section<'_, '_>, what: &str) -> Option<CertificateFiles> {
        let cert_file = section
            .required("cert_file", &format!("{what}, a certificate in PEM"))
            .map(|path| self.resolve(path));
        let key_file = section
            .required("key_file", "the key of cert_file, in PEM")
            .map(|path| self.resolve(path));
        let chain = cert_file
            .as_ref()
            .and_then(|path| check(section, "cert_file", certificates(path)));
        let key = key_file
            .as_ref()
            .and_then(|path| check(section, "key_file", private_key(path)));
        let files = CertificateFiles {
            cert_file: cert_file?,
            key_file: key_file?,
        };
        check(section, "key_file", pair(&files, chain?, key?));
        Some(files)
    }

    fn resolve(&self, path: PathBuf) -> PathBuf {
        // An absolute path replaces the directory.
        self.directory.join(path)
    }
}

fn limits(mut section: Section<'_, '_>) -> Limits {
    let mut limits = Limits::default();

    let mut group = section.section("connections");
    group.set("total", &mut limits.connections.total);
    group.set("per_address", &mut limits.connections.per_address);
    group.finish();

    let preauth = &mut limits.preauth;
    let mut group = section.section("preauth");
    group.set("handshake", &mut preauth.handshake);
    group.set("login", &mut preauth.login);
    group.set("failures", &mut preauth.failures);
    group.set("failure_floor", &mut preauth.failure_floor);
    group.set("max_line", &mut preauth.front.max_line);
    group.set("max_literal", &mut preauth.front.max_literal);
    group.set("max_commands", &mut preauth.front.max_commands);
    group.set("max_errors", &mut preauth.front.max_errors);
    group.finish();

    let backend = &mut limits.backend;
    let mut group = section.section("backend");
    group.set("connect", &mut backend.connect);
    group.set("handshake", &mut backend.handshake);
    group.set("negotiate", &mut backend.negotiate);
    group.set("login", &mut backend.login);
    group.set("max_line", &mut backend.back.max_line);
    group.set("max_lines", &mut backend.back.max_lines);
    group.set("max_untagged", &mut backend.back.max_untagged);
    group.finish();

    let relay = &mut limits.relay;
    let mut group = section.section("relay");
    group.set("idle", &mut relay.idle);
    group.set("stalled", &mut relay.stalled);
    group.set("answer", &mut relay.answer);
    group.set("drain", &mut relay.drain);
    group.set("close", &mut relay.close);
    group.finish();

    let mut group = section.section("hold");
    group.set("timeout", &mut limits.hold.timeout);
    group.set("keep_alive", &mut limits.hold.keep_alive);
    group.set("total", &mut limits.hold.total);
    group.set("per_name", &mut limits.hold.per_name);
    group.finish();

    let mut group = section.section("probe");
    group.set("interval", &mut limits.probe.interval);
    group.set("retry", &mut limits.probe.retry);
    group.finish();

    let mut group = section.section("shutdown");
    group.set("grace", &mut limits.shutdown.grace);
    group.set("goodbye", &mut limits.shutdown.goodbye);
    group.finish();

    between(&section, &limits);
    section.finish();
    limits
}

/// What limits must be to each other.
fn between(section: &Section<'_, '_>, limits: &Limits) {
    let (relay, shutdown) = (limits.relay, limits.shutdown);
    if shutdown.grace < relay.drain + relay.close {
        section.wrong(
            "shutdown.grace",
            "must be at least relay.drain and relay.close together",
        );
    }
    if limits.hold.per_name > limits.hold.total {
        section.wrong("hold.per_name", "must not be above hold.total");
    }
    if limits.connections.per_address > limits.connections.total {
        section.wrong(
            "connections.per_address",
            "must not be above connections.total",
        );
    }
}

fn required_choice<T: Clone>(
    section: &mut Section<'_, '_>,
    key: &'static str,
    choices: &[(&str, T)],
) -> Option<T> {
    if section.has(key) {
        return section.choice(key, choices);
    }
    let names: Vec<_> = choices
        .iter()
        .map(|(name, _)| format!("\"{name}\""))
        .collect();
    section.required::<String>(key, &format!("one of {}", names.join(", ")));
    None
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

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Notes what is wrong with a file at the key that names it.
fn check<T>(section: &Section<'_, '_>, key: &str, outcome: Result<T, String>) -> Option<T> {
    outcome.map_err(|message| section.wrong(key, message)).ok()
}
