//! The endpoint as a caller sees it: over real sockets and TLS.

use std::{net::SocketAddr, sync::Arc};

use ferrypost_runtime::{
    admin::{Access, Server, Source},
    metrics::{Instrument, Kind, Levels, Metrics, Reading},
    shutdown::Shutdown,
    tls::{CertificateFiles, crypto},
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::{
    net::{self, tls_server::ServerTls},
    session::tests::client::PATIENCE,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const DRAIN_TOKEN: &str = "fedcba9876543210fedcba9876543210";

static COUNTED: Instrument = Instrument {
    name: "counted",
    unit: "{thing}",
    kind: Kind::Counter,
    description: "Things.",
    attributes: &[],
};

struct Fixed {
    ready: bool,
}

impl Source for Fixed {
    fn ready(&self) -> bool {
        self.ready
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::json!({ "instance": "dp-1" })
    }

    fn metrics(&self) -> Vec<Reading> {
        let metrics = Metrics::new(&[&COUNTED]);
        metrics.counter(&COUNTED, &[]).add(1);
        metrics.read(&Levels::default())
    }
}

/// A running endpoint.
struct Endpoint {
    address: SocketAddr,
    roots: RootCertStore,
    shutdown: Shutdown,
    _directory: tempfile::TempDir,
}

impl Endpoint {
    fn start(ready: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("token"), format!("{TOKEN}\n")).unwrap();
        std::fs::write(path("drain"), DRAIN_TOKEN).unwrap();
        let files = CertificateFiles {
            cert_file: path("cert.pem"),
            key_file: path("key.pem"),
        };
        let tls = ServerTls::new(&[files], Some(b"http/1.1")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let access = Access::new(path("token")).draining(Some(path("drain")));
        let server = Server::full(Arc::new(Fixed { ready }), access);
        let (address, shutdown) = serve(server, Some(tls));
        Self {
            address,
            roots,
            shutdown,
            _directory: directory,
        }
    }

    /// The status line's number and everything that was said.
    async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        self.ask("GET", path, token).await
    }

    async fn ask(&self, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
        let config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let socket = net::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
            .unwrap();
        request(stream, method, path, token).await
    }
}

fn serve(server: Server, tls: Option<ServerTls>) -> (SocketAddr, Shutdown) {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let door = AdminDoor { listener, tls };
    shutdown.spawn(server.run(door, shutdown.clone()));
    (address, shutdown)
}

async fn request(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> (u16, String) {
    let authorization = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn stats_are_for_those_who_know_the_token() {
    let endpoint = Endpoint::start(true);
    let (status, answer) = endpoint.get("/stats", None).await;
    assert_eq!(status, 401);
    assert!(
        answer
            .to_ascii_lowercase()
            .contains("www-authenticate: bearer"),
        "{answer}"
    );
    assert_eq!(endpoint.get("/stats", Some("wrong")).await.0, 401);
    let (status, answer) = endpoint.get("/stats", Some(TOKEN)).await;
    assert_eq!(status, 200);
    assert!(answer.contains("\"instance\": \"dp-1\""), "{answer}");
    assert!(answer.contains("application/json"), "{answer}");
}

#[tokio::test]
async fn without_a_token_every_other_path_looks_alike() {
    let endpoint = Endpoint::start(true);
    assert_eq!(endpoint.get("/metrics", None).await.0, 401);
    let (status, answer) = endpoint.get("/metrics", Some(TOKEN)).await;
    assert_eq!(status, 200);
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("counted_total 1"), "{answer}");
    assert_eq!(endpoint.get("/nothing", None).await.0, 401);
    assert_eq!(endpoint.get("/nothing", Some(TOKEN)).await.0, 404);
}

#[tokio::test]
async fn repeated_wrong_tokens_lock_out() {
    let endpoint = Endpoint::start(true);
    for _ in 0..5 {
        assert_eq!(endpoint.get("/stats", Some("wrong")).await.0, 401);
    }
    let (status, answer) = endpoint.get("/stats", Some(TOKEN)).await;
    assert_eq!(status, 429);
    assert!(
        answer.to_ascii_lowercase().contains("retry-after: "),
        "{answer}"
    );
    assert_eq!(endpoint.get("/healthz", None).await.0, 200);
}

#[tokio::test]
async fn readiness_is_told_to_everybody_and_nothing_else_is() {
    assert_eq!(Endpoint::start(true).get("/readyz", None).await.0, 200);
    let endpoint = Endpoint::start(false);
    let (status, answer) = endpoint.get("/readyz", None).await;
    assert_eq!(status, 503);
    assert!(answer.ends_with("\r\n\r\nnot ready\n"), "{answer}");
    assert_eq!(endpoint.get("/healthz", None).await.0, 200);
}

#[tokio::test]
async fn to_drain_has_a_token_of_its_own_and_is_for_no_link_that_is_followed() {
    let endpoint = Endpoint::start(true);
    for (method, path, token, status) in [
        ("POST", "/drain", None, 401),
        ("GET", "/drain", Some(TOKEN), 405),
        ("POST", "/stats", Some(TOKEN), 405),
        ("DELETE", "/drain", Some(TOKEN), 405),
        ("POST", "/healthz", None, 405),
        ("POST", "/drain", Some(TOKEN), 403),
        ("GET", "/metrics", Some(DRAIN_TOKEN), 403),
        // This source has nobody to let go of.
        ("POST", "/drain", Some(DRAIN_TOKEN), 404),
    ] {
        let (answered, text) = endpoint.ask(method, path, token).await;
        assert_eq!(answered, status, "{method} {path}: {text}");
    }
}

#[tokio::test]
async fn the_port_in_clear_serves_health_and_no_stats() {
    let (address, _shutdown) = serve(Server::health_only(Arc::new(Fixed { ready: true })), None);
    for (path, token, status) in [
        ("/healthz", None, 200),
        ("/readyz", None, 200),
        ("/stats", Some(TOKEN), 404),
        ("/metrics", Some(TOKEN), 404),
    ] {
        let stream = net::connect(address).await.unwrap();
        let answer = request(stream, "GET", path, token).await;
        assert_eq!(answer.0, status, "{path}");
    }
}

#[tokio::test]
async fn the_port_in_clear_answers_by_grpc_too_and_says_nothing_else() {
    for (ready, named) in [
        (true, ServingStatus::Serving),
        (false, ServingStatus::NotServing),
    ] {
        let (address, _shutdown) = serve(Server::health_only(Arc::new(Fixed { ready })), None);
        let channel = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = channel.connect().await.unwrap();
        let mut client = HealthClient::new(channel);
        for (service, expected) in [
            ("", Some(named)),
            ("readiness", Some(named)),
            ("liveness", Some(ServingStatus::Serving)),
            ("ferrypost.v1.StatsService", None),
        ] {
            let service = service.to_owned();
            let request = HealthCheckRequest { service };
            let answer = client.check(request).await;
            match expected {
                Some(status) => assert_eq!(answer.unwrap().get_ref().status(), status),
                None => assert_eq!(answer.unwrap_err().code(), Code::NotFound),
            }
        }
        let watched = client.watch(HealthCheckRequest::default()).await;
        assert_eq!(watched.unwrap_err().code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn an_endless_head_is_cut_off() {
    let (address, _shutdown) = serve(Server::health_only(Arc::new(Fixed { ready: true })), None);
    let mut stream = net::connect(address).await.unwrap();
    let endless = vec![b'x'; 1 << 20];
    // The server may close before it has read all of it.
    _ = stream.write_all(b"GET /").await;
    _ = stream.write_all(&endless).await;
    let mut answer = Vec::new();
    _ = stream.read_to_end(&mut answer).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn it_stops_when_the_process_does() {
    let endpoint = Endpoint::start(true);
    assert_eq!(endpoint.get("/healthz", None).await.0, 200);
    assert_eq!(endpoint.shutdown.wait(PATIENCE).await, 0);
    assert!(net::connect(endpoint.address).await.is_err());
}
