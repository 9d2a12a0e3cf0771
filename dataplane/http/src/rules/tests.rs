use std::collections::BTreeSet;

use http::header::{AUTHORIZATION, COOKIE};
use proptest::prelude::*;

use super::*;

/// A request that is clean, and its parts.
struct Asked {
    host: Host,
    method: Method,
    path: NormalPath,
    query: Option<String>,
    headers: HeaderMap,
}

fn asked(method: &str, target: &str) -> Asked {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));
    Asked {
        host: Host::parse(b"mail.example.org").unwrap(),
        method: method.parse().unwrap(),
        path: NormalPath::parse(path).unwrap(),
        query: query.map(str::to_owned),
        headers: HeaderMap::new(),
    }
}

impl Asked {
    fn at(mut self, host: &str) -> Self {
        self.host = Host::parse(host.as_bytes()).unwrap();
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    fn form(self) -> Self {
        self.with(
            "content-type",
            "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
        )
    }

    /// The rule and the route in one line.
    fn decided(&self, rules: &Rules, body: Body<'_>) -> Result<String, Refusal> {
        let request = Request {
            host: &self.host,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        };
        let decision = rules.decide(&request, body)?;
        let route = match decision.route {
            Route::Pinned {
                destination,
                writes_to_accounts,
            } => format!("{destination} {writes_to_accounts}"),
            Route::Account(claims) => {
                let all = claims.into_all().map(|claim| match claim {
                    Claim::Login(name) => format!("account {name}"),
                    Claim::Token(token) => format!("token of {}", token.len()),
                    Claim::Sealed(value) => format!("cookie {value}"),
                });
                all.collect::<Vec<_>>().join(", ")
            }
            Route::Default => "default".to_owned(),
            Route::Challenge(ways) => format!("{ways:?}"),
            Route::ReadBody => "body".to_owned(),
        };
        Ok(format!("{}: {route}", decision.rule))
    }

    fn by_head(&self, rules: &Rules) -> Result<String, Refusal> {
        self.decided(rules, Body::Unread)
    }
}

fn field(name: &str, values: &[&str]) -> FieldConfig {
    FieldConfig {
        name: name.to_owned(),
        values: texts(values),
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn pin(name: &str, paths: &[&str], destination: &str, writes: bool) -> RuleConfig {
    RuleConfig {
        name: name.to_owned(),
        paths: texts(paths),
        pin: Some(destination.to_owned()),
        writes_to_accounts: Some(writes),
        ..RuleConfig::default()
    }
}

fn account(
    name: &str,
    paths: &[&str],
    sources: &[&str],
    without: WithoutAccountConfig,
) -> RuleConfig {
    let writes = match without {
        WithoutAccountConfig::Challenge => None,
        WithoutAccountConfig::Default => Some(false),
        WithoutAccountConfig::Pin(_) => Some(true),
    };
    RuleConfig {
        name: name.to_owned(),
        paths: texts(paths),
        account_from: texts(sources),
        without_account: Some(without),
        writes_to_accounts: writes,
        ..RuleConfig::default()
    }
}

fn checked(rules: &[RuleConfig]) -> Result<Rules, Vec<String>> {
    let destinations = BTreeSet::from(["source", "target"]);
    Rules::new(rules, &destinations)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// A source with a web interface, whose logins are pinned to it.
fn pinned_source() -> Rules {
    let by_client = RuleConfig {
        methods: texts(&["POST"]),
        form: vec![field("client_id", &["old-web"])],
        ..pin("old tokens", &["/auth/token"], "source", true)
    };
    let rules = [
        pin(
            "login",
            &["/login", "/api/auth", "/admin/**"],
            "source",
            false,
        ),
        by_client,
        pin("new tokens", &["/auth/token"], "target", true),
        account(
            "session",
            &["/.well-known/jmap", "/jmap/session"],
            &["basic", "bearer"],
            WithoutAccountConfig::Default,
        ),
        account(
            "discovery",
            &["/autodiscover/**"],
            &["query:email", "form:login", "json:/user/name"],
            WithoutAccountConfig::Pin("source".into()),
        ),
        account(
            "webmail",
            &["/webmail/**"],
            &["cookie", "header:X-Account"],
            WithoutAccountConfig::Challenge,
        ),
        account(
            "all",
            &[],
            &["basic", "bearer"],
            WithoutAccountConfig::Challenge,
        ),
    ];
    checked(&rules).unwrap()
}

#[test]
fn the_first_rule_that_holds_is_followed() {
    let rules = pinned_source();
    for (target, expected) in [
        ("/login", "login: source false"),
        ("/x/..//%6cogin/", "login: source false"),
        ("/admin", "login: source false"),
        ("/administrator", "all: [Basic, Bearer]"),
        ("/auth/token", "new tokens: target true"),
        ("/jmap/session", "session: default"),
    ] {
        assert_eq!(
            asked("GET", target).by_head(&rules).as_deref(),
            Ok(expected),
            "{target}"
        );
    }
    let alice = asked("PUT", "/dav/x").with("authorization", "Basic YWxpY2U6cA==");
    assert_eq!(alice.by_head(&rules).as_deref(), Ok("all: account alice"));
    let token = asked("POST", "/jmap").with("authorization", "Bearer abc");
    assert_eq!(token.by_head(&rules).as_deref(), Ok("all: token of 3"));
}

#[test]
fn a_path_that_leads_to_two_rules_is_refused() {
    let rules = pinned_source();
    for target in [
        "/admin%2fx",
        "/login;x=1",
        "/;/admin/x",
        "/%2flogin",
        "/login%5c",
    ] {
        assert_eq!(
            asked("GET", target).by_head(&rules),
            Err(Refusal::Path),
            "{target}"
        );
    }
    // One rule whichever way it is read.
    assert_eq!(
        asked("GET", "/admin/a%2Fb;c").by_head(&rules).as_deref(),
        Ok("login: source false")
    );
}

#[test]
fn a_body_is_read_only_where_the_head_does_not_decide() {
    let rules = pinned_source();
    let tokens = || asked("POST", "/auth/token").form();
    assert_eq!(tokens().by_head(&rules).as_deref(), Ok("old tokens: body"));
    let decided = |form: &str| tokens().decided(&rules, Body::Read(form.as_bytes()));
    assert_eq!(
        decided("grant_type=x&client_id=old-web").as_deref(),
        Ok("old tokens: source true")
    );
    assert_eq!(
        decided("client_id=new-web").as_deref(),
        Ok("new tokens: target true")
    );
    assert_eq!(decided("").as_deref(), Ok("new tokens: target true"));
    assert_eq!(
        decided("client_id=old-web&client_id=new-web"),
        Err(Refusal::Repeated)
    );
    assert_eq!(
        tokens().decided(&rules, Body::TooLarge),
        Err(Refusal::BodyTooLarge)
    );
    let compressed = tokens().with("content-encoding", "gzip");
    assert_eq!(compressed.by_head(&rules), Err(Refusal::BodyForm));
    let elsewhere = "application/x-www-form-urlencoded; charset=IBM500";
    let elsewhere = asked("POST", "/auth/token").with("content-type", elsewhere);
    assert_eq!(elsewhere.by_head(&rules), Err(Refusal::BodyForm));
    for quoted in ["charset=\"utf-8\"", "x=y; charset=ISO-8859-1"] {
        let media_type = format!("application/x-www-form-urlencoded; {quoted}");
        let read = asked("POST", "/auth/token").with("content-type", &media_type);
        assert_eq!(read.by_head(&rules).as_deref(), Ok("old tokens: body"));
    }
    // A form to PHP.
    for said in [", x", " x"] {
        let media_type = format!("application/x-www-form-urlencoded{said}");
        let read = asked("POST", "/auth/token").with("content-type", &media_type);
        assert_eq!(read.by_head(&rules).as_deref(), Ok("old tokens: body"));
    }
    let other = asked("POST", "/auth/token").with("content-type", "application/json");
    assert_eq!(
        other.by_head(&rules).as_deref(),
        Ok("new tokens: target true")
    );
}

#[test]
fn an_account_is_told_from_the_first_source_that_has_one() {
    let rules = pinned_source();
    let discovery = |query: &str| asked("POST", &format!("/autodiscover/x{query}"));
    let by_query = discovery("?email=alice%40example.org").form();
    assert_eq!(
        by_query.by_head(&rules).as_deref(),
        Ok("discovery: account alice@example.org")
    );
    assert_eq!(
        discovery("").form().by_head(&rules).as_deref(),
        Ok("discovery: body")
    );
    let by_form = discovery("")
        .form()
        .decided(&rules, Body::Read(b"login=bob"));
    assert_eq!(by_form.as_deref(), Ok("discovery: account bob"));
    let json = discovery("").with("content-type", "application/json");
    let document = Body::Read(br#"{"user": {"name": "carol"}}"#);
    assert_eq!(
        json.decided(&rules, document).as_deref(),
        Ok("discovery: account carol")
    );
    assert_eq!(
        discovery("").by_head(&rules).as_deref(),
        Ok("discovery: source true")
    );
    let cookie = asked("GET", "/webmail/").with("cookie", "a=b; __Host-ferrypost=abc");
    assert_eq!(cookie.by_head(&rules).as_deref(), Ok("webmail: cookie abc"));
}

#[test]
fn all_that_the_head_says_of_whose_it_is_counts_and_the_body_only_if_the_head_says_nothing() {
    let rules = pinned_source();
    let both = asked("GET", "/webmail/")
        .with("x-account", "alice")
        .with("cookie", "__Host-ferrypost=abc");
    let said = both.by_head(&rules);
    assert_eq!(said.as_deref(), Ok("webmail: cookie abc, account alice"));
    let by_query = asked("POST", "/autodiscover/x?email=alice").form();
    let form = Body::Read(b"login=bob");
    for said in [by_query.by_head(&rules), by_query.decided(&rules, form)] {
        assert_eq!(said.as_deref(), Ok("discovery: account alice"));
    }
    // What is no source of the rule's is nobody's concern.
    let stranger = asked("GET", "/dav/?email=bob").with("authorization", "Bearer abc");
    let said = stranger.by_head(&rules);
    assert_eq!(said.as_deref(), Ok("all: token of 3"));
}

#[test]
fn an_account_that_is_said_badly_is_never_taken_for_none() {
    let rules = pinned_source();
    let session = || asked("GET", "/jmap/session");
    let bad = session().with("authorization", "Basic !");
    assert_eq!(bad.by_head(&rules), Err(Refusal::Credentials));
    let twice = session()
        .with("authorization", "Bearer a")
        .with("authorization", "Bearer b");
    assert_eq!(twice.by_head(&rules), Err(Refusal::Repeated));
    let behind = asked("GET", "/webmail/")
        .with("cookie", "__Host-ferrypost=abc")
        .with("x-account", "");
    assert_eq!(behind.by_head(&rules), Err(Refusal::Credentials));
    let empty = asked("GET", "/autodiscover/x?email=");
    assert_eq!(empty.by_head(&rules), Err(Refusal::Credentials));
    let twice = asked("GET", "/webmail/")
        .with("x-account", "a")
        .with("x-account", "b");
    assert_eq!(twice.by_head(&rules), Err(Refusal::Repeated));
}

#[test]
fn hosts_methods_headers_and_queries_narrow_a_rule() {
    let narrow = RuleConfig {
        hosts: texts(&["autoconfig.*"]),
        methods: texts(&["GET"]),
        headers: vec![field("X-App", &[])],
        query: vec![field("v", &["1", "2"])],
        ..pin("narrow", &[], "target", false)
    };
    let rules = checked(&[narrow]).unwrap();
    let all = |method, target| {
        asked(method, target)
            .at("autoconfig.example.org")
            .with("x-app", "any")
    };
    assert!(all("GET", "/?v=2").by_head(&rules).is_ok());
    assert_eq!(all("POST", "/?v=2").by_head(&rules), Err(Refusal::NoRule));
    assert_eq!(all("GET", "/?v=3").by_head(&rules), Err(Refusal::NoRule));
    assert_eq!(
        all("GET", "/?v=1&v=3").by_head(&rules),
        Err(Refusal::Repeated)
    );
    assert_eq!(
        all("GET", "/?v=2").at("mail.example.org").by_head(&rules),
        Err(Refusal::NoRule)
    );
    let without = asked("GET", "/?v=2").at("autoconfig.example.org");
    assert_eq!(without.by_head(&rules), Err(Refusal::NoRule));
}

#[test]
fn every_mistake_is_named_with_what_puts_it_right() {
    let mut both = pin("both", &["/a"], "source", false);
    both.account_from = texts(&["basic"]);
    let mut silent = pin("silent", &["/b"], "source", false);
    silent.writes_to_accounts = None;
    let mut open = account("open", &["/c"], &["basic"], WithoutAccountConfig::Default);
    open.writes_to_accounts = Some(true);
    let mut undecided = account(
        "undecided",
        &["/d"],
        &["basic", "basics", "json:x", "header:connection"],
        WithoutAccountConfig::Challenge,
    );
    undecided.without_account = None;
    let nothing = RuleConfig {
        name: "nothing".into(),
        methods: texts(&["get"]),
        ..RuleConfig::default()
    };
    let lost = pin("lost", &["/a/../b", "e"], "elsewhere", false);
    let all = account("all", &[], &["basic"], WithoutAccountConfig::Challenge);
    let late = pin("all", &["/late"], "source", false);
    let problems = checked(&[both, silent, open, undecided, nothing, lost, all, late]).unwrap_err();
    for (place, fix) in [
        ("rule 1 (both)", "write two rules"),
        ("rule 2 (silent)", "needs writes_to_accounts: true if"),
        ("rule 3 (open)", "say without_account = \"challenge\""),
        (
            "rule 4 (undecided)",
            "\"basics\" is no source of an account: there are basic",
        ),
        ("rule 4 (undecided)", "\"json:x\" is no source"),
        ("rule 4 (undecided)", "\"header:connection\" is no source"),
        (
            "rule 4 (undecided)",
            "does not say what a request gets that has none",
        ),
        ("rule 5 (nothing)", "written in upper case"),
        ("rule 5 (nothing)", "does nothing"),
        ("rule 6 (lost)", "\"/a/../b\" is no path"),
        ("rule 6 (lost)", "\"e\" is no path"),
        (
            "rule 6 (lost)",
            "there is no destination \"elsewhere\" with an endpoint for http: there are source, target",
        ),
        ("rule 8 (all)", "needs a name of its own"),
        (
            "rule 8 (all)",
            "is never reached: rule 7 takes every request",
        ),
    ] {
        let named = problems
            .iter()
            .any(|problem| problem.starts_with(place) && problem.contains(fix));
        assert!(named, "{place}: {fix}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 14, "{problems:#?}");
}

fn learns(sources: &[&str]) -> LearnsConfig {
    LearnsConfig {
        account_from: texts(sources),
        status: vec![302],
        server_cookie: "sid".to_owned(),
        seconds: 3600,
    }
}

#[test]
fn a_sign_in_is_learned_from_the_request_and_only_if_the_server_took_it() {
    let mut sign_in = pin("sign in", &["/sign-in"], "source", false);
    sign_in.learns = Some(learns(&["form:user"]));
    let rules = checked(&[sign_in]).unwrap();
    let asked = asked("POST", "/sign-in").form();
    assert_eq!(asked.by_head(&rules).as_deref(), Ok("sign in: body"));
    let request = Request {
        host: &asked.host,
        method: &asked.method,
        path: &asked.path,
        query: None,
        headers: &asked.headers,
    };
    let decision = rules
        .decide(&request, Body::Read(b"user=alice&password=x"))
        .unwrap();
    let sign_in = decision.sign_in.unwrap();
    assert_eq!((sign_in.login.as_str(), sign_in.seconds), ("alice", 3600));
    let outcome = |status: u16, lines: &[&'static str]| {
        let mut response = HeaderMap::new();
        for line in lines {
            response.append("set-cookie", HeaderValue::from_static(line));
        }
        let status = StatusCode::from_u16(status).unwrap();
        sign_in.outcome(status, &response).map(<[u8]>::to_vec)
    };
    let taken = ["lang=en", "sid=abc=; Path=/; HttpOnly"];
    assert_eq!(outcome(302, &taken), Some(b"abc=".to_vec()));
    assert_eq!(outcome(200, &taken), None);
    assert_eq!(outcome(302, &["sid=; Max-Age=0"]), None);
    assert_eq!(outcome(302, &["sid=a", "sid=b"]), None);
    assert_eq!(outcome(302, &["sid2=a"]), None);
    let without = rules.decide(&request, Body::Read(b"password=x")).unwrap();
    assert!(without.sign_in.is_none());
}

#[test]
fn what_could_not_be_learned_is_refused_with_what_puts_it_right() {
    let mut token = pin("token", &["/a"], "source", false);
    token.learns = Some(learns(&["bearer"]));
    let mut vague = pin("vague", &["/b"], "source", false);
    vague.learns = Some(LearnsConfig {
        status: Vec::new(),
        server_cookie: "a b".into(),
        seconds: 0,
        ..learns(&["form:user"])
    });
    let mut twice = account(
        "twice",
        &["/c"],
        &["form:user"],
        WithoutAccountConfig::Challenge,
    );
    twice.learns = Some(learns(&["form:user"]));
    let problems = checked(&[token, vague, twice]).unwrap_err();
    for (place, fix) in [
        ("rule 1 (token)", "take basic, query:NAME"),
        ("rule 1 (token)", "give learns.account_from"),
        ("rule 2 (vague)", "give server_cookie"),
        ("rule 2 (vague)", "needs learns.status"),
        ("rule 2 (vague)", "learns.seconds is 1 to 2592000"),
        ("rule 3 (twice)", "leave it out, the rule has one"),
    ] {
        let named = problems
            .iter()
            .any(|problem| problem.starts_with(place) && problem.contains(fix));
        assert!(named, "{place}: {fix}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
}

#[test]
fn rules_are_bounded_in_number() {
    let rules: Vec<_> = (0..257)
        .map(|at| pin(&at.to_string(), &[&format!("/{at}")], "source", false))
        .collect();
    assert!(checked(&rules[..256]).is_ok());
    assert!(checked(&rules).unwrap_err()[0].contains("join paths"));
}

#[test]
fn a_pin_that_can_write_is_a_risk_that_is_printed() {
    let rules = pinned_source();
    let risks: Vec<_> = rules.residual_risks().collect();
    assert_eq!(
        risks,
        [
            ("old tokens", "source"),
            ("new tokens", "target"),
            ("discovery", "source")
        ]
    );
}

#[test]
fn a_rule_s_document_refuses_what_it_does_not_know() {
    let rule = r#"{"name": "a", "paths": ["/a"], "account_from": ["basic"], "without_account": {"pin": "source"}}"#;
    let read: RuleConfig = serde_json::from_str(rule).unwrap();
    assert_eq!(
        read.without_account,
        Some(WithoutAccountConfig::Pin("source".into()))
    );
    assert!(serde_json::from_str::<RuleConfig>(&rule.replace("paths", "path")).is_err());
}

#[test]
fn nothing_that_was_claimed_can_be_printed() {
    let rules = pinned_source();
    let asked = asked("GET", "/dav/").with("authorization", "Basic YWxpY2U6c2VjcmV0");
    let request = Request {
        host: &asked.host,
        method: &asked.method,
        path: &asked.path,
        query: None,
        headers: &asked.headers,
    };
    let printed = format!("{:?}", rules.decide(&request, Body::Unread).unwrap());
    assert!(
        printed.contains("Login") && !printed.contains("alice") && !printed.contains("secret"),
        "{printed}"
    );
}

proptest! {
    /// Whatever tricks a path plays, it goes where its pin says, or nowhere.
    #[test]
    fn no_spelling_of_a_pinned_path_reaches_another_destination(
        before in prop::sample::select(vec!["/", "//", "/./", "/x/../", "/%2e/", "/%78/%2E%2e/"]),
        name in prop::sample::select(vec!["login", "%6cogin", "l%6Fgin", "logi%6E"]),
        after in prop::sample::select(vec!["", "/", "//", "/.", "/x/..", ";a=b", ";", "%2f", "%5c", "/%2e"]),
    ) {
        let rules = pinned_source();
        if let Ok(path) = NormalPath::parse(&format!("{before}{name}{after}")) {
            let mut asked = asked("GET", "/");
            asked.path = path;
            asked.headers.insert(AUTHORIZATION, "Bearer abc".parse().unwrap());
            asked.headers.insert(COOKIE, "a=b".parse().unwrap());
            let decided = asked.by_head(&rules);
            let is_good = decided.as_deref() == Ok("login: source false") || decided == Err(Refusal::Path);
            prop_assert!(is_good, "{}: {:?}", asked.path, decided);
        }
    }
}
