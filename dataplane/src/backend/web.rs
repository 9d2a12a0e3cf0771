//! How a web server is: whether it answers anything at all, and if not, whether the PROXY header is to blame.

use std::{net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use ferrypost_proto::{Announcement, Endpoint, EndpointTls};
use ferrypost_wire::TlsFacts;
use http::{Method, Request, StatusCode, Uri, Version, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{
    ProbeReport, Problem,
    health::{certificate_verdict, dial_problem, problem, protection},
    open::OpenError,
    second_look::{about_the_header_of, is_silent},
};
use crate::net::{
    dial::{DialError, Dialer, Fresh},
    h2,
    leg::BackendLeg,
    proxy,
    tasks::Tasks,
    tls_client::TlsError,
    transport::AnyTransport,
};

/// Octets of a response's head.
pub(super) const MAX_HEAD: u16 = u16::MAX;

/// Visits an endpoint and tells what was found there: `OPTIONS *` is about the server and of no account's (RFC 9110
/// §9.3.7), and whatever answers it speaks HTTP. HTTP/2 has a path in its place, and an answer is one whatever it says.
pub(super) async fn visit(dialer: &Dialer, endpoint: &Endpoint) -> ProbeReport {
    let mut report = ProbeReport::of(endpoint);
    let with_header = endpoint.announcement == Announcement::ProxyV2;
    let in_doubt = match look(dialer, endpoint, with_header).await {
        Ok(heard) => {
            let in_doubt = heard.is_in_doubt(with_header);
            let known = &heard.known;
            report.address = Some(known.address);
            report.tls = protection(endpoint, known.tls.as_ref(), known.certificate_end);
            report.problem = heard.answer.err();
            in_doubt
        }
        Err(error) => {
            let in_doubt = is_silent(&error);
            let error = OpenError::from(error);
            report.tls =
                certificate_verdict(&error).unwrap_or_else(|| protection(endpoint, None, None));
            report.problem = Some(problem(&error));
            in_doubt
        }
    };
    if in_doubt && is_answered(dialer, endpoint, !with_header).await {
        report.problem = Some(about_the_header_of(endpoint));
    }
    report
}

/// What a server has said.
struct Heard {
    known: Known,
    answer: Result<StatusCode, Problem>,
}

/// What is known of a connection beside it.
pub(super) struct Known {
    address: SocketAddr,
    tls: Option<TlsFacts>,
    certificate_end: Option<i64>,
    pub(super) is_h2: bool,
}

impl Heard {
    /// Whether the header may be what is wrong. Not where TLS has begun behind it, or without it. In clear a server that
    /// knows none takes it for a bad request.
    fn is_in_doubt(&self, with_header: bool) -> bool {
        let is_in_doubt = match self.answer {
            Ok(status) => with_header && status == StatusCode::BAD_REQUEST,
            Err(_) => true,
        };
        is_in_doubt && self.known.tls.is_none()
    }
}

/// Whether it has something to say to whoever does the opposite about the header.
async fn is_answered(dialer: &Dialer, endpoint: &Endpoint, with_header: bool) -> bool {
    match look(dialer, endpoint, with_header).await {
        Ok(heard) => {
            heard.known.tls.is_some() || heard.answer.is_ok_and(|it| it != StatusCode::BAD_REQUEST)
        }
        Err(error) => matches!(error, DialError::Tls(TlsError::Certificate(_))),
    }
}

async fn look(dialer: &Dialer, endpoint: &Endpoint, with_header: bool) -> Result<Heard, DialError> {
    let (known, transport) = dial(dialer, endpoint, with_header).await?;
    let limit = dialer.limits().negotiate;
    let answer = if known.is_h2 {
        ask_h2(transport, endpoint, limit).await
    } else {
        ask(transport, endpoint, limit).await
    };
    Ok(Heard { known, answer })
}

pub(super) async fn dial(
    dialer: &Dialer,
    endpoint: &Endpoint,
    with_header: bool,
) -> Result<(Known, AnyTransport), DialError> {
    let preface = if with_header {
        proxy::local()
    } else {
        Vec::new()
    };
    let addresses = dialer.resolve(endpoint).await?;
    let dialled = dialer.dial(endpoint, &addresses, &preface).await;
    let dialled = dialled.map_err(|failure| failure.error)?;
    let leg = match dialled.leg {
        Fresh::Tls(leg) => BackendLeg::Tls(leg),
        Fresh::Consented(leg) => BackendLeg::Consented(leg),
        // There is no STARTTLS in HTTP.
        Fresh::Clear(_) => return Err(DialError::Io(std::io::ErrorKind::Unsupported.into())),
    };
    let known = Known {
        address: dialled.address,
        tls: dialled.tls,
        certificate_end: leg.certificate_end(),
        is_h2: dialled.is_h2,
    };
    Ok((known, leg.into_parts().0))
}

/// What an HTTP/2 server answers. Its first words alone may be said before it has read ours.
async fn ask_h2(
    transport: AnyTransport,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<StatusCode, Problem> {
    let mut tasks = Tasks::new();
    let spawner = tasks.spawner();
    let asked = async {
        let begun = h2::begin(transport, &spawner, MAX_HEAD.into(), limit).await;
        let (mut sender, connection) = begun.map_err(|error| dial_problem(&error))?;
        spawner.spawn(async { _ = connection.await });
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = root(endpoint);
        *request.version_mut() = Version::HTTP_2;
        let answered = timeout(limit, sender.send_request(request)).await;
        let answered = answered.map_err(|_| Problem::Timeout)?;
        answered
            .map(|response| response.status())
            .map_err(|_| Problem::BadReply)
    };
    tasks.beside(asked).await
}

/// The endpoint itself.
fn root(endpoint: &Endpoint) -> Uri {
    let scheme = match endpoint.tls {
        EndpointTls::PlaintextByConsent(_) => "http",
        EndpointTls::Implicit(_) | EndpointTls::StartTls(_) => "https",
    };
    let (host, port) = (&endpoint.host, endpoint.port);
    let by_name = format!("{scheme}://{host}:{port}/");
    let by_address = || format!("{scheme}://[{host}]:{port}/").parse();
    by_name
        .parse()
        .or_else(|_| by_address())
        .unwrap_or_default()
}

/// What an HTTP/1 server answers.
async fn ask(
    transport: AnyTransport,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<StatusCode, Problem> {
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
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            _ = &mut connection => answer.await,
        };
        answered.map(|response| response.status())
    };
    match timeout(limit, asked).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) if error.is_parse() => Err(Problem::BadReply),
        Ok(Err(_)) => Err(Problem::Unreachable),
        Err(_) => Err(Problem::Timeout),
    }
}
