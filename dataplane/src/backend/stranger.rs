//! Servers that mail systems are passed through to: whether an endpoint is one for that, and what its server makes of
//! somebody whom it does not know.
//!
//! Whoever connects is announced by a PROXY header, so that the server judges him and not us; what he says behind it is
//! his own. A server that let him announce *another* address, because of who he is or because the header does not
//! matter to it, would believe whatever anybody types. So a probe comes as a stranger: from an address that is
//! nobody's (RFC 5737 §3), and looks what it is offered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferrypost_proto::{Announcement, Endpoint, EndpointTls};
use ferrypost_wire::{
    BackendViolation, ClientFacts, HopLimit, Introduction, LineProtocol as _, Negotiate as _,
    SessionReference,
    smtp::{Submission, SubmissionBack},
};

use super::{
    Offered, ProbeReport, Problem,
    health::{certificate_verdict, leave, problem, protection},
    open::{Caller, OpenError, Opened, open},
    second_look::about_the_header,
};
use crate::net::{dial::Dialer, proxy::Announced};

/// Where the stranger comes from, and what he has connected to.
const NOBODYS: [SocketAddr; 2] = [of_nobody(1), of_nobody(2)];

/// By which a client says who somebody else is: to whom it is offered is whom the server believes.
const WORDS_OF_PROXIES: [&str; 2] = ["XCLIENT", "XFORWARD"];

const fn of_nobody(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 25)
}

/// Why nothing is passed through to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The server would take our address for everybody's.
    #[error(
        "its endpoint says announcement = \"{}\": whoever is passed through is announced by a PROXY header or not at \
         all, so use \"proxy_v2\" and let the server expect it", .0.word()
    )]
    NotByProxy(Announcement),
    /// The server's TLS would not be what the client asks for.
    #[error(
        "its endpoint says tls = \"implicit\": TLS is between the two ends of what is passed through, so use \
         \"starttls\", or \"none\" where the server has no certificate that we could verify"
    )]
    ImplicitTls,
}

/// Whether connections can be passed through to an endpoint.
///
/// # Errors
/// [`Unfit`]
pub fn fit(endpoint: &Endpoint) -> Result<(), Unfit> {
    if endpoint.announcement != Announcement::ProxyV2 {
        return Err(Unfit::NotByProxy(endpoint.announcement));
    }
    match endpoint.tls {
        EndpointTls::Implicit(_) => Err(Unfit::ImplicitTls),
        EndpointTls::StartTls(_) | EndpointTls::PlaintextByConsent(_) => Ok(()),
    }
}

/// Visits an endpoint as a stranger and tells what was found there.
pub(super) async fn visit(dialer: &Dialer, endpoint: &Endpoint) -> ProbeReport {
    let mut report = ProbeReport::of(endpoint);
    if fit(endpoint).is_err() {
        report.problem = Some(Problem::UnfitEndpoint);
        return report;
    }
    let facts = stranger();
    let caller = Caller::Client(Announced {
        client: &facts,
        alpn: None,
    });
    match open(dialer, endpoint, caller, Submission::back).await {
        Ok(opened) => {
            report.address = Some(opened.address);
            report.tls = protection(endpoint, opened.tls.as_ref(), opened.leg.certificate_end());
            opened.back.greeting().clone_into(&mut report.greeting);
            report.capabilities = opened.back.offered().map(Offered::of);
            report.problem = believes_strangers(&opened).then_some(Problem::BelievesStrangers);
            leave(opened).await;
        }
        Err(failure) => {
            report.address = failure.address;
            report.tls = certificate_verdict(&failure.error)
                .unwrap_or_else(|| protection(endpoint, failure.tls.as_ref(), None));
            if !turned_away(&failure.error) {
                let header = about_the_header(dialer, endpoint, (&failure, Submission::back)).await;
                report.problem = Some(header.unwrap_or_else(|| problem(&failure.error)));
            }
            report.greeting = failure.greeting;
        }
    }
    report
}

fn stranger() -> ClientFacts {
    let [peer, local] = NOBODYS;
    let session = SessionReference::new("probe".to_owned());
    ClientFacts {
        peer,
        local,
        tls: None,
        session: session.expect("a word is a reference"),
        hops: HopLimit::FIRST,
        introduction: Introduction::default(),
    }
}

fn believes_strangers(opened: &Opened<SubmissionBack>) -> bool {
    let lists = [opened.back.offered_in_clear(), opened.back.offered()];
    let mut lists = lists.into_iter().flatten();
    lists.any(|list| WORDS_OF_PROXIES.iter().any(|word| list.has(word)))
}

/// Whether the server is well and will not have a stranger: others it may serve.
fn turned_away(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Refused(_) | OpenError::Violation(BackendViolation::CapabilitiesMissing)
    )
}
