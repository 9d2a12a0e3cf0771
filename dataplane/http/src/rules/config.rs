//! The rules as an operator writes them, and everything that can be wrong with them.

use std::collections::BTreeSet;
use std::fmt;

use http::{HeaderName, Method};
use serde::Deserialize;

use super::pattern::{HostPattern, PathPattern};
use super::{Action, Condition, Learns, Rule, Rules, WithoutAccount};
use crate::identity::{JsonPointer, Source};

/// The most rules: each is tried in turn for every request.
const MAX_RULES: usize = 256;

/// The longest that a sign-in is remembered, in seconds: 30 days.
pub const MAX_SECONDS: u64 = 30 * 24 * 60 * 60;

/// One rule. Every condition that is given must hold; of a condition's values, one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleConfig {
    /// What logs and problems call it.
    pub name: String,
    /// Hosts: `mail.example.org`, `*.example.org`, `autoconfig.*`. None given: any.
    pub hosts: Vec<String>,
    /// Methods, in upper case. None given: any.
    pub methods: Vec<String>,
    /// Paths: `/auth/token` (with a slash at its end or without), `/api/*/session` (any one segment), `/dav/**`
    /// (that and everything below it). None given: any.
    pub paths: Vec<String>,
    /// Header fields, each in one line: one that stands in several is refused.
    pub headers: Vec<FieldConfig>,
    /// Parameters of the query.
    pub query: Vec<FieldConfig>,
    /// Fields of a form. The body is read for them, if all else holds.
    pub form: Vec<FieldConfig>,
    /// Sends the request to this destination, whoever's it is.
    pub pin: Option<String>,
    /// Sends the request to where its account lives, told from the first of these that is there: `basic`,
    /// `bearer`, `query:NAME`, `header:NAME`, `form:NAME`, `json:/MEMBER`, `cookie`.
    pub account_from: Vec<String>,
    /// What is done with a request that none of them is in.
    pub without_account: Option<WithoutAccountConfig>,
    /// Whether what goes to a destination without its account being known can change that account's mail or
    /// settings.
    pub writes_to_accounts: Option<bool>,
    /// What is learned of a sign-in under this rule, for the requests that follow it.
    pub learns: Option<LearnsConfig>,
}

/// A sign-in: a request that says whose it is, and a response that gives a cookie which does not.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnsConfig {
    /// Where the request says it, like the rule's own `account_from`: one of a pin's, or the rule's.
    #[serde(default)]
    pub account_from: Vec<String>,
    /// The status codes by which the server says that it took the login.
    pub status: Vec<u16>,
    /// The server's cookie.
    pub server_cookie: String,
    /// For how many seconds it is remembered: the server's session may be shorter, and should not be longer.
    pub seconds: u64,
}

/// A condition on a named value: it must be one of `values`, or merely be there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// Its name.
    pub name: String,
    /// What it may be. None given: anything.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What is done with a request that says of no account whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WithoutAccountConfig {
    /// 401, with a challenge for what the rule can read.
    Challenge,
    /// To where names go that have no record.
    Default,
    /// To this destination.
    Pin(String),
}

/// A mistake in the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The rule, counted from 0; `None`: it is about all of them.
    pub rule: Option<usize>,
    /// The rule, by its number and name.
    pub place: String,
    /// What is wrong, and how it is put right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl Rules {
    /// Checks the rules as they were written, in a routing configuration in which HTTP is spoken at these
    /// `destinations`.
    ///
    /// # Errors
    /// Every mistake, not only the first.
    pub fn new(rules: &[RuleConfig], destinations: &BTreeSet<&str>) -> Result<Self, Vec<Problem>> {
        let mut checker = Checker {
            problems: Vec::new(),
            rule: None,
            place: "rules".to_owned(),
            destinations,
        };
        if rules.len() > MAX_RULES {
            checker.wrong(format!(
                "there are {}, and at most {MAX_RULES} are tried: join paths into one rule",
                rules.len()
            ));
        }
        let mut names = BTreeSet::new();
        let mut all_taken_by = None;
        let mut valid = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            checker.rule = Some(at);
            checker.place = format!("rule {} ({})", at + 1, rule.name);
            if rule.name.is_empty() || !names.insert(&rule.name) {
                checker
                    .wrong("needs a name of its own, by which logs can say that it was followed");
            }
            if let Some(first) = all_taken_by {
                checker.wrong(format!(
                    "is never reached: rule {first} takes every request; move it to the end"
                ));
            } else if rule.takes_everything() {
                all_taken_by = Some(at + 1);
            }
            valid.extend(checker.rule(rule));
        }
        if checker.problems.is_empty() {
            Ok(Self(valid))
        } else {
            Err(checker.problems)
        }
    }
}

impl RuleConfig {
    fn takes_everything(&self) -> bool {
        self.hosts.is_empty()
            && self.methods.is_empty()
            && (self.paths.is_empty() || self.paths.iter().any(|path| path == "/**"))
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.form.is_empty()
    }
}

/// Collects mistakes.
struct Checker<'a> {
    problems: Vec<Problem>,
    rule: Option<usize>,
    place: String,
    destinations: &'a BTreeSet<&'a str>,
}

impl Checker<'_> {
    fn wrong(&mut self, message: impl Into<String>) {
        let place = self.place.clone();
        self.problems.push(Problem {
            rule: self.rule,
            place,
            message: message.into(),
        });
    }

    fn or_wrong<T>(&mut self, value: Option<T>, message: impl FnOnce() -> String) -> Option<T> {
        if value.is_none() {
            self.wrong(message());
        }
        value
    }

    fn rule(&mut self, rule: &RuleConfig) -> Option<Rule> {
        let host = |text: &String| {
            (
                HostPattern::parse(text),
                format!(
                    "\"{text}\" is no host: write mail.example.org, *.example.org or autoconfig.*"
                ),
            )
        };
        let method = |text: &String| {
            let is_upper = !text.bytes().any(|octet| octet.is_ascii_lowercase());
            let method = Method::from_bytes(text.as_bytes())
                .ok()
                .filter(|_| is_upper);
            (
                method,
                format!("\"{text}\" is no method: they are written in upper case, as PROPFIND is"),
            )
        };
        let path = |text: &String| {
            let fix = "write /login, /dav/** for that and what is below it, * for one segment, and é as %C3%A9";
            (
                PathPattern::parse(text),
                format!("\"{text}\" is no path: {fix}"),
            )
        };
        let hosts = self.all(&rule.hosts, host);
        let methods = self.all(&rule.methods, method);
        let paths = self.all(&rule.paths, path);
        let headers = self.all(&rule.headers, |field| {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .ok()
                .filter(is_seen);
            let condition = name.map(|name| Condition {
                name,
                values: field.values.clone(),
            });
            (
                condition,
                format!(
                    "\"{}\" is no header field that reaches the rules",
                    field.name
                ),
            )
        });
        let query = self.all(&rule.query, named);
        let form = self.all(&rule.form, named);
        let action = self.action(rule)?;
        Some(Rule {
            name: rule.name.clone(),
            hosts,
            methods,
            paths,
            headers,
            query,
            form,
            action,
        })
    }

    fn all<T, U>(&mut self, items: &[T], read: impl Fn(&T) -> (Option<U>, String)) -> Vec<U> {
        let mut all = Vec::new();
        for item in items {
            let (value, message) = read(item);
            all.extend(self.or_wrong(value, || message));
        }
        all
    }

    fn action(&mut self, rule: &RuleConfig) -> Option<Action> {
        match (&rule.pin, rule.account_from.as_slice()) {
            (Some(_), [_, ..]) => {
                self.wrong("has pin and account_from: write two rules, the narrower first");
                None
            }
            (None, []) => {
                self.wrong("does nothing: give it pin = \"DESTINATION\" or account_from = [\"basic\", ...]");
                None
            }
            (Some(destination), []) => {
                if rule.without_account.is_some() {
                    self.wrong("has without_account, which a pin has no use for: leave it out");
                }
                let destination = self.destination(destination)?;
                let writes = self.writes(rule, "pin")?;
                let learns = rule
                    .learns
                    .as_ref()
                    .map(|it| self.learns(it, &it.account_from));
                Some(Action::Pin {
                    destination,
                    writes_to_accounts: writes,
                    learns,
                })
            }
            (None, sources) => {
                let sources = self.all(sources, |text| {
                    let known = "basic, bearer, query:NAME, header:NAME, form:NAME, json:/MEMBER and cookie";
                    (source(text), format!("\"{text}\" is no source of an account: there are {known}"))
                });
                let without_account = self.without_account(rule)?;
                let learns = rule.learns.as_ref().map(|it| {
                    if !it.account_from.is_empty() {
                        self.wrong(
                            "has account_from in learns too: leave it out, the rule has one",
                        );
                    }
                    self.learns(it, &rule.account_from)
                });
                Some(Action::Account {
                    sources,
                    without_account,
                    learns,
                })
            }
        }
    }

    fn without_account(&mut self, rule: &RuleConfig) -> Option<WithoutAccount> {
        let fix = "say without_account = \"challenge\", { pin = \"DESTINATION\" } or, \
                   where nothing can be written, \"default\"";
        let policy = self.or_wrong(rule.without_account.as_ref(), || {
            format!("does not say what a request gets that has none: {fix}")
        });
        match policy? {
            WithoutAccountConfig::Challenge => {
                if rule.writes_to_accounts.is_some() {
                    self.wrong("has writes_to_accounts, and sends nothing on without an account: leave it out");
                }
                Some(WithoutAccount::Challenge)
            }
            WithoutAccountConfig::Pin(destination) => {
                let destination = self.destination(destination)?;
                let writes_to_accounts = self.writes(rule, "without_account.pin")?;
                Some(WithoutAccount::Pin {
                    destination,
                    writes_to_accounts,
                })
            }
            WithoutAccountConfig::Default => {
                if self.writes(rule, "without_account = \"default\"")? {
                    self.wrong(
                        "would send what can write to an account to a server that may not be its own: \
                         say without_account = \"challenge\", or pin it to the server that issued what the request \
                         carries",
                    );
                }
                Some(WithoutAccount::Default)
            }
        }
    }

    fn learns(&mut self, learns: &LearnsConfig, sources: &[String]) -> Learns {
        let is_named = |source: &Source| !matches!(source, Source::Bearer | Source::Cookie);
        let sources = self.all(sources, |text| {
            let fix = "take basic, query:NAME, header:NAME, form:NAME or json:/MEMBER";
            (
                source(text).filter(is_named),
                format!("\"{text}\" names nobody whom learns could remember: {fix}"),
            )
        });
        let is_token =
            |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
        let cookie = &learns.server_cookie;
        if cookie.is_empty() || !cookie.bytes().all(is_token) {
            self.wrong(format!(
                "\"{cookie}\" is no cookie's name: give server_cookie as the server sets it"
            ));
        }
        if sources.is_empty() {
            self.wrong("learns whose a sign-in is from nothing: give learns.account_from");
        }
        if learns.status.is_empty()
            || learns
                .status
                .iter()
                .any(|status| !(200..600).contains(status))
        {
            self.wrong(
                "needs learns.status, such as [302]: without it a failed sign-in would count too",
            );
        }
        if !(1..=MAX_SECONDS).contains(&learns.seconds) {
            self.wrong(format!("learns.seconds is 1 to {MAX_SECONDS} (30 days)"));
        }
        Learns {
            sources,
            status: learns.status.clone(),
            server_cookie: cookie.clone(),
            seconds: learns.seconds,
        }
    }

    fn destination(&mut self, text: &str) -> Option<String> {
        let known = self.destinations.contains(text).then(|| text.to_owned());
        let all = self
            .destinations
            .iter()
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        self.or_wrong(known, || {
            format!("there is no destination \"{text}\" with an endpoint for http: there are {all}")
        })
    }

    fn writes(&mut self, rule: &RuleConfig, what: &str) -> Option<bool> {
        self.or_wrong(rule.writes_to_accounts, || {
            format!(
                "{what} needs writes_to_accounts: true if a request under this rule can change an account's mail \
                 or settings, as one with a session's cookie can, and false if not, as with a login page"
            )
        })
    }
}

fn named(field: &FieldConfig) -> (Option<Condition<String>>, String) {
    let condition = Condition {
        name: field.name.clone(),
        values: field.values.clone(),
    };
    (
        (!field.name.is_empty()).then_some(condition),
        "a field needs its name".to_owned(),
    )
}

/// Whether a field is left by the time at which rules are tried.
fn is_seen(name: &HeaderName) -> bool {
    !crate::fields::is_taken_out(name)
}

fn source(text: &str) -> Option<Source> {
    let (kind, name) = text.split_once(':').unwrap_or((text, ""));
    match (kind, name) {
        ("basic", "") => Some(Source::Basic),
        ("bearer", "") => Some(Source::Bearer),
        ("cookie", "") => Some(Source::Cookie),
        ("json", pointer) => JsonPointer::parse(pointer).map(Source::Json),
        (_, "") => None,
        ("query", name) => Some(Source::Query(name.to_owned())),
        ("form", name) => Some(Source::Form(name.to_owned())),
        ("header", name) => HeaderName::from_bytes(name.as_bytes())
            .ok()
            .filter(is_seen)
            .map(Source::Header),
        _ => None,
    }
}
