//! HTTP in a torture run: two servers that it has in its hand.
//!
//! They are not Cyruses: a Cyrus has neither WebSocket nor event streams, starts a process for each client, and says of a
//! request that nobody heard the end of neither whether it executed it nor when. These remember both. Their files lie in
//! folders that the delta hook copies; and they are in this process, which nothing kills, so that each request that had
//! its account's data plane is to be answered.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::history::{Moment, Operation, Side};
use crate::web::{Backend, Sessions, Setup, Version};
use crate::workload::executed;
use crate::world::{self, Builder};

/// Between two events of every stream: some streams are silent when a fence comes, and some are not.
const EVENTS: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(2500)];

/// The servers. They end with the value.
pub(super) struct Sites {
    servers: Arc<[Backend; 2]>,
    _announcing: JoinSet<()>,
}

impl Sites {
    pub(super) async fn start() -> std::io::Result<Self> {
        let start = |side: Side| {
            Backend::start(Setup {
                name: side.name(),
                password: world::PASSWORD,
                identity: None,
                versions: &[Version::Http1],
                announced: false,
                sessions: Sessions::default(),
            })
        };
        let servers = Arc::new([start(Side::Source).await?, start(Side::Target).await?]);
        let mut announcing = JoinSet::new();
        announcing.spawn(announce(Arc::clone(&servers)));
        Ok(Self {
            servers,
            _announcing: announcing,
        })
    }

    /// A world with them.
    pub(super) fn within(&self, world: Builder) -> Builder {
        let sites = world::Sites {
            servers: self.servers.each_ref().map(Backend::addr),
            announcements: ["x_forwarded"; 2],
            versions: "[\"http/1.1\"]",
            rules: "",
        };
        let folders = self.servers.each_ref().map(Backend::folder);
        world.sites(sites).site_folders(folders.map(Path::to_owned))
    }

    /// The one of that side.
    pub(super) fn of(&self, side: Side) -> &Backend {
        match side {
            Side::Source => &self.servers[0],
            Side::Target => &self.servers[1],
        }
    }

    /// What both have executed.
    pub(super) fn executed(&self) -> Vec<Operation> {
        let both = [Side::Source, Side::Target].into_iter();
        both.flat_map(|side| executed(side, &self.of(side).done()))
            .collect()
    }
}

/// Has something happen on every event stream. An event says when it was announced.
async fn announce(servers: Arc<[Backend; 2]>) {
    for pause in EVENTS.into_iter().cycle() {
        for server in servers.iter() {
            let now = Moment::now().0.as_nanos();
            server.announce(&now.to_string());
        }
        sleep(pause).await;
    }
}
