//! The connection to a replica of the control plane.

use std::{path::Path, time::Duration};

use ferrypost_proto::v1::{
    migration_service_client::MigrationServiceClient,
    placement_service_client::PlacementServiceClient,
    routing_config_service_client::RoutingConfigServiceClient,
    stats_service_client::StatsServiceClient,
};
use ferrypost_runtime::token::Token;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};

use crate::{certificates::authorities, connection::Connection, exit::Exit, failure::Failure};

/// Time for one attempt at a connection.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Time for an answer. The longest is that of a decision after a restore, which takes the settle time.
const ANSWER: Duration = Duration::from_mins(3);

/// A replica that has not answered for so long is gone: a connection may die without a word.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection that shows who asks.
pub(crate) type Authorized = InterceptedService<Channel, Bearer>;

/// Calls to one replica; which one may change when it is lost.
pub(crate) struct Client {
    endpoints: Vec<Endpoint>,
    bearer: Bearer,
    channel: Channel,
}

impl Client {
    /// Connects to the first replica that answers.
    ///
    /// # Errors
    /// When a file cannot be used, or none answers.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let bearer = Bearer::of(connection)?;
        let endpoints = endpoints(connection)?;
        let channel = first(&endpoints).await?;
        Ok(Self {
            endpoints,
            bearer,
            channel,
        })
    }

    /// The same after a connection was lost.
    pub(crate) async fn reconnect(&mut self) -> Result<(), Failure> {
        self.channel = first(&self.endpoints).await?;
        Ok(())
    }

    pub(crate) fn migrations(&self) -> MigrationServiceClient<Authorized> {
        MigrationServiceClient::new(self.authorized())
    }

    pub(crate) fn placements(&self) -> PlacementServiceClient<Authorized> {
        PlacementServiceClient::new(self.authorized())
    }

    pub(crate) fn stats(&self) -> StatsServiceClient<Authorized> {
        StatsServiceClient::new(self.authorized())
    }

    pub(crate) fn routing_config(&self) -> RoutingConfigServiceClient<Authorized> {
        RoutingConfigServiceClient::new(self.authorized())
    }

    fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }
}

/// Adds the token to every call, if there is one.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn of(connection: &Connection) -> Result<Self, Failure> {
        let Some(file) = &connection.token_file else {
            return Ok(Self(None));
        };
        let content = read(file)?;
        Token::check(&content).map_err(|error| {
            Failure::usage(format!("the token file {} {error}", file.display()))
        })?;
        let token = String::from_utf8_lossy(content.trim_ascii());
        let header = format!("Bearer {token}").parse();
        let mut header: MetadataValue<Ascii> =
            header.map_err(|_| Failure::usage(format!("{} holds no token", file.display())))?;
        header.set_sensitive(true);
        Ok(Self(Some(header)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", header.clone());
        }
        Ok(request)
    }
}

async fn first(endpoints: &[Endpoint]) -> Result<Channel, Failure> {
    let mut failures = Vec::new();
    for endpoint in endpoints {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => failures.push(format!("{}: {}", endpoint.uri(), causes(&error))),
        }
    }
    let message = format!("no control plane answers\n  {}", failures.join("\n  "));
    Err(Failure::new(Exit::Failed, message))
}

/// The library's own words say little; what they are about stands behind them.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

fn endpoints(connection: &Connection) -> Result<Vec<Endpoint>, Failure> {
    let tls = tls(connection)?;
    let made = connection.endpoints.iter().map(|uri| endpoint(uri, &tls));
    made.collect::<Result<_, _>>()
        .map_err(|error| Failure::usage(format!("TLS cannot be set up: {}", causes(&error))))
}

fn endpoint(uri: &Uri, tls: &ClientTlsConfig) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from(uri.clone())
        .connect_timeout(ATTEMPT)
        .timeout(ANSWER)
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE);
    if uri.scheme_str() == Some("https") {
        endpoint.tls_config(tls.clone())
    } else {
        Ok(endpoint)
    }
}

fn tls(connection: &Connection) -> Result<ClientTlsConfig, Failure> {
    let mut tls = ClientTlsConfig::new();
    if connection.is_secure() {
        tls = tls.trust_anchors(authorities(connection)?.roots);
    }
    if let Some((certificate, key)) = &connection.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = std::fs::read(file);
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))
}
