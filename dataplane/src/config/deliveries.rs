//! `[[deliveries]]`: where mail systems deliver.

use ferrypost_runtime::{config::Section, tls::CertificateFiles};

use super::{DeliveryListener, DeliveryProtocol, local, validate};
use crate::network::Network;

/// Who may deliver to an address unless the file says otherwise: this machine.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

pub(super) fn read(root: &Section<'_>) -> Vec<Option<DeliveryListener>> {
    root.tables("deliveries", listener)
}

fn listener(section: &Section<'_>) -> Option<DeliveryListener> {
    let name = section.required(
        "name",
        "what it is called in logs, as \"lmtp\"",
        section.parsed("name", validate::label),
    );
    let protocol = section.required_word(
        "protocol",
        &[DeliveryProtocol::Lmtp, DeliveryProtocol::Smtp].map(|it| (it.word(), it)),
    );
    let place = local::place(section, "where mail systems deliver, as \"127.0.0.1:24\"");
    let from = from(section);
    let certificates = certificates(section);
    let connections = section.section("limits", |limits| {
        limits.number("connections", 1..=usize::MAX)
    });
    Some(DeliveryListener {
        name: name?,
        protocol: protocol?,
        place: place?,
        from: from?,
        certificates: certificates?,
        connections,
    })
}

/// This machine, unless the file says otherwise.
fn from(section: &Section<'_>) -> Option<Vec<Network>> {
    if !section.has("from") {
        return LOOPBACK
            .iter()
            .map(|network| network.parse().ok())
            .collect();
    }
    if section.has("socket") {
        section.wrong(
            "from",
            "is for an address; who may write to a socket is said with `mode`",
        );
    }
    let from = section.parsed_texts("from", str::parse)?;
    if from.is_empty() {
        section.wrong(
            "from",
            "name the mail systems that may deliver, as [\"192.0.2.25\"]",
        );
        return None;
    }
    Some(from)
}

fn certificates(section: &Section<'_>) -> Option<Vec<CertificateFiles>> {
    if !section.has("certificates") {
        return Some(Vec::new());
    }
    if section.has("socket") {
        section.wrong(
            "certificates",
            "are for an address; a socket in the file system needs none",
        );
    }
    validate::listener_certificates(section)
}
