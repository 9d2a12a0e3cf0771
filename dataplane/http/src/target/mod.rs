//! What a request is for: a host and a path, in one form each.

mod host;
mod path;

use http::{HeaderMap, Method, Uri, Version, header::HOST};

pub use host::Host;
pub(crate) use path::hex;
pub use path::{MAX_PATH, NormalPath, Segments};

use crate::Refusal;

/// Longest query in octets: authorization requests carry whole tokens in it.
pub const MAX_QUERY: usize = 16 * 1024;

/// Longest method in octets: twice the longest that is registered.
pub const MAX_METHOD: usize = 36;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host, from the request line, `:authority` or `Host`.
    pub host: Host,
    /// What of it.
    pub resource: Resource,
}

/// What a request is for on its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A path, and a query exactly as it came.
    Path(NormalPath, Option<String>),
    /// The server as a whole: `OPTIONS *` (RFC 9110 §9.3.7). It is no account's and answered here, without a
    /// rule.
    Server,
}

impl Target {
    /// Reads the target of a request in whatever form it came (RFC 9112 §3.2, RFC 9113 §8.3.1), on a listener
    /// that clients reach by `https` (`secure`) or by `http`. With `is_extended` the request is an extended
    /// CONNECT (RFC 8441), whose target is a path like any other's.
    ///
    /// # Errors
    /// - [`Refusal::Method`]: TRACE, CONNECT to somewhere else, or longer than any method is.
    /// - [`Refusal::Host`]: no host, several, or one that is none.
    /// - [`Refusal::HostMismatch`]: `Host` and the target name different ones. RFC 9112 §3.2.2 would have the
    ///   first ignored; nobody honest says two, and the next server might ignore the other.
    /// - [`Refusal::Target`], [`Refusal::Path`], [`Refusal::TargetTooLong`].
    pub fn read(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        version: Version,
        secure: bool,
        is_extended: bool,
    ) -> Result<Self, Refusal> {
        let is_too_long = method.as_str().len() > MAX_METHOD;
        if method == Method::TRACE || is_too_long || (method == Method::CONNECT) != is_extended {
            return Err(Refusal::Method);
        }
        let resource = resource(method, uri)?;
        if let Some(scheme) = uri.scheme_str()
            && !matches!(scheme, "http" | "https")
        {
            return Err(Refusal::Target);
        }
        let authority = uri
            .authority()
            .map(|it| Host::parse(it.as_str().as_bytes()))
            .transpose()?;
        let host = agreed(authority, said(headers, version)?, secure)?;
        Ok(Self { host, resource })
    }

    /// The target as it is sent on, in origin form or asterisk form.
    pub fn forwarded(&self) -> String {
        match &self.resource {
            Resource::Server => "*".to_owned(),
            Resource::Path(path, None) => path.to_string(),
            Resource::Path(path, Some(query)) => format!("{path}?{query}"),
        }
    }
}

fn resource(method: &Method, uri: &Uri) -> Result<Resource, Refusal> {
    // Authority form: a name without a path.
    let path = match uri.path_and_query() {
        Some(path) if !uri.path().is_empty() => path,
        _ => return Err(Refusal::Target),
    };
    if path.as_str() == "*" {
        return if method == Method::OPTIONS {
            Ok(Resource::Server)
        } else {
            Err(Refusal::Target)
        };
    }
    let query = path.query().map(checked_query).transpose()?;
    Ok(Resource::Path(NormalPath::parse(path.path())?, query))
}

/// A query is the server's to read and stays as it is, if it can end no line.
fn checked_query(query: &str) -> Result<String, Refusal> {
    if query.len() > MAX_QUERY {
        return Err(Refusal::TargetTooLong);
    }
    let is_fit = query
        .bytes()
        .all(|octet| octet > b' ' && octet != 0x7f && octet != b'#');
    is_fit.then(|| query.to_owned()).ok_or(Refusal::Target)
}

/// The host that the header says. HTTP/1.1 needs it exactly once even beside an absolute form (RFC 9112 §3.2).
fn said(headers: &HeaderMap, version: Version) -> Result<Option<Host>, Refusal> {
    let mut lines = headers.get_all(HOST).iter();
    let first = lines.next();
    if lines.next().is_some() || first.is_none() && version < Version::HTTP_2 {
        return Err(Refusal::Host);
    }
    first.map(|line| Host::parse(line.as_bytes())).transpose()
}

fn agreed(authority: Option<Host>, said: Option<Host>, secure: bool) -> Result<Host, Refusal> {
    match (authority, said) {
        (Some(one), Some(other)) if !one.is_same(&other, secure) => Err(Refusal::HostMismatch),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::Host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(
        method: &str,
        uri: &str,
        hosts: &[&'static str],
        version: Version,
    ) -> Result<(String, String), Refusal> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        let target = Target::read(
            &method,
            &uri.parse().unwrap(),
            &headers,
            version,
            true,
            false,
        )?;
        Ok((target.host.to_string(), target.forwarded()))
    }

    fn read_11(
        method: &str,
        uri: &str,
        hosts: &[&'static str],
    ) -> Result<(String, String), Refusal> {
        read(method, uri, hosts, Version::HTTP_11)
    }

    #[test]
    fn every_form_of_a_target_comes_out_as_one_host_and_one_path() {
        let expected = Ok(("mail.example.org".to_owned(), "/b?q=%2e%2E+//;x".to_owned()));
        assert_eq!(
            read_11("GET", "/a/../b?q=%2e%2E+//;x", &["Mail.example.org"]),
            expected
        );
        let absolute = "https://MAIL.example.org/./b?q=%2e%2E+//;x";
        assert_eq!(read_11("GET", absolute, &["mail.example.org."]), expected);
        assert_eq!(read("GET", absolute, &[], Version::HTTP_2), expected);
        assert_eq!(
            read("GET", absolute, &["mail.example.org:443"], Version::HTTP_2),
            expected
        );
        let server = Ok(("mail.example.org".to_owned(), "*".to_owned()));
        assert_eq!(read_11("OPTIONS", "*", &["mail.example.org"]), server);
    }

    #[test]
    fn a_request_that_names_two_hosts_or_none_is_refused() {
        let absolute = "https://mail.example.org/";
        assert_eq!(
            read_11("GET", absolute, &["evil.example"]),
            Err(Refusal::HostMismatch)
        );
        assert_eq!(
            read_11("GET", absolute, &["mail.example.org:8443"]),
            Err(Refusal::HostMismatch)
        );
        assert_eq!(read_11("GET", absolute, &[]), Err(Refusal::Host));
        assert_eq!(read_11("GET", "/", &[]), Err(Refusal::Host));
        assert_eq!(read("GET", "/", &[], Version::HTTP_10), Err(Refusal::Host));
        assert_eq!(read("GET", "/", &[], Version::HTTP_2), Err(Refusal::Host));
        assert_eq!(
            read_11("GET", "/", &["a.example", "a.example"]),
            Err(Refusal::Host)
        );
        assert_eq!(
            read_11("GET", "/", &["a.example, b.example"]),
            Err(Refusal::Host)
        );
        assert_eq!(read_11("GET", "/", &[""]), Err(Refusal::Host));
        let user = "https://mail.example.org@evil.example/";
        assert_eq!(read("GET", user, &[], Version::HTTP_2), Err(Refusal::Host));
    }

    #[test]
    fn what_is_for_no_path_on_this_host_is_refused() {
        let hosts = &["mail.example.org"];
        assert_eq!(
            read_11("CONNECT", "mail.example.org:443", hosts),
            Err(Refusal::Method)
        );
        assert_eq!(read_11("TRACE", "/", hosts), Err(Refusal::Method));
        assert!(read_11(&"M".repeat(36), "/", hosts).is_ok());
        assert_eq!(read_11(&"M".repeat(37), "/", hosts), Err(Refusal::Method));
        assert_eq!(
            read_11("GET", "mail.example.org", hosts),
            Err(Refusal::Target)
        );
        assert_eq!(read_11("GET", "*", hosts), Err(Refusal::Target));
        assert_eq!(
            read_11("GET", "ftp://mail.example.org/", hosts),
            Err(Refusal::Target)
        );
        let long = format!("/?{}", "a".repeat(MAX_QUERY + 1));
        assert_eq!(read_11("GET", &long, hosts), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn an_extended_connect_has_a_path_and_a_plain_one_has_none() {
        let uri: Uri = "https://mail.example.org/jmap/ws".parse().unwrap();
        let headers = HeaderMap::new();
        let read = |method: &Method, is_extended| {
            Target::read(method, &uri, &headers, Version::HTTP_2, true, is_extended)
        };
        assert!(read(&Method::CONNECT, true).is_ok());
        assert_eq!(read(&Method::CONNECT, false), Err(Refusal::Method));
        assert_eq!(read(&Method::GET, true), Err(Refusal::Method));
    }
}
