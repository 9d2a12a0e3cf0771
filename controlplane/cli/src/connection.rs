//! Where the control plane is and who asks, from flags and the environment.

use std::{ffi::OsString, path::PathBuf};

use tonic::transport::Uri;

use crate::{args::ConnectionFlags, failure::Failure};

/// Where the control plane of the quick start listens.
const USUAL: &str = "http://127.0.0.1:9080";

/// Looks up an environment variable.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A connection as it is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Replicas, in the order in which they are tried. At least one.
    pub(crate) endpoints: Vec<Uri>,
    pub(crate) token_file: Option<PathBuf>,
    /// Who vouches for the control plane; whom this machine believes, where there is none.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

impl Connection {
    /// What flags say, and where they say nothing the environment.
    ///
    /// # Errors
    /// When it could not be made as it is meant: a secret would cross the network in clear.
    pub(crate) fn new(
        flags: &ConnectionFlags,
        environment: Environment<'_>,
    ) -> Result<Self, Failure> {
        let file = |flag: &Option<PathBuf>, name: &str| {
            let given = flag.clone();
            given.or_else(|| {
                environment(name)
                    .filter(|it| !it.is_empty())
                    .map(Into::into)
            })
        };
        let identity = match (
            file(&flags.cert_file, "FERRYPOST_CERT_FILE"),
            file(&flags.key_file, "FERRYPOST_KEY_FILE"),
        ) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "a client certificate needs both --cert-file and --key-file",
                ));
            }
        };
        let connection = Self {
            endpoints: endpoints(flags, environment)?,
            token_file: file(&flags.token_file, "FERRYPOST_TOKEN_FILE"),
            ca_file: file(&flags.ca_file, "FERRYPOST_CA_FILE"),
            identity,
        };
        connection.check()?;
        Ok(connection)
    }

    /// Whether any endpoint is under TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure().next().is_some()
    }

    /// Endpoints under TLS.
    pub(crate) fn secure(&self) -> impl Iterator<Item = &Uri> {
        let endpoints = self.endpoints.iter();
        endpoints.filter(|endpoint| endpoint.scheme_str() == Some("https"))
    }

    /// The others.
    pub(crate) fn in_clear(&self) -> impl Iterator<Item = &Uri> {
        let endpoints = self.endpoints.iter();
        endpoints.filter(|endpoint| endpoint.scheme_str() != Some("https"))
    }

    fn check(&self) -> Result<(), Failure> {
        for endpoint in &self.endpoints {
            let secure = endpoint.scheme_str() == Some("https");
            if !secure && self.identity.is_some() {
                return Err(Failure::usage(format!(
                    "a client certificate can only be shown to an https endpoint, not to {endpoint}"
                )));
            }
            if !secure && self.token_file.is_some() && !is_loopback(endpoint) {
                return Err(Failure::usage(format!(
                    "the token would cross the network in clear to {endpoint}: use https, or a tunnel to loopback"
                )));
            }
        }
        Ok(())
    }
}

fn endpoints(flags: &ConnectionFlags, environment: Environment<'_>) -> Result<Vec<Uri>, Failure> {
    let mut texts = flags.endpoint.clone();
    if texts.is_empty() {
        let told = environment("FERRYPOST_ENDPOINT").unwrap_or_default();
        let told = told.to_string_lossy();
        let told = told.split(',').map(str::trim).filter(|it| !it.is_empty());
        texts.extend(told.map(str::to_owned));
    }
    if texts.is_empty() {
        texts.push(USUAL.to_owned());
    }
    texts.iter().map(|text| endpoint(text)).collect()
}

fn endpoint(text: &str) -> Result<Uri, Failure> {
    let read: Option<Uri> = text.parse().ok();
    let names_somebody = |uri: &Uri| uri.authority().is_some_and(|it| it.as_str().contains('@'));
    if text.contains('@') && read.as_ref().is_none_or(names_somebody) {
        // What stands there may be a password.
        return Err(Failure::usage(
            "an endpoint has no user in it: say who asks by --token-file, or by --cert-file and --key-file",
        ));
    }
    let fits = |uri: &Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.port_u16().is_some()
            && matches!(uri.path(), "" | "/")
    };
    read.filter(fits).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is no endpoint: give http://HOST:PORT or https://HOST:PORT"
        ))
    })
}

/// Whether what is said to it stays on this machine, whatever a name server says.
fn is_loopback(endpoint: &Uri) -> bool {
    let host = endpoint.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(flags: &ConnectionFlags, told: &[(&str, &str)]) -> Result<Connection, String> {
        let environment = |name: &str| {
            let found = told.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Connection::new(flags, &environment).map_err(|failure| failure.to_string())
    }

    fn flags(endpoint: &str) -> ConnectionFlags {
        ConnectionFlags {
            endpoint: vec![endpoint.to_owned()],
            ..ConnectionFlags::default()
        }
    }

    #[test]
    fn flags_go_before_the_environment() {
        let told = [
            (
                "FERRYPOST_ENDPOINT",
                "http://127.0.0.1:1, http://127.0.0.1:2",
            ),
            ("FERRYPOST_TOKEN_FILE", "told"),
        ];
        let by_environment = with(&ConnectionFlags::default(), &told).unwrap();
        assert_eq!(by_environment.endpoints.len(), 2);
        assert_eq!(by_environment.token_file, Some("told".into()));
        let by_flags = ConnectionFlags {
            token_file: Some("given".into()),
            ..flags("http://[::1]:3")
        };
        let by_flags = with(&by_flags, &told).unwrap();
        assert_eq!(by_flags.endpoints, ["http://[::1]:3"]);
        assert_eq!(by_flags.token_file, Some("given".into()));
        let by_default = with(&ConnectionFlags::default(), &[]).unwrap();
        assert_eq!(by_default.endpoints, [USUAL]);
    }

    #[test]
    fn a_user_in_an_endpoint_is_refused_and_not_repeated() {
        for endpoint in [
            "http://u:secret@127.0.0.1:1",
            "u:secret@127.0.0.1:1",
            "https://secret@cp.example.org:9080",
        ] {
            let refused = with(&flags(endpoint), &[]).unwrap_err();
            assert!(refused.contains("--token-file"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_token_never_crosses_a_network_in_clear() {
        let token = [("FERRYPOST_TOKEN_FILE", "token")];
        for elsewhere in ["http://cp.example.org:9080", "http://192.0.2.1:9080"] {
            let refused = with(&flags(elsewhere), &token).unwrap_err();
            assert!(refused.contains("in clear"), "{refused}");
            assert!(with(&flags(elsewhere), &[]).is_ok());
        }
        for here in ["http://localhost:1", "http://127.8.0.1:1", "http://[::1]:1"] {
            assert!(with(&flags(here), &token).is_ok(), "{here}");
        }
    }

    #[test]
    fn a_client_certificate_is_whole_and_for_https() {
        let secure = flags("https://cp.example.org:9080");
        assert_eq!(with(&secure, &[]).unwrap().ca_file, None);
        let certificate = [
            ("FERRYPOST_CA_FILE", "ca"),
            ("FERRYPOST_CERT_FILE", "cert"),
            ("FERRYPOST_KEY_FILE", "key"),
        ];
        assert!(with(&secure, &certificate).is_ok());
        assert!(with(&secure, &certificate[..2]).is_err());
        assert!(with(&flags("http://127.0.0.1:1"), &certificate).is_err());
    }

    #[test]
    fn what_is_no_endpoint_is_said() {
        for wrong in [
            "127.0.0.1:9080",
            "http://127.0.0.1",
            "ftp://h:1",
            "http://h:1/path",
            "",
        ] {
            assert!(with(&flags(wrong), &[]).is_err(), "{wrong}");
        }
    }
}
