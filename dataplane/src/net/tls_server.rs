//! TLS as clients and operators see it: certificates by server name, reloaded when their files change.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use ferrypost_runtime::{
    reload::Reloading,
    tls::{CertificateFiles, FileError, crypto},
};
use ferrypost_wire::TlsFacts;
use rustls::{
    ServerConfig, SignatureAlgorithm,
    crypto::aws_lc_rs::Ticketer,
    pki_types::ServerName,
    server::{
        ClientHello, NoServerSessionStorage, ParsedCertificate, ProducesTickets,
        ResolvesServerCert, UnbufferedServerConnection,
    },
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{
    TcpStream,
    leg::{Encrypted, InjectedInput, Leg, Plaintext},
    socket::Socket,
    tls_stream::TlsStream,
    transport::Tls,
};

/// Tickets that a connection is given where there are any (TLS 1.3). A client uses each once and is given another
/// by the connection that it resumed, so one keeps as many going as it has connections.
const TICKETS: usize = 1;

/// The server's end of TLS on a listener.
#[derive(Clone)]
pub struct ServerTls {
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
    too_old: Arc<AtomicU64>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Something stood where the handshake should have begun.
    #[error(transparent)]
    Injected(#[from] InjectedInput),
    /// The client has no TLS version, cipher suite or key exchange that we have.
    #[error("no TLS in common with the client: {0}")]
    TooOld(io::Error),
    /// TLS or the connection failed.
    #[error("the TLS handshake failed: {0}")]
    Failed(#[from] io::Error),
}

/// What a handshake yielded.
pub struct Secured {
    /// The encrypted leg.
    pub leg: Leg<Encrypted>,
    /// What was agreed.
    pub facts: TlsFacts,
    /// Which of our protocols was agreed on, if the client named any (ALPN, RFC 7301).
    pub protocol: Option<Vec<u8>>,
}

impl ServerTls {
    /// Reads the certificates. `protocol` is the ALPN name: a client that offers a list without it is
    /// refused, so that a certificate which also serves other protocols cannot be used to confuse them
    /// (ALPACA, CVE-2021-3618); one that offers none is served. For a protocol that has no such name clients
    /// make up what they will, and only a list with another protocol's name is refused.
    ///
    /// # Errors
    /// [`FileError`] for the first file that cannot be used.
    pub fn new(files: &[CertificateFiles], protocol: Option<&[u8]>) -> Result<Self, FileError> {
        Self::offering(files, protocol.as_slice())
    }

    /// The same of several protocols, the one that we like best first.
    ///
    /// # Errors
    /// [`FileError`] for the first file that cannot be used.
    pub fn offering(files: &[CertificateFiles], protocols: &[&[u8]]) -> Result<Self, FileError> {
        let certificates = Arc::new(Certificates::load(files)?);
        let mut config = ServerConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Certificates>::clone(&certificates));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // Our order has the cheapest suite of equal strength first.
        config.ignore_client_order = true;
        // The greeting goes out with the handshake's last flight.
        config.send_half_rtt_data = true;
        // Whether clients may resume is decided with the certificates in force; see `tickets`. Never by a list
        // of sessions that we keep, and never with 0-RTT data, which no mail protocol has an answer to.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Self {
            certificates,
            config: Arc::new(config),
            too_old: Arc::default(),
        })
    }

    /// How many clients were turned away for want of a TLS version, cipher suite or key exchange in common.
    pub fn too_old(&self) -> u64 {
        self.too_old.load(Ordering::Relaxed)
    }

    /// Shakes hands with a client. `greeting` is sent as early as the protocol allows.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed.
    pub async fn accept(
        &self,
        leg: Leg<Plaintext>,
        greeting: &[u8],
    ) -> Result<Secured, HandshakeError> {
        let (socket, buffer) = leg.into_handshake()?;
        let handshake = self.shake_hands(socket, greeting).await;
        let (stream, server_name) = handshake.map_err(|error| self.failed(error))?;
        let facts = facts(stream.common(), server_name);
        let protocol = stream.common().alpn_protocol().map(<[u8]>::to_vec);
        Ok(Secured {
            leg: Leg::encrypted(Tls::Server(stream), buffer),
            facts,
            protocol,
        })
    }

    /// Shakes hands with a client of a server that is no leg (the admin endpoint).
    ///
    /// # Errors
    /// TLS or the connection failed; the connection is closed.
    pub async fn accept_stream(
        &self,
        stream: TcpStream,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let (stream, _) = self.shake_hands(stream.into(), &[]).await?;
        Ok(stream)
    }

    /// A connection under TLS, and the name that its client asked for.
    async fn shake_hands(
        &self,
        socket: Socket,
        greeting: &[u8],
    ) -> io::Result<(Box<TlsStream<UnbufferedServerConnection>>, Option<String>)> {
        let asked = Arc::new(AskedName {
            certificates: Arc::clone(&self.certificates),
            refuses_named: self.config.alpn_protocols.is_empty(),
            name: OnceLock::new(),
        });
        // A copy for this one connection, a handful of pointers: nothing else tells us the name.
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::<AskedName>::clone(&asked);
        if let Some(tickets) = &self.certificates.current().tickets {
            config.ticketer = Arc::clone(tickets);
            config.send_tls13_tickets = TICKETS;
        }
        let session = UnbufferedServerConnection::new(Arc::new(config))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let stream = TlsStream::handshake(socket, session, greeting).await?;
        Ok((stream, asked.name.get().cloned()))
    }

    fn failed(&self, error: io::Error) -> HandshakeError {
        if !is_for_want_of_anything_in_common(&error) {
            return error.into();
        }
        self.too_old.fetch_add(1, Ordering::Relaxed);
        HandshakeError::TooOld(error)
    }

    /// The certificates in force, the one for everybody else first.
    pub fn shown(&self) -> Vec<Shown> {
        self.certificates.current().shown.clone()
    }

    /// Takes the certificates over whenever their files have changed. Never returns.
    pub async fn keep_fresh(&self) {
        Arc::clone(&self.certificates.0).keep_fresh().await;
    }
}

pub(super) fn facts(session: &rustls::CommonState, server_name: Option<String>) -> TlsFacts {
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let cipher = session
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown");
    TlsFacts {
        version,
        cipher,
        server_name,
    }
}

/// A certificate as people know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The first name that it is for. Empty: it names none.
    pub name: String,
    /// When it ends, in seconds since 1970. `None`: that cannot be read.
    pub end: Option<i64>,
}

impl Shown {
    fn of(key: &CertifiedKey) -> Self {
        let read = key.cert.first().map(|it| X509Certificate::from_der(it));
        let read = read
            .and_then(Result::ok)
            .map(|(_, certificate)| certificate);
        Self {
            name: read.as_ref().and_then(first_name).unwrap_or_default(),
            end: read.map(|it| it.validity().not_after.timestamp()),
        }
    }
}

fn first_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut names = names.value.general_names.iter();
    names.find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}

/// Certificates in force, and where they came from.
#[derive(Debug)]
struct Certificates(Arc<Reloading<InForce, FileError>>);

/// What clients are shown, and what they may come back with.
struct InForce {
    keys: Vec<Arc<CertifiedKey>>,
    /// The same, to be told.
    shown: Vec<Shown>,
    /// They go with the certificates: who was shown one that is no longer in force is shown the new one.
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Certificates {
    fn load(files: &[CertificateFiles]) -> Result<Self, FileError> {
        let watched = files.iter().flat_map(CertificateFiles::paths).collect();
        let files = files.to_vec();
        let reloading = Reloading::new(watched, move || read_all(&files))?;
        Ok(Self(Arc::new(reloading)))
    }

    fn current(&self) -> Arc<InForce> {
        self.0.current()
    }

    /// The first certificate that is valid for the name; the first of all for a client that names
    /// nothing that fits. It will refuse the connection itself if it minds.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let keys = &self.current().keys;
        let fitting = match (&**keys, name) {
            ([_, _, ..], Some(name)) => keys.iter().find(|key| is_valid_for(key, name)),
            _ => None,
        };
        fitting.or(keys.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

/// Chooses a certificate for one connection and remembers the name that its client asked for.
#[derive(Debug)]
struct AskedName {
    certificates: Arc<Certificates>,
    /// Whether a client that names a protocol which has a name is at the wrong port.
    refuses_named: bool,
    name: OnceLock<String>,
}

impl ResolvesServerCert for AskedName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            // A second hello, after a retry, must name the same.
            _ = self.name.set(name.to_owned());
        }
        if self.refuses_named && names_a_protocol(&hello) {
            return None;
        }
        self.certificates.choose(hello.server_name())
    }
}

/// Whether the client's list names a protocol that mail servers and web servers speak.
fn names_a_protocol(hello: &ClientHello<'_>) -> bool {
    const NAMED: [&[u8]; 6] = [b"imap", b"pop3", b"managesieve", b"http/1.1", b"h2", b"h3"];
    let mut list = hello.alpn().into_iter().flatten();
    list.any(|name| NAMED.contains(&name))
}

fn is_for_want_of_anything_in_common(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(tls, Some(rustls::Error::PeerIncompatible(_)))
}

fn is_valid_for(key: &CertifiedKey, name: &str) -> bool {
    let parsed = key.cert.first().map(ParsedCertificate::try_from);
    match (parsed, ServerName::try_from(name)) {
        (Some(Ok(parsed)), Ok(name)) => rustls::client::verify_server_name(&parsed, &name).is_ok(),
        _ => false,
    }
}

fn read_all(files: &[CertificateFiles]) -> Result<InForce, FileError> {
    let keys = files.iter().map(|pair| pair.read().map(Arc::new));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    Ok(InForce {
        tickets: tickets(&keys),
        shown: keys.iter().map(|key| Shown::of(key)).collect(),
        keys,
    })
}

/// Tickets pay where a signature is dear. With RSA-2048 a resumed handshake saves most of what a full one costs; with
/// P-256 it saves little, and the tickets of all the clients that never come back cost more (`docs/decisions/0015`).
fn tickets(keys: &[Arc<CertifiedKey>]) -> Option<Arc<dyn ProducesTickets>> {
    let dear = |key: &Arc<CertifiedKey>| key.key.algorithm() == SignatureAlgorithm::RSA;
    if !keys.iter().any(dear) {
        return None;
    }
    // Only a system without random numbers refuses; without tickets everything works.
    Ticketer::new().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
    use std::path::Path;

    use rustls::{
        ClientConfig, HandshakeKind, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject as _},
    };
    use tokio::io::AsyncReadExt as _;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::net;

    fn write(directory: &Path, stem: &str, name: &str) -> CertificateFiles {
        write_with(&KeyPair::generate().unwrap(), directory, stem, name)
    }

    fn write_with(key: &KeyPair, directory: &Path, stem: &str, name: &str) -> CertificateFiles {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let files = CertificateFiles {
            cert_file: directory.join(format!("{stem}.pem")),
            key_file: directory.join(format!("{stem}.key")),
        };
        let certificate = params.self_signed(key).unwrap();
        std::fs::write(&files.cert_file, certificate.pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn the_certificate_is_chosen_by_name_and_the_first_serves_everybody_else() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            write(directory.path(), "one", "mail.example.org"),
            write(directory.path(), "two", "*.example.net"),
        ];
        let certificates = Certificates::load(&files).unwrap();
        let all = certificates.current();
        let chosen = |name: Option<&str>| {
            let key = certificates.choose(name).unwrap();
            let position = all.keys.iter().position(|one| Arc::ptr_eq(one, &key));
            position.unwrap()
        };
        assert_eq!(chosen(Some("mail.example.org")), 0);
        assert_eq!(chosen(Some("mail.example.net")), 1);
        assert_eq!(chosen(Some("elsewhere.example")), 0);
        assert_eq!(chosen(Some("not a name")), 0);
        assert_eq!(chosen(None), 0);
    }

    #[test]
    fn what_is_shown_is_told_with_its_end_and_anew_when_it_is_renewed() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            write(directory.path(), "one", "mail.example.org"),
            write(directory.path(), "two", "*.example.net"),
        ];
        let tls = ServerTls::new(&files, Some(b"imap")).unwrap();
        let names: Vec<_> = tls.shown().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["mail.example.org", "*.example.net"]);

        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["new.example.org".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files[0].cert_file, certificate.pem()).unwrap();
        std::fs::write(&files[0].key_file, key.serialize_pem()).unwrap();
        assert!(tls.certificates.0.reload());
        let name = "new.example.org".to_owned();
        let end = Some(1_927_843_200);
        assert_eq!(tls.shown()[0], Shown { name, end });
    }

    #[test]
    fn changed_files_are_taken_over_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = write(directory.path(), "one", "mail.example.org");
        let certificates = Certificates::load(std::slice::from_ref(&files)).unwrap();
        assert!(!certificates.0.reload());

        write(directory.path(), "one", "mail.example.org");
        assert!(certificates.0.reload());
        let in_force = certificates.current();

        // A renewal that is half done: the new certificate beside the old key.
        let other = write(directory.path(), "other", "mail.example.org");
        std::fs::copy(&other.cert_file, &files.cert_file).unwrap();
        assert!(!certificates.0.reload());
        assert!(Arc::ptr_eq(&certificates.current(), &in_force));
        std::fs::copy(&other.key_file, &files.key_file).unwrap();
        assert!(certificates.0.reload());
        let renewed = &certificates.current().keys[0];
        assert_eq!(renewed.cert, other.read().unwrap().cert);
    }

    #[test]
    fn files_that_hold_no_certificate_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let files = write(directory.path(), "one", "mail.example.org");
        std::fs::write(&files.cert_file, "nothing").unwrap();
        let error = ServerTls::new(std::slice::from_ref(&files), Some(b"imap")).err();
        assert!(error.unwrap().to_string().contains("one.pem"));
    }

    /// Trusts what it is shown, and remembers what it is given for later.
    fn returning_client(files: &CertificateFiles) -> TlsConnector {
        client_that_names(files, &[])
    }

    fn client_that_names(files: &CertificateFiles, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(&files.cert_file).unwrap();
        roots.add(certificate).unwrap();
        let mut config = ClientConfig::builder_with_provider(crypto())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let names = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = names.collect();
        TlsConnector::from(Arc::new(config))
    }

    #[tokio::test]
    async fn where_no_name_is_registered_only_another_protocols_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = write(directory.path(), "one", "mail.example.org");
        let tls = ServerTls::new(std::slice::from_ref(&files), None).unwrap();
        for (list, served) in [
            (&[][..], true),
            (&["smtp"], true),
            (&["made-up"], true),
            (&["h2", "http/1.1"], false),
            (&["made-up", "imap"], false),
        ] {
            let client = client_that_names(&files, list);
            let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = async {
                let stream = net::connect(address).await.unwrap();
                let name = "mail.example.org".try_into().unwrap();
                client.connect(name, stream).await.is_ok()
            };
            let server = async {
                let (stream, _) = net::accept(&listener).await.unwrap();
                tls.accept(Leg::new(stream, 100), b"").await.is_ok()
            };
            assert_eq!(tokio::join!(client, server), (served, served), "{list:?}");
        }
    }

    /// How a client that comes again shakes hands, and the name that we know it asked for.
    async fn handshake(tls: &ServerTls, client: &TlsConnector) -> (HandshakeKind, Option<String>) {
        let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let name = "mail.example.org".try_into().unwrap();
        let client = async {
            let stream = net::connect(address).await.unwrap();
            let mut stream = client.connect(name, stream).await.unwrap();
            // What comes with the greeting is read with it: the tickets.
            stream.read_exact(&mut [0; 4]).await.unwrap();
            stream
        };
        let server = async {
            let (stream, _) = net::accept(&listener).await.unwrap();
            let mut secured = tls.accept(Leg::new(stream, 100), b"").await.unwrap();
            secured.leg.write_public(b"* OK").await.unwrap();
            secured.facts
        };
        let (client, facts) = tokio::join!(client, server);
        let kind = client.get_ref().1.handshake_kind().unwrap();
        (kind, facts.server_name)
    }

    #[tokio::test]
    async fn clients_may_resume_where_a_signature_is_dear_and_not_where_it_is_cheap() {
        let directory = tempfile::tempdir().unwrap();
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let p256 = KeyPair::generate().unwrap();
        for (key, expected) in [(&rsa, HandshakeKind::Resumed), (&p256, HandshakeKind::Full)] {
            let files = write_with(key, directory.path(), "one", "mail.example.org");
            let tls = ServerTls::new(std::slice::from_ref(&files), Some(b"imap")).unwrap();
            let client = returning_client(&files);
            let (first, _) = handshake(&tls, &client).await;
            assert_eq!(first, HandshakeKind::Full);
            for _ in 0..2 {
                let (again, name) = handshake(&tls, &client).await;
                assert_eq!(again, expected);
                assert_eq!(name.as_deref(), Some("mail.example.org"));
            }
        }
    }

    #[tokio::test]
    async fn what_came_with_a_certificate_that_was_replaced_resumes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let files = write_with(&key, directory.path(), "one", "mail.example.org");
        let tls = ServerTls::new(std::slice::from_ref(&files), Some(b"imap")).unwrap();
        let client = returning_client(&files);
        handshake(&tls, &client).await;
        let (resumed, _) = handshake(&tls, &client).await;
        assert_eq!(resumed, HandshakeKind::Resumed);
        // The file is renewed; that it holds the same again lets the client go on trusting it.
        let renewed = std::fs::read_to_string(&files.cert_file).unwrap() + "\n";
        std::fs::write(&files.cert_file, renewed).unwrap();
        assert!(tls.certificates.0.reload());
        let (full, _) = handshake(&tls, &client).await;
        assert_eq!(full, HandshakeKind::Full);
    }
}
