//! Whose login it is, and what of the server's doing that rests on.
//!
//! A login can name two people: whose password it is, and whom to act as. Which of them a server logs in is a
//! fact of that server; a fence that goes by the other one neither holds the login nor closes its session.

use std::fmt;

use crate::{Name, NameError, NamePolicy};

/// The name that a login is routed and fenced by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginIdentity {
    name: Name,
    second: Option<SecondName>,
}

/// The way in which a login names somebody beside the owner of its secret. Before it is sent to an endpoint, ask
/// [`Endpoint::is_known_to_heed`](crate::Endpoint::is_known_to_heed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecondName {
    /// By an authorization identity (RFC 4616 §2) that is another name than the authentication identity.
    AuthorizationIdentity,
    /// By a separator in the login, as in `user*master`.
    MasterUser(char),
    /// By a name beside a bearer token that is another than its owner's (RFC 7628 §3.1).
    BesideToken,
    /// By a name beside a bearer token that nobody but the server can read: the token may be somebody else's.
    UnreadToken,
}

impl SecondName {
    /// The key of the endpoint that would have to say what the server does.
    pub const fn key(self) -> &'static str {
        match self {
            Self::AuthorizationIdentity | Self::BesideToken | Self::UnreadToken => {
                "authorization_identity"
            }
            Self::MasterUser(_) => "master_separators",
        }
    }
}

impl fmt::Display for SecondName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthorizationIdentity => {
                f.write_str("an authorization identity beside the authentication identity")
            }
            Self::MasterUser(separator) => write!(f, "a master user behind {separator:?}"),
            Self::BesideToken => f.write_str("a name beside the bearer token of another"),
            Self::UnreadToken => f.write_str("a name beside a bearer token that is not read here"),
        }
    }
}

impl LoginIdentity {
    /// The name that the login is routed and fenced by.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// What the login rests on, if it names two people.
    pub const fn second_name(&self) -> Option<SecondName> {
        self.second
    }
}

impl NamePolicy {
    /// Whose login by password it is: the authorization identity's if there is one (RFC 4616 §2: the
    /// authentication identity acts as it), else the authentication identity's.
    ///
    /// # Errors
    /// [`NameError`]: it has no name, or more than one way to be read.
    pub fn identify(&self, user: &str, acts_as: Option<&str>) -> Result<LoginIdentity, NameError> {
        let acts_as = acts_as.filter(|login| !login.is_empty());
        let separator = self.master_separator(user)?;
        let own = self.canonicalise(user);
        let Some(acts_as) = acts_as else {
            return Ok(LoginIdentity {
                name: own?,
                second: separator.map(SecondName::MasterUser),
            });
        };
        if self.master_separator(acts_as)?.is_some() {
            return Err(NameError::SeveralMasters);
        }
        let name = self.canonicalise(acts_as)?;
        let second = match (own, separator) {
            (Ok(own), separator) if own == name => separator.map(SecondName::MasterUser),
            (_, Some(_)) => return Err(NameError::SeveralMasters),
            // A server's administrator may well have no domain.
            (Ok(_) | Err(NameError::BareName), None) => Some(SecondName::AuthorizationIdentity),
            (Err(error), None) => return Err(error),
        };
        Ok(LoginIdentity { name, second })
    }

    /// Whose login by bearer token it is: its `owner`'s, whatever name came beside it.
    ///
    /// What came beside it need not be a name: a server that goes by the token does not look at it.
    ///
    /// # Errors
    /// [`NameError`]: the owner has no name.
    pub fn identify_owner(
        &self,
        owner: &str,
        beside: Option<&str>,
    ) -> Result<LoginIdentity, NameError> {
        let name = self.of_one_person(owner)?;
        let is_other = |login| self.of_one_person(login).as_ref() != Ok(&name);
        let second = beside
            .is_some_and(is_other)
            .then_some(SecondName::BesideToken);
        Ok(LoginIdentity { name, second })
    }

    /// Whose login it is by a bearer token that nobody here can read: that of the name `beside` it, where the
    /// server will not let in anybody else.
    ///
    /// # Errors
    /// [`NameError`]: there is none.
    pub fn identify_beside(&self, beside: &str) -> Result<LoginIdentity, NameError> {
        Ok(LoginIdentity {
            name: self.of_one_person(beside)?,
            second: Some(SecondName::UnreadToken),
        })
    }

    /// The canonical name of a login in which nobody acts as somebody else.
    fn of_one_person(&self, login: &str) -> Result<Name, NameError> {
        match self.master_separator(login)? {
            Some(_) => Err(NameError::SeveralMasters),
            None => self.canonicalise(login),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BareNames;

    fn policy(bare_names: BareNames) -> NamePolicy {
        NamePolicy {
            bare_names,
            master_separators: vec!['*', '%'],
            sub_address_separator: Some('+'),
            local_part_case_sensitive: false,
        }
    }

    fn read(user: &str, acts_as: Option<&str>) -> Result<(String, Option<SecondName>), NameError> {
        let identity = policy(BareNames::Listed).identify(user, acts_as)?;
        Ok((identity.name().as_str().to_owned(), identity.second_name()))
    }

    #[test]
    fn the_authorization_identity_decides_and_rests_on_the_server_where_it_is_another_name() {
        let second = Some(SecondName::AuthorizationIdentity);
        assert_eq!(read("admin", Some("alice")), Ok(("alice".into(), second)));
        assert_eq!(read("alice", Some("")), Ok(("alice".into(), None)));
        assert_eq!(read("alice", None), Ok(("alice".into(), None)));
        assert_eq!(read("Alice+x", Some("alice")), Ok(("alice".into(), None)));
    }

    #[test]
    fn a_master_user_rests_on_the_separator() {
        let second = Some(SecondName::MasterUser('%'));
        assert_eq!(read("alice%boss", None), Ok(("alice".into(), second)));
        assert_eq!(
            read("alice%boss", Some("Alice")),
            Ok(("alice".into(), second))
        );
    }

    #[test]
    fn three_people_have_no_name() {
        for (user, acts_as) in [
            ("alice%boss", Some("bob")),
            ("boss", Some("alice%boss")),
            ("alice%bob%boss", None),
            ("alice%bob*boss", Some("alice")),
        ] {
            let refused = read(user, acts_as);
            assert_eq!(
                refused,
                Err(NameError::SeveralMasters),
                "{user} {acts_as:?}"
            );
        }
    }

    #[test]
    fn an_administrator_without_a_domain_acts_as_a_user_with_one() {
        let policy = policy(BareNames::Refuse);
        let identity = policy.identify("admin", Some("alice@example.org"));
        let second = identity.map(|identity| identity.second_name());
        assert_eq!(second, Ok(Some(SecondName::AuthorizationIdentity)));
        assert_eq!(policy.identify("admin", None), Err(NameError::BareName));
        let odd = policy.identify("ad min", Some("alice@example.org"));
        assert_eq!(odd, Err(NameError::Character));
    }

    #[test]
    fn a_token_is_its_owner_s_and_a_name_beside_it_rests_on_the_server() {
        let policy = policy(BareNames::Listed);
        let second = |beside| {
            let identity = policy.identify_owner("alice", beside).expect("a name");
            assert_eq!(identity.name().as_str(), "alice");
            identity.second_name()
        };
        assert_eq!(second(None), None);
        assert_eq!(second(Some("ALICE")), None);
        for other in ["bob", "al ice", "alice%boss", ""] {
            assert_eq!(
                second(Some(other)),
                Some(SecondName::BesideToken),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_token_s_owner_is_one_person() {
        let policy = policy(BareNames::Refuse);
        let owner = |owner| policy.identify_owner(owner, None).map(|_| ());
        assert_eq!(owner("alice@example.org"), Ok(()));
        assert_eq!(owner("alice"), Err(NameError::BareName));
        assert_eq!(
            owner("alice@example.org%boss"),
            Err(NameError::SeveralMasters)
        );
    }

    #[test]
    fn a_name_beside_a_token_that_is_not_read_rests_on_the_server() {
        let policy = policy(BareNames::Refuse);
        let identity = policy.identify_beside("Alice@example.org").expect("a name");
        assert_eq!(identity.name().as_str(), "alice@example.org");
        assert_eq!(identity.second_name(), Some(SecondName::UnreadToken));
        let acting = policy.identify_beside("alice@example.org%boss");
        assert_eq!(acting, Err(NameError::SeveralMasters));
    }
}
