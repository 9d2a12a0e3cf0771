//! What a JMAP session resource has to say, if its clients are to stay with us.

use serde::Deserialize;

use crate::target::Host;

/// Largest session resource that is looked at, in octets.
pub const MAX_SESSION: usize = 256 * 1024;

/// Why a session resource (RFC 8620 §2) leads its clients elsewhere. Bodies are not ours to rewrite: this is
/// what a probe asserts, so that an operator sets the server's public URL before anybody is sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPublic {
    /// It is not a session resource.
    #[error("the session resource is too long, or is not one")]
    Malformed,
    /// A URL that clients follow is not on the public host, or not by TLS.
    #[error(
        "{field} of the session resource is not on the public host: set the server's public URL to https://{public}"
    )]
    Url {
        /// Which member.
        field: &'static str,
        /// The host on which it should be.
        public: String,
    },
}

/// Checks that every URL of a session resource is on the public host, by TLS: `apiUrl`, `downloadUrl`,
/// `uploadUrl`, `eventSourceUrl` (RFC 8620 §2) and the `url` of WebSocket (RFC 8887 §3). A relative one is.
///
/// # Errors
/// [`NotPublic`], with the first URL that is not.
pub fn check_session(document: &[u8], public: &Host) -> Result<(), NotPublic> {
    if document.len() > MAX_SESSION {
        return Err(NotPublic::Malformed);
    }
    let session: Session = serde_json::from_slice(document).map_err(|_| NotPublic::Malformed)?;
    let socket = session.capabilities.web_socket.map(|it| it.url);
    for (field, url, scheme) in [
        ("apiUrl", Some(session.api_url), "https"),
        ("downloadUrl", Some(session.download_url), "https"),
        ("uploadUrl", Some(session.upload_url), "https"),
        ("eventSourceUrl", Some(session.event_source_url), "https"),
        ("the WebSocket's url", socket, "wss"),
    ] {
        if url.is_some_and(|url| !is_public(&url, scheme, public)) {
            let public = public.to_string();
            return Err(NotPublic::Url { field, public });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    api_url: String,
    download_url: String,
    upload_url: String,
    event_source_url: String,
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Deserialize, Default)]
struct Capabilities {
    #[serde(rename = "urn:ietf:params:jmap:websocket")]
    web_socket: Option<WebSocket>,
}

#[derive(Deserialize)]
struct WebSocket {
    url: String,
}

/// The URLs are templates (RFC 6570), so that only what stands before the path is read.
fn is_public(url: &str, scheme: &str, public: &Host) -> bool {
    let Some((said, rest)) = url.split_once("://") else {
        return url.starts_with('/') && !url.starts_with("//");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = Host::parse(authority.as_bytes());
    said.eq_ignore_ascii_case(scheme) && host.is_ok_and(|host| host.is_same(public, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str) -> Result<(), NotPublic> {
        let session = r#"{"capabilities": {"urn:ietf:params:jmap:core": {"maxSizeUpload": 1},
            "urn:ietf:params:jmap:websocket": {"url": "wss://mail.example.org/jmap/ws", "supportsPush": true}},
            "username": "alice", "apiUrl": "https://mail.example.org/jmap/",
            "downloadUrl": "https://MAIL.example.org:443/d/{accountId}/{blobId}/{name}?accept={type}",
            "uploadUrl": "/jmap/upload/{accountId}/", "eventSourceUrl": "https://mail.example.org/es?types={types}"}"#;
        check_session(
            session.replace(from, to).as_bytes(),
            &Host::parse(b"mail.example.org").unwrap(),
        )
    }

    #[test]
    fn a_session_on_the_public_host_is_good() {
        assert_eq!(check("", ""), Ok(()));
    }

    #[test]
    fn a_url_elsewhere_is_named() {
        for (from, to, named) in [
            (
                "https://mail.example.org/jmap/",
                "https://10.0.0.5/jmap/",
                "apiUrl",
            ),
            (
                "https://mail.example.org/jmap/",
                "http://mail.example.org/jmap/",
                "apiUrl",
            ),
            (
                "MAIL.example.org:443",
                "mail.example.org:8443",
                "downloadUrl",
            ),
            ("/jmap/upload", "//evil.example/upload", "uploadUrl"),
            (
                "https://mail.example.org/es",
                "https://mail.example.org@evil.example/es",
                "eventSourceUrl",
            ),
            ("wss://mail", "ws://mail", "the WebSocket's url"),
        ] {
            let wrong = check(from, to).unwrap_err();
            assert!(
                matches!(wrong, NotPublic::Url { field, .. } if field == named),
                "{to}: {wrong}"
            );
        }
        assert_eq!(check("apiUrl", "apiurl"), Err(NotPublic::Malformed));
    }
}
