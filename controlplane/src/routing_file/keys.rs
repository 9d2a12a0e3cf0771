//! What each key of the routing configuration is, in words. `docs/configuration/routing.md` is made of this and of what
//! the reader asks for.

use ferrypost_runtime::config::{Key, Table};

/// All keys, by their tables. Every change is taken over: the leader applies the file as a whole, or says why not.
const KEYS: &[Table] = &[
    Table {
        place: "",
        says: "Where names go.",
        keys: &[
            Key::required(
                "default_destination",
                "Where names go that have no record, unless their domain says otherwise.",
            ).at_once(),
            Key::otherwise(
                "mail_split",
                "not known, and plans of moves say so",
                "Who decides which server gets mail that arrives ([mail that arrives](../inbound-mail.md)).",
            )
            .at_once(),
            Key::otherwise(
                "schema",
                "the oldest that can say it",
                "The version of the document's words; best left out.",
            ).at_once(),
        ],
    },
    Table {
        place: "names",
        says: "How a login becomes a name.",
        keys: &[
            Key::otherwise(
                "bare_names",
                "required: what a login without a domain means must be said",
                "A name of its own, refused like a wrong password, or a table: of the default domain.",
            )
            .at_once(),
            Key::otherwise(
                "master_separators",
                "such logins are refused",
                "The characters at which a server parts off a master user: `alice*boss`.",
            )
            .at_once(),
            Key::otherwise(
                "sub_address_separator",
                "none",
                "`+`: `alice+lists@example.org` is `alice@example.org`.",
            ).at_once(),
            Key::otherwise(
                "local_part_case_sensitive",
                "`false`",
                "Whether `Alice` is another name than `alice`.",
            ).at_once(),
        ],
    },
    Table {
        place: "names.bare_names",
        says: "In place of a word.",
        keys: &[Key::required("default_domain", "What is added to a name without a domain.").at_once()],
    },
    Table {
        place: "domains[]",
        says: "The domains that are served; any other is refused.",
        keys: &[
            Key::required("name", "The domain.").at_once(),
            Key::otherwise(
                "unlisted",
                "they go to the default destination",
                "Names without a record are refused, or a table: go elsewhere.",
            )
            .at_once(),
        ],
    },
    Table {
        place: "domains[].unlisted",
        says: "In place of a word.",
        keys: &[Key::required("destination", "Where names of this domain go that have no record.").at_once()],
    },
    Table {
        place: "destinations[]",
        says: "The servers between which accounts move. An address may change; another machine is another destination.",
        keys: &[
            Key::required("id", "Its name, which records keep for ever.").at_once(),
            Key::otherwise(
                "without",
                "none",
                "Protocols that it does not speak, on purpose: what one destination speaks all must.",
            ).at_once(),
        ],
    },
    Table {
        place: "destinations[].endpoints[]",
        says: "How it is reached by one protocol; of several for one, the first whose `when` fits the data plane.",
        keys: &[
            Key::required("protocol", "What is spoken there.").at_once(),
            Key::required("host", "A host name or an address.").at_once(),
            Key::required("port", "Its port.").at_once(),
            Key::required("tls", "From the first octet, by the protocol's own command, or not at all.").at_once(),
            Key::otherwise(
                "plaintext_consent",
                "`false`",
                "Your word that passwords may cross this leg in clear; needed with `tls = \"none\"`.",
            ).at_once(),
            Key::otherwise(
                "ca_file",
                "the platform's roots",
                "Who vouches for its certificate, in PEM; becomes part of the document.",
            ).at_once(),
            Key::otherwise(
                "pin_sha256",
                "the certificate is verified",
                "The one certificate that it may show, by its SHA-256.",
            ).at_once(),
            Key::otherwise("next_pin_sha256", "none", "Another one, for the time of a change.").at_once(),
            Key::otherwise("server_name", "`host`", "The name that its certificate must be for.").at_once(),
            Key::required(
                "announcement",
                "How the server learns the client's address; it must believe us, and nobody else.",
            ).at_once(),
            Key::otherwise(
                "authorization_identity",
                "not known: logins with two names are refused",
                "Whose session a login with two names is: the other one's (Dovecot), or the password's owner's \
                 (Stalwart).",
            )
            .at_once(),
            Key::otherwise(
                "master_separators",
                "none",
                "At which of `names.master_separators` this server parts off a master user.",
            ).at_once(),
            Key::otherwise(
                "capabilities",
                "what the probe finds",
                "What clients are offered before the login.",
            ).at_once(),
            Key::otherwise(
                "acceptance",
                "not known, and plans of moves say so",
                "What its 250 to a message means; for lmtp and smtp.",
            )
            .at_once(),
            Key::otherwise("versions", "`[\"http/1.1\"]`", "`\"http/1.1\"`, `\"h2\"` or both; for http.").at_once(),
            Key::otherwise(
                "response_limit",
                "`\"31m\"`",
                "How long after a request its response may begin, 1s to 24h; for http.",
            ).at_once(),
        ],
    },
    Table {
        place: "destinations[].endpoints[].when",
        says: "Which data planes it is for; without it, all.",
        keys: &[Key::required("group", "Those that say this `group`.").at_once()],
    },
    Table {
        place: "http",
        says: "What becomes of HTTP requests; without rules none is served.",
        keys: &[],
    },
    Table {
        place: "http.rules[]",
        says: "The first rule that is for a request decides ([HTTP](../http.md)). All conditions that are given must hold, each \
               with one of its values.",
        keys: &[
            Key::required("name", "What it is called in logs and plans.").at_once(),
            Key::otherwise("hosts", "any", "Condition: `mail.example.org`, `*.example.org`, `autoconfig.*`.").at_once(),
            Key::otherwise("methods", "any", "Condition, in upper case.").at_once(),
            Key::otherwise(
                "paths",
                "any",
                "Condition: exact, `*` for one segment, `/**` at the end for all below.",
            ).at_once(),
            Key::otherwise(
                "pin",
                "required, or `account_from`",
                "To this destination, whoever's the request is.",
            ).at_once(),
            Key::otherwise(
                "account_from",
                "required, or `pin`",
                "To where the account lives, told from the first that is there: `basic`, `bearer`, `cookie`, `query:NAME`, \
                 `header:NAME`, `form:NAME`, `json:/MEMBER`. All that are there must name it.",
            )
            .at_once(),
            Key::otherwise(
                "without_account",
                "required with `account_from`",
                "And where there is none: ask for a password, the default destination, or a table.",
            )
            .at_once(),
            Key::otherwise(
                "writes_to_accounts",
                "required where the request may be nobody's",
                "Whether such a request can change somebody's mail or settings.",
            )
            .at_once(),
        ],
    },
    Table {
        place: "http.rules[].headers[]",
        says: "Conditions on header fields.",
        keys: FIELD,
    },
    Table {
        place: "http.rules[].query[]",
        says: "Conditions on parameters of the query.",
        keys: FIELD,
    },
    Table {
        place: "http.rules[].form[]",
        says: "Conditions on fields of a form, of 64 KiB at most.",
        keys: FIELD,
    },
    Table {
        place: "http.rules[].without_account",
        says: "In place of a word.",
        keys: &[Key::required("pin", "The destination of requests that say of no account whose they are.").at_once()],
    },
    Table {
        place: "http.rules[].learns",
        says: "How a sign-in is recognised, after which the browser's cookie says whose it is.",
        keys: &[
            Key::otherwise("account_from", "as the rule's own", "Where the sign-in names its account.").at_once(),
            Key::required("status", "The statuses of a response that mean yes.").at_once(),
            Key::required("server_cookie", "The cookie that the server sets then.").at_once(),
            Key::required("seconds", "For how long it counts; not longer than the server's session.").at_once(),
        ],
    },
];

const FIELD: &[Key] = &[
    Key::required("name", "Its name.").at_once(),
    Key::otherwise("values", "it must be there", "What it may be.").at_once(),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ferrypost_runtime::config::{Document, page};

    use super::{super::read_root, KEYS};

    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/configuration/routing.md"
    );

    const HEAD: &str = "# The routing configuration\n\n\
        One document for the whole installation, as a file in TOML or in a call of `ApplyRoutingConfig`, which has \
        the same words. Every change is taken over without a restart; one that would send a name somewhere else is \
        refused, for that is what `Migrate` does. `controlplane/examples/routing.toml` shows all of it.\n\n\
        This page is written from the program's own tables; a test holds it current (`UPDATE_DOCS=1` writes it).\n";

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_reference_says_of_every_key_that_the_reader_asks_for_what_it_is() {
        let tables = "[names]\nbare_names = { default_domain = \"x\" }\n[[domains]]\nunlisted = { destination = \"x\" }\n\
                      [[http.rules]]\nwithout_account = { pin = \"x\" }\n";
        let asked = Document::asked(&["", tables], Path::new("/routing.toml"), |root| {
            read_root(root, &mut Vec::new())
        });
        let page = page(KEYS, &asked).unwrap_or_else(|differences| panic!("{differences}"));
        let page = format!("{HEAD}{page}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &page).expect("written");
        }
        assert_eq!(std::fs::read_to_string(PAGE).expect("the page"), page);
    }
}
