//! Who may call what, on both listeners.

use std::{collections::BTreeMap, path::Path, time::Duration};

use ferrypost_controlplane::{app, config::Config};
use ferrypost_proto::{
    CONTRACTS, DESCRIPTORS,
    routing::v1::{Hello, StreamRequest, routing_service_client::RoutingServiceClient},
    v1::{self, stats_service_client::StatsServiceClient},
};
use ferrypost_runtime::Random;
use prost::Message as _;
use tonic::{
    Code, Request, Status,
    codegen::http::uri::PathAndQuery,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use super::{
    certs::Authority,
    data_plane::{hello, opening},
    world::{PATIENCE, QUICK, ROUTING, World, eventually, reason},
};

const VIEWER: &str = "viewer-token-0123456789abcdef0123456789";
const OPERATOR: &str = "operator-token-0123456789abcdef0123456789";
const ADMIN: &str = "admin-token-0123456789abcdef0123456789";

/// What each method asks for, written down once more than in the code.
fn needed_roles() -> BTreeMap<&'static str, &'static str> {
    let mut needed = BTreeMap::new();
    for method in [
        "MigrationService/GetMigration",
        "MigrationService/ListMigrations",
        "MigrationService/WaitMigration",
        "MigrationService/WatchMigration",
        "PlacementService/GetPlacement",
        "PlacementService/ListPlacements",
        "PlacementService/ExplainRoute",
        "StatsService/GetStats",
        "StatsService/ListDataPlanes",
        "StatsService/ListDestinations",
        "StatsService/ListSessions",
        "RoutingConfigService/GetRoutingConfig",
    ] {
        needed.insert(method, "viewer");
    }
    for method in [
        "MigrationService/Migrate",
        "MigrationService/Rollback",
        "MigrationService/AbortMigration",
        "PlacementService/SetPlacement",
        "PlacementService/DeletePlacement",
        "StatsService/KickSessions",
    ] {
        needed.insert(method, "operator");
    }
    for method in [
        "StatsService/ExpelDataPlane",
        "RoutingConfigService/ApplyRoutingConfig",
    ] {
        needed.insert(method, "admin");
    }
    needed
}

/// Every method of the operators' API, as the contract has it.
fn methods_of_the_contract() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let files = set
        .file
        .iter()
        .filter(|file| file.package() == "ferrypost.v1");
    files
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            let methods = service.method.iter();
            methods.map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

fn tokens(directory: &Path) -> String {
    let mut entries = Vec::new();
    for (name, role, token) in [
        ("eve", "viewer", VIEWER),
        ("olga", "operator", OPERATOR),
        ("ada", "admin", ADMIN),
    ] {
        std::fs::write(directory.join(name), token).expect("written");
        entries.push(format!(
            "{{ name = \"{name}\", role = \"{role}\", file = \"{name}\" }}"
        ));
    }
    format!("tokens = [{}]", entries.join(", "))
}

/// A control plane whose operators show tokens, and whose data planes do.
async fn guarded(operators: &str, data_planes: &str) -> (app::Bound, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    start(&directory, operators, data_planes)
        .await
        .map(|bound| (bound, directory))
        .expect("started")
}

async fn start(
    directory: &tempfile::TempDir,
    operators: &str,
    data_planes: &str,
) -> anyhow::Result<app::Bound> {
    let tokens = tokens(directory.path());
    std::fs::write(directory.path().join("routing.toml"), ROUTING)?;
    std::fs::write(
        directory.path().join("plane"),
        "data-plane-token-0123456789abcdef0123456789\n",
    )?;
    let text = format!(
        "{QUICK}[operators]\nlisten = \"127.0.0.1:0\"\n{tokens}\n{operators}\n\
         [data_planes]\nlisten = \"127.0.0.1:0\"\n{data_planes}\n"
    );
    let config = Config::parse(&text, &directory.path().join("controlplane.toml"))?;
    app::build(config, Random::from_os()).await
}

async fn channel(address: std::net::SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

/// Calls a method with an empty request, whatever its messages are.
async fn call(channel: &Channel, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let mut request = Request::new(());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    // A stream may have nothing to say for long: to be let in is all that is asked here.
    let calling = client.server_streaming(request, path, codec);
    let mut answers = calling.await?.into_inner();
    match tokio::time::timeout(Duration::from_secs(5), answers.message()).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Ok(()),
    }
}

fn reason_of(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}

#[test]
fn every_method_has_a_role() {
    let needed = needed_roles();
    let mut methods = methods_of_the_contract();
    methods.sort();
    assert_eq!(methods, needed.into_keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn each_role_may_do_what_its_table_says_and_no_more() {
    let (bound, _directory) = guarded("", "").await;
    let channel = channel(bound.operators()).await;
    let roles = [("viewer", VIEWER), ("operator", OPERATOR), ("admin", ADMIN)];
    let rank = |role: &str| roles.iter().position(|(name, _)| *name == role);
    for (method, needed) in needed_roles() {
        let path = format!("/ferrypost.v1.{method}");
        for stranger in [None, Some("wrong-token-0123456789abcdef0123456789")] {
            let refused = call(&channel, &path, stranger).await.expect_err("refused");
            assert_eq!(refused.code(), Code::Unauthenticated, "{method}");
            assert_eq!(reason_of(&refused), "CREDENTIALS_REQUIRED", "{method}");
        }
        for (role, token) in roles {
            let denied = match call(&channel, &path, Some(token)).await {
                Ok(()) => false,
                Err(status) => {
                    assert!(!reason_of(&status).is_empty(), "{method}: {status:?}");
                    status.code() == Code::PermissionDenied
                }
            };
            assert_eq!(denied, rank(role) < rank(needed), "{method} as {role}");
        }
    }
    bound.shut_down().await.expect("ended");
}

#[tokio::test]
async fn what_the_library_refuses_has_a_reason_too() {
    let (bound, _directory) = guarded("", "").await;
    let channel = channel(bound.operators()).await;
    let unknown = call(&channel, "/ferrypost.v1.StatsService/Guess", Some(ADMIN)).await;
    let unknown = unknown.expect_err("no such method");
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert_eq!(reason_of(&unknown), "METHOD_UNKNOWN");
    let elsewhere = call(
        &channel,
        "/ferrypost.routing.v1.RoutingService/Stream",
        Some(ADMIN),
    )
    .await;
    assert_eq!(
        reason_of(&elsewhere.expect_err("another listener's")),
        "METHOD_UNKNOWN"
    );
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_a_malformed_request() {
    let world = World::new().await;
    let mut client = tonic::client::Grpc::new(world.channel.clone());
    client.ready().await.expect("connected");
    // Field 2 is a number here and a string there.
    let request = v1::ListSessionsRequest {
        page_size: 7,
        ..v1::ListSessionsRequest::default()
    };
    let codec = tonic_prost::ProstCodec::<v1::ListSessionsRequest, ()>::default();
    let path = PathAndQuery::from_static("/ferrypost.v1.MigrationService/Migrate");
    let refused = client.unary(Request::new(request), path, codec).await;
    let status = refused.expect_err("malformed");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(reason_of(&status), "REQUEST_MALFORMED");
}

#[tokio::test]
async fn health_answers_everybody_with_yes_or_no() {
    let (bound, _directory) = guarded("", "token_file = \"plane\"").await;
    for (address, service) in [
        (bound.operators(), "ferrypost.v1.MigrationService"),
        (bound.operators(), "ferrypost.v1.RoutingConfigService"),
        (bound.operators(), ""),
        (bound.data_planes(), "ferrypost.routing.v1.RoutingService"),
        (bound.data_planes(), ""),
    ] {
        let channel = channel(address).await;
        eventually(async || {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = HealthClient::new(channel.clone())
                .check(request)
                .await
                .ok()?;
            let serving = tonic_health::ServingStatus::Serving as i32;
            (answer.into_inner().status == serving).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_planes_listeners_do_not_know_each_others_callers() {
    let (bound, _directory) = guarded("", "token_file = \"plane\"").await;
    let hello_with = |token: &'static str| {
        let hello = StreamRequest {
            message: Some(
                ferrypost_proto::routing::v1::stream_request::Message::Hello(Hello {
                    contract: CONTRACTS.oldest(),
                    ..Hello::default()
                }),
            ),
        };
        let mut request = Request::new(tokio_stream::iter([hello]));
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        request
    };
    let mut planes = RoutingServiceClient::new(channel(bound.data_planes()).await);
    assert_eq!(
        reason(planes.stream(hello_with(ADMIN)).await),
        "CREDENTIALS_REQUIRED"
    );
    // The right token is let in; this Hello is refused for what it says.
    assert_eq!(
        reason(
            planes
                .stream(hello_with("data-plane-token-0123456789abcdef0123456789"))
                .await
        ),
        "FIELD_INVALID"
    );

    let planes = channel(bound.data_planes()).await;
    let stats = "/ferrypost.v1.StatsService/GetStats";
    let inside = call(
        &planes,
        stats,
        Some("data-plane-token-0123456789abcdef0123456789"),
    )
    .await;
    assert_eq!(
        reason_of(&inside.expect_err("another listener's")),
        "METHOD_UNKNOWN"
    );
    let operators = channel(bound.operators()).await;
    let outside = call(
        &operators,
        stats,
        Some("data-plane-token-0123456789abcdef0123456789"),
    )
    .await;
    assert_eq!(
        reason_of(&outside.expect_err("a stranger")),
        "CREDENTIALS_REQUIRED"
    );
}

#[tokio::test]
async fn a_token_is_changed_without_a_restart() {
    let (bound, directory) = guarded("", "").await;
    let channel = channel(bound.operators()).await;
    let path = "/ferrypost.v1.StatsService/ExpelDataPlane";
    let new = "another-token-0123456789abcdef0123456789";
    let refused = call(&channel, path, Some(new)).await.expect_err("not yet");
    assert_eq!(refused.code(), Code::Unauthenticated);
    std::fs::write(directory.path().join("ada"), new).expect("written");
    eventually(async || {
        let answer = call(&channel, path, Some(new)).await.err()?;
        (reason_of(&answer) == "FIELD_REQUIRED").then_some(())
    })
    .await;
    let old = call(&channel, path, Some(ADMIN))
        .await
        .expect_err("no more");
    assert_eq!(old.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_short_token_is_refused_at_start() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("short"), "tooshort").expect("written");
    let error = start(&directory, "", "token_file = \"short\"")
        .await
        .expect_err("refused");
    let said = format!("{error:#}");
    assert!(said.contains("at least 32"), "{said}");
}

/// The tables that put a listener under TLS with client certificates.
fn tls(authority: &Authority, directory: &Path) -> &'static str {
    authority.write(&directory.join("ca.pem"));
    authority
        .issue("localhost")
        .write(&directory.join("server.pem"), &directory.join("server.key"));
    "[operators.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\nclient_ca_file = \"ca.pem\"\n"
}

async fn secure(
    address: std::net::SocketAddr,
    authority: &Authority,
    identity: Option<Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .domain_name("localhost");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Channel::from_shared(format!("https://{address}")).expect("an address");
    endpoint
        .tls_config(tls)?
        .connect_timeout(PATIENCE)
        .connect()
        .await
}

#[tokio::test]
async fn a_client_certificate_stands_for_a_role() {
    let directory = tempfile::tempdir().expect("a directory");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tables = tls(&authority, directory.path());
    let identities = "identities = [{ common_name = \"ops\", role = \"operator\" }, \
                      { san = \"admin.example.org\", role = \"admin\" }]\n";
    let operators = format!("{identities}{tables}");
    let bound = start(&directory, &operators, "").await.expect("started");

    let kick = "/ferrypost.v1.StatsService/KickSessions";
    let expel = "/ferrypost.v1.StatsService/ExpelDataPlane";
    let as_whom = async |identity: Option<Identity>, path: &str, token: Option<&str>| {
        let channel = secure(bound.operators(), &authority, identity)
            .await
            .expect("connected");
        let answer = call(&channel, path, token)
            .await
            .expect_err("an empty request");
        reason_of(&answer)
    };
    let ops = authority.issue("ops").identity();
    assert_eq!(
        as_whom(Some(ops.clone()), kick, None).await,
        "FIELD_REQUIRED"
    );
    assert_eq!(
        as_whom(Some(ops.clone()), expel, None).await,
        "ROLE_TOO_LOW"
    );
    let admin = authority.issue("admin.example.org").identity();
    assert_eq!(as_whom(Some(admin), expel, None).await, "FIELD_REQUIRED");
    let unknown = authority.issue("somebody").identity();
    assert_eq!(
        as_whom(Some(unknown), kick, None).await,
        "CREDENTIALS_REQUIRED"
    );
    // A token does as well; a wrong one is not made good by a certificate.
    assert_eq!(as_whom(None, expel, Some(ADMIN)).await, "FIELD_REQUIRED");
    assert_eq!(as_whom(None, kick, None).await, "CREDENTIALS_REQUIRED");
    assert_eq!(
        as_whom(
            Some(ops),
            kick,
            Some("wrong-token-0123456789abcdef0123456789")
        )
        .await,
        "CREDENTIALS_REQUIRED"
    );

    // A certificate of another authority does not even get a connection.
    let forged = stranger.issue("ops").identity();
    if let Ok(channel) = secure(bound.operators(), &authority, Some(forged)).await {
        let answer = call(&channel, kick, None).await.expect_err("no connection");
        assert_ne!(reason_of(&answer), "FIELD_REQUIRED");
    }
}

/// One authority may sign for both planes; the listeners still tell their callers apart.
#[tokio::test]
async fn an_operators_certificate_opens_no_stream() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let operators = tls(&authority, directory.path());
    let operators =
        format!("identities = [{{ common_name = \"ops\", role = \"admin\" }}]\n{operators}");
    let data_planes = "[data_planes.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n\
                       client_ca_file = \"ca.pem\"\n";
    let bound = start(&directory, &operators, data_planes)
        .await
        .expect("started");
    let opened = async |name: &str| {
        let identity = authority.issue(name).identity();
        let channel = secure(bound.data_planes(), &authority, Some(identity))
            .await
            .expect("let in");
        let hello = StreamRequest { message: None };
        reason(
            RoutingServiceClient::new(channel)
                .stream(tokio_stream::iter([hello]))
                .await,
        )
    };
    assert_eq!(opened("ops").await, "CREDENTIALS_REQUIRED");
    assert_ne!(opened("dp-1").await, "CREDENTIALS_REQUIRED");
    let channel = secure(
        bound.operators(),
        &authority,
        Some(authority.issue("dp-1").identity()),
    )
    .await;
    let stats = call(
        &channel.expect("let in"),
        "/ferrypost.v1.StatsService/GetStats",
        None,
    )
    .await;
    assert_eq!(
        reason_of(&stats.expect_err("a data plane")),
        "CREDENTIALS_REQUIRED"
    );
}

/// What a data plane is told. Right after the start the store has not been read yet, so that it has to ask
/// again; every other answer is final.
async fn answered(channel: Channel, instance: &str) -> Result<(), Status> {
    eventually(async || {
        let mut client = RoutingServiceClient::new(channel.clone());
        match client.stream(opening(hello(instance))).await {
            Err(status) if status.code() == Code::Unavailable => None,
            answer => Some(answer.map(drop)),
        }
    })
    .await
}

#[tokio::test]
async fn a_data_planes_certificate_is_bound_to_its_instance_id_where_that_is_wanted() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    tls(&authority, directory.path());
    let files = "[data_planes.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n\
                 client_ca_file = \"ca.pem\"\n";
    let bound = format!("identity = \"certificate\"\n{files}");
    let bound = start(&directory, "", &bound).await.expect("started");
    let opened = async |certificate: &str, instance: &str| {
        let identity = authority.issue(certificate).identity();
        let channel = secure(bound.data_planes(), &authority, Some(identity))
            .await
            .expect("its certificate is one of ours");
        answered(channel, instance).await
    };
    opened("dp-1", "dp-1").await.expect("its own");
    opened("DP-2.mail.example", "dp-2.mail.example")
        .await
        .expect("a DNS name has no case");
    for (certificate, instance) in [
        ("dp-1", "dp-3"),
        ("dp-1.mail", "dp-1"),
        ("*.mail", "dp.mail"),
    ] {
        let refused = opened(certificate, instance).await.expect_err("another's");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(reason_of(&refused), "IDENTITY_MISMATCH", "{certificate}");
    }

    let open = tempfile::tempdir().expect("a directory");
    authority.write(&open.path().join("ca.pem"));
    tls(&authority, open.path());
    let anybody = start(&open, "", files).await.expect("started");
    let identity = authority.issue("dp-1").identity();
    let channel = secure(anybody.data_planes(), &authority, Some(identity)).await;
    let joined = answered(channel.expect("let in"), "dp-9").await;
    joined.expect("it is off unless it is asked for");
}

#[tokio::test]
async fn a_bound_identity_needs_certificates() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = start(&directory, "", "identity = \"certificate\"")
        .await
        .expect_err("nobody shows a certificate");
    assert!(error.to_string().contains("client_ca_file"), "{error:#}");
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (Authority::new(), Authority::new());
    let tables = tls(&old, directory.path());
    let bound = start(&directory, tables, "").await.expect("started");
    secure(bound.operators(), &old, None)
        .await
        .expect("the old one");
    assert!(secure(bound.operators(), &new, None).await.is_err());
    tls(&new, directory.path());
    eventually(async || secure(bound.operators(), &new, None).await.ok()).await;
}

#[tokio::test]
async fn reflection_shows_the_operators_services_in_both_versions() {
    let world = World::new().await;
    let expected = [
        "ferrypost.v1.MigrationService",
        "ferrypost.v1.PlacementService",
        "ferrypost.v1.RoutingConfigService",
        "ferrypost.v1.StatsService",
        "grpc.health.v1.Health",
    ];
    let names = |found: Vec<String>| {
        let mut found: Vec<_> = found
            .into_iter()
            .filter(|n| !n.contains("reflection"))
            .collect();
        found.sort();
        found
    };
    {
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(world.channel.clone());
        let answers = client
            .server_reflection_info(tokio_stream::iter([request]))
            .await;
        let answer = answers
            .expect("served")
            .into_inner()
            .message()
            .await
            .expect("sent");
        let Some(MessageResponse::ListServicesResponse(list)) =
            answer.expect("one").message_response
        else {
            panic!("a list");
        };
        assert_eq!(
            names(list.service.into_iter().map(|s| s.name).collect()),
            expected
        );
    }
    {
        use tonic_reflection::pb::v1alpha::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        // What grpcurl needs to print an error's details in words.
        let symbol = "google.rpc.ErrorInfo".to_owned();
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(symbol)),
        };
        let mut client = ServerReflectionClient::new(world.channel.clone());
        let answers = client
            .server_reflection_info(tokio_stream::iter([request]))
            .await;
        let answer = answers
            .expect("served")
            .into_inner()
            .message()
            .await
            .expect("sent");
        assert!(matches!(
            answer.expect("one").message_response,
            Some(MessageResponse::FileDescriptorResponse(_))
        ));
    }
}

#[tokio::test]
async fn on_loopback_without_credentials_everybody_may_do_everything() {
    let world = World::new().await;
    let mut stats = StatsServiceClient::new(world.channel.clone());
    let request = v1::ExpelDataPlaneRequest::default();
    assert_eq!(
        reason(stats.expel_data_plane(request).await),
        "FIELD_REQUIRED"
    );
    assert!(world.operators().starts_with("http://127.0.0.1:"));
}
