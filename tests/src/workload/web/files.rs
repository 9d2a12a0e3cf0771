//! A client that keeps a file: it stores one version of it after the other, and looks what is there.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::HeaderName;
use http_body_util::StreamBody;
use hyper::body::Frame;
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::history::{Action, Moment, Protocol, Side};
use crate::web::{self, Question, WebClient, WebError};
use crate::workload::client::{self, Landing, Session};
use crate::workload::user::User;

use super::{Door, answer, content, of, own_file, side, version};

/// How many of a hundred things that it does are a look.
const LOOKS: u32 = 40;

const MEDIA_TYPE: &str = "text/plain";

/// By which a server says its name.
const SERVER: HeaderName = HeaderName::from_static("x-server");

pub(in crate::workload) struct Files {
    client: WebClient,
    server: Option<Side>,
}

impl Session for Files {
    const PROTOCOL: Protocol = Protocol::Http;

    type Door = Door;

    async fn open(door: &Door, _: &User) -> anyhow::Result<Self> {
        let client = door.open().await?;
        Ok(Self {
            client,
            server: None,
        })
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.client.local())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<client::Answer> {
        let said = self.client.ask(of(user, Question::get("/whoami"))).await?;
        if said.status.is_success() {
            let server = said.json()?["server"].as_str().map(side);
            self.server = server.transpose()?;
        }
        Ok(answer(said.status))
    }

    async fn served_by(&mut self) -> anyhow::Result<Side> {
        self.server.context("a server that does not say its name")
    }

    async fn live(mut self, user: &mut User, _: Landing) -> anyhow::Result<()> {
        while !user.stop.is_cancelled() {
            user.rest().await;
            if user.happens(user.habit.login_percent) {
                break;
            }
            if user.happens(LOOKS) {
                self.look(user).await?;
            } else {
                self.put(user).await?;
            }
        }
        Ok(())
    }
}

impl Files {
    async fn look(&mut self, user: &User) -> anyhow::Result<()> {
        let name = own_file(user);
        let question = of(user, Question::get(format!("/files/{name}")));
        let begun = Moment::now();
        let said = self.client.ask(question).await?;
        let version = version(&said.body).filter(|_| said.status.is_success());
        // There is none before the first version.
        let is_seen = version.is_some() || said.status == http::StatusCode::NOT_FOUND;
        let saw = is_seen.then(|| Action::SawFile {
            name: name.into(),
            version: version.unwrap_or(0),
        });
        self.record(user, saw, &said, begun)
    }

    async fn put(&mut self, user: &mut User) -> anyhow::Result<()> {
        user.made += 1;
        let (name, version) = (own_file(user), user.made);
        let content = content(version, user.random.random_range(0..2000));
        let path = format!("/files/{name}?version={version}");
        let put = Action::PutFile {
            name: Arc::from(name),
            version,
        };
        let mut begun = None;
        let said = if user.is_slow() {
            self.put_slowly(user, path, content, &mut begun).await
        } else {
            let question = of(user, Question::put(path, MEDIA_TYPE, content));
            begun = Some(Moment::now());
            self.client.ask(question).await
        };
        // No server can store a file before it has all of it.
        let Some(begun) = begun else {
            return said.map(drop).map_err(Into::into);
        };
        match said {
            Ok(said) => {
                let stored = said.status.is_success().then_some(put);
                self.record(user, stored, &said, begun)
            }
            Err(error) => {
                let times = (begun, Moment::now());
                let action = Action::Unanswered(Box::new(put));
                user.record(Protocol::Http, action, None, times);
                Err(error.into())
            }
        }
    }

    /// Sends half of it, and the other half some time later, which is when `begun` is known.
    async fn put_slowly(
        &mut self,
        user: &mut User,
        path: String,
        content: String,
        begun: &mut Option<Moment>,
    ) -> Result<web::Answer, WebError> {
        let (pieces, stream) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        let body = StreamBody::new(ReceiverStream::new(stream));
        let question = Question::new(http::Method::PUT, path).body(MEDIA_TYPE, body);
        let question = of(user, question);
        let mut early = Bytes::from(content);
        let late = early.split_off(early.len() / 2);
        let sending = async {
            // Whoever does not take it has answered, or gone.
            _ = pieces.send(Ok(Frame::data(early))).await;
            user.wait_for_line().await;
            let now = Moment::now();
            if pieces.send(Ok(Frame::data(late))).await.is_ok() {
                *begun = Some(now);
            }
            drop(pieces);
        };
        let (said, ()) = tokio::join!(self.client.ask(question), sending);
        said
    }

    /// What was done, or that it was refused.
    fn record(
        &self,
        user: &User,
        done: Option<Action>,
        said: &web::Answer,
        begun: Moment,
    ) -> anyhow::Result<()> {
        let times = (begun, Moment::now());
        if let Some(action) = done {
            let name = said.field(&SERVER).unwrap_or_default();
            user.record(Protocol::Http, action, Some(side(name)?), times);
        } else {
            let refused = Action::LoginRefused {
                code: Some(said.status.as_str().to_owned()),
                from: self.local(),
            };
            user.record(Protocol::Http, refused, None, times);
        }
        Ok(())
    }
}
