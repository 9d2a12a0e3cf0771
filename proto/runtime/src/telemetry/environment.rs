//! What the environment says of telemetry: the standard's variables with the standard's meaning, and no others.
//!
//! What cannot be meant is complained of and is then as if it were not said, as the standard asks; but where doing
//! without it would send somewhere else, or in clear, or what nobody asked for, the signal is not exported at all.

use std::{collections::HashMap, ffi::OsString, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use super::context::{Sampler, Share};
use crate::{config::has_impossible_port, tls::CertificateFiles};

/// Where the standard says that a collector listens.
const DEFAULT_ENDPOINT: &str = "http://localhost:4317";

/// What stands for "no limit", which nothing of ours has.
const LONGEST: Duration = Duration::from_hours(1);

/// What is exported, where and how.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What the resource is said to be beside what we know ourselves.
    pub(super) resource: Vec<(String, String)>,
    /// Whether other processes' traces are gone on with.
    pub(super) follows_callers: bool,
    pub(super) traces: Option<Traces>,
    pub(super) metrics: Option<Metrics>,
    pub(super) logs: Option<Logs>,
}

#[derive(Debug, Clone)]
pub(super) struct Traces {
    pub(super) target: Target,
    pub(super) batch: Batch,
    pub(super) sampler: Sampler,
    pub(super) attributes: AttributeLimits,
}

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    pub(super) target: Target,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Whether a point says what came since the last one.
    pub(super) deltas: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Logs {
    pub(super) target: Target,
    pub(super) batch: Batch,
    pub(super) attributes: AttributeLimits,
}

/// A collector, as one signal reaches it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// With its scheme: `https` is encrypted.
    pub(super) endpoint: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// For one batch, however often it is tried.
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    /// `None`: those of the system.
    pub(super) authorities: Option<PathBuf>,
    pub(super) identity: Option<CertificateFiles>,
}

impl Target {
    /// Where it is, without what else the endpoint says.
    pub(super) fn shown(&self) -> String {
        let scheme = self.endpoint.scheme_str().unwrap_or_default();
        let host = self.endpoint.host().unwrap_or_default();
        let port = self.endpoint.port();
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}://{host}{port}")
    }
}

/// How items are kept and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    /// At the latest so long after the first item.
    pub(super) delay: Duration,
    pub(super) timeout: Duration,
    pub(super) queue: usize,
    pub(super) size: usize,
}

/// What is kept of attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttributeLimits {
    pub(super) count: usize,
    /// Characters of a value.
    pub(super) length: usize,
}

/// A signal, with the word for it in the variables' names.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const fn word(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }
}

/// The signal cannot be exported as it is asked for, which has been complained of.
struct NotExported;

impl Settings {
    /// Those of an environment, and what is to be complained of. No complaint says a value that may be secret.
    pub(super) fn of(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> (Self, Vec<String>) {
        let mut environment = Environment::of(variables);
        let settings = environment.settings();
        (settings, environment.complaints)
    }

    /// Whether there is nothing to do.
    pub(super) const fn is_idle(&self) -> bool {
        self.traces.is_none() && self.metrics.is_none() && self.logs.is_none()
    }
}

/// The variables, and what is wrong with them.
struct Environment {
    variables: HashMap<String, String>,
    complaints: Vec<String>,
}

impl Environment {
    fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut of_it = Self {
            variables: HashMap::new(),
            complaints: Vec::new(),
        };
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with("OTEL_")) else {
                continue;
            };
            match value.into_string() {
                // An empty one is as none.
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => {
                    of_it.variables.insert(name.to_owned(), value);
                }
                Err(_) => of_it.complain(name, "is not UTF-8 and counts as not set"),
            }
        }
        of_it
    }

    fn settings(&mut self) -> Settings {
        if self.truth("OTEL_SDK_DISABLED") {
            return Settings {
                follows_callers: true,
                ..Settings::default()
            };
        }
        if self.variables.contains_key("OTEL_CONFIG_FILE") {
            self.complain(
                "OTEL_CONFIG_FILE",
                "is not read: set the variables of what it says",
            );
        }
        Settings {
            resource: self.resource(),
            follows_callers: self.follows_callers(),
            traces: self.traces().ok().flatten(),
            metrics: self.metrics().ok().flatten(),
            logs: self.logs().ok().flatten(),
        }
    }

    fn traces(&mut self) -> Result<Option<Traces>, NotExported> {
        let Some(target) = self.target(Signal::Traces)? else {
            return Ok(None);
        };
        Ok(Some(Traces {
            target,
            batch: self.batch("OTEL_BSP", Duration::from_secs(5)),
            sampler: self.sampler(),
            attributes: self.attribute_limits("OTEL_SPAN"),
        }))
    }

    fn metrics(&mut self) -> Result<Option<Metrics>, NotExported> {
        const HISTOGRAMS: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let Some(target) = self.target(Signal::Metrics)? else {
            return Ok(None);
        };
        let histograms = self.choice(HISTOGRAMS);
        if histograms.is_some_and(|word| word != "explicit_bucket_histogram") {
            self.complain(
                HISTOGRAMS,
                "can only be explicit_bucket_histogram: the bounds are those of docs/metrics.md",
            );
        }
        Ok(Some(Metrics {
            target,
            interval: self.positive("OTEL_METRIC_EXPORT_INTERVAL", Duration::from_mins(1)),
            timeout: self.limit("OTEL_METRIC_EXPORT_TIMEOUT", Duration::from_secs(30)),
            deltas: self.deltas(),
        }))
    }

    fn logs(&mut self) -> Result<Option<Logs>, NotExported> {
        let Some(target) = self.target(Signal::Logs)? else {
            return Ok(None);
        };
        Ok(Some(Logs {
            target,
            batch: self.batch("OTEL_BLRP", Duration::from_secs(1)),
            attributes: self.attribute_limits("OTEL_LOGRECORD"),
        }))
    }

    /// Where a signal goes; `None`: nowhere, as nobody asked for it.
    fn target(&mut self, signal: Signal) -> Result<Option<Target>, NotExported> {
        if !self.is_wanted(signal)? {
            return Ok(None);
        }
        self.check_protocol(signal)?;
        Ok(Some(Target {
            endpoint: self.endpoint(signal)?,
            headers: self.headers(signal),
            timeout: self.timeout(signal),
            gzip: self.gzip(signal),
            authorities: self.of_signal(signal, "CERTIFICATE").map(|it| it.1.into()),
            identity: self.identity(signal)?,
        }))
    }

    /// Where no exporter is named, one is wanted if anybody has said where a collector is: a program on a host without
    /// one does not try for ever to reach it.
    fn is_wanted(&mut self, signal: Signal) -> Result<bool, NotExported> {
        let name = format!("OTEL_{}_EXPORTER", signal.word());
        let Some(named) = self.choice(&name) else {
            return Ok(self.of_signal(signal, "ENDPOINT").is_some());
        };
        let mut wanted = false;
        for word in named.split(',').map(str::trim) {
            match word {
                "otlp" => wanted = true,
                "none" => {}
                _ => {
                    self.complain(
                        &name,
                        "can only be otlp or none: the signal is not exported. (Prometheus reads /metrics of the admin \
                         endpoint, whatever is exported)",
                    );
                    return Err(NotExported);
                }
            }
        }
        Ok(wanted)
    }

    fn check_protocol(&mut self, signal: Signal) -> Result<(), NotExported> {
        match self.of_signal(signal, "PROTOCOL") {
            Some((name, protocol)) if !protocol.eq_ignore_ascii_case("grpc") => {
                self.complain(
                    &name,
                    "can only be grpc: the signal is not exported. (A collector takes that at port 4317)",
                );
                Err(NotExported)
            }
            _ => Ok(()),
        }
    }

    fn endpoint(&mut self, signal: Signal) -> Result<Uri, NotExported> {
        let said = self.of_signal(signal, "ENDPOINT");
        let (name, text) = said.unwrap_or_else(|| (String::new(), DEFAULT_ENDPOINT.to_owned()));
        let insecure = self.of_signal(signal, "INSECURE");
        let insecure = insecure.is_some_and(|(name, value)| self.truth_of(&name, &value));
        let with_scheme = match text.split_once("://") {
            Some(_) => text,
            None if insecure => format!("http://{text}"),
            None => format!("https://{text}"),
        };
        let uri = with_scheme.parse::<Uri>().ok().filter(is_collector);
        let uri = uri.ok_or_else(|| {
            self.complain(
                &name,
                "is no http:// or https:// URL with a host: the signal is not exported",
            );
            NotExported
        })?;
        let authority = uri.authority().map_or("", |it| it.as_str());
        if authority.contains('@') || uri.query().is_some() {
            self.complain(
                &name,
                "has a user or a query, which gRPC does not use and which may be secret: the signal is not exported. \
                 (A token is said in OTEL_EXPORTER_OTLP_HEADERS)",
            );
            return Err(NotExported);
        }
        if !matches!(uri.path(), "" | "/") {
            self.complain(&name, "has a path, which gRPC does not use");
        }
        Ok(uri)
    }

    /// `key=value,key=value`, as W3C Baggage writes them.
    fn headers(&mut self, signal: Signal) -> Vec<(HeaderName, HeaderValue)> {
        let Some((name, text)) = self.of_signal(signal, "HEADERS") else {
            return Vec::new();
        };
        let pairs: Vec<_> = text.split(',').filter(|it| !it.trim().is_empty()).collect();
        let read: Vec<_> = pairs.iter().filter_map(|pair| header(pair)).collect();
        if read.len() < pairs.len() {
            self.complain(
                &name,
                "has an entry that is no key=value of a header, which is left out",
            );
        }
        read
    }

    fn timeout(&mut self, signal: Signal) -> Duration {
        let of_all = self.limit("OTEL_EXPORTER_OTLP_TIMEOUT", Duration::from_secs(10));
        let of_signal = format!("OTEL_EXPORTER_OTLP_{}_TIMEOUT", signal.word());
        self.limit(&of_signal, of_all)
    }

    fn gzip(&mut self, signal: Signal) -> bool {
        match self.of_signal(signal, "COMPRESSION") {
            Some((_, word)) if word.eq_ignore_ascii_case("gzip") => true,
            Some((name, word)) if !word.eq_ignore_ascii_case("none") => {
                self.complain(&name, "can only be gzip or none, and counts as none");
                false
            }
            _ => false,
        }
    }

    fn identity(&mut self, signal: Signal) -> Result<Option<CertificateFiles>, NotExported> {
        let certificate = self.of_signal(signal, "CLIENT_CERTIFICATE");
        let key = self.of_signal(signal, "CLIENT_KEY");
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some((_, certificate)), Some((_, key))) => Ok(Some(CertificateFiles {
                cert_file: certificate.into(),
                key_file: key.into(),
            })),
            (Some((name, _)), None) | (None, Some((name, _))) => {
                self.complain(
                    &name,
                    "needs its other half, CLIENT_KEY or CLIENT_CERTIFICATE: the signal is not exported",
                );
                Err(NotExported)
            }
        }
    }

    fn batch(&mut self, prefix: &str, delay: Duration) -> Batch {
        let queue = self.count(&format!("{prefix}_MAX_QUEUE_SIZE"), 2048, 1);
        let size = format!("{prefix}_MAX_EXPORT_BATCH_SIZE");
        let batch = self.count(&size, 512.min(queue), 1);
        if batch > queue {
            self.complain(&size, "is more than the queue holds, and counts as that");
        }
        Batch {
            delay: self.positive(&format!("{prefix}_SCHEDULE_DELAY"), delay),
            timeout: self.limit(&format!("{prefix}_EXPORT_TIMEOUT"), Duration::from_secs(30)),
            queue,
            size: batch.min(queue),
        }
    }

    /// Those of `prefix`, else those for all attributes.
    fn attribute_limits(&mut self, prefix: &str) -> AttributeLimits {
        let of_all = self.count("OTEL_ATTRIBUTE_COUNT_LIMIT", 128, 0);
        let longest = self.count("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", usize::MAX, 0);
        AttributeLimits {
            count: self.count(&format!("{prefix}_ATTRIBUTE_COUNT_LIMIT"), of_all, 0),
            length: self.count(
                &format!("{prefix}_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
                longest,
                0,
            ),
        }
    }

    fn sampler(&mut self) -> Sampler {
        const NAME: &str = "OTEL_TRACES_SAMPLER";
        let Some(word) = self.choice(NAME) else {
            return Sampler::DEFAULT;
        };
        let (follows_parent, of_root) = match word.strip_prefix("parentbased_") {
            Some(of_root) => (true, of_root),
            None => (false, &*word),
        };
        let share = match of_root {
            "always_on" => Share::All,
            "always_off" => Share::Nothing,
            "traceidratio" => Share::Ratio(self.ratio()),
            _ => {
                self.complain(NAME, "is no sampler that there is, and counts as not set");
                return Sampler::DEFAULT;
            }
        };
        Sampler {
            follows_parent,
            share,
        }
    }

    fn ratio(&mut self) -> f64 {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.word(NAME) else {
            return 1.0;
        };
        let ratio = text.parse::<f64>().ok();
        ratio
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .unwrap_or_else(|| {
                self.complain(NAME, "is no number from 0 to 1, and counts as 1");
                1.0
            })
    }

    fn deltas(&mut self) -> bool {
        const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match self.choice(NAME).as_deref() {
            None | Some("cumulative") => false,
            Some("delta" | "lowmemory") => true,
            Some(_) => {
                self.complain(
                    NAME,
                    "can only be cumulative, delta or lowmemory, and counts as cumulative",
                );
                false
            }
        }
    }

    fn follows_callers(&mut self) -> bool {
        const NAME: &str = "OTEL_PROPAGATORS";
        let Some(words) = self.choice(NAME) else {
            return true;
        };
        let words: Vec<_> = words.split(',').map(str::trim).collect();
        if words
            .iter()
            .any(|word| !matches!(*word, "tracecontext" | "baggage" | "none"))
        {
            self.complain(NAME, "names another than tracecontext, which alone is read");
        }
        words.contains(&"tracecontext")
    }

    /// `key=value,key=value`; of a text in which anything is wrong, nothing is taken.
    fn resource(&mut self) -> Vec<(String, String)> {
        const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let text = self.word(NAME).unwrap_or_default();
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let read: Option<Vec<_>> = pairs.map(pair).collect();
        let mut attributes = read.unwrap_or_else(|| {
            self.complain(NAME, "is no list of key=value, and counts as not set");
            Vec::new()
        });
        if let Some(service) = self.word("OTEL_SERVICE_NAME") {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), service));
        }
        attributes
    }

    /// The variable of a signal, else the one for all, with its name.
    fn of_signal(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.word()),
            format!("OTEL_EXPORTER_OTLP_{what}"),
        ];
        names.into_iter().find_map(|name| {
            let value = self.word(&name)?;
            Some((name, value))
        })
    }

    fn word(&self, name: &str) -> Option<String> {
        Some(self.variables.get(name)?.trim().to_owned())
    }

    /// One word of several, in any case.
    fn choice(&self, name: &str) -> Option<String> {
        Some(self.word(name)?.to_ascii_lowercase())
    }

    fn truth(&mut self, name: &str) -> bool {
        let value = self.word(name);
        value.is_some_and(|value| self.truth_of(name, &value))
    }

    /// Only `true` is true, in any case.
    fn truth_of(&mut self, name: &str, value: &str) -> bool {
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            self.complain(name, "can only be true or false, and counts as false");
        }
        is_true
    }

    fn number(&mut self, name: &str, least: u64) -> Option<u64> {
        let number = self.word(name)?.parse().ok();
        let number = number.filter(|number| *number >= least);
        if number.is_none() {
            self.complain(
                name,
                &format!("is no whole number from {least} up, and counts as not set"),
            );
        }
        number
    }

    fn count(&mut self, name: &str, default: usize, least: u64) -> usize {
        let number = self.number(name, least);
        number.map_or(default, |number| {
            usize::try_from(number).unwrap_or(usize::MAX)
        })
    }

    /// A time in milliseconds at which something is done again and again.
    fn positive(&mut self, name: &str, default: Duration) -> Duration {
        let number = self.number(name, 1);
        number.map_or(default, Duration::from_millis).min(LONGEST)
    }

    /// A time in milliseconds within which something must be done; 0 is "no limit".
    fn limit(&mut self, name: &str, default: Duration) -> Duration {
        match self.number(name, 0) {
            None => default,
            Some(0) => LONGEST,
            Some(milliseconds) => Duration::from_millis(milliseconds).min(LONGEST),
        }
    }

    fn complain(&mut self, name: &str, of: &str) {
        let complaint = format!("{name} {of}");
        // Of what is for all signals, each would say the same.
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }
}

fn is_collector(uri: &Uri) -> bool {
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    scheme && !has_impossible_port(uri) && uri.host().is_some_and(|host| !host.is_empty())
}

/// One `key=value` whose value is percent-encoded.
fn pair(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    (!key.is_empty()).then(|| (key.to_owned(), value.into_owned()))
}

/// A header of gRPC in which a text stands; its value is shown to nobody.
fn header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (key, value) = pair(text)?;
    let name = HeaderName::from_bytes(key.as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    let is_ours = name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin");
    (!is_ours).then_some((name, value))
}

#[cfg(test)]
mod tests;
