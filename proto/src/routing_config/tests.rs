use super::{check::parse_pin, *};
use crate::v1::endpoint_tls::Mode;

fn endpoint() -> v1::Endpoint {
    v1::Endpoint {
        protocol: v1::Protocol::Imap.into(),
        host: "old.example.org".into(),
        port: 993,
        tls: Some(v1::EndpointTls {
            mode: Mode::Implicit.into(),
            ..Default::default()
        }),
        announcement: v1::Announcement::ImapId.into(),
        ..Default::default()
    }
}

fn document() -> v1::RoutingConfig {
    let destination = |id: &str| v1::Destination {
        id: id.into(),
        without: Vec::new(),
        endpoints: vec![endpoint()],
    };
    v1::RoutingConfig {
        schema: SCHEMA,
        destinations: vec![destination("source"), destination("target")],
        default_destination: "source".into(),
        domains: vec![
            v1::Domain {
                name: "Example.org".into(),
                unlisted: None,
            },
            v1::Domain {
                name: "new.example".into(),
                unlisted: Some(v1::domain::Unlisted::Destination("target".into())),
            },
            v1::Domain {
                name: "closed.example".into(),
                unlisted: Some(v1::domain::Unlisted::Refuse(v1::UnlistedRefuse {})),
            },
        ],
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Listed(v1::BareNamesListed {})),
            ..Default::default()
        }),
    }
}

fn problems(document: &v1::RoutingConfig) -> Vec<String> {
    RoutingConfig::try_from(document)
        .expect_err("a mistake")
        .0
        .into_iter()
        .map(|problem| problem.place)
        .collect()
}

#[test]
fn unlisted_names_follow_their_domain() {
    let config = RoutingConfig::try_from(&document()).expect("valid");
    let route = |login: &str| config.unlisted(&config.names().canonicalise(login).expect("a name"));
    let id = |id| DestinationId::parse(id).expect("an id");
    assert_eq!(route("a@example.org"), UnlistedRoute::Default(id("source")));
    assert_eq!(
        route("a@new.example"),
        UnlistedRoute::DomainDefault(id("target"))
    );
    assert_eq!(
        route("a@closed.example"),
        UnlistedRoute::Refused(Refusal::Unlisted)
    );
    assert_eq!(
        route("a@anything.example"),
        UnlistedRoute::Refused(Refusal::UnknownDomain)
    );
    assert_eq!(route("a"), UnlistedRoute::Default(id("source")));
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_place() {
    let mut bad = document();
    bad.schema = 9;
    bad.default_destination = "nowhere".into();
    bad.names = None;
    bad.domains[1].name = "-".into();
    bad.destinations[1].id = "source".into();
    bad.destinations[0].endpoints[0].port = 70_000;
    bad.destinations[0].endpoints[0].tls = None;
    let mut places = problems(&bad);
    places.sort();
    assert_eq!(
        places,
        [
            "default_destination",
            "destinations[0].endpoints[0].port",
            "destinations[0].endpoints[0].tls",
            "destinations[1].id",
            "domains[1].destination",
            "domains[1].name",
            "names",
            "schema",
        ]
    );
}

#[test]
fn plaintext_needs_consent_and_warns() {
    let mut plain = document();
    let tls = |consent| {
        Some(v1::EndpointTls {
            mode: Mode::None.into(),
            plaintext_consent: consent,
            ..Default::default()
        })
    };
    plain.destinations[0].endpoints[0].tls = tls(false);
    assert_eq!(
        problems(&plain),
        ["destinations[0].endpoints[0].tls.plaintext_consent"]
    );
    plain.destinations[0].endpoints[0].tls = tls(true);
    let config = RoutingConfig::try_from(&plain).expect("valid");
    assert_eq!(config.warnings().len(), 1);
}

#[test]
fn endpoints_are_chosen_by_group() {
    let mut grouped = document();
    let mut own = endpoint();
    own.when = Some(v1::Condition {
        group: "source".into(),
    });
    own.host = "127.0.0.1".into();
    grouped.destinations[0].endpoints.push(own);
    let config = RoutingConfig::try_from(&grouped).expect("valid");
    let source = config.destination(&DestinationId::parse("source").expect("an id"));
    let host = |group: &str| {
        source
            .and_then(|source| source.endpoint(v1::Protocol::Imap, group))
            .map(|endpoint| endpoint.host.as_str())
    };
    assert_eq!(host("source"), Some("127.0.0.1"));
    assert_eq!(host("edge"), Some("old.example.org"));
    grouped.destinations[0].endpoints.push(endpoint());
    assert_eq!(problems(&grouped), ["destinations[0].endpoints[2]"]);
}

#[test]
fn pins_are_read_with_and_without_colons() {
    assert_eq!(parse_pin(&"ab".repeat(32)), Some([0xab; 32]));
    assert_eq!(parse_pin(&vec!["AB"; 32].join(":")), Some([0xab; 32]));
    for bad in ["", "ab", &"zz".repeat(32), &"+a".repeat(32)] {
        assert_eq!(parse_pin(bad), None);
    }
}

#[test]
fn a_server_that_offers_compress_and_unauthenticate_can_be_relayed() {
    let mut both = document();
    both.destinations[0].endpoints[0].capabilities = vec![
        "IMAP4rev1".into(),
        "COMPRESS=DEFLATE".into(),
        "UNAUTHENTICATE".into(),
    ];
    RoutingConfig::try_from(&both).expect("no problem");
}

#[test]
fn an_account_loses_no_protocol_by_its_move_unless_that_is_said() {
    let mut fewer = document();
    let mut pop3 = endpoint();
    pop3.protocol = v1::Protocol::Pop3.into();
    pop3.announcement = v1::Announcement::None.into();
    fewer.destinations[0].endpoints.push(pop3);
    let said = |document: &v1::RoutingConfig| {
        let problems = RoutingConfig::try_from(document).expect_err("a mistake").0;
        problems
            .into_iter()
            .map(|problem| problem.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        said(&fewer),
        [
            "destinations[1].endpoints: no pop3 endpoint, which \"source\" has: an account here \
             could not use it. Add one, or list the protocol in `without`"
        ]
    );
    fewer.destinations[1].without = vec![v1::Protocol::Pop3.into()];
    RoutingConfig::try_from(&fewer).expect("it is meant");
    fewer.destinations[1].without = vec![v1::Protocol::Imap.into(), v1::Protocol::Pop3.into()];
    assert_eq!(problems(&fewer), ["destinations[1].without"]);
}

#[test]
fn a_protocol_that_is_spoken_in_a_group_is_spoken_there_by_all() {
    let mut grouped = document();
    let inside = |mut endpoint: v1::Endpoint| {
        endpoint.when = Some(v1::Condition {
            group: "inside".into(),
        });
        endpoint
    };
    // An endpoint for every group serves this one, too; the reverse does not hold.
    grouped.destinations[0].endpoints = vec![inside(endpoint()), endpoint()];
    RoutingConfig::try_from(&grouped).expect("valid");
    grouped.destinations[1].endpoints = vec![inside(endpoint())];
    assert_eq!(problems(&grouped), ["destinations[1].endpoints"]);
    grouped.destinations[0].endpoints.pop();
    RoutingConfig::try_from(&grouped).expect("all data planes are inside");
}
