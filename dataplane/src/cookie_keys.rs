//! The keys by which sign-ins are sealed into our cookie, and the sealing.
//!
//! They come from the control plane, are the same at every data plane, and are held in memory alone. A cookie proves
//! nothing to a server: whoever had the keys could have a request routed to a server of his choice, and be asked for
//! his password there.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ferrypost_http::{
    cookie::{self, Envelope, HASH, NotValid, Ticket},
    rules::SignIn,
};
use ferrypost_proto::routing::v1 as wire;
use ferrypost_runtime::Random;
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest as _, Sha256};

/// The keys in force. Clones share them.
#[derive(Clone)]
pub struct CookieKeys {
    held: Arc<RwLock<Ring>>,
    random: Random,
}

/// Two keys at most, of which one seals.
#[derive(Default)]
struct Ring {
    keys: Vec<(u32, LessSafeKey)>,
    sealing: u32,
}

/// Shows which there are.
impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.with(|ring| ring.keys.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        f.debug_tuple("CookieKeys").field(&ids).finish()
    }
}

impl CookieKeys {
    /// None yet: nothing is sealed, and nothing opens.
    pub fn new(random: Random) -> Self {
        Self {
            held: Arc::default(),
            random,
        }
    }

    /// Takes over what the control plane says, in place of all that it has said before. A key that is none is left out.
    pub fn replace(&self, said: &wire::CookieKeys) {
        let key = |key: &wire::CookieKey| {
            let unbound = UnboundKey::new(&AES_256_GCM, &key.key).ok()?;
            Some((key.id, LessSafeKey::new(unbound)))
        };
        let ring = Ring {
            keys: said.keys.iter().filter_map(key).collect(),
            sealing: said.sealing,
        };
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = ring;
    }

    /// Seals a ticket. `None` while there is no key, and for a login that is longer than any may be: then nothing is
    /// remembered.
    ///
    /// The nonce is random: see `ROTATE_EVERY` in the control plane for how many of them one key may see.
    pub fn seal(&self, ticket: &Ticket) -> Option<Envelope> {
        let mut sealed = ticket.encode()?;
        let mut envelope = Envelope {
            key: self.with(|ring| ring.sealing),
            nonce: self.random.bytes(),
            sealed: Vec::new(),
        };
        let nonce = Nonce::assume_unique_for_key(envelope.nonce);
        let aad = Aad::from(envelope.associated_data());
        self.with(|ring| {
            let key = ring.key(envelope.key)?;
            key.seal_in_place_append_tag(nonce, aad, &mut sealed).ok()
        })?;
        envelope.sealed = sealed;
        Some(envelope)
    }

    /// Opens the value of a cookie. Whether the ticket counts is for [`Ticket::login_at`] to say.
    ///
    /// # Errors
    /// [`NotValid::Malformed`], [`NotValid::NotOurs`].
    pub fn open(&self, value: &str) -> Result<Ticket, NotValid> {
        let mut envelope = Envelope::parse(value)?;
        let aad = Aad::from(envelope.associated_data());
        let nonce = Nonce::assume_unique_for_key(envelope.nonce);
        let opened = self.with(|ring| {
            let key = ring.key(envelope.key)?;
            key.open_in_place(nonce, aad, &mut envelope.sealed).ok()
        });
        Ticket::parse(opened.ok_or(NotValid::NotOurs)?)
    }

    /// The `Set-Cookie` by which a sign-in is remembered, if this response says that the server took it. `now`: in seconds
    /// since 1970.
    pub fn remember(
        &self,
        sign_in: &SignIn,
        response: (StatusCode, &HeaderMap),
        now: u64,
    ) -> Option<HeaderValue> {
        let given = sign_in.outcome(response.0, response.1)?;
        let ticket = Ticket {
            login: sign_in.login.clone(),
            cookie_hash: hash_of_cookie(sign_in.server_cookie().as_bytes(), given),
            expires: now.saturating_add(sign_in.seconds),
        };
        Some(self.seal(&ticket)?.set_cookie(sign_in.seconds))
    }

    /// The login that our cookie in a request says, beside the server's cookie with which it was given. `now`: in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`NotValid`]: the request is as one without our cookie.
    pub fn recall(&self, value: &str, request: &HeaderMap, now: u64) -> Result<String, NotValid> {
        let ticket = self.open(value)?;
        // Whichever of the request's cookies it is, no other could have this hash.
        let mut said = Err(NotValid::AnotherSession);
        for (name, value) in cookie::all(request) {
            said = ticket.login_at(now, &hash_of_cookie(name, value));
            if said != Err(NotValid::AnotherSession) {
                break;
            }
        }
        said.map(str::to_owned)
    }

    fn with<R>(&self, read: impl FnOnce(&Ring) -> R) -> R {
        // Whole at any time: it is replaced in one step.
        read(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ring {
    fn key(&self, id: u32) -> Option<&LessSafeKey> {
        let mut keys = self.keys.iter();
        keys.find(|(known, _)| *known == id).map(|(_, key)| key)
    }
}

/// What a ticket is bound to: a cookie of the server's, by its name and value.
fn hash_of_cookie(name: &[u8], value: &[u8]) -> [u8; HASH] {
    let pair = Sha256::new_with_prefix(name);
    pair.chain_update(b"=")
        .chain_update(value)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ferrypost_http::{
        cookie::NONCE,
        rules::{Body, Request, Rules},
        target::{Host, NormalPath},
    };
    use proptest::prelude::*;

    use super::*;

    fn said(keys: &[(u32, u8)], sealing: u32) -> wire::CookieKeys {
        let key = |(id, octet): &(u32, u8)| wire::CookieKey {
            id: *id,
            key: vec![*octet; 32].into(),
        };
        wire::CookieKeys {
            keys: keys.iter().map(key).collect(),
            sealing,
        }
    }

    fn holding(keys: &[(u32, u8)], sealing: u32, seed: u64) -> CookieKeys {
        let held = CookieKeys::new(Random::seeded(seed));
        held.replace(&said(keys, sealing));
        held
    }

    fn ticket() -> Ticket {
        Ticket {
            login: "alice@example.org".into(),
            cookie_hash: hash_of_cookie(b"sid", b"abc"),
            expires: 1000,
        }
    }

    #[test]
    fn what_one_data_plane_seals_every_other_opens() {
        let one = holding(&[(1, 7)], 1, 1);
        let other = holding(&[(1, 7), (2, 8)], 2, 2);
        let value = one.seal(&ticket()).unwrap().encode();
        assert_eq!(other.open(&value), Ok(ticket()));
        let newer = other.seal(&ticket()).unwrap();
        assert_eq!(newer.key, 2);
        assert_eq!(one.open(&newer.encode()), Err(NotValid::NotOurs));
        one.replace(&said(&[(1, 7), (2, 8)], 1));
        assert_eq!(one.open(&newer.encode()), Ok(ticket()));
        assert_eq!(one.seal(&ticket()).unwrap().key, 1, "two, and one seals");
    }

    #[test]
    fn a_key_that_is_gone_opens_nothing_any_more() {
        let keys = holding(&[(1, 7)], 1, 1);
        let value = keys.seal(&ticket()).unwrap().encode();
        keys.replace(&said(&[(2, 8), (3, 9)], 2));
        assert_eq!(keys.open(&value), Err(NotValid::NotOurs));
    }

    #[test]
    fn another_installation_s_cookie_does_not_open_though_its_key_has_the_same_id() {
        let ours = holding(&[(1, 7)], 1, 1);
        let theirs = holding(&[(1, 8)], 1, 1);
        let value = theirs.seal(&ticket()).unwrap().encode();
        assert_eq!(ours.open(&value), Err(NotValid::NotOurs));
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_nothing_opens() {
        let none = CookieKeys::new(Random::seeded(1));
        assert_eq!(none.seal(&ticket()), None);
        let value = holding(&[(1, 7)], 1, 1).seal(&ticket()).unwrap().encode();
        assert_eq!(none.open(&value), Err(NotValid::NotOurs));
        // One that is no key is left out, and what should have sealed by it does not seal by another.
        let mut broken = said(&[(1, 7), (2, 8)], 2);
        broken.keys[1].key.truncate(31);
        none.replace(&broken);
        assert_eq!(none.seal(&ticket()), None);
        assert_eq!(none.open(&value), Ok(ticket()));
    }

    #[test]
    fn no_octet_of_a_cookie_can_be_changed() {
        let keys = holding(&[(1, 7), (2, 7)], 1, 1);
        let sealed = keys.seal(&ticket()).unwrap();
        assert_eq!(keys.open(&sealed.encode()), Ok(ticket()));
        let mut other_key = sealed.clone();
        // The very same key under another id: what is bound is the id as well.
        other_key.key = 2;
        assert_eq!(keys.open(&other_key.encode()), Err(NotValid::NotOurs));
        for at in 0..NONCE {
            let mut changed = sealed.clone();
            changed.nonce[at] ^= 1;
            assert_eq!(keys.open(&changed.encode()), Err(NotValid::NotOurs), "{at}");
        }
        for at in 0..sealed.sealed.len() {
            let mut changed = sealed.clone();
            changed.sealed[at] ^= 0x80;
            assert_eq!(keys.open(&changed.encode()), Err(NotValid::NotOurs), "{at}");
            changed.sealed.truncate(at);
            assert_eq!(keys.open(&changed.encode()), Err(NotValid::NotOurs), "{at}");
        }
    }

    #[test]
    fn no_nonce_comes_twice() {
        let keys = holding(&[(1, 7)], 1, 1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(keys.seal(&ticket()).unwrap().nonce));
        }
        let same_clock = holding(&[(1, 7)], 1, 2);
        assert!(seen.insert(same_clock.seal(&ticket()).unwrap().nonce));
    }

    fn request(cookies: &str) -> HeaderMap {
        let value = cookies.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(http::header::COOKIE, value);
        headers
    }

    #[test]
    fn a_ticket_counts_in_its_time_and_beside_the_cookie_with_which_it_was_given() {
        let keys = holding(&[(1, 7)], 1, 1);
        let value = keys.seal(&ticket()).unwrap().encode();
        let recall = |cookies: &str, now| keys.recall(&value, &request(cookies), now);
        assert_eq!(
            recall("lang=en; sid=abc", 999).as_deref(),
            Ok("alice@example.org")
        );
        assert_eq!(recall("lang=en; sid=abc", 1000), Err(NotValid::Expired));
        // The first of a name is the one that servers take.
        for other in ["", "sid=abd", "sid=x; sid=abc", "si=d=abc", "lang=sid=abc"] {
            assert_eq!(recall(other, 999), Err(NotValid::AnotherSession), "{other}");
        }
    }

    #[test]
    fn a_sign_in_that_the_server_took_is_remembered_and_recalled() {
        let rule = serde_json::from_str(
            r#"{"name": "sign in", "pin": "source", "writes_to_accounts": false, "learns": {
                "account_from": ["header:x-user"], "status": [302], "server_cookie": "sid", "seconds": 60}}"#,
        );
        let rules = Rules::new(&[rule.unwrap()], &BTreeSet::from(["source"])).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("alice"));
        let asked = Request {
            host: &Host::parse(b"mail.example.org").unwrap(),
            method: &http::Method::POST,
            path: &NormalPath::parse("/").unwrap(),
            query: None,
            headers: &headers,
        };
        let decision = rules.decide(&asked, Body::Unread).unwrap();
        let sign_in = decision.sign_in.unwrap();
        let keys = holding(&[(1, 7)], 1, 1);
        let mut response = HeaderMap::new();
        let given = HeaderValue::from_static("sid=abc; Path=/; HttpOnly");
        response.insert(http::header::SET_COOKIE, given);
        let remember = |status| keys.remember(&sign_in, (status, &response), 1000);
        assert_eq!(remember(StatusCode::OK), None, "the form again");
        let line = remember(StatusCode::FOUND).unwrap();
        let line = line.to_str().unwrap();
        let (pair, rest) = line.split_once(';').unwrap();
        assert!(rest.contains("Max-Age=60"), "{rest}");
        let (name, value) = pair.split_once('=').unwrap();
        assert_eq!(name, cookie::NAME);
        let then = request("sid=abc");
        assert_eq!(keys.recall(value, &then, 1059).as_deref(), Ok("alice"));
        assert_eq!(keys.recall(value, &then, 1060), Err(NotValid::Expired));
    }

    #[test]
    fn neither_keys_nor_messages_are_in_debug_output() {
        let shown = format!("{:?} {:?}", holding(&[(3, 77)], 3, 1), said(&[(3, 77)], 3));
        assert!(
            shown.contains('3') && !shown.contains("77") && !shown.contains("MM"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn no_value_of_a_cookie_panics(value in "[A-Za-z0-9_-]{0,200}") {
            let _ = holding(&[(1, 7)], 1, 1).open(&value);
        }
    }
}
