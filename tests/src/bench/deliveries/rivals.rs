//! The others: Postfix and Dovecot, which pass on what they are given.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::Door;
use super::load::Greeting;
use crate::bench::backend::Sink;
use crate::bench::meter::Meter;
use crate::ports::Port;
use crate::process::{Process, Spawn};
use crate::shell::shell;
use crate::wait::eventually;

const START_LIMIT: Duration = Duration::from_mins(1);

/// One of them. Dropping it kills it.
pub(super) struct Rival {
    _process: Process,
    port: Port,
    meter: Meter,
}

impl Rival {
    /// Where it takes messages.
    pub(super) fn door(&self, greeting: Greeting) -> Door<'_> {
        Door {
            address: self.port.addr(),
            greeting,
            meter: &self.meter,
        }
    }

    async fn running(process: Process, port: Port) -> anyhow::Result<Self> {
        let address = port.addr();
        let log = process.log().clone();
        let up = eventually("a rival takes connections", START_LIMIT, || {
            TcpStream::connect(address)
        });
        up.await.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, log.tail());
            late
        })?;
        let meter = Meter::of_master(process.id());
        Ok(Self {
            _process: process,
            port,
            meter,
        })
    }
}

/// A Postfix with its queue, which sends everything on by LMTP. Everything else is its default.
pub(super) async fn postfix(folder: &Path, sink: &Sink) -> anyhow::Result<Rival> {
    let folder = folder.join("postfix");
    let port = Port::reserve()?;
    let state = folder.display();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {state}/queue\ndata_directory = {state}/data\n\
         daemon_directory = /usr/lib/postfix/sbin\ncommand_directory = /usr/sbin\n\
         maillog_file = {state}/log\nmaillog_file_prefixes = {state}\ninet_interfaces = loopback-only\n\
         inet_protocols = ipv4\nmyhostname = mail.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
         alias_maps =\nalias_database =\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
         default_transport = {next}\nrelay_transport = {next}\n",
        next = format_args!("lmtp:inet:{}", sink.address()),
    );
    let master = format!(
        "{} inet n - n - - smtpd\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\nretry unix - - n - - error\n\
         error unix - - n - - error\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n",
        port.addr()
    );
    for name in ["etc", "queue", "data"] {
        fs::create_dir_all(folder.join(name))?;
    }
    fs::write(folder.join("etc/main.cf"), main)?;
    fs::write(folder.join("etc/master.cf"), master)?;
    // The check makes the queue's folders.
    shell(&format!(
        "chown postfix {state}/data && postfix -c {state}/etc check 2>&1"
    ))
    .await?;
    let process = Spawn::new("/usr/lib/postfix/sbin/master", folder.join("out"))?
        .args(["-d", "-c"])
        .arg(folder.join("etc"))
        .terminate_with_parent()
        .in_session()
        .start()?;
    Rival::running(process, port).await
}

/// A Dovecot that sends everybody's mail on.
pub(super) async fn dovecot(folder: &Path, sink: &Sink) -> anyhow::Result<Rival> {
    let folder = folder.join("dovecot");
    fs::create_dir_all(&folder)?;
    let port = Port::reserve()?;
    fs::write(
        folder.join("dovecot.conf"),
        dovecot_configuration(&folder, port.addr(), sink.address()),
    )?;
    let process = Spawn::new("dovecot", folder.join("out"))?
        .args(["-F", "-c"])
        .arg(folder.join("dovecot.conf"))
        .start()?;
    Rival::running(process, port).await
}

fn dovecot_configuration(folder: &Path, listen: SocketAddr, sink: SocketAddr) -> String {
    let state = folder.display();
    let service = format!(
        "service lmtp {{\n  inet_listener lmtp {{\n    port = {}\n  }}\n}}\n",
        listen.port()
    );
    let shared = format!(
        "base_dir = {state}/run\nstate_dir = {state}/state\nlog_path = {state}/log\nlisten = {}\n\
         protocols = lmtp\nssl = no\n{service}",
        listen.ip()
    );
    format!(
        "{shared}lmtp_proxy = yes\npassdb {{\n  driver = static\n  args = nopassword=y proxy=y host={} port={}\n}}\n",
        sink.ip(),
        sink.port()
    )
}
