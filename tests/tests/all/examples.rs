//! The shipped routing configurations with HTTP, as they are but for where the servers are.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_tests::certs::Authority;
use ferrypost_tests::dovecot::scratch;
use ferrypost_tests::story::{landing, migrate, move_to, short_limits};
use ferrypost_tests::web::{Answer, Backend, Question, Sessions, Setup, Version, WebClient};
use ferrypost_tests::world::{Family, Shipped, World};
use http::header::HOST;
use http::{HeaderValue, Method, StatusCode};
use tempfile::TempDir;

const FORM: &str = "application/x-www-form-urlencoded";

/// Servers of HTTP in the test's hand behind a data plane that runs an example.
struct Rig {
    source: Option<Backend>,
    target: Backend,
    world: World,
    _authority: TempDir,
}

impl Rig {
    async fn start(family: Family) -> Self {
        let authority = Authority::new("Sites").unwrap();
        let identity = authority.server().unwrap();
        let folder = scratch().unwrap();
        let file = folder.path().join("sites.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let backend = async |name, versions, announced| {
            let setup = Setup {
                name,
                password: "correct-horse",
                identity: Some(&identity),
                versions,
                announced,
                sessions: Sessions::default(),
            };
            Backend::start(setup).await.unwrap()
        };
        let (source, target) = match family {
            Family::WebSource => (
                Some(backend("source", &[Version::Http1], true).await),
                backend("target", &[Version::Http1], true).await,
            ),
            Family::DovecotSource => (None, backend("target", &Version::ALL, false).await),
        };
        let shipped = Shipped {
            family,
            source: source.as_ref().map(Backend::addr),
            target: target.addr(),
            authority: file,
        };
        let world = World::builder().data_planes(1).shipped(shipped);
        Self {
            source,
            target,
            world: world.limits(short_limits()).start().await.unwrap(),
            _authority: folder,
        }
    }

    async fn client(&self, version: Version) -> WebClient {
        WebClient::open(&self.world.web(0), version).await.unwrap()
    }

    /// A question of the account that moves.
    fn of_account(&self, question: Question) -> Question {
        question.of(&self.world.accounts()[0], self.world.password())
    }

    /// Where the account's clients of IMAP are.
    async fn landing(&self) -> String {
        let (account, password) = (&self.world.accounts()[0], self.world.password());
        landing(&self.world.imaps(0), account, password)
            .await
            .unwrap()
    }

    /// Moves the account, and gives back what the plan called a risk.
    async fn migrate(&self) -> String {
        let request = move_to(&self.world.accounts()[0], "target");
        let moved = migrate(&self.world.operator(0), request).await.unwrap();
        moved.residual_risks.join("\n")
    }
}

async fn ask(client: &mut WebClient, question: Question) -> Answer {
    client.ask(question).await.unwrap()
}

/// Which of the requests for a path a server has had.
fn asked(server: &Backend, path: &str) -> usize {
    let done = server.done();
    done.iter().filter(|done| done.path == path).count()
}

/// The same of those that came with a login: a probe asks without.
fn asked_by_somebody(server: &Backend, path: &str) -> usize {
    let done = server.done();
    let of_somebody = done.iter().filter(|done| done.user.is_some());
    of_somebody.filter(|done| done.path == path).count()
}

#[tokio::test]
async fn behind_a_source_with_a_web_interface_its_pages_stay_and_an_account_takes_all_of_its_http_along()
 {
    let rig = Rig::start(Family::WebSource).await;
    let source = rig.source.as_ref().unwrap();
    for (n, home) in (1..).zip(["source", "target"]) {
        for version in Version::ALL {
            let mut client = rig.client(version).await;
            let page = ask(&mut client, Question::get("/login")).await;
            assert!(page.text().contains("<form"), "{page:?}");
            for (id, pinned) in [("webadmin", "source"), ("new-web", "target")] {
                let form = format!("grant_type=authorization_code&code=x&client_id={id}");
                let question = Question::post("/auth/token", FORM, form);
                let token = ask(&mut client, question).await.json().unwrap();
                assert_eq!(token["server"], pinned);
            }
            let policy = Question::get("/.well-known/mta-sts.txt");
            let policy = policy.with(HOST, HeaderValue::from_static("mta-sts.example.org"));
            ask(&mut client, policy).await;
            let preflight = Question::new(Method::OPTIONS, "/jmap/");
            let preflight = ask(&mut client, preflight).await;
            assert_eq!(preflight.status, StatusCode::NO_CONTENT);
            let nobody = ask(&mut client, Question::get("/whoami")).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);

            let who = ask(&mut client, rig.of_account(Question::get("/whoami"))).await;
            let who = who.json().unwrap();
            assert_eq!(who["server"], home);
            assert_eq!(who["client"], client.local().to_string());
            let jmap = rig.of_account(Question::get("/.well-known/jmap"));
            ask(&mut client, jmap).await;
        }
        assert_eq!(asked(source, "/login"), 2 * n);
        assert_eq!(asked(source, "/.well-known/mta-sts.txt"), 2 * n);
        let homes = [source, &rig.target].map(|it| asked_by_somebody(it, "/.well-known/jmap"));
        assert_eq!(homes, [2, 2 * (n - 1)]);
        assert_eq!(rig.landing().await, home);
        if home == "source" {
            let risks = rig.migrate().await;
            assert!(!risks.contains("tokens"), "{risks}");
        }
    }
    assert_eq!(asked(&rig.target, "/login"), 0);
    rig.world.stop().await.unwrap();
}

#[tokio::test]
async fn in_front_of_a_dovecot_all_http_is_the_targets_before_and_after_a_move_which_names_it_as_a_risk()
 {
    let rig = Rig::start(Family::DovecotSource).await;
    for home in ["source", "target"] {
        for version in Version::ALL {
            let mut client = rig.client(version).await;
            for question in [
                rig.of_account(Question::get("/whoami")),
                Question::get("/whoami"),
            ] {
                let who = ask(&mut client, question).await.json().unwrap();
                assert_eq!(who["server"], "target");
                let headers = who["headers"].to_string();
                assert!(headers.contains("[\"forwarded\""), "{headers}");
                let local = client.local().to_string();
                assert!(headers.contains(&local), "{headers}");
            }
            let path = format!("/files/{home}");
            let put = Question::put(&path, "text/plain", "hello");
            let put = ask(&mut client, rig.of_account(put)).await;
            assert!(put.status.is_success(), "{put:?}");
            let got = ask(&mut client, rig.of_account(Question::get(&path))).await;
            assert_eq!(got.text(), "hello");
        }
        assert_eq!(rig.landing().await, home);
        if home == "source" {
            let risks = rig.migrate().await;
            assert!(risks.contains("everything"), "{risks}");
        }
    }
    rig.world.stop().await.unwrap();
}
