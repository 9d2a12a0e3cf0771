//! A client that writes over a WebSocket, which a move ends.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tokio::time::timeout;

use crate::history::{Action, Moment, Protocol, Side};
use crate::web::client::WebSocket;
use crate::web::{Message, Question, WebClient, WebError};
use crate::workload::client::{Answer, Landing, PATIENCE, Session};
use crate::workload::user::User;

use super::{Door, answer, content, of, own_file, side};

/// How many of a hundred messages change nothing.
const WORDS: u32 = 40;

/// A WebSocket that nobody wants any more (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;

pub(in crate::workload) struct Sockets {
    client: WebClient,
    socket: Option<WebSocket>,
}

impl Session for Sockets {
    const PROTOCOL: Protocol = Protocol::Http;

    type Door = Door;

    async fn open(door: &Door, _: &User) -> anyhow::Result<Self> {
        let client = door.open().await?;
        Ok(Self {
            client,
            socket: None,
        })
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(self.client.local())
    }

    async fn log_in(&mut self, user: &User) -> anyhow::Result<Answer> {
        match self.client.socket(of(user, Question::get("/ws"))).await {
            Ok(socket) => {
                self.socket = Some(socket);
                Ok(Answer::Granted)
            }
            Err(WebError::Declined(status)) => Ok(answer(status)),
            Err(error) => Err(error.into()),
        }
    }

    async fn served_by(&mut self) -> anyhow::Result<Side> {
        self.say("hello".to_owned()).await
    }

    async fn live(mut self, user: &mut User, landing: Landing) -> anyhow::Result<()> {
        while !user.stop.is_cancelled() {
            user.rest().await;
            if user.happens(user.habit.login_percent) {
                break;
            }
            let (text, action) = if user.happens(WORDS) {
                ("hello".to_owned(), Action::Noop)
            } else {
                put(user)
            };
            let begun = Moment::now();
            let server = self.say(text).await?;
            ensure!(server == landing.server, "another server on one WebSocket");
            let times = (begun, Moment::now());
            user.record(Protocol::Http, action, Some(server), times);
        }
        self.close().await
    }
}

impl Sockets {
    /// Says something and hears it said back: by whom.
    async fn say(&mut self, text: String) -> anyhow::Result<Side> {
        let said = timeout(PATIENCE, async {
            let socket = self.socket()?;
            socket.send(&Message::Text(text.clone())).await?;
            anyhow::Ok(socket.next().await?)
        });
        match said.await.context("a WebSocket that says nothing")?? {
            Some(Message::Text(said)) => {
                let name = said.strip_suffix(&format!(": {text}"));
                side(name.context("a WebSocket that says something else")?)
            }
            other => bail!("the WebSocket has ended: {other:?}"),
        }
    }

    async fn close(&mut self) -> anyhow::Result<()> {
        let closed = timeout(PATIENCE, async {
            let socket = self.socket()?;
            socket.send(&Message::Close(Some(NORMAL))).await?;
            anyhow::Ok(socket.next().await?)
        });
        closed.await.context("a WebSocket that does not end")??;
        Ok(())
    }

    fn socket(&mut self) -> anyhow::Result<&mut WebSocket> {
        self.socket.as_mut().context("no WebSocket yet")
    }
}

/// The next version of the client's file.
fn put(user: &mut User) -> (String, Action) {
    user.made += 1;
    let (name, version) = (own_file(user), user.made);
    let text = format!("put {name} version={version} {}", content(version, 100));
    let name = Arc::from(name);
    (text, Action::PutFile { name, version })
}
