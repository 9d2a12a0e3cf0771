//! What the document says of HTTP: the rules, and what is spoken with a server.

use std::{collections::BTreeSet, ops::RangeInclusive, time::Duration};

use ferrypost_http::rules::{FieldConfig, LearnsConfig, RuleConfig, Rules, WithoutAccountConfig};

use super::{Destination, DisabledEndpoint, Problem, RoutingConfig};
use crate::{
    DestinationId,
    v1::{self, endpoint_tls::Mode, http_without_account::Policy},
};

/// What is spoken with a server by HTTP. Of an endpoint for something else it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTerms {
    /// Which versions.
    pub versions: HttpVersions,
    /// How long after a request was sent its response may begin.
    pub response_limit: Duration,
}

/// The versions of HTTP that are spoken at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: in TLS by ALPN, without by prior knowledge.
    H2,
    /// Whichever the server chooses by ALPN.
    Either,
}

impl HttpTerms {
    /// Long polls wait for half an hour.
    const RESPONSE_LIMIT: Duration = Duration::from_mins(31);

    const RESPONSE_LIMITS: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_hours(24);
}

impl RoutingConfig {
    /// The rules for HTTP requests; without any, each is refused. `None`: they say something that is not known here, so
    /// that nobody can tell where any request goes; then every endpoint for HTTP is disabled.
    pub const fn http_rules(&self) -> Option<&Rules> {
        self.http_rules.as_ref()
    }

    /// Rules that send to `destination` what can write to accounts without saying to whose.
    pub fn writing_pins<'a>(
        &'a self,
        destination: &'a DestinationId,
    ) -> impl Iterator<Item = &'a str> {
        let risks = self.http_rules.iter().flat_map(Rules::residual_risks);
        risks
            .filter(move |(_, pinned)| *pinned == destination.as_str())
            .map(|(rule, _)| rule)
    }

    pub(super) fn http_without_rules(&self) -> Option<String> {
        let mut endpoints = self.destinations.values().flat_map(Destination::endpoints);
        let spoken = endpoints.any(|endpoint| endpoint.protocol == v1::Protocol::Http);
        let ruled = self.http_rules.as_ref().is_some_and(Rules::is_empty);
        (spoken && ruled).then(|| {
            "there are endpoints for http and no rules (http.rules): every request is refused"
                .to_owned()
        })
    }
}

/// Whether the document has anything that only schema 3 has.
pub(super) fn is_said(wire: &v1::RoutingConfig) -> bool {
    use v1::Announcement::{Forwarded, XForwarded};
    let ruled = wire
        .http
        .as_ref()
        .is_some_and(|http| !http.rules.is_empty());
    let mut endpoints = wire.destinations.iter().flat_map(|d| &d.endpoints);
    ruled
        || endpoints.any(|endpoint| {
            !endpoint.versions.is_empty()
                || endpoint.response_limit.is_some()
                || matches!(endpoint.announcement(), Forwarded | XForwarded)
        })
}

/// Whether an endpoint speaks a version that is not known here.
pub(super) fn unknown_version(endpoint: &v1::Endpoint) -> bool {
    let known = |version: &i32| v1::HttpVersion::try_from(*version).is_ok();
    !endpoint.versions.iter().all(known)
}

/// Whether TLS is to begin by a command, of which HTTP has none. Documents of before it was spoken may say so.
pub(super) fn begins_in_clear(endpoint: &v1::Endpoint) -> bool {
    let mode = endpoint.tls.as_ref().map(v1::EndpointTls::mode);
    endpoint.protocol() == v1::Protocol::Http && mode == Some(Mode::Starttls)
}

/// What is spoken there, or the field that is wrong and why.
pub(super) fn terms(wire: &v1::Endpoint) -> Result<HttpTerms, (&'static str, &'static str)> {
    const ELSEWHERE: &str = "is for endpoints of http: leave it out here";
    if wire.protocol() != v1::Protocol::Http {
        if !wire.versions.is_empty() {
            return Err(("versions", ELSEWHERE));
        }
        if wire.response_limit.is_some() {
            return Err(("response_limit", ELSEWHERE));
        }
    }
    let response_limit = match wire.response_limit {
        None => HttpTerms::RESPONSE_LIMIT,
        Some(limit) => Duration::try_from(limit)
            .ok()
            .filter(|limit| HttpTerms::RESPONSE_LIMITS.contains(limit))
            .ok_or(("response_limit", "must be 1 second to 24 hours"))?,
    };
    Ok(HttpTerms {
        versions: versions(wire).map_err(|message| ("versions", message))?,
        response_limit,
    })
}

fn versions(wire: &v1::Endpoint) -> Result<HttpVersions, &'static str> {
    use v1::HttpVersion::{H2, Http1};
    let without_tls = wire
        .tls
        .as_ref()
        .is_some_and(|tls| tls.mode() == Mode::None);
    let said: Vec<_> = wire.versions().collect();
    match said.as_slice() {
        [] | [Http1] => Ok(HttpVersions::Http1),
        [H2] => Ok(HttpVersions::H2),
        [Http1, H2] | [H2, Http1] if without_tls => {
            Err("without TLS nothing chooses between two versions: name the one that is spoken")
        }
        [Http1, H2] | [H2, Http1] => Ok(HttpVersions::Either),
        _ => Err("must be http/1.1 and h2, each at most once"),
    }
}

/// The rules, or every mistake in them.
pub(super) fn rules(wire: &v1::RoutingConfig) -> Result<Rules, Vec<Problem>> {
    let written = wire.http.as_ref().map_or(&[][..], |http| &http.rules);
    let rules: Vec<_> = written.iter().map(rule).collect();
    let speak_http = |destination: &&v1::Destination| {
        let http = v1::Protocol::Http as i32;
        destination.endpoints.iter().any(|it| it.protocol == http)
    };
    let destinations: BTreeSet<_> = wire
        .destinations
        .iter()
        .filter(speak_http)
        .map(|destination| destination.id.as_str())
        .collect();
    if destinations.is_empty() && !rules.is_empty() {
        return Err(vec![Problem {
            place: "http.rules".to_owned(),
            message: "no destination has an endpoint for http: add one, or leave the rules out"
                .to_owned(),
        }]);
    }
    Rules::new(&rules, &destinations).map_err(|problems| {
        let problem = |problem: ferrypost_http::rules::Problem| Problem {
            place: problem.rule.map_or_else(
                || "http.rules".to_owned(),
                |rule| format!("http.rules[{rule}]"),
            ),
            message: problem.message,
        };
        problems.into_iter().map(problem).collect()
    })
}

/// Takes the endpoints for HTTP out of use, since nobody can tell what may be sent there.
pub(super) fn disable(destination: &mut Destination) {
    let (http, others) = std::mem::take(&mut destination.endpoints)
        .into_iter()
        .partition(|endpoint| endpoint.protocol == v1::Protocol::Http);
    destination.endpoints = others;
    let disabled = http.into_iter().map(|endpoint| DisabledEndpoint {
        protocol: endpoint.protocol.into(),
        group: endpoint.group,
        field: "http.rules",
    });
    destination.disabled.extend(disabled);
}

fn rule(wire: &v1::HttpRule) -> RuleConfig {
    let fields = |wire: &[v1::HttpField]| wire.iter().map(field).collect();
    RuleConfig {
        name: wire.name.clone(),
        hosts: wire.hosts.clone(),
        methods: wire.methods.clone(),
        paths: wire.paths.clone(),
        headers: fields(&wire.headers),
        query: fields(&wire.query),
        form: fields(&wire.form),
        pin: (!wire.pin.is_empty()).then(|| wire.pin.clone()),
        account_from: wire.account_from.clone(),
        without_account: wire.without_account.as_ref().and_then(without_account),
        writes_to_accounts: wire.writes_to_accounts,
        learns: wire.learns.as_ref().map(learns),
    }
}

fn field(wire: &v1::HttpField) -> FieldConfig {
    FieldConfig {
        name: wire.name.clone(),
        values: wire.values.clone(),
    }
}

/// A policy that is not known here is none, which is a mistake where one is needed.
fn without_account(wire: &v1::HttpWithoutAccount) -> Option<WithoutAccountConfig> {
    Some(match wire.policy.as_ref()? {
        Policy::Challenge(_) => WithoutAccountConfig::Challenge,
        Policy::Pin(destination) => WithoutAccountConfig::Pin(destination.clone()),
        Policy::Default(_) => WithoutAccountConfig::Default,
    })
}

fn learns(wire: &v1::HttpLearns) -> LearnsConfig {
    LearnsConfig {
        account_from: wire.account_from.clone(),
        // What is no status code is none that rules take.
        status: wire
            .status
            .iter()
            .map(|status| u16::try_from(*status).unwrap_or_default())
            .collect(),
        server_cookie: wire.server_cookie.clone(),
        seconds: wire.seconds.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problems, SCHEMAS};

    fn http_endpoint() -> v1::Endpoint {
        v1::Endpoint {
            protocol: v1::Protocol::Http.into(),
            host: "old.example.org".into(),
            port: 443,
            tls: Some(v1::EndpointTls {
                mode: Mode::Implicit.into(),
                ..Default::default()
            }),
            announcement: v1::Announcement::None.into(),
            ..Default::default()
        }
    }

    fn imap() -> v1::Endpoint {
        v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            ..http_endpoint()
        }
    }

    fn document(rules: Vec<v1::HttpRule>) -> v1::RoutingConfig {
        let destination = |id: &str| v1::Destination {
            id: id.into(),
            endpoints: vec![imap(), http_endpoint()],
            without: Vec::new(),
        };
        v1::RoutingConfig {
            schema: SCHEMAS.newest(),
            destinations: vec![destination("source"), destination("target")],
            default_destination: "source".into(),
            names: Some(v1::NamePolicy {
                bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
                ..Default::default()
            }),
            http: Some(v1::HttpRouting { rules }),
            ..Default::default()
        }
    }

    fn pin(name: &str, path: &str, writes: bool) -> v1::HttpRule {
        v1::HttpRule {
            name: name.into(),
            paths: vec![path.into()],
            pin: "source".into(),
            writes_to_accounts: Some(writes),
            ..Default::default()
        }
    }

    fn accounts(source: &str) -> v1::HttpRule {
        v1::HttpRule {
            name: "accounts".into(),
            account_from: vec![source.into()],
            without_account: Some(v1::HttpWithoutAccount {
                policy: Some(Policy::Challenge(v1::HttpChallenge {})),
            }),
            ..Default::default()
        }
    }

    fn said(document: &v1::RoutingConfig) -> Vec<String> {
        let Problems(problems) = RoutingConfig::try_from(document).expect_err("a mistake");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_are_valid_with_the_document_and_say_what_remains_a_risk() {
        let rules = vec![
            pin("page", "/login", false),
            pin("tokens", "/auth/token", true),
            accounts("basic"),
        ];
        let config = RoutingConfig::try_from(&document(rules)).expect("valid");
        assert_eq!(config.schema(), 3);
        assert!(config.http_rules().is_some_and(|rules| !rules.is_empty()));
        let id = |id| DestinationId::parse(id).expect("an id");
        assert!(config.writing_pins(&id("source")).eq(["tokens"]));
        assert_eq!(config.writing_pins(&id("target")).count(), 0);
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn a_document_without_rules_serves_no_request_and_says_so() {
        let config = RoutingConfig::try_from(&document(Vec::new())).expect("valid");
        assert!(config.http_rules().is_some_and(Rules::is_empty));
        let [warning] = &config.warnings()[..] else {
            panic!("{:?}", config.warnings());
        };
        assert!(warning.contains("every request is refused"), "{warning}");
        assert_eq!(config.schema(), 1, "an older reader serves no HTTP either");
    }

    #[test]
    fn a_rule_that_cannot_be_read_takes_http_out_of_use_and_nothing_else() {
        let no_policy = v1::HttpRule {
            without_account: Some(v1::HttpWithoutAccount { policy: None }),
            ..accounts("basic")
        };
        for unknown in [accounts("passkey"), no_policy] {
            let document = document(vec![pin("page", "/login", false), unknown]);
            let problems = said(&document);
            assert!(problems[0].starts_with("http.rules[1]: "), "{problems:?}");

            let config = RoutingConfig::in_force(&document).expect("the rest is valid");
            assert!(config.http_rules().is_none());
            for destination in config.destinations().values() {
                assert_eq!(destination.endpoint(v1::Protocol::Http, ""), None);
                assert!(destination.endpoint(v1::Protocol::Imap, "").is_some());
                let disabled: Vec<_> = destination.disabled("").collect();
                let [disabled] = &disabled[..] else {
                    panic!("{disabled:?}");
                };
                assert_eq!(disabled.field, "http.rules");
                assert_eq!(disabled.protocol, i32::from(v1::Protocol::Http));
            }
        }
    }

    #[test]
    fn a_version_that_is_not_known_disables_its_endpoint_and_no_rule() {
        let mut document = document(vec![pin("page", "/login", false)]);
        document.destinations[0].endpoints[1].versions = vec![77];
        assert_eq!(
            said(&document),
            ["destinations[0].endpoints[1].versions: is a value that this version does not know"]
        );
        let config = RoutingConfig::in_force(&document).expect("the rest is valid");
        assert!(config.http_rules().is_some());
        let id = DestinationId::parse("source").expect("an id");
        let source = config.destination(&id).expect("it is there");
        assert_eq!(source.endpoint(v1::Protocol::Http, ""), None);
        assert_eq!(
            source.disabled("").next().map(|it| it.field),
            Some("versions")
        );
    }

    #[test]
    fn an_endpoint_says_what_is_spoken_there() {
        use v1::HttpVersion::{H2, Http1};
        let read = |change: &dyn Fn(&mut v1::Endpoint)| {
            let mut document = document(Vec::new());
            change(&mut document.destinations[0].endpoints[1]);
            let checked = RoutingConfig::try_from(&document).map_err(|Problems(problems)| {
                problems.iter().map(ToString::to_string).collect::<String>()
            })?;
            let id = DestinationId::parse("source").expect("an id");
            let source = checked.destination(&id).expect("it is there");
            let endpoint = source.endpoint(v1::Protocol::Http, "").expect("usable");
            Ok::<_, String>((endpoint.http, checked.schema()))
        };
        let versions = |of: &'static [v1::HttpVersion]| {
            read(&|endpoint| endpoint.versions = of.iter().map(|it| (*it).into()).collect())
        };
        let (plain, schema) = read(&|_| {}).expect("valid");
        assert_eq!(plain.versions, HttpVersions::Http1);
        assert_eq!(plain.response_limit, Duration::from_mins(31));
        assert_eq!(schema, 1);
        let (either, schema) = versions(&[Http1, H2]).expect("valid");
        assert_eq!((either.versions, schema), (HttpVersions::Either, 3));
        let (h2, _) = versions(&[H2]).expect("valid");
        assert_eq!(h2.versions, HttpVersions::H2);
        assert!(versions(&[H2, H2]).is_err());
        for (seconds, good) in [(0, false), (1, true), (86_400, true), (86_401, false)] {
            let limit = prost_types::Duration { seconds, nanos: 0 };
            let read = read(&|endpoint| endpoint.response_limit = Some(limit));
            assert_eq!(read.is_ok(), good, "{seconds}");
        }
        for announcement in [v1::Announcement::Forwarded, v1::Announcement::XForwarded] {
            let (_, schema) =
                read(&|endpoint| endpoint.announcement = announcement.into()).expect("valid");
            assert_eq!(schema, 3);
        }
        for announcement in [v1::Announcement::ImapId, v1::Announcement::Xclient] {
            assert!(read(&|endpoint| endpoint.announcement = announcement.into()).is_err());
        }
    }

    #[test]
    fn without_tls_one_version_is_spoken_and_none_begins_with_a_command() {
        let mut document = document(Vec::new());
        let endpoint = &mut document.destinations[0].endpoints[1];
        endpoint.tls = Some(v1::EndpointTls {
            mode: Mode::None.into(),
            plaintext_consent: true,
            ..Default::default()
        });
        let both = [v1::HttpVersion::Http1, v1::HttpVersion::H2];
        endpoint.versions = both.map(Into::into).to_vec();
        let problems = said(&document);
        assert!(
            problems[0].contains("without TLS nothing chooses"),
            "{problems:?}"
        );
        let endpoint = &mut document.destinations[0].endpoints[1];
        endpoint.versions.truncate(1);
        RoutingConfig::try_from(&document).expect("valid");
        let tls = document.destinations[0].endpoints[1].tls.as_mut();
        let tls = tls.expect("TLS");
        tls.mode = Mode::Starttls.into();
        tls.plaintext_consent = false;
        let problems = said(&document);
        assert!(problems[0].contains("say implicit or none"), "{problems:?}");
        let config = RoutingConfig::in_force(&document).expect("the rest is valid");
        let id = DestinationId::parse("source").expect("an id");
        let source = config.destination(&id).expect("it is there");
        let disabled = source.disabled("").next().map(|it| it.field);
        assert_eq!(disabled, Some("tls.mode"));
    }
}
