//! What each key of the configuration is, in words, and whether a change of it is taken over while the program runs.
//! `docs/configuration/dataplane.md` is made of this and of what the reader asks for.

use ferrypost_runtime::config::{Key, Table};

/// All keys, by their tables.
pub const KEYS: &[Table] = &[
    Table {
        place: "",
        says: "Who this data plane is.",
        keys: &[
            Key::required(
                "instance",
                "Its name among all of the installation's; no two processes have the same.",
            ),
            Key::otherwise(
                "group",
                "empty",
                "Chooses the endpoints of the routing configuration that say `when = { group = ... }`.",
            ),
            Key::required(
                "state_directory",
                "Where it keeps who it is and what it has acknowledged; survives restarts and is one process's own.",
            ),
        ],
    },
    Table {
        place: "control_plane",
        says: "How the control plane is reached.",
        keys: &[
            Key::required(
                "endpoints",
                "Its replicas as `https://host:port`, tried in turn; `http` for a loopback address alone.",
            ),
            Key::otherwise(
                "ca_file",
                "the platform's roots",
                "The authorities that vouch for its certificate, in PEM.",
            ).content(),
            Key::otherwise(
                "cert_file",
                "required with `https`",
                "Who this data plane is to the control plane, in PEM.",
            ).content(),
            Key::otherwise(
                "key_file",
                "required with `https`",
                "The key of `cert_file`, in PEM.",
            )
            .content(),
            Key::otherwise(
                "server_name",
                "the endpoint's host",
                "The name that the control plane's certificate must be for.",
            ),
        ],
    },
    Table {
        place: "listeners[]",
        says: "Where mail clients connect, one table for each address.",
        keys: &[
            Key::required(
                "name",
                "What it is called in logs, metrics and `/stats`: a-z, 0-9 and `-`, at most 63.",
            ),
            Key::required("protocol", "What is spoken there."),
            Key::required(
                "address",
                "Where it is bound, as `0.0.0.0:993` or `[::]:993`.",
            ),
            Key::required(
                "tls",
                "From the first octet, or by the protocol's own command, before which nobody can log in.",
            ),
            Key::otherwise(
                "proxy_protocol_from",
                "nobody",
                "Addresses and networks whose PROXY header is believed, and who must send one: load balancers, \
                 other data planes.",
            ),
        ],
    },
    Table {
        place: "listeners[].certificates[]",
        says: "What clients are shown, at least one, chosen by the server name that the client asks for; the first is for \
               those that ask for none of them.",
        keys: CERTIFICATE,
    },
    Table {
        place: "listeners[].limits",
        says: "What this listener has of its own.",
        keys: CONNECTIONS,
    },
    Table {
        place: "deliveries[]",
        says: "Where mail systems deliver ([deliveries](../deliveries.md)).",
        keys: &[
            Key::required("name", "As with `listeners`."),
            Key::required(
                "protocol",
                "LMTP, by which each recipient has an answer of its own; or SMTP, by which a message goes to one \
                 server.",
            ),
            Key::otherwise("address", "required, or `socket`", "Where it is bound."),
            Key::otherwise(
                "socket",
                "required, or `address`",
                "The same as a socket in the file system.",
            ),
            Key::otherwise(
                "mode",
                "`\"600\"`",
                "Who may open `socket`, as `chmod` has it.",
            ),
            Key::default(
                "from",
                "[\"127.0.0.0/8\", \"::1\"]",
                "Who may deliver to `address`: nobody is asked for a password.",
            ),
        ],
    },
    Table {
        place: "deliveries[].certificates[]",
        says: "What mail systems are shown. With one, STARTTLS comes first by LMTP; without, they are served in clear.",
        keys: CERTIFICATE,
    },
    Table {
        place: "deliveries[].limits",
        says: "What this listener has of its own.",
        keys: CONNECTIONS,
    },
    Table {
        place: "pass_throughs[]",
        says: "Where other mail systems connect to be passed through unread, as at port 25 ([mail that \
               arrives](../inbound-mail.md)). It has neither `tls` nor `certificates`: TLS is between the two ends.",
        keys: &[
            Key::required("name", "As with `listeners`."),
            Key::required("address", "Where it is bound."),
            Key::required(
                "destination",
                "Whose endpoint for smtp they are passed to; it must say `announcement = \"proxy_v2\"`.",
            ),
            Key::otherwise("proxy_protocol_from", "nobody", "As with `listeners`."),
        ],
    },
    Table {
        place: "pass_throughs[].limits",
        says: "What this listener has of its own.",
        keys: CONNECTIONS,
    },
    Table {
        place: "web[]",
        says: "Where clients speak HTTP, under TLS ([HTTP](../http.md)).",
        keys: &[
            Key::required("name", "As with `listeners`."),
            Key::required("address", "Where it is bound."),
            Key::otherwise("proxy_protocol_from", "nobody", "As with `listeners`."),
            Key::otherwise(
                "trusted_peers",
                "nobody",
                "Proxies in front whose `Forwarded` and `X-Forwarded-*` are believed; everybody else's are taken out.",
            ),
        ],
    },
    Table {
        place: "web[].certificates[]",
        says: "As with `listeners`.",
        keys: CERTIFICATE,
    },
    Table {
        place: "web[].limits",
        says: "What this listener has of its own.",
        keys: CONNECTIONS,
    },
    Table {
        place: "lookups[]",
        says: "Where mail systems ask for the way of a recipient ([look-ups](../lookups.md)).",
        keys: &[
            Key::required("name", "As with `listeners`."),
            Key::required("protocol", "Postfix's socketmap, or HTTP."),
            Key::otherwise("address", "required, or `socket`", "Where it is bound."),
            Key::otherwise(
                "socket",
                "required, or `address`",
                "The same as a socket in the file system.",
            ),
            Key::otherwise(
                "mode",
                "`\"600\"`",
                "Who may open `socket`, as `chmod` has it.",
            ),
            Key::default(
                "from",
                "[\"127.0.0.0/8\", \"::1\"]",
                "Who may ask at `address`: the answers tell where accounts are.",
            ),
            Key::required(
                "next_hops",
                "For each destination what the mail system is to do, in its words: `\"source \
                 lmtp:inet:old.example.org:24\"`.",
            ),
        ],
    },
    Table {
        place: "lookups[].certificates[]",
        says: "What is shown to who asks by HTTP; without one it is served in clear.",
        keys: CERTIFICATE,
    },
    Table {
        place: "servers[]",
        says: "What this machine has for its connections to servers. The entry that says most about a server \
               counts, and no other.",
        keys: &[
            Key::otherwise(
                "destination",
                "all",
                "Whose servers, as the routing configuration names it.",
            ),
            Key::otherwise("protocol", "all", "Those that speak this."),
            Key::otherwise(
                "source_addresses",
                "the system chooses",
                "At most one IPv4 and one IPv6 address of this machine, from which the connections come.",
            ),
        ],
    },
    Table {
        place: "servers[].client_certificate",
        says: "What servers that ask for a certificate are shown.",
        keys: CERTIFICATE,
    },
    Table {
        place: "tokens",
        says: "Who tells whose a bearer token is. Without this table bearer tokens are neither offered nor taken.",
        keys: &[Key::required(
            "owner",
            "In the order in which they are asked: `stalwart`, `jwt`, `introspection`, `name_beside`.",
        )],
    },
    Table {
        place: "tokens.jwt",
        says: "Tokens whose claims can be read.",
        keys: &[
            Key::otherwise(
                "keys_file",
                "required, unless `signature` is `\"unchecked\"`",
                "The issuer's key set (JWKS).",
            ).content(),
            Key::default(
                "signature",
                "\"checked\"",
                "Unchecked, what a token says of itself steers its login and proves nothing.",
            ),
            Key::otherwise(
                "issuer",
                "any",
                "Tokens of other issuers are left to whoever is asked next.",
            ),
            Key::default(
                "claims",
                "[\"email\", \"preferred_username\"]",
                "The first of these that is there names the owner; it must be the one that the servers go by.",
            ),
        ],
    },
    Table {
        place: "tokens.introspection",
        says: "Tokens of which their issuer is asked (RFC 7662).",
        keys: &[
            Key::required("url", "Where; `http` for a loopback address alone."),
            Key::otherwise(
                "ca_file",
                "the platform's roots",
                "The authorities that vouch for the issuer's certificate, in PEM.",
            ),
            Key::otherwise(
                "client_id",
                "required, or `token_file`",
                "Who we are there.",
            ),
            Key::otherwise(
                "client_secret_file",
                "required with `client_id`",
                "Our password there.",
            )
            .content(),
            Key::otherwise(
                "token_file",
                "required, or `client_id`",
                "A bearer token of our own.",
            )
            .content(),
            Key::default(
                "claims",
                "[\"email\", \"username\"]",
                "As above, in the issuer's answer.",
            ),
        ],
    },
    Table {
        place: "admin",
        says: "Where `/stats`, `/metrics`, `/healthz` and `/readyz` are served, over TLS; all but the last two \
               want the token.",
        keys: &[
            Key::default("listen", "\"127.0.0.1:9443\"", "Where it is bound."),
            Key::required("cert_file", "What callers are shown, in PEM.").content(),
            Key::required("key_file", "The key of `cert_file`, in PEM.").content(),
            Key::required(
                "token_file",
                "The bearer token: one word of at least 32 octets, as `openssl rand -hex 32` makes.",
            ).content(),
            Key::otherwise("drain_token_file", "nobody may", "The token of who may have it drained, and nothing else.")
                .content(),
            Key::otherwise(
                "health_listen",
                "nowhere",
                "Where `/healthz` and `/readyz`, and nothing else, are served in clear.",
            ),
        ],
    },
    Table {
        place: "log",
        says: "One line an event, on standard error.",
        keys: &[
            Key::default("format", "\"text\"", "For people, or a JSON object a line."),
            Key::default(
                "level",
                "\"info\"",
                "The least severe that is written; at `info` there is a line for each session.",
            ).at_once(),
            Key::default("accounts", "\"full\"", "How accounts are shown."),
            Key::otherwise(
                "accounts_key_file",
                "required with `accounts = \"hashed\"`",
                "The key of the hashes, at least 32 octets, the same on every data plane.",
            ),
        ],
    },
    Table {
        place: "limits",
        says: "What a stranger, a client, a server or a move may cost; [limits](../limits.md) says what happens \
               past each.",
        keys: &[],
    },
    Table {
        place: "limits.connections",
        says: "Connections on all listeners.",
        keys: &[
            Key::limit(
                "total",
                "Client connections at once; each takes two open files.",
            ),
            Key::limit(
                "per_network",
                "... from one network (IPv4: one /24, IPv6: one /48).",
            ),
            Key::limit("per_address", "... from one address (IPv6: one /64)."),
            Key::limit(
                "kept",
                "Octets kept for those who do not read, all sessions together.",
            ),
        ],
    },
    Table {
        place: "limits.connections.networks[]",
        says: "Networks with a limit of their own in place of `per_network` and `per_address`.",
        keys: &[
            Key::required(
                "network",
                "An address or a network, as `192.0.2.10` or `2001:db8:1::/48`.",
            ),
            Key::required("connections", "Connections at once from it."),
        ],
    },
    Table {
        place: "limits.preauth",
        says: "Clients until they are logged in.",
        keys: &[
            Key::limit("handshake", "A PROXY header, and the TLS handshake, each."),
            Key::limit(
                "login",
                "From the connection to a login that succeeds, while held excepted.",
            ),
            Key::limit("failures", "Failed logins on one connection."),
            Key::limit("max_line", "Octets of a line."),
            Key::limit("max_literal", "Octets of all literals of a command."),
            Key::limit("max_commands", "Commands before a login succeeds."),
            Key::limit("max_errors", "Commands that are not understood."),
            Key::limit(
                "failure_floor",
                "The least time that the answer to a failed login takes.",
            ),
            Key::limit(
                "failure_ceiling",
                "Up to which that doubles for an address or an account that goes on failing.",
            ),
        ],
    },
    Table {
        place: "limits.backend",
        says: "How long a server may take with a login.",
        keys: &[
            Key::limit(
                "connect",
                "To resolve its name and connect, over all its addresses.",
            ),
            Key::limit("handshake", "TLS with it."),
            Key::limit(
                "negotiate",
                "From its greeting to where the login can be sent.",
            ),
            Key::limit("login", "Its verdict."),
            Key::limit("max_line", "Octets of a line of its before the verdict."),
            Key::limit("max_lines", "Lines of its before the verdict."),
            Key::limit("max_untagged", "Octets that are passed on with its OK."),
        ],
    },
    Table {
        place: "limits.breaker",
        says: "When those whom a server would fail are told so at once.",
        keys: &[
            Key::limit(
                "clients",
                "Clients (addresses) that it fails one after the other, with no answer to anybody in between.",
            ),
            Key::limit("window", "Time for which such a failure counts."),
            Key::limit(
                "pause",
                "Time between two logins that are tried all the same.",
            ),
        ],
    },
    Table {
        place: "limits.relay",
        says: "Sessions that are logged in.",
        keys: &[
            Key::limit(
                "idle",
                "No octet in either direction; at least 31m for IMAP.",
            ),
            Key::limit("stalled", "One side does not read what is written to it."),
            Key::limit(
                "answer",
                "An answer that decides what the client's next octets mean.",
            ),
            Key::limit(
                "drain",
                "Open commands, when a session is to end; with `close` below the control plane's \
                 `migrations.window`.",
            ),
            Key::limit("close", "The server's own close after ours."),
        ],
    },
    Table {
        place: "limits.*",
        says: "What one protocol has of its own: `imap`, `pop3`, `managesieve` or `submission` in place of PROTOCOL.",
        keys: &[],
    },
    Table {
        place: "limits.*.preauth",
        says: "What it does not say is as in `limits.preauth`.",
        keys: &[
            Key::otherwise("handshake", INHERITED, "As there."),
            Key::otherwise("login", INHERITED, "As there."),
            Key::otherwise("failures", INHERITED, "As there."),
            Key::otherwise("max_line", INHERITED, "As there."),
            Key::otherwise("max_literal", INHERITED, "As there."),
            Key::otherwise("max_commands", INHERITED, "As there."),
            Key::otherwise("max_errors", INHERITED, "As there."),
        ],
    },
    Table {
        place: "limits.*.relay",
        says: "What it does not say is as in `limits.relay`.",
        keys: &[
            Key::otherwise(
                "idle",
                "inherited; at most 11m for pop3, 6m for submission",
                "At least 31m for imap, 10m for pop3, 30m for managesieve, 5m for submission.",
            ),
            Key::otherwise("stalled", INHERITED, "As there."),
            Key::otherwise("answer", INHERITED, "As there."),
        ],
    },
    Table {
        place: "limits.pass_through",
        says: "Connections that are passed through; `limits.relay` has the rest.",
        keys: &[Key::limit(
            "idle",
            "No octet in either direction; at least 10m.",
        )],
    },
    Table {
        place: "limits.hold",
        says: "Logins that wait while their account is moved.",
        keys: &[
            Key::limit(
                "timeout",
                "For how long; above the control plane's `migrations.window`.",
            ),
            Key::limit("keep_alive", "Between two signs of life for one."),
            Key::limit("total", "How many at once."),
            Key::limit("per_name", "... of one name."),
            Key::limit(
                "per_name_and_address",
                "... of one name from one address (IPv6: one /64).",
            ),
        ],
    },
    Table {
        place: "limits.probe",
        says: "How often servers are asked how they are.",
        keys: &[
            Key::limit("interval", "After an answer."),
            Key::limit("retry", "After none."),
        ],
    },
    Table {
        place: "limits.tokens",
        says: "What it may cost to ask an issuer whose tokens are.",
        keys: &[
            Key::limit("answer", "Its answer, a place in the queue included."),
            Key::limit("at_once", "Questions to it."),
            Key::limit("owners", "Tokens whose owner is remembered."),
            Key::limit("others", "Tokens that are remembered as nobody's."),
            Key::limit(
                "kept",
                "Time for which an owner is remembered, and no longer than the token lives.",
            ),
            Key::limit(
                "refused",
                "Time for which a token is remembered as nobody's.",
            ),
        ],
    },
    Table {
        place: "limits.deliveries",
        says: "Mail systems that deliver, and servers with a message.",
        keys: &[
            Key::limit(
                "idle",
                "A mail system says nothing, in the middle of a message too.",
            ),
            Key::limit("answer", "A server's answer to a command."),
            Key::limit(
                "stalled",
                "One server takes nothing of a message, while those of the others wait.",
            ),
            Key::limit("verdict", "A server's word on a whole message."),
            Key::limit("max_line", "Octets of a mail system's line."),
            Key::limit("max_recipients", "Recipients of one message."),
            Key::limit("max_commands", "Commands in a row that name no recipient."),
            Key::limit("max_errors", "... that are not understood."),
        ],
    },
    Table {
        place: "limits.web",
        says: "Requests by HTTP and their connections.",
        keys: &[
            Key::limit("head", "A request's head, from its first octet on."),
            Key::limit("idle", "A client's connection without a request."),
            Key::limit("stalled", "No octet moves of a body, or of a WebSocket, that is owed."),
            Key::limit("upstream_idle", "A server's connection without a request."),
        ],
    },
    Table {
        place: "limits.shutdown",
        says: "How the process stops.",
        keys: &[
            Key::limit(
                "grace",
                "All sessions; what it is above `relay.drain` and `relay.close` together paces them.",
            ),
            Key::limit("goodbye", "The control plane's note of our goodbye."),
        ],
    },
];

const CERTIFICATE: &[Key] = &[
    Key::required(
        "cert_file",
        "The certificate and those that lead to its authority, in PEM.",
    )
    .content(),
    Key::required("key_file", "Its key, in PEM.").content(),
];

const CONNECTIONS: &[Key] = &[Key::otherwise(
    "connections",
    "only the limits for all",
    "Connections at once.",
)];

const INHERITED: &str = "inherited";

#[cfg(test)]
mod tests {
    use ferrypost_runtime::config::{Document, page, untold_defaults};

    use super::*;
    use crate::config::{
        Config,
        tests::{directory, in_full},
        validate,
    };

    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/configuration/dataplane.md"
    );

    const HEAD: &str = "# The data plane's configuration\n\n\
        `ferrypost-dataplane check --config FILE` says everything that is wrong with it. Paths are relative to the \
        file, times are `\"500ms\"`, `\"10s\"`, `\"5m\"` or `\"1h\"`. [Configuration](../configuration.md) says what a \
        change takes, and `dataplane/examples/gateway.toml` shows all of it.\n\n\
        This page is written from the program's own tables; a test holds it current (`UPDATE_DOCS=1` writes it).\n";

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_reference_says_of_every_key_that_the_reader_asks_for_what_it_is() {
        // What some keys' values leave out.
        let full = in_full();
        let hashed = full.replace("accounts = \"full\"", "accounts = \"hashed\"");
        let token =
            "[tokens]\nowner = [\"introspection\"]\n[tokens.introspection]\ntoken_file = \"x\"\n";
        let directory = directory();
        let file = directory.path().join("gateway.toml");
        let asked = Document::asked(&[full.as_str(), &hashed, token], &file, validate::read);
        let page = page(KEYS, &asked).unwrap_or_else(|differences| panic!("{differences}"));
        let page = format!("{HEAD}{page}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(PAGE).unwrap(), page);
    }

    #[test]
    fn without_a_key_holds_what_the_reference_says() {
        const CERTIFICATES: &str =
            "certificates = [{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }]";
        let directory = directory();
        let text = format!(
            "instance = \"x\"\nstate_directory = \"state\"\n\
             [control_plane]\nendpoints = [\"http://127.0.0.1:1\"]\n\
             [[listeners]]\nname = \"imap\"\nprotocol = \"imap\"\naddress = \"0.0.0.0:1\"\ntls = \"implicit\"\n{CERTIFICATES}\n\
             [[deliveries]]\nname = \"lmtp\"\nprotocol = \"lmtp\"\naddress = \"0.0.0.0:2\"\n\
             [[lookups]]\nname = \"ask\"\nprotocol = \"http\"\naddress = \"0.0.0.0:3\"\nnext_hops = [\"source x\"]\n\
             [tokens]\nowner = [\"jwt\", \"introspection\"]\n\
             [tokens.jwt]\nkeys_file = \"tls/issuer.jwks\"\n\
             [tokens.introspection]\nurl = \"https://id.example.org/\"\nclient_id = \"x\"\n\
             client_secret_file = \"issuer.secret\"\n\
             [admin]\ncert_file = \"tls/mail.pem\"\nkey_file = \"tls/mail.key\"\ntoken_file = \"admin.token\"\n"
        );
        let meaning = |text: &str| {
            let config = Config::parse(text, &directory.path().join("gateway.toml"));
            config
                .map(|config| format!("{config:?}"))
                .map_err(|it| it.to_string())
        };
        let plain = meaning(&text).unwrap();
        let untold = untold_defaults(KEYS, &text, |with| meaning(with).as_ref() == Ok(&plain));
        assert_eq!(untold, [] as [&str; 0]);
    }
}
