//! Where a server leads JMAP's clients. Stalwart's session resource has its URLs without a login too; of a server that asks
//! for one nothing is known here.

use bytes::Bytes;
use ferrypost_http::{
    fields::Peer,
    forwarded,
    jmap::{MAX_SESSION, NotPublic, check_session},
    target::Host,
};
use ferrypost_proto::{Announcement, Endpoint};
use http::{
    Request, StatusCode, Version,
    header::{HOST, LOCATION},
    response::Parts,
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::web::{MAX_HEAD, dial};
use crate::net::{dial::Dialer, h2, tasks::Tasks};

/// Whether the session resource that JMAP's clients find has URLs that are not on the public host.
pub(super) async fn leads_elsewhere(dialer: &Dialer, endpoint: &Endpoint, public: &Host) -> bool {
    let mut path = "/.well-known/jmap".to_owned();
    // One step further, which is what it usually takes.
    for _ in 0..2 {
        let limit = dialer.limits().negotiate;
        let fetched = timeout(limit, fetch(dialer, endpoint, (public, &path))).await;
        let Ok(Some((parts, body))) = fetched else {
            return false;
        };
        if parts.status == StatusCode::OK {
            let checked = check_session(&body, public);
            return matches!(checked, Err(NotPublic::Url { .. }));
        }
        let location = parts.headers.get(LOCATION).and_then(|it| it.to_str().ok());
        match location.filter(|it| it.starts_with('/') && !it.starts_with("//")) {
            Some(further) => further.clone_into(&mut path),
            None => return false,
        }
    }
    false
}

/// A page that is everybody's, as a client of the public host gets it.
async fn fetch(
    dialer: &Dialer,
    endpoint: &Endpoint,
    (public, path): (&Host, &str),
) -> Option<(Parts, Bytes)> {
    let with_header = endpoint.announcement == Announcement::ProxyV2;
    let (known, transport) = dial(dialer, endpoint, with_header).await.ok()?;
    let mut request = Request::new(Empty::<Bytes>::new());
    let mut tasks = Tasks::new();
    let spawner = tasks.spawner();
    let announced = forwarded::Client {
        address: None,
        host: public,
        secure: true,
    };
    let announcement = match endpoint.announcement {
        Announcement::Forwarded => forwarded::Announcement::Forwarded,
        Announcement::XForwarded => forwarded::Announcement::XForwarded,
        _ => forwarded::Announcement::None,
    };
    forwarded::announce(
        request.headers_mut(),
        announcement,
        Peer::Stranger,
        &announced,
    );
    let fetched = async {
        let answered = if known.is_h2 {
            *request.uri_mut() = format!("https://{public}{path}").parse().ok()?;
            *request.version_mut() = Version::HTTP_2;
            let limit = dialer.limits().negotiate;
            let begun = h2::begin(transport, &spawner, MAX_HEAD.into(), limit).await;
            let (mut sender, connection) = begun.ok()?;
            spawner.spawn(async { _ = connection.await });
            sender.send_request(request).await
        } else {
            *request.uri_mut() = path.parse().ok()?;
            let host = public.to_string().parse().ok()?;
            request.headers_mut().insert(HOST, host);
            let io = TokioIo::new(transport);
            let (mut sender, connection) = http1::handshake(io).await.ok()?;
            spawner.spawn(async { _ = connection.await });
            sender.send_request(request).await
        };
        let (parts, body) = answered.ok()?.into_parts();
        let body = Limited::new(body, MAX_SESSION).collect().await.ok()?;
        Some((parts, body.to_bytes()))
    };
    tasks.beside(fetched).await
}
