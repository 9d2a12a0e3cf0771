//! HTTP in a world: who serves it on either side, and by which rules requests go there.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cyrus::{self, Cyrus};
use crate::dovecot::{Dovecot, Role, Service};

use super::WorldError;
use super::files::{Example, reached};

/// Who serves HTTP.
#[derive(Debug, Clone, Default)]
pub(super) enum Web {
    /// Nobody.
    #[default]
    Nobodys,
    /// A Cyrus beside each Dovecot, with the same accounts.
    Cyruses,
    /// Servers that a test has in its hand, in clear.
    Sites(Sites),
    /// The servers of a shipped routing configuration.
    Shipped(Shipped),
}

impl Web {
    /// As which of the two a Dovecot is told the client's address.
    pub(super) fn told_as(&self, role: Role) -> Role {
        match self {
            Self::Shipped(shipped) if shipped.family == Family::WebSource => Role::Target,
            _ => role,
        }
    }
}

/// Two servers in clear, and how requests find them.
#[derive(Debug, Clone)]
pub struct Sites {
    /// Where the source and the target serve.
    pub servers: [SocketAddr; 2],
    /// How each learns the client's address: `proxy_v2`, `forwarded`, `x_forwarded`, `none`.
    pub announcements: [&'static str; 2],
    /// What both speak, as an endpoint's `versions` say it.
    pub versions: &'static str,
    /// Rules before the last, which tells accounts: TOML, tables of `[[http.rules]]`.
    pub rules: &'static str,
}

/// Which of the routing configurations with HTTP that ship.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The source has a web interface, and demands a PROXY header.
    WebSource,
    /// The source is a Dovecot, and all HTTP is the target's.
    DovecotSource,
}

impl Family {
    fn example(self) -> Example {
        match self {
            Self::WebSource => Example {
                file: "docs/examples/web-source/routing.toml",
                text: include_str!("../../../docs/examples/web-source/routing.toml"),
            },
            Self::DovecotSource => Example {
                file: "docs/examples/dovecot-source/routing.toml",
                text: include_str!("../../../docs/examples/dovecot-source/routing.toml"),
            },
        }
    }
}

/// A shipped routing configuration, and who serves HTTP under TLS there.
#[derive(Debug, Clone)]
pub struct Shipped {
    /// Which.
    pub family: Family,
    /// The source's server, where it has one.
    pub source: Option<SocketAddr>,
    /// The target's.
    pub target: SocketAddr,
    /// Who vouches for both: a file, from the root on.
    pub authority: PathBuf,
}

/// Whoever says who he is goes to where his account lives, and everybody else is asked.
const ACCOUNTS: &str = "[[http.rules]]\nname = \"accounts\"\naccount_from = [\"basic\", \"bearer\", \"cookie\"]\n\
    without_account = \"challenge\"\n\n";

/// Of Cyrus, what leads to the rest can be asked for by everybody. It is the same on both.
const SIGNPOSTS: &str = "[[http.rules]]\nname = \"signposts\"\nmethods = [\"GET\", \"HEAD\", \"PROPFIND\"]\n\
    paths = [\"/.well-known/*\"]\naccount_from = [\"basic\", \"bearer\"]\nwithout_account = \"default\"\nwrites_to_accounts = false\n\n";

/// Where clients of a data plane speak HTTP.
pub(super) fn listener(bound: SocketAddr) -> String {
    format!(
        "[[web]]\nname = \"https\"\naddress = \"{bound}\"\n\
         certificates = [{{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }}]\n\n"
    )
}

/// The routing configuration with HTTP at both destinations.
pub(super) fn with_sites(text: &str, sites: &Sites) -> Result<String, WorldError> {
    let endpoint = |side: usize| {
        format!(
            "[[destinations.endpoints]]\nprotocol = \"http\"\nhost = \"{}\"\nport = {}\ntls = \"none\"\n\
             plaintext_consent = true\nannouncement = \"{}\"\nversions = {}\n\n",
            sites.servers[side].ip(),
            sites.servers[side].port(),
            sites.announcements[side],
            sites.versions,
        )
    };
    with_endpoints(text, [endpoint(0), endpoint(1)], sites.rules)
}

/// The same with two Cyruses, under TLS, who are told nothing. One is left the choice of the version, which is HTTP/2.
pub(super) fn with_cyruses(text: &str, servers: &[Cyrus; 2]) -> Result<String, WorldError> {
    let endpoint = |side: usize| {
        let at = servers[side].addr(cyrus::Service::Https);
        format!(
            "[[destinations.endpoints]]\nprotocol = \"http\"\n{}\ntls = \"implicit\"\nannouncement = \"none\"\n\
             versions = {}\n\n",
            reached(at),
            ["[\"http/1.1\"]", "[\"http/1.1\", \"h2\"]"][side],
        )
    };
    with_endpoints(text, [endpoint(0), endpoint(1)], SIGNPOSTS)
}

/// The shipped routing configuration with the servers where they are.
pub(super) fn shipped(shipped: &Shipped, servers: [&Dovecot; 2]) -> Result<String, WorldError> {
    let mut values = Vec::new();
    for (line, server) in [
        ("host = \"old.example.org\"\nport = 993", servers[0]),
        ("host = \"new.example.org\"\nport = 993", servers[1]),
    ] {
        values.push((line, reached(server.addr(Service::Imaps))));
    }
    let site = |at: SocketAddr| {
        let (host, port) = (at.ip(), at.port());
        let authority = shipped.authority.display();
        format!(
            "host = \"{host}\"\nport = {port}\nca_file = \"{authority}\"\nserver_name = \"mail.example.org\""
        )
    };
    let source = "host = \"old.example.org\"\nport = 443";
    values.extend(shipped.source.map(|at| (source, site(at))));
    let target = "host = \"new.example.org\"\nport = 443";
    values.push((target, site(shipped.target)));
    shipped.family.example().filled_in(&values)
}

fn with_endpoints(
    text: &str,
    [source, target]: [String; 2],
    rules: &str,
) -> Result<String, WorldError> {
    const SECOND: &str = "[[destinations]]\nid = \"target\"\n";
    let (first, second) = text.split_once(SECOND).ok_or(WorldError::Example {
        example: "docs/examples/two-servers/routing.toml",
        line: SECOND.to_owned(),
    })?;
    Ok(format!(
        "{first}{source}{SECOND}\n{target}{second}\n{rules}{ACCOUNTS}"
    ))
}
