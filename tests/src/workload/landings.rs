//! Which server a client has landed on, by the logs of those who brought it there.
//!
//! A server's log alone does not tell: a login that a fence overtook was granted by one server, and sent once more to
//! the other. So the data plane is asked where it went in the end, and that server's own log must agree.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use crate::dovecot::Dovecot;
use crate::history::Side;
use crate::log_file::LogFile;
use crate::wait::eventually;
use crate::world::World;

/// What a Dovecot's line about a login holds, with any service: 2.3 goes on with `Login:`, 2.4 with `Logged in:`.
const SERVER_LOGIN: &str = "-login: Info: Log";

/// What a data plane's line about a login that was granted holds.
const LOGIN: [&str; 2] = [": login ", "outcome=\"accepted\""];

/// How long a login's line may come after its answer on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The logs of all data planes and of both servers. All who read them share what was read.
#[derive(Clone)]
pub(super) struct Landings(Arc<Logs>);

struct Logs {
    /// Where each said that it took a login from there.
    data_planes: Vec<Log<Side>>,
    source: Log<()>,
    target: Log<()>,
}

/// A log, with what nobody has asked for yet of the logins in it.
struct Log<T>(Mutex<Read<T>>);

struct Read<T> {
    log: LogFile,
    parse: fn(&str) -> Option<(SocketAddr, T)>,
    logins: HashMap<SocketAddr, T>,
}

/// A connection that has not logged in yet, whose landing is going to be asked for.
pub(super) struct Flight {
    landings: Landings,
    data_plane: usize,
    from: SocketAddr,
}

impl Landings {
    pub(super) fn of(world: &World) -> Self {
        let server = |server: &Dovecot| Log::new(&server.log(), seen_by_server);
        let data_planes = world.data_planes().iter();
        Self(Arc::new(Logs {
            data_planes: data_planes
                .map(|it| Log::new(&it.plane.log(), taken_by_data_plane))
                .collect(),
            source: server(world.source()),
            target: server(world.target()),
        }))
    }

    /// Whoever came from there before was another connection.
    pub(super) fn expect(&self, data_plane: usize, from: SocketAddr) -> Flight {
        self.0.data_planes[data_plane].take(from);
        self.0.source.take(from);
        self.0.target.take(from);
        Flight {
            landings: self.clone(),
            data_plane,
            from,
        }
    }
}

impl Flight {
    /// Our end of the connection.
    pub(super) fn from(&self) -> SocketAddr {
        self.from
    }

    /// The side on which the login has arrived; the logs are waited for.
    pub(super) async fn side(&self) -> anyhow::Result<Side> {
        let logs = &self.landings.0;
        let side = logs.data_planes[self.data_plane]
            .wait_for(self.from)
            .await?;
        let server = match side {
            Side::Source => &logs.source,
            Side::Target => &logs.target,
        };
        server.wait_for(self.from).await?;
        Ok(side)
    }
}

impl<T> Log<T> {
    fn new(log: &LogFile, parse: fn(&str) -> Option<(SocketAddr, T)>) -> Self {
        Self(Mutex::new(Read {
            log: log.from_now(),
            parse,
            logins: HashMap::new(),
        }))
    }

    async fn wait_for(&self, from: SocketAddr) -> anyhow::Result<T> {
        let what = format!("the login from {from} is in the log");
        let found = eventually(&what, LIMIT, || {
            std::future::ready(self.take(from).ok_or("it is not"))
        });
        found.await.context("a login that is not in the log")
    }

    fn take(&self, from: SocketAddr) -> Option<T> {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = read.log.read_on();
        let parse = read.parse;
        read.logins.extend(lines.lines().filter_map(parse));
        read.logins.remove(&from)
    }
}

fn seen_by_server(line: &str) -> Option<(SocketAddr, ())> {
    let behind = |key| line.split_once(key)?.1.split(',').next();
    let is_login = line.contains(SERVER_LOGIN);
    let ip = behind("rip=").filter(|_| is_login)?.parse().ok()?;
    let port = behind("rport=")?.parse().ok()?;
    Some((SocketAddr::new(ip, port), ()))
}

fn taken_by_data_plane(line: &str) -> Option<(SocketAddr, Side)> {
    let behind = |key| line.split_once(key)?.1.split(' ').next();
    let is_login = LOGIN.iter().all(|part| line.contains(part));
    let from = behind(" client=").filter(|_| is_login)?.parse().ok()?;
    Some((from, Side::named(behind(" destination=")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_logins_say_where_they_came_from_and_went() {
        let from = "127.1.0.7:4711".parse().unwrap();
        let line = "2026-01-02 03:04:05 pop3-login: Info: Login: user=<user1@example.org>, method=PLAIN, \
                    rip=127.1.0.7, rport=4711, lip=127.0.0.1, lport=110, mpid=5, TLS, session=<abc>";
        assert_eq!(seen_by_server(line), Some((from, ())));
        let line = "2026-01-02T03:04:05.6Z  INFO ferrypost_dataplane::session::context: login reference=abc \
                    client=127.1.0.7:4711 listener=\"pop3\" rule=\"default\" destination=target overtaken=1 \
                    outcome=\"accepted\" blame=\"nobody\"";
        assert_eq!(taken_by_data_plane(line), Some((from, Side::Target)));
        let refused = line.replace("accepted", "held_too_long");
        assert_eq!(taken_by_data_plane(&refused), None);
    }
}
