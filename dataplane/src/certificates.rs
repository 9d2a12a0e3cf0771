//! The certificates of all listeners, as they are told: nobody renews what nobody sees end.

use std::sync::Arc;

use ferrypost_proto::v1::ListenerCertificate;

use crate::net::tls_server::ServerTls;

/// Most that are told: a data plane has a handful of listeners, and each a handful of names.
const MOST: usize = 256;

/// What is shown to those who connect, by the listener's name.
#[derive(Clone, Default)]
pub struct Certificates(Arc<[(String, ServerTls)]>);

impl Certificates {
    /// Those of these listeners.
    pub fn of(listeners: impl IntoIterator<Item = (String, ServerTls)>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// The ones in force, as the control plane is told them.
    pub fn told(&self) -> Vec<ListenerCertificate> {
        let shown = self.0.iter().flat_map(|(listener, tls)| {
            tls.shown().into_iter().map(|shown| ListenerCertificate {
                listener: listener.clone(),
                name: shown.name,
                not_after: shown
                    .end
                    .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            })
        });
        shown.take(MOST).collect()
    }
}
