//! Canonical names: the one function that says which logins are the same.
//!
//! Routing, fencing, limits, look-ups and audit all go by what stands here. Two logins that a mail
//! server takes for one account must come out as one name, or a fence would miss a session; so
//! folding errs on the coarse side (case, width, compatibility forms), and what servers read
//! differently from each other (several `@`, quotes, spaces, invisible characters) has no name at
//! all.

use std::{borrow::Cow, fmt, sync::Arc};

use unicode_normalization::UnicodeNormalization as _;

/// Longest login that is looked at, in bytes: a local part of 64 and a domain of 255 octets
/// (RFC 5321 §4.5.3.1), a master user of the same size and room for multi-byte characters.
pub const MAX_LOGIN_BYTES: usize = 1024;

/// Longest canonical name in bytes: names are part of store keys.
pub const MAX_NAME_BYTES: usize = 512;

/// A canonical login form: `local@domain`, or a bare `local` under a policy that lists those. Built
/// only by a [`NamePolicy`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    fn new(local: &str, domain: Option<&DomainName>) -> Result<Self, NameError> {
        let text = match domain {
            Some(domain) => format!("{local}@{}", domain.as_str()),
            None => local.to_owned(),
        };
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// As text, for keys and messages.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the domain.
    pub fn local_part(&self) -> &str {
        self.0.rsplit_once('@').map_or(&self.0, |(local, _)| local)
    }

    /// The domain, or `None` for a bare name.
    pub fn domain(&self) -> Option<&str> {
        self.0.rsplit_once('@').map(|(_, domain)| domain)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A canonical domain: lower-case A-labels without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Arc<str>);

impl DomainName {
    /// Canonicalises: UTS 46 mapping, A-labels, no trailing dot. An address literal (`[192.0.2.1]`)
    /// is no domain.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if is_canonical(text) {
            return Ok(Self(text.into()));
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| NameError::Domain)?;
        if ascii.is_empty() || ascii.ends_with('.') {
            return Err(NameError::Domain);
        }
        Ok(Self(ascii.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a domain is certainly in its canonical form: lower-case letters, digits and hyphens, and no A-label, which has
/// to be looked into. Most domains are, and a request by HTTP names one each time.
fn is_canonical(domain: &str) -> bool {
    let is_plain = |label: &str| {
        let octets = label.as_bytes();
        let is_letter = |it: &u8| matches!(it, b'a'..=b'z' | b'0'..=b'9');
        matches!(octets.len(), 1..=63)
            && octets.iter().all(|it| is_letter(it) || *it == b'-')
            && octets.first().is_some_and(is_letter)
            && octets.last().is_some_and(is_letter)
            && octets.get(2..4) != Some(b"--")
    };
    domain.len() <= 253 && domain.split('.').all(is_plain)
}

/// Why a login has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing before the `@` or the master separator.
    #[error("the login has no user part")]
    Empty,
    /// Over [`MAX_LOGIN_BYTES`] or [`MAX_NAME_BYTES`].
    #[error("the login is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("the login is not UTF-8")]
    Encoding,
    /// A control, space, quote, backslash or invisible character.
    #[error("the login has a character that no name can have")]
    Character,
    /// More than one `@`: servers disagree about which one counts.
    #[error("the login has more than one @")]
    SeveralAts,
    /// More than one master separator, or one in an authorization identity, or beside one that names somebody
    /// else: servers disagree about who acts as whom.
    #[error("the login says in more than one way whom it acts as")]
    SeveralMasters,
    /// What follows the `@` is no domain.
    #[error("the login's domain is not valid")]
    Domain,
    /// The policy refuses logins without a domain.
    #[error("a login needs its domain: user@domain")]
    BareName,
}

/// What a login without a domain means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BareNames {
    /// It is in this domain.
    DefaultDomain(DomainName),
    /// It is a name of its own.
    Listed,
    /// It is refused.
    Refuse,
}

/// The parameters of canonicalisation, part of the routing configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePolicy {
    /// Logins without a domain.
    pub bare_names: BareNames,
    /// Any of these starts the master user.
    pub master_separators: Vec<char>,
    /// This starts a sub-address.
    pub sub_address_separator: Option<char>,
    /// Local parts that differ in case are different.
    pub local_part_case_sensitive: bool,
}

impl NamePolicy {
    /// The canonical name of a login. Idempotent: a name's own text is its canonical form.
    pub fn canonicalise(&self, login: &str) -> Result<Name, NameError> {
        if login.len() > MAX_LOGIN_BYTES {
            return Err(NameError::TooLong);
        }
        let folded = normal_form(login);
        let (user, _) = self.without_master(&folded)?;
        if user.chars().any(is_forbidden) {
            return Err(NameError::Character);
        }
        let (local, domain) = match user.split_once('@') {
            Some((_, rest)) if rest.contains('@') => return Err(NameError::SeveralAts),
            Some((local, domain)) => (local, Some(DomainName::parse(domain)?)),
            None => (user, None),
        };
        let domain = domain.as_ref().or(self.default_domain());
        let local = self.fold_local(local)?;
        if domain.is_none() && self.bare_names == BareNames::Refuse {
            return Err(NameError::BareName);
        }
        Name::new(&local, domain)
    }

    /// The name of a local part as it stands in an address: the text is in its normal form, and nobody has looked
    /// at its characters.
    pub(crate) fn name_of(
        &self,
        local: &str,
        domain: Option<&DomainName>,
    ) -> Result<Name, NameError> {
        let is_of_no_name = |c| is_forbidden(c) || c == '@' || self.master_separators.contains(&c);
        let local = self.without_sub_address(local);
        // Of what reaches the mailbox: the sub-address may be as long as it likes.
        if local.len() > MAX_LOGIN_BYTES {
            return Err(NameError::TooLong);
        }
        if local.chars().any(is_of_no_name) {
            return Err(NameError::Character);
        }
        Name::new(&self.fold_local(local)?, domain)
    }

    pub(crate) fn default_domain(&self) -> Option<&DomainName> {
        match &self.bare_names {
            BareNames::DefaultDomain(domain) => Some(domain),
            BareNames::Listed | BareNames::Refuse => None,
        }
    }

    /// The separator at which a login is a user's and a master user's, if there is one.
    pub(crate) fn master_separator(&self, login: &str) -> Result<Option<char>, NameError> {
        Ok(self.without_master(&normal_form(login))?.1)
    }

    /// `user*master` acts as `user`, whatever `master` is. With several separators Dovecot parts at the first
    /// one and Stalwart at the last.
    fn without_master<'a>(&self, login: &'a str) -> Result<(&'a str, Option<char>), NameError> {
        let mut separators = login.match_indices(&self.master_separators[..]);
        match (separators.next(), separators.next()) {
            (None, _) => Ok((login, None)),
            (Some((at, separator)), None) => Ok((&login[..at], separator.chars().next())),
            (Some(_), Some(_)) => Err(NameError::SeveralMasters),
        }
    }

    /// A name that starts with the separator has no part before it to stand for.
    fn without_sub_address<'a>(&self, local: &'a str) -> &'a str {
        let separator = self.sub_address_separator;
        let parts = separator.and_then(|separator| local.split_once(separator));
        match parts {
            Some((user, _)) if !user.is_empty() => user,
            _ => local,
        }
    }

    fn fold_local(&self, local: &str) -> Result<String, NameError> {
        let local = self.without_sub_address(local);
        if local.is_empty() {
            return Err(NameError::Empty);
        }
        if self.local_part_case_sensitive {
            return Ok(local.to_owned());
        }
        if local.is_ascii() {
            return Ok(local.to_ascii_lowercase());
        }
        // Lower-casing can undo the normal form and the other way round, so go on until neither
        // changes anything; two rounds settle every character of Unicode.
        let mut folded = local.to_owned();
        loop {
            let next: String = folded.chars().flat_map(char::to_lowercase).nfkc().collect();
            if next == folded {
                break;
            }
            folded = next;
        }
        if folded.chars().any(|c| is_forbidden(c) || c == '@') {
            return Err(NameError::Character);
        }
        Ok(folded)
    }
}

/// ASCII is its own normal form, and most logins are nothing else.
fn normal_form(login: &str) -> Cow<'_, str> {
    if login.is_ascii() {
        Cow::Borrowed(login)
    } else {
        Cow::Owned(login.nfkc().collect())
    }
}

/// What no name may contain. Controls and line ends would be an injection where the name is copied
/// into another protocol; white space, quotes and backslashes are read differently by
/// different servers; `*` and `%` mean a master user or a route to many of them, so where the policy does
/// not name them as separators they are refused rather than guessed at; invisible characters make
/// two names look like one.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(
            c,
            '"' | '\\' | '<' | '>' | '(' | ')' | ',' | ';' | ':' | '/' | '*' | '%'
        )
        || is_invisible(c)
}

/// What nobody sees, and some servers pass over.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(bare_names: BareNames) -> NamePolicy {
        NamePolicy {
            bare_names,
            master_separators: vec!['*', '%'],
            sub_address_separator: Some('+'),
            local_part_case_sensitive: false,
        }
    }

    fn canonical(login: &str) -> Result<String, NameError> {
        policy(BareNames::Listed)
            .canonicalise(login)
            .map(|n| n.as_str().to_owned())
    }

    proptest! {
        #[test]
        fn a_domain_that_is_taken_as_it_stands_is_what_it_would_have_been_made(
            domain in "[a-z0-9-]{1,64}(\\.[a-z0-9-]{1,64}){0,4}",
        ) {
            if is_canonical(&domain) {
                let made = idna::domain_to_ascii_strict(&domain);
                prop_assert_eq!(made.ok(), Some(domain));
            }
        }
    }

    #[test]
    fn forms_that_a_server_takes_for_one_account_are_one_name() {
        for login in [
            "alice@example.org",
            "Alice@EXAMPLE.org",
            "alice@example.org.",
            "ＡLICE@example.org",
            "alice＠example.org",
            "alice+lists@example.org",
            "alice@example.org*admin",
            "alice@example.org%admin@example.org",
        ] {
            assert_eq!(
                canonical(login).as_deref(),
                Ok("alice@example.org"),
                "{login}"
            );
        }
    }

    #[test]
    fn domains_become_a_labels() {
        assert_eq!(
            canonical("a@BÜCHER.example").as_deref(),
            Ok("a@xn--bcher-kva.example")
        );
        assert_eq!(
            canonical("a@xn--bcher-kva.example").as_deref(),
            Ok("a@xn--bcher-kva.example")
        );
    }

    #[test]
    fn what_servers_read_differently_has_no_name() {
        for (login, error) in [
            ("", NameError::Empty),
            ("@example.org", NameError::Empty),
            ("*admin", NameError::Empty),
            ("a@b@example.org", NameError::SeveralAts),
            ("a%b%admin", NameError::SeveralMasters),
            ("a@example.org*b%admin", NameError::SeveralMasters),
            ("a b@example.org", NameError::Character),
            ("a\0@example.org", NameError::Character),
            ("a\r\nLOGOUT@example.org", NameError::Character),
            ("\"a\"@example.org", NameError::Character),
            ("a\u{200b}@example.org", NameError::Character),
            ("a@", NameError::Domain),
            ("a@-x.org", NameError::Domain),
            ("a@b..org", NameError::Domain),
            ("a@[192.0.2.1]", NameError::Domain),
        ] {
            assert_eq!(canonical(login), Err(error), "{login:?}");
        }
        assert_eq!(canonical(&"a".repeat(2000)), Err(NameError::TooLong));
        assert_eq!(canonical(&"a".repeat(600)), Err(NameError::TooLong));
    }

    #[test]
    fn bare_names_follow_the_policy() {
        let domain = DomainName::parse("Example.ORG").expect("a domain");
        let name = policy(BareNames::DefaultDomain(domain))
            .canonicalise("Alice")
            .expect("a name");
        assert_eq!(name.as_str(), "alice@example.org");
        assert_eq!(name.domain(), Some("example.org"));
        assert_eq!(name.local_part(), "alice");
        let name = policy(BareNames::Listed)
            .canonicalise("Alice")
            .expect("a name");
        assert_eq!((name.as_str(), name.domain()), ("alice", None));
        assert_eq!(name.local_part(), "alice");
        assert_eq!(
            policy(BareNames::Refuse).canonicalise("Alice"),
            Err(NameError::BareName)
        );
    }

    #[test]
    fn case_may_be_kept() {
        let mut policy = policy(BareNames::Listed);
        policy.local_part_case_sensitive = true;
        let name = policy.canonicalise("Alice@EXAMPLE.org").expect("a name");
        assert_eq!(name.as_str(), "Alice@example.org");
    }

    proptest! {
        #[test]
        fn a_name_is_its_own_canonical_form(login in "\\PC{1,40}(@[a-zA-Z]{1,8}\\.(org|ORG))?") {
            let policy = policy(BareNames::Listed);
            if let Ok(name) = policy.canonicalise(&login) {
                prop_assert_eq!(policy.canonicalise(name.as_str()), Ok(name));
            }
        }

        #[test]
        fn no_login_panics(login in any::<String>()) {
            let _ = policy(BareNames::Refuse).canonicalise(&login);
        }
    }
}
