//! A control plane that says what it was told to say.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use ferrypost_proto::{
    MigrationId, Revision,
    routing::v1::{
        AccountEntry, Change, Hello, StreamRequest, StreamResponse, TablePosition, Welcome, change,
        routing_service_server::{RoutingService, RoutingServiceServer},
        stream_request::Message as Up,
        stream_response::Message as Down,
    },
    v1,
};
use ferrypost_runtime::Random;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    net,
    session::tests::{
        client::PATIENCE,
        world::{Authority, Identity},
    },
};

pub(crate) const INSTALLATION: &str = "00000000000000000000000001";

pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    conversations: mpsc::Receiver<Conversation>,
    task: JoinHandle<()>,
}

/// One stream.
pub(crate) struct Conversation {
    pub(crate) hello: Hello,
    up: Streaming<StreamRequest>,
    down: mpsc::Sender<Result<StreamResponse, Status>>,
}

impl ControlPlane {
    pub(crate) fn start() -> Self {
        Self::serve(None)
    }

    /// Behind TLS, for data planes that `clients` vouches for.
    pub(crate) fn start_mutual(identity: &Identity, clients: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(clients.root.clone()).unwrap();
        let provider = ferrypost_runtime::tls::crypto();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let (chain, key) = identity.chain_and_key();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, conversations) = mpsc::channel(8);
        let service = RoutingServiceServer::new(Script(begun));
        let task = tokio::spawn(async move {
            let router = Server::builder().add_service(service);
            match tls {
                None => {
                    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                    router.serve_with_incoming(incoming).await.unwrap();
                }
                Some(acceptor) => {
                    let (accepted, incoming) = mpsc::channel(8);
                    let accepting = async move {
                        loop {
                            let (stream, _) = net::accept(&listener).await.unwrap();
                            if let Ok(stream) = acceptor.accept(stream).await {
                                accepted
                                    .send(Ok::<_, std::io::Error>(stream))
                                    .await
                                    .unwrap();
                            }
                        }
                    };
                    let serving = router.serve_with_incoming(ReceiverStream::new(incoming));
                    tokio::select! {
                        () = accepting => {}
                        served = serving => served.unwrap(),
                    }
                }
            }
        });
        Self {
            address,
            conversations,
            task,
        }
    }

    /// The next data plane that says hello.
    pub(crate) async fn conversation(&mut self) -> Conversation {
        let next = timeout(PATIENCE, self.conversations.recv()).await;
        next.expect("no data plane came").expect("the server runs")
    }

    pub(crate) async fn stop(self) {
        self.task.abort();
        _ = self.task.await;
    }
}

impl Conversation {
    pub(crate) async fn say(&self, message: Down) {
        let response = StreamResponse {
            message: Some(message),
        };
        self.down.send(Ok(response)).await.unwrap();
    }

    /// Waits for a message, past all others.
    pub(crate) async fn hear(&mut self, wanted: impl Fn(&Up) -> bool) -> Up {
        let hearing = async {
            loop {
                let request = self
                    .up
                    .message()
                    .await
                    .unwrap()
                    .expect("the stream goes on");
                let message = request.message.expect("no request is empty");
                if wanted(&message) {
                    return message;
                }
            }
        };
        timeout(PATIENCE, hearing).await.expect("it was not said")
    }

    /// Ends the stream with an error, as a replica that goes away does.
    pub(crate) async fn cut(self) {
        self.down
            .send(Err(Status::unavailable("gone")))
            .await
            .unwrap();
    }
}

struct Script(mpsc::Sender<Conversation>);

#[tonic::async_trait]
impl RoutingService for Script {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let up = Mutex::new(request.into_inner());
        let (down, answers) = mpsc::channel(8);
        let begun = self.0.clone();
        tokio::spawn(async move {
            let mut up = up.into_inner();
            let first = up.message().await.unwrap().unwrap();
            let Some(Up::Hello(hello)) = first.message else {
                panic!("the first message is Hello");
            };
            _ = begun.send(Conversation { hello, up, down }).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

pub(crate) fn welcome() -> Down {
    Down::Welcome(Welcome {
        contract: ferrypost_proto::CONTRACTS.newest(),
        installation: INSTALLATION.to_owned(),
        registered: Some(Revision::new(0, 4).into()),
        heartbeat_interval: Some(Duration::from_mins(1).try_into().unwrap()),
        rewound: false,
        replica: "cp-1".to_owned(),
        contracts: None,
        schemas: None,
        settle: None,
    })
}

pub(crate) fn position(revision: u64) -> TablePosition {
    TablePosition {
        revision: Some(Revision::new(0, revision).into()),
        head: None,
    }
}

/// The FENCING write of an account that gets its record with it.
pub(crate) fn fencing(name: &str, home: &str, revision: u64) -> Change {
    let random = Random::seeded(7);
    Change {
        change: Some(change::Change::Account(AccountEntry {
            account_id: ferrypost_proto::AccountId::generate(random.bytes()).into(),
            names: vec![name.to_owned()],
            home: home.to_owned(),
            target: home.to_owned(),
            phase: v1::Phase::Fencing.into(),
            epoch: Some(Revision::new(0, revision).into()),
            fence_epoch: None,
            migration_id: MigrationId::generate(random.bytes()).into(),
            traceparent: String::new(),
        })),
    }
}
