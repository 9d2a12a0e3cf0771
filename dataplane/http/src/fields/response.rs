//! The header of a response, as a client may see it.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ALT_SVC, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING,
        CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
        COOKIE, HOST, LOCATION, REFRESH, RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
        TRAILER, TRANSFER_ENCODING, WWW_AUTHENTICATE,
    },
};

use super::{trust, without_hops};
use crate::{cookie, framing::digits};

/// A response whose end cannot be told (RFC 9112 §6.3), or whose body is coded for its connection in another way than
/// in chunks, which no client could know any more. It is answered by a 502, and its connection is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's response says its length in two ways or not in digits, or has a transfer coding that is not ours"
)]
pub struct BadResponse;

/// Takes out of a response's header what is not for the client: the fields of the server's connection and what
/// its `Connection` names; `Alt-Svc`, by which the client would go round us the next time (RFC 7838); and,
/// unless the client [reads trailers](super::RequestFacts::reads_trailers), the announcement of some.
///
/// `Set-Cookie` stays as it is, its domain too: the public host is the one that the server was asked by. Only
/// [ours](crate::cookie::NAME) is not a server's to set. A
/// 101's `Connection` and `Upgrade` are taken out as well; who carries the upgrade says its own.
///
/// # Errors
/// [`BadResponse`].
pub fn clean_response(headers: &mut HeaderMap, reads_trailers: bool) -> Result<(), BadResponse> {
    let length = length(headers)?;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if codings.any(|coding| length.is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(BadResponse);
    }
    let trailer = headers.get(TRAILER).filter(|_| reads_trailers).cloned();
    without_hops(headers);
    headers.remove(ALT_SVC);
    cookie::remove_given(headers);
    if let Some(trailer) = trailer {
        headers.insert(TRAILER, trailer);
    }
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    Ok(())
}

/// Takes out of a response's trailers what must not stand there (RFC 9110 §6.5.1): what frames, routes,
/// authenticates or sets something, since one recipient adds it to the header and the next does not. For
/// clients that read trailers; others get none.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    without_hops(trailers);
    let is_unfit = |name: &&HeaderName| UNFIT_FOR_TRAILERS.contains(name) || trust::is_claim(name);
    let unfit: Vec<_> = trailers.keys().filter(is_unfit).cloned().collect();
    for name in unfit {
        trailers.remove(name);
    }
}

const UNFIT_FOR_TRAILERS: [HeaderName; 18] = [
    ALT_SVC,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_LOCATION,
    CONTENT_RANGE,
    CONTENT_SECURITY_POLICY,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    LOCATION,
    REFRESH,
    RETRY_AFTER,
    SET_COOKIE,
    STRICT_TRANSPORT_SECURITY,
    WWW_AUTHENTICATE,
];

/// The one length that is said. Unlike a request's it may be said twice, as long as it is the same: servers
/// behind us are not out to deceive, and clients take that.
fn length(headers: &HeaderMap) -> Result<Option<u64>, BadResponse> {
    let lines = headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .map(HeaderValue::as_bytes);
    let mut said = lines.flat_map(|line| line.split(|&octet| octet == b','));
    let Some(first) = said.next() else {
        return Ok(None);
    };
    let read = |text: &[u8]| digits(text.trim_ascii()).map_err(|_| BadResponse);
    let length = read(first)?;
    for other in said {
        if read(other)? != length {
            return Err(BadResponse);
        }
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(fields: &[(&str, &str)], reads_trailers: bool) -> Result<Vec<String>, BadResponse> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        clean_response(&mut headers, reads_trailers)?;
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        Ok(lines)
    }

    #[test]
    fn no_response_leads_round_the_proxy_or_speaks_of_its_own_connection() {
        let fields = [
            ("Alt-Svc", "h3=\":443\""),
            ("Connection", "close, X-Mine, Set-Cookie"),
            ("X-Mine", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
            ("Set-Cookie", "a=b; Domain=example.org"),
            ("Set-Cookie", "__Host-ferrypost=x; Path=/; Secure"),
            ("WWW-Authenticate", "Basic"),
            ("WWW-Authenticate", "Bearer"),
        ];
        let left = [
            "set-cookie: a=b; Domain=example.org",
            "www-authenticate: Basic",
            "www-authenticate: Bearer",
        ];
        assert_eq!(clean(&fields, true).unwrap(), left);
    }

    #[test]
    fn a_response_has_one_length_or_none() {
        let length = |text| clean(&[("Content-Length", text)], false);
        assert_eq!(length("5").unwrap(), ["content-length: 5"]);
        assert_eq!(length("5, 5").unwrap(), ["content-length: 5"]);
        for text in ["5, 6", "+5", "", "5,"] {
            assert_eq!(length(text), Err(BadResponse), "{text}");
        }
        let both = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
        assert_eq!(clean(&both, false), Err(BadResponse));
    }

    #[test]
    fn no_body_comes_to_a_client_without_the_coding_that_it_has() {
        let coded = |coding| clean(&[("Transfer-Encoding", coding)], false);
        assert!(coded("Chunked").unwrap().is_empty());
        for coding in ["gzip, chunked", "gzip", "chunked, chunked"] {
            assert_eq!(coded(coding), Err(BadResponse), "{coding}");
        }
    }

    #[test]
    fn no_trailer_sets_routes_or_frames_anything() {
        let mut trailers = HeaderMap::new();
        for name in [
            "set-cookie",
            "content-length",
            "transfer-encoding",
            "location",
            "x-forwarded-for",
            "server-timing",
        ] {
            trailers.append(name, HeaderValue::from_static("1"));
        }
        clean_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["server-timing"]);
    }

    #[test]
    fn trailers_are_announced_to_who_reads_them() {
        assert_eq!(
            clean(&[("Trailer", "X-Sum")], true).unwrap(),
            ["trailer: X-Sum"]
        );
        assert!(clean(&[("Trailer", "X-Sum")], false).unwrap().is_empty());
    }
}
