//! What each listener says, and to whom.

use ferrypost_proto::{
    CONTRACTS,
    routing::v1::{Hello, StreamRequest, routing_service_client::RoutingServiceClient},
};
use tonic::Request;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ADMIN, call, channel, guarded, reason_of};
use crate::api::world::{World, eventually, reason};

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
