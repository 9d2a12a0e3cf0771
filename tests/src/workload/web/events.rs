//! A client that listens to an event stream for as long as it is let.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::history::{Action, Moment, Protocol, Side};
use crate::web::{Question, WebClient};
use crate::workload::client::{Answer, Landing, PATIENCE, Session};
use crate::workload::user::User;

use super::{Door, answer, of, side};

pub(in crate::workload) struct Events {
    client: WebClient,
    body: Option<Incoming>,
    /// What has come of an event that is not whole.
    read: String,
}

impl Session for Events {
    const PROTOCOL: Protocol = Protocol::Http;

    type Door = Door;

    async fn open(door: &Door, _: &User) -> anyhow::Result<Self> {
        Ok(Self {
            client: door.open().await?,
            body: None,
            read: String::new(),
        })
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.client.local())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        let question = of(user, Question::get("/events"));
        let (head, body) = self.client.begin(question).await?.into_parts();
        self.body = Some(body);
        Ok(answer(head.status))
    }

    /// The first event says it.
    async fn served_by(&mut self) -> anyhow::Result<Side> {
        let first = timeout(PATIENCE, self.event()).await;
        side(&first.context("an event stream that says nothing")??)
    }

    /// An event is when it was announced.
    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        let stop = user.stop.clone();
        while let Some(event) = stop.run_until_cancelled(self.event()).await {
            let announced = Duration::from_nanos(event?.parse()?);
            let times = (Moment(announced), Moment::now());
            user.record(Protocol::Http, Action::Woken, Some(landing.server), times);
        }
        Ok(())
    }
}

impl Events {
    /// What the next event says.
    async fn event(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some((event, _)) = self.read.split_once("\n\n") {
                let end = event.len() + "\n\n".len();
                let text = event.strip_prefix("data: ").unwrap_or(event).to_owned();
                self.read.drain(..end);
                return Ok(text);
            }
            let body = self.body.as_mut().context("no event stream yet")?;
            let frame = body.frame().await.context("the event stream has ended")??;
            if let Some(octets) = frame.data_ref() {
                self.read.push_str(std::str::from_utf8(octets)?);
            }
        }
    }
}
