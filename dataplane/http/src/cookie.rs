//! Our own cookie: what was learned from a response, so that every data plane knows it.
//!
//! A web interface signs in by a form, and from then on its requests carry a cookie that says nothing to us.
//! Whose it is was in the form, and that the server took it is in its response. Both are put into a [`Ticket`],
//! sealed by a key that all data planes have, and given to the browser beside the server's own cookie. It
//! proves nothing to the server: it says where the request goes, for as long as it is beside that very cookie.
//!
//! Sealing is the data plane's (an AEAD; [`Envelope::associated_data`] is bound by it). Here is what is sealed,
//! and how that travels.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

use crate::Refusal;

/// Its name. Browsers take a cookie of this prefix only by TLS, for the whole host and from that host itself,
/// so that no neighbour under the same domain can set one (RFC 6265bis §4.1.3.2).
pub const NAME: &str = "__Host-ferrypost";

/// Octets of the nonce of an AEAD.
pub const NONCE: usize = 12;

/// Octets of the hash of a server's cookie.
pub const HASH: usize = 32;

/// Longest login that is sealed, in octets.
const MAX_LOGIN: usize = 512;

/// Longest cookie value that is looked at, in octets: all of the above and the tag of an AEAD, in base64.
const MAX_VALUE: usize = 1024;

const VERSION: u8 = 1;

/// What is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The login that was accepted.
    pub login: String,
    /// A hash of the server's cookie that came with it. Another login in the same browser has another cookie,
    /// and no use for this.
    pub cookie_hash: [u8; HASH],
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

/// Why a ticket does not count. The request is then one without an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotValid {
    /// It is not in its form, or of a version that is not known here.
    #[error("the cookie is not in its form")]
    Malformed,
    /// No key in force opens it: it was changed, or sealed by a key that is over or nobody's of ours.
    #[error("the cookie is not sealed by a key in force")]
    NotOurs,
    /// Its time is over.
    #[error("the cookie has expired")]
    Expired,
    /// It is beside another cookie of the server than the one with which it was given.
    #[error("the cookie belongs to another session")]
    AnotherSession,
}

impl Ticket {
    /// The plaintext: the time, the hash, the login. `None` if the login is longer than any may be.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.login.is_empty() || self.login.len() > MAX_LOGIN {
            return None;
        }
        let mut octets = self.expires.to_be_bytes().to_vec();
        octets.extend_from_slice(&self.cookie_hash);
        octets.extend_from_slice(self.login.as_bytes());
        Some(octets)
    }

    /// Reads what [`encode`](Self::encode) wrote, once it has been opened.
    ///
    /// # Errors
    /// [`NotValid::Malformed`].
    pub fn parse(octets: &[u8]) -> Result<Self, NotValid> {
        let (expires, rest) = octets.split_first_chunk().ok_or(NotValid::Malformed)?;
        let (cookie_hash, login) = rest.split_first_chunk().ok_or(NotValid::Malformed)?;
        let login = str::from_utf8(login).map_err(|_| NotValid::Malformed)?;
        if login.is_empty() || login.len() > MAX_LOGIN {
            return Err(NotValid::Malformed);
        }
        Ok(Self {
            login: login.to_owned(),
            cookie_hash: *cookie_hash,
            expires: u64::from_be_bytes(*expires),
        })
    }

    /// The login, if the ticket counts at `now` beside the server's cookie with this hash.
    ///
    /// # Errors
    /// [`NotValid::Expired`], [`NotValid::AnotherSession`].
    pub fn login_at(&self, now: u64, cookie_hash: &[u8; HASH]) -> Result<&str, NotValid> {
        if now >= self.expires {
            return Err(NotValid::Expired);
        }
        if self.cookie_hash != *cookie_hash {
            return Err(NotValid::AnotherSession);
        }
        Ok(&self.login)
    }
}

/// A sealed ticket on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which of the control plane's keys it is sealed by, so that keys can be replaced while cookies live.
    pub key: u32,
    /// The nonce, never used twice with that key.
    pub nonce: [u8; NONCE],
    /// What the AEAD made of the ticket, with its tag.
    pub sealed: Vec<u8>,
}

impl Envelope {
    /// What is not sealed and must not be changed either: the version and the key.
    pub fn associated_data(&self) -> [u8; 5] {
        let [a, b, c, d] = self.key.to_be_bytes();
        [VERSION, a, b, c, d]
    }

    /// The value of the cookie.
    pub fn encode(&self) -> String {
        let parts = [&self.associated_data()[..], &self.nonce, &self.sealed];
        URL_SAFE_NO_PAD.encode(parts.concat())
    }

    /// Reads the value of the cookie.
    ///
    /// # Errors
    /// [`NotValid::Malformed`].
    pub fn parse(value: &str) -> Result<Self, NotValid> {
        if value.len() > MAX_VALUE {
            return Err(NotValid::Malformed);
        }
        let octets = URL_SAFE_NO_PAD
            .decode(value)
            .map_err(|_| NotValid::Malformed)?;
        let rest = octets.strip_prefix(&[VERSION]).ok_or(NotValid::Malformed)?;
        let (key, rest) = rest.split_first_chunk().ok_or(NotValid::Malformed)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(NotValid::Malformed)?;
        Ok(Self {
            key: u32::from_be_bytes(*key),
            nonce: *nonce,
            sealed: sealed.to_vec(),
        })
    }

    /// The `Set-Cookie` that gives it to a browser for so many seconds. Scripts cannot read it, and it goes
    /// along with a link that leads to us but with nothing else from another site.
    pub fn set_cookie(&self, max_age: u64) -> HeaderValue {
        let value = self.encode();
        let line =
            format!("{NAME}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={max_age}");
        HeaderValue::from_str(&line).expect("base64 and our own words are a value")
    }
}

/// The `Set-Cookie` that takes it away again.
pub fn remove_cookie() -> HeaderValue {
    HeaderValue::from_static("__Host-ferrypost=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// Our cookie among a request's, whose `Cookie` is [one line](crate::fields::clean_request).
///
/// # Errors
/// [`Refusal::Repeated`].
pub(crate) fn find(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = crumbs(headers).filter_map(|crumb| named(crumb, NAME));
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Refusal::Repeated),
        (Some(value), None) => Ok(str::from_utf8(value).ok().map(str::to_owned)),
    }
}

/// The server's cookie of this name, whose hash a ticket is bound to. Where a browser has several of that name,
/// of different paths, the first is the one of the longest (RFC 6265 §5.4), and that which servers take.
pub fn server_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    crumbs(headers).find_map(|crumb| named(crumb, name))
}

/// The cookies of a request, by name and value; of several with one name the first, as in [`server_cookie`].
pub fn all(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut seen = BTreeSet::new();
    crumbs(headers).filter_map(move |crumb| {
        let at = crumb.iter().position(|&octet| octet == b'=')?;
        let (name, value) = crumb.split_at(at);
        seen.insert(name).then(|| (name, &value[1..]))
    })
}

/// The values that a response gives the server's cookie of this name.
pub(crate) fn given<'a>(response: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = response
        .get_all(SET_COOKIE)
        .iter()
        .map(HeaderValue::as_bytes);
    let pairs = lines.map(|line| {
        line.split(|&octet| octet == b';')
            .next()
            .unwrap_or_default()
    });
    pairs.filter_map(move |pair| named(pair.trim_ascii(), name))
}

/// Takes our cookie out of a response: no server gives it, and one that did would take the browser's own away.
pub(crate) fn remove_given(response: &mut HeaderMap) {
    let lines: Vec<_> = response.get_all(SET_COOKIE).iter().cloned().collect();
    let is_kept = |line: &&HeaderValue| !gives_ours(line.as_bytes());
    if lines.iter().all(|line| is_kept(&line)) {
        return;
    }
    response.remove(SET_COOKIE);
    for line in lines.iter().filter(is_kept) {
        response.append(SET_COOKIE, line.clone());
    }
}

/// Whether a `Set-Cookie` gives a cookie that comes back under our name, as browsers read it (RFC 6265bis §5.6): blanks
/// around a name are none of it, and a cookie without a name comes back as its value alone.
fn gives_ours(line: &[u8]) -> bool {
    let pair = line.split(|&octet| octet == b';').next();
    let pair = pair.unwrap_or_default().trim_ascii();
    let pair = pair.strip_prefix(b"=").unwrap_or(pair);
    let name = pair.split(|&octet| octet == b'=').next();
    name.unwrap_or_default().trim_ascii() == NAME.as_bytes()
}

/// Takes our cookie out of a request: no server has any business with it.
pub fn remove(headers: &mut HeaderMap) {
    let kept: Vec<&[u8]> = crumbs(headers)
        .filter(|crumb| named(crumb, NAME).is_none() && !crumb.is_empty())
        .collect();
    if kept.len() == crumbs(headers).count() {
        return;
    }
    let line = kept.join(&b"; "[..]);
    if line.is_empty() {
        headers.remove(COOKIE);
    } else {
        let line = HeaderValue::from_bytes(&line).expect("parts of a value are a value");
        headers.insert(COOKIE, line);
    }
}

fn crumbs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|&octet| octet == b';'))
        .map(<[u8]>::trim_ascii)
}

fn named<'a>(crumb: &'a [u8], name: &str) -> Option<&'a [u8]> {
    crumb.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cookies(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, line.parse().unwrap());
        }
        headers
    }

    fn ticket() -> Ticket {
        Ticket {
            login: "alice@example.org".into(),
            cookie_hash: [7; HASH],
            expires: 1000,
        }
    }

    #[test]
    fn a_ticket_counts_in_its_time_and_beside_its_cookie() {
        assert_eq!(ticket().login_at(999, &[7; HASH]), Ok("alice@example.org"));
        assert_eq!(ticket().login_at(1000, &[7; HASH]), Err(NotValid::Expired));
        assert_eq!(
            ticket().login_at(999, &[8; HASH]),
            Err(NotValid::AnotherSession)
        );
    }

    #[test]
    fn no_login_is_sealed_that_could_not_be_read_again() {
        let with = |login: String| Ticket { login, ..ticket() }.encode();
        assert!(with(String::new()).is_none() && with("x".repeat(513)).is_none());
        let longest = Envelope {
            key: 1,
            nonce: [0; NONCE],
            sealed: vec![0; 8 + HASH + 512 + 16],
        };
        assert_eq!(Envelope::parse(&longest.encode()), Ok(longest));
    }

    #[test]
    fn browsers_send_it_only_to_this_host_by_tls_and_show_it_to_no_script() {
        let envelope = Envelope {
            key: 1,
            nonce: [0; NONCE],
            sealed: vec![1, 2, 3],
        };
        let line = envelope.set_cookie(60);
        let line = line.to_str().unwrap();
        for part in [
            "__Host-ferrypost=",
            "; Path=/;",
            "; Secure;",
            "; HttpOnly;",
            "; SameSite=Lax;",
            "; Max-Age=60",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("Domain"));
    }

    #[test]
    fn a_cookie_of_another_version_or_form_is_not_read() {
        for value in ["", "AQ", "AgAAAAEAAAAAAAAAAAAAAAAB", "!", &"A".repeat(1025)] {
            assert_eq!(Envelope::parse(value), Err(NotValid::Malformed), "{value}");
        }
    }

    #[test]
    fn our_cookie_is_found_once_and_never_forwarded() {
        let find = |lines: &[&str]| find(&cookies(lines));
        assert_eq!(find(&["a=b; __Host-ferrypost=x;c=d"]), Ok(Some("x".into())));
        assert_eq!(find(&["a=b; ferrypost=x; __host-ferrypost=y"]), Ok(None));
        assert_eq!(
            find(&["__Host-ferrypost=x; __Host-ferrypost=y"]),
            Err(Refusal::Repeated)
        );
        assert_eq!(
            find(&["__Host-ferrypost=x", "__Host-ferrypost=y"]),
            Err(Refusal::Repeated)
        );
        for (line, left) in [
            ("a=b; __Host-ferrypost=x;c=d", Some("a=b; c=d")),
            ("__Host-ferrypost=x", None),
            ("a=b;c", Some("a=b;c")),
        ] {
            let mut headers = cookies(&[line]);
            remove(&mut headers);
            assert_eq!(headers.get(COOKIE).map(|it| it.to_str().unwrap()), left);
        }
    }

    #[test]
    fn no_server_gives_a_cookie_of_our_name() {
        let mut headers = HeaderMap::new();
        for line in [
            "sid=1; Path=/",
            "__Host-ferrypost=x; Path=/; Secure",
            " __Host-ferrypost = x",
            "=__Host-ferrypost=x",
            "a=__Host-ferrypost=x",
        ] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        remove_given(&mut headers);
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["sid=1; Path=/", "a=__Host-ferrypost=x"]);
    }

    #[test]
    fn a_server_s_cookie_is_the_first_of_its_name() {
        let headers = cookies(&["sid=a; other=b; sid=c"]);
        assert_eq!(server_cookie(&headers, "sid"), Some(&b"a"[..]));
        assert_eq!(server_cookie(&headers, "si"), None);
        let all: Vec<_> = all(&headers).collect();
        assert_eq!(all, [(&b"sid"[..], &b"a"[..]), (b"other", b"b")]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(login in "[a-z@.é]{1,40}", cookie_hash: [u8; HASH], expires: u64, key: u32, nonce: [u8; NONCE]) {
            let ticket = Ticket { login, cookie_hash, expires };
            let plain = ticket.encode().unwrap();
            prop_assert_eq!(Ticket::parse(&plain), Ok(ticket));
            let envelope = Envelope { key, nonce, sealed: plain };
            prop_assert_eq!(Envelope::parse(&envelope.encode()), Ok(envelope));
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..100), value in ".{0,60}") {
            let _ = Ticket::parse(&octets);
            let _ = Envelope::parse(&value);
        }
    }
}
