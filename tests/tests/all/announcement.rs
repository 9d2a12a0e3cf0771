//! Each server's own log shows the client's address, however the server is reached and told.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr};

use ferrypost_proto::v1::{
    ApplyRoutingConfigRequest, Endpoint, GetRoutingConfigRequest, Protocol, endpoint_tls::Mode,
};
use ferrypost_tests::dovecot::{Dovecot, LOGIN, Service};
use ferrypost_tests::story::{SOON, migrate, move_to, served_by, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;

/// Not where anything else here comes from.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

/// What a client might say to be taken for another.
const FORGERY: &str = "203.0.113.66";

const WAYS: [(Mode, Service); 3] = [
    (Mode::Implicit, Service::Imaps),
    (Mode::Starttls, Service::Imap),
    (Mode::None, Service::Imap),
];

#[tokio::test]
async fn the_source_sees_the_client_by_id() {
    let world = world().await;
    for (mode, service) in WAYS {
        reach(&world, world.source(), Protocol::Imap, (mode, service)).await;
        let line = log_in(&world, world.source()).await;
        // The session's reference is the same in both logs.
        let (_, session) = line.split_once("session=<").unwrap();
        let (reference, _) = session.split_once('>').unwrap();
        let ours = world.data_planes()[0].plane.log();
        let found = ours.wait_for(&[" login ", reference], SOON).await.unwrap();
        assert!(found.contains("client=127.0.0.77:"), "{found}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_target_sees_the_client_by_its_proxy_header() {
    let world = world().await;
    let moving = move_to(&world.accounts()[0], "target");
    migrate(&world.operator(0), moving).await.unwrap();
    let connected = world.data_planes()[0].imaps();
    for (mode, service) in WAYS {
        reach(&world, world.target(), Protocol::Imap, (mode, service)).await;
        let line = log_in(&world, world.target()).await;
        let local = format!("lip={}, lport={},", connected.ip(), connected.port());
        assert!(line.contains(&local), "{mode:?}: {line}");
    }
    world.stop().await.unwrap();
}

async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    builder.start().await.unwrap()
}

/// Logs in through the data plane as somebody who pretends to come from elsewhere, and gives back the
/// server's line about it.
async fn log_in(world: &World, server: &Dovecot) -> String {
    let log = server.log().from_now();
    let mut client = world.imaps(0).from(CLIENT).open().await.unwrap();
    let forged = format!("ID (\"x-originating-ip\" \"{FORGERY}\" \"name\" \"test\")");
    client.command(&forged).await.unwrap().accepted().unwrap();
    let account = &world.accounts()[0];
    let reply = client.login(account, world.password()).await.unwrap();
    reply.accepted().unwrap();
    assert_eq!(served_by(&mut client).await.unwrap(), server.role().name());
    client.logout().await.unwrap();
    let line = log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    assert!(line.contains("rip=127.0.0.77, rport="), "{line}");
    assert!(!server.log().text().contains(FORGERY), "{line}");
    line
}

/// Has the data plane reach a server by another way.
pub(crate) async fn reach(
    world: &World,
    server: &Dovecot,
    protocol: Protocol,
    (mode, service): (Mode, Service),
) {
    let mut configuration = world.operator(0).routing_config();
    let present = configuration
        .get_routing_config(GetRoutingConfigRequest {})
        .await
        .unwrap();
    let mut config = present.into_inner().config.unwrap();
    let destination = config
        .destinations
        .iter_mut()
        .find(|destination| destination.id == server.role().name())
        .unwrap();
    let mut endpoints = destination.endpoints.iter_mut();
    let endpoint = endpoints.find(|endpoint| endpoint.protocol() == protocol);
    redirect(endpoint.unwrap(), server, mode, service);
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        reason: format!("{mode:?}"),
        ..ApplyRoutingConfigRequest::default()
    };
    let applied = configuration.apply_routing_config(request).await.unwrap();
    let version = applied.into_inner().version.unwrap().store;
    let admin = world.admin(0);
    eventually("the data plane has the new way", SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let there = &stats["snapshot"]["revision"]["store"];
        match there.as_u64() {
            Some(there) if there >= version => Ok(()),
            _ => Err(format!("{there} of {version}")),
        }
    })
    .await
    .unwrap();
}

fn redirect(endpoint: &mut Endpoint, server: &Dovecot, mode: Mode, service: Service) {
    endpoint.port = u32::from(server.addr(service).port());
    let tls = endpoint.tls.as_mut().unwrap();
    tls.set_mode(mode);
    if mode == Mode::None {
        tls.verification = None;
        tls.server_name = String::new();
        tls.plaintext_consent = true;
    }
}
