//! What is in front of a web server: a PROXY header, TLS, and which version is spoken behind it.

use std::sync::Arc;

use ferrypost_proto::v1::{
    self, HttpVersion,
    endpoint_tls::{Mode, Verification},
};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsAcceptor;

use super::backend::Seen;
use crate::{
    net::{
        TcpStream,
        dial::{H2, HTTP_1},
    },
    session::tests::{client::Stream, world::Authority},
};

/// How the data plane is told to reach a server, and what that does.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    /// What the routing configuration says is spoken.
    pub(super) versions: Vec<HttpVersion>,
    pub(super) has_tls: bool,
    pub(super) is_announced: bool,
    /// The kernels hold little of what the server has not read.
    pub(super) is_narrow: bool,
    /// What the server speaks.
    pub(super) speaks: Speaks,
}

/// Has the kernels hold some ten kilobytes of what is on its way to this socket, or to those that it accepts, where it
/// would be megabytes. To be said before there is a connection.
pub(super) fn narrow<'s>(socket: impl Into<SockRef<'s>>) -> std::io::Result<()> {
    let socket = socket.into();
    socket.set_recv_buffer_size(4096)?;
    // What is sent ahead is counted in segments, which on this machine alone have 64 KiB.
    socket.set_tcp_mss(1400)
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Speaks {
    #[default]
    Http1,
    H2(Terms),
    /// Whichever is chosen.
    Both(Terms),
}

/// What an HTTP/2 server allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) web_sockets: bool,
    pub(super) streams: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            web_sockets: true,
            streams: 100,
        }
    }
}

impl Way {
    /// To an HTTP/2 server in clear.
    pub(super) fn h2(terms: Terms) -> Self {
        Self {
            versions: vec![HttpVersion::H2],
            speaks: Speaks::H2(terms),
            ..Self::default()
        }
    }

    pub(super) fn tls(&self, authority: &Authority) -> v1::EndpointTls {
        if self.has_tls {
            v1::EndpointTls {
                mode: Mode::Implicit.into(),
                server_name: "localhost".into(),
                verification: Some(Verification::CaPem(authority.pem.clone())),
                ..Default::default()
            }
        } else {
            v1::EndpointTls {
                mode: Mode::None.into(),
                plaintext_consent: true,
                ..Default::default()
            }
        }
    }
}

/// The server's side of it.
#[derive(Clone, Default)]
pub(super) struct Entrance {
    tls: Option<Arc<ServerConfig>>,
    is_announced: bool,
    pub(super) is_narrow: bool,
    speaks: Speaks,
}

/// A connection behind it.
pub(super) struct Entered {
    pub(super) stream: Box<dyn Stream>,
    pub(super) is_h2: bool,
    pub(super) terms: Terms,
}

impl Entrance {
    pub(super) fn of(way: &Way, authority: &Authority) -> Self {
        let (is_announced, speaks) = (way.is_announced, way.speaks);
        let names: &[&[u8]] = match speaks {
            Speaks::Http1 => &[],
            Speaks::H2(_) => &[H2],
            Speaks::Both(_) => &[H2, HTTP_1],
        };
        let tls = way.has_tls.then(|| {
            let mut config = (*authority.sign("localhost").server()).clone();
            config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        });
        Self {
            tls,
            is_announced,
            is_narrow: way.is_narrow,
            speaks,
        }
    }

    /// `None`: the connection comes to nothing.
    pub(super) async fn enter(&self, mut stream: TcpStream, seen: &Seen) -> Option<Entered> {
        if self.is_announced {
            let mut head = [0; 16];
            stream.read_exact(&mut head).await.ok()?;
            assert_eq!(&head[..12], b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header");
            let length = u16::from_be_bytes([head[14], head[15]]);
            let mut announced = vec![0; length.into()];
            stream.read_exact(&mut announced).await.ok()?;
            seen.announced.lock().unwrap().push(announced);
        }
        let Some(config) = &self.tls else {
            return Some(self.behind(Box::new(stream), None));
        };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let stream = acceptor.accept(stream).await.ok()?;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        Some(self.behind(Box::new(stream), chosen.as_deref()))
    }

    fn behind(&self, stream: Box<dyn Stream>, chosen: Option<&[u8]>) -> Entered {
        let (is_h2, terms) = match self.speaks {
            Speaks::Http1 => (false, Terms::default()),
            Speaks::H2(terms) => (true, terms),
            Speaks::Both(terms) => (chosen == Some(H2), terms),
        };
        Entered {
            stream,
            is_h2,
            terms,
        }
    }
}
