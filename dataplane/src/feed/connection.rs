//! One connection: Hello, Welcome, then whatever comes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ferrypost_proto::{
    CHUNK_BYTES, InstallationId, Name, Revision, Speaks, Versions,
    routing::v1::{
        Applied, Command, CommandResult, Goodbye, Health, Hello, Rejected, RejectedEndpoint,
        RejectedEntry, StreamResponse, UnsettledSessions, Welcome, command::Command as Asked,
        command_result::Result as Outcome, routing_service_client::RoutingServiceClient,
        stream_request::Message as Up, stream_response::Message as Down,
    },
};
use ferrypost_routing::{Resolution, RoutingTable};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Streaming;
use tracing::{info, warn};

use super::{
    ConnectionState, Feed, FeedEnd, command::Commands, error::FeedError, next_farewell,
    uplink::Uplink,
};
use crate::{fence::FenceReport, registry::Registry};

/// A chunk, and room for what surrounds it.
const MOST_MESSAGE: usize = 4 * CHUNK_BYTES;

/// Heartbeats that the control plane may announce; outside it is brought to the nearer end, so that no
/// typing error there makes a data plane spin or sleep for ever.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_mins(1));

/// Most accounts that are named of those of which sight was lost: some seven KiB a heartbeat, and only in trouble.
const MOST_UNSETTLED: usize = 256;

/// So many heartbeat intervals of silence mean reconnect (rule 3).
const SILENT_INTERVALS: u32 = 3;

/// A stream that Welcome has opened.
struct Stream {
    up: Uplink,
    down: Streaming<StreamResponse>,
    commands: Commands,
    verdicts: watch::Receiver<Arc<[ferrypost_proto::routing::v1::EndpointHealth]>>,
    ready: watch::Receiver<bool>,
    /// What was said about rejected entries on this stream.
    rejected: Option<Rejected>,
    /// And about sessions whose server's close was not seen.
    unsettled: UnsettledSessions,
    silence: Duration,
    heard: Instant,
    opened: Instant,
    goodbye_said: bool,
}

/// What happened on a stream.
enum Event {
    Message(StreamResponse),
    Closed,
    Silence,
    Report(FenceReport),
    CommandDone(CommandResult),
    HealthChanged,
    Merged,
    Farewell(super::Farewell),
}

impl Feed {
    /// Connects and stays until the connection or the registration ends.
    pub(super) async fn connection(&mut self) -> Result<FeedEnd, FeedError> {
        let mut stream = self.open().await?;
        self.say_goodbye(&mut stream).await?;
        loop {
            let event = self.next_event(&mut stream).await?;
            if let Some(end) = self.handle(&mut stream, event).await? {
                return Ok(end);
            }
        }
    }

    /// From the connect to Welcome.
    async fn open(&mut self) -> Result<Stream, FeedError> {
        let channel = self.connect.connect().await?;
        let mut client = RoutingServiceClient::new(channel).max_decoding_message_size(MOST_MESSAGE);
        let patience = self.timing.welcome_within;
        let (mut up, requests) = Uplink::new(patience);
        let deadline = Instant::now() + patience;
        up.send(Up::Hello(self.hello())).await?;
        let late = |_| FeedError::NoWelcome;
        let mut down = timeout_at(deadline, client.stream(requests))
            .await
            .map_err(late)??
            .into_inner();
        let first = timeout_at(deadline, down.message()).await.map_err(late)??;
        let Some(Down::Welcome(welcome)) = first.ok_or(FeedError::Closed)?.message else {
            return Err(FeedError::NotWelcome);
        };
        let silence = SILENT_INTERVALS * heartbeat_interval(&welcome);
        up.set_patience(silence);
        self.welcome(welcome)?;
        let rejected = self.replica.rejected(&self.identity.group);
        if let Some(rejected) = rejected.clone() {
            warn_of(&rejected.endpoints);
            up.send(Up::Rejected(rejected)).await?;
        }
        let now = Instant::now();
        Ok(Stream {
            up,
            down,
            commands: Commands::new(
                Arc::clone(&self.registry),
                self.replica.tables().clone(),
                Arc::clone(&self.prober),
            ),
            verdicts: self.health.verdicts(),
            ready: self.readiness.watch(),
            rejected,
            unsettled: UnsettledSessions::default(),
            silence,
            heard: now,
            opened: now,
            goodbye_said: false,
        })
    }

    fn hello(&self) -> Hello {
        let Speaks { contracts, schemas } = Speaks::here();
        let (held, held_current) = self.replica.held();
        Hello {
            contract: contracts.oldest(),
            contracts: Some(contracts.into()),
            schemas: Some(schemas.into()),
            instance: self.identity.instance.as_str().to_owned(),
            boot: self.identity.boot.as_str().to_owned(),
            state_id: self.state.state_id().as_str().to_owned(),
            group: self.identity.group.clone(),
            installation: self
                .state
                .installation()
                .map_or_else(String::new, |id| id.as_str().to_owned()),
            applied: self.replica.resume_from().map(Into::into),
            version: self.identity.version.clone(),
            admin_address: self.identity.admin_address.clone(),
            limits: Some(self.identity.limits),
            held: held.map(Into::into),
            held_current,
            place: Some(self.state.place().clone()),
        }
    }

    /// This data plane is registered; with whom, is written down before anything is believed.
    fn welcome(&mut self, welcome: Welcome) -> Result<(), FeedError> {
        let contract = welcome.contract;
        if !Speaks::here().contracts.contains(contract) {
            return Err(FeedError::Contract(contract));
        }
        let theirs = Versions::stated(welcome.contracts).unwrap_or(Versions::FIRST);
        let installation = InstallationId::parse(&welcome.installation)?;
        // Waits for the disk, once in this directory's life, with no session to wait for it.
        self.state.pin(&installation)?;
        self.unregistered = None;
        if let Some(settle) = welcome.settle.and_then(|it| Duration::try_from(it).ok()) {
            self.registry.settle_within(settle);
        }
        self.replica
            .begin_stream(Revision::from(welcome.registered.unwrap_or_default()));
        if welcome.rewound {
            warn!("the store was restored from an older state: keeping what is known");
        }
        info!(replica = %welcome.replica.escape_debug(), %installation, contract, speaks = %theirs,
            "registered with the control plane");
        self.shared.stands(ConnectionState::Syncing);
        self.shared.status.send_modify(|status| {
            status.replica = Some(welcome.replica);
            status.installation = Some(installation);
            status.contract = Some(contract);
            status.rewound = welcome.rewound;
            status.problem = None;
        });
        Ok(())
    }

    async fn next_event(&mut self, stream: &mut Stream) -> Result<Event, FeedError> {
        let fences = Arc::clone(self.replica.fences());
        // In this order, so that a flood of deltas does not keep back what has to be said; all but the
        // last arm are rare by themselves.
        tokio::select! {
            biased;
            report = fences.report(), if self.replica.is_witnessed() => Ok(Event::Report(report)),
            farewell = next_farewell(&mut self.farewells), if self.farewell.is_none() => {
                Ok(Event::Farewell(farewell))
            }
            result = stream.commands.finished() => Ok(Event::CommandDone(result)),
            Ok(()) = stream.verdicts.changed() => Ok(Event::HealthChanged),
            Ok(()) = stream.ready.changed() => Ok(Event::HealthChanged),
            () = self.replica.merged() => Ok(Event::Merged),
            message = stream.down.message() => Ok(message?.map_or(Event::Closed, Event::Message)),
            () = sleep_until(stream.heard + stream.silence) => Ok(Event::Silence),
        }
    }

    async fn handle(
        &mut self,
        stream: &mut Stream,
        event: Event,
    ) -> Result<Option<FeedEnd>, FeedError> {
        match event {
            Event::Message(message) => return self.message(stream, message).await,
            Event::Closed => return Err(FeedError::Closed),
            Event::Silence => return Err(FeedError::Silent),
            Event::Report(FenceReport::Drained(drained)) => {
                stream.up.send(Up::Drained(drained)).await?;
            }
            Event::Report(FenceReport::Draining(draining)) => {
                stream.up.send(Up::Draining(draining)).await?;
            }
            Event::CommandDone(result) => stream.up.send(Up::CommandResult(result)).await?,
            Event::HealthChanged => self.say_health(stream, 0).await?,
            Event::Merged => {}
            Event::Farewell(farewell) => {
                self.take_farewell(farewell);
                self.say_goodbye(stream).await?;
            }
        }
        Ok(None)
    }

    async fn message(
        &mut self,
        stream: &mut Stream,
        message: StreamResponse,
    ) -> Result<Option<FeedEnd>, FeedError> {
        stream.heard = Instant::now();
        match message.message.ok_or(FeedError::Unexpected)? {
            Down::SnapshotChunk(chunk) => {
                if let Some(table) = self.replica.chunk(chunk).await? {
                    self.applied(stream, &table).await?;
                }
            }
            Down::Delta(delta) => {
                let table = self.replica.delta(delta).await?;
                self.applied(stream, &table).await?;
            }
            Down::Command(command) => {
                if let Some(result) = self.of_a_restore(&command).await {
                    stream.up.send(Up::CommandResult(result)).await?;
                } else if let Some(result) = stream.commands.run(command) {
                    stream.up.send(Up::CommandResult(result)).await?;
                }
            }
            Down::CookieKeys(keys) => self.cookie_keys.replace(&keys),
            Down::Heartbeat(heartbeat) => {
                self.still_live(stream);
                self.say_health(stream, heartbeat.sequence).await?;
            }
            Down::GoodbyeAccepted(_) if stream.goodbye_said => {
                if let Some(farewell) = self.farewell.take() {
                    // Whoever asked may have given up; the registration has ended all the same.
                    let _ = farewell.said.send(Ok(()));
                }
                return Ok(Some(FeedEnd::Goodbye));
            }
            Down::Welcome(_) | Down::GoodbyeAccepted(_) => return Err(FeedError::Unexpected),
        }
        Ok(None)
    }

    /// Answers what is asked after a restore; `None`: something else is.
    async fn of_a_restore(&mut self, command: &Command) -> Option<CommandResult> {
        let outcome = match command.command.as_ref()? {
            Asked::ListDoubts(asked) => self.replica.list_doubts(asked).map(Outcome::Doubts),
            Asked::HoldDoubts(hold) => {
                let answer = self.replica.hold_doubts(hold.clone()).await;
                answer.map(Outcome::HeldDoubts)
            }
            _ => return None,
        };
        let unknown = || Outcome::Failed("not compared with the restored store yet".to_owned());
        Some(CommandResult {
            command_id: command.command_id.clone(),
            result: Some(outcome.unwrap_or_else(unknown)),
        })
    }

    /// Says what is in force. What was rejected goes first, and of which accounts sight was lost lately: when the
    /// control plane sees the table as applied, it must know what is in a fence's way.
    async fn applied(
        &mut self,
        stream: &mut Stream,
        table: &RoutingTable,
    ) -> Result<(), FeedError> {
        let rejected = self.replica.rejected(&self.identity.group);
        if rejected.as_ref().map(what) != stream.rejected.as_ref().map(what) {
            stream.rejected.clone_from(&rejected);
            if let Some(rejected) = rejected {
                warn_of(&rejected.endpoints);
                stream.up.send(Up::Rejected(rejected)).await?;
            }
        }
        if unsettled(&self.registry, table) != stream.unsettled {
            self.say_health(stream, 0).await?;
        }
        let position = table.position().clone();
        stream
            .up
            .send(Up::Applied(Applied {
                position: Some(position.clone().into()),
            }))
            .await?;
        self.backoff.reset();
        self.shared.stands(ConnectionState::Live);
        self.shared.status.send_modify(|status| {
            status.table = Some((position, Instant::now()));
            status.rejected = table.rejected_count();
        });
        Ok(())
    }

    /// A heartbeat: with nothing under way, the table is the truth until now.
    fn still_live(&mut self, stream: &Stream) {
        if stream.opened.elapsed() >= self.timing.longest_pause {
            // Nothing had to be applied, but a connection that outlives every pause is a success too.
            self.backoff.reset();
        }
        if self.replica.is_whole() {
            self.shared.stands(ConnectionState::Live);
            self.shared.status.send_modify(|status| {
                if let Some((_, at)) = &mut status.table {
                    *at = Instant::now();
                }
            });
        }
    }

    async fn say_health(&self, stream: &mut Stream, sequence: u64) -> Result<(), FeedError> {
        let counts = self.registry.counts();
        let table = self.replica.tables().current();
        let unsettled = table.map(|table| unsettled(&self.registry, &table));
        stream.unsettled = unsettled.unwrap_or_default();
        let health = Health {
            sequence,
            ready: *stream.ready.borrow_and_update(),
            sessions: counts.sessions as u64,
            held_logins: counts.held as u64,
            endpoints: stream.verdicts.borrow_and_update().to_vec(),
            unsettled: Some(stream.unsettled.clone()),
            certificates: self.certificates.told(),
        };
        stream.up.send(Up::Health(health)).await
    }

    /// Says the goodbye that is asked for, if there is one.
    async fn say_goodbye(&self, stream: &mut Stream) -> Result<(), FeedError> {
        if let Some(farewell) = &self.farewell {
            // First: once the registration has ended, moves go on without this data plane.
            self.replica.leave().await?;
            stream.goodbye_said = true;
            let goodbye = Goodbye {
                unconfirmed: farewell.unconfirmed,
            };
            stream.up.send(Up::Goodbye(goodbye)).await?;
        }
        Ok(())
    }
}

/// The accounts under whose names sessions ended lately without their server's close having been seen. A name
/// without a record has none to move.
fn unsettled(registry: &Registry, table: &RoutingTable) -> UnsettledSessions {
    let account = |name: &Name| match table.resolve(name) {
        Resolution::Route(route) => route.account,
        // A fence has counted it already; one that the table could not take over is not moved.
        Resolution::Fenced(_) | Resolution::Refused(_) => None,
    };
    let names = registry.unsettled_names();
    let mut accounts: BTreeSet<_> = names.iter().filter_map(account).map(String::from).collect();
    let more = accounts.len() > MOST_UNSETTLED;
    while accounts.len() > MOST_UNSETTLED {
        accounts.pop_last();
    }
    UnsettledSessions {
        account_ids: accounts.into_iter().collect(),
        more,
    }
}

/// Says what is out of use on this data plane, since it does not know what is said of it.
fn warn_of(endpoints: &[RejectedEndpoint]) {
    for endpoint in endpoints {
        warn!(
            destination = endpoint.destination,
            protocol = endpoint.protocol().as_str_name(),
            field = endpoint.field,
            "an endpoint is out of use: this version does not know what the routing configuration says there"
        );
    }
}

/// What is rejected, at whatever revision.
fn what(rejected: &Rejected) -> (&[RejectedEntry], &[RejectedEndpoint]) {
    (&rejected.entries, &rejected.endpoints)
}

fn heartbeat_interval(welcome: &Welcome) -> Duration {
    let (least, most) = HEARTBEAT;
    welcome
        .heartbeat_interval
        .and_then(|interval| Duration::try_from(interval).ok())
        .unwrap_or_default()
        .clamp(least, most)
}
