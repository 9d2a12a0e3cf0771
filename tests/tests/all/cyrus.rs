//! A Cyrus without anybody in front of it: what the tests of HTTP stand on.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use ferrypost_tests::certs::Authority;
use ferrypost_tests::cyrus::{Cyrus, Service, Setup, calls_in_request, user_id};
use ferrypost_tests::dovecot::{Role, scratch};
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::web::{Answer, Question, Version, WebClient};
use http::StatusCode;
use http::header::{LOCATION, WWW_AUTHENTICATE};
use tempfile::TempDir;

const ALICE: &str = "alice@example.org";
const DORA: &str = "dora@example.net";
const PASSWORD: &str = "secret";

const CALENDAR: &str = "text/calendar";
const EVENT: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//Tests//EN\r\nBEGIN:VEVENT\r\nUID:lunch\r\n\
    DTSTAMP:20260101T000000Z\r\nDTSTART:20260101T120000Z\r\nDURATION:PT1H\r\nSUMMARY:Lunch\r\nEND:VEVENT\r\n\
    END:VCALENDAR\r\n";

struct Server {
    cyrus: Cyrus,
    authority: Authority,
    _parent: TempDir,
}

impl Server {
    async fn start(role: Role) -> Self {
        let (authority, parent) = (Authority::new("Fixtures").unwrap(), scratch().unwrap());
        let setup = Setup {
            role,
            identity: &authority.server().unwrap(),
            accounts: &[ALICE.to_owned(), DORA.to_owned()],
            password: PASSWORD,
            survives: false,
        };
        let cyrus = Cyrus::start(parent.path(), setup).await.unwrap();
        Self {
            cyrus,
            authority,
            _parent: parent,
        }
    }

    async fn connect(&self, service: Service, version: Version) -> WebClient {
        let security = match service {
            Service::Https => Security::Tls(self.authority.client_config().unwrap()),
            _ => Security::Plain,
        };
        let connect = Connect::new(self.cyrus.addr(service), security);
        WebClient::open(&connect, version).await.unwrap()
    }
}

async fn ask(client: &mut WebClient, question: Question) -> Answer {
    client.ask(question).await.unwrap()
}

#[tokio::test]
async fn a_session_resource_names_the_account_in_clear_and_by_tls_by_both_versions() {
    for role in [Role::Source, Role::Target] {
        let server = Server::start(role).await;
        for (service, version) in [
            (Service::Http, Version::Http1),
            (Service::Https, Version::Http1),
            (Service::Https, Version::Http2),
        ] {
            let mut client = server.connect(service, version).await;
            let moved = ask(&mut client, Question::get("/.well-known/jmap")).await;
            assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
            let location = moved.field(&LOCATION).unwrap();
            assert!(location.ends_with("://mail.example.org/jmap"), "{location}");
            for account in [ALICE, DORA] {
                let question = Question::get("/jmap").of(account, PASSWORD);
                let session = ask(&mut client, question).await.json().unwrap();
                let user = user_id(account);
                assert_eq!(session["username"], user);
                assert_eq!(session["accounts"][user]["isPrimary"], true);
                let core = &session["capabilities"]["urn:ietf:params:jmap:core"];
                assert_eq!(core["maxCallsInRequest"], calls_in_request(role));
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_password_or_none_is_challenged() {
    let server = Server::start(Role::Source).await;
    let mut client = server.connect(Service::Https, Version::Http2).await;
    for question in [
        Question::get("/jmap").of(ALICE, "wrong"),
        Question::get("/jmap").of("nobody@example.org", PASSWORD),
        Question::get("/jmap"),
    ] {
        let refused = ask(&mut client, question).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        let challenge = refused.field(&WWW_AUTHENTICATE).unwrap();
        assert!(challenge.starts_with("Basic"), "{challenge}");
    }
}

#[tokio::test]
async fn an_event_is_read_as_it_was_put_also_after_a_restart() {
    let mut server = Server::start(Role::Source).await;
    let path = format!("/dav/calendars/user/{}/Default/lunch.ics", user_id(ALICE));
    let mut client = server.connect(Service::Https, Version::Http1).await;
    let put = Question::put(&path, CALENDAR, EVENT).of(ALICE, PASSWORD);
    assert_eq!(ask(&mut client, put).await.status, StatusCode::CREATED);
    server.cyrus.stop().await.unwrap();
    server.cyrus.start_again().await.unwrap();
    let mut client = server.connect(Service::Https, Version::Http2).await;
    let got = ask(&mut client, Question::get(&path).of(ALICE, PASSWORD)).await;
    assert_eq!((got.status, got.text().as_str()), (StatusCode::OK, EVENT));
    let of_another = ask(&mut client, Question::get(&path).of(DORA, PASSWORD)).await;
    assert!(!of_another.status.is_success(), "{of_another:?}");
}
