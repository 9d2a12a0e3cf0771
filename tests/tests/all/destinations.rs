//! The ways to real servers: where they come from, what they show, what they do when a server fails, and where they must
//! not end.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ferrypost_proto::v1::{
    Announcement, ApplyRoutingConfigRequest, Condition, Endpoint, GetRoutingConfigRequest,
    Protocol, RoutingConfig,
};
use ferrypost_tests::dovecot::{Generation, LOGIN, Service};
use ferrypost_tests::imap::Reply;
use ferrypost_tests::story::{SOON, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Link, Traffic, World};
use serde_json::Value;

const UNAVAILABLE: &str = "[UNAVAILABLE]";

async fn world(data_planes: usize) -> World {
    let builder = World::builder().data_planes(data_planes);
    builder.limits(short_limits()).start().await.unwrap()
}

/// The source's endpoint for IMAP.
fn endpoint(config: &mut RoutingConfig) -> &mut Endpoint {
    let mut destinations = config.destinations.iter_mut();
    let source = destinations.find(|destination| destination.id == "source");
    let mut endpoints = source.unwrap().endpoints.iter_mut();
    let endpoint = endpoints.find(|endpoint| endpoint.protocol() == Protocol::Imap);
    endpoint.unwrap()
}

fn redirect(endpoint: &mut Endpoint, to: SocketAddr) {
    endpoint.host = to.ip().to_string();
    endpoint.port = to.port().into();
}

/// Changes the routing configuration, and waits until every data plane has the new one.
async fn apply(world: &World, change: impl FnOnce(&mut RoutingConfig)) {
    let mut configuration = world.operator(0).routing_config();
    let present = configuration
        .get_routing_config(GetRoutingConfigRequest {})
        .await
        .unwrap();
    let mut config = present.into_inner().config.unwrap();
    change(&mut config);
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        reason: "a test".to_owned(),
        ..ApplyRoutingConfigRequest::default()
    };
    let applied = configuration.apply_routing_config(request).await.unwrap();
    let version = applied.into_inner().version.unwrap().store;
    for n in 0..world.data_planes().len() {
        let admin = world.admin(n);
        eventually("the data plane has it", SOON, || async {
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
}

/// Starts a data plane again with these lines before and behind its configuration.
async fn reconfigure(world: &mut World, n: usize, first: &str, last: &str) {
    let config = world.data_planes()[n].plane.config().to_owned();
    let text = fs::read_to_string(&config).unwrap();
    world.data_plane(n).stop().await.unwrap();
    fs::write(&config, format!("{first}\n{text}\n{last}\n")).unwrap();
    world.data_plane(n).start().unwrap();
    world.wait_until_ready(n).await.unwrap();
}

/// The first account's login through a data plane, from this address.
async fn log_in(world: &World, n: usize, from: [u8; 4]) -> Reply {
    let from = IpAddr::V4(Ipv4Addr::from(from));
    let mut client = world.imaps(n).from(from).open().await.unwrap();
    let login = client.login(&world.accounts()[0], world.password()).await;
    login.unwrap()
}

/// Waits until a data plane's `/stats` say so of the source on IMAP.
async fn stats_say(world: &World, what: &str, holds: impl Fn(&Value) -> bool) {
    let admin = world.admin(0);
    eventually(what, SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let source = &stats["destinations"]["source"]["imap"];
        holds(source)
            .then_some(())
            .ok_or_else(|| source.to_string())
    })
    .await
    .unwrap();
}

/// A counter of a data plane's `/metrics`.
async fn counted(world: &World, n: usize, series: &str) -> u64 {
    let (_, page) = world.admin(n).get("/metrics").await.unwrap();
    let mut values = page.lines().filter_map(|line| line.rsplit_once(' '));
    let value = values.find(|(name, _)| *name == series);
    value.map_or(0, |(_, value)| value.parse().unwrap())
}

/// What has a Dovecot ask for certificates and log in nobody whose is not of the test's authority.
fn demands_certificates(world: &World) -> String {
    let authority = world.authority().display().to_string();
    match Generation::installed().unwrap() {
        Generation::V2_3 => format!(
            "ssl_ca = <{authority}\nssl_require_crl = no\nssl_verify_client_cert = yes\n\
             auth_ssl_require_client_cert = yes\n"
        ),
        Generation::V2_4 => format!(
            "ssl_server_ca_file = {authority}\nssl_server_require_crl = no\n\
             ssl_server_request_client_cert = yes\nauth_ssl_require_client_cert = yes\n"
        ),
    }
}

#[tokio::test]
async fn a_dovecot_that_demands_a_certificate_is_shown_ours_from_the_address_that_is_ours_to_choose()
 {
    let mut world = world(1).await;
    // Not told who the client is, it logs where the connection comes from.
    apply(&world, |config| {
        endpoint(config).set_announcement(Announcement::None);
    })
    .await;
    let dovecot = world.source().configuration();
    let text = fs::read_to_string(&dovecot).unwrap() + &demands_certificates(&world);
    fs::write(&dovecot, text).unwrap();
    world.source().doveadm(&["reload"]).await.unwrap();
    eventually("nobody is let in without a certificate", SOON, || async {
        let reply = log_in(&world, 0, [127, 0, 0, 1]).await;
        if reply.is_ok() {
            Err(reply.text)
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    let name = world.data_planes()[0].plane.name().to_owned();
    let servers = format!(
        "[[servers]]\ndestination = \"source\"\nsource_addresses = [\"127.0.0.91\"]\n\
         client_certificate = {{ cert_file = \"tls/{name}.pem\", key_file = \"tls/{name}.key\" }}"
    );
    reconfigure(&mut world, 0, "", &servers).await;
    let log = world.source().log().from_now();
    let reply = log_in(&world, 0, [127, 0, 0, 1]).await;
    reply.accepted().unwrap();
    let line = log.wait_for(&[LOGIN, "user=<user1@"], SOON).await.unwrap();
    assert!(line.contains("rip=127.0.0.91,"), "{line}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_not_this_machine_s_is_told_by_the_probe() {
    let mut world = world(1).await;
    let servers = "[[servers]]\ndestination = \"source\"\nsource_addresses = [\"192.0.2.77\"]";
    reconfigure(&mut world, 0, "", servers).await;
    stats_say(&world, "the probe says what is wrong", |source| {
        source["word"] == "source_address"
    })
    .await;
    let reply = log_in(&world, 0, [127, 0, 0, 1]).await;
    assert!(reply.text.starts_with(UNAVAILABLE), "{}", reply.text);
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_fails_everybody_is_left_alone_until_it_is_back() {
    let mut world = world(1).await;
    // However slow the machine is.
    let limits = "[limits.breaker]\nwindow = \"10m\"";
    reconfigure(&mut world, 0, "", limits).await;
    let link = Link::to(world.source().addr(Service::Imaps)).await.unwrap();
    apply(&world, |config| redirect(endpoint(config), link.addr())).await;
    log_in(&world, 0, [127, 0, 0, 1]).await.accepted().unwrap();
    link.set(Traffic::Broken);
    // One client that fails closes it to nobody.
    for host in [1, 1, 1, 1, 1, 1, 2, 3, 4, 5] {
        let reply = log_in(&world, 0, [127, 0, 1, host]).await;
        assert!(reply.text.starts_with(UNAVAILABLE), "{}", reply.text);
    }
    stats_say(&world, "the breaker is open", |source| {
        source["breaker_open_seconds"].is_number()
    })
    .await;
    let refused = "ferrypost_dataplane_logins_total{protocol=\"imap\",outcome=\"breaker_open\",blame=\"backend\"}";
    eventually("a login is not even tried", SOON, || async {
        let reply = log_in(&world, 0, [127, 0, 1, 6]).await;
        assert!(reply.text.starts_with(UNAVAILABLE), "{}", reply.text);
        match counted(&world, 0, refused).await {
            0 => Err(reply.text),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    link.set(Traffic::Flows);
    eventually("the server is tried, and serves again", SOON, || async {
        let reply = log_in(&world, 0, [127, 0, 1, 7]).await;
        if reply.is_ok() {
            Ok(())
        } else {
            Err(reply.text)
        }
    })
    .await
    .unwrap();
    stats_say(&world, "the breaker is closed", |source| {
        source["breaker_open_seconds"].is_null()
    })
    .await;
    world.stop().await.unwrap();
}

/// How often a data plane has refused a login because it had come round.
async fn gone_round(world: &World, n: usize) -> u64 {
    let series = "ferrypost_dataplane_logins_total{protocol=\"imap\",outcome=\"gone_round\",blame=\"control_plane\"}";
    counted(world, n, series).await
}

#[tokio::test]
async fn a_login_that_two_data_planes_send_to_each_other_comes_to_an_end_and_so_does_one_to_itself()
{
    let mut world = world(2).await;
    for (n, group) in ["first", "second"].into_iter().enumerate() {
        reconfigure(&mut world, n, &format!("group = \"{group}\""), "").await;
    }
    let [first, second] = [0, 1].map(|n| world.data_planes()[n].imaps());
    apply(&world, |config| {
        // Each one's server is the other.
        let here = endpoint(config);
        here.set_announcement(Announcement::ImapId);
        let template = here.clone();
        redirect(here, first);
        let mut of_first = template;
        redirect(&mut of_first, second);
        of_first.when = Some(of_group("first"));
        let mut destinations = config.destinations.iter_mut();
        let source = destinations.find(|it| it.id == "source").unwrap();
        source.endpoints.push(of_first);
    })
    .await;
    let reply = log_in(&world, 0, [127, 0, 0, 1]).await;
    assert!(reply.text.starts_with(UNAVAILABLE), "{}", reply.text);
    assert_eq!(
        (gone_round(&world, 0).await, gone_round(&world, 1).await),
        (0, 1)
    );
    let log = world.data_planes()[1].plane.log();
    log.wait_for(&[" login ", "gone_round", "too many data planes"], SOON)
        .await
        .unwrap();
    // Now it is its own, which its probe sees too.
    apply(&world, |config| redirect_first(config, first)).await;
    let reply = log_in(&world, 0, [127, 0, 0, 1]).await;
    assert!(reply.text.starts_with(UNAVAILABLE), "{}", reply.text);
    assert_eq!(gone_round(&world, 0).await, 1);
    stats_say(&world, "the probe says so", |source| {
        source["word"] == "loop"
    })
    .await;
    world.stop().await.unwrap();
}

/// Leads the first data plane elsewhere.
fn redirect_first(config: &mut RoutingConfig, to: SocketAddr) {
    let endpoints = config
        .destinations
        .iter_mut()
        .flat_map(|it| &mut it.endpoints);
    for endpoint in endpoints.filter(|endpoint| endpoint.when == Some(of_group("first"))) {
        redirect(endpoint, to);
    }
}

fn of_group(group: &str) -> Condition {
    Condition {
        group: group.to_owned(),
    }
}
