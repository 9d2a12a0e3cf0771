//! HTTP: clients that keep files, write over a WebSocket, and listen to event streams.
//!
//! Each request is routed by itself, and so each is judged by itself. What stands for the login of another protocol is a
//! connection's first request.

mod events;
mod files;
mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use http::{Method, StatusCode};

use crate::history::{Action, Operation, Protocol, Side};
use crate::imap::Connect;
use crate::web::{Backend, Done, Question, Version, WebClient};

use super::client::{Answer, PATIENCE};
use super::user::User;

pub(super) use events::Events;
pub(super) use files::Files;
pub(super) use sockets::Sockets;

/// Where a client connects, over TLS.
pub(super) struct Door {
    connect: Connect,
    version: Version,
}

impl Door {
    /// Every other client speaks HTTP/2.
    pub(super) fn of(user: &User, connect: Connect) -> Self {
        let version = match user.id % 2 {
            0 => Version::Http2,
            _ => Version::Http1,
        };
        let connect = connect.limit(PATIENCE);
        Self { connect, version }
    }

    async fn open(&self) -> anyhow::Result<WebClient> {
        Ok(WebClient::open(&self.connect, self.version).await?)
    }
}

/// A request with the user's credentials.
fn of(user: &User, question: Question) -> Question {
    question.of(&user.account, &user.password)
}

fn answer(status: StatusCode) -> Answer {
    if status.is_success() {
        Answer::Granted
    } else {
        Answer::Refused(Some(status.as_str().to_owned()))
    }
}

fn side(name: &str) -> anyhow::Result<Side> {
    Side::named(name).context("a server that does not say its name")
}

/// The name of a client's own file, which says whose it is.
fn own_file(user: &User) -> String {
    format!("c{}.{}", user.id, user.data_plane)
}

/// What is in a version of a file, of which `padding` octets say nothing.
fn content(version: u64, padding: usize) -> String {
    format!("version {version}\n{}", "x".repeat(padding))
}

/// The version of a file's content.
fn version(content: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(content).ok()?;
    let line = text.lines().next()?;
    line.strip_prefix("version ")?.parse().ok()
}

/// The files of an account on a server, with their versions.
///
/// # Errors
/// When the folder cannot be read.
pub fn read_files(server: &Backend, account: &str) -> io::Result<BTreeMap<Arc<str>, u64>> {
    let files = server.files_of(account)?.into_iter();
    let files = files.filter_map(|(name, content)| Some((name.into(), version(&content)?)));
    Ok(files.collect())
}

/// What a server of HTTP has executed for clients of a workload: the files that it has stored.
pub fn executed(server: Side, done: &[Done]) -> Vec<Operation> {
    done.iter()
        .filter_map(|done| stored(server, done))
        .collect()
}

fn stored(server: Side, done: &Done) -> Option<Operation> {
    let account = done
        .user
        .as_deref()
        .filter(|_| done.method == Method::PUT)?;
    let name = done.path.strip_prefix("/files/")?;
    let (client, data_plane) = name.strip_prefix('c')?.split_once('.')?;
    let version = done.query.strip_prefix("version=")?.parse().ok()?;
    Some(Operation {
        client: client.parse().ok()?,
        protocol: Protocol::Http,
        account: account.into(),
        data_plane: data_plane.parse().ok()?,
        server: Some(server),
        begun: done.at,
        ended: done.at,
        action: Action::PutFile {
            name: Arc::from(name),
            version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Moment;

    #[test]
    fn a_server_tells_whose_file_it_has_stored() {
        let at = Moment::now();
        let done = Done {
            method: Method::PUT,
            path: "/files/c7.1".to_owned(),
            query: "version=3".to_owned(),
            user: Some("alice@example.org".to_owned()),
            octets: 10,
            at,
        };
        let get = Done {
            method: Method::GET,
            ..done.clone()
        };
        let executed = executed(Side::Target, &[done, get]);
        let [operation] = &executed[..] else {
            panic!("{executed:?}");
        };
        assert_eq!((operation.client, operation.data_plane), (7, 1));
        assert_eq!((operation.begun, operation.ended), (at, at));
        let name = "c7.1".into();
        assert_eq!(operation.action, Action::PutFile { name, version: 3 });
    }

    #[test]
    fn a_file_says_which_version_it_is() {
        assert_eq!(version(content(17, 5).as_bytes()), Some(17));
        assert_eq!(version(b"something else"), None);
    }
}
