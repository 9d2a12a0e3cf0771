//! URLs in headers that must stay on the public host.

use http::Uri;

use crate::Refusal;
use crate::target::{Host, NormalPath};

/// What clients reach a server by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicOrigin {
    /// The host that the request was for.
    pub host: Host,
    /// Whether by `https`.
    pub secure: bool,
}

impl PublicOrigin {
    fn url(&self, path_and_query: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{path_and_query}", self.host)
    }

    /// Whether an absolute URL means this origin, or the same host without TLS: what a server says that is
    /// reached through a proxy and believes to be asked in clear.
    fn is_meant(&self, scheme: Option<&str>, host: &Host) -> bool {
        match scheme {
            Some("https") => self.secure && host.is_same(&self.host, true),
            Some("http") => {
                host.name() == self.host.name()
                    && (host.effective_port(false) == 80 || host.is_same(&self.host, self.secure))
            }
            _ => false,
        }
    }
}

/// What is to be said instead of a response's `Location` or `Content-Location`, or `None` where it may stay.
///
/// A relative reference stays, unless it names one of those without a scheme. An absolute one goes to the public origin if it names that without TLS, or one
/// of the destination's `own` addresses, which clients cannot reach or must not. Others stay: a login may well
/// lead to somebody else's server. So does what is no URL; a server that says such a thing is not made worse.
pub fn public_location(location: &str, public: &PublicOrigin, own: &[Host]) -> Option<String> {
    if location.starts_with("//") {
        // By whatever scheme the client has come.
        let scheme = if public.secure { "https" } else { "http" };
        return public_location(&format!("{scheme}:{location}"), public, own);
    }
    let rest = after_authority(location)?;
    let uri: Uri = location.parse().ok()?;
    let host = Host::parse(uri.authority()?.as_str().as_bytes()).ok()?;
    let scheme = uri.scheme_str()?;
    let is_own = own.iter().any(|own| host.is_same(own, scheme == "https"));
    let is_https_already = scheme == "https" && public.secure && host.is_same(&public.host, true);
    if is_https_already || !is_own && !public.is_meant(Some(scheme), &host) {
        return None;
    }
    let slash = if rest.starts_with('/') { "" } else { "/" };
    Some(public.url(&format!("{slash}{rest}")))
}

/// The same of a response's `Refresh` (`5; url=/inbox`), whose URL browsers follow as they follow a `Location`.
/// It is in no RFC; what is not in this form stays.
pub fn public_refresh(refresh: &str, public: &PublicOrigin, own: &[Host]) -> Option<String> {
    let (seconds, rest) = refresh.split_once([';', ','])?;
    let (word, url) = rest.split_once('=')?;
    if !word.trim().eq_ignore_ascii_case("url") {
        return None;
    }
    let url = url.trim().trim_matches(['"', '\'']);
    let url = public_location(url, public, own)?;
    Some(format!("{};url={url}", seconds.trim()))
}

/// What follows the authority of an absolute URL, byte for byte: a fragment is for the client.
fn after_authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(&rest[end..])
}

/// Where a COPY or MOVE puts a resource (`Destination`, RFC 4918 §10.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The path, by which rules and accounts must find the same end as the request's own.
    pub path: NormalPath,
    /// What the server is told, in the form in which the client said it.
    pub forwarded: String,
}

/// Reads a request's `Destination`: an absolute URL on the public origin, or a path on it.
///
/// # Errors
/// - [`Refusal::Elsewhere`]: it is on another server.
/// - [`Refusal::Target`], [`Refusal::Path`]: it is no such thing, or has a fragment; see [`NormalPath::parse`].
pub fn read_destination(text: &str, public: &PublicOrigin) -> Result<Destination, Refusal> {
    if text.contains('#') {
        return Err(Refusal::Target);
    }
    let uri: Uri = text.parse().map_err(|_| Refusal::Target)?;
    let is_absolute = uri.scheme().is_some();
    if let Some(authority) = uri.authority() {
        // A name alone, such as a tunnel is asked for by.
        if !is_absolute {
            return Err(Refusal::Target);
        }
        let host = Host::parse(authority.as_str().as_bytes()).map_err(|_| Refusal::Target)?;
        if !public.is_meant(uri.scheme_str(), &host) {
            return Err(Refusal::Elsewhere);
        }
    }
    // `//host/path` is a host to some and a path to others.
    if text.starts_with("//") {
        return Err(Refusal::Path);
    }
    let path = NormalPath::parse(uri.path())?;
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let local = format!("{path}{query}");
    let forwarded = if is_absolute {
        public.url(&local)
    } else {
        local
    };
    Ok(Destination { path, forwarded })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text.as_bytes()).unwrap()
    }

    fn public() -> PublicOrigin {
        PublicOrigin {
            host: host("mail.example.org"),
            secure: true,
        }
    }

    fn location(text: &str) -> Option<String> {
        public_location(
            text,
            &public(),
            &[host("10.0.0.5:8080"), host("old.internal")],
        )
    }

    #[test]
    fn a_redirect_stays_on_the_public_host() {
        for (text, expected) in [
            (
                "http://mail.example.org/dav/",
                "https://mail.example.org/dav/",
            ),
            (
                "http://mail.example.org:80/dav/",
                "https://mail.example.org/dav/",
            ),
            ("http://MAIL.example.org", "https://mail.example.org/"),
            (
                "http://10.0.0.5:8080/login?x=%2F#top",
                "https://mail.example.org/login?x=%2F#top",
            ),
            ("https://old.internal/a", "https://mail.example.org/a"),
            ("https://old.internal?a", "https://mail.example.org/?a"),
            ("//old.internal/a", "https://mail.example.org/a"),
            ("//10.0.0.5:8080/a", "https://mail.example.org/a"),
        ] {
            assert_eq!(location(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_redirect_that_is_public_relative_or_somebody_else_s_is_not_touched() {
        for text in [
            "/dav/",
            "dav",
            "//evil.example/",
            "//mail.example.org/a",
            "https://mail.example.org/a",
            "https://mail.example.org:443/a",
            "https://mail.example.org:8443/admin",
            "https://login.example.net/authorize?x=y",
            "imap://mail.example.org/",
            "not a url",
            "",
        ] {
            assert_eq!(location(text), None, "{text}");
        }
    }

    #[test]
    fn a_refresh_stays_on_the_public_host_too() {
        let refresh = |text| public_refresh(text, &public(), &[host("old.internal")]);
        let expected = Some("5;url=https://mail.example.org/a=b".to_owned());
        for text in [
            "5; URL=http://old.internal/a=b",
            "5,url=\"http://mail.example.org/a=b\"",
        ] {
            assert_eq!(refresh(text), expected, "{text}");
        }
        for text in [
            "5",
            "5; url=/a",
            "5; url=https://evil.example/",
            "5; at=http://old.internal/",
            "",
        ] {
            assert_eq!(refresh(text), None, "{text}");
        }
    }

    #[test]
    fn a_destination_is_normalised_and_keeps_its_form() {
        let forwarded = |text: &str| read_destination(text, &public()).map(|it| it.forwarded);
        for (text, expected) in [
            (
                "https://mail.example.org/dav/a/../b",
                "https://mail.example.org/dav/b",
            ),
            (
                "https://Mail.Example.org:443/dav/b?x",
                "https://mail.example.org/dav/b?x",
            ),
            (
                "http://mail.example.org/dav/b",
                "https://mail.example.org/dav/b",
            ),
            ("/dav//%62", "/dav/b"),
        ] {
            assert_eq!(forwarded(text).as_deref(), Ok(expected), "{text}");
        }
        let on_a_port = PublicOrigin {
            host: host("mail.example.org:8443"),
            secure: true,
        };
        let with_port = "https://mail.example.org:8443/a";
        assert_eq!(
            read_destination(with_port, &on_a_port).unwrap().forwarded,
            with_port
        );
    }

    #[test]
    fn a_destination_on_another_server_is_refused() {
        let refused = |text: &str| read_destination(text, &public()).unwrap_err();
        for text in [
            "https://evil.example/a",
            "https://mail.example.org:8443/a",
            "ftp://mail.example.org/a",
        ] {
            assert_eq!(refused(text), Refusal::Elsewhere, "{text}");
        }
        for text in [
            "https://u@mail.example.org/a",
            "a/b",
            "",
            "/a#b",
            "mail.example.org",
        ] {
            assert_eq!(refused(text), Refusal::Target, "{text}");
        }
        assert_eq!(refused("//evil.example/a"), Refusal::Path);
        assert_eq!(refused("/../a"), Refusal::Path);
    }
}
