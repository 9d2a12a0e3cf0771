use bytes::Bytes;
use http::StatusCode;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http_body_util::BodyExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::certs::Authority;
use crate::imap::{Connect, Security};
use crate::wait::until;
use crate::web::{Message, Question, WebClient};

const ALICE: &str = "alice@example.org";
const PASSWORD: &str = "secret";
const SOON: Duration = Duration::from_mins(1);

const FORM: &str = "application/x-www-form-urlencoded";

struct Rig {
    backend: Backend,
    connect: Connect,
}

impl Rig {
    async fn start() -> Self {
        let authority = Authority::new("Backends").unwrap();
        let identity = authority.server().unwrap();
        let setup = Setup {
            name: "source",
            password: PASSWORD,
            identity: Some(&identity),
            versions: &Version::ALL,
            announced: false,
            sessions: Sessions::default(),
        };
        let backend = Backend::start(setup).await.unwrap();
        let trust = authority.client_config().unwrap();
        Self {
            connect: Connect::new(backend.addr(), Security::Tls(trust)),
            backend,
        }
    }

    async fn client(&self, version: Version) -> WebClient {
        WebClient::open(&self.connect, version).await.unwrap()
    }
}

fn get(path: &str) -> Question {
    Question::get(path).of(ALICE, PASSWORD)
}

#[tokio::test]
async fn it_says_who_it_is_and_what_it_was_asked() {
    let rig = Rig::start().await;
    for version in Version::ALL {
        let answer = rig.client(version).await.ask(get("/whoami?a=b")).await;
        let said = answer.unwrap().json().unwrap();
        assert_eq!(said["server"], "source");
        assert_eq!(said["user"], ALICE);
        assert_eq!(said["host"], "mail.example.org");
        let target = said["target"].as_str().unwrap();
        assert!(target.ends_with("/whoami?a=b"), "{target}");
    }
    assert_eq!(rig.backend.done().len(), 2);
}

#[tokio::test]
async fn a_header_in_front_says_who_the_client_is() {
    let setup = Setup {
        name: "source",
        password: PASSWORD,
        identity: None,
        versions: &[Version::Http1],
        announced: true,
        sessions: Sessions::default(),
    };
    let backend = Backend::start(setup).await.unwrap();
    let client = SocketAddr::from(([192, 0, 2, 77], 40_077));
    let connect = Connect::new(backend.addr(), Security::Plain);
    let connect = connect.announcing(client, SocketAddr::from(([198, 51, 100, 5], 443)));
    let mut opened = WebClient::open(&connect, Version::Http1).await.unwrap();
    let said = opened.ask(get("/whoami")).await.unwrap().json().unwrap();
    assert_eq!(said["client"], client.to_string());
}

#[tokio::test]
async fn a_web_socket_says_everything_back_in_both_versions() {
    let rig = Rig::start().await;
    for version in Version::ALL {
        let mut client = rig.client(version).await;
        let mut socket = client.socket(get("/ws")).await.unwrap();
        socket
            .send(&Message::Text("hello".to_owned()))
            .await
            .unwrap();
        let said = Some(Message::Text("source: hello".to_owned()));
        assert_eq!(socket.next().await.unwrap(), said);
        socket.send(&Message::Close(Some(1000))).await.unwrap();
        assert_eq!(
            socket.next().await.unwrap(),
            Some(Message::Close(Some(1000)))
        );
    }
}

#[tokio::test]
async fn a_stranger_opens_no_web_socket() {
    let rig = Rig::start().await;
    for version in Version::ALL {
        let mut client = rig.client(version).await;
        assert!(client.socket(Question::get("/ws")).await.is_err());
    }
}

#[tokio::test]
async fn what_is_announced_comes_on_streams_and_ends_polls() {
    let rig = Rig::start().await;
    let (mut streaming, mut polling) = (
        rig.client(Version::Http2).await,
        rig.client(Version::Http1).await,
    );
    let mut events = streaming.begin(get("/events")).await.unwrap().into_body();
    let first = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: source\n\n");
    let polled = tokio::spawn(async move { polling.ask(get("/poll")).await.unwrap() });
    until("the poll", SOON, || rig.backend.done().len() == 2)
        .await
        .unwrap();
    until("both listen", SOON, || rig.backend.announce("mail") == 2)
        .await
        .unwrap();
    assert_eq!(polled.await.unwrap().text(), "mail");
    let second = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(second, "data: mail\n\n");
}

#[tokio::test]
async fn a_form_signs_in_and_its_cookie_is_known_to_the_other_server_too() {
    let rig = Rig::start().await;
    let mut client = rig.client(Version::Http1).await;
    let wrong = Question::post("/login", FORM, "user=alice%40example.org&password=x");
    assert_eq!(
        client.ask(wrong).await.unwrap().status,
        StatusCode::UNAUTHORIZED
    );
    let right = Question::post("/login", FORM, "user=alice%40example.org&password=secret");
    let answer = client.ask(right).await.unwrap();
    assert_eq!(
        answer.field(&LOCATION),
        Some("https://mail.example.org/mail")
    );
    let cookie = answer.field(&SET_COOKIE).unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let other = Setup {
        name: "target",
        password: PASSWORD,
        identity: None,
        versions: &[Version::Http1],
        announced: false,
        sessions: rig.backend.state.sessions.clone(),
    };
    let other = Backend::start(other).await.unwrap();
    let connect = Connect::new(other.addr(), Security::Plain);
    let mut client = WebClient::open(&connect, Version::Http1).await.unwrap();
    let question = Question::get("/api/me").with(COOKIE, cookie.parse().unwrap());
    let said = client.ask(question).await.unwrap().json().unwrap();
    assert_eq!(said, json!({"server": "target", "user": ALICE}));
    let without = client.ask(Question::get("/mail")).await.unwrap();
    assert_eq!(without.field(&LOCATION), Some("/login"));
}

#[tokio::test]
async fn an_upload_is_done_when_all_of_it_has_come() {
    let rig = Rig::start().await;
    let (pieces, stream) = mpsc::channel(1);
    let body = StreamBody::new(ReceiverStream::new(stream).map(|piece| Ok(Frame::data(piece))));
    let upload = Question::new(Method::PUT, "/upload/a").of(ALICE, PASSWORD);
    let mut client = rig.client(Version::Http1).await;
    let asking = tokio::spawn(async move { client.ask(upload.body("text/plain", body)).await });
    pieces.send(Bytes::from_static(b"abc")).await.unwrap();
    until("three octets", SOON, || {
        rig.backend.read_of("/upload/a") == 3
    })
    .await
    .unwrap();
    rig.backend.stall(true);
    pieces.send(Bytes::from_static(b"def")).await.unwrap();
    assert!(rig.backend.done().is_empty());
    rig.backend.stall(false);
    until("six octets", SOON, || rig.backend.read_of("/upload/a") == 6)
        .await
        .unwrap();
    drop(pieces);
    assert_eq!(asking.await.unwrap().unwrap().status, StatusCode::OK);
    let done = rig.backend.done();
    assert_eq!((done.len(), done[0].octets), (1, 6));
}
