//! Whose a request is: its claim made a name, by the same language as every login's.

use ferrypost_http::{
    Refusal,
    identity::{Claim, Claims},
};
use ferrypost_proto::{AccountId, Endpoint, LoginIdentity, Name, SecondName};
use ferrypost_routing::{Resolution, RoutingTable};
use ferrypost_wire::{Bearer, BearerFrame};

use super::{
    super::failure::Failure,
    Exchange,
    asked::{Asked, Decided, RuleEnd},
};
use crate::{registry::Subject, tokens::Proof};

/// Whom it is for.
pub(super) struct Whose {
    /// By which it is routed.
    pub(super) subject: Subject,
    /// What its login rests on beside a name.
    second: Option<SecondName>,
}

impl Whose {
    /// Nothing is sent where it is not known whose request that would be.
    pub(super) fn is_heeded_by(&self, asked: &Asked, endpoint: &Endpoint) -> Result<(), Failure> {
        match self.second {
            Some(second) if !endpoint.is_known_to_heed(second) => {
                Err(Failure::SecondName(second, asked.challenge()))
            }
            _ => Ok(()),
        }
    }
}

impl From<Subject> for Whose {
    fn from(subject: Subject) -> Self {
        Self {
            subject,
            second: None,
        }
    }
}

impl Exchange<'_> {
    /// Whose the request is.
    pub(super) async fn whose(
        &mut self,
        asked: &Asked,
        decided: Decided,
    ) -> Result<Whose, Failure> {
        let whose = match decided.end {
            RuleEnd::Account(claims) => self.claimed(asked, claims).await?,
            // Whose mail it changes nobody can tell: a fence of anybody's there holds it.
            RuleEnd::Pinned {
                destination,
                writes_to_accounts: true,
            } => Subject::SomebodyAt(destination).into(),
            RuleEnd::Pinned { destination, .. } => Subject::Destination(destination).into(),
            RuleEnd::Default => {
                let table = self.client.web.services.tables.current();
                let table = table.ok_or(Failure::NoTable)?;
                Subject::Destination(table.config().default_destination().clone()).into()
            }
        };
        self.record().subject = Some(whose.subject.clone());
        Ok(whose)
    }

    /// Whose it is by all that it says. Nobody here can tell by which of them its server goes, so that a request of two
    /// accounts might write for the one that was not asked about.
    async fn claimed(&self, asked: &Asked, claims: Claims) -> Result<Whose, Failure> {
        let mut claims = claims.into_all();
        let first = claims.next().ok_or(Refusal::Unidentified)?;
        let first = self.identity(asked, first).await?;
        let mut second = first.second_name();
        for claim in claims {
            let other = self.identity(asked, claim).await?;
            let table = self.client.web.services.tables.current();
            let table = table.ok_or(Failure::NoTable)?;
            if !is_one_account(&table, first.name(), other.name()) {
                return Err(Refusal::TwoAccounts.into());
            }
            second = second.or(other.second_name());
        }
        Ok(Whose {
            subject: Subject::from(first.name()),
            second,
        })
    }

    async fn identity(&self, asked: &Asked, claim: Claim) -> Result<LoginIdentity, Failure> {
        let services = &self.client.web.services;
        let current = || services.tables.current().ok_or(Failure::NoTable);
        let no_name = |error| Failure::NoName(error, asked.challenge());
        match claim {
            Claim::Login(login) => {
                let table = current()?;
                let names = table.config().names();
                names.identify(&login, None).map_err(no_name)
            }
            Claim::Token(token) => {
                // The frame of a line protocol without anything in it but the token.
                let bearer = Bearer::new(BearerFrame::OauthBearer, b"", token);
                let bearer = bearer.map_err(|_| Refusal::Credentials)?;
                let owner = services.tokens.owner(&bearer).await?;
                // Now, and not before an issuer was asked: what names mean may have changed meanwhile.
                let table = current()?;
                let names = table.config().names();
                match owner.proof {
                    Proof::Issuer | Proof::Claimed => names.identify_owner(&owner.name, None),
                    Proof::Beside => names.identify_beside(&owner.name),
                }
                .map_err(no_name)
            }
            Claim::Sealed(_) => Err(Refusal::Unidentified.into()),
        }
    }
}

/// Whether two names are of one account: the same name, or both in its record.
fn is_one_account(table: &RoutingTable, one: &Name, other: &Name) -> bool {
    let account = |name: &Name| -> Option<AccountId> {
        match table.resolve(name) {
            Resolution::Route(route) => route.account,
            Resolution::Fenced(fenced) => fenced.account,
            Resolution::Refused(_) => None,
        }
    };
    one == other || account(one).is_some_and(|it| account(other) == Some(it))
}
