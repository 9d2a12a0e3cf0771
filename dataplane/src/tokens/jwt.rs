//! Tokens that say themselves whose they are (JWT, RFC 7519), signed by their issuer (JWS, RFC 7515).
//!
//! Whether such a token is still good (`exp`, `aud`, revocation) is for the server that it is sent to, which says so
//! in its own words. Here it is asked only who it belongs to, and whether its issuer says so.

mod keys;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ferrypost_runtime::{reload::Reloading, shutdown::Shutdown};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    NoOwner, Owner, Proof,
    settings::{JwtKeys, JwtSettings},
};
use keys::Verdict;

pub use keys::{KeySet, KeySetError};

/// Reads whose tokens are from their claims.
pub(super) struct Jwt {
    /// `None`: the claims steer and prove nothing.
    keys: Option<Arc<Reloading<KeySet, KeySetError>>>,
    issuer: Option<String>,
    claims: Vec<String>,
}

/// What of a header matters here (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

/// A token in its parts.
struct Parts<'t> {
    header: Header,
    payload: &'t [u8],
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl Jwt {
    pub(super) fn new(settings: &JwtSettings, tasks: &Shutdown) -> Result<Self, KeySetError> {
        let keys = match &settings.keys {
            JwtKeys::Unchecked => None,
            JwtKeys::File(path) => {
                let file = path.clone();
                let keys = Reloading::new(vec![path.clone()], move || KeySet::read(&file))?;
                let keys = Arc::new(keys);
                tasks.spawn_background(Arc::clone(&keys).keep_fresh());
                Some(keys)
            }
        };
        Ok(Self {
            keys,
            issuer: settings.issuer.clone(),
            claims: settings.claims.clone(),
        })
    }

    /// Whose token it is, if it is one of this form and of this issuer.
    pub(super) fn owner(&self, token: &[u8]) -> Result<Owner, NoOwner> {
        let parts = Parts::of(token).ok_or(NoOwner::Unread)?;
        let claims = object(parts.payload).ok_or(NoOwner::Unread)?;
        let issued_by = claims.get("iss").and_then(Value::as_str);
        if self.issuer.is_some() && issued_by != self.issuer.as_deref() {
            return Err(NoOwner::Unread);
        }
        let proof = self.prove(&parts)?;
        let name = first_claim(&claims, &self.claims).ok_or(NoOwner::Unread)?;
        Ok(Owner { name, proof })
    }

    fn prove(&self, parts: &Parts<'_>) -> Result<Proof, NoOwner> {
        let Some(keys) = &self.keys else {
            return Ok(Proof::Claimed);
        };
        let Header { alg, kid, crit } = &parts.header;
        if crit.is_some() {
            return Err(NoOwner::Unread);
        }
        match keys
            .current()
            .verify(alg, kid.as_deref(), parts.signed, &parts.signature)
        {
            Verdict::Signed => Ok(Proof::Issuer),
            Verdict::Forged => Err(NoOwner::Refused),
            // Our key set may be older than the token.
            Verdict::NoKey => Err(NoOwner::Unread),
        }
    }
}

impl<'t> Parts<'t> {
    /// Takes a token apart; `None` for what has another form.
    fn of(token: &'t [u8]) -> Option<Self> {
        let mut dots = memchr::memchr_iter(b'.', token);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        let header = decode(&token[..first])?;
        Some(Self {
            header: serde_json::from_slice(&header).ok()?,
            payload: &token[first + 1..second],
            signed: &token[..second],
            signature: decode(&token[second + 1..])?,
        })
    }
}

fn object(payload: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode(payload)?).ok()
}

fn decode(part: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// The first of `wanted` that is a text.
pub(super) fn first_claim(claims: &Map<String, Value>, wanted: &[String]) -> Option<String> {
    let text = |name: &String| claims.get(name)?.as_str().filter(|text| !text.is_empty());
    wanted.iter().find_map(text).map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests;
