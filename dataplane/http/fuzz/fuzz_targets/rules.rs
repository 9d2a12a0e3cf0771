#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use ferrypost_http::rules::{Body, FieldConfig, Request, RuleConfig, Rules, WithoutAccountConfig};
use ferrypost_http::target::{Host, NormalPath};
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;

// One rule for a form's field, one for all accounts from everywhere.
static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let pinned = RuleConfig {
        name: "pinned".to_owned(),
        form: vec![FieldConfig {
            name: "client_id".to_owned(),
            values: vec!["old".to_owned()],
        }],
        pin: Some("source".to_owned()),
        writes_to_accounts: Some(true),
        ..RuleConfig::default()
    };
    let sources = ["basic", "bearer", "query:user", "form:user", "json:/a/b", "cookie"];
    let accounts = RuleConfig {
        name: "accounts".to_owned(),
        account_from: sources.map(str::to_owned).into(),
        without_account: Some(WithoutAccountConfig::Challenge),
        ..RuleConfig::default()
    };
    Rules::new(&[pinned, accounts], &BTreeSet::from(["source"])).expect("rules")
});

// A media type, a line of each of these fields and of the query, and a body: whatever they are, each is decided, and
// with the body it is decided for good.
fuzz_target!(|data: (bool, [&[u8]; 2], &str, &[u8])| {
    let (is_form, [credentials, cookie], query, body) = data;
    let mut headers = HeaderMap::new();
    let media_type = if is_form {
        "application/x-www-form-urlencoded"
    } else {
        "application/json"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in [(AUTHORIZATION, credentials), (COOKIE, cookie)] {
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.insert(name, value);
        }
    }
    let request = Request {
        host: &Host::parse(b"mail.example.org").expect("a host"),
        method: &Method::POST,
        path: &NormalPath::parse("/").expect("a path"),
        query: Some(query),
        headers: &headers,
    };
    let by_head = RULES.decide(&request, Body::Unread).map(|it| format!("{it:?}"));
    let by_body = RULES.decide(&request, Body::Read(body)).map(|it| format!("{it:?}"));
    let needs_body = by_head.as_ref().is_ok_and(|it| it.contains("ReadBody"));
    assert!(needs_body || by_head == by_body);
    assert!(by_body.is_err() || !by_body.is_ok_and(|it| it.contains("ReadBody")));
});
