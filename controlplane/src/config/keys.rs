//! What each key of the configuration is, in words, and whether a change of it is taken over while the program runs.
//! `docs/configuration/controlplane.md` is made of this and of what the reader asks for.

use ferrypost_runtime::config::{Key, Table};

/// All keys, by their tables.
pub const KEYS: &[Table] = &[
    Table {
        place: "",
        says: "Which process this is.",
        keys: &[
            Key::default(
                "replica",
                "\"controlplane\"",
                "Its name among the replicas; with etcd it must be there, and each has its own.",
            ),
            Key::otherwise(
                "installation",
                "any",
                "Refuse a store that belongs to another installation than this one.",
            ),
        ],
    },
    Table {
        place: "store",
        says: "Where everything durable lies: records, migrations, registrations, the routing configuration.",
        keys: &[
            Key::default(
                "kind",
                "\"embedded\"",
                "One file and one process, or a cluster and any number of replicas.",
            ),
            Key::default("path", "\"ferrypost.redb\"", "The embedded store's file."),
            Key::otherwise(
                "endpoints",
                "required with etcd",
                "The members' client addresses, as `https://etcd-1:2379`.",
            ),
            Key::otherwise(
                "prefix",
                "`\"/ferrypost\"`",
                "What all keys in etcd begin with.",
            ),
            Key::otherwise(
                "ca_file",
                "required with `https`",
                "The authorities that vouch for the members, in PEM.",
            )
            .content(),
            Key::otherwise(
                "cert_file",
                "none is shown",
                "Who we are to the members, in PEM.",
            )
            .content(),
            Key::otherwise(
                "key_file",
                "required with `cert_file`",
                "The key of `cert_file`, in PEM.",
            )
            .content(),
            Key::otherwise(
                "server_name",
                "the endpoint's host",
                "The name that the members' certificates must be for.",
            ),
            Key::otherwise(
                "username",
                "no login",
                "Who we are to etcd's own access control.",
            ),
            Key::otherwise(
                "password_file",
                "required with `username`",
                "The password of `username`.",
            )
            .content(),
        ],
    },
    Table {
        place: "operators",
        says: "Where operators call, by gRPC. Without tokens and identities everybody on this machine may do \
               everything.",
        keys: &[Key::default(
            "listen",
            "\"127.0.0.1:9080\"",
            "Where it is bound; another address than loopback needs `tls`, and `tokens` or `identities`.",
        )],
    },
    Table {
        place: "operators.tokens[]",
        says: "Who may call with a bearer token.",
        keys: &[
            Key::required("name", "Who calls with it, for migrations and the log."),
            Key::required(
                "role",
                "What they may do; each may what those before it may.",
            ),
            Key::required(
                "file",
                "The token: one word of at least 32 octets, as `openssl rand -hex 32` makes.",
            )
            .content(),
        ],
    },
    Table {
        place: "operators.identities[]",
        says: "Who may call with a client certificate; needs `operators.tls.client_ca_file`.",
        keys: &[
            Key::otherwise(
                "common_name",
                "required, or `san`",
                "The common name of the certificate's subject.",
            ),
            Key::otherwise(
                "san",
                "required, or `common_name`",
                "A DNS name, mail address or URI among its alternative names.",
            ),
            Key::required("role", "As with `tokens`."),
        ],
    },
    Table {
        place: "operators.tls",
        says: "Without it the listener speaks in clear.",
        keys: TLS,
    },
    Table {
        place: "data_planes",
        says: "Where data planes open their streams.",
        keys: &[
            Key::default(
                "listen",
                "\"127.0.0.1:9081\"",
                "Where it is bound; another address than loopback needs `tls`, and `tls.client_ca_file` or \
                 `token_file`.",
            ),
            Key::otherwise(
                "token_file",
                "none is asked for",
                "A bearer token that data planes must send.",
            )
            .content(),
            Key::default(
                "identity",
                "\"any\"",
                "Which instance id a data plane may claim: any, or the DNS name of its certificate.",
            ),
        ],
    },
    Table {
        place: "data_planes.tls",
        says: "Without it the listener speaks in clear. With a `client_ca_file` data planes must show a certificate.",
        keys: TLS,
    },
    Table {
        place: "routing",
        says: "Who owns the routing configuration.",
        keys: &[
            Key::default(
                "source",
                "\"file\"",
                "The file, which the leader applies whenever it changes; or `ApplyRoutingConfig`.",
            ),
            Key::default(
                "file",
                "\"routing.toml\"",
                "The file; under `api` it only seeds an empty store.",
            )
            .content(),
        ],
    },
    Table {
        place: "migrations",
        says: "The clocks and the budget of moves.",
        keys: &[
            Key::default(
                "window",
                "\"20s\"",
                "From the fence to the flip at most this long, then the move aborts; below each data plane's \
                 `limits.hold.timeout`.",
            ),
            Key::default(
                "fence_budget",
                "20",
                "Accounts between fence and flip at once.",
            ),
            Key::default(
                "fence_attempts",
                "3",
                "A move is fenced at most this often, then it aborts.",
            ),
            Key::default(
                "settle",
                "\"30s\"",
                "Fences wait this long after a data plane was succeeded or expelled, whose servers nobody saw close.",
            ),
            Key::default(
                "heartbeat",
                "\"2s\"",
                "How often data planes are asked; two unanswered heartbeats hold back every fence.",
            ),
            Key::default(
                "leader_ttl",
                "\"6s\"",
                "How long after a leader's death another replica leads.",
            ),
            Key::default(
                "keep_ended",
                "\"720h\"",
                "Ended migrations are removed this long after the end; an account's last one stays.",
            ),
        ],
    },
    Table {
        place: "hooks",
        says: "Programs of yours that are run during a move.",
        keys: &[],
    },
    Table {
        place: "hooks.delta",
        says: "Brings the target up to date while nobody can write to the account. Without it, what came since \
               the last copy stays behind.",
        keys: &[
            Key::required(
                "command",
                "The program by its absolute path, and its arguments; no shell is involved.",
            ),
            Key::default(
                "timeout",
                "\"10s\"",
                "Killed after this long, and the move aborts; below `migrations.window`.",
            ),
        ],
    },
    Table {
        place: "admin",
        says: "Where `/stats`, `/metrics`, `/healthz` and `/readyz` are served, over TLS; all but the last two want the token. \
               Without this table there is no such endpoint.",
        keys: &[
            Key::default("listen", "\"127.0.0.1:9444\"", "Where it is bound."),
            Key::required("cert_file", "What callers are shown, in PEM.").content(),
            Key::required("key_file", "The key of `cert_file`, in PEM.").content(),
            Key::required("token_file", "The bearer token, as above.").content(),
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
            Key::default("level", "\"info\"", "The least severe that is written.").at_once(),
        ],
    },
];

const TLS: &[Key] = &[
    Key::required("cert_file", "What callers are shown, in PEM.").content(),
    Key::required("key_file", "The key of `cert_file`, in PEM.").content(),
    Key::otherwise(
        "client_ca_file",
        "none is asked for",
        "The authorities that may have signed client certificates, in PEM.",
    )
    .content(),
];

#[cfg(test)]
mod tests {
    use ferrypost_runtime::config::{Document, page, untold_defaults};

    use super::*;
    use crate::config::{Config, read};

    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/configuration/controlplane.md"
    );

    const HEAD: &str = "# The control plane's configuration\n\n\
        `ferrypost-controlplane check --config FILE` says everything that is wrong with it and with the routing \
        configuration. Paths are relative to the file, times are `\"500ms\"`, `\"10s\"`, `\"5m\"` or `\"1h\"`. \
        [Configuration](../configuration.md) says what a change takes, and \
        `controlplane/examples/controlplane.toml` shows all of it.\n\n\
        This page is written from the program's own tables; a test holds it current (`UPDATE_DOCS=1` writes it).\n";

    const ADMIN: &str =
        "[admin]\ncert_file = \"x.pem\"\nkey_file = \"x.key\"\ntoken_file = \"token\"\n";

    /// A directory with the files that it names.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path();
        let made = rcgen::generate_simple_self_signed(["cp.example.org".to_owned()]).expect("made");
        let token = "0123456789abcdef0123456789abcdef";
        let key = made.signing_key.serialize_pem();
        let files = [
            ("x.pem", made.cert.pem()),
            ("x.key", key),
            ("token", token.to_owned()),
        ];
        for (file, text) in files {
            std::fs::write(here.join(file), text).expect("written");
        }
        directory
    }

    /// `UPDATE_DOCS=1` writes it.
    #[test]
    fn the_reference_says_of_every_key_that_the_reader_asks_for_what_it_is() {
        let directory = directory();
        let here = directory.path();
        let example = include_str!("../../examples/controlplane.toml");
        let etcd =
            "[store]\nkind = \"etcd\"\nusername = \"x\"\nca_file = \"x.pem\"\ncert_file = \"x\"\n";
        let texts = [example, etcd, ADMIN];
        let file = here.join("controlplane.toml");
        let asked = Document::asked(&texts, &file, |root| read::read(root, here));
        let page = page(KEYS, &asked).unwrap_or_else(|differences| panic!("{differences}"));
        let page = format!("{HEAD}{page}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(PAGE, &page).expect("written");
        }
        assert_eq!(std::fs::read_to_string(PAGE).expect("the page"), page);
    }

    #[test]
    fn without_a_key_holds_what_the_reference_says() {
        let directory = directory();
        let here = directory.path();
        let text = format!("[hooks.delta]\ncommand = [\"/bin/true\"]\n{ADMIN}");
        let meaning = |text: &str| {
            let config = Config::parse(text, &here.join("controlplane.toml"));
            config
                .map(|config| format!("{config:?}"))
                .map_err(|it| it.to_string())
        };
        let plain = meaning(&text).expect("valid");
        let untold = untold_defaults(KEYS, &text, |with| meaning(with).as_ref() == Ok(&plain));
        assert_eq!(untold, [] as [&str; 0]);
    }
}
