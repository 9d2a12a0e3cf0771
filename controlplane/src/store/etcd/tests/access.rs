//! Who may, and over what.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission};
use ferrypost_runtime::{reload::LOOK_EVERY, tls::CertificateFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::store::conformance::{commit, events_up_to, next, put, told};
use crate::store::etcd::{ConnectError, EtcdConfig, EtcdStore, EtcdTls, Password};
use crate::store::testing::EtcdServer;
use crate::store::{Outage, Store, StoreError, Txn, WatchError};

/// A server with access control, and a user `ferry` who may use `mail/` alone.
async fn guarded(arguments: &[&str]) -> EtcdServer {
    let server = EtcdServer::start_with(arguments).await;
    let mut client = Client::connect([server.endpoint()], None).await.unwrap();
    client.user_add("root", "root", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("ferry", "secret", None).await.unwrap();
    client.role_add("mail").await.unwrap();
    let mail = Permission::read_write("mail/").with_prefix();
    client.role_grant_permission("mail", mail).await.unwrap();
    client.user_grant_role("ferry", "mail").await.unwrap();
    client.auth_enable().await.unwrap();
    server
}

fn as_user(server: &EtcdServer, prefix: &str, password: &str) -> EtcdConfig {
    EtcdConfig {
        user: Some(("ferry".into(), Password::Text(password.into()))),
        ..server.config(prefix)
    }
}

async fn connect(config: EtcdConfig) -> Arc<dyn Store> {
    Arc::new(EtcdStore::connect(config).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_uses_the_prefix_that_is_its_own() {
    let server = guarded(&[]).await;
    let store = connect(as_user(&server, "mail", "secret")).await;
    let start = put(&store, "a", "1").await;
    let mut watch = store.watch(start).await.unwrap();
    assert_eq!(told(&events_up_to(&mut watch, start).await), ["a=1"]);
    let lease = store.grant(Duration::from_mins(1)).await.unwrap();
    commit(&store, Txn::new().put_leased("leader", "me", lease)).await;
    store.keep_alive(lease).await.unwrap();
    assert_eq!(store.range(b"", None).await.unwrap().entries.len(), 2);
    // The barrier is within the user's rights too.
    let mut root = Client::connect(
        [server.endpoint()],
        Some(ConnectOptions::new().with_user("root", "root")),
    )
    .await
    .unwrap();
    root.put("other", "1", None).await.unwrap();
    let present = store.revision().await.unwrap();
    events_up_to(&mut watch, present).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_is_told_so() {
    let server = guarded(&[]).await;
    let wrong = EtcdStore::connect(as_user(&server, "mail", "wrong")).await;
    assert!(
        matches!(wrong, Err(ConnectError::Store(StoreError::Denied))),
        "{wrong:?}"
    );

    let anonymous = connect(server.config("mail")).await;
    let beyond = connect(as_user(&server, "other", "secret")).await;
    for store in [anonymous, beyond] {
        assert_eq!(store.get(b"a").await, Err(StoreError::Denied));
        assert_eq!(store.range(b"", None).await, Err(StoreError::Denied));
        assert_eq!(
            store.transact(Txn::new().put("a", "1")).await,
            Err(StoreError::Denied)
        );
        let mut watch = store.watch(1).await.unwrap();
        assert_eq!(
            next(&mut watch).await,
            Err(WatchError::Store(StoreError::Denied))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_is_renewed_unnoticed() {
    let mut server = guarded(&["--auth-token-ttl=1"]).await;
    let store = connect(as_user(&server, "mail", "secret")).await;
    let start = put(&store, "a", "0").await;
    let mut watch = store.watch(start + 1).await.unwrap();
    for number in 1..4 {
        // Longer than the token lives; then the server forgets all tokens, too.
        tokio::time::sleep(Duration::from_secs(3)).await;
        if number == 2 {
            server.restart().await;
        }
        let mut outcome = store
            .transact(Txn::new().put("a", number.to_string()))
            .await;
        if number == 2 && outcome.is_err() {
            // The connection of before the restart is found dead by this call.
            outcome = store
                .transact(Txn::new().put("a", number.to_string()))
                .await;
        }
        let revision = outcome.unwrap().committed().unwrap();
        let events = told(&events_up_to(&mut watch, revision).await);
        assert_eq!(events.last().unwrap(), &format!("a={number}"));
    }
}

/// Tries until it succeeds: the files are looked at once a second.
async fn until_allowed(store: &EtcdStore) {
    let trying = async {
        while store.get(b"a").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_secs(30), trying).await;
    within.expect("the changed files are taken over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_taken_over_from_its_file() {
    let server = guarded(&[]).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "secret\n").unwrap();
    let store = EtcdStore::connect(EtcdConfig {
        user: Some(("ferry".into(), Password::File(file.clone()))),
        ..server.config("mail")
    });
    let store = Arc::new(store.await.unwrap());
    let kept = Arc::clone(&store);
    let keeping = tokio::spawn(async move { kept.keep_fresh().await });
    store.get(b"a").await.unwrap();

    let root = ConnectOptions::new().with_user("root", "root");
    let root = Client::connect([server.endpoint()], Some(root)).await;
    let mut root = root.unwrap();
    root.user_change_password("ferry", "changed").await.unwrap();
    assert_eq!(store.get(b"a").await, Err(StoreError::Denied));
    // A file that is wrong as well changes nothing for the worse, and is not the end.
    fs::write(&file, "mistyped").unwrap();
    tokio::time::sleep(2 * LOOK_EVERY).await;
    assert_eq!(store.get(b"a").await, Err(StoreError::Denied));
    fs::write(&file, "changed\n").unwrap();
    until_allowed(&store).await;
    keeping.abort();
}

/// Two authorities, and what the one has signed for a server and for us.
struct Papers {
    directory: TempDir,
}

impl Papers {
    fn new() -> Self {
        let papers = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let authority = papers.authority("ca");
        papers.authority("stranger");
        papers.sign(&authority, "server");
        papers.sign(&authority, "client");
        papers
    }

    fn authority(&self, name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write(name, &authority.pem());
        authority
    }

    fn sign(&self, authority: &CertifiedIssuer<'static, KeyPair>, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        self.write(name, &params.signed_by(&key, authority).unwrap().pem());
        self.write(&format!("{name}-key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, pem: &str) {
        fs::write(self.path(name), pem).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tls(&self, ca: &str, identity: bool) -> EtcdTls {
        EtcdTls {
            ca: self.path(ca),
            identity: identity.then(|| self.client("client-key")),
            server_name: None,
        }
    }

    fn client(&self, key: &str) -> CertificateFiles {
        CertificateFiles {
            cert_file: self.path("client"),
            key_file: self.path(key),
        }
    }

    async fn server(&self) -> EtcdServer {
        let argument = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let arguments = [
            argument("cert-file", "server"),
            argument("key-file", "server-key"),
            argument("trusted-ca-file", "ca"),
            "--client-cert-auth".to_owned(),
        ];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        EtcdServer::start_tls(&arguments, self.tls("ca", true)).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_who_they_are() {
    let papers = Papers::new();
    let server = papers.server().await;
    let store = connect(server.config("mail")).await;
    let start = put(&store, "a", "1").await;
    let mut watch = store.watch(start).await.unwrap();
    assert_eq!(told(&events_up_to(&mut watch, start).await), ["a=1"]);

    for tls in [papers.tls("stranger", true), papers.tls("ca", false)] {
        let config = EtcdConfig {
            tls: Some(tls.clone()),
            ..server.config("mail")
        };
        let refused = connect(config).await.get(b"a").await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(Outage::Connection))),
            "{tls:?}: {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_client_certificate_is_taken_over_from_its_files() {
    let papers = Papers::new();
    let server = papers.server().await;
    let good = papers.client("client-key");
    let files = CertificateFiles {
        cert_file: papers.path("renewed"),
        key_file: papers.path("renewed-key"),
    };
    // To begin with, what the members' authority has not signed.
    let stranger = rcgen::generate_simple_self_signed(["stranger".to_owned()]).unwrap();
    fs::write(&files.cert_file, stranger.cert.pem()).unwrap();
    fs::write(&files.key_file, stranger.signing_key.serialize_pem()).unwrap();
    let mut tls = papers.tls("ca", false);
    tls.identity = Some(files.clone());
    let store = EtcdStore::connect(EtcdConfig {
        tls: Some(tls),
        ..server.config("mail")
    });
    let store = Arc::new(store.await.unwrap());
    let kept = Arc::clone(&store);
    let keeping = tokio::spawn(async move { kept.keep_fresh().await });
    assert!(store.get(b"a").await.is_err());

    fs::copy(&good.cert_file, &files.cert_file).unwrap();
    fs::copy(&good.key_file, &files.key_file).unwrap();
    until_allowed(&store).await;
    keeping.abort();
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let papers = Papers::new();
    let mut tls = papers.tls("nothing", true);
    let config = |tls| EtcdConfig {
        tls: Some(tls),
        ..EtcdConfig::new(vec!["https://127.0.0.1:2379".into()], "mail")
    };
    let named = |refused: Result<EtcdStore, ConnectError>, missing: &Path| match refused {
        Err(ConnectError::File { path, .. }) => assert_eq!(path, missing),
        other => panic!("{other:?}"),
    };
    named(
        EtcdStore::connect(config(tls.clone())).await,
        &papers.path("nothing"),
    );
    tls.ca = papers.path("ca");
    tls.identity = Some(papers.client("no-key"));
    named(
        EtcdStore::connect(config(tls)).await,
        &papers.path("no-key"),
    );
}
