//! A web interface in a real browser, behind one host name with two data planes.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_tests::story::{SOON, migrate, move_to, roll_back, short_limits};
use ferrypost_tests::web::{Backend, Browser, Front, Version};
use ferrypost_tests::world::{DataPlane, Sites, World};
use http::Method;
use serde_json::json;

/// As docs/http.md has them: the page is the source's, a sign-in is remembered, and what it leads to is the account's.
const RULES: &str = "[[http.rules]]\nname = \"login page\"\nmethods = [\"GET\"]\npaths = [\"/login\", \"/favicon.ico\"]\n\
    pin = \"source\"\nwrites_to_accounts = false\n\n\
    [[http.rules]]\nname = \"sign in\"\nhosts = [\"mail.example.org\"]\nmethods = [\"POST\"]\npaths = [\"/login\"]\n\
    account_from = [\"form:user\"]\nwithout_account = \"challenge\"\n\
    learns = { status = [302], server_cookie = \"sid\", seconds = 28800 }\n\n\
    [[http.rules]]\nname = \"web interface\"\nhosts = [\"mail.example.org\"]\npaths = [\"/mail\", \"/api/*\"]\n\
    account_from = [\"cookie\"]\nwithout_account = { pin = \"source\" }\nwrites_to_accounts = false\n\n";

/// Two servers that know the same sessions, two data planes before them, and one host name before those.
struct Rig {
    source: Backend,
    target: Backend,
    world: World,
    front: Front,
    /// The data plane that answers next.
    turn: usize,
}

impl Rig {
    async fn start() -> Self {
        let servers = Backend::pair(&[Version::Http1], [true, false]).await;
        let [source, target] = servers.unwrap();
        let sites = Sites {
            servers: [source.addr(), target.addr()],
            announcements: ["proxy_v2", "x_forwarded"],
            versions: "[\"http/1.1\"]",
            rules: RULES,
        };
        let world = World::builder().sites(sites).limits(short_limits());
        let world = world.start().await.unwrap();
        let planes = world.data_planes().iter();
        let front = Front::start(planes.filter_map(DataPlane::web).collect());
        Self {
            source,
            target,
            front: front.await.unwrap(),
            world,
            turn: 0,
        }
    }

    async fn browser(&self) -> Browser {
        let folder = self.world.folder().join("browser");
        Browser::open(&folder, self.front.addr()).await.unwrap()
    }

    /// Fills in the form that everybody gets who is not signed in.
    async fn sign_in(&self, browser: &Browser) {
        browser.go("/mail").await.unwrap();
        browser.wait_for("/login").await.unwrap();
        let account = &self.world.accounts()[0];
        browser.write("#user", account).await.unwrap();
        let password = self.world.password();
        browser.write("#password", password).await.unwrap();
        browser.click("#go").await.unwrap();
        browser.wait_for("/mail").await.unwrap();
    }

    /// Lets the other data plane answer, and looks where it leads.
    async fn look(&mut self, browser: &Browser, home: &str) {
        self.front.turn().await;
        self.turn = 1 - self.turn;
        let log = self.world.data_planes()[self.turn].plane.log().from_now();
        let account = &self.world.accounts()[0];
        browser.go("/mail").await.unwrap();
        let shown = browser.text("#who").await.unwrap();
        assert_eq!(shown, format!("{account} on {home}"));
        let me = "return fetch('/api/me').then(answer => answer.json())";
        let me = browser.run(me).await.unwrap();
        assert_eq!(me, json!({"user": account, "server": home}));
        let destination = format!("destination={home}");
        for path in ["path=/mail", "path=/api/me"] {
            let line = [" exchange ", path, &*destination];
            log.wait_for(&line, SOON).await.unwrap();
        }
    }
}

/// How often a server was asked for its login page, and how often somebody signed in there.
fn logins(server: &Backend) -> [usize; 2] {
    let done = server.done();
    [Method::GET, Method::POST].map(|method| {
        let is_login = |done: &&_| is_login(done, &method);
        done.iter().filter(is_login).count()
    })
}

fn is_login(done: &ferrypost_tests::web::Done, method: &Method) -> bool {
    done.method == *method && done.path == "/login"
}

#[tokio::test]
async fn a_session_in_a_browser_follows_its_account_whichever_data_plane_answers() {
    if Browser::is_left_out() {
        return;
    }
    let mut rig = Rig::start().await;
    let account = rig.world.accounts()[0].clone();
    let browser = rig.browser().await;
    rig.sign_in(&browser).await;

    let cookies = browser.cookies().await.unwrap();
    let of_ours = |name: &str| cookies.iter().find(|it| it["name"] == name).cloned();
    let ours = of_ours("__Host-ferrypost").expect("what was learned");
    assert_eq!(
        (&ours["httpOnly"], &ours["secure"]),
        (&json!(true), &json!(true))
    );
    let value = ours["value"].as_str().unwrap();
    assert!(!value.contains("user1"), "{value}");
    let seen = browser.run("return document.cookie").await.unwrap();
    assert_eq!(seen, json!(""));

    for _ in 0..2 {
        rig.look(&browser, "source").await;
    }
    migrate(&rig.world.operator(0), move_to(&account, "target"))
        .await
        .unwrap();
    for _ in 0..4 {
        rig.look(&browser, "target").await;
    }
    // The page is pinned, and the form is not.
    browser.forget().await.unwrap();
    rig.sign_in(&browser).await;
    rig.look(&browser, "target").await;
    roll_back(&rig.world.operator(0), &account).await.unwrap();
    for _ in 0..2 {
        rig.look(&browser, "source").await;
    }
    assert_eq!((logins(&rig.source), logins(&rig.target)), ([2, 1], [0, 1]));
    browser.close().await.unwrap();
    rig.world.stop().await.unwrap();
}
