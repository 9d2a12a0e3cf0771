//! What exporting costs whoever is served: four data planes beside each other in front of the same server.
//!
//! One exports nothing, one has a collector that takes everything, one a collector that nobody has started, one a
//! collector that takes connections and never answers. What is exported is everything: the standard's defaults, of which
//! a large installation uses a share. What the exporter does is counted as the data plane's, as it is in its process;
//! what a collector does is not.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::load::{self, Direction};
use super::protocol::Protocol;
use super::relay::{Amounts, SLICES, WARM_UP, per, used};
use super::rig::{Proxy, Rig};
use super::table::{median, progress};
use crate::ports::Port;

/// What one of them used, in medians.
pub(super) struct Exporting {
    /// What its collector does.
    pub(super) collector: &'static str,
    /// CPU seconds of a login.
    pub(super) login: f64,
    /// CPU seconds.
    pub(super) gibibyte_down: f64,
    /// Seconds that a NOOP takes, as a client sees it.
    pub(super) noop: f64,
}

/// In the order in which they are shown.
const COLLECTORS: [&str; 4] = ["none", "there", "away", "silent"];

#[derive(Default)]
struct Rounds {
    login: Vec<f64>,
    gibibyte_down: Vec<f64>,
    noop: Vec<f64>,
}

/// Measures all of them, in slices that take turns.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Vec<Exporting>> {
    let rig = Rig::start().await?;
    let there = TcpListener::bind("127.0.0.1:0").await?;
    let away = Port::reserve()?;
    // Connections wait in its backlog for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let endpoints = [
        None,
        Some(format!("http://{}", there.local_addr()?)),
        Some(format!("http://{}", away.addr())),
        Some(format!("http://{}", silent.local_addr()?)),
    ];
    let collecting = tokio::spawn(collect(there));
    let mut rounds: [Rounds; 4] = Default::default();
    for round in 1..=amounts.rounds {
        progress(&format!(
            "with and without a collector, round {round} of {}",
            amounts.rounds
        ));
        let mut proxies = Vec::new();
        for (name, endpoint) in COLLECTORS.iter().zip(&endpoints) {
            proxies.push(rig.exporting(name, endpoint.as_deref()).await?);
        }
        run(&proxies, amounts, &mut rounds).await?;
        for proxy in proxies {
            proxy.stop().await?;
        }
    }
    collecting.abort();
    let all = COLLECTORS.into_iter().zip(rounds);
    let medians = all.map(|(collector, rounds)| Exporting {
        collector,
        login: median(rounds.login.into_iter()),
        gibibyte_down: median(rounds.gibibyte_down.into_iter()),
        noop: median(rounds.noop.into_iter()),
    });
    Ok(medians.collect())
}

async fn run(proxies: &[Proxy], amounts: Amounts, rounds: &mut [Rounds; 4]) -> anyhow::Result<()> {
    for proxy in proxies {
        load::logins(proxy.target(Protocol::Imap), WARM_UP).await?;
    }
    let slice = amounts.logins.div_ceil(SLICES);
    let messages = (amounts.mebibytes << 20).div_ceil(load::octets(1) * SLICES);
    for _ in 0..SLICES {
        for (proxy, rounds) in proxies.iter().zip(&mut *rounds) {
            let target = proxy.target(Protocol::Imap);
            let login = used(proxy, load::logins(target, slice)).await?;
            rounds.login.push(login.as_secs_f64() / per(slice));
            let bulk = used(proxy, load::bulk(target, Direction::Down, messages)).await?;
            let gibibyte = bulk.as_secs_f64() * per(1 << 30) / per(load::octets(messages));
            rounds.gibibyte_down.push(gibibyte);
            let noop = load::noops(target, amounts.noops).await?;
            rounds.noop.push(noop.as_secs_f64());
        }
    }
    Ok(())
}

/// A collector that takes everything from everybody.
async fn collect(listener: TcpListener) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(take_all(connection));
    }
}

async fn take_all(connection: TcpStream) {
    let server = http2::Builder::new(TokioExecutor::new());
    let serving = server.serve_connection(TokioIo::new(connection), service_fn(take));
    // It ends with the data plane.
    _ = serving.await;
}

async fn take(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // A message without anything in it: all was taken.
    let answer = Full::new(Bytes::from_static(&[0; 5]));
    let answer = answer.with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Box::pin(answer));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    Ok(response)
}
