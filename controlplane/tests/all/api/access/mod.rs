//! Who may call what, on both listeners.

mod certificates;
mod listeners;
mod refusals;
mod roles;
mod tokens;

use std::{path::Path, time::Duration};

use ferrypost_controlplane::{app, config::Config};
use ferrypost_runtime::{Random, telemetry::Telemetry};
use tonic::{Request, Status, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_types::StatusExt as _;

use crate::api::world::{QUICK, ROUTING};

const VIEWER: &str = "viewer-token-0123456789abcdef0123456789";

const OPERATOR: &str = "operator-token-0123456789abcdef0123456789";

const ADMIN: &str = "admin-token-0123456789abcdef0123456789";

fn tokens(directory: &Path) -> String {
    let mut entries = Vec::new();
    for (name, role, token) in [
        ("eve", "viewer", VIEWER),
        ("olga", "operator", OPERATOR),
        ("ada", "admin", ADMIN),
    ] {
        std::fs::write(directory.join(name), token).expect("written");
        entries.push(format!(
            "{{ name = \"{name}\", role = \"{role}\", file = \"{name}\" }}"
        ));
    }
    format!("tokens = [{}]", entries.join(", "))
}

/// A control plane whose operators show tokens, and whose data planes do.
async fn guarded(operators: &str, data_planes: &str) -> (app::Bound, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    start(&directory, operators, data_planes)
        .await
        .map(|bound| (bound, directory))
        .expect("started")
}

async fn start(
    directory: &tempfile::TempDir,
    operators: &str,
    data_planes: &str,
) -> anyhow::Result<app::Bound> {
    let tokens = tokens(directory.path());
    std::fs::write(directory.path().join("routing.toml"), ROUTING)?;
    std::fs::write(
        directory.path().join("plane"),
        "data-plane-token-0123456789abcdef0123456789\n",
    )?;
    let text = format!(
        "{QUICK}[operators]\nlisten = \"127.0.0.1:0\"\n{tokens}\n{operators}\n\
         [data_planes]\nlisten = \"127.0.0.1:0\"\n{data_planes}\n"
    );
    let config = Config::parse(&text, &directory.path().join("controlplane.toml"))?;
    app::build(config, Random::from_os(), &mut Telemetry::off()).await
}

async fn channel(address: std::net::SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("it listens")
}

/// Calls a method with an empty request, whatever its messages are.
async fn call(channel: &Channel, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let mut request = Request::new(());
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    // A stream may have nothing to say for long: to be let in is all that is asked here.
    let calling = client.server_streaming(request, path, codec);
    let mut answers = calling.await?.into_inner();
    match tokio::time::timeout(Duration::from_secs(5), answers.message()).await {
        Ok(answer) => answer.map(|_| ()),
        Err(_) => Ok(()),
    }
}

fn reason_of(status: &Status) -> String {
    let details = status.get_error_details();
    details
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}
