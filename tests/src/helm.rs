//! The Helm chart: what the real helm makes of values, and what of it runs on this machine.
//!
//! There is no cluster. A pod is laid out in a folder as its containers would see it, configuration, secrets and volumes at
//! their places, and its program is started there with the arguments and the environment that its template says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::image::Image;
use crate::process::Spawn;
use crate::tools::{repository, tool};

/// Reads YAML documents, and prints them as a list in JSON.
const TO_JSON: &str = "import json, sys, yaml
print(json.dumps([document for document in yaml.safe_load_all(sys.stdin) if document]))";

/// Why there are no manifests.
#[derive(Debug, thiserror::Error)]
pub enum HelmError {
    /// Helm, the schema or the chart refused the values, in these words.
    #[error("refused: {0}")]
    Refused(String),
    /// A tool is missing or failed.
    #[error("helm: {0}")]
    Io(#[from] io::Error),
    /// What came out is no list of manifests.
    #[error("manifests: {0}")]
    Json(#[from] serde_json::Error),
}

/// Where the chart is.
pub fn chart() -> PathBuf {
    repository().join("helm")
}

/// Calls helm for the chart.
///
/// # Errors
/// When it is not installed (`tests/tools/install test`).
pub fn helm(chart: &Path, command: &[&str], values: &[PathBuf]) -> io::Result<Output> {
    let mut helm = Command::new(tool("helm")?);
    helm.args(command).arg(chart);
    for file in values {
        helm.arg("--values").arg(file);
    }
    helm.stdin(Stdio::null()).output()
}

/// What `helm template` makes of values, the later files over the earlier ones.
#[derive(Debug)]
pub struct Manifests {
    text: Vec<u8>,
    documents: Vec<Value>,
}

impl Manifests {
    /// Of Ferrypost's own chart, as release `ferrypost` in namespace `mail`.
    ///
    /// # Errors
    /// [`HelmError`].
    pub fn render(values: &[PathBuf]) -> Result<Self, HelmError> {
        Self::of(&chart(), values)
    }

    /// Of another one that includes it.
    ///
    /// # Errors
    /// [`HelmError`].
    pub fn of(chart: &Path, values: &[PathBuf]) -> Result<Self, HelmError> {
        let command = ["template", "--namespace", "mail", "ferrypost"];
        let rendered = helm(chart, &command, values)?;
        if !rendered.status.success() {
            let said = String::from_utf8_lossy(&rendered.stderr).into_owned();
            return Err(HelmError::Refused(said));
        }
        Ok(Self {
            documents: serde_json::from_slice(&to_json(&rendered.stdout)?)?,
            text: rendered.stdout,
        })
    }

    /// As helm wrote them.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// All of them.
    pub fn documents(&self) -> &[Value] {
        &self.documents
    }

    /// One of them.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        let mut documents = self.documents.iter();
        documents.find(|it| it["kind"] == kind && it["metadata"]["name"] == name)
    }

    /// What a `ConfigMap` or a secret holds.
    fn data(&self, kind: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let data = self.find(kind, name)?["data"].as_object()?;
        let read = |(key, value): (&String, &Value)| {
            let text = value.as_str()?;
            let octets = match kind {
                "Secret" => STANDARD.decode(text).ok()?,
                _ => text.as_bytes().to_vec(),
            };
            Some((key.clone(), octets))
        };
        data.iter().map(read).collect()
    }

    /// What a secret holds at a key.
    pub fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        self.data("Secret", name)?.remove(key)
    }
}

fn to_json(yaml: &[u8]) -> io::Result<Vec<u8>> {
    let validate = tool("kubernetes-validate")?;
    // It brings a reader of YAML, for the Python that it is installed for.
    let python = fs::canonicalize(validate)?.with_file_name("python");
    let mut python = Command::new(python);
    let python = python.args(["-c", TO_JSON]).stdin(Stdio::piped());
    let mut running = python.stdout(Stdio::piped()).spawn()?;
    let mut input = running.stdin.take().expect("it was asked for");
    // It reads all before it writes anything.
    input.write_all(yaml)?;
    drop(input);
    let read = running.wait_with_output()?;
    read.status
        .success()
        .then_some(read.stdout)
        .ok_or_else(|| io::Error::other("helm wrote no YAML"))
}

/// The container of one pod, laid out in a folder.
#[derive(Debug)]
pub struct Container {
    root: PathBuf,
    spec: Value,
    pod: String,
    env: Vec<(String, String)>,
}

/// Secrets that are not of the chart: by name, what is at each key.
pub type Secrets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

impl Container {
    /// The first container of a pod of a workload; `pod` is that pod's name, and `root` takes its file system.
    ///
    /// # Errors
    /// When a file cannot be written, or a volume is of nothing that is there.
    pub fn lay_out(
        manifests: &Manifests,
        (kind, name): (&str, &str),
        pod: &str,
        root: &Path,
        others: &Secrets,
    ) -> io::Result<Self> {
        let workload = manifests.find(kind, name);
        let workload = workload.ok_or_else(|| not_there(kind, name))?;
        let template = &workload["spec"]["template"]["spec"];
        let template = if template.is_null() {
            &workload["spec"]
        } else {
            template
        };
        let spec = &template["containers"][0];
        for mount in list(&spec["volumeMounts"]) {
            let place = within(root, text(&mount["mountPath"]));
            fs::create_dir_all(&place)?;
            let mut volumes = list(&template["volumes"]).iter();
            if let Some(volume) = volumes.find(|it| it["name"] == mount["name"]) {
                fill(&place, volume, manifests, others)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            spec: spec.clone(),
            pod: pod.to_owned(),
            env: Vec::new(),
        })
    }

    /// Sets a variable beside those of the template: for what a pod has of its own and processes here do not, an
    /// address and a root.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// A place of its file system, as this machine names it.
    pub fn path(&self, place: &str) -> PathBuf {
        within(&self.root, place)
    }

    /// What starts its program, in place of the image's.
    ///
    /// # Errors
    /// When the program is not there.
    pub fn program(&self, program: &Path, log: &Path) -> io::Result<Spawn> {
        let mut spawn = Spawn::new(program, log)?.args(self.places(&self.spec["args"]));
        for (name, value) in self.variables() {
            spawn = spawn.env(name, value);
        }
        Ok(spawn)
    }

    /// What starts its program in its image, where its files are at their own places.
    ///
    /// # Errors
    /// As [`Image::spawn`].
    pub fn contained(&self, image: &Image, log: &Path) -> io::Result<Spawn> {
        let command = [image.entry(), words(&self.spec["args"])].concat();
        self.run_in(image, &command, log)
    }

    /// The same of what is run before it is stopped.
    ///
    /// # Errors
    /// As [`Image::spawn`].
    pub fn contained_before_stop(&self, image: &Image, log: &Path) -> io::Result<Spawn> {
        let command = words(&self.spec["lifecycle"]["preStop"]["exec"]["command"]);
        self.run_in(image, &command, log)
    }

    fn run_in(&self, image: &Image, command: &[String], log: &Path) -> io::Result<Spawn> {
        let mounts = ["/etc/ferrypost", "/var/lib/ferrypost"].map(|it| (self.path(it), it));
        image.spawn(command, &self.variables(), &mounts, log)
    }

    /// The image that it names, and the user that it is to run as.
    pub fn asks_for(&self) -> (&str, u64) {
        let user = self.spec["securityContext"]["runAsUser"].as_u64();
        (text(&self.spec["image"]), user.unwrap_or_default())
    }

    /// One of its probes, as the kubelet reads it.
    pub fn probe(&self, name: &str) -> &Value {
        &self.spec[name]
    }

    /// Its `command`, or the one that it runs before it is stopped; the first word is the program.
    pub fn command(&self, before_stop: bool) -> Vec<String> {
        if before_stop {
            self.places(&self.spec["lifecycle"]["preStop"]["exec"]["command"])
        } else {
            self.places(&self.spec["command"])
        }
    }

    /// Its environment.
    pub fn variables(&self) -> Vec<(String, String)> {
        let own = list(&self.spec["env"]).iter().map(|variable| {
            let of_pod = variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name";
            let value = if of_pod {
                &self.pod
            } else {
                text(&variable["value"])
            };
            (text(&variable["name"]).to_owned(), value.to_owned())
        });
        own.chain(self.env.iter().cloned()).collect()
    }

    /// Arguments, with the paths among them where they are here.
    fn places(&self, arguments: &Value) -> Vec<String> {
        let root = self.root.display();
        let place = |argument: String| {
            if argument.starts_with("/etc/") {
                format!("{root}{argument}")
            } else {
                argument
            }
        };
        words(arguments).into_iter().map(place).collect()
    }
}

/// Writes what a volume holds.
fn fill(place: &Path, volume: &Value, manifests: &Manifests, others: &Secrets) -> io::Result<()> {
    let (kind, name, items) = match (&volume["configMap"], &volume["secret"]) {
        (Value::Object(map), _) => ("ConfigMap", text(&map["name"]), None),
        (_, Value::Object(secret)) => {
            let items = secret.get("items").map(list);
            ("Secret", text(&secret["secretName"]), items)
        }
        // An empty folder.
        _ => return Ok(()),
    };
    let data = manifests.data(kind, name);
    let data = data.or_else(|| others.get(name).cloned());
    let data = data.ok_or_else(|| not_there(kind, name))?;
    for (key, octets) in data {
        let wanted = items.is_none_or(|items| items.iter().any(|item| item["key"] == *key));
        if wanted {
            fs::write(place.join(key), octets)?;
        }
    }
    Ok(())
}

fn within(root: &Path, place: &str) -> PathBuf {
    root.join(place.trim_start_matches('/'))
}

fn not_there(kind: &str, name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("there is no {kind} {name}"),
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn words(arguments: &Value) -> Vec<String> {
    let words = list(arguments).iter();
    words.map(|word| text(word).to_owned()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
