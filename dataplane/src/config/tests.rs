//! Every mistake, with the place and the message that the operator reads.

use std::{fs, time::Duration};

use ferrypost_runtime::config::Mistake;

use super::*;
use crate::{
    lookup::settings::LookupProtocol,
    net::local::Place,
    tokens::settings::{JwtKeys, WaySettings},
};

/// A directory with the files that the example names.
pub(super) fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("tls")).unwrap();
    for name in ["mail", "gateway-1"] {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example.org")]).unwrap();
        fs::write(path.join(format!("tls/{name}.pem")), made.cert.pem()).unwrap();
        fs::write(
            path.join(format!("tls/{name}.key")),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        fs::write(path.join("tls/ca.pem"), made.cert.pem()).unwrap();
    }
    fs::write(
        path.join("admin.token"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    fs::write(
        path.join("drain.token"),
        "fedcba9876543210fedcba9876543210\n",
    )
    .unwrap();
    fs::write(path.join("tls/issuer.jwks"), KEY_SET).unwrap();
    fs::write(path.join("issuer.secret"), "s3cret\n").unwrap();
    directory
}

#[test]
fn who_gives_an_order_reads_what_the_order_needs_and_no_certificate_of_the_next_process() {
    let directory = directory();
    let path = directory.path().join("gateway.toml");
    let next = EXAMPLE.replace("tls/mail.pem", "tls/next.pem");
    assert_ne!(next, EXAMPLE);
    assert!(Config::parse(&next, &path).is_err());
    let (_, admin) = next.split_once("[admin]").unwrap();
    let renewed = next.replace(admin, &admin.replace("tls/next.pem", "tls/mail.pem"));
    let (admin, limits) = Config::for_order(&ConfigFile::of_text(&renewed, &path)).unwrap();
    let before = Config::parse(EXAMPLE, &path).unwrap();
    assert_eq!(
        (admin.listen, limits),
        (before.admin().listen, before.limits().shutdown)
    );
    let without = renewed.replace("[admin]", "[adminn]");
    assert!(Config::for_order(&ConfigFile::of_text(&without, &path)).is_err());
}

/// The key of RFC 7517 appendix A.1.
const KEY_SET: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

const EXAMPLE: &str = include_str!("../../examples/gateway.toml");

/// The example's text with the commented-out keys in force.
pub(super) fn in_full() -> String {
    let uncommented = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| is_key(key)) => rest.to_owned(),
        Some(rest) if rest.starts_with('[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE
        .lines()
        .map(|line| uncommented(line) + "\n")
        .collect()
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

fn parse(text: &str, directory: &tempfile::TempDir) -> Result<Config, Mistakes> {
    Config::parse(text, &directory.path().join("gateway.toml"))
}

/// What is wrong with the example when it is changed by `edit`: line, key, message.
fn mistakes(edit: impl Fn(String) -> String) -> Vec<String> {
    let directory = directory();
    let text = edit(EXAMPLE.to_owned());
    assert_ne!(text, EXAMPLE, "the edit must change something");
    match parse(&text, &directory) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .mistakes
            .iter()
            .map(|m| shown(m, &directory))
            .collect(),
    }
}

fn shown(mistake: &Mistake, directory: &tempfile::TempDir) -> String {
    let place = &*directory.path().to_string_lossy();
    let shown = mistake.to_string().replace(place, "DIR");
    shown.trim_start_matches(':').to_owned()
}

/// Who may ask a listener that does not say who.
fn default_askers() -> Vec<Network> {
    let text = format!("{EXAMPLE}{LOOKUP}");
    let config = parse(&text, &directory()).unwrap();
    config.lookups()[0].from.clone()
}

const LOOKUP: &str = "[[lookups]]\nname = \"x\"\nprotocol = \"http\"\naddress = \"127.0.0.1:0\"\n\
     next_hops = [\"source a\"]\n";

const CERTIFICATES: &str =
    "certificates = [{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }]";

#[test]
fn a_lookup_says_how_and_where_it_is_asked_and_a_way_for_each_destination_once() {
    let secure = format!("\"http\"\n{CERTIFICATES}");
    for (from, to, mistake) in [
        (
            "\"source a\"",
            "\"source\"",
            "write a destination, a space and the next hop",
        ),
        (
            "\"source a\"",
            "\"so urce\\u0000\"",
            "write a destination, a space and the next hop",
        ),
        (
            "\"source a\"",
            "\"source a\", \"source b\"",
            "\"source\" is there twice",
        ),
        ("next_hops", "# next_hops", "next_hops: "),
        ("name", "# name", "name: "),
        ("\"x\"", "\"imaps\"", "\"imaps\" is there twice"),
        ("protocol", "# protocol", "\"socketmap\", \"http\""),
        ("address", "# address", "address: missing: "),
        (
            "127.0.0.1:0",
            "0.0.0.0:993",
            "0.0.0.0:993 is taken by listeners[0].address",
        ),
        (
            "address",
            "socket = \"x.sock\"\naddress",
            "is in place of address",
        ),
        ("address", "mode = \"660\"\naddress", "name it: socket"),
        (
            "address = \"127.0.0.1:0\"",
            "socket = \"x.sock\"\nmode = \"0999\"",
            "must be who may open it",
        ),
        (
            "address = \"127.0.0.1:0\"",
            "socket = \"x.sock\"\nfrom = [\"::1\"]",
            "who may open a socket is said by its mode",
        ),
        (
            "\"http\"\naddress = \"127.0.0.1:0\"",
            &format!("{secure}\nsocket = \"x.sock\""),
            "are for an address",
        ),
        (
            "\"http\"",
            &secure.replace("http", "socketmap"),
            "a socketmap has no TLS",
        ),
    ] {
        let found = mistakes(|text| text + &LOOKUP.replacen(from, to, 1));
        assert!(
            found.len() == 1 && found[0].contains(mistake),
            "{to}: {found:?}"
        );
    }
}

#[test]
fn a_lookup_is_at_a_socket_or_under_tls_where_the_file_says_so() {
    let directory = directory();
    let secure = LOOKUP.replacen("\"http\"", &format!("\"http\"\n{CERTIFICATES}"), 1);
    let address = "address = \"127.0.0.1:0\"";
    let sockets = ["", "\nmode = \"0666\""].map(|mode| {
        let socket = format!("socket = \"x{}.sock\"{mode}", mode.len());
        let named = LOOKUP.replacen("\"x\"", &format!("\"x{}\"", mode.len()), 1);
        named.replacen(address, &socket, 1)
    });
    let config = parse(
        &format!("{EXAMPLE}{secure}{}", sockets.concat()),
        &directory,
    )
    .unwrap();
    let [secure, private, public] = config.lookups() else {
        panic!("{:?}", config.lookups());
    };
    assert!(matches!(&secure.protocol, LookupProtocol::Http(files) if files.len() == 1));
    let mode = |place: &Place| match place {
        Place::File { path, mode } if path.starts_with(directory.path()) => Some(*mode),
        _ => None,
    };
    assert_eq!(mode(&private.place), Some(0o600));
    assert_eq!(mode(&public.place), Some(0o666));
}

/// What is wrong when a listener for mail systems is added, but for where that is.
fn delivering(keys: &str) -> Vec<String> {
    let listener = format!("[[deliveries]]\nname = \"lmtp\"\nprotocol = \"lmtp\"\n{keys}\n");
    let found = mistakes(|text| text + &listener);
    let without_line = |it: String| it.split_once(": ").map(|(_, rest)| rest.to_owned());
    found.into_iter().filter_map(without_line).collect()
}

#[test]
fn a_listener_for_mail_systems_is_at_an_address_or_in_the_file_system_and_says_who_may_come() {
    for keys in [
        "address = \"127.0.0.1:24\"",
        "address = \"0.0.0.0:24\"\nfrom = [\"192.0.2.0/24\"]",
        "socket = \"lmtp\"",
        "socket = \"lmtp\"\nmode = \"600\"",
    ] {
        assert_eq!(delivering(keys), [""; 0], "{keys}");
    }
    for (keys, mistake) in [
        (
            "",
            "deliveries[0].address: missing: where mail systems deliver",
        ),
        (
            "address = \"127.0.0.1:24\"\nsocket = \"x\"",
            "deliveries[0].socket: is in place of address",
        ),
        (
            "address = \"127.0.0.1:24\"\nmode = \"0600\"",
            "deliveries[0].mode: is for a socket",
        ),
        (
            "address = \"127.0.0.1:24\"\nfrom = []",
            "deliveries[0].from: name the mail systems",
        ),
        (
            "socket = \"x\"\nfrom = [\"::1\"]",
            "deliveries[0].from: is for an address",
        ),
        (
            "socket = \"x\"\nmode = \"rw\"",
            "deliveries[0].mode: \"rw\": must be who may open it",
        ),
        (
            "address = \"127.0.0.1:24\"\ntls = \"implicit\"",
            "deliveries[0].tls: unknown key",
        ),
        (
            "address = \"0.0.0.0:993\"",
            "deliveries[0].address: 0.0.0.0:993 is taken by listeners[0].address",
        ),
    ] {
        let found = delivering(keys);
        assert!(
            found.len() == 1 && found[0].starts_with(mistake),
            "{keys}: {found:?}"
        );
    }
    let twice = replaced("name = \"imap\"", "name = \"imaps\"");
    assert!(twice[0].contains("\"imaps\" is there twice"), "{twice:?}");
}

/// What is wrong when `from` is replaced.
fn replaced(from: &str, to: &str) -> Vec<String> {
    assert!(EXAMPLE.contains(from), "{from}");
    mistakes(|text| text.replacen(from, to, 1))
}

#[test]
fn the_example_is_valid_and_its_comments_say_the_defaults() {
    let directory = directory();
    let config = parse(EXAMPLE, &directory).unwrap();
    assert_eq!(config.instance().as_str(), "gateway-1");
    assert_eq!(config.state_directory(), directory.path().join("state"));
    assert_eq!(config.admin().listen.to_string(), "127.0.0.1:9443");
    assert_eq!(config.listeners().len(), 7);
    assert_eq!(config.listeners()[1].tls, ListenerTls::StartTls);

    let full = parse(&in_full(), &directory).unwrap();
    assert_eq!(full.limits(), config.limits());
    assert_eq!(*full.limits(), Limits::default());
    assert_eq!(full.listeners()[0].connections, Some(10_000));
    let web_mailer = KnownNetwork {
        network: "192.0.2.10".parse().unwrap(),
        connections: 5000,
    };
    assert_eq!(full.known_networks(), [web_mailer]);
    assert!(config.known_networks().is_empty());
    let [servers] = full.servers() else {
        panic!("{:?}", full.servers());
    };
    assert_eq!(servers.destination.as_ref().unwrap().as_str(), "new");
    assert_eq!(servers.protocol, Some(v1::Protocol::Submission));
    assert!(servers.client_certificate.is_some() && config.servers().is_empty());
    let [through] = full.pass_throughs() else {
        panic!("{:?}", full.pass_throughs());
    };
    assert_eq!(through.destination.as_str(), "new");
    assert_eq!(through.connections, Some(2000));
    assert!(through.proxy_protocol_from.len() == 1 && config.pass_throughs().is_empty());
    let [web] = full.web() else {
        panic!("{:?}", full.web());
    };
    assert_eq!((&*web.name, web.connections), ("https", Some(5000)));
    assert_eq!(web.trusted_peers, ["192.0.2.80".parse().unwrap()]);
    assert!(web.certificates.len() == 1 && config.web().is_empty());
    assert!(config.lookups().is_empty());
    let [lookup] = full.lookups() else {
        panic!("{:?}", full.lookups());
    };
    assert_eq!(lookup.next_hops.len(), 2);
    let told = LookupSettings {
        from: default_askers(),
        ..lookup.clone()
    };
    assert_eq!(*lookup, told, "the comment says the default");
    assert!(config.deliveries().is_empty());
    let [tcp, unix] = full.deliveries() else {
        panic!("{:?}", full.deliveries());
    };
    assert_eq!(tcp.connections, Some(1000));
    assert_eq!(tcp.certificates.len(), 1);
    let path = directory.path().join("lmtp");
    let mode = 0o660;
    assert_eq!(unix.place, Place::File { path, mode });
    assert!(full.admin().health_listen.is_some());
    assert_eq!(
        full.control_plane()
            .tls
            .as_ref()
            .unwrap()
            .server_name
            .as_deref(),
        Some("control-plane.example.org")
    );
}

#[test]
fn every_limit_can_be_set() {
    let directory = directory();
    let text = in_full()
        .replace("# idle", "idle")
        .replace("idle = \"35m\"", "idle = \"40m\"")
        .replace("max_line = 12288", "max_line = 16384")
        .replace("total = 5000", "total = 6000");
    let config = parse(&text, &directory).unwrap();
    assert_eq!(config.limits().relay.idle, Duration::from_mins(40));
    assert_eq!(config.limits().preauth.front.max_line, 16_384);
    assert_eq!(config.limits().hold.total, 6000);
}

#[test]
fn a_protocol_may_have_limits_of_its_own_and_inherits_the_others() {
    let directory = directory();
    let text = in_full()
        .replace("login = \"60s\"", "login = \"50s\"")
        .replace("max_errors = 10\n", "max_errors = 3\n")
        .replace("idle = \"11m\"", "idle = \"10m\"");
    let config = parse(&text, &directory).unwrap();
    let limits = config.limits();
    let submission = limits.preauth_of(ProtocolKind::Submission);
    assert_eq!(
        (submission.login, submission.front.max_errors),
        (Duration::from_secs(50), 3)
    );
    assert_eq!(limits.preauth_of(ProtocolKind::Pop3).front.max_errors, 10);
    assert_eq!(
        limits.relay_of(ProtocolKind::Pop3).idle,
        Duration::from_mins(10)
    );
    assert_eq!(limits.relay_of(ProtocolKind::Imap), limits.relay);
    assert_eq!(
        replaced("# idle = \"11m\"", "drain = \"1s\""),
        ["170: limits.pop3.relay.drain: unknown key; there are: answer, idle, stalled"]
    );
}

#[test]
fn the_page_about_limits_has_each_of_them_with_its_default() {
    let page = include_str!("../../../docs/limits.md");
    let own = ["limits.pop3", "limits.submission"];
    let (mut section, mut seen) = (String::new(), 0);
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
        }
        let Some((key, rest)) = line.split_once(" = ") else {
            continue;
        };
        let is_own = own.iter().any(|own| section.starts_with(own));
        if !section.starts_with("limits") || is_own || !is_key(key) || key == "network" {
            continue;
        }
        let value = rest.split_whitespace().next().unwrap().trim_matches('"');
        let row = format!("| `{section}.{key}` | `{value}` |");
        assert!(page.contains(&row), "{row}");
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn no_idle_time_is_below_what_clients_of_the_protocol_count_on() {
    assert_eq!(
        replaced("# idle = \"35m\"", "idle = \"30m\""),
        ["108: limits.relay.idle: must be at least 31m for imap (RFC 9051 §5.4)"]
    );
    assert_eq!(
        replaced("# idle = \"11m\"", "idle = \"9m\""),
        ["170: limits.pop3.relay.idle: must be at least 10m for pop3 (RFC 1939 §3)"]
    );
    let of = |protocol: &str, idle: &str| {
        let text = format!("[limits.{protocol}.relay]\nidle = \"{idle}\"\n[limits.tokens]");
        replaced("[limits.tokens]", &text).len()
    };
    for (protocol, enough, too_little) in [
        ("imap", "31m", "1859s"),
        ("managesieve", "30m", "1799s"),
        ("submission", "5m", "299s"),
    ] {
        assert_eq!((of(protocol, enough), of(protocol, too_little)), (0, 1));
    }
}

/// What is wrong with these lines at the end of the example, wherever that is.
fn appended(lines: &str) -> Vec<String> {
    let found = mistakes(|text| text + lines).into_iter();
    let without_line = |mistake: String| mistake.split_once(": ").unwrap().1.to_owned();
    found.map(without_line).collect()
}

#[test]
fn what_is_passed_through_has_a_name_an_address_and_a_destination_and_no_tls() {
    let whole = "[[pass_throughs]]\nname = \"mx\"\naddress = \"[::]:25\"\ndestination = \"new\"\n";
    assert!(appended(whole).is_empty());
    assert_eq!(
        appended("[[pass_throughs]]\n"),
        [
            "pass_throughs[0].name: missing: what it is called in logs, as \"mx\"",
            "pass_throughs[0].address: missing: where mail systems connect, as \"0.0.0.0:25\"",
            "pass_throughs[0].destination: missing: whose server they are passed to, as the routing \
             configuration names it",
        ]
    );
    let certificates = format!("{whole}certificates = []\n");
    assert_eq!(
        appended(&certificates),
        [
            "pass_throughs[0].certificates: TLS is between the two ends of what is passed through; the server \
          shows its own certificate"
        ]
    );
}

#[test]
fn where_http_is_spoken_there_is_a_name_an_address_and_a_certificate() {
    let whole = format!("[[web]]\nname = \"https\"\naddress = \"[::]:443\"\n{CERTIFICATES}");
    assert!(appended(&whole).is_empty());
    assert_eq!(
        appended("[[web]]\n"),
        [
            "web[0].name: missing: what it is called in logs, as \"https\"",
            "web[0].address: missing: where clients connect, as \"0.0.0.0:443\"",
            "web[0].certificates: name at least one, as [{ cert_file = \"mail.pem\", key_file = \"mail.key\" }]",
        ]
    );
    let taken = whole.replace("[::]:443", "0.0.0.0:993");
    assert_eq!(
        appended(&taken),
        ["web[0].address: 0.0.0.0:993 is taken by listeners[0].address"]
    );
}

#[test]
fn whatever_is_connected_to_has_a_name_and_an_address_of_its_own() {
    let through = |name: &str, address: &str| {
        appended(&format!(
            "[[pass_throughs]]\nname = \"{name}\"\naddress = \"{address}\"\ndestination = \"new\"\n"
        ))
    };
    assert_eq!(
        through("imaps", "0.0.0.0:25"),
        ["pass_throughs[0].name: \"imaps\" is there twice"]
    );
    assert_eq!(
        through("mx", "0.0.0.0:993"),
        ["pass_throughs[0].address: 0.0.0.0:993 is taken by listeners[0].address"]
    );
    assert_eq!(
        through("mx", "127.0.0.1:9443"),
        ["pass_throughs[0].address: 127.0.0.1:9443 is taken by admin.listen"]
    );
}

#[test]
fn what_is_passed_through_is_not_closed_before_a_server_has_had_its_time_to_answer() {
    assert_eq!(
        appended("[limits.pass_through]\nidle = \"9m\"\n"),
        ["limits.pass_through.idle: must be at least 10m (RFC 5321 §4.5.3.2.6)"]
    );
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_is_meant() {
    assert_eq!(
        replaced("instance = ", "instanze = "),
        [
            "1: instance: missing: this data plane's own name, as \"dp-1\"",
            "11: instanze: unknown key; is \"instance\" meant?",
        ]
    );
    assert_eq!(
        replaced("# idle = \"35m\"", "idel = \"35m\""),
        ["108: limits.relay.idel: unknown key; is \"idle\" meant?"]
    );
    assert_eq!(
        replaced("[log]", "[log]\ncolour = true"),
        ["64: log.colour: unknown key; there are: accounts, accounts_key_file, format, level"]
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let found = mistakes(|text| {
        text.replace("instance = \"gateway-1\"", "instance = \"Gateway 1\"")
            .replace("0.0.0.0:993", "imap.example.org:993")
            .replacen("tls = \"starttls\"", "tls = \"none\"", 1)
            .replace("# per_address = 500", "per_address = 0")
            .replace("# handshake = \"10s\"", "handshake = 10")
            .replace("# level = \"info\"", "level = \"trace\"")
    });
    assert_eq!(
        found,
        [
            "11: instance: \"Gateway 1\": not a valid instance id",
            "34: listeners[0].address: \"imap.example.org:993\": must be an address with a port, as \
             \"0.0.0.0:993\" or \"[::]:993\"",
            "49: listeners[1].tls: \"none\" must be one of \"implicit\", \"starttls\"",
            "65: log.level: \"trace\" must be one of \"error\", \"warn\", \"info\", \"debug\"",
            "73: limits.connections.per_address: must be a whole number from 1 on",
            "83: limits.preauth.handshake: must be a time, as \"500ms\", \"10s\", \"5m\" or \"1h\", is \
             integer",
        ]
    );
}

#[test]
fn what_is_missing_is_named_with_what_it_is_for() {
    let directory = directory();
    let found = parse("", &directory).unwrap_err();
    let places: Vec<_> = found
        .mistakes
        .iter()
        .map(|mistake| (mistake.line, mistake.place.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            "instance",
            "state_directory",
            "control_plane.endpoints",
            "admin.cert_file",
            "admin.key_file",
            "admin.token_file",
            "listeners",
        ]
        .map(|place| (Some(1), place))
    );
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let found = replaced("[admin]", "[admin");
    // What may be behind the mistake is not called missing.
    assert_eq!(found, ["52: unclosed table, expected `]`"]);
}

#[test]
fn files_that_are_missing_or_are_something_else_are_named() {
    assert_eq!(
        replaced("tls/mail.pem", "tls/none.pem"),
        [
            "38: listeners[0].certificates[0].cert_file: cannot read DIR/tls/none.pem: No such \
          file or directory (os error 2)"
        ]
    );
    assert_eq!(
        replaced("tls/mail.pem", "admin.token"),
        ["38: listeners[0].certificates[0].cert_file: DIR/admin.token holds no certificate"]
    );
    assert_eq!(
        replaced("tls/mail.key", "tls/mail.pem"),
        ["38: listeners[0].certificates[0].key_file: DIR/tls/mail.pem holds no private key"]
    );
    assert_eq!(
        replaced("tls/mail.key", "tls/gateway-1.key"),
        [
            "38: listeners[0].certificates[0].key_file: DIR/tls/gateway-1.key is not the key of \
          DIR/tls/mail.pem"
        ]
    );
}

#[test]
fn where_connections_come_from_is_checked_as_far_as_it_can_be_here() {
    let servers = |lines: &str| {
        let found = replaced("[admin]", &format!("[[servers]]\n{lines}\n[admin]"));
        let of = |mistake: &String| mistake.split_once(": ").unwrap().1.to_owned();
        found.iter().map(of).collect::<Vec<_>>()
    };
    assert!(servers("source_addresses = [\"192.0.2.1\", \"2001:db8::1\"]").is_empty());
    for protocol in ["imap", "submission", "lmtp", "smtp"] {
        let line = format!("protocol = \"{protocol}\"\nsource_addresses = [\"192.0.2.1\"]");
        assert!(servers(&line).is_empty(), "{protocol}");
    }
    for (line, mistake) in [
        (
            "source_addresses = [\"192.0.2.1\", \"192.0.2.2\"]",
            "servers[0].source_addresses: there are two addresses of one family; name one IPv4 address and one \
             IPv6 address at most",
        ),
        (
            "source_addresses = [\"0.0.0.0\"]",
            "servers[0].source_addresses[0]: \"0.0.0.0\": nothing comes from this address",
        ),
        (
            "client_certificate = { cert_file = \"tls/mail.pem\", key_file = \"tls/gateway-1.key\" }",
            "servers[0].client_certificate.key_file: DIR/tls/gateway-1.key is not the key of DIR/tls/mail.pem",
        ),
        (
            "[[servers]]",
            "servers[1].destination: these servers are there twice",
        ),
    ] {
        assert_eq!(servers(line), [mistake]);
    }
}

#[test]
fn a_token_must_be_long_and_one_word() {
    let directory = directory();
    for (token, message) in [
        ("short", "must hold at least 32 octets"),
        (
            "0123456789abcdef 0123456789abcdef",
            "must hold one word of printable US-ASCII",
        ),
    ] {
        fs::write(directory.path().join("admin.token"), token).unwrap();
        let found = parse(EXAMPLE, &directory).unwrap_err();
        assert_eq!(found.mistakes.len(), 1);
        assert!(found.mistakes[0].message.contains(message), "{found}");
        assert!(
            found
                .to_string()
                .contains("gateway.toml:57: admin.token_file: "),
            "{found}"
        );
    }
}

#[test]
fn the_token_to_read_is_not_the_one_to_drain() {
    assert_eq!(
        replaced(
            "# drain_token_file = \"drain.token\"",
            "drain_token_file = \"admin.token\""
        ),
        [
            "59: admin.drain_token_file: is token_file, too: whoever reads figures could stop this data plane; give it a \
             token of its own"
        ]
    );
}

#[test]
fn an_admin_endpoint_without_a_token_is_refused_wherever_it_listens() {
    assert_eq!(
        replaced("token_file = \"admin.token\"", "listen = \"0.0.0.0:9443\""),
        ["52: admin.token_file: missing: a file with the token that callers must know"]
    );
}

#[test]
fn two_listeners_on_one_address_or_of_one_name_are_refused() {
    assert_eq!(
        replaced("0.0.0.0:143", "0.0.0.0:993"),
        ["48: listeners[1].address: 0.0.0.0:993 is taken by listeners[0].address"]
    );
    assert_eq!(
        replaced("name = \"imap\"", "name = \"imaps\""),
        ["46: listeners[1].name: \"imaps\" is there twice"]
    );
    assert_eq!(
        replaced("0.0.0.0:143", "127.0.0.1:9443"),
        ["48: listeners[1].address: 127.0.0.1:9443 is taken by admin.listen"]
    );
    assert_eq!(
        replaced(
            "# health_listen = \"0.0.0.0:9080\"",
            "health_listen = \"127.0.0.1:9443\""
        ),
        ["61: admin.health_listen: 127.0.0.1:9443 is taken by admin.listen"]
    );
}

#[test]
fn the_control_plane_is_reached_in_clear_on_loopback_alone() {
    let endpoint = "https://control-plane.example.org:7443";
    assert_eq!(
        replaced(endpoint, "http://control-plane.example.org:7443"),
        [
            "21: control_plane.endpoints[0]: \"http://control-plane.example.org:7443\": http is \
         only for a loopback address; use https"
        ]
    );
    assert_eq!(
        replaced(endpoint, "control-plane.example.org"),
        ["21: control_plane.endpoints[0]: \"control-plane.example.org\": use https://host:port"]
    );
    let directory = directory();
    for loopback in [
        "http://127.0.0.1:7443",
        "http://[::1]:7443",
        "http://localhost:7443",
    ] {
        let text: String = EXAMPLE
            .replace(endpoint, loopback)
            .replace("ca_file = \"tls/ca.pem\"\n", "")
            .replacen(
                "cert_file = \"tls/gateway-1.pem\"\nkey_file = \"tls/gateway-1.key\"\n",
                "",
                1,
            );
        let config = parse(&text, &directory).unwrap();
        assert!(config.control_plane().tls.is_none(), "{loopback}");
    }
}

#[test]
fn a_known_network_is_there_once_and_fits_the_whole() {
    let networks = |lines: &str| {
        let lines = format!("[[limits.connections.networks]]\n{lines}\n[limits.preauth]");
        mistakes(|text| text.replace("[limits.preauth]", &lines))
    };
    let once = "network = \"192.0.2.10/24\"\nconnections = 20000";
    assert!(networks(once).is_empty());
    let again = once.replace(".10/24", ".0/24");
    assert_eq!(
        networks(&format!("{once}\n[[limits.connections.networks]]\n{again}")),
        ["86: limits.connections.networks[1].network: 192.0.2.0/24 is there twice"]
    );
    assert_eq!(
        networks(&once.replace("20000", "20001")),
        ["84: limits.connections.networks[0].connections: must not be above connections.total"]
    );
    let found = networks("network = \"host\"");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|it| it.contains("use CIDR notation")));
    assert!(found.iter().any(|it| it.contains("connections: missing")));
}

#[test]
fn hashed_accounts_need_a_key() {
    assert_eq!(
        replaced("[log]", "[log]\naccounts = \"hashed\""),
        ["63: log.accounts_key_file: missing: the key of the hashes, random"]
    );
    assert_eq!(
        replaced("[log]", "[log]\naccounts_key_file = \"admin.token\""),
        ["64: log.accounts_key_file: is for accounts = \"hashed\""]
    );
}

#[test]
fn limits_must_fit_each_other() {
    assert_eq!(
        replaced("# drain = \"10s\"", "drain = \"18s\""),
        ["125: limits.shutdown.grace: must be at least relay.drain and relay.close together"]
    );
    assert_eq!(
        replaced("# failure_ceiling = \"15s\"", "failure_ceiling = \"1s\""),
        ["87: limits.preauth.failure_ceiling: must be at least preauth.failure_floor"]
    );
    assert_eq!(
        replaced("# per_name = 500", "per_name = 5001"),
        ["118: limits.hold.per_name: must not be above hold.total"]
    );
    assert_eq!(
        replaced("# per_name_and_address = 50", "per_name_and_address = 501"),
        ["119: limits.hold.per_name_and_address: must not be above hold.per_name"]
    );
    assert_eq!(
        replaced(
            "# per_network = 2000",
            "per_network = 499\nper_address = 500"
        ),
        ["76: limits.connections.per_address: must not be above connections.per_network"]
    );
    assert_eq!(
        replaced("# per_network = 2000", "per_network = 20001"),
        ["75: limits.connections.per_network: must not be above connections.total"]
    );
}

#[test]
fn a_default_gives_way_to_a_limit_that_is_set_below_it() {
    let directory = directory();
    let text = EXAMPLE
        .replace("# total = 20000 ", "total = 400 ")
        .replace("# total = 5000 ", "total = 40 ");
    let config = parse(&text, &directory).expect("valid");
    let limits = config.limits();
    let connections = limits.connections;
    assert_eq!(
        (connections.per_network, connections.per_address),
        (400, 400)
    );
    assert_eq!(
        (limits.hold.per_name, limits.hold.per_name_and_address),
        (40, 40)
    );
}

/// What is wrong with these lines behind the example.
fn with(lines: &str) -> Vec<String> {
    let first = EXAMPLE.lines().count() + 1;
    let relative = |mistake: String| {
        let (line, rest) = mistake.split_once(": ").unwrap();
        let line: usize = line.parse().unwrap();
        format!("{}: {rest}", line + 1 - first)
    };
    let found = mistakes(|text| text + lines);
    found.into_iter().map(relative).collect()
}

#[test]
fn without_a_section_for_tokens_nobody_can_tell_whose_they_are() {
    let config = parse(EXAMPLE, &directory()).unwrap();
    assert!(config.tokens().is_none());
}

#[test]
fn whoever_tells_whose_tokens_are_is_asked_in_the_order_of_the_file() {
    let directory = directory();
    let config = parse(&in_full(), &directory).unwrap();
    let owner = &config.tokens().unwrap().owner;
    let [
        WaySettings::Stalwart,
        WaySettings::Jwt(jwt),
        WaySettings::Introspection(issuer),
        WaySettings::NameBeside,
    ] = owner.as_slice()
    else {
        panic!("{owner:?}");
    };
    assert_eq!(
        jwt.keys,
        JwtKeys::File(directory.path().join("tls/issuer.jwks"))
    );
    assert_eq!(jwt.issuer.as_deref(), Some("https://id.example.org"));
    assert_eq!(jwt.claims, ["email", "preferred_username"]);
    assert_eq!(issuer.url, "https://id.example.org/oauth2/introspect");
    assert_eq!(issuer.claims, ["email", "username"]);
    let text = in_full()
        .replace("claims = [\"email\", \"preferred_username\"]\n", "")
        .replace("claims = [\"email\", \"username\"]\n", "");
    let defaults = parse(&text, &directory).unwrap();
    let defaults = format!("{:?}", defaults.tokens());
    assert_eq!(
        defaults,
        format!("{:?}", config.tokens()),
        "its comments say the defaults"
    );
}

#[test]
fn tokens_need_somebody_who_can_tell_whose_they_are() {
    let wanted = "tokens.owner: say who tells whose a token is, in the order in which they are asked: \"stalwart\", \
                  \"jwt\", \"introspection\", \"name_beside\"";
    assert_eq!(with("[tokens]\n"), [format!("1: {wanted}")]);
    assert_eq!(with("[tokens]\nowner = []\n"), [format!("2: {wanted}")]);
    assert_eq!(
        with("[tokens]\nowner = [\"stalwart\", \"oidc\"]\n"),
        [
            "2: tokens.owner[1]: \"oidc\": must be one of \"stalwart\", \"jwt\", \"introspection\", \
             \"name_beside\""
        ]
    );
    assert_eq!(
        with("[tokens]\nowner = [\"stalwart\", \"stalwart\"]\n"),
        ["2: tokens.owner[1]: \"stalwart\" is there twice"]
    );
    assert_eq!(
        with("[tokens]\nowner = [\"stalwart\"]\n[tokens.jwt]\nsignature = \"unchecked\"\n"),
        ["3: tokens.jwt: is for owner = [\"jwt\"], which is not said"]
    );
}

#[test]
fn claims_that_are_not_checked_are_asked_for_by_name() {
    let jwt = |lines: &str| {
        with(&format!(
            "[tokens]\nowner = [\"jwt\"]\n[tokens.jwt]\n{lines}"
        ))
    };
    let found = jwt("");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("say signature = \"unchecked\""),
        "{found:?}"
    );
    assert!(jwt("signature = \"unchecked\"\n").is_empty());
    assert_eq!(
        jwt("signature = \"unchecked\"\nkeys_file = \"tls/issuer.jwks\"\n"),
        ["5: tokens.jwt.keys_file: is for signature = \"checked\""]
    );
    let found = jwt("keys_file = \"tls/ca.pem\"\n");
    assert!(
        found[0].contains("DIR/tls/ca.pem is no key set"),
        "{found:?}"
    );
    assert_eq!(
        jwt("keys_file = \"tls/issuer.jwks\"\nclaims = []\nissuer = \"\"\n"),
        [
            "5: tokens.jwt.claims: name at least one, first the one that the mail servers go by, as [\"email\"]",
            "6: tokens.jwt.issuer: \"\": must be what the issuer writes into \"iss\"",
        ]
    );
}

#[test]
fn an_issuer_is_asked_under_tls_and_by_somebody_that_it_knows() {
    let asked = |lines: &str| {
        let section = "[tokens]\nowner = [\"introspection\"]\n[tokens.introspection]\n";
        with(&format!("{section}{lines}"))
    };
    let login = "client_id = \"ferrypost\"\nclient_secret_file = \"issuer.secret\"\n";
    let url = |url: &str| asked(&format!("url = \"{url}\"\n{login}"));
    for good in [
        "https://id.example.org/x?y=z",
        "http://127.0.0.1:8080/x",
        "http://[::1]/",
    ] {
        assert_eq!(url(good), [] as [&str; 0], "{good}");
    }
    assert_eq!(
        url("http://id.example.org/"),
        [
            "4: tokens.introspection.url: \"http://id.example.org/\": http is only for a loopback address; use \
             https"
        ]
    );
    for bad in [
        "id.example.org",
        "/introspect",
        "https://me@id.example.org/",
        "https://id.example.org:99999/",
        "ftp://id.example.org/",
    ] {
        let found = url(bad);
        assert!(
            found[0].ends_with("use https://host/path"),
            "{bad}: {found:?}"
        );
    }
    let found = asked("");
    let missing: Vec<_> = found
        .iter()
        .filter_map(|it| it.split(": ").nth(1))
        .collect();
    assert_eq!(
        missing,
        ["url", "client_id", "client_secret_file"].map(|key| format!("tokens.introspection.{key}"))
    );
    assert_eq!(
        asked(&format!(
            "url = \"https://id.example.org\"\ntoken_file = \"issuer.secret\"\n{login}"
        )),
        [
            "6: tokens.introspection.client_id: is not for token_file: say one or the other",
            "7: tokens.introspection.client_secret_file: is not for token_file: say one or the other",
        ]
    );
    assert_eq!(
        asked("url = \"https://id.example.org\"\ntoken_file = \"tls/ca.pem\"\n"),
        [
            "5: tokens.introspection.token_file: DIR/tls/ca.pem does not hold one line of printable US-ASCII \
             without spaces"
        ]
    );
}
