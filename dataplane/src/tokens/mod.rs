//! Whose a bearer token is.
//!
//! ```text
//!   settings       what of this the configuration says
//!   (here)         the ways to tell, in the operator's order
//!   stalwart       tokens that carry the address of their account
//!   jwt            tokens whose claims can be read (RFC 7519), and the key set that proves them (RFC 7517)
//!   introspection  tokens of which their issuer must be asked (RFC 7662)
//!     issuer       the connections to it
//!     answers      what it has said, kept for a while
//! ```
//!
//! It is not authentication: the server behind us judges the token, whatever is found here. It is routing, and a
//! wrong answer would lead a session past its account's fence. So nobody is guessed at: an issuer that is away is
//! a temporary error, and the next way is not tried.

mod introspection;
mod jwt;
pub mod settings;
mod stalwart;

use std::sync::Arc;

use ferrypost_proto::{AuthorizationIdentity, Endpoint};
use ferrypost_runtime::{metrics::Metrics, shutdown::Shutdown};
use ferrypost_wire::Bearer;
use futures_util::future::BoxFuture;

use crate::{
    limits::TokenLimits,
    metrics::{
        TOKENS,
        words::{TokenOutcome, TokenWay},
    },
    net::resolver::Resolver,
};
use introspection::Introspection;
use jwt::Jwt;
use settings::{Settings, WaySettings};

pub use introspection::IssuerError;
pub use jwt::{KeySet, KeySetError};

/// Says whose a bearer token is. The name beside a token proves nothing, and servers may ignore it: a route
/// that followed it could lead an account's token to a server that the account has left.
pub trait TokenOwner: Send + Sync {
    /// Whether it can tell of any token where this is the server. Where it cannot, none is asked for.
    fn tells_at(&self, endpoint: &Endpoint) -> bool;

    /// The token's owner.
    fn owner<'a>(&'a self, bearer: &'a Bearer) -> BoxFuture<'a, Result<Owner, NoOwner>>;
}

/// A token's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As whom the owner logs in: a login name, not in canonical form.
    pub name: String,
    /// What says so.
    pub proof: Proof,
}

/// What says whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its issuer, by its signature or its answer.
    Issuer,
    /// The token itself, which anybody can write. It steers, to a server that will not be deceived.
    Claimed,
    /// The name beside it. It steers too, where the server is known to hold that name against the token.
    Beside,
}

/// Why nobody says whose a token is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoOwner {
    /// None of the ways fits it.
    #[error("nobody can tell whose token it is")]
    Unread,
    /// Its issuer does not stand by it: it is forged, expired or revoked.
    #[error("the token's issuer does not know it")]
    Refused,
    /// Who could tell cannot be asked now.
    #[error("the tokens' issuer: {0}")]
    Away(IssuerError),
}

/// Cannot tell of any token.
#[derive(Debug, Clone, Copy)]
pub struct NoTokens;

impl TokenOwner for NoTokens {
    fn tells_at(&self, _: &Endpoint) -> bool {
        false
    }

    fn owner<'a>(&'a self, _: &'a Bearer) -> BoxFuture<'a, Result<Owner, NoOwner>> {
        Box::pin(async { Err(NoOwner::Unread) })
    }
}

/// The configured ways, in their order: the first that can tell decides.
pub struct Ways {
    ways: Vec<Way>,
    metrics: Arc<Metrics>,
}

/// What the ways are made with.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// What asking may cost.
    pub limits: TokenLimits,
    /// Where issuers are.
    pub resolver: &'a Resolver,
    /// What is counted.
    pub metrics: &'a Arc<Metrics>,
    /// Looks after connections and files.
    pub tasks: &'a Shutdown,
}

enum Way {
    Stalwart,
    Jwt(Jwt),
    Introspection(Box<Introspection>),
    NameBeside,
}

impl Ways {
    /// What the configuration says.
    ///
    /// # Errors
    /// A file that validation found well cannot be used any more.
    pub fn new(settings: &Settings, means: &Means<'_>) -> anyhow::Result<Self> {
        let way = |way: &WaySettings| {
            Ok(match way {
                WaySettings::Stalwart => Way::Stalwart,
                WaySettings::Jwt(settings) => Way::Jwt(Jwt::new(settings, means.tasks)?),
                WaySettings::Introspection(settings) => {
                    Way::Introspection(Box::new(Introspection::new(settings, means)?))
                }
                WaySettings::NameBeside => Way::NameBeside,
            })
        };
        Ok(Self {
            ways: settings
                .owner
                .iter()
                .map(way)
                .collect::<anyhow::Result<_>>()?,
            metrics: Arc::clone(means.metrics),
        })
    }

    async fn ask(&self, bearer: &Bearer) -> Result<Owner, NoOwner> {
        let mut outcome = Err(NoOwner::Unread);
        for way in &self.ways {
            let said = way.ask(bearer).await;
            let words = [way.word().into_str(), word(&said).into_str()];
            self.metrics.counter(&TOKENS, &words).add(1);
            match said {
                // A token that one issuer does not know may be another's.
                Err(NoOwner::Refused) => outcome = Err(NoOwner::Refused),
                Err(NoOwner::Unread) => {}
                decided => return decided,
            }
        }
        outcome
    }
}

impl TokenOwner for Ways {
    fn tells_at(&self, endpoint: &Endpoint) -> bool {
        let honours = endpoint.authorization_identity == AuthorizationIdentity::Honoured;
        self.ways
            .iter()
            .any(|way| honours || !matches!(way, Way::NameBeside))
    }

    fn owner<'a>(&'a self, bearer: &'a Bearer) -> BoxFuture<'a, Result<Owner, NoOwner>> {
        Box::pin(self.ask(bearer))
    }
}

impl Way {
    async fn ask(&self, bearer: &Bearer) -> Result<Owner, NoOwner> {
        let claimed = |name| Owner {
            name,
            proof: Proof::Claimed,
        };
        match self {
            Self::Stalwart => stalwart::account(bearer.token().expose())
                .map(claimed)
                .ok_or(NoOwner::Unread),
            Self::Jwt(jwt) => jwt.owner(bearer.token().expose()),
            Self::Introspection(issuer) => issuer.owner(bearer.token()).await,
            Self::NameBeside => bearer.name().ok_or(NoOwner::Unread).map(|name| Owner {
                name: name.to_owned(),
                proof: Proof::Beside,
            }),
        }
    }

    const fn word(&self) -> TokenWay {
        match self {
            Self::Stalwart => TokenWay::Stalwart,
            Self::Jwt(_) => TokenWay::Jwt,
            Self::Introspection(_) => TokenWay::Introspection,
            Self::NameBeside => TokenWay::NameBeside,
        }
    }
}

const fn word(said: &Result<Owner, NoOwner>) -> TokenOutcome {
    match said {
        Ok(_) => TokenOutcome::Told,
        Err(NoOwner::Unread) => TokenOutcome::Unread,
        Err(NoOwner::Refused) => TokenOutcome::Refused,
        Err(NoOwner::Away(_)) => TokenOutcome::Away,
    }
}

#[cfg(test)]
pub(crate) mod tests;
