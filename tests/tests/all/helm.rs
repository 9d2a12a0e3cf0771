//! The Helm chart: what it accepts and refuses, what it makes, and that what it makes runs.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod images;
mod installed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferrypost_tests::helm::{HelmError, Manifests, chart, helm};
use ferrypost_tests::tools::tool;
use serde_json::{Value, json};

/// Files of values in a folder of `helm/ci`.
fn sets(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(chart().join("ci").join(folder)).unwrap();
    let mut sets: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
    sets.sort();
    sets
}

/// A good set, with what it stands on.
fn good(name: &str) -> Vec<PathBuf> {
    let set = chart().join(format!("ci/good/{name}.yaml"));
    if name == "high-availability" {
        return vec![chart().join("values-ha.yaml"), set];
    }
    vec![set]
}

fn render(name: &str) -> Manifests {
    Manifests::render(&good(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn names_of(sets: &[PathBuf]) -> Vec<String> {
    let stem = |set: &PathBuf| set.file_stem().unwrap().to_string_lossy().into_owned();
    sets.iter().map(stem).collect()
}

#[test]
fn every_good_set_of_values_is_clean_and_makes_manifests_that_kubernetes_knows() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in names_of(&sets("good")) {
        let linted = helm(&chart(), &["lint", "--strict"], &good(&name)).unwrap();
        let said = String::from_utf8_lossy(&linted.stdout).into_owned();
        assert!(linted.status.success(), "{name}: {said}");
        let file = folder.path().join(format!("{name}.yaml"));
        fs::write(&file, render(&name).text()).unwrap();
        files.push(file);
    }
    // The newest that it knows, and the oldest that the chart is for.
    for version in ["1.37.0", "1.29.0"] {
        let mut validate = Command::new(tool("kubernetes-validate").unwrap());
        validate.args(["--strict", "--no-warn", "--quiet", "-k", version]);
        let judged = validate.args(&files).output().unwrap();
        let said = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert!(judged.status.success(), "{version}: {said}");
    }
}

/// The first line of each says how: `# refused: ` and a part of the sentence.
#[test]
fn every_bad_set_of_values_is_refused_with_a_sentence_that_says_the_fix() {
    let sets = sets("bad");
    assert!(sets.len() > 40);
    for set in sets {
        let text = fs::read_to_string(&set).unwrap();
        let expected = text.lines().next().unwrap();
        let expected = expected.strip_prefix("# refused: ").unwrap();
        let values = [good("minimal"), vec![set.clone()]].concat();
        match Manifests::render(&values) {
            Err(HelmError::Refused(said)) => {
                assert!(said.contains(expected), "{}: {said}", set.display());
            }
            other => panic!("{}: {other:?}", set.display()),
        }
    }
}

fn schema() -> Value {
    let text = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// But where Kubernetes or Helm itself says what may stand there, and in maps whose values have one type.
#[test]
fn the_schema_is_closed_at_every_level() {
    fn check(at: &str, schema: &Value, open: &mut Vec<String>) {
        if schema["type"] == "object" && schema.get("$comment").is_none() {
            let more = &schema["additionalProperties"];
            let is_closed = *more == Value::Bool(false) || more["type"].is_string();
            if !is_closed {
                open.push(at.to_owned());
            }
        }
        let parts = schema.as_object().into_iter().flatten();
        for (key, part) in parts.filter(|(_, part)| part.is_object()) {
            check(&format!("{at}/{key}"), part, open);
        }
        let alternatives = schema["oneOf"].as_array().into_iter().flatten();
        for (n, alternative) in alternatives.enumerate() {
            check(&format!("{at}/oneOf/{n}"), alternative, open);
        }
    }
    let mut open = Vec::new();
    check("", &schema(), &mut open);
    assert_eq!(open, [""; 0]);
}

/// A key of `values.yaml`: its path, its default, and the comment above it.
struct Row {
    path: String,
    default: String,
    comment: String,
}

/// Reads `values.yaml` as it is written: two spaces a level, and a comment above each key that is for people to set.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let (mut rows, mut path, mut comment) = (Vec::new(), Vec::<String>::new(), Vec::new());
    for line in text.lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let line = line.trim();
        if let Some(said) = line.strip_prefix('#') {
            comment.push(said.trim());
            continue;
        }
        if let Some((key, value)) = line
            .split_once(':')
            .filter(|(key, _)| !key.starts_with('-'))
        {
            path.truncate(depth);
            path.push(key.to_owned());
            if !comment.is_empty() {
                rows.push(Row {
                    path: path.join("."),
                    default: value.trim().to_owned(),
                    comment: comment.join(" ").trim().to_owned(),
                });
            }
        }
        comment.clear();
    }
    rows
}

/// `UPDATE_DOCS=1` writes it.
#[test]
fn the_readme_has_every_value_with_its_default() {
    let file = chart().join("README.md");
    let found = fs::read_to_string(&file).unwrap();
    let heading = "Written from `values.yaml`; a test holds it current.\n\n";
    let (before, _) = found.split_once(heading).unwrap();
    let line = |row: &Row| {
        let default = match row.default.as_str() {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let comment = row.comment.replace('|', "\\|");
        format!("| `{}` | {default} | {comment} |\n", row.path)
    };
    let lines: Vec<_> = rows().iter().map(line).collect();
    let head = "| value | default | what |\n|---|---|---|\n";
    let written = [before, heading, head, &lines.concat()].concat();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &written).unwrap();
    }
    assert_eq!(found, written);
}

#[test]
fn every_value_that_may_be_set_has_a_default_and_is_used_by_a_template() {
    let mut templates = String::new();
    for folder in ["templates", "templates/tests"] {
        let entries = fs::read_dir(chart().join(folder)).unwrap();
        for file in entries
            .map(|it| it.unwrap().path())
            .filter(|it| it.is_file())
        {
            templates += &fs::read_to_string(file).unwrap();
        }
    }
    for row in rows() {
        let key = row.path.rsplit('.').next().unwrap();
        assert!(
            templates.contains(&format!(".{key}")),
            "{} is used nowhere",
            row.path
        );
    }
}

/// What a pod's template says, wherever it is.
fn pods(manifests: &Manifests) -> Vec<(String, &Value)> {
    let pod = |document: &'_ Value| match document["kind"].as_str() {
        Some("DaemonSet" | "Deployment" | "StatefulSet") => Some("/spec/template"),
        Some("Pod") => Some(""),
        _ => None,
    };
    let documents = manifests.documents().iter();
    documents
        .filter_map(|it| Some((it["metadata"]["name"].to_string(), it.pointer(pod(it)?)?)))
        .collect()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    lists.into_iter().flatten().flatten()
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>, and a file system that is not written to.
#[test]
fn every_pod_satisfies_the_restricted_standard() {
    let safe = ["net.ipv4.ip_unprivileged_port_start"];
    let volumes = [
        "name",
        "configMap",
        "secret",
        "emptyDir",
        "persistentVolumeClaim",
    ];
    for name in names_of(&sets("good")) {
        let manifests = render(&name);
        for (pod, template) in pods(&manifests) {
            let spec = &template["spec"];
            let context = &spec["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{name} {pod}");
            assert_eq!(
                context["seccompProfile"]["type"], "RuntimeDefault",
                "{name} {pod}"
            );
            assert_eq!(spec["automountServiceAccountToken"], false, "{name} {pod}");
            for sysctl in context["sysctls"].as_array().into_iter().flatten() {
                assert!(
                    safe.contains(&sysctl["name"].as_str().unwrap()),
                    "{name} {pod}"
                );
            }
            for volume in spec["volumes"].as_array().into_iter().flatten() {
                let mut kinds = volume.as_object().unwrap().keys();
                assert!(
                    kinds.all(|kind| volumes.contains(&kind.as_str())),
                    "{name} {pod} {volume}"
                );
            }
            for container in containers(template) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name} {pod}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name} {pod}");
                assert_eq!(context["runAsNonRoot"], true, "{name} {pod}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{name} {pod}");
                assert!(context["capabilities"].get("add").is_none(), "{name} {pod}");
            }
        }
    }
}

#[test]
fn a_mesh_is_told_of_the_ports_of_lines_on_pod_and_service_and_never_of_http() {
    let manifests = render("mesh");
    let (_, pod) = pods(&manifests)
        .into_iter()
        .find(|(name, _)| name.contains("dataplane"))
        .unwrap();
    let pod = &pod["metadata"]["annotations"];
    let service = manifests.find("Service", "ferrypost-dataplane").unwrap();
    let lines = "143,993";
    assert_eq!(pod["config.linkerd.io/opaque-ports"], lines);
    assert_eq!(pod["config.linkerd.io/skip-inbound-ports"], lines);
    assert_eq!(pod["traffic.sidecar.istio.io/excludeInboundPorts"], lines);
    let annotations = &service["metadata"]["annotations"];
    assert_eq!(annotations["config.linkerd.io/opaque-ports"], lines);
    // What is called by gRPC is under TLS already, which a name that begins with `grpc` would deny.
    for name in ["ferrypost-controlplane", "ferrypost-controlplane-replicas"] {
        let service = manifests.find("Service", name).unwrap();
        let ports = service["spec"]["ports"].as_array().unwrap().iter();
        let names: Vec<_> = ports.map(|port| &port["name"]).collect();
        assert_eq!(names, ["tls-operators", "tls-stream"], "{name}");
    }
    // Between a data plane and its servers nobody else may end TCP.
    assert_eq!(pod["config.linkerd.io/skip-outbound-ports"], "8443,993");
    assert_eq!(
        pod["traffic.sidecar.istio.io/excludeOutboundPorts"],
        "8443,993"
    );
}

/// What `helm install` says at its end.
fn notes(name: &str) -> String {
    let command = ["install", "ferrypost", "--dry-run=client"];
    let said = helm(&chart(), &command, &good(name)).unwrap();
    assert!(said.status.success(), "{name}: {said:?}");
    let said = String::from_utf8(said.stdout).unwrap();
    said.split_once("\nNOTES:\n").unwrap().1.to_owned()
}

#[test]
fn who_installs_it_is_told_which_ports_are_open_to_every_address() {
    let said = notes("minimal");
    assert!(
        said.contains("The NetworkPolicy lets these be anywhere"),
        "{said}"
    );
    // And that a token is nothing for a command's arguments, which everybody on the machine may read.
    assert!(
        said.contains("-expand-headers -H 'authorization: Bearer ${TOKEN}'"),
        "{said}"
    );
    assert!(said.contains(": old.example.org:993."), "{said}");
    // It says where that host is.
    let said = notes("daemonset");
    assert!(!said.contains("anywhere"), "{said}");
}

#[test]
fn a_daemonset_has_one_pod_a_node_and_nothing_that_counts_them() {
    let manifests = render("daemonset");
    let kinds = manifests.documents().iter().map(|it| &it["kind"]);
    let kinds: Vec<_> = kinds.collect();
    assert!(
        !kinds
            .iter()
            .any(|kind| *kind == "Deployment" || *kind == "HorizontalPodAutoscaler")
    );
    let set = manifests.find("DaemonSet", "ferrypost-dataplane").unwrap();
    assert!(set["spec"].get("replicas").is_none());
    let pod = &set["spec"]["template"]["spec"];
    assert!(pod.get("topologySpreadConstraints").is_none());
    let ports = pod["containers"][0]["ports"].as_array().unwrap();
    let at_host: Vec<_> = ports
        .iter()
        .filter(|port| port.get("hostPort").is_some())
        .collect();
    assert_eq!(at_host.len(), 1, "{ports:?}");
    assert_eq!(at_host[0]["hostPort"], 993);
    let service = manifests.find("Service", "ferrypost-dataplane").unwrap();
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
}

/// What a good set makes with more values over it.
fn render_with(name: &str, more: &Value) -> Manifests {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("more.json");
    fs::write(&file, more.to_string()).unwrap();
    Manifests::render(&[good(name), vec![file]].concat()).unwrap()
}

/// Where each plane's pods get their configuration from, and what they are restarted for.
fn configurations(manifests: &Manifests) -> Vec<(Value, Value)> {
    let planes = [("controlplane", "StatefulSet"), ("dataplane", "Deployment")];
    let of = |(plane, kind): (&str, &str)| {
        let name = format!("ferrypost-{plane}");
        let config = &manifests.find("ConfigMap", &name).unwrap()["data"];
        let template = &manifests.find(kind, &name).unwrap()["spec"]["template"];
        let checksum = &template["metadata"]["annotations"]["checksum/config"];
        (config.clone(), checksum.clone())
    };
    planes.map(of).into()
}

#[test]
fn pods_are_restarted_for_their_configuration_and_not_for_the_log_s_level() {
    let with = |log: &Value, window: &str, hold: &str| {
        let more = json!({
            "controlplane": { "config": { "log": log, "migrations": { "window": window } } },
            "dataplane": { "config": { "log": log, "limits": { "hold": { "timeout": hold } } } },
        });
        configurations(&render_with("minimal", &more))
    };
    let quiet = with(&json!({}), "18s", "25s");
    let loud = with(&json!({ "level": "debug" }), "18s", "25s");
    let other = with(&json!({ "level": "debug" }), "19s", "26s");
    let plain = with(&json!({ "format": "text" }), "18s", "25s");
    for (((quiet, loud), other), plain) in quiet.iter().zip(loud).zip(other).zip(plain) {
        assert_ne!(quiet.0, loud.0, "the file has the level");
        assert_eq!(quiet.1, loud.1);
        assert_ne!(loud.1, other.1);
        assert_ne!(quiet.1, plain.1);
    }
}

/// What is mounted by `subPath` stays as it was when the container started.
#[test]
fn every_file_that_is_mounted_is_renewed_in_a_running_pod() {
    for name in names_of(&sets("good")) {
        let manifests = render(&name);
        for (pod, template) in pods(&manifests) {
            for container in containers(template) {
                for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                    assert!(
                        mount.get("subPath").is_none() && mount.get("subPathExpr").is_none(),
                        "{name} {pod} {mount}"
                    );
                }
            }
        }
    }
}

/// Peers and ports of a policy's rules of egress.
fn egress(policy: &Value) -> Vec<(Value, Value)> {
    let rules = policy["spec"]["egress"].as_array().unwrap().iter();
    rules
        .map(|rule| (rule["to"].clone(), rule["ports"].clone()))
        .collect()
}

#[test]
fn a_data_plane_reaches_its_servers_and_nobody_else() {
    let manifests = render("everything");
    let policy = manifests
        .find("NetworkPolicy", "ferrypost-dataplane")
        .unwrap();
    let (mut blocks, mut anywhere, mut namespaces) = (Vec::new(), Vec::new(), Vec::new());
    for (to, ports) in egress(policy) {
        let port = ports[0]["port"].as_u64();
        match to.get(0) {
            None => anywhere.push(port),
            Some(peer) if peer.get("ipBlock").is_some() => {
                blocks.push((peer["ipBlock"]["cidr"].as_str().unwrap().to_owned(), port));
            }
            Some(peer) if peer.get("namespaceSelector").is_some() => {
                namespaces.push(peer["namespaceSelector"]["matchLabels"].to_string());
            }
            Some(_) => {}
        }
    }
    // Names are looked up anywhere, and nothing else: networkPolicy.hosts says where old.example.org is.
    assert_eq!(anywhere, [Some(53)]);
    let namespace = |name| format!("{{\"kubernetes.io/metadata.name\":\"{name}\"}}");
    assert_eq!(namespaces, ["mail", "observability"].map(namespace));
    for (cidr, port) in [
        ("192.0.2.6/32", 993),
        ("192.0.2.6/32", 25),
        ("2001:db8::7/128", 24),
    ] {
        assert!(
            blocks.contains(&(cidr.to_owned(), Some(port))),
            "{cidr} {port}: {blocks:?}"
        );
    }
    // A host name that nobody has narrowed is on its port alone.
    let manifests = render("minimal");
    let policy = manifests
        .find("NetworkPolicy", "ferrypost-dataplane")
        .unwrap();
    let open = egress(policy).into_iter().filter(|(to, _)| to.is_null());
    let ports: Vec<_> = open.map(|(_, ports)| ports[0]["port"].as_u64()).collect();
    assert_eq!(ports, [Some(53), Some(993)]);
}

#[test]
fn three_replicas_are_spread_and_known_by_name() {
    let manifests = render("high-availability");
    let replicas = manifests
        .find("StatefulSet", "ferrypost-controlplane")
        .unwrap();
    assert_eq!(replicas["spec"]["replicas"], 3);
    let spread = &replicas["spec"]["template"]["spec"]["topologySpreadConstraints"];
    assert_eq!(spread[0]["whenUnsatisfiable"], "DoNotSchedule");
    for plane in ["controlplane", "dataplane"] {
        let budget = manifests
            .find("PodDisruptionBudget", &format!("ferrypost-{plane}"))
            .unwrap();
        assert_eq!(budget["spec"]["maxUnavailable"], 1);
        assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    }
    let config = manifests.find("ConfigMap", "ferrypost-dataplane").unwrap();
    let config: toml::Table = config["data"]["gateway.toml"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let endpoints = config["control_plane"]["endpoints"].as_array().unwrap();
    let third = "https://ferrypost-controlplane-2.ferrypost-controlplane-replicas.mail.svc:9081";
    assert_eq!((endpoints.len(), endpoints[2].as_str()), (3, Some(third)));
}

/// The chart of a mail server in `helm/ci`, with ours among its dependencies as `helm dependency build` puts it there.
fn mail_server(folder: &Path) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                fs::copy(&from, &to).unwrap();
            }
        }
    }
    let server = folder.join("mail-server");
    copy(&chart().join("ci/mail-server"), &server);
    copy(&chart(), &server.join("charts/ferrypost"));
    server
}

#[test]
fn a_sidecar_is_up_before_its_mail_server_and_drains_before_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let server = mail_server(folder.path());
    let manifests = Manifests::of(&server, &[]).unwrap();
    let file = folder.path().join("all.yaml");
    fs::write(&file, manifests.text()).unwrap();
    let mut validate = Command::new(tool("kubernetes-validate").unwrap());
    let judged = validate
        .args(["--strict", "--no-warn", "--quiet"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        judged.status.success(),
        "{}",
        String::from_utf8_lossy(&judged.stdout)
    );

    let pod = &manifests.find("StatefulSet", "mail").unwrap()["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/readyz");
    let drain = &sidecar["lifecycle"]["preStop"]["exec"]["command"];
    assert_eq!(
        (&drain[0], &drain[1]),
        (&"ferrypost-dataplane".into(), &"drain".into())
    );
    // Who it is lives as long as the pod.
    assert_eq!(
        sidecar["env"][0]["valueFrom"]["fieldRef"]["fieldPath"],
        "metadata.name"
    );
    let volumes = pod["volumes"].as_array().unwrap();
    let state = volumes
        .iter()
        .find(|it| it["name"] == "ferrypost-state")
        .unwrap();
    assert!(state.get("emptyDir").is_some());
    // The mail server goes on for as long as sessions may take, and the pod for longer.
    let server = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    let all = pod["terminationGracePeriodSeconds"].as_u64();
    assert_eq!((server, all), (Some(135), Some(165)));
    // Nothing of a gateway or a control plane comes with it.
    let kinds: BTreeMap<_, _> = manifests
        .documents()
        .iter()
        .map(|it| {
            (
                it["kind"].as_str().unwrap(),
                it["metadata"]["name"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        kinds.keys().collect::<Vec<_>>(),
        [&"ConfigMap", &"StatefulSet"]
    );
}
