//! The layer before every service: asks the [`Gate`], ends calls at their callers' deadlines, and gives every
//! error its reason.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    auth::{Caller, Gate},
    status,
};
use crate::{
    config::Role,
    net::Peer,
    refusal::{Reason, Refusal},
};

/// Puts a gate before a listener's services.
#[derive(Debug, Clone)]
pub(crate) struct GateLayer(Arc<Gate>);

impl GateLayer {
    /// Asks `gate` about every request.
    pub(crate) fn new(gate: Gate) -> Self {
        Self(Arc::new(gate))
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.0.clone(),
            inner,
        }
    }
}

/// A service behind a gate.
#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().to_owned();
        let peer = request.extensions().get::<Peer>().cloned();
        let admitted = self.gate.admit(&method, request.headers(), peer.as_ref());
        let caller = match admitted {
            Ok(caller) => caller,
            Err(refusal) => {
                tracing::info!(method, peer = ?peer.map(|p| p.address), reason = refusal.reason.word(),
                    "a call was refused");
                let response = Status::from(refusal).into_http();
                return Box::pin(async move { Ok(response) });
            }
        };
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        let deadline = deadline(request.headers());
        let answer = self.inner.call(request);
        // The library has the same clock and no reason in its answer, so this one has to end first.
        let limit = deadline.map(|limit| time::sleep(limit.saturating_sub(MARGIN)));
        Box::pin(async move {
            let mut response = match limit {
                None => answer.await?,
                Some(limit) => tokio::select! {
                    biased;
                    answer = answer => answer?,
                    () = limit => too_late().into_http(),
                },
            };
            status::complete(&mut response);
            if let Some(caller) = caller {
                note(&method, &caller, &response);
            }
            Ok(response)
        })
    }
}

/// How much earlier than the library a call is ended: a tick of its clock.
const MARGIN: Duration = Duration::from_millis(1);

fn too_late() -> Status {
    Refusal::new(
        Reason::DeadlineExceeded,
        "the caller's deadline is over; a move that was started goes on",
    )
    .into()
}

/// How long the caller waits: `grpc-timeout`, up to eight digits and a unit (gRPC over HTTP/2, "Requests").
/// What is not of this form counts as none, as it does for the library.
fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Says in the log who did what: every call that may have changed something.
fn note(method: &str, caller: &Caller, response: &http::Response<Body>) {
    let changes = super::auth::needed_role(method).is_some_and(|role| role > Role::Viewer);
    if !changes {
        return;
    }
    let code =
        Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code());
    tracing::info!(method, caller = &*caller.name, ?code, "called");
}

#[cfg(test)]
mod tests {
    use std::{future, path::Path};

    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{config::Config, grpc::auth::OperatorGate};

    /// Never answers.
    struct Silent;

    impl Service<http::Request<Body>> for Silent {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = future::Pending<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            future::pending()
        }
    }

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a value"));
            deadline(&headers)
        };
        assert_eq!(read("2H"), Some(Duration::from_hours(2)));
        assert_eq!(read("3M"), Some(Duration::from_mins(3)));
        assert_eq!(read("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        assert_eq!(read("0n"), Some(Duration::ZERO));
        for wrong in ["", "S", "5", "5s", "+5S", "123456789S", "1 S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(deadline(&http::HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_has_its_reason() {
        let config = Config::parse("", Path::new("controlplane.toml")).expect("valid");
        let gate = OperatorGate::new(config.operators()).expect("no files");
        let call = http::Request::builder()
            .uri("/grpc.health.v1.Health/Check")
            .header("grpc-timeout", "250m")
            .body(Body::empty())
            .expect("a request");
        let began = time::Instant::now();
        let mut gated = GateLayer::new(Gate::Operators(gate)).layer(Silent);
        let Ok(response) = gated.call(call).await;
        assert!(began.elapsed() < Duration::from_millis(250));
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    }
}
