//! The two listeners and what each serves.

use std::time::Duration;

use anyhow::Context as _;
use ferrypost_proto::{
    DESCRIPTORS,
    routing::v1::routing_service_server::{self, RoutingServiceServer},
    v1::{
        migration_service_server::{self, MigrationServiceServer},
        placement_service_server::{self, PlacementServiceServer},
        routing_config_service_server::{self, RoutingConfigServiceServer},
        stats_service_server::{self, StatsServiceServer},
    },
};
use ferrypost_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic_health::server::health_reporter;

use super::{
    auth::Gate, gate::GateLayer, health, migration::Migrations, placement::Placements,
    routing::Routing, routing_config::RoutingConfigs, stats::Stats,
};
use crate::{mirror::Mirror, net, tls::ServerTls};

/// The services that operators call, by name.
const OPERATOR_SERVICES: [&str; 4] = [
    migration_service_server::SERVICE_NAME,
    placement_service_server::SERVICE_NAME,
    stats_service_server::SERVICE_NAME,
    routing_config_service_server::SERVICE_NAME,
];

/// How often an idle connection is asked whether its peer is there, and how long the answer may take:
/// a caller that waits for a move may be silent for minutes, and a peer that vanished must not count
/// as connected for long.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// A listener that is open.
pub(crate) struct Listener {
    /// The socket.
    pub(crate) socket: TcpListener,
    /// Its certificate; `None`: in clear.
    pub(crate) tls: Option<ServerTls>,
    /// Who may call what.
    pub(crate) gate: Gate,
}

/// What operators call.
pub(crate) struct OperatorServices {
    pub(crate) migrations: Migrations,
    pub(crate) placements: Placements,
    pub(crate) stats: Stats,
    pub(crate) routing_configs: RoutingConfigs,
}

/// Serves the operators' API, with health and reflection, until `shutdown`.
///
/// # Errors
/// When the descriptors of the contract are damaged.
pub(crate) fn serve_operators(
    listener: Listener,
    services: OperatorServices,
    mirror: &Mirror,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let (reporter, health_service) = health_reporter();
    report_health(mirror, reporter, &OPERATOR_SERVICES, shutdown);
    let router = server(listener.gate)
        .add_service(health_service)
        .add_service(reflection().build_v1().context("reflection")?)
        .add_service(reflection().build_v1alpha().context("reflection")?)
        .add_service(MigrationServiceServer::new(services.migrations))
        .add_service(PlacementServiceServer::new(services.placements))
        .add_service(StatsServiceServer::new(services.stats))
        .add_service(RoutingConfigServiceServer::new(services.routing_configs));
    let connections = net::connections("operators", listener.socket, listener.tls, shutdown);
    let token = shutdown.stopping().clone();
    shutdown.spawn(async move {
        let ended = router.serve_with_incoming_shutdown(connections, token.cancelled_owned());
        if let Err(error) = ended.await {
            tracing::error!(%error, "the operators' listener ended");
        }
    });
    Ok(())
}

/// Serves the data planes' stream, with health, until `shutdown`.
pub(crate) fn serve_data_planes(
    listener: Listener,
    routing: Routing,
    mirror: &Mirror,
    shutdown: &Shutdown,
) {
    const SERVICES: &[&str] = &[routing_service_server::SERVICE_NAME];
    let (reporter, health_service) = health_reporter();
    report_health(mirror, reporter, SERVICES, shutdown);
    let router = server(listener.gate)
        .add_service(health_service)
        .add_service(RoutingServiceServer::new(routing));
    let connections = net::connections("data_planes", listener.socket, listener.tls, shutdown);
    let token = shutdown.stopping().clone();
    shutdown.spawn(async move {
        let ended = router.serve_with_incoming_shutdown(connections, token.cancelled_owned());
        if let Err(error) = ended.await {
            tracing::error!(%error, "the data planes' listener ended");
        }
    });
}

fn server(
    gate: Gate,
) -> Server<tower::layer::util::Stack<GateLayer, tower::layer::util::Identity>> {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .layer(GateLayer::new(gate))
}

/// Only what this listener serves is shown.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Callers like grpcurl print the details of errors with it.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    OPERATOR_SERVICES.iter().fold(builder, |builder, service| {
        builder.with_service_name(*service)
    })
}

fn report_health(
    mirror: &Mirror,
    reporter: tonic_health::server::HealthReporter,
    services: &'static [&'static str],
    shutdown: &Shutdown,
) {
    let (mirror, token) = (mirror.clone(), shutdown.stopping().clone());
    shutdown.spawn(async move {
        let reporting = health::report(mirror, reporter, services);
        token.run_until_cancelled(reporting).await;
    });
}
