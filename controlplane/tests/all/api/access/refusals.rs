//! What the library itself refuses.

use ferrypost_proto::v1;
use tonic::{Code, Request, codegen::http::uri::PathAndQuery};

use super::{ADMIN, call, channel, guarded, reason_of};
use crate::api::world::World;

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
