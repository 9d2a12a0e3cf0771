//! A server's response, as the client may see it.

use std::{sync::Arc, time::SystemTime};

use aws_lc_rs::digest;
use ferrypost_http::{
    fields::clean_response,
    location::{PublicOrigin, public_location, public_refresh},
    rules::SignIn,
    target::Host,
    websocket::{BadUpgrade, Outcome},
};
use ferrypost_proto::Endpoint;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LOCATION, CONTENT_TYPE, LOCATION, REFRESH, SET_COOKIE},
};
use hyper::{body::Incoming, upgrade::OnUpgrade};

use super::{
    super::{
        body::{Download, Manner},
        client::Client,
        failure::Failure,
        running::Running,
        tunnel::carry,
    },
    asked::{Asked, seconds},
};

/// Says how a URL is put on the public host.
type Put = fn(&str, &PublicOrigin, &[Host]) -> Option<String>;

/// The fields with a URL that a client follows.
const LEADING: [(HeaderName, Put); 3] = [
    (LOCATION, public_location),
    (CONTENT_LOCATION, public_location),
    (REFRESH, public_refresh),
];

/// The response for the client.
pub(super) fn relayed(
    client: &Client,
    asked: &Asked,
    running: &Arc<Running>,
    response: Response<Incoming>,
) -> Result<Response<Download>, Failure> {
    let (mut parts, body) = response.into_parts();
    if let Some((handshake, at_client)) = &asked.web_socket {
        let is_h2 = running.with(|lease, _| lease.is_h2()).unwrap_or_default();
        let outcome = if is_h2 {
            handshake.check_connected(parts.status, &mut parts.headers, sha1)?
        } else {
            handshake.check_upgraded(parts.status, &mut parts.headers, sha1)?
        };
        if let Outcome::Accepted(status) = outcome {
            let at_server = parts.extensions.remove::<OnUpgrade>();
            let sides = (at_client.clone(), at_server.ok_or(BadUpgrade)?);
            return Ok(opened(client, running, sides, (status, parts.headers)));
        }
    }
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::UnaskedUpgrade);
    }
    clean_response(&mut parts.headers, asked.facts.reads_trailers)?;
    // Hardly any response leads anywhere, and only those need the server's own address.
    let leads = LEADING
        .iter()
        .any(|(name, _)| parts.headers.contains_key(name));
    let endpoint = running.with(|lease, record| {
        record.head(parts.status);
        leads.then(|| lease.endpoint.clone())
    });
    if let Some(endpoint) = endpoint.flatten() {
        stay_public(&mut parts.headers, &asked.public(), &own(&endpoint));
    }
    if let Some(sign_in) = &asked.sign_in {
        remember(client, sign_in, (parts.status, &mut parts.headers));
    }
    // Of all others a stranger gets as many, under whatever name.
    if parts.status.is_success() || parts.status == StatusCode::NOT_MODIFIED {
        running.let_in();
    }
    if let Some(streams) = &client.streams {
        streams.add(running);
    }
    let limits = client.web.services.limits.relay;
    let manner = Manner {
        is_event_stream: is_event_stream(&parts.headers),
        with_trailers: asked.facts.reads_trailers,
        drain: limits.drain,
        close: limits.close,
    };
    let body = Download::relayed(body, Arc::clone(running), manner);
    let mut relayed = Response::new(body);
    *relayed.status_mut() = parts.status;
    *relayed.headers_mut() = parts.headers;
    Ok(relayed)
}

/// The answer to a client whose WebSocket begins.
fn opened(
    client: &Client,
    running: &Arc<Running>,
    sides: (OnUpgrade, OnUpgrade),
    (status, headers): (StatusCode, HeaderMap),
) -> Response<Download> {
    running.with(|_, record| record.head(status));
    running.let_in();
    client.watch.upgrade();
    let patience = (&client.web.services.limits).into();
    let carried = carry(sides, Arc::clone(running), patience);
    // Until then its connection is in use, also where it is a stream among others.
    let in_progress = client.busy.enter();
    client.tasks.spawn(async move {
        carried.await;
        drop(in_progress);
    });
    let mut response = Response::new(Download::own(bytes::Bytes::new()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Proves understanding in a handshake, and keeps nothing secret.
fn sha1(octets: &[u8]) -> [u8; 20] {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, octets);
    let octets = digest.as_ref().try_into();
    octets.expect("SHA-1 has twenty octets")
}

/// Gives the browser our cookie beside its server's, if that took the sign-in.
#[expect(
    clippy::disallowed_methods,
    reason = "what browsers keep ends by the calendar"
)]
fn remember(client: &Client, sign_in: &SignIn, (status, headers): (StatusCode, &mut HeaderMap)) {
    let now = seconds(SystemTime::now());
    let keys = &client.web.cookie_keys;
    if let Some(cookie) = keys.remember(sign_in, (status, headers), now) {
        headers.append(SET_COOKIE, cookie);
    }
}

/// Server-sent events, whatever the parameters.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let essence = media_type.as_bytes().split(|&octet| octet == b';').next();
    essence.is_some_and(|essence| {
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// The server's own address, which clients cannot reach or must not.
fn own(endpoint: &Endpoint) -> Vec<Host> {
    let host = format!("{}:{}", endpoint.host, endpoint.port);
    Host::parse(host.as_bytes()).into_iter().collect()
}

fn stay_public(headers: &mut HeaderMap, public: &PublicOrigin, own: &[Host]) {
    for (name, put) in LEADING {
        let mut lines = headers.get_all(&name).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            continue;
        };
        let put = line.to_str().ok().and_then(|url| put(url, public, own));
        if let Some(url) = put.and_then(|url| HeaderValue::from_str(&url).ok()) {
            headers.insert(name, url);
        }
    }
}
