//! The ways together: who is asked when, and what decides.

pub(crate) mod issuer;

use ferrypost_wire::{BearerFrame, SecretWriter};
use serde_json::json;

use super::{
    jwt::tests::Signer,
    settings::{IntrospectionSettings, IssuerLogin, JwtKeys, JwtSettings},
    *,
};
use crate::{metrics::TABLE, net::resolver::System};
use issuer::{Reply, ScriptedIssuer};

/// Ways to tell, of which each is told.
struct World {
    ways: Ways,
    metrics: Arc<Metrics>,
    _directory: tempfile::TempDir,
}

fn world(owner: Vec<WaySettings>, directory: tempfile::TempDir) -> World {
    let metrics = Arc::new(Metrics::new(TABLE));
    let tasks = Shutdown::new();
    let means = Means {
        limits: TokenLimits::default(),
        resolver: &Resolver::new(System, tasks.clone()),
        metrics: &metrics,
        tasks: &tasks,
    };
    World {
        ways: Ways::new(&Settings { owner }, &means).unwrap(),
        metrics,
        _directory: directory,
    }
}

fn introspection(issuer: &ScriptedIssuer, directory: &tempfile::TempDir) -> WaySettings {
    let file = directory.path().join("token");
    std::fs::write(&file, "ours\n").unwrap();
    WaySettings::Introspection(IntrospectionSettings {
        url: issuer.url().parse().unwrap(),
        ca_file: None,
        login: IssuerLogin::Token { file },
        claims: vec!["username".to_owned()],
    })
}

fn jwt(signer: &Signer, directory: &tempfile::TempDir) -> WaySettings {
    let file = directory.path().join("keys");
    std::fs::write(&file, json!({"keys": [signer.key("k")]}).to_string()).unwrap();
    WaySettings::Jwt(JwtSettings {
        keys: JwtKeys::File(file),
        issuer: None,
        claims: vec!["email".to_owned()],
    })
}

fn bearer(name: &str, token: &str) -> Bearer {
    let token = SecretWriter::with_capacity(0)
        .text(token.as_bytes())
        .finish();
    let bearer = Bearer::new(BearerFrame::Xoauth2, name.as_bytes(), token);
    bearer.ok().unwrap()
}

impl World {
    async fn owner(&self, name: &str, token: &str) -> Result<(String, Proof), NoOwner> {
        let owner = self.ways.owner(&bearer(name, token)).await?;
        Ok((owner.name, owner.proof))
    }

    fn count(&self, way: TokenWay, outcome: TokenOutcome) -> u64 {
        let words = [way.into_str(), outcome.into_str()];
        self.metrics.counter(&TOKENS, &words).value()
    }
}

fn said(name: &str, proof: Proof) -> (String, Proof) {
    (name.to_owned(), proof)
}

#[tokio::test]
async fn the_first_that_can_tell_decides() {
    let directory = tempfile::tempdir().unwrap();
    let (signer, issuer) = (Signer::p256(), ScriptedIssuer::start(None));
    issuer.says(Reply::json(
        &json!({"active": true, "username": "opaque@example.org"}),
    ));
    let owner = vec![
        WaySettings::Stalwart,
        jwt(&signer, &directory),
        introspection(&issuer, &directory),
        WaySettings::NameBeside,
    ];
    let world = world(owner, directory);
    let stalwart = format!("sw1.{}.YWxpY2VAZXhhbXBsZS5vcmc", "s".repeat(67));
    let told = world.owner("bob", &stalwart).await;
    assert_eq!(told, Ok(said("alice@example.org", Proof::Claimed)));
    let claims = json!({"email": "carol@example.org"});
    let token = signer.token(&json!({"alg": "ES256", "kid": "k"}), &claims);
    assert_eq!(
        world.owner("bob", &token).await,
        Ok(said("carol@example.org", Proof::Issuer))
    );
    assert_eq!(issuer.questions().len(), 0);
    let told = world.owner("bob", "opaque").await;
    assert_eq!(told, Ok(said("opaque@example.org", Proof::Issuer)));
    assert_eq!(world.count(TokenWay::Jwt, TokenOutcome::Unread), 1);
    assert_eq!(world.count(TokenWay::Introspection, TokenOutcome::Told), 1);
    assert_eq!(world.count(TokenWay::NameBeside, TokenOutcome::Told), 0);
}

#[tokio::test]
async fn an_issuer_that_is_away_leaves_it_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = ScriptedIssuer::start(None);
    issuer.says(Reply::Status(500));
    let owner = vec![introspection(&issuer, &directory), WaySettings::NameBeside];
    let world = world(owner, directory);
    let told = world.owner("bob", "opaque").await;
    assert!(matches!(told, Err(NoOwner::Away(_))), "{told:?}");
    assert_eq!(world.count(TokenWay::Introspection, TokenOutcome::Away), 1);
}

#[tokio::test]
async fn what_one_issuer_does_not_know_may_be_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = ScriptedIssuer::start(None);
    issuer.says(Reply::json(&json!({"active": false})));
    let owner = vec![introspection(&issuer, &directory), WaySettings::NameBeside];
    let world = world(owner, directory);
    assert_eq!(
        world.owner("bob", "opaque").await,
        Ok(said("bob", Proof::Beside))
    );
    assert_eq!(world.owner("", "opaque").await, Err(NoOwner::Refused));
}

#[tokio::test]
async fn a_token_that_nobody_can_read_is_nobody_s() {
    let world = world(vec![WaySettings::Stalwart], tempfile::tempdir().unwrap());
    assert_eq!(world.owner("bob", "opaque").await, Err(NoOwner::Unread));
}

#[tokio::test]
async fn a_changed_key_set_is_in_force_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Signer::p256(), Signer::p256());
    let file = directory.path().join("keys");
    let world = world(vec![jwt(&old, &directory)], directory);
    let claims = json!({"email": "alice@example.org"});
    let token = new.token(&json!({"alg": "ES256", "kid": "new"}), &claims);
    assert_eq!(world.owner("", &token).await, Err(NoOwner::Unread));
    std::fs::write(
        &file,
        json!({"keys": [old.key("k"), new.key("new")]}).to_string(),
    )
    .unwrap();
    loop {
        // It is looked at every second; the test's own limit is its patience.
        if let Ok(told) = world.owner("", &token).await {
            assert_eq!(told, said("alice@example.org", Proof::Issuer));
            break;
        }
        tokio::task::yield_now().await;
    }
}
