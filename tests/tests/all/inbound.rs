//! Mail that arrives is passed through a whole data plane to a real Postfix, which greets, secures and judges as if nobody
//! stood in front of it.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::{IpAddr, SocketAddr};

use ferrypost_proto::v1::{Announcement, EndpointTls, Protocol, RoutingConfig, endpoint_tls::Mode};
use ferrypost_tests::dovecot::{Role, Service};
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::line::LineClient;
use ferrypost_tests::postfix::Onward;
use ferrypost_tests::story::{SOON, migrate, move_to, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::World;

use super::announcement::{endpoint_of, reconfigure};
use super::lmtp::{mail_system, subjects};

/// What a stranger might say to be taken for another.
const FORGERY: &str = "203.0.113.66";

/// Another mail system's connection.
struct Sender {
    line: LineClient,
    connect: Connect,
}

impl Sender {
    /// Connects from an address of either family, and is greeted.
    async fn from(world: &World, from: &str) -> (Self, String) {
        let from: IpAddr = from.parse().unwrap();
        let mut mx: SocketAddr = world.data_planes()[0].mx().unwrap();
        if from.is_ipv6() {
            mx.set_ip(from);
        }
        Self::to(world, mx, from).await
    }

    async fn to(world: &World, at: SocketAddr, from: IpAddr) -> (Self, String) {
        let connect = Connect::new(at, Security::StartTls(world.trust())).from(from);
        let line = LineClient::open(&connect).await.unwrap();
        let mut sender = Self { line, connect };
        let greeting = sender.reply().await;
        (sender, greeting)
    }

    /// The last line of the next reply.
    async fn reply(&mut self) -> String {
        loop {
            let line = self.line.line().await.unwrap().unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    async fn ask(&mut self, command: &str) -> String {
        self.line.send(format!("{command}\r\n")).await.unwrap();
        self.reply().await
    }

    async fn says(&mut self, command: &str, code: &str) {
        let reply = self.ask(command).await;
        assert!(reply.starts_with(code), "{command}: {reply}");
    }

    /// Goes on under TLS, in which the server shows its own certificate.
    async fn secure(mut self) -> Self {
        self.says("EHLO sender.example.net", "250").await;
        self.says("STARTTLS", "220").await;
        self.line = self.line.secure(&self.connect).await.unwrap();
        self.says("EHLO sender.example.net", "250").await;
        self
    }

    /// Everything up to where the message may come.
    async fn begin(&mut self, recipient: &str) {
        self.says("MAIL FROM:<bob@example.net>", "250").await;
        self.says(&format!("RCPT TO:<{recipient}>"), "250").await;
        self.says("DATA", "354").await;
    }

    async fn end(&mut self) {
        let message = "Subject: passed through\r\n\r\nA message.\r\n.";
        self.says(message, "250 2.0.0 Ok: queued as ").await;
    }
}

#[tokio::test]
async fn the_server_secures_its_mail_itself_and_sees_who_sends_it_by_either_family() {
    let world = world().await;
    let account = &world.accounts()[0];
    for from in ["127.0.0.77", "::1"] {
        let log = world.postfix(Role::Target).unwrap().log().from_now();
        let (sender, greeting) = Sender::from(&world, from).await;
        assert!(
            greeting.starts_with("220 target.example.org ESMTP"),
            "{greeting}"
        );
        let mut sender = sender.secure().await;
        sender.begin(account).await;
        sender.end().await;
        sender.says("QUIT", "221").await;
        let client = format!("[{from}]");
        log.wait_for(&[": client=", &client], SOON).await.unwrap();
        let received = ["header Received: from sender.example.net", &client];
        log.wait_for(&received, SOON).await.unwrap();
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_move_does_not_touch_mail_that_is_arriving() {
    let world = world().await;
    let account = &world.accounts()[0];
    let (sender, _) = Sender::from(&world, "127.0.0.77").await;
    let mut sender = sender.secure().await;
    sender.begin(account).await;
    migrate(&world.operator(0), move_to(account, "target"))
        .await
        .unwrap();
    sender.end().await;
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_stranger_who_says_that_he_is_somebody_else_is_not_believed() {
    let world = world().await;
    let log = world.postfix(Role::Target).unwrap().log().from_now();
    let (mut stranger, _) = Sender::from(&world, "127.0.0.78").await;
    stranger.says("EHLO stranger.example.net", "250").await;
    let claim = format!("XCLIENT ADDR={FORGERY} NAME=friend.example.org");
    stranger.says(&claim, "550 5.7.0").await;
    stranger.begin(&world.accounts()[0]).await;
    stranger.end().await;
    log.wait_for(&[": client=", "[127.0.0.78]"], SOON)
        .await
        .unwrap();
    assert!(log.lines_with(&["client=", FORGERY]).is_empty());
    world.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_goes_to_a_server_that_would_take_a_stranger_s_word_for_ours() {
    let world = world().await;
    // The source's submission knows of no PROXY header, and takes XCLIENT from the address that we come from.
    let trusting = world.postfix(Role::Source).unwrap();
    let log = trusting.log().from_now();
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, Role::Target, Protocol::Smtp);
        endpoint.port = trusting.addr().port().into();
        endpoint.set_announcement(Announcement::None);
    };
    reconfigure(&world, "to a server that trusts us", edit).await;
    let (_, greeting) = Sender::from(&world, "127.0.0.79").await;
    assert!(greeting.starts_with("421 4.3.5 "), "{greeting}");
    problem_is(&world, "unfit_endpoint").await;

    // With the right word for it, the server is seen to be a wrong one.
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, Role::Target, Protocol::Smtp);
        endpoint.set_announcement(Announcement::ProxyV2);
    };
    reconfigure(&world, "as if it took a header", edit).await;
    problem_is(&world, "proxy_unexpected").await;
    assert!(log.lines_with(&["connect from", "127.0.0.79"]).is_empty());
    world.stop().await.unwrap();
}

#[tokio::test]
async fn by_smtp_the_first_recipient_chooses_the_server_and_the_server_sees_who_sends_it() {
    let world = world().await;
    let [one, other] = [&world.accounts()[0], &world.accounts()[1]];
    migrate(&world.operator(0), move_to(other, "target"))
        .await
        .unwrap();
    let taken = world.data_planes()[0].smtp().unwrap();
    eventually("the data plane has heard of the release", SOON, || async {
        let (mut sender, _) = Sender::to(&world, taken, "127.0.0.78".parse().unwrap()).await;
        sender.ask("EHLO sender.example.net").await;
        sender.ask("MAIL FROM:<>").await;
        let said = sender.ask(&format!("RCPT TO:<{other}>")).await;
        said.starts_with("250").then_some(()).ok_or(said)
    })
    .await
    .unwrap();
    let log = world.postfix(Role::Target).unwrap().log().from_now();
    let (sender, greeting) = Sender::to(&world, taken, "127.0.0.77".parse().unwrap()).await;
    assert_eq!(greeting, "220 ferrypost ESMTP is ready.");
    let mut sender = sender.secure().await;
    sender.says("MAIL FROM:<bob@example.net>", "250").await;
    sender.says(&format!("RCPT TO:<{other}>"), "250").await;
    sender.says(&format!("RCPT TO:<{one}>"), "452 4.5.3").await;
    sender.says("RCPT TO:<x@example.net>", "550 5.1.2").await;
    sender.says("DATA", "354").await;
    sender.end().await;
    let seen = [": client=", "[127.0.0.77]"];
    log.wait_for(&seen, SOON).await.unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn both_recipients_of_one_message_of_a_real_mail_system_get_it_once_from_their_own_servers() {
    let world = world().await;
    let [one, other] = [&world.accounts()[0], &world.accounts()[1]];
    migrate(&world.operator(0), move_to(other, "target"))
        .await
        .unwrap();
    let through = world.data_planes()[0].smtp().unwrap();
    let system = mail_system(&world, Onward::Smtp(through)).await;
    let logs = [(Role::Source, one), (Role::Target, other)]
        .map(|(role, account)| (world.postfix(role).unwrap().log().from_now(), account));
    let from = "127.0.0.1".parse().unwrap();
    let (mut sender, _) = Sender::to(&world, system.addr(), from).await;
    sender.says("EHLO sender.example.net", "250").await;
    sender.says("MAIL FROM:<bob@example.net>", "250").await;
    sender.says(&format!("RCPT TO:<{one}>"), "250").await;
    sender.says(&format!("RCPT TO:<{other}>"), "250").await;
    sender.says("DATA", "354").await;
    sender.end().await;
    let arrived = |account: &str| [format!(": to=<{account}>"), "status=sent".to_owned()];
    for (log, account) in &logs {
        let [to, sent] = arrived(account);
        eventually("it arrives", SOON, || async {
            if log.lines_with(&[&to, &sent]).is_empty() {
                // Whoever was told to come again would do so by himself, in five minutes.
                system.flush().await.map_err(|error| error.to_string())?;
                return Err(system.log().tail());
            }
            Ok(())
        })
        .await
        .unwrap();
    }
    for (log, account) in &logs {
        let [to, sent] = arrived(account);
        assert_eq!(log.lines_with(&[&to, &sent]).len(), 1, "{}", log.text());
        assert_eq!(log.lines_with(&[": to=<"]).len(), 1, "{}", log.text());
    }
    world.stop().await.unwrap();
}

/// A Postfix that is told of its clients by XCLIENT, and delivers to the source's Dovecot.
#[tokio::test]
async fn a_postfix_that_takes_xclient_sees_who_sends_by_smtp_and_the_message_is_in_the_mailbox() {
    let world = world().await;
    let account = &world.accounts()[0];
    let lmtp = world.source().addr(Service::Lmtp);
    let system = mail_system(&world, Onward::Lmtp(lmtp)).await;
    let edit = |config: &mut RoutingConfig| {
        let endpoint = endpoint_of(config, Role::Source, Protocol::Smtp);
        endpoint.port = system.addr().port().into();
        endpoint.set_announcement(Announcement::Xclient);
        let tls = endpoint.tls.as_mut().unwrap();
        *tls = EndpointTls {
            plaintext_consent: true,
            ..EndpointTls::default()
        };
        tls.set_mode(Mode::None);
    };
    reconfigure(&world, "to a server that takes XCLIENT", edit).await;
    let log = system.log().from_now();
    let taken = world.data_planes()[0].smtp().unwrap();
    let (mut sender, _) = Sender::to(&world, taken, "127.0.0.77".parse().unwrap()).await;
    sender.says("EHLO sender.example.net", "250").await;
    sender.begin(account).await;
    sender.end().await;
    log.wait_for(&[": client=", "[127.0.0.77]"], SOON)
        .await
        .unwrap();
    let received = ["header Received: from sender.example.net", "[127.0.0.77]"];
    log.wait_for(&received, SOON).await.unwrap();
    log.wait_for(&[account, "status=sent"], SOON).await.unwrap();
    assert_eq!(subjects(world.source(), account).await, ["passed through"]);
    drop(system);
    world.stop().await.unwrap();
}

#[tokio::test]
async fn postscreen_sees_who_comes_through_us_and_hands_him_on_to_smtpd() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.inbound_mail().postscreen().start().await.unwrap();
    problem_is(&world, "reachable").await;
    let account = &world.accounts()[0];
    let log = world.postfix(Role::Target).unwrap().log().from_now();
    let (mut sender, greeting) = Sender::from(&world, "127.0.0.77").await;
    assert!(greeting.starts_with("220 target.example.org"), "{greeting}");
    sender.says("EHLO sender.example.net", "250").await;
    sender.begin(account).await;
    sender.end().await;
    for seen in ["CONNECT from [127.0.0.77]:", "PASS NEW [127.0.0.77]:"] {
        let screened = ["postfix/postscreen", seen];
        log.wait_for(&screened, SOON).await.unwrap();
    }
    log.wait_for(&[": client=", "[127.0.0.77]"], SOON)
        .await
        .unwrap();
    world.stop().await.unwrap();
}

/// What a probe of the target's port for mail finds.
async fn problem_is(world: &World, problem: &str) {
    let admin = world.admin(0);
    eventually("the probe has found it", SOON, || async {
        let stats = admin.stats().await.map_err(|error| error.to_string())?;
        let found = &stats["destinations"]["target"]["smtp"];
        match found["word"].as_str() {
            Some(found) if found == problem => Ok(()),
            _ => Err(found.to_string()),
        }
    })
    .await
    .unwrap();
}

async fn world() -> World {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder
        .both_families()
        .inbound_mail()
        .start()
        .await
        .unwrap();
    problem_is(&world, "reachable").await;
    world
}
