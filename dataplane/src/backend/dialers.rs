//! Who dials which server: some are reached from an address of their own, or shown a certificate of ours.

use std::cmp::Reverse;

use ferrypost_runtime::tls::FileError;

use super::Target;
use crate::{
    config::ServerMeans,
    limits::BackendLimits,
    net::{
        dial::Dialer,
        resolver::Resolver,
        source::{OwnListeners, Sources},
        tls_client::{ClientIdentity, ClientTls},
    },
};

/// The ways to all servers.
pub struct Dialers {
    /// For servers of which nothing is said.
    others: Dialer,
    /// The most is said first.
    own: Vec<(ServerMeans, Dialer)>,
    identities: Vec<ClientIdentity>,
}

impl Dialers {
    /// The ways by these means.
    ///
    /// # Errors
    /// [`FileError`] for the first certificate that cannot be used.
    pub fn new(
        means: &[ServerMeans],
        limits: BackendLimits,
        resolver: &Resolver,
        own_listeners: &OwnListeners,
    ) -> Result<Self, FileError> {
        let dialer = |tls, sources| {
            let dialer = Dialer::new(tls, limits, resolver.clone());
            dialer.between(sources, own_listeners.clone())
        };
        let mut dialers = Self::of_one(dialer(ClientTls::new(), Sources::default()));
        for means in means {
            let tls = match &means.client_certificate {
                Some(files) => {
                    let identity = ClientIdentity::load(files)?;
                    dialers.identities.push(identity.clone());
                    ClientTls::showing(identity)
                }
                None => ClientTls::new(),
            };
            dialers
                .own
                .push((means.clone(), dialer(tls, means.sources)));
        }
        let said = |means: &ServerMeans| (means.destination.is_some(), means.protocol.is_some());
        dialers.own.sort_by_key(|(means, _)| Reverse(said(means)));
        Ok(dialers)
    }

    /// One way to all.
    pub(crate) fn of_one(dialer: Dialer) -> Self {
        Self {
            others: dialer,
            own: Vec::new(),
            identities: Vec::new(),
        }
    }

    /// The way to a server: what says most about it counts, and nothing else.
    pub fn of(&self, target: &Target) -> &Dialer {
        let fits = |means: &ServerMeans| {
            let destination = means.destination.as_ref();
            destination.is_none_or(|id| *id == target.destination)
                && means
                    .protocol
                    .is_none_or(|protocol| protocol == target.protocol)
        };
        let own = self.own.iter().find(|(means, _)| fits(means));
        own.map_or(&self.others, |(_, dialer)| dialer)
    }

    /// What is shown to servers, to be kept fresh.
    pub fn identities(&self) -> &[ClientIdentity] {
        &self.identities
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{DestinationId, v1::Protocol};
    use ferrypost_runtime::shutdown::Shutdown;

    use super::*;
    use crate::{backend::tests::target, net::resolver::System};

    fn means(destination: Option<&str>, protocol: Option<Protocol>, host: u8) -> ServerMeans {
        ServerMeans {
            destination: destination.map(|id| DestinationId::parse(id).unwrap()),
            protocol,
            sources: Sources::new(&[[127, 0, 0, host].into()]).unwrap(),
            client_certificate: None,
        }
    }

    #[tokio::test]
    async fn what_says_most_about_a_server_counts() {
        let imap = Some(Protocol::Imap);
        let all = [
            means(None, None, 1),
            means(None, imap, 2),
            means(Some("new"), Some(Protocol::Pop3), 3),
            means(Some("old"), None, 4),
            means(Some("old"), imap, 5),
        ];
        let resolver = Resolver::new(System, Shutdown::new());
        let chosen = |means: &[ServerMeans], destination: &str| {
            let limits = BackendLimits::default();
            let own_listeners = OwnListeners::default();
            let dialers = Dialers::new(means, limits, &resolver, &own_listeners).unwrap();
            dialers.of(&target(destination)).sources()
        };
        assert_eq!(chosen(&all, "old"), all[4].sources);
        assert_eq!(chosen(&all[..4], "old"), all[3].sources);
        assert_eq!(chosen(&all, "new"), all[1].sources);
        assert_eq!(chosen(&all[..1], "new"), all[0].sources);
        assert_eq!(chosen(&[], "new"), Sources::default());
    }
}
