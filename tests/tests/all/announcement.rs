//! Each server's own log shows the client's address, however the server is reached and told.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferrypost_proto::v1::{
    ApplyRoutingConfigRequest, Endpoint, GetRoutingConfigRequest, Protocol, RoutingConfig,
    endpoint_tls::Mode,
};
use ferrypost_tests::dovecot::{Dovecot, LOGIN, Role, Service};
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::sieve::SieveConnect;
use ferrypost_tests::story::{SOON, landing, migrate, move_to, served_by, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, Entrance, World};

use super::submission::{PYTHON, submit};

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
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, server.role(), protocol);
        redirect(endpoint, server, mode, service);
    };
    reconfigure(world, &format!("{mode:?}"), edit).await;
}

/// What a configuration says of the way to a destination.
pub(crate) fn endpoint_of(
    config: &mut RoutingConfig,
    role: Role,
    protocol: Protocol,
) -> &mut Endpoint {
    let mut destinations = config.destinations.iter_mut();
    let destination = destinations.find(|destination| destination.id == role.name());
    let mut endpoints = destination.unwrap().endpoints.iter_mut();
    endpoints
        .find(|endpoint| endpoint.protocol() == protocol)
        .unwrap()
}

/// Changes the routing configuration, and waits until the data plane has it.
pub(crate) async fn reconfigure(
    world: &World,
    reason: &str,
    edit: impl FnOnce(&mut RoutingConfig),
) {
    let mut configuration = world.operator(0).routing_config();
    let present = configuration
        .get_routing_config(GetRoutingConfigRequest {})
        .await
        .unwrap();
    let mut config = present.into_inner().config.unwrap();
    edit(&mut config);
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        reason: reason.to_owned(),
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

const PROTOCOLS: [Protocol; 4] = [
    Protocol::Imap,
    Protocol::Pop3,
    Protocol::Managesieve,
    Protocol::Submission,
];

/// One account on each server, every protocol, either family: the source is told by ID and XCLIENT, the target by PROXY
/// headers. Gives back what was seen of the client in each case, beside what it was.
async fn seen_everywhere(builder: Builder) -> Vec<(String, IpAddr, IpAddr)> {
    let builder = builder.data_planes(1).limits(short_limits());
    let world = builder.both_families().postfixes().start().await.unwrap();
    let moving = move_to(&world.accounts()[1], "target");
    migrate(&world.operator(0), moving).await.unwrap();
    let mut seen = Vec::new();
    for (server, account) in [world.source(), world.target()]
        .into_iter()
        .zip(world.accounts())
    {
        for protocol in PROTOCOLS {
            for python in PYTHON {
                let case = format!(
                    "{protocol:?} on the {} from {}",
                    server.role().name(),
                    python.from
                );
                let address = if protocol == Protocol::Submission {
                    let log = world.postfix(server.role()).unwrap().log().from_now();
                    submit(&world, python, account).await;
                    let user = format!("sasl_username={account}");
                    let line = log.wait_for(&["client=", &user], SOON).await.unwrap();
                    between(&line, "client=", "[", "]")
                } else {
                    let log = server.log().from_now();
                    enter(&world, protocol, python.from.parse().unwrap(), account).await;
                    let (name, _) = account.split_once('@').unwrap();
                    let user = format!("user=<{name}@");
                    let line = log.wait_for(&["-login: Info: Log", &user], SOON).await;
                    between(&line.unwrap(), "Info: Log", "rip=", ",")
                };
                seen.push((case, address, python.from.parse().unwrap()));
            }
        }
    }
    world.stop().await.unwrap();
    seen
}

/// The address that a line has behind `after`, between these two.
fn between(line: &str, after: &str, begin: &str, end: &str) -> IpAddr {
    let (_, line) = line.split_once(after).unwrap();
    let (_, address) = line.split_once(begin).unwrap();
    let (address, _) = address.split_once(end).unwrap();
    address.parse().unwrap()
}

/// Logs in and out from an address of either family.
async fn enter(world: &World, protocol: Protocol, from: IpAddr, account: &str) {
    let plane = &world.data_planes()[0];
    let to = |entrance| {
        let mut address: SocketAddr = plane.addr(entrance);
        if from.is_ipv6() {
            address.set_ip(from);
        }
        address
    };
    let tls = |entrance| Connect::new(to(entrance), Security::Tls(world.trust())).from(from);
    let password = world.password();
    match protocol {
        Protocol::Imap => {
            landing(&tls(Entrance::Imaps), account, password)
                .await
                .unwrap();
        }
        Protocol::Pop3 => {
            let mut client = LineClient::open(&tls(Entrance::Pop3s)).await.unwrap();
            client.line().await.unwrap();
            client.ask(&format!("USER {account}")).await.unwrap();
            let answer = client.ask(&format!("PASS {password}")).await.unwrap();
            assert!(answer.starts_with("+OK"), "{answer}");
            client.ask("QUIT").await.unwrap();
        }
        _ => {
            let connect = SieveConnect::new(to(Entrance::Sieve), world.trust(), from);
            let mut client = connect.open().await.unwrap();
            client.login(account, password).await.unwrap();
            client.command("LOGOUT").await.unwrap();
        }
    }
}

#[tokio::test]
async fn each_server_sees_the_real_client_on_every_protocol_by_either_family() {
    for (case, seen, real) in seen_everywhere(World::builder()).await {
        assert_eq!(seen, real, "{case}");
    }
}

/// The test above would be worth nothing if it passed for a build that tells servers nothing.
#[tokio::test]
async fn a_build_that_drops_the_announcement_is_found_out_on_every_protocol_by_either_family() {
    let broken = World::builder().data_plane_env("FERRYPOST_SABOTAGE", "announcement-off");
    let cases = seen_everywhere(broken).await;
    assert_eq!(cases.len(), 16);
    for (case, seen, real) in cases {
        assert_ne!(seen, real, "{case} went unnoticed");
    }
}
