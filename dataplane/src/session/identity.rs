//! Whose login it is.

use ferrypost_proto::{LoginIdentity, NamePolicy};
use ferrypost_wire::{Bearer, Credentials, Tokens};

use super::outcome::AttemptError;

/// Says whose a bearer token is. The name beside a token proves nothing, and servers ignore it: a route
/// that followed it could lead an account's token to a server that the account has left.
pub trait TokenOwner: Send + Sync {
    /// Whether it can tell of any. Where it cannot, none is asked for.
    fn tokens(&self) -> Tokens;

    /// The login name of the token's owner; `None` where nobody can tell.
    fn owner(&self, bearer: &Bearer) -> Option<String>;
}

/// Cannot tell of any token.
#[derive(Debug, Clone, Copy)]
pub struct NoTokens;

impl TokenOwner for NoTokens {
    fn tokens(&self) -> Tokens {
        Tokens::Unreadable
    }

    fn owner(&self, _: &Bearer) -> Option<String> {
        None
    }
}

/// Whose login the credentials make, as far as the server heeds every name in it.
pub(super) fn identify(
    names: &NamePolicy,
    tokens: &dyn TokenOwner,
    credentials: &Credentials,
) -> Result<LoginIdentity, AttemptError> {
    match credentials {
        Credentials::Password(login) => {
            Ok(names.identify(login.authentication(), login.authorization())?)
        }
        Credentials::Bearer(bearer) => {
            let owner = tokens.owner(bearer).ok_or(AttemptError::TokenUnread)?;
            Ok(names.identify_owner(&owner, bearer.name())?)
        }
    }
}
