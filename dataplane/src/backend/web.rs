//! How a web server is: whether it answers anything at all.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use ferrypost_proto::{Announcement, Endpoint};
use http::{Method, Request, Version, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    ProbeReport, Problem,
    health::{certificate_verdict, problem, protection},
    open::OpenError,
};
use crate::net::{
    dial::{Dialer, Dialled, Fresh},
    leg::BackendLeg,
    proxy,
};

/// Visits an endpoint and tells what was found there: `OPTIONS *` is about the server and of no account's (RFC 9110
/// §9.3.7), and whatever answers it speaks HTTP.
pub(super) async fn visit(dialer: &Dialer, endpoint: &Endpoint) -> ProbeReport {
    let mut report = ProbeReport::of(endpoint);
    match dial(dialer, endpoint).await {
        Ok(dialled) => {
            report.address = Some(dialled.address);
            report.tls = protection(endpoint, dialled.tls.as_ref());
            report.problem = ask(dialled.leg, endpoint, dialer.limits().negotiate).await;
        }
        Err(error) => {
            report.tls = certificate_verdict(&error).unwrap_or_else(|| protection(endpoint, None));
            report.problem = Some(problem(&error));
        }
    }
    report
}

async fn dial(dialer: &Dialer, endpoint: &Endpoint) -> Result<Dialled, OpenError> {
    let preface = match endpoint.announcement {
        Announcement::ProxyV2 => proxy::local(),
        _ => Vec::new(),
    };
    let addresses = dialer.resolve(endpoint).await?;
    let dialled = dialer.dial(endpoint, &addresses, &preface).await;
    Ok(dialled.map_err(|failure| failure.error)?)
}

/// What is wrong with what it says; nothing, if that is HTTP.
async fn ask(leg: Fresh, endpoint: &Endpoint, limit: Duration) -> Option<Problem> {
    let leg = match leg {
        Fresh::Tls(leg) => BackendLeg::Tls(leg),
        Fresh::Consented(leg) => BackendLeg::Consented(leg),
        // There is no STARTTLS in HTTP.
        Fresh::Clear(_) => return Some(Problem::NoStartTls),
    };
    let (transport, _) = leg.into_parts();
    let asked = async {
        let io = TokioIo::new(transport);
        let (mut sender, connection) = http1::handshake(io).await?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = "*".parse().expect("it is a target");
        *request.version_mut() = Version::HTTP_11;
        if let Ok(host) = endpoint.host.parse() {
            request.headers_mut().insert(HOST, host);
        }
        let mut connection = pin!(connection);
        let mut answer = pin!(sender.send_request(request));
        tokio::select! {
            biased;
            answered = &mut answer => answered.map(drop),
            _ = &mut connection => answer.await.map(drop),
        }
    };
    match timeout(limit, asked).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.is_parse() => Some(Problem::BadReply),
        Ok(Err(_)) => Some(Problem::Unreachable),
        Err(_) => Some(Problem::Timeout),
    }
}
