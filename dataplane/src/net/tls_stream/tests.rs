use std::sync::Arc;

use ferrypost_runtime::tls::crypto;
use proptest::prelude::*;
use rcgen::KeyPair;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::net;

/// Both ends' configurations, for `localhost`.
fn configs(versions: &[&'static rustls::SupportedProtocolVersion]) -> (ServerConfig, ClientConfig) {
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    server.send_half_rtt_data = true;
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (server, client)
}

async fn sockets() -> (net::TcpStream, net::TcpStream) {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(net::connect(address), net::accept(&listener));
    (near.unwrap(), far.unwrap().0)
}

type Server = Box<TlsStream<UnbufferedServerConnection>>;
type Client = tokio_rustls::client::TlsStream<net::TcpStream>;

/// Our server against the library's own client.
async fn served(early: &[u8]) -> (Server, Client) {
    let (server, client) = configs(rustls::ALL_VERSIONS);
    let (near, far) = sockets().await;
    let connecting =
        TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), near);
    let session = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
    let (client, server) =
        tokio::join!(connecting, TlsStream::handshake(far.into(), session, early));
    (server.unwrap(), client.unwrap())
}

async fn read(stream: &mut Server, room: usize) -> Vec<u8> {
    let mut into = vec![0; room];
    let count = poll_fn(|cx| stream.poll_some(cx, &mut into)).await.unwrap();
    into.truncate(count);
    into
}

async fn read_all(stream: &mut Server, count: usize, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let piece = read(stream, room).await;
        assert!(!piece.is_empty(), "it ended after {} octets", all.len());
        all.extend(piece);
    }
    all
}

async fn write(stream: &mut Server, octets: &[u8]) {
    stream.write_all(octets).await.unwrap();
    stream.flush().await.unwrap();
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| u8::try_from(n * 31 % 251).unwrap())
        .collect()
}

#[tokio::test]
async fn early_words_arrive_with_the_handshake_and_before_all_others() {
    let (mut server, mut client) = served(b"* OK early\r\n").await;
    write(&mut server, b"later").await;
    let mut all = [0; 17];
    client.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"* OK early\r\nlater");
}

#[tokio::test]
async fn octets_of_any_number_pass_in_both_directions_whatever_room_there_is() {
    for count in [
        1,
        RECORD - 1,
        RECORD,
        RECORD + 1,
        PIECE,
        PIECE + 1,
        3 * PIECE + 5,
    ] {
        let (mut server, mut client) = served(b"").await;
        let sent = pattern(count);
        for room in [1000, PIECE] {
            let (received, ()) = tokio::join!(read_all(&mut server, count, room), async {
                client.write_all(&sent).await.unwrap();
                client.flush().await.unwrap();
            });
            assert!(received == sent, "{count} octets into {room}");
        }
        let mut received = vec![0; count];
        let ((), result) =
            tokio::join!(write(&mut server, &sent), client.read_exact(&mut received));
        result.unwrap();
        assert!(received == sent, "{count} octets out");
    }
}

#[tokio::test]
async fn nothing_is_kept_while_nothing_moves() {
    let (mut server, mut client) = served(b"hello").await;
    client.write_all(&pattern(RECORD + 77)).await.unwrap();
    client.flush().await.unwrap();
    read_all(&mut server, RECORD + 77, 100).await;
    write(&mut server, &pattern(PIECE)).await;
    assert_eq!(server.incoming.capacity(), 0);
    assert_eq!(server.engine.outgoing.capacity(), 0);
    assert!(server.plain.is_empty());
}

#[tokio::test]
async fn a_change_of_keys_that_wants_an_answer_gets_one() {
    let (mut server, mut client) = served(b"").await;
    for round in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(b"ping").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(read_all(&mut server, 4, 64).await, b"ping", "round {round}");
        write(&mut server, b"pong").await;
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong", "round {round}");
    }
}

#[tokio::test]
async fn the_peer_s_end_comes_behind_its_last_octet_and_we_may_still_speak() {
    let (mut server, mut client) = served(b"").await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server, 4, 64).await, b"last");
    assert!(read(&mut server, 64).await.is_empty());
    assert!(read(&mut server, 64).await.is_empty());
    write(&mut server, b"answer").await;
    server.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"answer");
}

#[tokio::test]
async fn a_peer_that_vanishes_without_a_word_has_ended() {
    let (mut server, client) = served(b"").await;
    drop(client.into_inner());
    assert!(read(&mut server, 64).await.is_empty());
    // A protocol whose messages may end with the stream learns that this one was cut off, however often it asks.
    for _ in 0..2 {
        let error = server.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn records_that_were_tampered_with_end_the_session_with_an_alert() {
    let (mut server, client) = served(b"").await;
    let (mut socket, _) = client.into_inner();
    // A record of application data that no key has made.
    let mut forged = vec![23, 3, 3, 0, 40];
    forged.extend([7; 40]);
    socket.write_all(&forged).await.unwrap();
    let mut into = [0; 64];
    let error = server.read(&mut into).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut alert = [0; 5];
    socket.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[0], 23, "an encrypted record: the alert");
}

#[tokio::test]
async fn a_peer_that_is_slow_to_take_loses_nothing() {
    let (mut server, mut client) = served(b"").await;
    let sent = pattern(8 << 20);
    let mut received = vec![0; sent.len()];
    let ((), ()) = tokio::join!(write(&mut server, &sent), async {
        for piece in received.chunks_mut(100_000) {
            client.read_exact(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert!(received == sent);
}

#[tokio::test]
async fn both_versions_work_from_both_ends() {
    for version in rustls::ALL_VERSIONS {
        let (server, client) = configs(&[*version]);
        let (near, far) = sockets().await;
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(far);
        let session =
            UnbufferedClientConnection::new(Arc::new(client), "localhost".try_into().unwrap());
        let connecting = TlsStream::handshake(near.into(), session.unwrap(), b"");
        let (client, server) = tokio::join!(connecting, accepting);
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        let mut into = [0; 64];
        server.write_all(b"hello").await.unwrap();
        server.flush().await.unwrap();
        let count = client.read(&mut into).await.unwrap();
        assert_eq!(&into[..count], b"hello");
        client.write_all(b"bye").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
    }
}

#[tokio::test]
async fn a_handshake_that_comes_octet_by_octet_succeeds() {
    let (server, client) = configs(rustls::ALL_VERSIONS);
    let (near, far) = sockets().await;
    let (relayed_near, relayed_far) = sockets().await;
    // Between the two ends somebody passes on single octets.
    let dribble = async |from: &mut tokio::net::tcp::ReadHalf<'_>,
                         to: &mut tokio::net::tcp::WriteHalf<'_>| {
        let mut octet = [0];
        while from.read_exact(&mut octet).await.is_ok() {
            to.write_all(&octet).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let between = async {
        let (mut far, mut relayed_near) = (far, relayed_near);
        let (mut far_read, mut far_write) = far.split();
        let (mut near_read, mut near_write) = relayed_near.split();
        tokio::join!(
            dribble(&mut far_read, &mut near_write),
            dribble(&mut near_read, &mut far_write)
        );
    };
    let connecting =
        TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), near);
    let session = UnbufferedServerConnection::new(Arc::new(server)).unwrap();
    let ends = async {
        let (client, server) = tokio::join!(
            connecting,
            TlsStream::handshake(relayed_far.into(), session, b"* OK\r\n")
        );
        let mut greeting = [0; 6];
        client.unwrap().read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"* OK\r\n");
        drop(server.unwrap());
    };
    tokio::select! {
        () = ends => {}
        () = between => panic!("the handshake was cut off"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_hostile_peer_breaks_nothing(script in proptest::collection::vec(any::<u8>(), 1..400)) {
        hostile::play(&script);
    }
}
