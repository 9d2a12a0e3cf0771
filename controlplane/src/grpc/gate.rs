//! The layer before every service: asks the [`Gate`], and gives every error its reason.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{
    auth::{Caller, Gate},
    status,
};
use crate::{config::Role, net::Peer};

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
        let answer = self.inner.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            status::complete(&mut response);
            if let Some(caller) = caller {
                note(&method, &caller, &response);
            }
            Ok(response)
        })
    }
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
