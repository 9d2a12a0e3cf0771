//! The routing configuration as people write it: a TOML file with the words of the contract's
//! comments, certificates by file name, and every mistake named with its line.
//!
//! `controlplane/examples/routing.toml` shows all of it. The file says exactly what
//! [`v1::RoutingConfig`] can say; what it means is checked by [`RoutingConfig`], and that check's
//! places are translated into the file's.

mod http;
#[cfg(test)]
mod keys;

use std::path::{Path, PathBuf};

use ferrypost_proto::{RoutingConfig, SCHEMAS, v1};
use ferrypost_runtime::config::{Document, Mistakes, Section, read_text};

/// A valid routing configuration from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingFile {
    document: v1::RoutingConfig,
    config: RoutingConfig,
    sources: Vec<PathBuf>,
}

impl RoutingFile {
    /// Reads a file and the certificates that it names.
    ///
    /// # Errors
    /// Every mistake in it, or that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Mistakes> {
        Self::parse(&read_text(path)?, path)
    }

    /// Reads a text; `path` names it in messages and is what its relative paths are relative to.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Mistakes> {
        let file = Document::parse(text, path);
        let mut sources = vec![path.to_owned()];
        let document = file.read(|root| read_root(root, &mut sources));
        let checked = RoutingConfig::try_from(&document);
        if let Err(problems) = &checked {
            let places = problems.0.iter().map(|it| place_in_file(&it.place));
            let fresh: Vec<_> = places
                .map(|place| (!is_known(&file, &place)).then_some(place))
                .collect();
            for (problem, place) in problems.0.iter().zip(fresh) {
                if let Some(place) = place {
                    file.wrong_at(&place, &problem.message);
                }
            }
        }
        file.finish()?;
        match checked {
            Ok(config) => Ok(Self {
                // In force it says what its readers need, not what it was written for.
                document: v1::RoutingConfig {
                    schema: config.schema(),
                    ..document
                },
                config,
                sources,
            }),
            Err(problems) => Err(Mistakes::of_file(path, problems.to_string())),
        }
    }

    /// As it is stored and sent.
    pub fn document(&self) -> &v1::RoutingConfig {
        &self.document
    }

    /// As it is understood.
    pub fn config(&self) -> &RoutingConfig {
        &self.config
    }

    /// The file itself and the certificates that it names: what to look at for changes.
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }
}

/// What could not be read is reported as that, not as missing as well. Of a rule for HTTP the problem's place is the whole
/// of it.
fn is_known(file: &Document<'_>, place: &str) -> bool {
    if place.starts_with("http.rules") {
        file.is_wrong_within(place)
    } else {
        file.is_wrong_at(place)
    }
}

/// The contract's names of places where the file says it in fewer words.
fn place_in_file(place: &str) -> String {
    const SHORTER: &[(&str, &str)] = &[
        (".tls.mode", ".tls"),
        (".tls.ca_pem", ".ca_file"),
        (".tls.pin_sha256", ".pin_sha256"),
        (".tls.next_pin_sha256", ".next_pin_sha256"),
        (".tls.server_name", ".server_name"),
        (".tls.plaintext_consent", ".plaintext_consent"),
        ("names.default_domain", "names.bare_names.default_domain"),
    ];
    for (contract, file) in SHORTER {
        if let Some(start) = place.strip_suffix(contract) {
            return format!("{start}{file}");
        }
    }
    match place.strip_suffix(".destination") {
        Some(domain) if domain.starts_with("domains[") => format!("{domain}.unlisted.destination"),
        _ => place.to_owned(),
    }
}

fn read_root(root: &Section<'_>, sources: &mut Vec<PathBuf>) -> v1::RoutingConfig {
    const SPLITS: &[(&str, v1::MailSplit)] = &[
        ("by_placement", v1::MailSplit::ByPlacement),
        ("by_existence", v1::MailSplit::ByExistence),
    ];
    v1::RoutingConfig {
        schema: root
            .number("schema", 1..=u32::MAX)
            .unwrap_or(SCHEMAS.oldest()),
        destinations: root.tables("destinations", |destination| v1::Destination {
            id: destination.text("id").unwrap_or_default(),
            endpoints: destination.tables("endpoints", |endpoint| read_endpoint(endpoint, sources)),
            without: read_without(destination),
        }),
        default_destination: root.text("default_destination").unwrap_or_default(),
        domains: root.tables("domains", read_domain),
        names: root.table("names", read_names),
        mail_split: root.word("mail_split", SPLITS).unwrap_or_default().into(),
        http: root.table("http", http::read_rules),
    }
}

fn read_names(names: &Section<'_>) -> v1::NamePolicy {
    v1::NamePolicy {
        bare_names: read_bare_names(names),
        master_separators: names.text("master_separators").unwrap_or_default(),
        sub_address_separator: names.text("sub_address_separator").unwrap_or_default(),
        local_part_case_sensitive: names
            .boolean("local_part_case_sensitive")
            .unwrap_or_default(),
    }
}

fn read_bare_names(names: &Section<'_>) -> Option<v1::name_policy::BareNames> {
    use v1::name_policy::BareNames;
    if names.has("bare_names") && !names.is_text("bare_names") {
        return names
            .table("bare_names", |table| {
                table.required(
                    "default_domain",
                    "what is added to a name without one",
                    table.text("default_domain"),
                )
            })
            .flatten()
            .map(BareNames::DefaultDomain);
    }
    let listed = names.word("bare_names", &[("listed", true), ("refuse", false)])?;
    Some(if listed {
        BareNames::Listed(v1::BareNamesListed {})
    } else {
        BareNames::Refuse(v1::BareNamesRefuse {})
    })
}

fn read_domain(domain: &Section<'_>) -> v1::Domain {
    v1::Domain {
        name: domain.text("name").unwrap_or_default(),
        unlisted: read_unlisted(domain),
    }
}

fn read_unlisted(domain: &Section<'_>) -> Option<v1::domain::Unlisted> {
    use v1::domain::Unlisted;
    if domain.has("unlisted") && !domain.is_text("unlisted") {
        return domain
            .table("unlisted", |table| {
                table.required(
                    "destination",
                    "where accounts that are not listed go",
                    table.text("destination"),
                )
            })
            .flatten()
            .map(Unlisted::Destination);
    }
    domain
        .word("unlisted", &[("refuse", ())])
        .map(|()| Unlisted::Refuse(v1::UnlistedRefuse {}))
}

const PROTOCOLS: &[(&str, v1::Protocol)] = &[
    ("imap", v1::Protocol::Imap),
    ("pop3", v1::Protocol::Pop3),
    ("managesieve", v1::Protocol::Managesieve),
    ("submission", v1::Protocol::Submission),
    ("smtp", v1::Protocol::Smtp),
    ("lmtp", v1::Protocol::Lmtp),
    ("http", v1::Protocol::Http),
];

fn read_without(destination: &Section<'_>) -> Vec<i32> {
    let texts = destination.texts("without").unwrap_or_default();
    let mut protocols = Vec::new();
    for text in &texts {
        match PROTOCOLS.iter().find(|(word, _)| word == text) {
            Some((_, protocol)) => protocols.push((*protocol).into()),
            None => destination.wrong("without", format!("{text:?} is no protocol")),
        }
    }
    protocols
}

fn read_endpoint(endpoint: &Section<'_>, sources: &mut Vec<PathBuf>) -> v1::Endpoint {
    const ANNOUNCEMENTS: &[(&str, v1::Announcement)] = &[
        ("none", v1::Announcement::None),
        ("proxy_v2", v1::Announcement::ProxyV2),
        ("imap_id", v1::Announcement::ImapId),
        ("xclient", v1::Announcement::Xclient),
        ("forwarded", v1::Announcement::Forwarded),
        ("x_forwarded", v1::Announcement::XForwarded),
    ];
    const AUTHORIZATION: &[(&str, v1::AuthorizationIdentity)] = &[
        ("honoured", v1::AuthorizationIdentity::Honoured),
        ("ignored", v1::AuthorizationIdentity::Ignored),
    ];
    const ACCEPTANCE: &[(&str, v1::Acceptance)] = &[
        ("delivered", v1::Acceptance::Delivered),
        ("queued", v1::Acceptance::Queued),
    ];
    v1::Endpoint {
        protocol: endpoint
            .word("protocol", PROTOCOLS)
            .unwrap_or_default()
            .into(),
        when: endpoint.table("when", |when| v1::Condition {
            group: when
                .required(
                    "group",
                    "the data planes that it is for",
                    when.text("group"),
                )
                .unwrap_or_default(),
        }),
        host: endpoint.text("host").unwrap_or_default(),
        port: endpoint.number("port", 1..=65_535).unwrap_or_default(),
        tls: read_tls(endpoint, sources),
        announcement: endpoint
            .word("announcement", ANNOUNCEMENTS)
            .unwrap_or_default()
            .into(),
        capabilities: endpoint.texts("capabilities").unwrap_or_default(),
        authorization_identity: endpoint
            .word("authorization_identity", AUTHORIZATION)
            .unwrap_or_default()
            .into(),
        master_separators: endpoint.text("master_separators").unwrap_or_default(),
        acceptance: endpoint
            .word("acceptance", ACCEPTANCE)
            .unwrap_or_default()
            .into(),
        versions: http::read_versions(endpoint),
        response_limit: http::read_response_limit(endpoint),
    }
}

fn read_tls(endpoint: &Section<'_>, sources: &mut Vec<PathBuf>) -> Option<v1::EndpointTls> {
    use v1::endpoint_tls::{Mode, Verification};
    const MODES: &[(&str, Mode)] = &[
        ("implicit", Mode::Implicit),
        ("starttls", Mode::Starttls),
        ("none", Mode::None),
    ];
    let mode = endpoint.word("tls", MODES);
    let pin = endpoint.text("pin_sha256").map(Verification::PinSha256);
    let authority = read_authority(endpoint, sources).map(Verification::CaPem);
    if pin.is_some() && authority.is_some() {
        endpoint.wrong(
            "pin_sha256",
            "goes without ca_file: a pinned certificate is checked by nothing else",
        );
    }
    let server_name = endpoint.text("server_name").unwrap_or_default();
    let plaintext_consent = endpoint.boolean("plaintext_consent").unwrap_or_default();
    let next_pin_sha256 = endpoint.text("next_pin_sha256").unwrap_or_default();
    Some(v1::EndpointTls {
        mode: mode?.into(),
        verification: pin.or(authority),
        server_name,
        plaintext_consent,
        next_pin_sha256,
    })
}

/// The certificates themselves go into the document, so that data planes need no files for them.
fn read_authority(endpoint: &Section<'_>, sources: &mut Vec<PathBuf>) -> Option<String> {
    let path = endpoint.path("ca_file")?;
    let content = std::fs::read_to_string(&path);
    sources.push(path);
    content
        .map_err(|error| endpoint.wrong("ca_file", format!("cannot be read: {error}")))
        .ok()
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::Acceptance;

    use super::*;

    const SMALL: &str = r#"
default_destination = "source"

[names]
bare_names = "listed"

[[domains]]
name = "example.org"

[[destinations]]
id = "source"

[[destinations.endpoints]]
protocol = "imap"
host = "old.example.org"
port = 993
tls = "implicit"
announcement = "imap_id"
"#;

    fn mistakes(text: &str) -> Vec<String> {
        RoutingFile::parse(text, Path::new("/etc/ferrypost/routing.toml"))
            .expect_err("mistakes")
            .mistakes
            .iter()
            .map(|m| format!("{}: {}", m.line.unwrap_or(0), m.place))
            .collect()
    }

    #[test]
    fn a_small_file_is_the_document_that_it_says() {
        let file = RoutingFile::parse(SMALL, Path::new("/etc/routing.toml")).expect("valid");
        assert_eq!(file.document().schema, 1);
        assert_eq!(file.config().default_destination().as_str(), "source");
        assert_eq!(file.sources(), [Path::new("/etc/routing.toml")]);
    }

    #[test]
    fn mistakes_of_reading_and_of_meaning_come_together_with_their_lines() {
        let text = r#"default_destination = "nowhere"
[names]
bare_names = { default_domain = "other.example" }
[[domains]]
name = "example.org"
unlisted = { destination = "gone" }
[[destinations]]
id = "source"
[[destinations.endpoints]]
protocol = "imap"
host = "old.example.org"
port = 0
tls = "none"
announcement = "proxy"
pins = "x"
"#;
        assert_eq!(
            mistakes(text),
            [
                "1: default_destination",
                "3: names.bare_names.default_domain",
                "6: domains[0].unlisted.destination",
                "9: destinations[0].endpoints[0].plaintext_consent",
                "12: destinations[0].endpoints[0].port",
                "14: destinations[0].endpoints[0].announcement",
                "15: destinations[0].endpoints[0].pins",
            ]
        );
    }

    #[test]
    fn a_file_says_how_mail_arrives_and_what_a_server_s_answer_to_it_means() {
        let text = format!(
            "mail_split = \"by_existence\"\n{SMALL}{}acceptance = \"queued\"\n",
            SMALL[SMALL
                .find("\n[[destinations.endpoints]]")
                .unwrap_or_default()..]
                .replace("imap_id", "none")
                .replace("\"imap\"", "\"lmtp\"")
        );
        let file = RoutingFile::parse(&text, Path::new("/etc/routing.toml")).expect("valid");
        let source = file.config().default_destination();
        let queued = file.config().accepting(source, Acceptance::Queued);
        assert_eq!(queued, [v1::Protocol::Lmtp]);
        assert_eq!(file.document().mail_split(), v1::MailSplit::ByExistence);
        let elsewhere = format!("{SMALL}acceptance = \"queued\"\n");
        assert_eq!(
            mistakes(&elsewhere),
            ["19: destinations[0].endpoints[0].acceptance"]
        );
    }

    #[test]
    fn an_authority_becomes_part_of_the_document_and_is_watched() {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = directory.path().join("ca.pem");
        let text = SMALL.replace(
            "tls = \"implicit\"",
            "tls = \"implicit\"\nca_file = \"ca.pem\"",
        );
        let path = directory.path().join("routing.toml");
        assert_eq!(
            RoutingFile::parse(&text, &path)
                .expect_err("no file")
                .mistakes
                .len(),
            1
        );
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&ca, pem).expect("written");
        let file = RoutingFile::parse(&text, &path).expect("valid");
        assert_eq!(file.sources(), [path, ca]);
        let tls = file.document().destinations[0].endpoints[0].tls.as_ref();
        assert_eq!(
            tls.and_then(|tls| tls.verification.clone()),
            Some(v1::endpoint_tls::Verification::CaPem(pem.to_owned()))
        );
    }

    #[test]
    fn a_protocol_that_a_destination_lacks_is_named_or_refused() {
        let second = r#"
[[destinations]]
id = "target"
without = [WITHOUT]
[[destinations.endpoints]]
protocol = "pop3"
host = "new.example.org"
port = 995
tls = "implicit"
announcement = "none"
"#;
        let places = |without: &str| {
            let text = format!("{SMALL}{}", second.replace("WITHOUT", without));
            match RoutingFile::parse(&text, Path::new("routing.toml")) {
                Ok(_) => Vec::new(),
                Err(invalid) => invalid
                    .mistakes
                    .iter()
                    .map(|mistake| mistake.place.clone())
                    .collect(),
            }
        };
        assert_eq!(
            places(""),
            ["destinations[0].endpoints", "destinations[1].endpoints"]
        );
        assert_eq!(
            places("\"imap\", \"gopher\""),
            ["destinations[0].endpoints", "destinations[1].without"]
        );
        assert_eq!(places("\"imap\""), ["destinations[0].endpoints"]);
    }
}
