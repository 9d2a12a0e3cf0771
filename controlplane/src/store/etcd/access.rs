//! How a cluster is reached, and who we are to it: from files that may change.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use ferrypost_runtime::tls::CertificateFiles;
use tokio::time::timeout;

use super::failure::Failure;
use crate::store::{Outage, StoreError};

/// How often the client pings a silent connection: etcd takes more than one ping in five seconds
/// for an attack (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How long a ping may stay unanswered before the connection counts as dead.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Which cluster, and how to speak to it.
#[derive(Clone)]
pub struct EtcdConfig {
    /// The members' client addresses, as `http://host:port` or `https://host:port`. At least one.
    pub endpoints: Vec<String>,
    /// What all keys of the installation begin with. A final `/` is added if there is none, so that
    /// `mail` and `mail2` do not share keys.
    pub prefix: String,
    /// How to verify the members and show who we are. Needed for `https`.
    pub tls: Option<EtcdTls>,
    /// A user of etcd's own access control and its password.
    pub user: Option<(String, Password)>,
    /// How long one call may take. 5 seconds by default: longer than an election of a leader.
    pub call_limit: Duration,
    /// How long one range may take, which moves more. 30 seconds by default.
    pub load_limit: Duration,
}

/// Where a password lies.
#[derive(Clone)]
pub enum Password {
    /// Here.
    Text(String),
    /// In a file, with or without a line's end.
    File(PathBuf),
}

/// TLS to etcd, from PEM files.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The authorities that may have signed the members' certificates.
    pub ca: PathBuf,
    /// Our own certificate and its key, where the members demand one.
    pub identity: Option<CertificateFiles>,
    /// The name to expect in the members' certificates, if it is not that of the endpoint.
    pub server_name: Option<String>,
}

impl EtcdConfig {
    /// A cluster without TLS or access control, with the default limits.
    pub fn new(endpoints: Vec<String>, prefix: impl Into<String>) -> Self {
        Self {
            endpoints,
            prefix: prefix.into(),
            tls: None,
            user: None,
            call_limit: Duration::from_secs(5),
            load_limit: Duration::from_secs(30),
        }
    }

    /// The files that may change under us.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let Some(tls) = &self.tls {
            files.push(tls.ca.clone());
            files.extend(tls.identity.iter().flat_map(CertificateFiles::paths));
        }
        if let Some((_, Password::File(file))) = &self.user {
            files.push(file.clone());
        }
        files
    }

    /// A client, by what the files say now.
    pub(super) async fn client(&self) -> Result<Client, ConnectError> {
        let options = connect_options(self).await?;
        let connecting = Client::connect(&self.endpoints, Some(options));
        timeout(self.call_limit, connecting)
            .await
            .map_err(|_| ConnectError::Store(StoreError::Unavailable(Outage::Timeout)))?
            .map_err(connect_error)
    }
}

/// The password is not shown.
impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("call_limit", &self.call_limit)
            .field("load_limit", &self.load_limit)
            .finish()
    }
}

/// Why there is no store in etcd to work with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// An endpoint is not an address, or does not fit the TLS settings, or there is none; or the
    /// prefix is empty.
    #[error("the etcd endpoints, the prefix or the TLS settings are not usable")]
    Config,
    /// The cluster did not let us in. Only asked when there is a user, for its token.
    #[error(transparent)]
    Store(StoreError),
}

async fn connect_options(config: &EtcdConfig) -> Result<ConnectOptions, ConnectError> {
    let mut options = ConnectOptions::new()
        .with_require_leader(true)
        .with_auto_token_refresh(true)
        .with_connect_timeout(config.call_limit)
        .with_keep_alive(PING_INTERVAL, PING_LIMIT)
        .with_keep_alive_while_idle(true);
    if let Some((name, password)) = &config.user {
        options = options.with_user(name, password.read().await?);
    }
    if let Some(tls) = &config.tls {
        options = options.with_tls(tls_options(tls).await?);
    }
    Ok(options)
}

async fn tls_options(tls: &EtcdTls) -> Result<TlsOptions, ConnectError> {
    let mut options =
        TlsOptions::new().ca_certificate(Certificate::from_pem(read_file(&tls.ca).await?));
    if let Some(files) = &tls.identity {
        let certificate = read_file(&files.cert_file).await?;
        let key = read_file(&files.key_file).await?;
        options = options.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    Ok(options)
}

impl Password {
    async fn read(&self) -> Result<String, ConnectError> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(path) => path,
        };
        let text = String::from_utf8(read_file(path).await?).map_err(|_| ConnectError::File {
            path: path.clone(),
            error: io::ErrorKind::InvalidData.into(),
        })?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

async fn read_file(path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path)
        .await
        .map_err(|error| ConnectError::File {
            path: path.clone(),
            error,
        })
}

fn connect_error(error: Error) -> ConnectError {
    match error {
        Error::GRpcStatus(_) => ConnectError::Store(Failure::from(error).of_read()),
        _ => ConnectError::Config,
    }
}
