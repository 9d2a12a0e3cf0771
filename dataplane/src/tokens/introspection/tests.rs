//! An issuer that is asked, and what it does instead of answering.

use std::{path::Path, time::SystemTime};

use ferrypost_runtime::{metrics::Metrics, shutdown::Shutdown};
use ferrypost_wire::SecretWriter;
use http::StatusCode;
use serde_json::json;

use super::*;
use crate::{
    metrics::TABLE,
    net::resolver::{Resolver, System},
    session::tests::world::Authority,
    tokens::{
        settings::IssuerLogin,
        tests::issuer::{Reply, ScriptedIssuer},
    },
};

/// Somebody who asks.
struct World {
    issuer: ScriptedIssuer,
    introspection: Introspection,
    _directory: tempfile::TempDir,
}

fn settings(issuer: &ScriptedIssuer, directory: &Path) -> IntrospectionSettings {
    let secret_file = directory.join("secret");
    std::fs::write(&secret_file, "s3cret\n").unwrap();
    IntrospectionSettings {
        url: issuer.url().parse().unwrap(),
        ca_file: None,
        login: IssuerLogin::Client {
            id: "ferrypost".to_owned(),
            secret_file,
        },
        claims: vec!["email".to_owned(), "username".to_owned()],
    }
}

fn introspection(settings: &IntrospectionSettings, limits: TokenLimits) -> Introspection {
    let tasks = Shutdown::new();
    let means = Means {
        limits,
        resolver: &Resolver::new(System, tasks.clone()),
        metrics: &Arc::new(Metrics::new(TABLE)),
        tasks: &tasks,
    };
    Introspection::new(settings, &means).unwrap()
}

fn world(limits: TokenLimits) -> World {
    let directory = tempfile::tempdir().unwrap();
    let issuer = ScriptedIssuer::start(None);
    World {
        introspection: introspection(&settings(&issuer, directory.path()), limits),
        issuer,
        _directory: directory,
    }
}

fn secret(token: &str) -> Secret {
    SecretWriter::with_capacity(0)
        .text(token.as_bytes())
        .finish()
}

impl World {
    async fn owner(&self, token: &str) -> Result<String, NoOwner> {
        let owner = self.introspection.owner(&secret(token)).await?;
        assert_eq!(owner.proof, Proof::Issuer);
        Ok(owner.name)
    }

    async fn away(&self, token: &str) -> IssuerError {
        match self.owner(token).await {
            Err(NoOwner::Away(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn active(name: &str) -> Reply {
    Reply::json(&json!({"active": true, "email": name}))
}

#[tokio::test]
async fn an_issuer_is_asked_as_the_rfc_has_it() {
    let world = world(TokenLimits::default());
    world.issuer.says(active("alice@example.org"));
    assert_eq!(
        world.owner("t/0k=en").await.as_deref(),
        Ok("alice@example.org")
    );
    let question = world.issuer.questions().pop().unwrap();
    assert_eq!(question.line, "POST /introspect?x=1 HTTP/1.1");
    assert_eq!(question.header("host"), world.issuer.authority());
    assert_eq!(
        question.header("authorization"),
        "Basic ZmVycnlwb3N0OnMzY3JldA=="
    );
    assert_eq!(
        question.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(
        question.body,
        "token=t%2F0k%3Den&token_type_hint=access_token"
    );
}

#[tokio::test]
async fn an_answer_is_remembered_whatever_it_is() {
    let world = world(TokenLimits::default());
    world.issuer.says(active("alice@example.org"));
    for _ in 0..3 {
        assert!(world.owner("good").await.is_ok());
    }
    world.issuer.says(Reply::json(
        &json!({"active": false, "email": "alice@example.org"}),
    ));
    for _ in 0..3 {
        assert_eq!(world.owner("bad").await, Err(NoOwner::Refused));
    }
    world
        .issuer
        .says(Reply::json(&json!({"active": true, "sub": "4711"})));
    for _ in 0..3 {
        assert_eq!(world.owner("nameless").await, Err(NoOwner::Unread));
    }
    assert_eq!(world.issuer.questions().len(), 3);
    assert_eq!(world.issuer.connections(), 1, "it is kept open");
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_answer_and_is_not_remembered() {
    let limits = TokenLimits {
        answer: Duration::from_secs(3),
        ..TokenLimits::default()
    };
    let world = world(limits);
    for (reply, error) in [
        (Reply::Nothing, IssuerError::Timeout),
        (Reply::HangUp, IssuerError::Broken),
        (
            Reply::Status(503),
            IssuerError::Status(StatusCode::SERVICE_UNAVAILABLE),
        ),
        (Reply::Status(302), IssuerError::Status(StatusCode::FOUND)),
        (
            Reply::Status(401),
            IssuerError::Unauthorised(StatusCode::UNAUTHORIZED),
        ),
        (Reply::json(&json!({"email": "a"})), IssuerError::Malformed),
        (
            Reply::json(&json!({"active": "true"})),
            IssuerError::Malformed,
        ),
        (Reply::json(&json!(["active"])), IssuerError::Malformed),
        (
            Reply::json(&json!("x".repeat(70_000))),
            IssuerError::Malformed,
        ),
    ] {
        world.issuer.says(reply);
        assert_eq!(world.away("token").await, error);
    }
    world.issuer.says(active("alice@example.org"));
    assert_eq!(
        world.owner("token").await.as_deref(),
        Ok("alice@example.org")
    );
}

#[tokio::test]
async fn an_issuer_that_is_not_there_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = ScriptedIssuer::start(None);
    let mut settings = settings(&issuer, directory.path());
    let unused = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    settings.url = format!("http://{address}/").parse().unwrap();
    let introspection = introspection(&settings, TokenLimits::default());
    let refused = IssuerError::Unreachable(std::io::ErrorKind::ConnectionRefused);
    let owner = introspection.owner(&secret("token")).await;
    assert_eq!(owner, Err(NoOwner::Away(refused)));
}

#[tokio::test]
async fn what_many_connections_bring_at_once_is_asked_about_once() {
    let world = world(TokenLimits::default());
    let held = world.issuer.holds(active("alice@example.org"));
    let asking = futures_util::future::join_all((0..20).map(|_| world.owner("token")));
    let releasing = async {
        held.asked().await;
        held.release();
    };
    let (owners, ()) = tokio::join!(asking, releasing);
    assert!(owners.iter().all(Result::is_ok));
    assert_eq!(world.issuer.questions().len(), 1);
    let asking = world.introspection.asking.lock().unwrap();
    assert!(asking.is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn whoever_asks_and_goes_away_leaves_the_question_to_the_next() {
    let world = world(TokenLimits::default());
    let held = world.issuer.holds(active("alice@example.org"));
    let mut first = Box::pin(world.owner("token"));
    tokio::select! {
        _ = &mut first => panic!("it is held"),
        () = held.asked() => {}
    }
    let second = world.owner("token");
    world.issuer.says(active("alice@example.org"));
    drop(first);
    assert_eq!(second.await.as_deref(), Ok("alice@example.org"));
    assert_eq!(world.issuer.questions().len(), 2);
}

#[tokio::test]
async fn no_more_is_asked_at_once_than_may_be() {
    let limits = TokenLimits {
        at_once: 2,
        answer: Duration::from_secs(5),
        ..TokenLimits::default()
    };
    let world = world(limits);
    world.issuer.says(Reply::Nothing);
    let tokens = ["a", "b", "c"];
    let owners = futures_util::future::join_all(tokens.map(|token| world.owner(token))).await;
    let timeout = Err(NoOwner::Away(IssuerError::Timeout));
    assert!(owners.iter().all(|owner| *owner == timeout));
    assert_eq!(
        world.issuer.questions().len(),
        2,
        "the third waited in vain"
    );
    world.issuer.says(active("alice@example.org"));
    assert!(
        world.owner("c").await.is_ok(),
        "their places are free again"
    );
}

#[tokio::test]
async fn a_connection_that_the_issuer_has_closed_meanwhile_costs_nobody_a_login() {
    let world = world(TokenLimits::default());
    world
        .issuer
        .says(Reply::json(&json!({"active": true, "email": "a"})).and_close());
    for token in ["a", "b", "c"] {
        assert!(world.owner(token).await.is_ok());
    }
    assert_eq!(world.issuer.questions().len(), 3);
}

/// As behind a firewall that forgets what is idle, or when an issuer fails over.
#[tokio::test]
async fn idle_connections_that_fell_silent_cost_nobody_a_login() {
    let world = world(TokenLimits {
        answer: Duration::from_mins(1),
        ..TokenLimits::default()
    });
    world.issuer.says(active("alice@example.org"));
    let tokens = ["a", "b", "c"];
    let owners = futures_util::future::join_all(tokens.map(|token| world.owner(token))).await;
    assert!(owners.iter().all(Result::is_ok));
    assert_eq!(world.issuer.connections(), 3);
    world.issuer.forgets_its_connections();
    for token in ["d", "e", "f"] {
        assert!(world.owner(token).await.is_ok());
    }
    assert_eq!(
        world.issuer.connections(),
        4,
        "one is found out, and none is kept"
    );
}

#[tokio::test]
async fn an_issuer_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let issuer = ScriptedIssuer::start(Some(authority.sign("localhost").server()));
    issuer.says(active("alice@example.org"));
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let mut settings = settings(&issuer, directory.path());
    settings.ca_file = Some(ca.clone());
    let trusting = introspection(&settings, TokenLimits::default());
    assert!(trusting.owner(&secret("token")).await.is_ok());
    std::fs::write(&ca, Authority::new().pem).unwrap();
    let distrusting = introspection(&settings, TokenLimits::default());
    let owner = distrusting.owner(&secret("token")).await;
    assert!(
        matches!(owner, Err(NoOwner::Away(IssuerError::Unreachable(_)))),
        "{owner:?}"
    );
    assert_eq!(issuer.questions().len(), 1, "no token went to a stranger");
}

#[tokio::test]
async fn an_owner_is_kept_no_longer_than_the_token_lives_by_the_issuers_clock() {
    let world = world(TokenLimits::default());
    let life = |claims: Value, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        world
            .introspection
            .life(claims.as_object().unwrap(), &headers)
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let at = httpdate::fmt_http_date(at);
    let kept = TokenLimits::default().kept;
    assert_eq!(life(json!({}), None), kept);
    let seconds = |seconds| Duration::from_secs(seconds);
    assert_eq!(life(json!({"exp": 1_000_000_030}), Some(&at)), seconds(30));
    assert_eq!(life(json!({"exp": 1_000_009_999}), Some(&at)), kept);
    assert_eq!(life(json!({"exp": 999_999_999}), Some(&at)), seconds(0));
    assert_eq!(life(json!({"exp": 1_000_000_030}), None), seconds(0));
    assert_eq!(life(json!({"exp": 1_000_000_030}), Some("now")), seconds(0));
}
