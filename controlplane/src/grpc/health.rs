//! `grpc.health.v1`: a service serves while this replica follows the store. Data planes and load
//! balancers see yes or no and nothing else.

use tonic_health::{ServingStatus, server::HealthReporter};

use crate::mirror::{Mirror, Standing};

/// Says for every service of a listener whether it serves, for as long as it is polled. The empty
/// name stands for the listener as a whole.
pub(crate) async fn report(mirror: Mirror, reporter: HealthReporter, services: &[&str]) {
    let mut standing = mirror.standing();
    loop {
        let status = match *standing.borrow_and_update() {
            Standing::Following => ServingStatus::Serving,
            Standing::Loading | Standing::Interrupted => ServingStatus::NotServing,
        };
        for service in std::iter::once(&"").chain(services) {
            reporter.set_service_status(*service, status).await;
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}
