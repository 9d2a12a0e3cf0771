//! The real grpcurl against a server with nothing but health and reflection.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_tests::grpcurl::{Grpcurl, GrpcurlError};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

async fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("up", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1alpha()
        .unwrap();
    let router = tonic::transport::Server::builder()
        .add_service(health)
        .add_service(reflection);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

#[tokio::test]
async fn a_call_answers_with_json_or_with_its_status() {
    let grpcurl = Grpcurl::plaintext(server().await).unwrap();
    let services = grpcurl.services().await.unwrap();
    assert!(
        services.contains(&"grpc.health.v1.Health".to_owned()),
        "{services:?}"
    );

    let check = "grpc.health.v1.Health/Check";
    let answer = grpcurl
        .call(check, &json!({"service": "up"}))
        .await
        .unwrap();
    assert_eq!(answer["status"], "SERVING");

    let refused = grpcurl
        .call(check, &json!({"service": "unheard-of"}))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(5), "{refused}");
    assert!(matches!(refused, GrpcurlError::Status { message, .. } if !message.is_empty()));
}

#[tokio::test]
async fn a_call_that_cannot_be_made_is_no_status() {
    let grpcurl = Grpcurl::plaintext(server().await).unwrap();
    let misspelt = grpcurl
        .call("grpc.health.v1.Health/Chekc", &json!({}))
        .await
        .unwrap_err();
    assert!(
        matches!(misspelt, GrpcurlError::NotMade { .. }),
        "{misspelt}"
    );
    let misfit = grpcurl
        .call("grpc.health.v1.Health/Check", &json!({"no": 1}))
        .await
        .unwrap_err();
    assert!(matches!(misfit, GrpcurlError::NotMade { .. }), "{misfit}");
}
