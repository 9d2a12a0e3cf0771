//! Instruments: what a program counts and measures, declared in one table.
//!
//! An [`Instrument`] has its name (as OpenTelemetry writes names), its unit, its kind and, for each
//! attribute, *every value that it may have*: all series exist from the start, a counter is an atomic that
//! is fetched once and added to, memory is what the table says, and no name of an account can ever become a
//! label. [`Metrics`] are one program's instruments; [`page`] writes the operator's page about a table, and
//! [`Metrics::prometheus`] what they stand at.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What stands for a value that an attribute does not list, so that a mistake of ours loses no count.
const OTHER: &str = "_OTHER";

/// What is counted or measured.
#[derive(Debug)]
pub struct Instrument {
    /// As OpenTelemetry writes names: `ferrypost.dataplane.relay.io`.
    pub name: &'static str,
    /// As UCUM writes units: `By`, `s`, `{login}`.
    pub unit: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// One sentence for an operator.
    pub description: &'static str,
    /// What tells its series apart.
    pub attributes: &'static [Attribute],
}

/// How an instrument moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Upwards.
    Counter,
    /// Durations in seconds, counted in buckets with these upper bounds in milliseconds.
    Histogram(&'static [u64]),
}

/// What tells series apart.
#[derive(Debug)]
pub struct Attribute {
    /// As OpenTelemetry writes names: `protocol`.
    pub name: &'static str,
    /// Every value that it may have, one list after the other.
    pub values: &'static [&'static [&'static str]],
}

/// One series of a counter. Cheap to clone and to add to: an atomic that nothing is ordered by.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What has been counted.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One series of a histogram.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [u64],
    /// One more than bounds: the last is for what is above them all.
    counts: Vec<AtomicU64>,
    microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let milliseconds = duration.as_millis();
        let fits = |bound: &u64| milliseconds <= u128::from(*bound);
        let bucket = self.0.bounds.iter().position(fits);
        let bucket = bucket.unwrap_or(self.0.bounds.len());
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0
            .microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How many have been counted.
    pub fn count(&self) -> u64 {
        let counts = self.0.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn new(bounds: &'static [u64]) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            microseconds: AtomicU64::new(0),
        }))
    }
}

/// One program's instruments and all their series.
#[derive(Debug)]
pub struct Metrics(Vec<Family>);

#[derive(Debug)]
struct Family {
    instrument: &'static Instrument,
    series: Series,
}

#[derive(Debug)]
enum Series {
    Counters(Vec<Counter>),
    Histograms(Vec<Histogram>),
}

impl Metrics {
    /// All series of a table, at zero.
    pub fn new(table: &[&'static Instrument]) -> Self {
        let family = |instrument: &&'static Instrument| {
            let count = instrument.attributes.iter().map(Attribute::count).product();
            let series = match instrument.kind {
                Kind::Counter => Series::Counters((0..count).map(|_| Counter::default()).collect()),
                Kind::Histogram(bounds) => {
                    Series::Histograms((0..count).map(|_| Histogram::new(bounds)).collect())
                }
            };
            Family { instrument, series }
        };
        Self(table.iter().map(family).collect())
    }

    /// The series of a counter with these values, in the order of its attributes.
    ///
    /// # Panics
    /// If the instrument is no counter of this table, or has another number of attributes.
    pub fn counter(&self, instrument: &'static Instrument, values: &[&str]) -> Counter {
        match &self.family(instrument).series {
            Series::Counters(series) => series[instrument.index(values)].clone(),
            Series::Histograms(_) => panic!("{} is no counter", instrument.name),
        }
    }

    /// The series of a histogram with these values, in the order of its attributes.
    ///
    /// # Panics
    /// As [`counter`](Self::counter).
    pub fn histogram(&self, instrument: &'static Instrument, values: &[&str]) -> Histogram {
        match &self.family(instrument).series {
            Series::Histograms(series) => series[instrument.index(values)].clone(),
            Series::Counters(_) => panic!("{} is no histogram", instrument.name),
        }
    }

    /// What all of them stand at, in Prometheus' text format. Series of counters and histograms that nothing
    /// was ever counted in are left out.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        for family in &self.0 {
            family.write(&mut out);
        }
        out
    }

    fn family(&self, instrument: &'static Instrument) -> &Family {
        let family = self
            .0
            .iter()
            .find(|family| family.instrument.name == instrument.name);
        family.expect("instruments are those of the program's table")
    }
}

impl Family {
    fn write(&self, out: &mut String) {
        let instrument = self.instrument;
        let name = instrument.prometheus_name();
        let kind = instrument.kind.word();
        // Writing to a string cannot fail.
        _ = writeln!(out, "# HELP {name} {}", instrument.description);
        _ = writeln!(out, "# TYPE {name} {kind}");
        match &self.series {
            Series::Counters(series) => {
                for (index, counter) in series.iter().enumerate().filter(|(_, s)| s.value() > 0) {
                    let labels = instrument.labels(index, None);
                    _ = writeln!(out, "{name}{labels} {}", counter.value());
                }
            }
            Series::Histograms(series) => {
                for (index, histogram) in series.iter().enumerate().filter(|(_, s)| s.count() > 0) {
                    write_histogram(out, &name, histogram, |bound| {
                        instrument.labels(index, bound)
                    });
                }
            }
        }
    }
}

fn write_histogram(
    out: &mut String,
    name: &str,
    histogram: &Histogram,
    labels: impl Fn(Option<&str>) -> String,
) {
    let buckets = &histogram.0;
    let mut total = 0;
    for (n, count) in buckets.counts.iter().enumerate() {
        total += count.load(Ordering::Relaxed);
        let bound = buckets.bounds.get(n);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| seconds(bound * 1000));
        _ = writeln!(out, "{name}_bucket{} {total}", labels(Some(&bound)));
    }
    let sum = buckets.microseconds.load(Ordering::Relaxed);
    _ = writeln!(out, "{name}_sum{} {}", labels(None), seconds(sum));
    _ = writeln!(out, "{name}_count{} {total}", labels(None));
}

/// Microseconds as seconds, without the error of a floating point number.
fn seconds(microseconds: u64) -> String {
    let digits = format!(
        "{}.{:06}",
        microseconds / 1_000_000,
        microseconds % 1_000_000
    );
    digits
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

impl Instrument {
    /// Where the series with these values stands. The last attribute changes fastest.
    fn index(&self, values: &[&str]) -> usize {
        assert_eq!(
            values.len(),
            self.attributes.len(),
            "the attributes of {}",
            self.name
        );
        let digits = self.attributes.iter().zip(values);
        digits.fold(0, |index, (attribute, value)| {
            index * attribute.count() + attribute.position(value)
        })
    }

    fn labels(&self, mut index: usize, bound: Option<&str>) -> String {
        let mut labels: Vec<_> = bound
            .map(|bound| format!("le=\"{bound}\""))
            .into_iter()
            .collect();
        for attribute in self.attributes.iter().rev() {
            let value = attribute.value(index % attribute.count());
            index /= attribute.count();
            labels.push(format!("{}=\"{value}\"", attribute.name.replace('.', "_")));
        }
        labels.reverse();
        if labels.is_empty() {
            return String::new();
        }
        format!("{{{}}}", labels.join(","))
    }

    /// As Prometheus writes it: with the unit, and `total` behind what only grows.
    fn prometheus_name(&self) -> String {
        let name = self.name.replace('.', "_");
        let unit = match self.unit {
            "By" => "_bytes",
            "s" => "_seconds",
            _ => "",
        };
        let total = if self.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        format!("{name}{unit}{total}")
    }
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Attribute {
    /// How many values it has, the one for all others among them.
    fn count(&self) -> usize {
        self.values().count() + 1
    }

    fn values(&self) -> impl Iterator<Item = &'static str> {
        self.values.iter().flat_map(|values| values.iter().copied())
    }

    fn position(&self, value: &str) -> usize {
        let position = self.values().position(|known| known == value);
        position.unwrap_or_else(|| self.values().count())
    }

    fn value(&self, position: usize) -> &'static str {
        self.values().nth(position).unwrap_or(OTHER)
    }
}

/// The operator's page about a table, in Markdown.
pub fn page(title: &str, table: &[&Instrument]) -> String {
    let mut out = format!("## {title}\n");
    for instrument in table {
        let (name, kind) = (instrument.name, instrument.kind.word());
        _ = write!(out, "\n### `{name}`\n\n{}\n\n", instrument.description);
        _ = writeln!(out, "- {kind}, unit `{}`", instrument.unit);
        _ = writeln!(out, "- Prometheus: `{}`", instrument.prometheus_name());
        for attribute in instrument.attributes {
            let values: Vec<_> = attribute
                .values()
                .map(|value| format!("`{value}`"))
                .collect();
            _ = writeln!(out, "- `{}`: {}", attribute.name, values.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    static BYTES: Instrument = Instrument {
        name: "ferrypost.test.io",
        unit: "By",
        kind: Kind::Counter,
        description: "Octets.",
        attributes: &[
            Attribute {
                name: "protocol",
                values: &[&["imap", "pop3"]],
            },
            Attribute {
                name: "direction",
                values: &[&["up"], &["down"]],
            },
        ],
    };
    static TIME: Instrument = Instrument {
        name: "ferrypost.test.duration",
        unit: "s",
        kind: Kind::Histogram(&[10, 1500]),
        description: "How long.",
        attributes: &[],
    };

    #[test]
    fn every_series_is_its_own_and_what_is_unknown_loses_no_count() {
        let metrics = Metrics::new(&[&BYTES, &TIME]);
        metrics.counter(&BYTES, &["imap", "down"]).add(5);
        metrics.counter(&BYTES, &["imap", "down"]).add(2);
        metrics.counter(&BYTES, &["pop3", "up"]).add(1);
        metrics.counter(&BYTES, &["alice@example.org", "up"]).add(3);
        assert_eq!(metrics.counter(&BYTES, &["imap", "down"]).value(), 7);
        assert_eq!(metrics.counter(&BYTES, &["imap", "up"]).value(), 0);
        let text = metrics.prometheus();
        let expected = "# HELP ferrypost_test_io_bytes_total Octets.\n\
            # TYPE ferrypost_test_io_bytes_total counter\n\
            ferrypost_test_io_bytes_total{protocol=\"imap\",direction=\"down\"} 7\n\
            ferrypost_test_io_bytes_total{protocol=\"pop3\",direction=\"up\"} 1\n\
            ferrypost_test_io_bytes_total{protocol=\"_OTHER\",direction=\"up\"} 3\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let metrics = Metrics::new(&[&TIME]);
        for milliseconds in [10, 11, 9000] {
            let series = metrics.histogram(&TIME, &[]);
            series.record(Duration::from_millis(milliseconds));
        }
        let expected = "ferrypost_test_duration_seconds_bucket{le=\"0.01\"} 1\n\
            ferrypost_test_duration_seconds_bucket{le=\"1.5\"} 2\n\
            ferrypost_test_duration_seconds_bucket{le=\"+Inf\"} 3\n\
            ferrypost_test_duration_seconds_sum 9.021\n\
            ferrypost_test_duration_seconds_count 3\n";
        let text = metrics.prometheus();
        assert!(text.ends_with(expected), "{text}");
    }
}
