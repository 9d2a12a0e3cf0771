//! Sidecars: each mail server in a network of its own with a data plane beside it, which alone can reach it. An account
//! that lives on the other side is reached through the data plane there (`docs/sidecars.md`).
//!
//! Networks of their own are root's to make; for anybody else these tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ferrypost_proto::v1::{
    ApplyRoutingConfigRequest, ExpelDataPlaneRequest, GetRoutingConfigRequest, Migration,
    MigrationState, Protocol,
};
use ferrypost_tests::checker::Floors;
use ferrypost_tests::dovecot::{Dovecot, LOGIN, Service};
use ferrypost_tests::imap::{Connect, ImapError, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::network::Network;
use ferrypost_tests::sieve::SieveConnect;
use ferrypost_tests::story::{
    SOON, closed, data_plane, data_planes, landing, migrate, migration_until, move_to, served_by,
    session, short_limits,
};
use ferrypost_tests::torture::{Aim, Plan, Speaks, torture};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{Builder, Entrance, Operator, World};
use prost_types::Duration as Wait;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::lmtp::{Sender, subjects};
use super::shell::shell;

const ENTRANCES: [Entrance; 3] = [Entrance::Imaps, Entrance::Pop3s, Entrance::Sieve];

fn builder() -> Builder {
    World::builder().limits(short_limits()).sidecars()
}

async fn world() -> World {
    builder().start().await.unwrap()
}

fn network(world: &World, side: usize) -> &Network {
    world.data_planes()[side].plane.network().unwrap()
}

fn succeeded(migration: &Migration) -> bool {
    migration.state() == MigrationState::Succeeded
}

/// Asks for a move and does not wait for it.
async fn begin(operator: &Operator, account: &str) -> Migration {
    let mut request = move_to(account, "target");
    request.wait = Some(Wait::default());
    migrate(operator, request).await.unwrap()
}

/// Whether the refusal is one after which a client asks for no new password and comes back.
fn is_temporary(refused: &ImapError) -> bool {
    matches!(refused, ImapError::Refused { code, .. } if code.as_deref() == Some("UNAVAILABLE"))
}

#[tokio::test]
async fn a_mail_server_can_be_reached_by_its_own_data_plane_alone() {
    let world = builder().postfixes().start().await.unwrap();
    for (side, server) in [world.source(), world.target()].into_iter().enumerate() {
        let postfix = world.postfix(server.role()).unwrap();
        let ports = Service::ALL.map(|service| server.addr(service));
        for by_loopback in ports.into_iter().chain([postfix.addr()]) {
            let at = |host: IpAddr| SocketAddr::new(host, by_loopback.port());
            let beside = network(&world, side);
            let other = network(&world, 1 - side);
            beside.reach(by_loopback).await.unwrap();
            let refused = other.reach(at(other.neighbour())).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
            let unreached = timeout(SOON, TcpStream::connect(at(beside.addr()))).await;
            let unreached = unreached.unwrap().unwrap_err();
            assert_eq!(
                unreached.kind(),
                ErrorKind::ConnectionRefused,
                "{unreached}"
            );
        }
        // The way that is open leads to the data plane.
        let sieve = world.data_planes()[side].sieve();
        let open = SocketAddr::new(network(&world, 1 - side).neighbour(), sieve.port());
        network(&world, 1 - side).reach(open).await.unwrap();
    }
    world.stop().await.unwrap();
}

/// A message comes in by either data plane, for an account on either side: what is for the other one goes through the
/// data plane there.
#[tokio::test]
async fn one_message_reaches_both_sides_by_lmtp_before_and_after_a_move() {
    let world = builder().deliveries().start().await.unwrap();
    let [near, far] = [0, 1].map(|n| &*world.accounts()[n]);
    for account in [far, near] {
        let moved = migrate(&world.operator(0), move_to(account, "target")).await;
        assert!(succeeded(&moved.unwrap()));
        let home = if account == far {
            world.source()
        } else {
            world.target()
        };
        for side in 0..2 {
            let plane = &world.data_planes()[side];
            let mut sender = Sender::connect(plane.deliveries().unwrap(), "LHLO").await;
            let subject = format!("by {side} after the move of {account}");
            let said = eventually("both may have mail", SOON, || async {
                let mut trial = Sender::connect(plane.deliveries().unwrap(), "LHLO").await;
                trial.ask("MAIL FROM:<>").await;
                for account in [near, far] {
                    let said = trial.ask(&format!("RCPT TO:<{account}>")).await;
                    if !said.starts_with("250") {
                        return Err(said);
                    }
                }
                Ok(())
            });
            said.await.unwrap();
            let said = sender.send(&subject, &[near, far], 2).await;
            assert!(said.iter().all(|it| it.starts_with("250")), "{said:?}");
            for (account, server) in [(near, home), (far, world.target())] {
                let found = subjects(server, account).await;
                let copies = found.iter().filter(|it| **it == subject).count();
                assert_eq!(copies, 1, "{account}: {found:?}");
            }
        }
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn each_server_sees_the_real_client_whichever_data_plane_it_comes_in_by() {
    let world = builder().postfixes().start().await.unwrap();
    let [near, far, ..] = world.accounts() else {
        panic!("{:?}", world.accounts())
    };
    let moved = migrate(&world.operator(0), move_to(far, "target")).await;
    assert!(succeeded(&moved.unwrap()));
    for side in 0..2 {
        for (account, home, other) in [
            (near, world.source(), world.target()),
            (far, world.target(), world.source()),
        ] {
            for entrance in ENTRANCES {
                let (here, elsewhere) = (home.log().from_now(), other.log().from_now());
                log_in(&world, side, entrance, account).await.unwrap();
                let (name, _) = account.split_once('@').unwrap();
                let user = format!("user=<{name}@");
                let line = here.wait_for(&["-login: Info: Log", &user], SOON).await;
                let line = line.unwrap();
                // Not the data plane's beside the server, nor the other one's.
                let client = format!("rip={}, rport=", network(&world, side).outside());
                assert!(line.contains(&client), "{entrance:?} by {side}: {line}");
                let strays = elsewhere.lines_with(&["-login: Info: Log", &user]);
                assert!(strays.is_empty(), "{strays:?}");
            }
            let log = world.postfix(home.role()).unwrap().log().from_now();
            submit(&world, side, account).await;
            let client = format!("[{}]", network(&world, side).outside());
            let user = format!("sasl_username={account}");
            log.wait_for(&["client=", &client, &user], SOON)
                .await
                .unwrap();
            let received = ["header Received: from", &client, "helo=<curl.example.org>"];
            log.wait_for(&received, SOON).await.unwrap();
        }
    }
    world.stop().await.unwrap();
}

/// Submits a message, as a client of the tests' own address.
async fn submit(world: &World, side: usize, account: &str) {
    let at = world.data_planes()[side].submission().unwrap();
    // No certificate names that address.
    shell(&format!(
        "curl --silent --show-error --ssl-reqd --insecure --url smtp://{at}/curl.example.org \
         --user {account}:{password} --mail-from {account} --mail-rcpt bob@example.net --upload-file {file} 2>&1",
        password = world.password(),
        file = world.authority().display(),
    ))
    .await;
}

/// Logs in and out, as a client of the tests' own address.
async fn log_in(
    world: &World,
    side: usize,
    entrance: Entrance,
    account: &str,
) -> Result<(), ImapError> {
    let password = world.password();
    let at = world.data_planes()[side].addr(entrance);
    match entrance {
        Entrance::Sieve => {
            let from = network(world, side).outside();
            let connect = SieveConnect::new(at, world.trust(), from);
            let mut client = connect.open().await?;
            client.login(account, password).await?;
            client.command("LOGOUT").await?;
        }
        Entrance::Pop3s => {
            let connect = Connect::new(at, Security::Tls(world.trust()));
            let mut client = LineClient::open(&connect).await?;
            client.line().await?;
            client.ask(&format!("USER {account}")).await?;
            let answer = client.ask(&format!("PASS {password}")).await?;
            assert!(answer.starts_with("+OK"), "{answer}");
            client.ask("QUIT").await?;
        }
        _ => {
            landing(&world.imaps(side), account, password).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_both_ways_under_load_lose_nothing() {
    let plan = Plan {
        seed: 1,
        duration: Duration::from_secs(12),
        aim: Aim::Quiet,
        speaks: Speaks::Mail,
        writers: 2,
        floors: Floors {
            operations: 300,
            moves: 3,
        },
    };
    let world = World::builder().numbered_accounts(4).sidecars();
    let report = torture(world, plan).await.unwrap();
    println!("{report}");
    assert!(report.is_clean(), "{report}");
}

#[tokio::test]
async fn a_sidecar_that_is_asked_to_end_says_goodbye_and_moves_go_on() {
    let mut world = world().await;
    let operator = world.operator(0);
    let (account, password) = (world.accounts()[0].clone(), world.password().to_owned());
    let moved = migrate(&operator, move_to(&account, "target")).await;
    assert!(succeeded(&moved.unwrap()));
    // By way of both.
    let mut client = session(&world.imaps(0), &account, &password).await.unwrap();
    assert_eq!(served_by(&mut client).await.unwrap(), "target");
    let (stopped, bye) = tokio::join!(world.data_plane(1).stop(), closed(&mut client));
    stopped.unwrap();
    assert!(bye.unwrap().is_some_and(|it| it.contains("UNAVAILABLE")));
    let listed = data_planes(&operator).await.unwrap();
    let instances: Vec<_> = listed.data_planes.iter().map(|it| &it.instance).collect();
    assert_eq!(instances, ["gateway-1"]);

    let other = world.accounts()[1].clone();
    let moved = migrate(&operator, move_to(&other, "target")).await;
    assert!(succeeded(&moved.unwrap()));
    // The only way to them was by it.
    let refused = landing(&world.imaps(0), &other, &password)
        .await
        .unwrap_err();
    assert!(is_temporary(&refused), "{refused}");

    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    is_served(&world, &other, "target").await;
    world.stop().await.unwrap();
}

/// Waits until an account is served on its home by both data planes: one may still take the other for gone.
async fn is_served(world: &World, account: &str, home: &str) {
    for side in 0..2 {
        let connect = world.imaps(side);
        eventually("it is served", SOON, || async {
            match landing(&connect, account, world.password()).await {
                Ok(landed) if landed == home => Ok(()),
                Ok(landed) => panic!("served on {landed}"),
                Err(error) => Err(error),
            }
        })
        .await
        .unwrap();
    }
}

/// Kills the sidecar of the target, and asks for a move, which waits for it and harms nobody.
async fn waits_for_a_killed_one(world: &mut World) -> (String, Migration) {
    let operator = world.operator(0);
    let (account, password) = (world.accounts()[0].clone(), world.password().to_owned());
    let mut client = session(&world.imaps(0), &account, &password).await.unwrap();
    world.data_plane(1).kill();
    let asked = begin(&operator, &account).await;
    migration_until(
        &operator,
        &asked.migration_id,
        "it names who is missing",
        |it| {
            it.state() == MigrationState::Queued
                && it.blockers.iter().any(|it| it.who == "gateway-2")
        },
    )
    .await
    .unwrap();
    client.noop().await.unwrap().accepted().unwrap();
    let landed = landing(&world.imaps(0), &account, &password).await;
    assert_eq!(landed.unwrap(), "source");
    (account, asked)
}

#[tokio::test]
async fn a_killed_sidecar_makes_moves_wait_until_its_successor_is_there() {
    let mut world = world().await;
    let (account, asked) = waits_for_a_killed_one(&mut world).await;
    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    let operator = world.operator(0);
    migration_until(&operator, &asked.migration_id, "it goes on", succeeded)
        .await
        .unwrap();
    is_served(&world, &account, "target").await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_sidecar_makes_moves_wait_until_it_is_expelled() {
    let mut world = world().await;
    let operator = world.operator(0);
    let dead = data_plane(&operator, "gateway-2").await.unwrap();
    let (account, asked) = waits_for_a_killed_one(&mut world).await;
    let request = ExpelDataPlaneRequest {
        instance: dead.instance,
        boot: dead.boot,
        reason: "its machine is gone".to_owned(),
    };
    operator.stats().expel_data_plane(request).await.unwrap();
    migration_until(&operator, &asked.migration_id, "it goes on", succeeded)
        .await
        .unwrap();
    // Nobody but the dead one reached that server. A new one does.
    let refused = landing(&world.imaps(0), &account, world.password()).await;
    let refused = refused.unwrap_err();
    assert!(is_temporary(&refused), "{refused}");
    world.data_plane(1).start().unwrap();
    world.wait_until_ready(1).await.unwrap();
    is_served(&world, &account, "target").await;
    world.stop().await.unwrap();
}

/// What an editor is offered before the login, it goes on believing: a list that shrank when both began would stay
/// short for ever if each took the other's for the server's own.
#[tokio::test]
async fn two_sidecars_that_begin_together_offer_all_that_both_servers_have() {
    let mut world = world().await;
    let moved = migrate(&world.operator(0), move_to(&world.accounts()[0], "target")).await;
    assert!(succeeded(&moved.unwrap()));
    for side in 0..2 {
        world.data_plane(side).kill();
    }
    for side in 0..2 {
        world.data_plane(side).start().unwrap();
    }
    for side in 0..2 {
        world.wait_until_ready(side).await.unwrap();
        let from = network(&world, side).outside();
        let connect = SieveConnect::new(world.data_planes()[side].sieve(), world.trust(), from);
        eventually("all of Sieve is offered", SOON, || async {
            let client = connect.open().await.map_err(|error| error.to_string())?;
            let offered = client.offered().join("\n");
            if offered.contains("fileinto") {
                Ok(())
            } else {
                Err(offered)
            }
        })
        .await
        .unwrap();
        let imaps = world.imaps(side);
        eventually("all of IMAP is offered", SOON, || async {
            let mut client = imaps.open().await.map_err(|error| error.to_string())?;
            client
                .capability()
                .await
                .map_err(|error| error.to_string())?;
            if client.has("IDLE") {
                Ok(())
            } else {
                Err(format!("{:?}", client.capabilities()))
            }
        })
        .await
        .unwrap();
    }
    world.stop().await.unwrap();
}

/// Each takes the other for the way to the target: a mistake in the routing configuration.
#[tokio::test]
async fn a_login_that_is_sent_in_a_circle_is_told_to_come_back_and_harms_nobody_else() {
    let world = world().await;
    let [near, far, ..] = world.accounts() else {
        panic!("{:?}", world.accounts())
    };
    let moved = migrate(&world.operator(0), move_to(far, "target")).await;
    assert!(succeeded(&moved.unwrap()));
    let log = world.target().log().from_now();
    close_the_circle(&world).await;
    for side in 0..2 {
        let seen = |n: usize| world.data_planes()[n].plane.log().from_now();
        let logs = [seen(0), seen(1)];
        let refused = landing(&world.imaps(side), far, world.password()).await;
        let refused = refused.unwrap_err();
        assert!(is_temporary(&refused), "{refused}");
        let ended = |n: usize| {
            let lines = logs[n].lines_with(&[" login ", "outcome="]);
            // The line of a login before this one may come late.
            let refused = lines.iter().filter(|line| !line.contains("accepted"));
            refused.count()
        };
        eventually("all of its logins have been refused", SOON, || {
            let count = ended(0) + ended(1);
            // Passed on by each to the other, and known again.
            std::future::ready(if count == 3 { Ok(()) } else { Err(count) })
        })
        .await
        .unwrap();
        let landed = landing(&world.imaps(side), near, world.password()).await;
        assert_eq!(landed.unwrap(), "source");
    }
    assert!(log.lines_with(&[LOGIN]).is_empty(), "{}", log.text());
    world.stop().await.unwrap();
}

/// Sends the target's own data plane to the source's for accounts on the target.
async fn close_the_circle(world: &World) {
    let mut configuration = world.operator(0).routing_config();
    let present = configuration
        .get_routing_config(GetRoutingConfigRequest {})
        .await
        .unwrap();
    let mut config = present.into_inner().config.unwrap();
    let target: &Dovecot = world.target();
    let destination = config
        .destinations
        .iter_mut()
        .find(|it| it.id == target.role().name());
    let mut imap: Vec<_> = destination
        .unwrap()
        .endpoints
        .iter_mut()
        .filter(|it| it.protocol() == Protocol::Imap)
        .collect();
    let [own, foreign] = &mut imap[..] else {
        panic!("{imap:?}")
    };
    let when = own.when.take();
    **own = foreign.clone();
    own.when = when;
    own.host = network(world, 1).neighbour().to_string();
    own.port = u32::from(world.data_planes()[0].imaps().port());
    let request = ApplyRoutingConfigRequest {
        config: Some(config),
        reason: "a mistake".to_owned(),
        ..ApplyRoutingConfigRequest::default()
    };
    let applied = configuration.apply_routing_config(request).await.unwrap();
    let version = applied.into_inner().version.unwrap().store;
    for side in 0..2 {
        let admin = world.admin(side);
        eventually("the data plane has the mistake", SOON, || async {
            let stats = admin.stats().await.map_err(|error| error.to_string())?;
            match stats["snapshot"]["revision"]["store"].as_u64() {
                Some(there) if there >= version => Ok(()),
                there => Err(format!("{there:?} of {version}")),
            }
        })
        .await
        .unwrap();
    }
}
