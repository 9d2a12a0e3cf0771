//! Which rule a request follows, and what that makes of it.
//!
//! Rules are tried in order, and the first whose conditions all hold is followed. Nothing is read that is not
//! needed: what the head decides is decided without the body, and [`Route::ReadBody`] says where it is not.
//! They see a request after [its header is clean](crate::fields::clean_request) and [its path
//! normal](crate::target::NormalPath), which is what the server gets.
//!
//! A path that servers split in different ways is tried in every way. If two rules come of it, it is refused:
//! one of them was made to keep it from the other's destination.

mod config;
mod pattern;

use std::fmt;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

pub use config::{
    FieldConfig, LearnsConfig, MAX_SECONDS, Problem, RuleConfig, WithoutAccountConfig,
};

use self::pattern::{HostPattern, PathPattern};
use crate::identity::{self, Claim, Claims, Found, Source};
use crate::target::{Host, NormalPath, Segments};
use crate::{Refusal, cookie};

/// The most octets of a body that is read for a rule: a login form with a page of hidden fields.
pub const MAX_BODY: usize = 64 * 1024;

/// A valid list of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// A valid rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    hosts: Vec<HostPattern>,
    methods: Vec<Method>,
    paths: Vec<PathPattern>,
    headers: Vec<Condition<HeaderName>>,
    query: Vec<Condition<String>>,
    form: Vec<Condition<String>>,
    action: Action,
}

/// A named value must be one of these, or merely be there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition<N> {
    name: N,
    values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Pin {
        destination: String,
        writes_to_accounts: bool,
        learns: Option<Learns>,
    },
    Account {
        sources: Vec<Source>,
        without_account: WithoutAccount,
        learns: Option<Learns>,
    },
}

/// What is learned of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Learns {
    sources: Vec<Source>,
    status: Vec<u16>,
    server_cookie: String,
    seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum WithoutAccount {
    Challenge,
    Default,
    Pin {
        destination: String,
        writes_to_accounts: bool,
    },
}

/// What rules see of a request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its host.
    pub host: &'a Host,
    /// Its method.
    pub method: &'a Method,
    /// Its path.
    pub path: &'a NormalPath,
    /// Its query, as it came.
    pub query: Option<&'a str>,
    /// Its header, clean.
    pub headers: &'a HeaderMap,
}

/// What has been read of a request's body.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Nothing: the head is to decide, if it can.
    Unread,
    /// All of it.
    Read(&'a [u8]),
    /// It has more than [`MAX_BODY`] octets.
    TooLarge,
}

/// What becomes of a request.
#[derive(Debug)]
pub struct Decision<'r> {
    /// The rule that was followed, for the log.
    pub rule: &'r str,
    /// Where it goes.
    pub route: Route<'r>,
    /// The sign-in that it is, if the server takes it.
    pub sign_in: Option<SignIn>,
}

/// A sign-in whose response is to be [looked at](SignIn::outcome).
pub struct SignIn {
    /// The login that was said.
    pub login: String,
    /// For how many seconds it is remembered.
    pub seconds: u64,
    learns: Learns,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIn")
    }
}

impl SignIn {
    /// The server's cookie by which it is remembered.
    pub fn server_cookie(&self) -> &str {
        &self.learns.server_cookie
    }

    /// What a response to it says: by its status that the server took it, and by its `Set-Cookie` (RFC 6265
    /// §4.1) as what. One that sets the cookie twice says nothing, since browsers and we might keep different
    /// ones.
    pub fn outcome<'a>(&self, status: StatusCode, response: &'a HeaderMap) -> Option<&'a [u8]> {
        if !self.learns.status.contains(&status.as_u16()) {
            return None;
        }
        let mut values = cookie::given(response, &self.learns.server_cookie);
        values
            .next()
            .filter(|value| !value.is_empty() && values.next().is_none())
    }
}

/// Where a request goes.
#[derive(Debug)]
pub enum Route<'r> {
    /// To this destination, whoever's it is.
    Pinned {
        /// Its id.
        destination: &'r str,
        /// Whether the request can change an account's mail or settings: then it is a risk that remains, and
        /// during a fence of accounts at that destination it is not let through.
        writes_to_accounts: bool,
    },
    /// To where this account lives, which all of these must name.
    Account(Claims),
    /// To where names go that have no record; it cannot write.
    Default,
    /// Nowhere: it has to say whose it is, in one of these ways.
    Challenge(Vec<Challenge>),
    /// That cannot be told before all of the body has been read, of at most [`MAX_BODY`] octets. The server
    /// gets the same octets.
    ReadBody,
}

/// A way to say whose a request is, as a challenge (RFC 9110 §11.6.1) can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 7617.
    Basic,
    /// RFC 6750.
    Bearer,
}

impl Challenge {
    /// The value of `WWW-Authenticate`.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Basic => "Basic realm=\"mail\", charset=\"UTF-8\"",
            Self::Bearer => "Bearer realm=\"mail\"",
        })
    }
}

impl Rules {
    /// What becomes of a request.
    ///
    /// # Errors
    /// - [`Refusal::NoRule`]: no rule is for it.
    /// - [`Refusal::Path`]: two are, depending on who reads its path.
    /// - [`Refusal::Repeated`], [`Refusal::Credentials`], [`Refusal::Target`], [`Refusal::BodyForm`],
    ///   [`Refusal::BodyTooLarge`]: what a rule needs to know cannot be told.
    pub fn decide(&self, request: &Request<'_>, body: Body<'_>) -> Result<Decision<'_>, Refusal> {
        let (exact, lax) = request.path.readings();
        let found = self.find(&exact, request, body)?;
        if let Some(lax) = lax {
            match (found, self.find(&lax, request, body)?) {
                (Match::NeedsBody(rule), _) | (_, Match::NeedsBody(rule)) => {
                    return Ok(rule.needs_body());
                }
                (one, other) if one != other => return Err(Refusal::Path),
                _ => {}
            }
        }
        match found {
            Match::None => Err(Refusal::NoRule),
            Match::NeedsBody(rule) => Ok(rule.needs_body()),
            Match::Rule(rule) => rule.follow(request, body),
        }
    }

    /// Whether there are none, so that no request is let through.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hosts that the rules name in full, in their order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let patterns = self.0.iter().flat_map(|rule| &rule.hosts);
        patterns.filter_map(HostPattern::whole)
    }

    /// Whether any of them remembers sign-ins, for which keys are needed.
    pub fn learn(&self) -> bool {
        self.0.iter().any(|rule| match &rule.action {
            Action::Pin { learns, .. } | Action::Account { learns, .. } => learns.is_some(),
        })
    }

    /// The rules that pin what can write to accounts, each with its destination: risks that remain, to be
    /// printed before a move.
    pub fn residual_risks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|rule| match &rule.action {
            Action::Pin {
                destination,
                writes_to_accounts: true,
                ..
            }
            | Action::Account {
                without_account:
                    WithoutAccount::Pin {
                        destination,
                        writes_to_accounts: true,
                    },
                ..
            } => Some((rule.name.as_str(), destination.as_str())),
            _ => None,
        })
    }

    fn find(
        &self,
        path: &Segments<'_>,
        request: &Request<'_>,
        body: Body<'_>,
    ) -> Result<Match<'_>, Refusal> {
        for rule in &self.0 {
            if !rule.matches_head(path, request)? {
                continue;
            }
            match rule.matches_form(request, body)? {
                None => return Ok(Match::NeedsBody(rule)),
                Some(true) => return Ok(Match::Rule(rule)),
                Some(false) => {}
            }
        }
        Ok(Match::None)
    }
}

#[derive(Clone, Copy)]
enum Match<'r> {
    None,
    Rule(&'r Rule),
    NeedsBody(&'r Rule),
}

impl PartialEq for Match<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Rule(one), Self::Rule(other)) => std::ptr::eq(*one, *other),
            _ => false,
        }
    }
}

impl Rule {
    fn needs_body(&self) -> Decision<'_> {
        Decision {
            rule: &self.name,
            route: Route::ReadBody,
            sign_in: None,
        }
    }

    fn matches_head(&self, path: &Segments<'_>, request: &Request<'_>) -> Result<bool, Refusal> {
        let matches = (self.hosts.is_empty()
            || self.hosts.iter().any(|host| host.matches(request.host)))
            && (self.methods.is_empty() || self.methods.contains(request.method))
            && (self.paths.is_empty() || self.paths.iter().any(|it| it.matches(path)));
        if !matches {
            return Ok(false);
        }
        for condition in &self.headers {
            if !condition.holds(identity::in_header(request, &condition.name)?) {
                return Ok(false);
            }
        }
        for condition in &self.query {
            if !condition.holds(identity::in_query(request, &condition.name)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `None`: the body has to be read for that.
    fn matches_form(&self, request: &Request<'_>, body: Body<'_>) -> Result<Option<bool>, Refusal> {
        if self.form.is_empty() {
            return Ok(Some(true));
        }
        if !has_media_type(request.headers, FORM) {
            return Ok(Some(false));
        }
        let Some(form) = body.form(request)? else {
            return Ok(None);
        };
        for condition in &self.form {
            if !condition.holds(identity::in_form(form, &condition.name)?) {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    fn follow(&self, request: &Request<'_>, body: Body<'_>) -> Result<Decision<'_>, Refusal> {
        let (route, sign_in) = match &self.action {
            Action::Pin {
                destination,
                writes_to_accounts,
                learns,
            } => {
                let sign_in = match learns {
                    None => None,
                    Some(learns) => match claims(&learns.sources, request, body)? {
                        Said::InBody => return Ok(self.needs_body()),
                        Said::Claims(claims) => learns.sign_in(&claims.first),
                        Said::Nothing => None,
                    },
                };
                let route = Route::Pinned {
                    destination,
                    writes_to_accounts: *writes_to_accounts,
                };
                (route, sign_in)
            }
            Action::Account {
                sources,
                without_account,
                learns,
            } => match claims(sources, request, body)? {
                Said::InBody => return Ok(self.needs_body()),
                Said::Claims(claims) => {
                    let sign_in = learns
                        .as_ref()
                        .and_then(|learns| learns.sign_in(&claims.first));
                    (Route::Account(claims), sign_in)
                }
                Said::Nothing => (without_account.route(sources), None),
            },
        };
        Ok(Decision {
            rule: &self.name,
            route,
            sign_in,
        })
    }
}

impl Learns {
    fn sign_in(&self, claim: &Claim) -> Option<SignIn> {
        match claim {
            Claim::Login(login) => Some(SignIn {
                login: login.clone(),
                seconds: self.seconds,
                learns: self.clone(),
            }),
            Claim::Token(_) | Claim::Sealed(_) => None,
        }
    }
}

/// What a rule's sources say.
enum Said {
    /// Of no account whose it is.
    Nothing,
    /// This.
    Claims(Claims),
    /// It is in the body, which has not been read.
    InBody,
}

/// What the sources say, in their order. The body is looked into only if none before it has anything: what the head says is
/// not to wait for that.
fn claims(sources: &[Source], request: &Request<'_>, body: Body<'_>) -> Result<Said, Refusal> {
    let mut said: Option<Claims> = None;
    for source in sources {
        if said.is_some() && source.is_in_body() {
            continue;
        }
        match (source.read(request, body)?, &mut said) {
            (Found::Nothing, _) => {}
            (Found::InBody, _) => return Ok(Said::InBody),
            (Found::Claim(claim), Some(claims)) => claims.others.push(claim),
            (Found::Claim(claim), none) => *none = Some(claim.into()),
        }
    }
    Ok(said.map_or(Said::Nothing, Said::Claims))
}

impl WithoutAccount {
    fn route(&self, sources: &[Source]) -> Route<'_> {
        match self {
            Self::Default => Route::Default,
            Self::Pin {
                destination,
                writes_to_accounts,
            } => Route::Pinned {
                destination,
                writes_to_accounts: *writes_to_accounts,
            },
            Self::Challenge => Route::Challenge(
                sources
                    .iter()
                    .filter_map(|source| match source {
                        Source::Basic => Some(Challenge::Basic),
                        Source::Bearer => Some(Challenge::Bearer),
                        _ => None,
                    })
                    .collect(),
            ),
        }
    }
}

impl<N> Condition<N> {
    fn holds(&self, value: Option<String>) -> bool {
        value.is_some_and(|value| self.values.is_empty() || self.values.contains(&value))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

impl<'a> Body<'a> {
    /// The form in it, empty where it is none; `None`: it has to be read.
    pub(crate) fn form(self, request: &Request<'_>) -> Result<Option<&'a [u8]>, Refusal> {
        self.of(request, FORM, b"")
    }

    /// The JSON document in it, an empty one where it is none; `None`: it has to be read.
    pub(crate) fn json(self, request: &Request<'_>) -> Result<Option<&'a [u8]>, Refusal> {
        self.of(request, JSON, b"{}")
    }

    fn of(
        self,
        request: &Request<'_>,
        media_type: &str,
        empty: &'a [u8],
    ) -> Result<Option<&'a [u8]>, Refusal> {
        if !has_media_type(request.headers, media_type) {
            return Ok(Some(empty));
        }
        // A compressed login form: no client sends one, and who does wants us not to see what is in it.
        if request.headers.contains_key(CONTENT_ENCODING) || is_of_another_charset(request.headers)
        {
            return Err(Refusal::BodyForm);
        }
        match self {
            Self::Unread => Ok(None),
            Self::TooLarge => Err(Refusal::BodyTooLarge),
            Self::Read(octets) if octets.len() > MAX_BODY => Err(Refusal::BodyTooLarge),
            Self::Read(octets) => Ok(Some(octets)),
        }
    }
}

/// Whether the body is said to be of this media type, whatever its parameters (RFC 9110 §8.3.1). To PHP it ends at a
/// comma or a blank as well, so it does here: what is read in vain does no harm.
fn has_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let mut parts = value
        .as_bytes()
        .split(|octet| matches!(octet, b';' | b',' | b' ' | b'\t'));
    parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case(media_type.as_bytes()))
}

/// Whether the body's characters are said to be others than those in which it is looked at. Java's servers take the
/// charset for granted, and in one that has its letters elsewhere a form has other names.
fn is_of_another_charset(headers: &HeaderMap) -> bool {
    const LIKE_ASCII: [&[u8]; 4] = [b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1"];
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let said = value.as_bytes().to_ascii_lowercase();
    let mut charsets = said
        .windows(CHARSET.len())
        .enumerate()
        .filter_map(|(at, it)| (it == CHARSET).then_some(&said[at + CHARSET.len()..]));
    charsets.any(|rest| {
        let name = rest.strip_prefix(b"=").unwrap_or_default();
        let name = name.split(|octet| matches!(octet, b';' | b',' | b' ' | b'\t'));
        let name = name.map(<[u8]>::trim_ascii).next().unwrap_or_default();
        let bare = name
            .strip_prefix(b"\"")
            .and_then(|it| it.strip_suffix(b"\""));
        !LIKE_ASCII.contains(&bare.unwrap_or(name))
    })
}

const CHARSET: &[u8] = b"charset";

#[cfg(test)]
mod tests;
