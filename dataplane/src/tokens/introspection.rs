//! Tokens of which their issuer must be asked (RFC 7662).
//!
//! A token is asked about once, however many connections bring it at the same time, and its owner is kept for no
//! longer than the issuer says that the token lives. What the issuer says is believed; that it says nothing is
//! never an answer.

mod answers;
mod issuer;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use ferrypost_wire::Secret;
use http::{HeaderMap, header::DATE};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{
    Means, NoOwner, Owner, Proof,
    jwt::first_claim,
    settings::{IntrospectionSettings, escaped},
};
use crate::limits::TokenLimits;
use answers::Answers;
use issuer::{Issuer, Said};

pub use issuer::IssuerError;

/// What a token is known by: nothing that could be used as one.
type Fingerprint = [u8; 32];

/// Asks the issuer whose tokens are.
pub(super) struct Introspection {
    issuer: Issuer,
    claims: Vec<String>,
    limits: TokenLimits,
    answers: Answers,
    places: Semaphore,
    /// What is being asked.
    asking: Mutex<HashMap<Fingerprint, Weak<Question>>>,
}

type Question = OnceCell<Answer>;

/// What an issuer says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// It is this one's.
    Owner(String),
    /// It is somebody's, whom none of the claims names.
    Nameless,
    /// It is not good.
    Inactive,
}

impl Introspection {
    pub(super) fn new(settings: &IntrospectionSettings, means: &Means<'_>) -> anyhow::Result<Self> {
        let limits = means.limits;
        Ok(Self {
            issuer: Issuer::new(settings, means)?,
            claims: settings.claims.clone(),
            limits,
            answers: Answers::new(limits),
            places: Semaphore::new(limits.at_once),
            asking: Mutex::default(),
        })
    }

    /// Whose token it is.
    pub(super) async fn owner(&self, token: &Secret) -> Result<Owner, NoOwner> {
        let fingerprint = Sha256::digest(token.expose()).into();
        let answer = match self.answers.get(&fingerprint) {
            Some(answer) => answer,
            // Also for those who wait for another's question, or for a place to ask theirs.
            None => timeout(self.limits.answer, self.ask(fingerprint, token))
                .await
                .unwrap_or(Err(IssuerError::Timeout))
                .map_err(NoOwner::Away)?,
        };
        match answer {
            Answer::Owner(name) => Ok(Owner {
                name,
                proof: Proof::Issuer,
            }),
            Answer::Nameless => Err(NoOwner::Unread),
            Answer::Inactive => Err(NoOwner::Refused),
        }
    }

    /// Asks, or waits for whoever is asking already. If that one goes away, the next of those who wait asks.
    async fn ask(&self, fingerprint: Fingerprint, token: &Secret) -> Result<Answer, IssuerError> {
        let question = self.question(fingerprint);
        let answer = question
            .cell
            .get_or_try_init(|| async {
                let _place = self
                    .places
                    .acquire()
                    .await
                    .map_err(|_| IssuerError::Timeout)?;
                let said = self.issuer.ask(form(token)).await?;
                let (answer, life) = self.read(&said)?;
                self.answers.keep(fingerprint, answer.clone(), life);
                Ok(answer)
            })
            .await?;
        Ok(answer.clone())
    }

    fn question(&self, fingerprint: Fingerprint) -> Asking<'_> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = match asking.entry(fingerprint) {
            Entry::Occupied(mut entry) => entry.get().upgrade().unwrap_or_else(|| {
                let cell = Arc::new(Question::new());
                entry.insert(Arc::downgrade(&cell));
                cell
            }),
            Entry::Vacant(entry) => {
                let cell = Arc::new(Question::new());
                entry.insert(Arc::downgrade(&cell));
                cell
            }
        };
        Asking {
            all: &self.asking,
            fingerprint,
            cell,
        }
    }

    /// What the issuer said (RFC 7662 §2.2), and for how long it holds.
    fn read(&self, said: &Said) -> Result<(Answer, Duration), IssuerError> {
        let claims: Map<String, Value> =
            serde_json::from_slice(&said.body).map_err(|_| IssuerError::Malformed)?;
        match claims.get("active").and_then(Value::as_bool) {
            None => Err(IssuerError::Malformed),
            Some(false) => Ok((Answer::Inactive, self.limits.refused)),
            Some(true) => Ok(match first_claim(&claims, &self.claims) {
                Some(name) => (Answer::Owner(name), self.life(&claims, &said.headers)),
                None => (Answer::Nameless, self.limits.refused),
            }),
        }
    }

    /// How long an owner is kept: by the issuer's own clock, so that ours may be wrong. A token that says when it
    /// ends, of an issuer that does not say what time it is, is asked about every time.
    fn life(&self, claims: &Map<String, Value>, headers: &HeaderMap) -> Duration {
        let Some(ends) = claims.get("exp").and_then(Value::as_u64) else {
            return self.limits.kept;
        };
        let now = headers.get(DATE).and_then(|date| date.to_str().ok());
        let now = now.and_then(|date| httpdate::parse_http_date(date).ok());
        let now = now.and_then(|now| now.duration_since(std::time::UNIX_EPOCH).ok());
        let left = now.and_then(|now| Duration::from_secs(ends).checked_sub(now));
        left.unwrap_or_default().min(self.limits.kept)
    }
}

/// One of those who ask about a token.
struct Asking<'a> {
    all: &'a Mutex<HashMap<Fingerprint, Weak<Question>>>,
    fingerprint: Fingerprint,
    cell: Arc<Question>,
}

impl Drop for Asking<'_> {
    /// The last one leaves nothing behind.
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.cell) == 1 {
            all.remove(&self.fingerprint);
        }
    }
}

/// The body of a question (RFC 7662 §2.1), wiped when it is dropped.
fn form(token: &Secret) -> Bytes {
    // A token is printable (RFC 6750 §2.1).
    let token = Zeroizing::new(String::from_utf8_lossy(token.expose()).into_owned());
    let mut body = Zeroizing::new(Vec::with_capacity(3 * token.len() + 64));
    body.extend_from_slice(b"token=");
    body.extend_from_slice(escaped(&token).as_bytes());
    body.extend_from_slice(b"&token_type_hint=access_token");
    Bytes::from_owner(body)
}

#[cfg(test)]
mod tests;
