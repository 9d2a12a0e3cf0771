//! A control plane to call.

use std::{future::Future, path::PathBuf, time::Duration};

use ferrypost_controlplane::{
    app::{self, Bound},
    config::Config,
    store::{
        Store as _, Txn,
        embedded::{EmbeddedConfig, EmbeddedStore},
    },
};
use ferrypost_proto::v1::{
    self, migration_service_client::MigrationServiceClient,
    placement_service_client::PlacementServiceClient,
    routing_config_service_client::RoutingConfigServiceClient,
    stats_service_client::StatsServiceClient,
};
use ferrypost_runtime::{Random, telemetry::Telemetry};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// How long a fact may take to come true before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Two destinations; `example.org` goes to `source`, `new.example` to `target`, `closed.example` serves
/// only names with a record.
pub(crate) const ROUTING: &str = r#"
default_destination = "source"

[names]
bare_names = "listed"

[[domains]]
name = "example.org"

[[domains]]
name = "new.example"
unlisted = { destination = "target" }

[[domains]]
name = "closed.example"
unlisted = "refuse"

[[destinations]]
id = "source"
endpoints = [{ protocol = "imap", host = "127.0.0.1", port = 1, tls = "implicit", announcement = "none" }]

[[destinations]]
id = "target"
endpoints = [{ protocol = "imap", host = "127.0.0.1", port = 2, tls = "implicit", announcement = "none" }]
"#;

/// A settle time and heartbeats that a test can wait out. No move fails, and no data plane counts as lost, because the
/// machine is busy.
pub(crate) const QUICK: &str =
    "[migrations]\nwindow = \"20s\"\nsettle = \"100ms\"\nheartbeat = \"2s\"\n";

/// The same with a window that a test can wait out.
pub(crate) const SHORT_WINDOW: &str =
    "[migrations]\nwindow = \"5s\"\nsettle = \"100ms\"\nheartbeat = \"2s\"\n";

/// Whatever a test calls is answered long before, or never: then the test is to say where it stood.
const CALL: Duration = Duration::from_mins(2);

/// A control plane, and a connection to it.
pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    bound: Bound,
    pub(crate) channel: Channel,
}

impl World {
    /// With the usual routing file and nobody asked who they are.
    pub(crate) async fn new() -> Self {
        Self::with(QUICK, ROUTING).await
    }

    /// With `more` in the configuration and a routing file.
    pub(crate) async fn with(more: &str, routing: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("routing.toml"), routing).expect("written");
        Self::started(directory, more).await
    }

    async fn started(directory: tempfile::TempDir, more: &str) -> Self {
        let text = format!(
            "{more}\n[operators]\nlisten = \"127.0.0.1:0\"\n[data_planes]\nlisten = \"127.0.0.1:0\"\n"
        );
        let path = directory.path().join("controlplane.toml");
        let config = Config::parse(&text, &path).expect("a valid configuration");
        let bound = app::build(config, Random::from_os(), &mut Telemetry::off())
            .await
            .expect("it starts");
        let channel = Channel::from_shared(format!("http://{}", bound.operators()))
            .expect("an address")
            .timeout(CALL)
            .connect()
            .await
            .expect("it listens");
        let world = Self {
            directory,
            bound,
            channel,
        };
        world.led().await;
        world
    }

    /// Stops it and starts another one on the same directory.
    pub(crate) async fn restart(self, more: &str) -> Self {
        drop(self.channel);
        self.bound.shut_down().await.expect("it ends in time");
        Self::started(self.directory, more).await
    }

    /// The same, with a transaction of somebody else's in between.
    pub(crate) async fn restart_after(self, txns: impl IntoIterator<Item = Txn>) -> Self {
        drop(self.channel);
        self.bound.shut_down().await.expect("it ends in time");
        {
            let config = EmbeddedConfig::new(self.directory.path().join("ferrypost.redb"));
            let store = EmbeddedStore::open(config).await.expect("a store");
            for txn in txns {
                let written = store.transact(txn).await.expect("written");
                written.committed().expect("no guard");
            }
        }
        Self::started(self.directory, QUICK).await
    }

    pub(crate) async fn shut_down(self) {
        self.bound.shut_down().await.expect("it ends in time");
    }

    /// Waits until somebody leads and a routing configuration is in force.
    async fn led(&self) {
        eventually(async || {
            let answer = self
                .routing()
                .get_routing_config(v1::GetRoutingConfigRequest {})
                .await
                .ok()?
                .into_inner();
            let led = !answer.header?.leader.is_empty();
            (led && answer.config.is_some()).then_some(())
        })
        .await;
    }

    pub(crate) fn data_planes(&self) -> String {
        format!("http://{}", self.bound.data_planes())
    }

    pub(crate) fn operators(&self) -> String {
        format!("http://{}", self.bound.operators())
    }

    pub(crate) fn routing_file(&self) -> PathBuf {
        self.directory.path().join("routing.toml")
    }

    pub(crate) fn migrations(&self) -> MigrationServiceClient<Channel> {
        MigrationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn placements(&self) -> PlacementServiceClient<Channel> {
        PlacementServiceClient::new(self.channel.clone())
    }

    pub(crate) fn stats(&self) -> StatsServiceClient<Channel> {
        StatsServiceClient::new(self.channel.clone())
    }

    pub(crate) fn routing(&self) -> RoutingConfigServiceClient<Channel> {
        RoutingConfigServiceClient::new(self.channel.clone())
    }

    /// Where a login goes and by which rule.
    pub(crate) async fn route(&self, login: &str) -> v1::ExplainRouteResponse {
        let request = v1::ExplainRouteRequest {
            login: login.to_owned(),
            ..v1::ExplainRouteRequest::default()
        };
        let answer = self.placements().explain_route(request).await;
        answer.expect("explained").into_inner()
    }
}

/// Polls until `look` finds something.
pub(crate) async fn eventually<T, F>(mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .expect("it comes true in time")
}

/// A wait of some milliseconds in a request.
pub(crate) fn milliseconds(milliseconds: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(milliseconds)).ok()
}

/// The code and the reason of a refusal, and its metadata.
pub(crate) fn refusal<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
) -> (Code, String, std::collections::HashMap<String, String>) {
    let status = answer.expect_err("a refusal");
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("every error has an ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "ferrypost");
    assert!(!status.message().is_empty());
    (status.code(), info.reason.clone(), info.metadata.clone())
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> String {
    refusal(answer).1
}
