use std::path::Path;

use ferrypost_runtime::config::Mistakes;

use super::*;
use crate::routing_file::RoutingFile;

fn parse(text: &str) -> Result<Config, Mistakes> {
    Config::parse(text, Path::new("/nowhere/controlplane.toml"))
}

fn places(text: &str) -> Vec<(usize, String)> {
    parse(text)
        .expect_err("mistakes")
        .mistakes
        .into_iter()
        .map(|m| (m.line.unwrap_or(0), m.place))
        .collect()
}

fn messages(text: &str) -> String {
    parse(text).expect_err("mistakes").to_string()
}

#[test]
fn an_empty_file_is_a_control_plane_for_one_machine() {
    let config = parse("").expect("valid");
    assert_eq!(config.replica().as_str(), "controlplane");
    assert!(config.installation().is_none());
    let StoreConfig::Embedded(store) = config.store() else {
        panic!("the embedded store is the default");
    };
    assert_eq!(store.path, Path::new("/nowhere/ferrypost.redb"));
    assert_eq!(config.operators().listen.to_string(), "127.0.0.1:9080");
    assert_eq!(config.data_planes().listen.to_string(), "127.0.0.1:9081");
    assert_eq!(config.routing().source, RoutingSource::File);
    assert_eq!(config.routing().file, Path::new("/nowhere/routing.toml"));
    assert_eq!(config.migrations().window, Duration::from_secs(20));
    assert_eq!(config.migrations().fence_budget, 20);
    assert_eq!(config.migrations().fence_attempts, 3);
    assert_eq!(config.migrations().settle, Duration::from_secs(30));
    assert_eq!(config.migrations().heartbeat, Duration::from_secs(2));
    assert_eq!(config.migrations().leader_ttl, Duration::from_secs(6));
    assert_eq!(
        config.migrations().keep_ended,
        Duration::from_hours(30 * 24)
    );
    assert!(config.hooks().delta.is_none());
}

#[test]
fn all_mistakes_come_at_once_each_with_its_line() {
    let text = r#"replica = "NO"
oops = 1
[store]
kind = "sqlite"
[operators]
listen = "localhost:1"
tokens = [{ name = "x", role = "king" }]
[migrations]
window = "90s"
fence_budget = 0
fence_attempts = 0
[hooks.delta]
command = ["relative"]
timeout = "5 s"
[log]
level = "a=b=c"
"#;
    let at = |line, place: &str| (line, place.to_owned());
    assert_eq!(
        places(text),
        [
            at(1, "replica"),
            at(2, "oops"),
            at(4, "store.kind"),
            at(6, "operators.listen"),
            at(7, "operators.tokens[0].role"),
            at(7, "operators.tokens[0].file"),
            at(9, "migrations.window"),
            at(10, "migrations.fence_budget"),
            at(11, "migrations.fence_attempts"),
            at(13, "hooks.delta.command"),
            at(14, "hooks.delta.timeout"),
            at(16, "log.level"),
        ]
    );
}

#[test]
fn a_listener_that_others_can_reach_needs_tls_and_authentication() {
    let said = messages("[operators]\nlisten = \"0.0.0.0:9080\"\n");
    assert!(said.contains("without tls it is refused"), "{said}");
    assert!(
        said.contains("without tokens or identities it is refused"),
        "{said}"
    );
    let said = messages("[data_planes]\nlisten = \"[::]:9081\"\n");
    assert!(said.contains("without tls it is refused"), "{said}");
    assert!(
        said.contains("without tls.client_ca_file or token_file"),
        "{said}"
    );
    let said = messages("[operators]\nlisten = \"0.0.0.0:9080\"\ntokens = []\nidentities = []\n");
    assert!(
        said.contains("without tokens or identities it is refused"),
        "{said}"
    );
    assert!(parse("[operators]\nlisten = \"[::1]:9080\"\n").is_ok());
}

#[test]
fn a_hook_fits_into_the_window() {
    let hook = |window, timeout| {
        format!(
            "[migrations]\nwindow = \"{window}\"\n[hooks.delta]\ncommand = [\"/bin/true\"]\n\
             timeout = \"{timeout}\"\n"
        )
    };
    assert!(parse(&hook("10s", "9s")).is_ok());
    assert_eq!(
        places(&hook("10s", "10s")),
        [(5, "hooks.delta.timeout".to_owned())]
    );
    let default = "[migrations]\nwindow = \"4s\"\n[hooks.delta]\ncommand = [\"/bin/true\"]\n";
    let config = parse(default).expect("valid");
    let hook = config.hooks().delta.as_ref().expect("a hook");
    assert_eq!(hook.timeout, Duration::from_secs(2));
}

#[test]
fn etcd_needs_endpoints_a_replica_and_tls_for_https() {
    let text =
        "[store]\nkind = \"etcd\"\nendpoints = [\"https://a:1\", \"b:2\"]\nusername = \"u\"\n";
    let mut places: Vec<_> = places(text).into_iter().map(|(_, place)| place).collect();
    places.sort();
    let expected = [
        "replica",
        "store.ca_file",
        "store.endpoints",
        "store.password_file",
    ];
    assert_eq!(places, expected);
    let good = "replica = \"a\"\n[store]\nkind = \"etcd\"\nendpoints = [\"http://a:2379\"]\n";
    let config = parse(good).expect("valid");
    let StoreConfig::Etcd(etcd) = config.store() else {
        panic!("etcd");
    };
    assert_eq!(etcd.prefix, "/ferrypost");
    for wrong in [
        "http://u:secret@a:2379",
        "http://a:99999",
        "http://a:0",
        "http://",
    ] {
        let mistakes = parse(&good.replace("http://a:2379", wrong)).unwrap_err();
        let [mistake] = &mistakes.mistakes[..] else {
            panic!("{wrong}: {mistakes}");
        };
        assert_eq!(mistake.place, "store.endpoints", "{wrong}");
        assert!(!mistake.message.contains("secret"), "{mistake}");
    }
}

#[test]
fn identities_need_an_authority() {
    let text = "[operators]\nidentities = [{ common_name = \"a\", role = \"admin\" }]\n";
    assert!(messages(text).contains("need tls"));
    let text =
        "[operators]\nidentities = [{ common_name = \"a\", san = \"b\", role = \"admin\" }]\n";
    assert!(messages(text).contains("say one of common_name and san"));
}

/// Puts the files that an example names beside it.
fn example(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for example in ["controlplane.toml", "routing.toml"] {
        std::fs::copy(examples.join(example), directory.path().join(example)).expect("copied");
    }
    for folder in ["pki", "secrets"] {
        std::fs::create_dir(directory.path().join(folder)).expect("created");
    }
    let made = rcgen::generate_simple_self_signed(["controlplane".to_owned()]).expect("made");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let token = "0123456789abcdef0123456789abcdef".to_owned();
    for (file, content) in [
        ("pki/controlplane.pem", &certificate),
        ("pki/controlplane.key", &key),
        ("pki/ca.pem", &certificate),
        ("secrets/viewer", &token),
        ("secrets/operator", &token),
        ("secrets/admin", &token),
        ("secrets/etcd-password", &token),
        ("secrets/dataplane", &token),
        ("pki/etcd-ca.pem", &certificate),
        ("pki/etcd-client.pem", &certificate),
        ("pki/etcd-client.key", &key),
    ] {
        std::fs::write(directory.path().join(file), content).expect("written");
    }
    let path = directory.path().join(name);
    (directory, path)
}

#[test]
fn the_example_configurations_are_valid() {
    let (_directory, path) = example("controlplane.toml");
    let config = Config::load(&path).expect("valid");
    let file = RoutingFile::load(&config.routing().file).expect("valid");
    assert_eq!(file.config().destinations().len(), 3);
    assert_eq!(file.config().warnings().len(), 1);
}

/// What the example shows as the default is the default, and what it comments out is valid as well.
#[test]
fn the_example_says_the_truth_about_defaults_and_comments() {
    let (_directory, path) = example("controlplane.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    let shown = Config::load(&path).expect("valid");
    let default = Config::parse("", &path).expect("valid");
    assert_eq!(shown.replica(), default.replica());
    assert_eq!(shown.operators().listen, default.operators().listen);
    assert_eq!(shown.data_planes().listen, default.data_planes().listen);
    assert_eq!(shown.routing().file, default.routing().file);
    assert_eq!(shown.migrations().window, default.migrations().window);
    assert_eq!(
        shown.migrations().fence_attempts,
        default.migrations().fence_attempts
    );
    assert_eq!(shown.migrations().settle, default.migrations().settle);
    assert_eq!(shown.migrations().heartbeat, default.migrations().heartbeat);
    assert_eq!(
        shown.migrations().leader_ttl,
        default.migrations().leader_ttl
    );
    assert_eq!(
        shown.migrations().keep_ended,
        default.migrations().keep_ended
    );
    assert_eq!(shown.log().level, default.log().level);

    let keys = |line: &&str| {
        let key = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let uncommented: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if keys(&rest) => rest,
            _ => line,
        })
        .filter(|line| !matches!(*line, "kind = \"embedded\"" | "path = \"ferrypost.redb\""))
        .collect();
    let all = Config::parse(&uncommented.join("\n"), &path);
    assert!(matches!(all.expect("valid").store(), StoreConfig::Etcd(_)));
}

/// A comment that begins with a word in quotes names the words that the key below it takes.
#[test]
fn every_word_that_the_example_names_is_taken() {
    let (_directory, path) = example("controlplane.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    let lines: Vec<_> = text.lines().collect();
    let mut keys = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(words) = line.strip_prefix("# \"") else {
            continue;
        };
        let below = lines[number..].iter().find(|line| !line.starts_with('#'));
        let shown = below.expect("a key below the comment");
        let (key, _) = shown.split_once(" = ").expect("a key");
        for word in words.split('"').step_by(2) {
            let changed = text.replace(shown, &format!("{key} = \"{word}\""));
            Config::parse(&changed, &path).unwrap_or_else(|error| panic!("{word}: {error}"));
        }
        keys.push(key);
    }
    assert_eq!(keys, ["identity", "source", "format", "level"]);
}
