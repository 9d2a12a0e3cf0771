//! `[[lookups]]`: where mail systems ask for the way of a recipient.

use std::collections::BTreeMap;

use ferrypost_proto::DestinationId;
use ferrypost_runtime::config::Section;
use ferrypost_wire::socketmap::MAX_VALUE;

use super::{local, validate};
use crate::{
    lookup::settings::{LookupProtocol, LookupSettings},
    net::local::Place,
    network::Network,
};

/// Who may ask unless the file says otherwise: this machine.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Socketmap,
    Http,
}

pub(super) fn read(section: &Section<'_>) -> Option<LookupSettings> {
    let name = section.required(
        "name",
        "what it is called in logs, as \"transport\"",
        section.parsed("name", validate::label),
    );
    let protocol = section.required_word(
        "protocol",
        &[("socketmap", Word::Socketmap), ("http", Word::Http)],
    );
    let place = local::place(section, "where mail systems ask, as \"127.0.0.1:2527\"");
    let from = from(section, place.as_ref());
    let next_hops = next_hops(section);
    let protocol = with_certificates(section, protocol, place.as_ref());
    Some(LookupSettings {
        name: name?,
        protocol: protocol?,
        place: place?,
        from: from?,
        next_hops: next_hops?,
    })
}

fn from(section: &Section<'_>, place: Option<&Place>) -> Option<Vec<Network>> {
    if !section.has("from") {
        let loopback = LOOPBACK.iter();
        return loopback.map(|network| network.parse().ok()).collect();
    }
    if let Some(Place::File { .. }) = place {
        section.wrong(
            "from",
            "is for an address; who may open a socket is said by its mode",
        );
        return None;
    }
    section.parsed_texts("from", str::parse)
}

fn with_certificates(
    section: &Section<'_>,
    protocol: Option<Word>,
    place: Option<&Place>,
) -> Option<LookupProtocol> {
    let certificates: Option<Vec<_>> = validate::certificates(section).into_iter().collect();
    let certificates = certificates?;
    let refusal = match (protocol?, place) {
        _ if certificates.is_empty() => None,
        (Word::Socketmap, _) => Some(
            "a socketmap has no TLS; use protocol = \"http\", or a private network (docs/lookups.md)",
        ),
        (Word::Http, Some(Place::File { .. })) => Some("are for an address, not for a socket"),
        (Word::Http, _) => None,
    };
    if let Some(refusal) = refusal {
        section.wrong("certificates", refusal);
        return None;
    }
    Some(match protocol? {
        Word::Socketmap => LookupProtocol::Socketmap,
        Word::Http => LookupProtocol::Http(certificates),
    })
}

fn next_hops(section: &Section<'_>) -> Option<BTreeMap<DestinationId, String>> {
    let read = section.parsed_texts("next_hops", next_hop);
    let read = section.required(
        "next_hops",
        "the way to each destination, as [\"source lmtp:inet:old.example.org:24\"]",
        read,
    )?;
    let mut next_hops = BTreeMap::new();
    for (destination, next_hop) in read {
        if next_hops.contains_key(&destination) {
            section.wrong("next_hops", format!("\"{destination}\" is there twice"));
            return None;
        }
        next_hops.insert(destination, next_hop);
    }
    Some(next_hops)
}

/// A destination and what a mail system is to do for it, in its own words.
fn next_hop(text: &str) -> Result<(DestinationId, String), &'static str> {
    const WANTED: &str =
        "write a destination, a space and the next hop, as \"source lmtp:inet:old.example.org:24\"";
    let (destination, next_hop) = text.split_once(' ').ok_or(WANTED)?;
    let destination = DestinationId::parse(destination).map_err(|_| WANTED)?;
    let next_hop = next_hop.trim();
    let is_one = (1..=MAX_VALUE).contains(&next_hop.len())
        && next_hop
            .bytes()
            .all(|it| it.is_ascii_graphic() || it == b' ');
    is_one
        .then(|| (destination, next_hop.to_owned()))
        .ok_or(WANTED)
}
