//! Servers that a test plays by hand.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    client::{Client, PATIENCE},
    world::{Plan, Way},
};
use crate::net::{self, TcpListener, TcpStream};

/// A server that is played by hand.
pub(crate) struct Server(TcpListener);

impl Server {
    fn start() -> Self {
        Self(net::listen("127.0.0.1:0".parse().unwrap()).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection, before anything is said.
    pub(crate) async fn accept(&self) -> TcpStream {
        let accepted = timeout(PATIENCE, net::accept(&self.0)).await;
        accepted.expect("nobody came").unwrap().0
    }

    /// The same, to be read by line.
    pub(crate) async fn visited(&self) -> Client {
        Client::over(Box::new(self.accept().await))
    }

    /// The next connection, on which each of these is heard and then said, with nothing left in a buffer.
    pub(crate) async fn speaks(&self, dialogue: &[(&str, &str)]) -> TcpStream {
        let mut stream = self.accept().await;
        for (hear, say) in dialogue {
            let mut line = vec![0; hear.len()];
            stream.read_exact(&mut line).await.unwrap();
            assert_eq!(line, hear.as_bytes());
            stream.write_all(say.as_bytes()).await.unwrap();
        }
        stream
    }

    pub(crate) async fn is_not_asked(&self) {
        let nobody = timeout(Duration::ZERO, net::accept(&self.0)).await;
        assert!(nobody.is_err(), "the server was asked");
    }
}

/// The old and the new server, and the plan of a world in front of them.
pub(crate) fn servers() -> (Server, Server, Plan) {
    let (old, new) = (Server::start(), Server::start());
    let plan = Plan {
        way: Way {
            at: [Some(old.address()), Some(new.address())],
            ..Way::default()
        },
        ..Plan::default()
    };
    (old, new, plan)
}
