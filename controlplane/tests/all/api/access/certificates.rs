//! Client certificates, and the servers' own.

use std::path::Path;

use ferrypost_proto::routing::v1::{StreamRequest, routing_service_client::RoutingServiceClient};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use super::{ADMIN, call, reason_of, start};
use crate::api::{
    certs::Authority,
    data_plane::{hello, opening},
    world::{PATIENCE, eventually, reason},
};

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
