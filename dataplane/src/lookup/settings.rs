//! Where mail systems ask, and what they are told.

use std::collections::BTreeMap;

use ferrypost_proto::DestinationId;
use ferrypost_runtime::tls::CertificateFiles;

use crate::{net::local::Place, network::Network};

/// One listener for look-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupSettings {
    /// Its name in logs.
    pub name: String,
    /// How it is asked.
    pub protocol: LookupProtocol,
    /// Where it is bound.
    pub place: Place,
    /// Who may ask at an address. Everybody else is hung up on: what is asked here tells which accounts have moved.
    pub from: Vec<Network>,
    /// What a mail system is to do for a destination, in its own words.
    pub next_hops: BTreeMap<DestinationId, String>,
}

/// How look-ups are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupProtocol {
    /// Postfix's `socketmap_table(5)`, which sendmail and, by `${readsocket}`, Exim can ask too.
    Socketmap,
    /// HTTP/1.1; under TLS where there are certificates.
    Http(Vec<CertificateFiles>),
}
