//! HTTP through data planes: to real Cyruses, and to servers that a test has in its hand.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferrypost_tests::cyrus::{Service, calls_in_request, user_id};
use ferrypost_tests::dovecot::Role;
use ferrypost_tests::story::{SOON, migrate, move_to, short_limits};
use ferrypost_tests::wait::until;
use ferrypost_tests::web::{Answer, Backend, Message, Question, Version, WebClient};
use ferrypost_tests::world::{Builder, Sites, World};
use http::header::LOCATION;
use http::{Method, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::shell::shell;

const FORM: &str = "application/x-www-form-urlencoded";

/// What leads to the web interface belongs to the source, and so does one of two clients of the token endpoint.
const RULES: &str = "[[http.rules]]\nname = \"pages\"\npaths = [\"/login\", \"/away\"]\npin = \"source\"\n\
    writes_to_accounts = false\n\n\
    [[http.rules]]\nname = \"old tokens\"\nmethods = [\"POST\"]\npaths = [\"/auth/token\"]\n\
    form = [{ name = \"client_id\", values = [\"old-web\"] }]\npin = \"source\"\nwrites_to_accounts = false\n\n\
    [[http.rules]]\nname = \"tokens\"\npaths = [\"/auth/token\"]\npin = \"target\"\nwrites_to_accounts = false\n\n";

/// Two servers in the test's hand behind data planes; the source is told the client's address by PROXY.
struct Rig {
    source: Backend,
    target: Backend,
    world: World,
}

impl Rig {
    async fn start(builder: Builder) -> Self {
        Self::of_version(builder, Version::Http1).await
    }

    /// The same with servers that speak this version.
    async fn of_version(builder: Builder, version: Version) -> Self {
        let (versions, spoken): (&[_], _) = match version {
            Version::Http1 => (&[Version::Http1], "[\"http/1.1\"]"),
            Version::Http2 => (&[Version::Http2], "[\"h2\"]"),
        };
        let servers = Backend::pair(versions, [true, false]).await;
        let [source, target] = servers.unwrap();
        let sites = Sites {
            servers: [source.addr(), target.addr()],
            announcements: ["proxy_v2", "x_forwarded"],
            versions: spoken,
            rules: RULES,
        };
        let builder = builder.sites(sites).limits(short_limits());
        Self {
            source,
            target,
            world: builder.start().await.unwrap(),
        }
    }

    async fn client(&self, version: Version) -> WebClient {
        let connect = self.world.web(0);
        WebClient::open(&connect, version).await.unwrap()
    }

    fn of(&self, account: usize, question: Question) -> Question {
        question.of(&self.world.accounts()[account], self.world.password())
    }

    async fn move_first(&self) {
        let request = move_to(&self.world.accounts()[0], "target");
        migrate(&self.world.operator(0), request).await.unwrap();
    }
}

async fn ask(client: &mut WebClient, question: Question) -> Answer {
    client.ask(question).await.unwrap()
}

async fn server_of(client: &mut WebClient, question: Question) -> serde_json::Value {
    ask(client, question).await.json().unwrap()["server"].clone()
}

/// Has both Cyruses make the first account's calendars, which they do at a user's first request: so no move has to wait
/// for that within its window, which is too short for it where much runs beside.
async fn make_calendars(world: &World) {
    let (account, password) = (&world.accounts()[0], world.password());
    for role in [Role::Source, Role::Target] {
        let own = world.cyrus(role).unwrap().addr(Service::Http);
        shell(&format!(
            "curl -sSf -o /dev/null -u '{account}:{password}' http://{own}/dav/calendars/user/{}/Default/",
            user_id(account)
        ))
        .await;
    }
}

#[tokio::test]
async fn the_jmap_session_comes_from_the_server_that_holds_the_account() {
    let builder = World::builder().cyruses().limits(short_limits());
    let world = builder.start().await.unwrap();
    make_calendars(&world).await;
    let (account, password) = (&world.accounts()[0], world.password());
    let connects = [world.web(0), world.web(1)];
    let mut clients = Vec::new();
    for version in Version::ALL {
        for connect in &connects {
            clients.push(WebClient::open(connect, version).await.unwrap());
        }
    }
    for home in [Role::Source, Role::Target] {
        for client in &mut clients {
            let session = ask(client, Question::get("/jmap").of(account, password)).await;
            let session = session.json().unwrap();
            assert_eq!(session["accounts"][user_id(account)]["isPrimary"], true);
            let core = &session["capabilities"]["urn:ietf:params:jmap:core"];
            assert_eq!(core["maxCallsInRequest"], calls_in_request(home));
        }
        let port = world.data_planes()[0].web().unwrap().port();
        let said = shell(&format!(
            "curl -sSk -L -u '{account}:{password}' https://127.0.0.1:{port}/.well-known/jmap"
        ))
        .await;
        let expected = format!("\"maxCallsInRequest\":{}", calls_in_request(home));
        assert!(said.contains(&expected), "{said}");
        if home == Role::Source {
            let moved = migrate(&world.operator(0), move_to(account, "target")).await;
            moved.unwrap();
        }
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_real_client_finds_calendars_and_contacts_and_its_events_follow_the_account() {
    let builder = World::builder()
        .data_planes(1)
        .cyruses()
        .limits(short_limits());
    let world = builder.start().await.unwrap();
    make_calendars(&world).await;
    let account = &world.accounts()[0];
    let written = world.folder().join("dav-1");
    let read = world.folder().join("dav-2");
    for (kind, item) in [("ics", EVENT), ("vcf", CARD)] {
        let folder = written.join(kind).join("Default");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("lunch.{kind}")), item).unwrap();
    }
    vdirsyncer(&world, &written).await;
    let moved = migrate(&world.operator(0), move_to(account, "target")).await;
    moved.unwrap();
    vdirsyncer(&world, &read).await;
    let folder = read.join("ics").join("Default");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
    let event = std::fs::read_to_string(files[0].as_ref().unwrap().path()).unwrap();
    assert!(
        files.len() == 1 && event.contains("SUMMARY:Lunch"),
        "{event}"
    );
    world.stop().await.unwrap();
}

const EVENT: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Tests//EN\r\nBEGIN:VEVENT\r\nUID:lunch\r\n\
    DTSTAMP:20260101T000000Z\r\nDTSTART:20260101T120000Z\r\nDURATION:PT1H\r\nSUMMARY:Lunch\r\nEND:VEVENT\r\n\
    END:VCALENDAR\r\n";

const CARD: &str = "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:bob\r\nFN:Bob\r\nN:;Bob;;;\r\nEND:VCARD\r\n";

/// Finds what an account has by the host's name alone, and makes a folder and the server equal.
async fn vdirsyncer(world: &World, folder: &std::path::Path) {
    let (account, password) = (&world.accounts()[0], world.password());
    let port = world.data_planes()[0].web().unwrap().port();
    let (authority, here) = (world.authority(), folder.display());
    let pair = |kind: &str, storage: &str| {
        format!(
            "[pair {kind}]\na = \"{kind}_here\"\nb = \"{kind}_there\"\ncollections = [\"Default\"]\n\
             [storage {kind}_here]\ntype = \"filesystem\"\npath = \"{here}/{kind}\"\nfileext = \".{kind}\"\n\
             [storage {kind}_there]\ntype = \"{storage}\"\nurl = \"https://127.0.0.1:{port}/\"\n\
             username = \"{account}\"\npassword = \"{password}\"\nverify = \"{}\"\n",
            authority.display(),
        )
    };
    let config = format!(
        "[general]\nstatus_path = \"{here}/status\"\n{}{}",
        pair("ics", "caldav"),
        pair("vcf", "carddav"),
    );
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config"), config).unwrap();
    let program = format!("vdirsyncer -c {here}/config");
    shell(&format!(
        "yes | {program} discover 2>&1; {program} sync 2>&1"
    ))
    .await;
}

#[tokio::test]
async fn curl_is_told_to_go_on_and_gets_ranges_and_compressed_answers_as_the_server_gives_them() {
    let builder = World::builder().data_planes(1).cyruses();
    let world = builder.limits(short_limits()).start().await.unwrap();
    make_calendars(&world).await;
    let (account, password) = (&world.accounts()[0], world.password());
    let event = EVENT.replace(
        "SUMMARY:Lunch",
        &format!("SUMMARY:{}", "Lunch ".repeat(500)),
    );
    let file = world.folder().join("lunch.ics");
    std::fs::write(&file, &event).unwrap();
    let path = format!("dav/calendars/user/{}/Default/lunch.ics", user_id(account));
    let through = world.data_planes()[0].web().unwrap();
    for home in [Role::Source, Role::Target] {
        let own = world.cyrus(home).unwrap().addr(Service::Https);
        for version in ["--http1.1", "--http2"] {
            let curl = format!("curl -sSk {version}");
            let put = format!(
                "-v --expect100-timeout 60 -H 'Expect: 100-continue' -H 'Content-Type: text/calendar' -T {} https://{through}/{path} 2>&1",
                file.display()
            );
            let refused = shell(&format!("{curl} {put}")).await;
            let curl = format!("{curl} -u '{account}:{password}'");
            let taken = shell(&format!("{curl} {put}")).await;
            // Whoever is not let in is not told to go on. HTTP/2's word for it curl does not show.
            assert!(
                !refused.contains("100 Continue") && refused.contains(" 401 "),
                "{refused}"
            );
            assert!(
                taken.contains("100 Continue") || version == "--http2",
                "{taken}"
            );
            assert!(
                taken.contains(" 201 ") || taken.contains(" 204 "),
                "{taken}"
            );
            for wanted in [
                "",
                "-r 20-39",
                "-r -10",
                "-H 'Accept-Encoding: gzip'",
                "-H 'Accept-Encoding: gzip' -r 0-19",
            ] {
                let get = async |from| {
                    let get = format!("{curl} {wanted} -D- https://{from}/{path} | base64 -w0");
                    let said = STANDARD.decode(shell(&get).await).unwrap();
                    parted(&said)
                };
                let (expected, got) = (get(own).await, get(through).await);
                assert_eq!(got, expected, "{wanted}");
            }
        }
        if home == Role::Source {
            let moved = migrate(&world.operator(0), move_to(account, "target")).await;
            moved.unwrap();
        }
    }
    world.stop().await.unwrap();
}

/// An answer's status, the fields that say what its body is, and the body.
fn parted(answer: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.unwrap() + 4);
    let head = String::from_utf8_lossy(head).to_lowercase();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let fields = lines.filter(|line| {
        let described = ["accept-ranges:", "content-", "etag:", "vary:"];
        described.iter().any(|name| line.starts_with(name))
    });
    let mut said: Vec<_> = fields.map(str::to_owned).collect();
    said.sort();
    said.insert(0, status);
    (said, body.to_vec())
}

#[tokio::test]
async fn two_accounts_on_one_connection_are_served_by_two_servers() {
    let rig = Rig::start(World::builder().data_planes(1)).await;
    rig.move_first().await;
    for version in Version::ALL {
        let mut client = rig.client(version).await;
        for _ in 0..3 {
            for (account, home) in [(0, "target"), (1, "source")] {
                let said = ask(&mut client, rig.of(account, Question::get("/whoami"))).await;
                let said = said.json().unwrap();
                assert_eq!(said["server"], home);
                assert_eq!(said["user"], rig.world.accounts()[account].as_str());
                assert_eq!(said["host"], "mail.example.org");
                let local = client.local();
                if home == "source" {
                    assert_eq!(said["client"], local.to_string());
                } else {
                    let forwarded = said["headers"].to_string();
                    assert!(forwarded.contains(&local.ip().to_string()), "{forwarded}");
                }
            }
        }
    }
    rig.world.stop().await.unwrap();
}

#[tokio::test]
async fn pages_and_tokens_stay_where_they_are_pinned_and_redirects_on_the_public_host() {
    let rig = Rig::start(World::builder().data_planes(1)).await;
    rig.move_first().await;
    for version in Version::ALL {
        let mut client = rig.client(version).await;
        let page = ask(&mut client, Question::get("/login")).await;
        assert!(page.text().contains("<form"), "{page:?}");
        for (id, home) in [("old-web", "source"), ("new-web", "target")] {
            let form = format!("grant_type=code&client_id={id}");
            let question = Question::post("/auth/token", FORM, form);
            assert_eq!(server_of(&mut client, question).await, home);
        }
        let away = ask(&mut client, Question::get("/away")).await;
        let location = away.field(&LOCATION).unwrap();
        assert_eq!(location, "https://mail.example.org/whoami");
        let stranger = ask(&mut client, Question::get("/files/a")).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED);
    }
    rig.world.stop().await.unwrap();
}

#[tokio::test]
async fn a_web_socket_is_closed_at_a_move_so_that_its_client_comes_again() {
    for spoken in Version::ALL {
        a_web_socket_over_a_move(spoken).await;
    }
}

async fn a_web_socket_over_a_move(spoken: Version) {
    let rig = Rig::of_version(World::builder().data_planes(1), spoken).await;
    let mut client = rig.client(Version::Http1).await;
    let mut socket = client
        .socket(rig.of(0, Question::get("/ws")))
        .await
        .unwrap();
    let hello = Message::Text("hello".to_owned());
    socket.send(&hello).await.unwrap();
    let said = Some(Message::Text("source: hello".to_owned()));
    assert_eq!(socket.next().await.unwrap(), said);
    rig.move_first().await;
    assert_eq!(
        socket.next().await.unwrap(),
        Some(Message::Close(Some(1012)))
    );
    let mut client = rig.client(Version::Http1).await;
    let mut socket = client
        .socket(rig.of(0, Question::get("/ws")))
        .await
        .unwrap();
    socket.send(&hello).await.unwrap();
    let said = Some(Message::Text("target: hello".to_owned()));
    assert_eq!(socket.next().await.unwrap(), said);
    rig.world.stop().await.unwrap();
}

#[tokio::test]
async fn an_upload_that_a_move_meets_is_done_once_or_not_at_all() {
    for spoken in Version::ALL {
        uploads_over_moves(spoken).await;
    }
}

async fn uploads_over_moves(spoken: Version) {
    let rig = Rig::of_version(World::builder().data_planes(1), spoken).await;
    for (path, ends) in [("/upload/finishes", true), ("/upload/hangs", false)] {
        let home = if ends { &rig.source } else { &rig.target };
        let (pieces, stream) = mpsc::channel(1);
        let stream = ReceiverStream::new(stream).map(|piece| Ok(Frame::data(piece)));
        let upload = Question::new(Method::PUT, path).body("text/plain", StreamBody::new(stream));
        let (mut client, upload) = (rig.client(Version::Http1).await, rig.of(0, upload));
        let asked = tokio::spawn(async move { client.ask(upload).await });
        pieces.send(Bytes::from_static(b"first")).await.unwrap();
        until("the first piece", SOON, || home.read_of(path) == 5)
            .await
            .unwrap();
        if ends {
            pieces.send(Bytes::from_static(b"last")).await.unwrap();
            drop(pieces);
            rig.move_first().await;
            assert_eq!(asked.await.unwrap().unwrap().status, StatusCode::OK);
        } else {
            let back = move_to(&rig.world.accounts()[0], "source");
            migrate(&rig.world.operator(0), back).await.unwrap();
            let answer = asked.await.unwrap();
            let is_done = answer.is_ok_and(|answer| answer.status.is_success());
            assert!(!is_done, "a success, and the upload hangs");
            drop(pieces);
        }
    }
    let done: Vec<_> = [rig.source.done(), rig.target.done()].concat();
    assert_eq!((done.len(), done[0].octets), (1, 9), "{done:?}");
    rig.world.stop().await.unwrap();
}

#[tokio::test]
async fn load_and_curl_get_every_answer() {
    for spoken in Version::ALL {
        load_and_curl(spoken).await;
    }
}

async fn load_and_curl(spoken: Version) {
    let rig = Rig::of_version(World::builder().data_planes(1), spoken).await;
    let (account, password) = (&rig.world.accounts()[0], rig.world.password());
    let url = format!(
        "https://127.0.0.1:{}",
        rig.world.data_planes()[0].web().unwrap().port()
    );
    let credentials = STANDARD.encode(format!("{account}:{password}"));
    for options in ["", "--h1 "] {
        let said = shell(&format!(
            "h2load {options}-n 400 -c 8 -m 5 -H 'Authorization: Basic {credentials}' {url}/whoami"
        ))
        .await;
        assert!(said.contains("400 succeeded, 0 failed"), "{said}");
    }
    let file = rig.world.folder().join("large");
    std::fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    let curl = format!(
        "curl -sS --fail --cacert {} -u '{account}:{password}'",
        rig.world.authority().display()
    );
    for version in ["--http1.1", "--http2"] {
        for sent in ["-T", "-H 'Transfer-Encoding: chunked' -T"] {
            let put = format!(
                "{curl} {version} {sent} {} {url}/files/large",
                file.display()
            );
            let get = format!(
                "{curl} {version} {url}/files/large | cmp - {}",
                file.display()
            );
            shell(&format!("{put}; {get}")).await;
        }
    }
    rig.world.stop().await.unwrap();
}
