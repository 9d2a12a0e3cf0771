//! What the chart makes for a world's two servers, run by the real programs as its pods would.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use ferrypost_tests::certs::Authority;
use ferrypost_tests::dovecot::Role;
use ferrypost_tests::grpcurl::Grpcurl;
use ferrypost_tests::helm::{Container, Manifests, Secrets};
use ferrypost_tests::image::Images;
use ferrypost_tests::imap::{Connect, Security};
use ferrypost_tests::ports::Port;
use ferrypost_tests::process::Process;
use ferrypost_tests::story::{closed, landing, session, short_limits};
use ferrypost_tests::wait::{eventually, until};
use ferrypost_tests::world::{COMMAND_LINE, CONTROL_PLANE, DATA_PLANE, Etcd, World, program};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::good;

/// Beyond what any step takes on a loaded machine.
pub(super) const LIMIT: Duration = Duration::from_mins(2);

/// Where the values say that servers are; here it is this machine, as a cluster's name service would say.
const SERVERS: &str = "servers.example.org";

/// The listeners that every world's servers have something behind.
pub(super) const LINES: [(&str, &str); 5] = [
    ("imaps", "implicit"),
    ("imap", "starttls"),
    ("pop3s", "implicit"),
    ("pop3", "starttls"),
    ("sieve", "starttls"),
];

/// Those that they have with a Postfix beside each.
const SUBMISSION: [(&str, &str); 2] = [("submissions", "implicit"), ("submission", "starttls")];

fn listeners(world: &World) -> Vec<&'static str> {
    let more = world.postfix(Role::Source).map(|_| SUBMISSION);
    let all = LINES.into_iter().chain(more.into_iter().flatten());
    all.map(|(name, _)| name).collect()
}

/// A release of the chart, as far as it goes without a cluster.
pub(super) struct Release {
    pub(super) manifests: Manifests,
    /// The data planes' ports by name.
    ports: BTreeMap<&'static str, Port>,
    secrets: Secrets,
    clients: Authority,
    pub(super) folder: TempDir,
    pub(super) processes: Vec<Process>,
    /// What its containers are made of; else they are folders of this machine.
    pub(super) images: Option<Images>,
}

impl Release {
    /// Renders `values` over the good set `base`, for the servers of a world; `stream` is where the replicas are.
    pub(super) fn new(world: &World, base: &str, values: &Value, stream: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = listeners(world);
        let ports: BTreeMap<_, _> = names
            .iter()
            .copied()
            .chain(["admin", "health", "https"])
            .map(|name| (name, Port::reserve().unwrap()))
            .collect();
        let number = |name: &str| ports[name].number();
        let listener = |name: &&str| {
            let port = number(name);
            ((*name).to_owned(), json!({ "enabled": true, "port": port }))
        };
        let listeners: serde_json::Map<_, _> = names.iter().map(listener).collect();
        let mut web = serde_json::Map::new();
        if world.cyrus(Role::Source).is_some() {
            web.insert("https".to_owned(), json!({ "port": number("https") }));
        }
        let stream: Vec<_> = stream.iter().map(|it| format!("https://{it}")).collect();
        let (routing, authorities) = routing(world);
        let own = json!({
            "routing": routing,
            "authorities": authorities,
            "tests": { "accountSecret": "account", "webHost": "mail.example.org" },
            "controlplane": { "listenAddress": "127.0.0.1" },
            "dataplane": {
                "certificates": ["mail-tls"],
                "listenAddress": "127.0.0.1",
                "listeners": listeners,
                "web": web,
                "ports": { "admin": number("admin"), "health": number("health") },
                "controlPlane": { "endpoints": stream, "serverName": "ferrypost-controlplane" },
                "drain": { "delaySeconds": 0, "graceSeconds": 15 },
            },
        });
        let mut files = good(base);
        for (name, values) in [("own", &own), ("values", values)] {
            let file = folder.path().join(format!("{name}.json"));
            fs::write(&file, values.to_string()).unwrap();
            files.push(file);
        }
        let clients = Authority::new("clients' authority").unwrap();
        let secrets = secrets(world, &clients);
        Self {
            manifests: Manifests::render(&files).unwrap(),
            ports,
            secrets,
            clients,
            folder,
            processes: Vec::new(),
            images: None,
        }
    }

    /// A pod's first container, laid out.
    fn lay_out(&self, kind: &str, name: &str, pod: &str) -> Container {
        let root = self.folder.path().join(pod);
        let workload = (kind, name);
        Container::lay_out(&self.manifests, workload, pod, &root, &self.secrets).unwrap()
    }

    /// A replica of the control plane, on these ports.
    pub(super) fn control_plane(&self, replica: usize, ports: &ReplicaPorts) -> Container {
        let name = "ferrypost-controlplane";
        let container = self.lay_out("StatefulSet", name, &format!("{name}-{replica}"));
        let routing = container.path("/etc/ferrypost/routing/routing.toml");
        replace(&routing, SERVERS, "127.0.0.1");
        let store = container.path("/var/lib/ferrypost/ferrypost.redb");
        let container = ports.env(container);
        if self.images.is_some() {
            return own(container);
        }
        match fs::read_to_string(container.path("/etc/ferrypost/config/controlplane.toml")) {
            Ok(config) if config.contains("embedded") => {
                container.env("FERRYPOST__STORE__PATH", store.display().to_string())
            }
            _ => container,
        }
    }

    /// A data plane.
    pub(super) fn data_plane(&self, pod: &str) -> Container {
        let container = self.lay_out("Deployment", "ferrypost-dataplane", pod);
        if self.images.is_some() {
            return own(container);
        }
        let state = container.path("/var/lib/ferrypost/state");
        container.env("FERRYPOST__STATE_DIRECTORY", state.display().to_string())
    }

    /// Starts a container's program; the number is its process's.
    fn start(&mut self, container: &Container, program_name: &str, pod: &str) -> usize {
        let log = self.folder.path().join(format!("{pod}.log"));
        let spawn = match &self.images {
            Some(images) => {
                let image = images.image(program_name.trim_start_matches("ferrypost-"));
                container.contained(&image.unwrap(), &log)
            }
            None => container.program(&program(program_name).unwrap(), &log),
        };
        let spawn = spawn.unwrap();
        self.processes.push(spawn.start().unwrap());
        self.processes.len() - 1
    }

    /// Waits until `/readyz` of a port that says nothing else says so, as a probe would.
    async fn ready(&mut self, process: usize, health: SocketAddr) {
        let log = self.processes[process].log().tail();
        let ready = eventually("the pod is ready", LIMIT, || async {
            match get(health, "/readyz").await {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => Ok(()),
                Ok(answer) => Err(answer),
                Err(error) => Err(error.to_string()),
            }
        });
        ready.await.unwrap_or_else(|late| panic!("{late}\n{log}"));
    }

    pub(super) fn port(&self, name: &str) -> SocketAddr {
        self.ports[name].addr()
    }

    /// How a client reaches it over TLS.
    pub(super) fn imaps(&self) -> Connect {
        let trust = self.clients.client_config().unwrap();
        Connect::new(self.port("imaps"), Security::Tls(trust))
    }

    /// An operator, who believes the planes' authority.
    pub(super) fn operator(&self, operators: SocketAddr) -> Grpcurl {
        let authority = self.folder.path().join("planes.pem");
        let secret = |name, key| self.manifests.secret(name, key).unwrap();
        fs::write(&authority, secret("ferrypost-controlplane-tls", "ca.crt")).unwrap();
        let token = String::from_utf8(secret("ferrypost-tokens", "operator")).unwrap();
        Grpcurl::tls(operators.to_string(), &authority)
            .unwrap()
            .token(&token)
    }

    /// What the kubelet learns by a probe of a data plane, asked as its template says.
    async fn probed(&self, pod: &Container, probe: &str) -> String {
        let asked = &pod.probe(probe)["grpc"];
        let health = self.port("health");
        assert_eq!(asked["port"], health.port());
        let file = self.folder.path().join("health.protoset");
        fs::write(&file, tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
        let grpcurl = Grpcurl::plaintext(health.to_string()).unwrap();
        let question = json!({ "service": asked["service"] });
        let answer = grpcurl.protoset(&file);
        let answer = answer.call("grpc.health.v1.Health/Check", &question).await;
        answer.unwrap()["status"].as_str().unwrap().to_owned()
    }

    /// What `helm test` asks the command line, with what it says and the code that it ends with.
    async fn helm_test_of_the_whole(&self, operators: SocketAddr) -> (Option<i32>, String) {
        let pod = "ferrypost-check";
        let here = format!("https://127.0.0.1:{}", operators.port());
        let container = self.lay_out("Pod", pod, pod);
        let container = container.env("FERRYPOST_ENDPOINT", here);
        let log = self.folder.path().join("check.log");
        let asked = container.program(&program(COMMAND_LINE).unwrap(), &log);
        let ended = asked.unwrap().start().unwrap().wait(2 * LIMIT).await;
        (ended.unwrap().code(), fs::read_to_string(log).unwrap())
    }

    /// What `helm test` would run, with what it would say. `change` is made to its plan.
    pub(super) async fn helm_test(
        &self,
        operators: SocketAddr,
        change: impl Fn(&mut Value),
    ) -> (bool, String) {
        let container = self.lay_out("Pod", "ferrypost-test", "ferrypost-test");
        let file = container.path("/etc/ferrypost-test/script/plan.json");
        let here = container.path("/etc/ferrypost-test");
        replace(&file, "/etc/ferrypost-test", &here.display().to_string());
        let mut plan: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        plan["host"] = json!("127.0.0.1");
        plan["api"]["host"] = json!("127.0.0.1");
        plan["api"]["port"] = json!(operators.port());
        change(&mut plan);
        fs::write(&file, plan.to_string()).unwrap();
        let command = container.command(false);
        let mut python = Command::new(&command[0]);
        let tested = timeout(LIMIT, python.args(&command[1..]).output()).await;
        let tested = tested.unwrap().unwrap();
        let said = [tested.stdout, tested.stderr].concat();
        (tested.status.success(), String::from_utf8(said).unwrap())
    }
}

/// Gives its volume to its user, as `fsGroup` does.
fn own(container: Container) -> Container {
    let user = u32::try_from(container.asks_for().1).unwrap();
    chown(container.path("/var/lib/ferrypost"), Some(user), Some(user)).unwrap();
    container
}

/// The world's routing configuration as values have it, and the authority that it names.
fn routing(world: &World) -> (Value, Value) {
    let text = fs::read_to_string(world.routing_config()).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut routing = serde_json::to_value(table).unwrap();
    for destination in routing["destinations"].as_array_mut().unwrap() {
        for endpoint in destination["endpoints"].as_array_mut().unwrap() {
            endpoint["host"] = json!(SERVERS);
            if endpoint.get("ca_file").is_some() {
                endpoint["ca_file"] = json!("world.pem");
            }
        }
    }
    let authority = fs::read_to_string(world.authority()).unwrap();
    (routing, json!({ "world": authority }))
}

/// What the operator has put into the cluster before.
fn secrets(world: &World, clients: &Authority) -> Secrets {
    let mail = clients
        .server_named(&["mail.example.org", "127.0.0.1"])
        .unwrap();
    let secret = |pairs: [(&str, &str); 2]| {
        let pairs = pairs.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec()));
        BTreeMap::from(pairs)
    };
    let tls = [
        ("tls.crt", mail.certificate_pem()),
        ("tls.key", mail.key_pem()),
    ];
    let account = [
        ("username", world.accounts()[0].as_str()),
        ("password", world.password()),
    ];
    Secrets::from([
        ("mail-tls".to_owned(), secret(tls)),
        ("account".to_owned(), secret(account)),
    ])
}

/// A replica has its pod's address, and here ports of its own instead.
pub(super) struct ReplicaPorts {
    pub(super) operators: Port,
    pub(super) stream: Port,
    admin: Port,
    health: Port,
}

impl ReplicaPorts {
    pub(super) fn reserve() -> Self {
        let port = || Port::reserve().unwrap();
        Self {
            operators: port(),
            stream: port(),
            admin: port(),
            health: port(),
        }
    }

    fn env(&self, container: Container) -> Container {
        let address = |port: &Port| port.addr().to_string();
        container
            .env("FERRYPOST__OPERATORS__LISTEN", address(&self.operators))
            .env("FERRYPOST__DATA_PLANES__LISTEN", address(&self.stream))
            .env("FERRYPOST__ADMIN__LISTEN", address(&self.admin))
            .env("FERRYPOST__ADMIN__HEALTH_LISTEN", address(&self.health))
    }
}

fn replace(file: &Path, what: &str, by: &str) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replace(what, by)).unwrap();
}

/// Whole answer to a request in clear.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The lines of a helm test that say something of a listener.
pub(super) fn doors<'a>(said: &'a str, word: &str) -> Vec<&'a str> {
    said.lines().filter(|line| line.starts_with(word)).collect()
}

/// One pod of each plane, ready, and where operators call.
pub(super) async fn one_of_each(
    release: &mut Release,
    replica: &ReplicaPorts,
) -> (usize, Container) {
    let control_plane = release.control_plane(0, replica);
    let process = release.start(&control_plane, CONTROL_PLANE, "controlplane");
    release.ready(process, replica.health.addr()).await;
    let data_plane = release.data_plane("ferrypost-dataplane-5d4f8-x7k2p");
    let process = release.start(&data_plane, DATA_PLANE, "dataplane");
    release.ready(process, release.port("health")).await;
    (process, data_plane)
}

#[tokio::test]
async fn a_release_serves_every_line_passes_its_own_test_and_drains_before_its_pod_stops() {
    let world = World::builder().data_planes(1).start().await.unwrap();
    let replica = ReplicaPorts::reserve();
    let stream = [replica.stream.addr()];
    let by_grpc = json!({ "probes": "grpc" });
    let mut release = Release::new(&world, "minimal", &by_grpc, &stream);
    let (process, pod) = one_of_each(&mut release, &replica).await;
    let operators = replica.operators.addr();
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    for probe in probes {
        assert_eq!(release.probed(&pod, probe).await, "SERVING");
    }

    let (code, said) = release.helm_test_of_the_whole(operators).await;
    assert_eq!(code, Some(0), "{said}");
    let (passed, said) = release.helm_test(operators, |_| {}).await;
    assert!(passed, "{said}");
    assert_eq!(doors(&said, "ok ").len(), LINES.len(), "{said}");
    assert!(
        said.contains("landed on source, seen as 127.0.0.1:"),
        "{said}"
    );
    // It finds out what it is for: another server, PROXY at one side alone, another certificate.
    let (passed, said) = release
        .helm_test(operators, |plan| plan["destination"] = json!("target"))
        .await;
    assert!(
        !passed && said.contains("it landed on source, not on target"),
        "{said}"
    );
    let (passed, said) = release
        .helm_test(operators, |plan| plan["proxies"] = json!(["127.0.0.1/32"]))
        .await;
    assert!(
        !passed && doors(&said, "FAILED").len() == LINES.len(),
        "{said}"
    );
    let planes = release
        .folder
        .path()
        .join("ferrypost-controlplane-0/etc/ferrypost/planes/tls.crt");
    let (passed, said) = release
        .helm_test(operators, |plan| plan["certificates"] = json!([planes]))
        .await;
    assert!(!passed && said.contains("who answers there?"), "{said}");

    // It has the pod's name, and what is said to stop it is its own preStop hook.
    let operator = release.operator(operators);
    let (list, nothing) = ("ferrypost.v1.StatsService/ListDataPlanes", json!({}));
    let listed = operator.call(list, &nothing).await.unwrap();
    assert_eq!(
        listed["dataPlanes"][0]["instance"],
        "ferrypost-dataplane-5d4f8-x7k2p"
    );
    let account = &world.accounts()[0];
    let mut client = session(&release.imaps(), account, world.password())
        .await
        .unwrap();
    // By then a rollout may have named a certificate that this pod does not have.
    fs::remove_file(pod.path("/etc/ferrypost/tls/mail-tls/tls.key")).unwrap();
    let hook = pod.command(true);
    assert_eq!(hook[0], DATA_PLANE);
    let mut order = Command::new(program(DATA_PLANE).unwrap());
    let order = order.args(&hook[1..]).envs(pod.variables());
    let (drained, bye) = tokio::join!(timeout(LIMIT, order.output()), closed(&mut client));
    let drained = drained.unwrap().unwrap();
    assert!(drained.status.success(), "{drained:?}");
    assert!(bye.unwrap().is_some());
    assert_eq!(release.probed(&pod, probes[1]).await, "NOT_SERVING");
    assert_eq!(release.probed(&pod, probes[2]).await, "SERVING");
    let ended = release.processes[process].terminate(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}");
    // It has said goodbye: no move waits for it.
    let listed = operator.call(list, &nothing).await.unwrap();
    assert_eq!(listed["dataPlanes"], Value::Null, "{listed}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_release_behind_a_balancer_that_sends_proxy_headers_knows_who_clients_are() {
    let world = World::builder().data_planes(1).limits(short_limits());
    let world = world.cyruses().postfixes().start().await.unwrap();
    let replica = ReplicaPorts::reserve();
    let proxy = json!({ "dataplane": { "clientAddress": {
        "loadBalancerSendsProxy": true, "loadBalancerNetworks": ["127.0.0.1/32"],
    } } });
    let stream = [replica.stream.addr()];
    let mut release = Release::new(&world, "minimal", &proxy, &stream);
    one_of_each(&mut release, &replica).await;
    let operators = replica.operators.addr();
    let doors_there = listeners(&world).len() + 1;
    for (role, destination) in [(Role::Source, "source"), (Role::Target, "target")] {
        let submitted = world.postfix(role).unwrap().log().from_now();
        let (passed, said) = release
            .helm_test(operators, |plan| plan["destination"] = json!(destination))
            .await;
        assert!(passed, "{said}");
        let seen = said.matches("seen as 192.0.2.123:40123").count();
        assert_eq!(seen, doors_there, "{said}");
        assert!(said.contains("by JMAP, seen"), "{said}");
        // Its own server heard so, too: the source by XCLIENT, the target by a PROXY header.
        let left = ["disconnect from", "[192.0.2.123]", "auth=1"];
        submitted.wait_for(&left, LIMIT).await.unwrap();
        if destination == "source" {
            let account = &world.accounts()[0];
            let request = json!({ "account": account, "destination": "target" });
            let operator = release.operator(operators);
            let moved = operator.call("ferrypost.v1.MigrationService/Migrate", &request);
            assert_eq!(
                moved.await.unwrap()["migration"]["state"],
                "MIGRATION_STATE_SUCCEEDED"
            );
        }
    }
    // A balancer that sends none is noticed.
    let (passed, said) = release
        .helm_test(operators, |plan| plan["proxies"] = json!([]))
        .await;
    assert!(
        !passed && doors(&said, "FAILED").len() == doors_there,
        "{said}"
    );
    world.stop().await.unwrap();
}

/// Who leads, as a replica knows it.
async fn leader(operator: &Grpcurl) -> Option<String> {
    let stats = operator
        .call("ferrypost.v1.StatsService/GetStats", &json!({}))
        .await;
    Some(stats.ok()?["header"]["leader"].as_str()?.to_owned())
}

#[tokio::test]
async fn a_move_survives_the_death_of_the_leader_of_three_that_the_chart_describes() {
    let world = World::builder().data_planes(1).limits(short_limits());
    let world = world.start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(folder.path()).await.unwrap();
    let replicas = [(); 3].map(|()| ReplicaPorts::reserve());
    let stream = replicas.each_ref().map(|it| it.stream.addr());
    // At its first run the hook takes so long that the leader can die meanwhile.
    let mark = folder.path().join("the-hook-runs");
    let hook = format!("[ -e {0} ] || {{ : > {0}; exec sleep 7; }}", mark.display());
    // The window is beyond what a data plane may take to drain, or no fence would begin.
    let relay = json!({ "drain": "2s", "close": "2s" });
    let values = json!({ "dataplane": { "config": { "limits": { "relay": relay } } }, "controlplane": {
        "store": { "etcd": {
            "endpoints": [etcd.endpoint()], "tlsSecret": "", "clientCertificate": false,
            "serverName": "", "username": "", "passwordSecret": "",
        } },
        "config": {
            "migrations": { "window": "12s", "settle": "1s", "leader_ttl": "2s" },
            "hooks": { "delta": { "command": ["/bin/sh", "-c", hook], "timeout": "8s" } },
        },
    } });
    let mut release = Release::new(&world, "high-availability", &values, &stream);
    let mut operators = Vec::new();
    for (n, ports) in replicas.iter().enumerate() {
        let container = release.control_plane(n, ports);
        let process = release.start(&container, CONTROL_PLANE, &format!("controlplane-{n}"));
        assert_eq!(process, n);
        operators.push(release.operator(ports.operators.addr()));
    }
    for (n, ports) in replicas.iter().enumerate() {
        release.ready(n, ports.health.addr()).await;
    }
    let pod = release.data_plane("ferrypost-dataplane-0");
    let process = release.start(&pod, DATA_PLANE, "dataplane");
    release.ready(process, release.port("health")).await;

    let led = eventually("somebody leads", LIMIT, || async {
        leader(&operators[0]).await.ok_or("nobody does")
    });
    let led = led.await.unwrap();
    let dead = (0..3)
        .find(|n| led == format!("ferrypost-controlplane-{n}"))
        .unwrap();
    let survivor = &operators[(dead + 1) % 3];
    let account = &world.accounts()[0];
    let request = json!({ "account": account, "destination": "target", "wait": "0s" });
    let begun = survivor
        .call("ferrypost.v1.MigrationService/Migrate", &request)
        .await;
    let asked = json!({ "migrationId": begun.unwrap()["migration"]["migrationId"] });
    let runs = until("the hook runs", LIMIT, || mark.exists());
    runs.await.unwrap();
    release.processes[dead].kill();

    let over = eventually("the move is over", LIMIT, || async {
        let seen = survivor.call("ferrypost.v1.MigrationService/GetMigration", &asked);
        let seen = seen.await.map_err(|error| error.to_string())?["migration"].clone();
        match seen["state"].as_str() {
            Some("MIGRATION_STATE_SUCCEEDED" | "MIGRATION_STATE_ABORTED") => Ok(seen),
            _ => Err(seen.to_string()),
        }
    });
    let over = over.await.unwrap();
    assert_eq!(over["state"], "MIGRATION_STATE_SUCCEEDED", "{over}");
    assert_ne!(leader(survivor).await.unwrap(), led);
    let landed = landing(&release.imaps(), account, world.password()).await;
    assert_eq!(landed.unwrap(), "target");
    world.stop().await.unwrap();
}
