//! Requests by which one server is made to see another request than the next, each with its verdict.
//!
//! A table, so that the same octets can be shown to the functions of this crate and be sent to a listener over
//! a connection: a request that is refused is answered with the status of its [`Refusal`], and nothing of it
//! reaches a server; one that [`ends the connection`](Refusal::ends_the_connection) is the last one on it. One
//! that passes reaches the server with the target that stands here.

use crate::Refusal;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is forwarded, with this target.
    Passes(&'static str),
    /// It is refused.
    Refused(Refusal),
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it tries.
    pub name: &'static str,
    /// What is sent, all at once (all of it is ASCII).
    pub octets: &'static str,
    /// What comes of its first request.
    pub verdict: Verdict,
}

const fn passes(name: &'static str, octets: &'static str, target: &'static str) -> Entry {
    Entry {
        name,
        octets,
        verdict: Verdict::Passes(target),
    }
}

const fn refused(name: &'static str, octets: &'static str, refusal: Refusal) -> Entry {
    Entry {
        name,
        octets,
        verdict: Verdict::Refused(refusal),
    }
}

/// `GET` of this target on the public host.
macro_rules! get {
    ($target:literal) => {
        concat!(
            "GET ",
            $target,
            " HTTP/1.1\r\nHost: mail.example.org\r\n\r\n"
        )
    };
}

/// The same of `/`, with these fields.
macro_rules! fields {
    ($fields:literal) => {
        concat!(
            "GET / HTTP/1.1\r\nHost: mail.example.org\r\n",
            $fields,
            "\r\n"
        )
    };
}

/// A request with these fields and this body.
macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!(
            "POST / HTTP/1.1\r\nHost: mail.example.org\r\n",
            $fields,
            "\r\n",
            $body
        )
    };
}

/// The same, with a request behind it that is a part of the body to some.
macro_rules! smuggled {
    ($fields:literal, $body:literal) => {
        concat!(
            "POST / HTTP/1.1\r\nHost: mail.example.org\r\n",
            $fields,
            "\r\n",
            $body,
            "GET /admin HTTP/1.1\r\nHost: mail.example.org\r\n\r\n"
        )
    };
}

/// All of them.
#[rustfmt::skip]
pub const CORPUS: &[Entry] = &[
    passes("an ordinary request", get!("/"), "/"),
    passes(
        "an ordinary upload",
        "PUT /dav/a HTTP/1.1\r\nHost: mail.example.org\r\nContent-Length: 3\r\n\r\nabc",
        "/dav/a",
    ),
    passes(
        "a chunked upload",
        "PUT /dav/a HTTP/1.1\r\nHost: mail.example.org\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "/dav/a",
    ),
    passes("one empty line before the request", "\r\nGET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", "/"),
    passes("white space round a value", post!("Content-Length: \t 3 \t\r\n", "abc"), "/"),
    refused(
        "two empty lines before the request",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n",
        Refusal::Malformed,
    ),
    refused(
        "length before coding",
        smuggled!("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        Refusal::Length,
    ),
    refused(
        "coding before length",
        smuggled!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
        Refusal::Length,
    ),
    refused(
        "coding before a length that is none",
        post!("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "0\r\n\r\n"),
        Refusal::Length,
    ),
    refused(
        "two lengths that differ",
        smuggled!("Content-Length: 0\r\nContent-Length: 44\r\n", ""),
        Refusal::Length,
    ),
    refused("two lengths that agree", post!("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), Refusal::Length),
    refused("a list of lengths", post!("Content-Length: 3, 3\r\n", "abc"), Refusal::Length),
    refused("a signed length", post!("Content-Length: +3\r\n", "abc"), Refusal::Length),
    refused("a negative length", post!("Content-Length: -3\r\n", "abc"), Refusal::Length),
    refused("a hexadecimal length", post!("Content-Length: 0x3\r\n", "abc"), Refusal::Length),
    refused("an empty length", post!("Content-Length:\r\n", ""), Refusal::Length),
    refused("a length with white space in it", post!("Content-Length: 1 0\r\n", "0123456789"), Refusal::Length),
    refused("a length beyond 64 bits", post!("Content-Length: 18446744073709551619\r\n", "abc"), Refusal::Length),
    refused("an unknown coding", post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), Refusal::Coding),
    refused("two codings in one line", post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refusal::Coding),
    refused("chunked twice", post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), Refusal::Coding),
    refused(
        "codings in two lines",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
        Refusal::Coding,
    ),
    refused("a coding in quotes", post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), Refusal::Coding),
    refused(
        "a coding with a vertical tab",
        post!("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        Refusal::Malformed,
    ),
    refused("a coding after a comma", post!("Transfer-Encoding: , chunked\r\n", "0\r\n\r\n"), Refusal::Coding),
    refused("an empty coding", post!("Transfer-Encoding:\r\nContent-Length: 3\r\n", "abc"), Refusal::Length),
    refused(
        "white space before the colon",
        post!("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        Refusal::Malformed,
    ),
    refused("a tab before the colon", post!("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), Refusal::Malformed),
    refused("a coding in a folded line", post!("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), Refusal::Folded),
    refused(
        "a field that begins with white space",
        "GET / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: mail.example.org\r\n\r\n",
        Refusal::Folded,
    ),
    refused(
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: mail.example.org\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refusal::Length,
    ),
    refused("bare LF at the end of a line", "GET / HTTP/1.1\nHost: mail.example.org\r\n\r\n", Refusal::LineEnd),
    refused("bare LF at the end of the head", "GET / HTTP/1.1\r\nHost: mail.example.org\r\n\n", Refusal::LineEnd),
    refused("bare CR in a value", fields!("X: a\rTransfer-Encoding: chunked\r\n"), Refusal::LineEnd),
    refused("CR CR LF at the end of a line", fields!("X: a\r\r\n"), Refusal::LineEnd),
    refused("NUL in a value", fields!("X: a\0b\r\n"), Refusal::Malformed),
    refused("NUL in a name", fields!("X\0: a\r\n"), Refusal::Malformed),
    refused("a control character in a value", fields!("X: a\x08b\r\n"), Refusal::Malformed),
    refused("a name that is no token", fields!("X(Y): a\r\n"), Refusal::Malformed),
    refused("an empty name", fields!(": a\r\n"), Refusal::Malformed),
    refused("a line without a colon", fields!("Transfer-Encoding\r\n"), Refusal::Malformed),
    refused(
        "a chunk size with a sign",
        post!("Transfer-Encoding: chunked\r\n", "+3\r\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "a chunk size with a prefix",
        post!("Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "a chunk size with white space",
        post!("Transfer-Encoding: chunked\r\n", "3 \r\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "bare LF behind a chunk size",
        post!("Transfer-Encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "bare LF in a chunk extension",
        post!("Transfer-Encoding: chunked\r\n", "3;a\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "bare LF behind a chunk",
        post!("Transfer-Encoding: chunked\r\n", "3\r\nabc\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "a chunk longer than its size",
        post!("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "a chunk size beyond 64 bits",
        post!("Transfer-Encoding: chunked\r\n", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        Refusal::Chunks,
    ),
    refused(
        "bare LF at the end of the chunks",
        smuggled!("Transfer-Encoding: chunked\r\n", "0\r\n\n"),
        Refusal::Chunks,
    ),
    refused("no host", "GET / HTTP/1.1\r\n\r\n", Refusal::Host),
    refused("no host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Refusal::Host),
    refused("two hosts", fields!("Host: evil.example\r\n"), Refusal::Host),
    refused("the same host twice", fields!("Host: mail.example.org\r\n"), Refusal::Host),
    refused("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", Refusal::Host),
    refused("a list of hosts", "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", Refusal::Host),
    refused("a host with a user", "GET / HTTP/1.1\r\nHost: mail.example.org@evil.example\r\n\r\n", Refusal::Host),
    refused("a host with a path", "GET / HTTP/1.1\r\nHost: mail.example.org/admin\r\n\r\n", Refusal::Host),
    refused("a host with a signed port", "GET / HTTP/1.1\r\nHost: mail.example.org:+443\r\n\r\n", Refusal::Host),
    passes("absolute form of the same host", get!("https://MAIL.example.org:443/a"), "/a"),
    refused("absolute form of another host", get!("https://evil.example/a"), Refusal::HostMismatch),
    refused("absolute form of another port", get!("https://mail.example.org:8443/a"), Refusal::HostMismatch),
    refused("absolute form of another scheme", get!("ftp://mail.example.org/a"), Refusal::Target),
    refused("absolute form with a user", get!("https://mail.example.org@evil.example/"), Refusal::Host),
    refused("a tunnel", "CONNECT mail.example.org:443 HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", Refusal::Method),
    refused("an echo", "TRACE / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", Refusal::Method),
    passes("the server as a whole", "OPTIONS * HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", "*"),
    refused("the server as a whole by GET", get!("*"), Refusal::Target),
    refused("a version of the future", "GET / HTTP/1.2\r\nHost: mail.example.org\r\n\r\n", Refusal::Malformed),
    refused("HTTP/0.9", "GET /\r\n\r\n", Refusal::Malformed),
    refused("HTTP/2 without a handshake", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::Malformed),
    refused(
        "two spaces in the request line",
        "GET  / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n",
        Refusal::Malformed,
    ),
    refused("a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", Refusal::Malformed),
    refused(
        "white space behind the version",
        "GET / HTTP/1.1 \r\nHost: mail.example.org\r\n\r\n",
        Refusal::Malformed,
    ),
    refused("a target with a space", "GET /a b HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", Refusal::Malformed),
    refused("a target with a fragment", get!("/a#/admin"), Refusal::Target),
    passes("a path with encoded letters", get!("/%61dmin"), "/admin"),
    passes("a path with dot segments", get!("/a/./../%2e/admin?x=/../"), "/admin?x=/../"),
    passes("a path with empty segments", get!("//admin//"), "/admin/"),
    refused("a path above the root", get!("/a/../../admin"), Refusal::Path),
    refused("an encoded slash before dots", get!("/a/..%2fadmin"), Refusal::Path),
    refused("an encoded backslash before dots", get!("/a/..%5cadmin"), Refusal::Path),
    refused("dots behind parameters", get!("/a/..;/admin"), Refusal::Path),
    refused("a backslash", get!("/a\\..\\admin"), Refusal::Path),
    refused("an encoded NUL", get!("/admin%00.png"), Refusal::Path),
    refused("an encoded line end", get!("/a%0d%0aX:%20y"), Refusal::Path),
    refused("overlong dots", get!("/%c0%ae%c0%ae/admin"), Refusal::Path),
    refused("dots encoded twice", get!("/a/%252e%252e/admin"), Refusal::Path),
    refused("an incomplete encoding", get!("/a%4"), Refusal::Target),
    refused(
        "an expectation that nobody meets",
        post!("Expect: 200-maybe\r\nContent-Length: 3\r\n", "abc"),
        Refusal::Expectation,
    ),
    passes(
        "a length that Connection names",
        post!("Connection: close, Content-Length\r\nContent-Length: 3\r\n", "abc"),
        "/",
    ),
    passes(
        "an upgrade to clear HTTP/2",
        fields!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
        "/",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Peer, clean_request};
    use crate::guard::{Guard, MAX_FIELDS, MAX_HEAD, Step};
    use crate::target::Target;
    use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

    /// The way of the first request among these octets, with httparse and `http` in hyper's place.
    fn judge(octets: &[u8]) -> Result<String, Refusal> {
        let mut guard = Guard::new(MAX_HEAD);
        let (mut rest, mut head) = (octets, None);
        while !rest.is_empty() && (head.is_none() || !guard.is_between_requests()) {
            match guard.step(rest)? {
                Step::Pass(count) => {
                    let passed;
                    (passed, rest) = rest.split_at(count);
                    head.get_or_insert(passed);
                }
                Step::Skip(count) => rest = &rest[count..],
                Step::NeedMore => break,
            }
        }
        forwarded(head.expect("an entry has a whole head"))
    }

    fn forwarded(head: &[u8]) -> Result<String, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        request
            .parse(head)
            .expect("what passes the guard is a request");
        let method = Method::from_bytes(request.method.unwrap().as_bytes()).unwrap();
        let uri: Uri = request.path.unwrap().parse().map_err(|_| Refusal::Target)?;
        let version = if request.version == Some(1) {
            Version::HTTP_11
        } else {
            Version::HTTP_10
        };
        let mut headers = HeaderMap::new();
        for field in request.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(field.value).unwrap());
        }
        clean_request(&method, version, &mut headers, Peer::Stranger)?;
        Target::read(&method, &uri, &headers, version, true, false).map(|target| target.forwarded())
    }

    #[test]
    fn every_entry_has_its_verdict() {
        for entry in CORPUS {
            let verdict = match judge(entry.octets.as_bytes()) {
                Ok(target) => format!("passes {target}"),
                Err(refusal) => format!("refused {refusal:?}"),
            };
            let expected = match entry.verdict {
                Verdict::Passes(target) => format!("passes {target}"),
                Verdict::Refused(refusal) => format!("refused {refusal:?}"),
            };
            assert_eq!(verdict, expected, "{}", entry.name);
        }
    }

    #[test]
    fn every_entry_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = CORPUS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CORPUS.len());
    }
}
