//! HTTP in a world: who serves it on either side, and by which rules requests go there.

use std::net::SocketAddr;

use crate::cyrus::{self, Cyrus};

use super::WorldError;

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
            super::files::reached(at),
            ["[\"http/1.1\"]", "[\"http/1.1\", \"h2\"]"][side],
        )
    };
    with_endpoints(text, [endpoint(0), endpoint(1)], SIGNPOSTS)
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
