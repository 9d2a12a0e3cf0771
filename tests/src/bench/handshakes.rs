//! What a TLS handshake costs its server: by the kind of its key, and by what the client brings along.
//!
//! Both ends are rustls in memory, with the version and the suite that a data plane agrees on with a current client.
//! Only the server's own CPU time is counted; what system calls and wake-ups add is in the part `relay`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustix::time::{ClockId, clock_gettime};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection,
};

/// Handshakes of each kind; the median is shown.
const COUNT: usize = 500;

const NAME: &str = "mail.example.org";

/// What the handshakes of one key cost.
pub(super) struct Handshakes {
    pub(super) key: &'static str,
    /// In full, and nothing for later.
    pub(super) full: Duration,
    /// In full, with a ticket that nobody comes back with.
    pub(super) unused_ticket: Duration,
    /// Resumed by a ticket, with another for the next time.
    pub(super) resumed: Duration,
}

/// Measures the two kinds of key that mail servers have. Takes one core for some seconds.
///
/// # Errors
/// When a handshake fails, or is not of the kind that it is to be.
pub(super) fn measure() -> anyhow::Result<Vec<Handshakes>> {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    Ok(vec![
        of("P-256", &KeyPair::generate()?)?,
        of("RSA-2048", &rsa)?,
    ])
}

fn of(name: &'static str, key: &KeyPair) -> anyhow::Result<Handshakes> {
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(key)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    let client = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut with_tickets = server.clone();
    with_tickets.ticketer = Ticketer::new()?;
    with_tickets.send_tls13_tickets = 1;
    let (without, with) = (Arc::new(server), Arc::new(with_tickets));
    let returning = Arc::new(client.clone());
    let stranger = || {
        let mut stranger = client.clone();
        stranger.resumption = Resumption::in_memory_sessions(1);
        Arc::new(stranger)
    };
    shake_hands(&with, &returning)?;
    Ok(Handshakes {
        key: name,
        full: median(HandshakeKind::Full, || shake_hands(&without, &stranger()))?,
        unused_ticket: median(HandshakeKind::Full, || shake_hands(&with, &stranger()))?,
        resumed: median(HandshakeKind::Resumed, || shake_hands(&with, &returning))?,
    })
}

fn crypto() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    })
}

fn median(
    expected: HandshakeKind,
    mut handshake: impl FnMut() -> anyhow::Result<(Duration, Option<HandshakeKind>)>,
) -> anyhow::Result<Duration> {
    let mut times = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let (time, kind) = handshake()?;
        ensure!(kind == Some(expected), "{kind:?} instead of {expected:?}");
        times.push(time);
    }
    times.sort_unstable();
    Ok(times[COUNT / 2])
}

/// One handshake, up to the last octet that either end has to say about it: the server's CPU time, and of what kind it
/// was.
fn shake_hands(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> anyhow::Result<(Duration, Option<HandshakeKind>)> {
    let name = ServerName::try_from(NAME)?;
    let mut client = Connection::from(ClientConnection::new(Arc::clone(client), name)?);
    let began = cpu();
    let mut server = Connection::from(ServerConnection::new(Arc::clone(server))?);
    let mut used = cpu().saturating_sub(began);
    while client.wants_write() || server.wants_write() {
        let said = said(&mut client)?;
        let began = cpu();
        hear(&mut server, &said)?;
        let answer = self::said(&mut server)?;
        used += cpu().saturating_sub(began);
        hear(&mut client, &answer)?;
    }
    Ok((used, server.handshake_kind()))
}

fn said(end: &mut Connection) -> anyhow::Result<Vec<u8>> {
    let mut octets = Vec::new();
    while end.wants_write() {
        end.write_tls(&mut octets)?;
    }
    Ok(octets)
}

fn hear(end: &mut Connection, mut octets: &[u8]) -> anyhow::Result<()> {
    while !octets.is_empty() {
        end.read_tls(&mut octets)?;
        end.process_new_packets()?;
    }
    Ok(())
}

/// CPU time of this thread.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
