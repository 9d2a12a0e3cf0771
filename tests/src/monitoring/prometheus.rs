//! A real Prometheus that watches a world, with the alert rules that ship.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ports::Port;
use crate::process::{Process, Spawn};
use crate::story::SOON;
use crate::tools::tool;
use crate::wait::eventually;
use crate::world::{ControlPlane, DataPlane, World};

use super::shipped;

const LIMIT: Duration = Duration::from_secs(30);

/// Programs of one kind whose `/metrics` are read.
#[derive(Debug)]
pub struct Target {
    /// The job's name.
    pub job: &'static str,
    /// Their admin endpoints.
    pub addresses: Vec<SocketAddr>,
}

/// One value of an answer, with the labels of its series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Without the metric's name.
    pub labels: BTreeMap<String, String>,
    /// NaN where there is nothing to divide by.
    pub value: f64,
}

/// A running Prometheus. Ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    port: Port,
    _process: Process,
}

impl Prometheus {
    /// Starts one in `folder` that reads both planes of `world` every second.
    ///
    /// # Errors
    /// When it cannot be started, or does not say that it is ready.
    pub async fn watch(world: &World, folder: &Path) -> anyhow::Result<Self> {
        let data_planes = world.data_planes().iter().map(DataPlane::admin);
        let control_planes = world.control_planes().iter().map(ControlPlane::admin);
        let targets = [
            Target {
                job: "ferrypost-dataplane",
                addresses: data_planes.collect(),
            },
            Target {
                job: "ferrypost-controlplane",
                addresses: control_planes.collect(),
            },
        ];
        let config = folder.join("prometheus.yaml");
        fs::write(&config, configuration(world, &targets))?;
        let port = Port::reserve()?;
        let process = Spawn::new(tool("prometheus")?, folder.join("prometheus.log"))?
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={}", port.addr()))
            .start()?;
        let prometheus = Self {
            port,
            _process: process,
        };
        eventually("Prometheus is ready", SOON, || async {
            prometheus.get("/-/ready").await
        })
        .await?;
        Ok(prometheus)
    }

    /// What `expr` stands at.
    ///
    /// # Errors
    /// When Prometheus does not answer, or does not take the expression.
    pub async fn query(&self, expr: &str) -> anyhow::Result<Vec<Sample>> {
        let path = format!("/api/v1/query?query={}", escaped(expr));
        let answer = self.get(&path).await?;
        let answer: Value = serde_json::from_str(&answer)?;
        let result = answer["data"]["result"].as_array();
        let samples = result.with_context(|| format!("{expr}: {answer}"))?;
        samples.iter().map(sample).collect()
    }

    /// What `expr` stood at in the last `seconds`, every second: for each series its labels and its values.
    ///
    /// # Errors
    /// As [`Prometheus::query`].
    pub async fn range(
        &self,
        expr: &str,
        seconds: u64,
    ) -> anyhow::Result<Vec<(BTreeMap<String, String>, Vec<(f64, f64)>)>> {
        let end = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={end}&step=1",
            escaped(expr),
            end - seconds
        );
        let answer: Value = serde_json::from_str(&self.get(&path).await?)?;
        let result = answer["data"]["result"].as_array();
        let series = result.with_context(|| format!("{expr}: {answer}"))?;
        series
            .iter()
            .map(|series| {
                let values = series["values"].as_array().context("no values")?;
                let points = values.iter().map(point).collect::<anyhow::Result<_>>()?;
                Ok((labels(&series["metric"]), points))
            })
            .collect()
    }

    /// The rules that it has, by name, with what it says of their last evaluation.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn rules(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/rules").await?)?;
        let groups = answer["data"]["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let named = rules.flatten().filter_map(|rule| {
            let name = rule["name"].as_str()?;
            Some((name.to_owned(), rule.clone()))
        });
        Ok(named.collect())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        timeout(LIMIT, self.exchange(path))
            .await
            .context("no answer")?
    }

    /// In HTTP/1.0, so that the answer has one piece.
    async fn exchange(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.port.addr()).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.port.addr());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("not HTTP")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{head}\n{body}");
        }
        Ok(body.to_owned())
    }
}

fn configuration(world: &World, targets: &[Target]) -> String {
    let mut text = format!(
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files:\n  - {}\nscrape_configs:\n",
        shipped("alerts.yaml").display()
    );
    for Target { job, addresses } in targets {
        let addresses: Vec<_> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
        let _ = write!(
            text,
            "  - job_name: {job}\n    scheme: https\n    tls_config:\n      ca_file: {}\n    authorization:\n      \
             credentials_file: {}\n    static_configs:\n      - targets: [{}]\n",
            world.authority().display(),
            world.admin_token_file().display(),
            addresses.join(", "),
        );
    }
    text
}

fn sample(value: &Value) -> anyhow::Result<Sample> {
    let (_, number) = point(&value["value"])?;
    Ok(Sample {
        labels: labels(&value["metric"]),
        value: number,
    })
}

fn point(value: &Value) -> anyhow::Result<(f64, f64)> {
    let time = value[0].as_f64().context("a value without its time")?;
    let number = value[1].as_str().context("a value that is no text")?;
    Ok((time, number.parse()?))
}

fn labels(metric: &Value) -> BTreeMap<String, String> {
    let pairs = metric.as_object().into_iter().flatten();
    let named = pairs.filter(|(name, _)| *name != "__name__");
    named
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// For a query string: every octet that is no letter or digit is written in hexadecimal.
fn escaped(expr: &str) -> String {
    expr.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_expression_survives_a_query_string() {
        assert_eq!(super::escaped("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
