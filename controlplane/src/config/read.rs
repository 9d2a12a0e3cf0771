//! From the file's keys to a [`Config`]. Each function reads one table.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ferrypost_proto::{InstallationId, ReplicaId};
use ferrypost_runtime::{
    config::{ConfigFile, Mistakes, Section, has_impossible_port},
    logging,
};
use http::Uri;

use super::{
    Admin, CertificateName, Config, DataPlanes, EtcdAccess, HookConfig, Hooks, Identity,
    IdentityConfig, Migrations, Operators, Role, Routing, RoutingSource, StoreConfig, TlsFiles,
    TokenConfig,
};
use crate::store::{embedded::EmbeddedConfig, etcd::EtcdTls};

/// Below the data planes' hold limit H (25 s by default): a window that outlasts it would send every
/// held login away.
const LONGEST_WINDOW: Duration = Duration::from_secs(24);

/// A leader's death holds the accounts that it had fenced for as long; far beyond the data planes' hold
/// limit, logins are sent away all the while.
const LONGEST_LEADER_TTL: Duration = Duration::from_secs(30);

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// Ten years: whoever wants more wants an archive.
const LONGEST_KEEP: Duration = Duration::from_hours(87_600);

const ROLES: &[(&str, Role)] = &[
    ("viewer", Role::Viewer),
    ("operator", Role::Operator),
    ("admin", Role::Admin),
];

pub(super) fn config(file: &ConfigFile) -> Result<Config, Mistakes> {
    file.parse(|document, root| read(root, document.directory()))
}

/// Relative paths are relative to the directory.
pub(super) fn read(root: &Section<'_>, directory: &Path) -> Config {
    let store = read_store(root, directory);
    Config {
        replica: read_replica(root, &store),
        installation: root.parsed("installation", InstallationId::parse),
        operators: read_operators(root),
        data_planes: read_data_planes(root),
        routing: read_routing(root, directory),
        migrations: read_migrations(root),
        hooks: Hooks::default(),
        admin: read_admin(root),
        log: read_log(root),
        store,
    }
    .with_hooks(root)
}

impl Config {
    /// The hooks' limits hang on the window.
    fn with_hooks(mut self, root: &Section<'_>) -> Self {
        let window = self.migrations.window;
        self.hooks = root
            .table("hooks", |hooks| Hooks {
                delta: hooks
                    .table("delta", |delta| read_hook(delta, window))
                    .flatten(),
            })
            .unwrap_or_default();
        self
    }
}

/// Stands in for a value that was at fault, so that reading goes on: the mistake is noted and no
/// `Config` comes of it.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn read_replica(root: &Section<'_>, store: &StoreConfig) -> ReplicaId {
    let replica = root.parsed("replica", ReplicaId::parse);
    if matches!(store, StoreConfig::Etcd(_)) && !root.has("replica") {
        root.wrong(
            "replica",
            "missing; with etcd every replica needs a name of its own",
        );
    }
    replica.unwrap_or_else(|| ReplicaId::parse("controlplane").expect("a replica id"))
}

fn read_store(root: &Section<'_>, directory: &Path) -> StoreConfig {
    let default = directory.join("ferrypost.redb");
    root.table("store", |store| {
        let etcd = store
            .word("kind", &[("embedded", false), ("etcd", true)])
            .unwrap_or(false);
        if etcd {
            StoreConfig::Etcd(read_etcd(store))
        } else {
            let path = store.path("path").unwrap_or_else(|| default.clone());
            StoreConfig::Embedded(EmbeddedConfig::new(path))
        }
    })
    .unwrap_or_else(|| StoreConfig::Embedded(EmbeddedConfig::new(default.clone())))
}

/// A user in it may be one with a password, and a port that is none would be taken for the scheme's.
fn is_address(endpoint: &str) -> bool {
    endpoint.parse::<Uri>().is_ok_and(|uri| {
        let authority = uri.authority().map_or("", |it| it.as_str());
        !authority.contains('@') && uri.port_u16() != Some(0) && !has_impossible_port(&uri)
    })
}

fn read_etcd(store: &Section<'_>) -> EtcdAccess {
    let endpoints = store
        .required(
            "endpoints",
            "the members' client addresses, as [\"https://etcd-1:2379\"]",
            store.texts("endpoints"),
        )
        .unwrap_or_default();
    if store.has("endpoints") && endpoints.is_empty() {
        store.wrong("endpoints", "must name at least one member");
    }
    let secure = |endpoint: &String| endpoint.starts_with("https://");
    for endpoint in &endpoints {
        if !secure(endpoint) && !endpoint.starts_with("http://") {
            store.wrong(
                "endpoints",
                format!("{endpoint:?} must begin with http:// or https://"),
            );
        } else if !is_address(endpoint) {
            store.wrong(
                "endpoints",
                "one is no address of a member: use https://host:port; a user is said by username and password_file",
            );
        }
    }
    let tls = read_etcd_tls(store);
    if endpoints.iter().any(secure) && tls.is_none() && !store.has("ca_file") {
        store.wrong(
            "ca_file",
            "missing; https endpoints are verified against it",
        );
    }
    if tls.is_some() && !endpoints.iter().all(secure) {
        store.wrong("endpoints", "with ca_file all must begin with https://");
    }
    let prefix = store
        .text("prefix")
        .unwrap_or_else(|| "/ferrypost".to_owned());
    if prefix.is_empty() {
        store.wrong("prefix", "must not be empty");
    }
    EtcdAccess {
        endpoints,
        prefix,
        tls,
        user: read_etcd_user(store),
    }
}

fn read_etcd_tls(store: &Section<'_>) -> Option<EtcdTls> {
    let ca = store.authorities_file("ca_file");
    let shows = store.has("cert_file") || store.has("key_file");
    let identity = shows.then(|| store.certificate_files("who we are to the members"));
    let server_name = store.text("server_name");
    if shows && !store.has("ca_file") {
        store.wrong("ca_file", "missing; it goes with cert_file");
    }
    Some(EtcdTls {
        ca: ca?,
        identity: identity.flatten(),
        server_name,
    })
}

fn read_etcd_user(store: &Section<'_>) -> Option<(String, PathBuf)> {
    if !store.has("username") && !store.has("password_file") {
        return None;
    }
    let username = store.text("username");
    let username = store.required("username", "whose password password_file holds", username);
    let password = store.readable_file("password_file");
    let password = store.required("password_file", "the password of username", password);
    Some((username?, password?))
}

fn read_operators(root: &Section<'_>) -> Operators {
    root.table("operators", |section| {
        let tokens = section.tables("tokens", read_token);
        let identities = section.tables("identities", read_identity);
        // One with a mistake counts: it is reported as what it is.
        let authenticated = !tokens.is_empty() || !identities.is_empty();
        let operators = Operators {
            listen: section.address("listen").unwrap_or_else(|| loopback(9080)),
            tls: read_tls(section),
            tokens: tokens.into_iter().flatten().collect(),
            identities: identities.into_iter().flatten().collect(),
        };
        check_operators(section, &operators);
        check_exposure(
            section,
            operators.listen,
            authenticated,
            "tokens or identities",
        );
        operators
    })
    .unwrap_or_else(|| Operators {
        listen: loopback(9080),
        tls: None,
        tokens: Vec::new(),
        identities: Vec::new(),
    })
}

fn check_operators(section: &Section<'_>, operators: &Operators) {
    let has_client_ca = operators
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    if section.has("identities") && section.has("tls") && !has_client_ca {
        section.wrong(
            "identities",
            "need tls.client_ca_file, which says whose certificates are believed",
        );
    }
    if section.has("identities") && !section.has("tls") {
        section.wrong("identities", "need tls with a client_ca_file");
    }
    let mut names: Vec<_> = operators.tokens.iter().map(|token| &token.name).collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        section.wrong("tokens", "two have the same name");
    }
}

/// A listener that others can reach needs TLS, or tokens would cross the network in clear, and needs
/// to know its callers.
fn check_exposure(section: &Section<'_>, listen: SocketAddr, authenticated: bool, by: &str) {
    if listen.ip().is_loopback() {
        return;
    }
    if !section.has("tls") {
        section.wrong(
            "listen",
            format!("{listen} is not a loopback address: without tls it is refused"),
        );
    }
    if !authenticated {
        section.wrong(
            "listen",
            format!("{listen} is not a loopback address: without {by} it is refused"),
        );
    }
}

fn read_tls(section: &Section<'_>) -> Option<TlsFiles> {
    section
        .table("tls", |tls| {
            let identity = tls.certificate_files("what callers are shown");
            let client_ca = tls.authorities_file("client_ca_file");
            Some(TlsFiles {
                identity: identity?,
                client_ca,
            })
        })
        .flatten()
}

fn read_token(token: &Section<'_>) -> Option<TokenConfig> {
    let name = token.required("name", "who calls with it", token.text("name"));
    let role = token.required_word("role", ROLES);
    let file = token.required("file", "holds the token", token.token_file("file"));
    Some(TokenConfig {
        name: name?,
        role: role?,
        file: file?,
    })
}

fn read_identity(identity: &Section<'_>) -> Option<IdentityConfig> {
    let role = identity.required_word("role", ROLES);
    let certificate = match (identity.text("common_name"), identity.text("san")) {
        (Some(name), None) => Some(CertificateName::CommonName(name)),
        (None, Some(name)) => Some(CertificateName::AlternativeName(name)),
        _ => {
            identity.wrong("", "say one of common_name and san");
            None
        }
    };
    Some(IdentityConfig {
        certificate: certificate?,
        role: role?,
    })
}

fn read_data_planes(root: &Section<'_>) -> DataPlanes {
    root.table("data_planes", |section| {
        let data_planes = DataPlanes {
            listen: section.address("listen").unwrap_or_else(|| loopback(9081)),
            tls: read_tls(section),
            token: section.token_file("token_file"),
            identity: section
                .word(
                    "identity",
                    &[
                        ("any", Identity::Any),
                        ("certificate", Identity::Certificate),
                    ],
                )
                .unwrap_or(Identity::Any),
        };
        let has_client_ca = data_planes
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some());
        if data_planes.identity == Identity::Certificate && !has_client_ca {
            section.wrong(
                "identity",
                "needs tls.client_ca_file, which says whose certificates are believed",
            );
        }
        let authenticated = section.has("token_file") || has_client_ca;
        check_exposure(
            section,
            data_planes.listen,
            authenticated,
            "tls.client_ca_file or token_file",
        );
        data_planes
    })
    .unwrap_or_else(|| DataPlanes {
        listen: loopback(9081),
        tls: None,
        token: None,
        identity: Identity::Any,
    })
}

fn read_routing(root: &Section<'_>, directory: &Path) -> Routing {
    let default = Routing {
        source: RoutingSource::File,
        file: directory.join("routing.toml"),
    };
    root.table("routing", |section| Routing {
        source: section
            .word(
                "source",
                &[("file", RoutingSource::File), ("api", RoutingSource::Api)],
            )
            .unwrap_or(default.source),
        file: section.path("file").unwrap_or(default.file.clone()),
    })
    .unwrap_or(default)
}

fn read_migrations(root: &Section<'_>) -> Migrations {
    let default = Migrations {
        window: Duration::from_secs(20),
        fence_budget: 20,
        fence_attempts: 3,
        settle: Duration::from_secs(30),
        heartbeat: Duration::from_secs(2),
        leader_ttl: Duration::from_secs(6),
        keep_ended: 720 * HOUR,
    };
    root.table("migrations", |section| Migrations {
        window: section
            .duration("window", SECOND..=LONGEST_WINDOW)
            .unwrap_or(default.window),
        fence_budget: section
            .number("fence_budget", 1..=10_000)
            .unwrap_or(default.fence_budget),
        fence_attempts: section
            .number("fence_attempts", 1..=100)
            .unwrap_or(default.fence_attempts),
        settle: section
            .duration("settle", MILLISECOND..=HOUR)
            .unwrap_or(default.settle),
        heartbeat: section
            .duration("heartbeat", 50 * MILLISECOND..=60 * SECOND)
            .unwrap_or(default.heartbeat),
        leader_ttl: section
            .duration("leader_ttl", SECOND..=LONGEST_LEADER_TTL)
            .unwrap_or(default.leader_ttl),
        keep_ended: section
            .duration("keep_ended", HOUR..=LONGEST_KEEP)
            .unwrap_or(default.keep_ended),
    })
    .unwrap_or(default)
}

fn read_admin(root: &Section<'_>) -> Option<Admin> {
    root.table("admin", |section| {
        let certificate = section.certificate_files("what callers of the admin endpoint are shown");
        let token_file = section.required(
            "token_file",
            "a file with the token that callers must know",
            section.token_file("token_file"),
        );
        // All are read whatever is wrong with the others, or they would pass for keys that nobody knows.
        let listen = section.address("listen");
        let health_listen = section.address("health_listen");
        Some(Admin {
            listen: listen.unwrap_or_else(|| loopback(9444)),
            certificate: certificate?,
            token_file: token_file?,
            health_listen,
        })
    })
    .flatten()
}

fn read_hook(hook: &Section<'_>, window: Duration) -> Option<HookConfig> {
    let command = hook.required(
        "command",
        "a program's absolute path and its arguments",
        hook.texts("command"),
    )?;
    let absolute = command
        .first()
        .is_some_and(|program| Path::new(program).is_absolute());
    if !absolute {
        hook.wrong(
            "command",
            "must begin with the absolute path of a program; its arguments follow",
        );
    }
    let timeout = hook
        .duration("timeout", MILLISECOND..=HOUR)
        .unwrap_or(Duration::from_secs(10).min(window / 2));
    if timeout >= window {
        hook.wrong(
            "timeout",
            format!("must be below migrations.window, which is {window:?}"),
        );
    }
    Some(HookConfig { command, timeout })
}

fn read_log(root: &Section<'_>) -> logging::Settings {
    let default = logging::Settings::default();
    root.section("log", |section| logging::Settings {
        format: section
            .word("format", logging::FORMATS)
            .unwrap_or(default.format),
        level: section
            .word("level", logging::LEVELS)
            .unwrap_or(default.level),
    })
}
