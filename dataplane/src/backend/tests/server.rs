//! A server that says what it was told to say.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use ferrypost_proto::v1;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::net::{self, TcpStream, tls_client::crypto};

/// How the server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    Implicit,
    StartTls,
}

/// What the server does, until it [runs](Script::run).
pub(super) struct Script {
    tls: Tls,
    greeting: String,
    /// In place of what the server offers before, and then after, its TLS.
    offering: Option<String>,
    offering_secured: String,
    expects_proxy: bool,
    endpoint: v1::EndpointTls,
    acceptor: TlsAcceptor,
}

/// A running server.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    endpoint: v1::Endpoint,
    task: JoinHandle<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    proxy_header: Mutex<Vec<u8>>,
    noted: Notify,
}

const OFFERING: &str = "IMAP4rev1 IDLE AUTH=PLAIN";

impl Server {
    pub(super) fn start(tls: Tls) -> Script {
        let made = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::clone(made.cert.der())], key)
            .unwrap();
        let way = match tls {
            Tls::Implicit => v1::endpoint_tls::Mode::Implicit,
            Tls::StartTls => v1::endpoint_tls::Mode::Starttls,
        };
        Script {
            tls,
            greeting: "* OK hello".to_owned(),
            offering: None,
            offering_secured: OFFERING.to_owned(),
            expects_proxy: false,
            endpoint: v1::EndpointTls {
                mode: way.into(),
                server_name: "mail.example.org".to_owned(),
                verification: Some(v1::endpoint_tls::Verification::CaPem(made.cert.pem())),
                plaintext_consent: false,
            },
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    pub(super) fn endpoint(&self) -> v1::Endpoint {
        self.endpoint.clone()
    }

    /// Closes the listening socket.
    pub(super) async fn stop(self) {
        self.task.abort();
        _ = self.task.await;
    }

    /// The header of the first connection.
    pub(super) async fn proxy_header(&self) -> Vec<u8> {
        loop {
            let noted = self.seen.noted.notified();
            let header = self.seen.proxy_header.lock().unwrap().clone();
            if !header.is_empty() {
                return header;
            }
            noted.await;
        }
    }
}

impl Script {
    /// The whole first line. Nothing: it stays silent.
    pub(super) fn greeting(mut self, line: &str) -> Self {
        line.clone_into(&mut self.greeting);
        self
    }

    /// What it offers, before TLS and after.
    pub(super) fn offering(mut self, list: &str) -> Self {
        self.offering = Some(list.to_owned());
        list.clone_into(&mut self.offering_secured);
        self
    }

    /// Nobody that is trusted vouches for it.
    pub(super) fn untrusted(mut self) -> Self {
        let other = rcgen::generate_simple_self_signed(["other.example.org".to_owned()]).unwrap();
        self.endpoint.verification = Some(v1::endpoint_tls::Verification::CaPem(other.cert.pem()));
        self
    }

    /// It is expected under this name.
    pub(super) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.endpoint.server_name);
        self
    }

    /// It is expected to have this certificate.
    pub(super) fn pinned(mut self, sha256: &str) -> Self {
        self.endpoint.verification =
            Some(v1::endpoint_tls::Verification::PinSha256(sha256.to_owned()));
        self
    }

    /// It wants a PROXY header before everything else.
    pub(super) fn expecting_proxy(mut self) -> Self {
        self.expects_proxy = true;
        self
    }

    /// Runs, offering this after TLS.
    pub(super) fn run_offering(mut self, list: &str) -> Server {
        list.clone_into(&mut self.offering_secured);
        self.run()
    }

    pub(super) fn run(self) -> Server {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let announcement = if self.expects_proxy {
            v1::Announcement::ProxyV2
        } else {
            v1::Announcement::None
        };
        let endpoint = v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: address.ip().to_string(),
            port: address.port().into(),
            tls: Some(self.endpoint.clone()),
            announcement: announcement.into(),
            ..Default::default()
        };
        let seen = Arc::<Seen>::default();
        let (script, noting) = (Arc::new(self), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = net::accept(&listener).await.unwrap();
                let (script, seen) = (Arc::clone(&script), Arc::clone(&noting));
                tokio::spawn(async move { script.serve(stream, &seen).await });
            }
        });
        Server {
            address,
            endpoint,
            task,
            seen,
        }
    }

    /// A connection. What fails on it is the other side's to notice.
    async fn serve(&self, mut stream: TcpStream, seen: &Seen) {
        if self.expects_proxy {
            let mut header = vec![0; 16];
            stream.read_exact(&mut header).await.unwrap();
            let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
            stream.read_exact(&mut rest).await.unwrap();
            *seen.proxy_header.lock().unwrap() = header;
            seen.noted.notify_waiters();
        }
        match self.tls {
            Tls::Implicit => {
                if let Ok(stream) = self.acceptor.accept(stream).await {
                    self.talk(&mut BufReader::new(stream), true, &self.offering_secured)
                        .await;
                }
            }
            Tls::StartTls => {
                let clear = "IMAP4rev1 STARTTLS LOGINDISABLED";
                let clear = self.offering.as_deref().unwrap_or(clear);
                let mut stream = BufReader::new(stream);
                if self.talk(&mut stream, true, clear).await
                    && let Ok(stream) = self.acceptor.accept(stream.into_inner()).await
                {
                    self.talk(&mut BufReader::new(stream), false, &self.offering_secured)
                        .await;
                }
            }
        }
    }

    /// Answers commands; true when TLS is to begin.
    async fn talk<S>(&self, stream: &mut BufReader<S>, greets: bool, offering: &str) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if greets && !self.greeting.is_empty() {
            let line = format!("{}\r\n", self.greeting);
            _ = stream.write_all(line.as_bytes()).await;
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            let (tag, command) = line.trim_end().split_once(' ').unwrap_or_default();
            let answer = match command {
                "CAPABILITY" => format!("* CAPABILITY {offering}\r\n{tag} OK\r\n"),
                "LOGOUT" => format!("* BYE\r\n{tag} OK\r\n"),
                "STARTTLS" => format!("{tag} OK go on\r\n"),
                _ => format!("{tag} BAD what?\r\n"),
            };
            let secure = command == "STARTTLS";
            if stream.write_all(answer.as_bytes()).await.is_err() || secure {
                return secure;
            }
            line.clear();
        }
        false
    }
}

/// A port on which nobody listens: one that was given out a moment ago and is not given again soon.
pub(super) fn unused_port() -> u32 {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    listener.local_addr().unwrap().port().into()
}
