//! What the file says of HTTP: the rules, and an endpoint's own keys.

use std::time::Duration;

use ferrypost_proto::v1::{self, http_without_account::Policy};
use ferrypost_runtime::config::Section;

/// `[http]`.
pub(super) fn read_rules(http: &Section<'_>) -> v1::HttpRouting {
    v1::HttpRouting {
        rules: http.tables("rules", read_rule),
    }
}

/// Whether it is one of an endpoint for HTTP, and what else it must be, the document's own check says.
pub(super) fn read_versions(endpoint: &Section<'_>) -> Vec<i32> {
    const VERSIONS: &[(&str, v1::HttpVersion)] = &[
        ("http/1.1", v1::HttpVersion::Http1),
        ("h2", v1::HttpVersion::H2),
    ];
    let read = |text: &str| {
        let version = VERSIONS.iter().find(|(word, _)| *word == text);
        let version = version.map(|(_, version)| (*version).into());
        version.ok_or("must be \"http/1.1\" or \"h2\"")
    };
    endpoint.parsed_texts("versions", read).unwrap_or_default()
}

pub(super) fn read_response_limit(endpoint: &Section<'_>) -> Option<prost_types::Duration> {
    let limit = endpoint.duration("response_limit", Duration::ZERO..=Duration::MAX)?;
    endpoint.checked("response_limit", prost_types::Duration::try_from(limit))
}

fn read_rule(rule: &Section<'_>) -> v1::HttpRule {
    let texts = |key| rule.texts(key).unwrap_or_default();
    v1::HttpRule {
        name: rule.text("name").unwrap_or_default(),
        hosts: texts("hosts"),
        methods: texts("methods"),
        paths: texts("paths"),
        headers: rule.tables("headers", read_field),
        query: rule.tables("query", read_field),
        form: rule.tables("form", read_field),
        pin: rule.text("pin").unwrap_or_default(),
        account_from: texts("account_from"),
        without_account: read_without_account(rule),
        writes_to_accounts: rule.boolean("writes_to_accounts"),
        learns: rule.table("learns", read_learns),
    }
}

fn read_field(field: &Section<'_>) -> v1::HttpField {
    v1::HttpField {
        name: field.text("name").unwrap_or_default(),
        values: field.texts("values").unwrap_or_default(),
    }
}

fn read_without_account(rule: &Section<'_>) -> Option<v1::HttpWithoutAccount> {
    const KEY: &str = "without_account";
    let policy = if rule.has(KEY) && !rule.is_text(KEY) {
        let pin = rule.table(KEY, |table| {
            table.required(
                "pin",
                "where requests go that say of no account whose they are",
                table.text("pin"),
            )
        });
        Policy::Pin(pin.flatten()?)
    } else {
        let challenge = rule.word(KEY, &[("challenge", true), ("default", false)])?;
        if challenge {
            Policy::Challenge(v1::HttpChallenge {})
        } else {
            Policy::Default(v1::HttpDefault {})
        }
    };
    Some(v1::HttpWithoutAccount {
        policy: Some(policy),
    })
}

fn read_learns(learns: &Section<'_>) -> v1::HttpLearns {
    v1::HttpLearns {
        account_from: learns.texts("account_from").unwrap_or_default(),
        status: learns.numbers("status", 200..=599).unwrap_or_default(),
        server_cookie: learns.text("server_cookie").unwrap_or_default(),
        seconds: learns
            .number("seconds", 1..=30 * 24 * 60 * 60)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ferrypost_http::{
        rules::{Body, Request, Route},
        target::{Host, NormalPath},
    };
    use ferrypost_proto::{HttpVersions, SCHEMAS};
    use http::{HeaderMap, HeaderValue};

    use super::super::RoutingFile;

    const SERVER: &str = r#"
default_destination = "source"
names = { bare_names = "listed" }

[[destinations]]
id = "source"

[[destinations.endpoints]]
protocol = "http"
host = "old.example.org"
port = 443
tls = "implicit"
announcement = "x_forwarded"
versions = ["http/1.1", "h2"]
response_limit = "5m"
"#;

    const RULES: &str = r#"
[[http.rules]]
name = "login page"
hosts = ["mail.example.org", "*.example.net"]
methods = ["GET", "HEAD"]
paths = ["/login", "/api/auth"]
headers = [{ name = "x-client", values = ["web", "app"] }]
query = [{ name = "view" }]
pin = "source"
writes_to_accounts = false

[[http.rules]]
name = "sign in"
methods = ["POST"]
paths = ["/sign-in"]
form = [{ name = "client_id", values = ["old-web"] }]
pin = "source"
writes_to_accounts = true
learns = { account_from = ["form:user"], status = [302, 303], server_cookie = "sid", seconds = 28800 }

[[http.rules]]
name = "avatars"
paths = ["/avatar/*"]
account_from = ["query:user"]
without_account = "default"
writes_to_accounts = false

[[http.rules]]
name = "web interface"
paths = ["/app/**"]
account_from = ["cookie"]
without_account = { pin = "source" }
writes_to_accounts = true

[[http.rules]]
name = "accounts"
account_from = ["basic", "bearer"]
without_account = "challenge"
"#;

    fn parse(text: &str) -> Result<RoutingFile, String> {
        RoutingFile::parse(text, Path::new("/etc/routing.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_says_all_that_a_rule_can_say() {
        let file = parse(&format!("{SERVER}{RULES}")).unwrap();
        assert_eq!(file.document().schema, SCHEMAS.newest());
        let rules = file.config().http_rules().unwrap();
        let risks: Vec<_> = rules.residual_risks().collect();
        assert_eq!(risks, [("sign in", "source"), ("web interface", "source")]);
        let source = file.config().default_destination();
        let endpoint = &file.config().destinations()[source].endpoints()[0];
        assert_eq!(endpoint.http.versions, HttpVersions::Either);
        assert_eq!(endpoint.http.response_limit.as_secs(), 300);
        assert_eq!(endpoint.announcement.word(), "x_forwarded");
        let written = &file.document().http.as_ref().unwrap().rules;
        assert_eq!(written.len(), 5);
        assert_eq!(written[0].headers[0].values, ["web", "app"]);
        assert_eq!(written[1].learns.as_ref().unwrap().status, [302, 303]);
    }

    #[test]
    fn every_mistake_in_a_rule_has_its_line_and_what_follows_from_it_is_not_said_as_well() {
        let rules = r#"
[[http.rules]]
name = "page"
path = ["/login"]
pin = "source"
writes_to_accounts = false
[[http.rules]]
name = "late"
paths = ["/late"]
pin = "elsewhere"
writes_to_accounts = false
[[http.rules]]
name = "sign in"
paths = ["/sign-in"]
pin = "source"
writes_to_accounts = false
learns = { account_from = ["form:user"], status = [99], server_cookie = "sid", seconds = 1 }
[[http.rules]]
name = "accounts"
account_from = ["basic"]
without_account = { to = "source" }
"#;
        let said = parse(&format!("{SERVER}{rules}")).unwrap_err();
        let said: Vec<_> = said.lines().collect();
        let expected = [
            ("19", "http.rules[0].path: unknown key"),
            ("22", "http.rules[1]: is never reached"),
            ("22", "http.rules[1]: there is no destination \"elsewhere\""),
            (
                "32",
                "http.rules[2].learns.status[0]: must be a whole number, 200 to 599",
            ),
            ("36", "http.rules[3].without_account.pin: missing"),
            ("36", "http.rules[3].without_account.to: unknown key"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (line, what) in expected {
            let found = said
                .iter()
                .any(|it| it.contains(&format!(":{line}: {what}")));
            assert!(found, "{line}: {what}\n{said:#?}");
        }
    }

    #[test]
    fn what_is_of_http_is_refused_elsewhere_and_rules_need_a_server() {
        let imap = SERVER.replace("\"http\"", "\"imap\"");
        let said = parse(&format!("{imap}{RULES}")).unwrap_err();
        for what in [
            "announcement: forwarded and x_forwarded go with protocol http only",
            "versions: is for endpoints of http",
            "http.rules: no destination has an endpoint for http",
        ] {
            assert!(said.contains(what), "{what}\n{said}");
        }
        let version = SERVER.replace("\"h2\"", "\"h3\"");
        let said = parse(&version).unwrap_err();
        assert!(said.contains("versions[1]: \"h3\": must be"), "{said}");
    }

    /// What an example that ships makes of a request: the rule and where it goes.
    fn followed(example: &str, request: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs/examples")
            .join(example);
        let text = std::fs::read_to_string(&path).unwrap();
        let file = RoutingFile::parse(&text, &path).unwrap();
        let mut words = request.split(' ');
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        let (host, path) = url.split_once('/').unwrap();
        let mut headers = HeaderMap::new();
        let body = words.next().unwrap_or_default();
        match body {
            "" => {}
            "basic" => {
                // alice@example.org:secret
                let value = "Basic YWxpY2VAZXhhbXBsZS5vcmc6c2VjcmV0";
                headers.insert("authorization", HeaderValue::from_static(value));
            }
            _ => {
                let value = "application/x-www-form-urlencoded";
                headers.insert("content-type", HeaderValue::from_static(value));
            }
        }
        let request = Request {
            host: &Host::parse(host.as_bytes()).unwrap(),
            method: &method.parse().unwrap(),
            path: &NormalPath::parse(&format!("/{path}")).unwrap(),
            query: None,
            headers: &headers,
        };
        let rules = file.config().http_rules().unwrap();
        let decision = rules.decide(&request, Body::Read(body.as_bytes())).unwrap();
        let route = match decision.route {
            Route::Pinned { destination, .. } => destination,
            Route::Account(_) => "account",
            Route::Default => "default",
            Route::Challenge(_) => "challenge",
            Route::ReadBody => "body",
        };
        format!("{}: {route}", decision.rule)
    }

    #[test]
    fn the_example_with_a_web_interface_pins_logins_and_routes_accounts() {
        let example = "web-source/routing.toml";
        for (request, expected) in [
            (
                "GET mta-sts.example.org/.well-known/mta-sts.txt",
                "policy and autoconfiguration: source",
            ),
            ("OPTIONS mail.example.org/jmap/", "preflight: source"),
            ("GET mail.example.org/login", "login endpoints: source"),
            (
                "GET mail.example.org/login/style.css",
                "login endpoints: source",
            ),
            ("POST mail.example.org/api/auth", "login endpoints: source"),
            (
                "GET mail.example.org/api/discover/alice@example.org",
                "login endpoints: source",
            ),
            (
                "POST mail.example.org/auth/token client_id=new-web&code=x",
                "tokens of the new web interface: target",
            ),
            (
                "POST mail.example.org/auth/token client_id=webadmin&code=x",
                "tokens: source",
            ),
            ("GET mail.example.org/", "web interface: source"),
            (
                "GET mail.example.org/admin/index.html",
                "web interface: source",
            ),
            (
                "GET mail.example.org/.well-known/jmap",
                "discovery: default",
            ),
            (
                "GET mail.example.org/.well-known/jmap basic",
                "discovery: account",
            ),
            (
                "GET mail.example.org/jmap/session basic",
                "accounts: account",
            ),
            ("POST mail.example.org/jmap/", "accounts: challenge"),
            (
                "PUT mail.example.org/dav/cal/alice/x.ics",
                "accounts: challenge",
            ),
            (
                "GET mail.example.org/api/account basic",
                "accounts: account",
            ),
        ] {
            assert_eq!(followed(example, request), expected, "{request}");
        }
    }

    #[test]
    fn the_example_with_dovecot_sends_everything_to_the_target() {
        let example = "dovecot-source/routing.toml";
        for request in [
            "GET mail.example.org/.well-known/jmap basic",
            "PROPFIND mail.example.org/dav/cal/alice/",
            "GET mail.example.org/",
        ] {
            assert_eq!(
                followed(example, request),
                "everything: target",
                "{request}"
            );
        }
    }
}
