use super::{check::parse_pin, *};
use crate::{SecondName, v1::endpoint_tls::Mode};

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
        schema: 1,
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
        ..v1::RoutingConfig::default()
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
        UnlistedRoute::Refused(NoRoute::Unlisted)
    );
    assert_eq!(
        route("a@anything.example"),
        UnlistedRoute::Refused(NoRoute::UnknownDomain)
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
fn xclient_goes_with_the_protocols_that_have_it_and_capabilities_are_lines_there() {
    let mut document = document();
    for destination in &mut document.destinations {
        for protocol in [
            v1::Protocol::Pop3,
            v1::Protocol::Managesieve,
            v1::Protocol::Submission,
            v1::Protocol::Smtp,
            v1::Protocol::Lmtp,
        ] {
            let mut other = endpoint();
            other.protocol = protocol.into();
            other.announcement = v1::Announcement::Xclient.into();
            other.capabilities = vec!["SASL PLAIN LOGIN".into(), "USER".into()];
            destination.endpoints.push(other);
        }
    }
    RoutingConfig::try_from(&document).expect("valid");
    let endpoints = &mut document.destinations[0].endpoints;
    endpoints[0].announcement = v1::Announcement::Xclient.into();
    endpoints[0].capabilities = vec!["SASL PLAIN".into()];
    endpoints[1].announcement = v1::Announcement::ImapId.into();
    endpoints[1].capabilities = vec!["USER\r\n.".into(), " ".into()];
    assert_eq!(
        problems(&document),
        [
            "destinations[0].endpoints[0].announcement",
            "destinations[0].endpoints[0].capabilities",
            "destinations[0].endpoints[1].announcement",
            "destinations[0].endpoints[1].capabilities",
            "destinations[0].endpoints[1].capabilities",
        ]
    );
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

#[test]
fn a_document_needs_no_more_than_the_version_of_what_it_uses() {
    let mut document = document();
    document.schema = SCHEMAS.newest();
    let plain = RoutingConfig::try_from(&document).expect("valid");
    assert_eq!(plain.schema(), 1, "it says 2 and uses nothing of it");
    let pin = |digit: &str| digit.repeat(64);
    let tls = document.destinations[0].endpoints[0].tls.as_mut();
    let tls = tls.expect("TLS");
    tls.verification = Some(v1::endpoint_tls::Verification::PinSha256(pin("a")));
    tls.next_pin_sha256 = pin("b");
    document.schema = 1;
    let rotating = RoutingConfig::try_from(&document).expect("valid");
    assert_eq!(rotating.schema(), 2);
    let endpoint = &rotating
        .destinations()
        .values()
        .next()
        .expect("one")
        .endpoints()[0];
    let EndpointTls::Implicit(verification) = &endpoint.tls else {
        panic!("{endpoint:?}");
    };
    let pins = Trust::PinSha256 {
        pin: [0xaa; 32],
        next: Some([0xbb; 32]),
    };
    assert_eq!(verification.trust, pins);
}

#[test]
fn a_certificate_that_is_to_follow_needs_one_that_it_follows() {
    let mut document = document();
    let next = |document: &mut v1::RoutingConfig, hex: &str| {
        let tls = document.destinations[0].endpoints[0].tls.as_mut();
        hex.clone_into(&mut tls.expect("TLS").next_pin_sha256);
    };
    next(&mut document, &"b".repeat(64));
    let place = "destinations[0].endpoints[0].tls.next_pin_sha256";
    assert_eq!(problems(&document), [place]);
    let tls = document.destinations[0].endpoints[0].tls.as_mut();
    tls.expect("TLS").verification =
        Some(v1::endpoint_tls::Verification::PinSha256("a".repeat(64)));
    next(&mut document, "no digest");
    assert_eq!(problems(&document), [place]);
}

#[test]
fn a_version_that_is_not_read_here_is_refused() {
    for schema in [0, SCHEMAS.newest() + 1] {
        let document = v1::RoutingConfig {
            schema,
            ..document()
        };
        assert_eq!(problems(&document), ["schema"]);
        let refused = RoutingConfig::expect_readable(&document);
        let needs = schema;
        let reads = SCHEMAS;
        assert_eq!(refused, Err(UnreadableSchema { needs, reads }));
    }
}

#[test]
fn a_value_of_a_later_version_is_a_mistake_in_a_request_and_disables_its_endpoint_in_force() {
    type Change = fn(&mut v1::Endpoint);
    let changes: [(&str, Change); 3] = [
        ("protocol", |endpoint| endpoint.protocol = 77),
        ("announcement", |endpoint| endpoint.announcement = 77),
        ("tls.mode", |endpoint| {
            endpoint.tls.as_mut().expect("TLS").mode = 77;
        }),
    ];
    let source = DestinationId::parse("source").expect("an id");
    for (field, change) in changes {
        let mut document = document();
        let mut later = endpoint();
        later.when = Some(v1::Condition {
            group: "gateway".into(),
        });
        change(&mut later);
        // Nothing else that such an endpoint says is judged: it may mean something else there.
        later.host.clear();
        document.destinations[0].endpoints.push(later);
        let place = format!("destinations[0].endpoints[1].{field}");
        assert!(problems(&document).contains(&place), "{field}");

        let config = RoutingConfig::in_force(&document).expect("the rest is valid");
        let destination = config.destination(&source).expect("it is there");
        let reached = |group| destination.endpoint(v1::Protocol::Imap, group).is_some();
        let rejected = |group| destination.disabled(group).next().map(|e| e.field);
        assert_eq!(rejected("gateway"), Some(field));
        assert_eq!(
            reached("gateway"),
            field == "protocol",
            "no other way is taken"
        );
        assert!(reached("sidecar"), "{field}");
        assert_eq!(rejected("sidecar"), None);
    }
}

#[test]
fn a_group_with_an_endpoint_of_its_own_does_not_miss_a_disabled_one_for_every_group() {
    let mut document = document();
    let mut own = endpoint();
    own.when = Some(v1::Condition {
        group: "gateway".into(),
    });
    document.destinations[0].endpoints[0].announcement = 77;
    document.destinations[0].endpoints.push(own);
    let config = RoutingConfig::in_force(&document).expect("valid");
    let source = DestinationId::parse("source").expect("an id");
    let destination = config.destination(&source).expect("it is there");
    assert_eq!(destination.disabled("gateway").count(), 0);
    assert!(
        destination
            .endpoint(v1::Protocol::Imap, "gateway")
            .is_some()
    );
    assert_eq!(destination.disabled("").count(), 1);
    assert!(destination.endpoint(v1::Protocol::Imap, "").is_none());
}

#[test]
fn what_a_server_does_with_two_names_is_not_known_until_it_is_said() {
    let facts = |document: &v1::RoutingConfig| {
        let config = RoutingConfig::try_from(document).expect("valid");
        let source = &config.destinations()[&DestinationId::parse("source").expect("an id")];
        let endpoint = &source.endpoints()[0];
        let heeds = [
            SecondName::AuthorizationIdentity,
            SecondName::MasterUser('%'),
            SecondName::BesideToken,
        ];
        let heeds = heeds.map(|second| endpoint.is_known_to_heed(second));
        (config.schema(), heeds)
    };
    let mut said = document();
    assert_eq!(facts(&said), (1, [false, false, false]));
    let honoured = v1::AuthorizationIdentity::Honoured;
    said.destinations[0].endpoints[0].authorization_identity = honoured.into();
    assert_eq!(facts(&said), (1, [true, false, false]));
    // Who passes that over lets the owner of the password past a fence.
    let ignored = v1::AuthorizationIdentity::Ignored;
    said.destinations[0].endpoints[0].authorization_identity = ignored.into();
    assert_eq!(facts(&said), (2, [false, false, true]));
    said.destinations[0].endpoints[0].master_separators = "%".into();
    assert_eq!(
        problems(&said),
        ["destinations[0].endpoints[0].master_separators"]
    );
    said.names.as_mut().expect("there").master_separators = "*%".into();
    assert_eq!(facts(&said), (2, [false, true, true]));
    let warnings = RoutingConfig::try_from(&said).expect("valid").warnings();
    let [first, second] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(first.contains("with * are refused"), "{first}");
    assert!(second.contains("with *% are refused"), "{second}");
}

#[test]
fn a_move_tells_who_can_no_longer_act_as_others() {
    let mut there = document();
    let honoured = v1::AuthorizationIdentity::Honoured;
    there.destinations[0].endpoints[0].authorization_identity = honoured.into();
    let lost = |document: &v1::RoutingConfig, source: &str, target: &str| {
        let config = RoutingConfig::try_from(document).expect("valid");
        let id = |id| DestinationId::parse(id).expect("an id");
        config.lost_second_names(&id(source), &id(target)).len()
    };
    assert_eq!(lost(&there, "source", "target"), 1);
    assert_eq!(lost(&there, "target", "source"), 0);
    there.destinations[1].endpoints[0].authorization_identity = honoured.into();
    assert_eq!(lost(&there, "source", "target"), 0);
}

#[test]
fn an_unknown_word_about_two_names_disables_the_endpoint() {
    let mut newer = document();
    newer.destinations[0].endpoints[0].authorization_identity = 99;
    let places = problems(&newer);
    assert_eq!(
        places,
        ["destinations[0].endpoints[0].authorization_identity"]
    );
    let config = RoutingConfig::in_force(&newer).expect("it is in force");
    let source = &config.destinations()[&DestinationId::parse("source").expect("an id")];
    assert_eq!(source.endpoint(v1::Protocol::Imap, ""), None);
}

#[test]
fn what_is_said_of_mail_is_for_those_who_ask_and_raises_no_version() {
    let mut said = document();
    let config = RoutingConfig::try_from(&said).expect("valid");
    assert_eq!(config.mail_split(), MailSplit::NotKnown);
    let mut lmtp = endpoint();
    lmtp.protocol = v1::Protocol::Lmtp.into();
    lmtp.announcement = v1::Announcement::None.into();
    lmtp.acceptance = v1::Acceptance::Queued.into();
    for destination in &mut said.destinations {
        destination.endpoints.push(lmtp.clone());
        lmtp.acceptance = v1::Acceptance::Delivered.into();
    }
    said.mail_split = v1::MailSplit::ByPlacement.into();
    let config = RoutingConfig::try_from(&said).expect("valid");
    let accepting = |id, acceptance| {
        let id = DestinationId::parse(id).expect("an id");
        config.accepting(&id, acceptance)
    };
    let queued = |id| accepting(id, Acceptance::Queued);
    assert_eq!(queued("source"), [v1::Protocol::Lmtp]);
    assert!(queued("target").is_empty() && queued("nowhere").is_empty());
    // There is nothing to be said of a protocol that brings no mail.
    assert!(accepting("source", Acceptance::NotKnown).is_empty());
    assert_eq!(config.mail_split(), MailSplit::ByPlacement);
    // Whoever passes it over moves the same accounts and warns of less.
    assert_eq!(config.schema(), 1);
    // A value of a later version says nothing that is known here, and disables nothing.
    said.mail_split = 99;
    said.destinations[0].endpoints[1].acceptance = 99;
    let config = RoutingConfig::in_force(&said).expect("valid");
    let source = &config.destinations()[&DestinationId::parse("source").expect("an id")];
    assert_eq!(config.mail_split(), MailSplit::NotKnown);
    assert_eq!(source.endpoints()[1].acceptance, Acceptance::NotKnown);
    assert_eq!(source.disabled("").count(), 0);
    said.destinations[0].endpoints[0].acceptance = v1::Acceptance::Queued.into();
    assert_eq!(problems(&said), ["destinations[0].endpoints[0].acceptance"]);
}
