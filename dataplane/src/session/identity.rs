//! Whose login it is.

use ferrypost_proto::{LoginIdentity, NameError, NamePolicy};
use ferrypost_wire::Credentials;

use crate::tokens::{NoOwner, Owner, Proof, TokenOwner};

/// What credentials say of whom they let in.
pub(super) enum Presented<'c> {
    /// A password's names: whose it is, and whom to act as.
    Names(&'c str, Option<&'c str>),
    /// A token's owner, and the name beside it.
    Owner(Owner, Option<&'c str>),
}

/// Reads credentials: whoever can tell whose a token is, is asked.
///
/// # Errors
/// [`NoOwner`]
pub(super) async fn read<'c>(
    tokens: &dyn TokenOwner,
    credentials: &'c Credentials,
) -> Result<Presented<'c>, NoOwner> {
    match credentials {
        Credentials::Password(login) => Ok(Presented::Names(
            login.authentication(),
            login.authorization(),
        )),
        Credentials::Bearer(bearer) => {
            let owner = tokens.owner(bearer).await?;
            Ok(Presented::Owner(owner, bearer.name()))
        }
    }
}

impl Presented<'_> {
    /// Whose login they make, as far as the server heeds every name in it.
    ///
    /// # Errors
    /// [`NameError`]
    pub(super) fn identify(&self, names: &NamePolicy) -> Result<LoginIdentity, NameError> {
        match self {
            Self::Names(user, acts_as) => names.identify(user, *acts_as),
            Self::Owner(owner, beside) => match owner.proof {
                Proof::Issuer | Proof::Claimed => names.identify_owner(&owner.name, *beside),
                Proof::Beside => names.identify_beside(&owner.name),
            },
        }
    }

    /// Whether it is no more than what a stranger's token says of itself: it steers, and stands in no log before
    /// a server has accepted it.
    pub(super) fn is_claim(&self) -> bool {
        matches!(self, Self::Owner(owner, _) if owner.proof != Proof::Issuer)
    }
}
