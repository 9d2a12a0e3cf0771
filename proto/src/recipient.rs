//! Whom a message is for.
//!
//! A recipient is written in another language than a login. There is no master user in it, `%`, `/` and `,` are
//! letters like others, the local part may be quoted (RFC 5321 §4.1.2) or not be ASCII (RFC 6531 §3.3), and whoever
//! refuses what is legal loses somebody's mail. But it reaches the same mailboxes: what a server may deliver to an
//! account must come out as one of that account's names, or a delivery would pass its fence. So everything that
//! leads to a name is taken off (quotes, the sub-address, invisible characters), on the coarse side as with
//! logins, and only what no login can be follows the rule of its domain.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization as _;

use crate::name::is_invisible;
use crate::{BareNames, DomainName, Name, NamePolicy, NoRoute};

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// Whoever logs in under this name: routed and fenced as that login is.
    Name(Name),
    /// Nobody who could log in. It goes where names of this domain go that have no record.
    Domain(DomainName),
}

impl NamePolicy {
    /// Whom an address means: `local@domain` without angle brackets and source route, the local part quoted or
    /// not. What is not quoted may hold anything: maps ask for addresses in that form.
    ///
    /// # Errors
    /// It can be in no domain that is served. Nothing else is wrong with any address.
    pub fn recipient(&self, address: &str) -> Result<Recipient, NoRoute> {
        let folded = if address.is_ascii() {
            Cow::Borrowed(address)
        } else {
            let visible = address.chars().filter(|&c| !is_invisible(c));
            Cow::Owned(visible.nfkc().collect())
        };
        let (local, domain) = match folded.rsplit_once('@') {
            // The last `@` of a quoted local part that no domain follows.
            Some((_, rest)) if rest.ends_with('"') => (&*folded, None),
            Some((local, domain)) => (local, Some(domain)),
            None => (&*folded, None),
        };
        let domain = match domain {
            // An address literal is no domain (§4.1.3).
            Some(domain) => Some(DomainName::parse(domain).map_err(|_| NoRoute::UnknownDomain)?),
            None => self.default_domain().cloned(),
        };
        let login = self.login(&unquoted(local), domain.as_ref());
        match (login, domain) {
            (Some(name), _) => Ok(Recipient::Name(name)),
            (None, Some(domain)) => Ok(Recipient::Domain(domain)),
            (None, None) => Err(NoRoute::BareName),
        }
    }

    /// The name under which a login could reach the same mailbox.
    fn login(&self, local: &str, domain: Option<&DomainName>) -> Option<Name> {
        if domain.is_none() && self.bare_names == BareNames::Refuse {
            return None;
        }
        self.name_of(local, domain).ok()
    }
}

/// A local part without its quotes and backslashes: `"a\l"` is another way to write `al`.
fn unquoted(local: &str) -> Cow<'_, str> {
    let quoted = local.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let Some(quoted) = quoted else {
        return Cow::Borrowed(local);
    };
    let mut octets = quoted.chars();
    let mut plain = String::with_capacity(quoted.len());
    while let Some(c) = octets.next() {
        match c {
            '\\' => plain.extend(octets.next()),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
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

    fn of(address: &str) -> Recipient {
        policy(BareNames::Listed).recipient(address).unwrap()
    }

    fn name(login: &str) -> Recipient {
        let name = policy(BareNames::Listed).canonicalise(login);
        Recipient::Name(name.unwrap())
    }

    fn nobody_in(domain: &str) -> Recipient {
        Recipient::Domain(DomainName::parse(domain).unwrap())
    }

    #[test]
    fn whatever_a_server_may_deliver_to_an_account_is_a_name_of_it() {
        for address in [
            "alice@example.org",
            "ALICE@Example.ORG.",
            "alice+lists@example.org",
            "alice+a/b,(c);d%e*f@example.org",
            r#""alice"@example.org"#,
            r#""al\ice"@example.org"#,
            r#""alice+with a space"@example.org"#,
            r#""alice+a@b"@example.org"#,
            "ＡLICE＠example.org",
            "al\u{200b}ice@example.org",
            "al\u{ad}ice@example.org",
        ] {
            assert_eq!(of(address), name("alice@example.org"), "{address}");
        }
        assert_eq!(of("alice"), name("alice"));
        let long = format!("alice+{}@example.org", "x".repeat(5000));
        assert_eq!(of(&long), name("alice@example.org"));
    }

    #[test]
    fn there_is_no_master_user_in_an_address() {
        for address in [
            "alice%x@example.org",
            "alice*admin@example.org",
            "alice%elsewhere.example@example.org",
            "a%b%c@example.org",
        ] {
            assert_eq!(of(address), nobody_in("example.org"), "{address}");
        }
    }

    #[test]
    fn nothing_that_is_legal_is_refused_and_what_no_login_can_be_follows_its_domain() {
        for address in [
            r#""two words"@example.org"#,
            r#""a@b"@example.org"#,
            r#""a\"b"@example.org"#,
            r#"""@example.org"#,
            "two words@example.org",
            "a@b@example.org",
            "joe/department@example.org",
            "@example.org",
            "\"open@example.org",
        ] {
            assert_eq!(of(address), nobody_in("example.org"), "{address}");
        }
        let longest = format!("{}@example.org", "a".repeat(5000));
        assert_eq!(of(&longest), nobody_in("example.org"));
        for legal in [
            "o'brien",
            "a.b",
            "a!b",
            "a{b}",
            "#1",
            "a&b~c^d|e",
            "häns",
            "=?",
        ] {
            let address = format!("{legal}@example.org");
            assert!(matches!(of(&address), Recipient::Name(_)), "{address}");
        }
    }

    #[test]
    fn what_can_be_in_no_domain_of_ours_goes_nowhere() {
        let policy = policy(BareNames::Refuse);
        for address in ["a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@", "a@b..c"] {
            assert_eq!(policy.recipient(address), Err(NoRoute::UnknownDomain));
        }
        for address in ["postmaster", r#""a@b""#, ""] {
            assert_eq!(policy.recipient(address), Err(NoRoute::BareName));
        }
    }

    #[test]
    fn an_address_without_a_domain_is_in_the_default_one() {
        let domain = DomainName::parse("example.org").unwrap();
        let policy = policy(BareNames::DefaultDomain(domain.clone()));
        assert_eq!(policy.recipient("Alice"), Ok(name("alice@example.org")));
        let nobody = Ok(Recipient::Domain(domain));
        assert_eq!(policy.recipient(r#""two words""#), nobody);
    }

    proptest! {
        /// Else a fence of the name would not reach the delivery.
        #[test]
        fn a_login_without_a_master_user_and_its_address_are_one_name(
            login in "[^@*%]{1,20}(@[a-zA-Z]{1,8}\\.(org|ORG))?",
        ) {
            let policy = policy(BareNames::Listed);
            if let Ok(name) = policy.canonicalise(&login) {
                prop_assert_eq!(policy.recipient(&login), Ok(Recipient::Name(name)));
            }
        }

        #[test]
        fn quotes_around_a_local_part_do_not_matter(
            local in "[a-zA-Z0-9.+ /,%*]{1,20}", detail in "[a-z ]{0,5}",
        ) {
            let plain = of(&format!("{local}+{detail}@example.org"));
            let quoted = of(&format!("\"{local}+{detail}\"@example.org"));
            prop_assert_eq!(plain, quoted);
        }

        #[test]
        fn no_address_panics(address in any::<String>()) {
            let _ = policy(BareNames::Refuse).recipient(&address);
        }
    }
}
