//! `[[pass_throughs]]`: connections of mail systems, each to one destination as a whole.

use std::net::SocketAddr;

use ferrypost_proto::DestinationId;
use ferrypost_runtime::config::Section;

use super::validate::{connections, label, proxy_protocol_from};
use crate::network::Network;

/// Where mail systems connect to be passed through.
#[derive(Debug, Clone)]
pub struct PassThrough {
    /// Its name in logs and statistics.
    pub name: String,
    /// Where it is bound. Port 0: any free one.
    pub address: SocketAddr,
    /// Whose endpoint for SMTP the connections go to.
    pub destination: DestinationId,
    /// Peers whose PROXY header is believed, and who must send one. Empty: nobody may.
    pub proxy_protocol_from: Vec<Network>,
    /// Connections at once. `None`: only the limits for all listeners.
    pub connections: Option<usize>,
}

pub(super) fn read(root: &Section<'_>) -> Vec<Option<PassThrough>> {
    root.tables("pass_throughs", pass_through)
}

fn pass_through(section: &Section<'_>) -> Option<PassThrough> {
    let name = section.required(
        "name",
        "what it is called in logs, as \"mx\"",
        section.parsed("name", label),
    );
    let address = section.required(
        "address",
        "where mail systems connect, as \"0.0.0.0:25\"",
        section.address("address"),
    );
    let destination = section.required(
        "destination",
        "whose server they are passed to, as the routing configuration names it",
        section.parsed("destination", DestinationId::parse),
    );
    for key in ["tls", "certificates"] {
        if section.has(key) {
            section.wrong(
                key,
                "TLS is between the two ends of what is passed through; the server shows its own certificate",
            );
        }
    }
    let trusted = proxy_protocol_from(section);
    let connections = connections(section);
    Some(PassThrough {
        name: name?,
        address: address?,
        destination: destination?,
        proxy_protocol_from: trusted?,
        connections,
    })
}
