//! `[[web]]`: where clients speak HTTP.

use std::net::SocketAddr;

use ferrypost_runtime::{config::Section, tls::CertificateFiles};

use super::validate::{connections, label, listener_certificates, proxy_protocol_from};
use crate::{limits::WebLimits, network::Network};

/// Where clients speak HTTP, under TLS.
#[derive(Debug, Clone)]
pub struct WebListener {
    /// Its name in logs and statistics.
    pub name: String,
    /// Where it is bound. Port 0: any free one.
    pub address: SocketAddr,
    /// The certificates to choose from by server name; never empty. The first is for clients that name
    /// none that fits.
    pub certificates: Vec<CertificateFiles>,
    /// Peers whose PROXY header is believed, and who must send one. Empty: nobody may.
    pub proxy_protocol_from: Vec<Network>,
    /// Proxies whose word about their clients is believed, as they say it in `Forwarded` and its kin. Empty: nobody's.
    pub trusted_peers: Vec<Network>,
    /// Client connections at once on this listener. `None`: only the limits for all listeners.
    pub connections: Option<usize>,
}

pub(super) fn read(root: &Section<'_>) -> Vec<Option<WebListener>> {
    root.tables("web", listener)
}

fn listener(section: &Section<'_>) -> Option<WebListener> {
    let name = section.required(
        "name",
        "what it is called in logs, as \"https\"",
        section.parsed("name", label),
    );
    let address = section.required(
        "address",
        "where clients connect, as \"0.0.0.0:443\"",
        section.address("address"),
    );
    let certificates = listener_certificates(section);
    let believed = proxy_protocol_from(section);
    let trusted = section.parsed_texts("trusted_peers", str::parse);
    let nobody = (!section.has("trusted_peers")).then(Vec::new);
    let connections = connections(section);
    Some(WebListener {
        name: name?,
        address: address?,
        certificates: certificates?,
        proxy_protocol_from: believed?,
        trusted_peers: trusted.or(nobody)?,
        connections,
    })
}

/// `[limits.web]`.
pub(super) fn set(group: &Section<'_>, web: &mut WebLimits) {
    group.set("head", &mut web.head);
    group.set("idle", &mut web.idle);
    group.set("stalled", &mut web.stalled);
    group.set("upstream_idle", &mut web.upstream_idle);
}
