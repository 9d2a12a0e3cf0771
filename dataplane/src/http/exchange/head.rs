//! The head of a request as its server gets it.

use ferrypost_http::forwarded::{self, Announcement};
use ferrypost_proto::{Endpoint, EndpointTls};
use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::HOST,
    uri::{Parts, Scheme},
};
use hyper::ext::Protocol;

use super::{
    super::{client::Client, upstream::Lease},
    asked::Asked,
};

/// The head.
pub(super) fn head(client: &Client, asked: &Asked, lease: &Lease) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = asked.method.clone();
    let target = asked.target.forwarded();
    let target: Uri = target
        .parse()
        .expect("a normal path and a query that was looked at are a target");
    let mut headers = asked.headers.clone();
    let host = asked.target.host.to_string();
    if lease.is_h2() {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = absolute(target, &host, &lease.endpoint);
        headers.remove(HOST);
        if let Some((handshake, _)) = &asked.web_socket {
            *request.method_mut() = Method::CONNECT;
            let protocol = Protocol::from_static("websocket");
            request.extensions_mut().insert(protocol);
            handshake.ask_by_connect(&mut headers);
        }
    } else {
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = target;
        let host = host
            .parse()
            .expect("a host is letters, digits and punctuation");
        headers.insert(HOST, host);
        if let Some((handshake, _)) = &asked.web_socket {
            handshake.ask_by_upgrade(&mut headers);
        }
    }
    announce(client, asked, (&mut headers, &lease.endpoint));
    *request.headers_mut() = headers;
    request
}

/// As HTTP/2 has it, with the scheme of the connection and the host in place of `Host` (RFC 9113 §8.3.1).
fn absolute(target: Uri, host: &str, endpoint: &Endpoint) -> Uri {
    let mut parts = Parts::from(target);
    parts.scheme = Some(match endpoint.tls {
        EndpointTls::PlaintextByConsent(_) => Scheme::HTTP,
        EndpointTls::Implicit(_) | EndpointTls::StartTls(_) => Scheme::HTTPS,
    });
    let host = host
        .parse()
        .expect("a host is letters, digits and punctuation");
    parts.authority = Some(host);
    Uri::from_parts(parts).expect("it has a scheme, an authority and a path")
}

fn announce(client: &Client, asked: &Asked, (headers, endpoint): (&mut HeaderMap, &Endpoint)) {
    let announced = forwarded::Client {
        address: Some(client.ends.peer),
        host: &asked.target.host,
        secure: true,
    };
    forwarded::announce(headers, announcement(endpoint), client.peer, &announced);
}

/// How the endpoint wants to be told of clients, where that is in the header.
fn announcement(endpoint: &Endpoint) -> Announcement {
    match endpoint.announcement {
        ferrypost_proto::Announcement::Forwarded => Announcement::Forwarded,
        ferrypost_proto::Announcement::XForwarded => Announcement::XForwarded,
        _ => Announcement::None,
    }
}
