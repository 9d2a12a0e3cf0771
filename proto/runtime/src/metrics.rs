//! Instruments: what a program counts and measures, declared in one table.
//!
//! An [`Instrument`] has its name (as OpenTelemetry writes names), its unit, its kind and, for each
//! attribute, *every value that it may have*: all series exist from the start, a counter is an atomic that
//! is fetched once and added to, memory is what the table says, and no name of an account can ever become a
//! label. Gauges keep nothing: whoever is asked says what they stand at ([`Levels`]), and they alone may be
//! told apart by what an operator has named, such as destinations. [`Metrics`] are one program's instruments;
//! [`page`] writes the operator's page about a table, and [`Metrics::read`] says what they stand at, for
//! [`prometheus`] and for whoever sends it somewhere.

use std::{
    borrow::Cow,
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
    /// Up and down: what is so at the moment of asking.
    Gauge,
}

/// What tells series apart.
#[derive(Debug)]
pub struct Attribute {
    /// As OpenTelemetry writes names: `protocol`.
    pub name: &'static str,
    /// Every value that it may have.
    pub values: Values,
}

/// The values of an attribute.
#[derive(Debug)]
pub enum Values {
    /// These words. What is said beside them is counted as `_OTHER`.
    Words(&'static [&'static str]),
    /// What an operator has named, in words for the operator's page. For gauges only, since it is not known when
    /// the series are made.
    Named(&'static str),
}

/// What a gauge stands at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// So many.
    Count(u64),
    /// So long.
    Time(Duration),
}

/// What the gauges of a table stand at, said by whoever was asked.
#[derive(Debug, Default)]
pub struct Levels(Vec<(&'static Instrument, Vec<Cow<'static, str>>, Level)>);

/// What the series of one instrument stand at.
#[derive(Debug)]
pub struct Reading {
    /// The instrument.
    pub instrument: &'static Instrument,
    /// Its series.
    pub points: Vec<Point>,
}

/// What one series stands at.
#[derive(Debug)]
pub struct Point {
    /// Its values, in the order of the instrument's attributes.
    pub values: Vec<Cow<'static, str>>,
    /// What it stands at.
    pub at: Stand,
}

/// What a series stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// So many have been counted.
    Counted(u64),
    /// Durations have been counted.
    Lasted {
        /// In each bucket; the last is for what is above all bounds.
        counts: Vec<u64>,
        /// All of them together.
        microseconds: u64,
    },
    /// What is so at the moment.
    Level(Level),
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

impl Levels {
    /// Says one, with its values in the order of the gauge's attributes. Two with the same values are a mistake.
    ///
    /// # Panics
    /// If the instrument is no gauge, or has another number of attributes.
    pub fn say(&mut self, gauge: &'static Instrument, values: &[&str], level: impl Into<Level>) {
        assert_eq!(gauge.kind, Kind::Gauge, "{} is no gauge", gauge.name);
        let values = gauge.values(values);
        self.0.push((gauge, values, level.into()));
    }

    fn of(&self, gauge: &Instrument) -> Vec<Point> {
        let of_it = self.0.iter().filter(|(of, ..)| of.name == gauge.name);
        let point = |(_, values, level): &(_, Vec<_>, _)| Point {
            values: values.clone(),
            at: Stand::Level(*level),
        };
        of_it.map(point).collect()
    }
}

impl From<usize> for Level {
    fn from(count: usize) -> Self {
        // No machine counts further.
        Self::Count(count as u64)
    }
}

impl From<u64> for Level {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for Level {
    fn from(is: bool) -> Self {
        Self::Count(is.into())
    }
}

impl From<Duration> for Level {
    fn from(time: Duration) -> Self {
        Self::Time(time)
    }
}

impl Level {
    fn text(self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Time(time) => seconds(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        }
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
    Gauges,
}

impl Metrics {
    /// All series of a table, at zero.
    ///
    /// # Panics
    /// If a counter or a histogram has an attribute of which not every value is known.
    pub fn new(table: &[&'static Instrument]) -> Self {
        let family = |instrument: &&'static Instrument| {
            let count = || instrument.attributes.iter().map(Attribute::count).product();
            let series = match instrument.kind {
                Kind::Counter => Series::Counters(vec_of(count(), Counter::default)),
                Kind::Histogram(bounds) => {
                    Series::Histograms(vec_of(count(), || Histogram::new(bounds)))
                }
                Kind::Gauge => Series::Gauges,
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
            _ => panic!("{} is no counter", instrument.name),
        }
    }

    /// The series of a histogram with these values, in the order of its attributes.
    ///
    /// # Panics
    /// As [`counter`](Self::counter).
    pub fn histogram(&self, instrument: &'static Instrument, values: &[&str]) -> Histogram {
        match &self.family(instrument).series {
            Series::Histograms(series) => series[instrument.index(values)].clone(),
            _ => panic!("{} is no histogram", instrument.name),
        }
    }

    /// Lets the series of a counter with these values be one that was counted in before these instruments were made.
    ///
    /// # Panics
    /// As [`counter`](Self::counter).
    pub fn adopt(&mut self, instrument: &'static Instrument, values: &[&str], counter: Counter) {
        let of_it = |family: &&mut Family| family.instrument.name == instrument.name;
        match self.0.iter_mut().find(of_it).map(|it| &mut it.series) {
            Some(Series::Counters(series)) => series[instrument.index(values)] = counter,
            _ => panic!("{} is no counter of the program's table", instrument.name),
        }
    }

    /// What all of them stand at. Series of counters and histograms that nothing was ever counted in are left out,
    /// and so are gauges of which nothing is said.
    pub fn read(&self, levels: &Levels) -> Vec<Reading> {
        let reading = |family: &Family| Reading {
            instrument: family.instrument,
            points: family.points(levels),
        };
        self.0.iter().map(reading).collect()
    }

    fn family(&self, instrument: &'static Instrument) -> &Family {
        let family = self
            .0
            .iter()
            .find(|family| family.instrument.name == instrument.name);
        family.expect("instruments are those of the program's table")
    }
}

fn vec_of<T>(count: usize, make: impl Fn() -> T) -> Vec<T> {
    (0..count).map(|_| make()).collect()
}

impl Family {
    fn points(&self, levels: &Levels) -> Vec<Point> {
        let point = |(index, at)| Point {
            values: self.instrument.values_at(index),
            at,
        };
        match &self.series {
            Series::Counters(series) => {
                let counted = series.iter().map(Counter::value).enumerate();
                let counted = counted.filter(|(_, count)| *count > 0);
                let counted = counted.map(|(index, count)| (index, Stand::Counted(count)));
                counted.map(point).collect()
            }
            Series::Histograms(series) => {
                let counted = series.iter().enumerate().filter(|(_, s)| s.count() > 0);
                let counted = counted.map(|(index, series)| (index, series.0.stand()));
                counted.map(point).collect()
            }
            Series::Gauges => levels.of(self.instrument),
        }
    }
}

impl Buckets {
    fn stand(&self) -> Stand {
        let counts = self.counts.iter();
        Stand::Lasted {
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            microseconds: self.microseconds.load(Ordering::Relaxed),
        }
    }
}

/// What instruments stand at, in Prometheus' text format.
pub fn prometheus(readings: &[Reading]) -> String {
    let mut out = String::new();
    for reading in readings {
        reading.write(&mut out);
    }
    out
}

impl Reading {
    fn write(&self, out: &mut String) {
        let instrument = self.instrument;
        let name = instrument.prometheus_name();
        let kind = instrument.kind.word();
        // Writing to a string cannot fail.
        _ = writeln!(out, "# HELP {name} {}", instrument.description);
        _ = writeln!(out, "# TYPE {name} {kind}");
        for point in &self.points {
            let labels = instrument.labels(&point.values);
            match &point.at {
                Stand::Counted(count) => {
                    _ = writeln!(out, "{name}{} {count}", braced(&labels, None));
                }
                Stand::Level(level) => {
                    _ = writeln!(out, "{name}{} {}", braced(&labels, None), level.text());
                }
                Stand::Lasted {
                    counts,
                    microseconds,
                } => {
                    write_buckets(out, &name, instrument.bounds(), counts, &labels);
                    let (sum, labels) = (seconds(*microseconds), braced(&labels, None));
                    _ = writeln!(out, "{name}_sum{labels} {sum}");
                    let total: u64 = counts.iter().sum();
                    _ = writeln!(out, "{name}_count{labels} {total}");
                }
            }
        }
    }
}

fn write_buckets(out: &mut String, name: &str, bounds: &[u64], counts: &[u64], labels: &[String]) {
    let mut total = 0;
    for (n, count) in counts.iter().enumerate() {
        total += count;
        let bound = bounds.get(n);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| seconds(bound * 1000));
        _ = writeln!(out, "{name}_bucket{} {total}", braced(labels, Some(&bound)));
    }
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
        self.check(values);
        let digits = self.attributes.iter().zip(values);
        digits.fold(0, |index, (attribute, value)| {
            index * attribute.count() + attribute.position(value)
        })
    }

    /// The values of the series that stands there.
    fn values_at(&self, mut index: usize) -> Vec<Cow<'static, str>> {
        let mut values = Vec::new();
        for attribute in self.attributes.iter().rev() {
            values.push(attribute.word(index % attribute.count()).into());
            index /= attribute.count();
        }
        values.reverse();
        values
    }

    /// The values of a gauge of which these are said.
    fn values(&self, values: &[&str]) -> Vec<Cow<'static, str>> {
        self.check(values);
        let pairs = self.attributes.iter().zip(values);
        pairs
            .map(|(attribute, value)| match attribute.values {
                Values::Words(_) => attribute.word(attribute.position(value)).into(),
                Values::Named(_) => (*value).to_owned().into(),
            })
            .collect()
    }

    fn labels(&self, values: &[Cow<'static, str>]) -> Vec<String> {
        let pairs = self.attributes.iter().zip(values);
        pairs.map(|(it, value)| it.label(value)).collect()
    }

    /// The upper bounds of a histogram's buckets but the last, in milliseconds.
    pub(crate) const fn bounds(&self) -> &'static [u64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        }
    }

    fn check(&self, values: &[&str]) {
        let (said, wanted) = (values.len(), self.attributes.len());
        assert_eq!(said, wanted, "the attributes of {}", self.name);
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
            Self::Gauge => "gauge",
        }
    }
}

impl Attribute {
    /// How many values it has, the one for all others among them.
    fn count(&self) -> usize {
        self.words().len() + 1
    }

    fn words(&self) -> &'static [&'static str] {
        match self.values {
            Values::Words(words) => words,
            Values::Named(_) => panic!("the values of {} are not known", self.name),
        }
    }

    fn position(&self, value: &str) -> usize {
        let position = self.words().iter().position(|known| *known == value);
        position.unwrap_or(self.words().len())
    }

    fn word(&self, position: usize) -> &'static str {
        self.words().get(position).copied().unwrap_or(OTHER)
    }

    fn label(&self, value: &str) -> String {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{}=\"{value}\"", self.name.replace('.', "_"))
    }

    /// What the operator's page says of its values.
    fn page(&self) -> String {
        match self.values {
            Values::Named(what) => what.to_owned(),
            Values::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(", ")
            }
        }
    }
}

/// Labels, and a bucket's bound if there is one, as Prometheus writes them behind a name.
fn braced(labels: &[String], bound: Option<&str>) -> String {
    let bound = bound.map(|bound| format!("le=\"{bound}\""));
    let all: Vec<_> = labels.iter().cloned().chain(bound).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("{{{}}}", all.join(","))
}

/// The operator's page with the section of this title written anew from a table; the other sections stay, and a
/// section that the page does not have comes last.
pub fn page(page: &str, title: &str, table: &[&Instrument]) -> String {
    let head = format!("## {title}\n");
    let (before, rest) = page.split_once(&head).unwrap_or((page, ""));
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{}\n\n{}{after}", before.trim_end(), section(title, table))
}

fn section(title: &str, table: &[&Instrument]) -> String {
    let mut out = format!("## {title}\n");
    for instrument in table {
        let (name, kind) = (instrument.name, instrument.kind.word());
        _ = write!(out, "\n### `{name}`\n\n{}\n\n", instrument.description);
        _ = writeln!(out, "- {kind}, unit `{}`", instrument.unit);
        _ = writeln!(out, "- Prometheus: `{}`", instrument.prometheus_name());
        for attribute in instrument.attributes {
            _ = writeln!(out, "- `{}`: {}", attribute.name, attribute.page());
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
                values: Values::Words(&["imap", "pop3"]),
            },
            Attribute {
                name: "direction",
                values: Values::Words(&["up", "down"]),
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
        let text = prometheus(&metrics.read(&Levels::default()));
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
        let text = prometheus(&metrics.read(&Levels::default()));
        assert!(text.ends_with(expected), "{text}");
    }

    static OPEN: Instrument = Instrument {
        name: "ferrypost.test.open",
        unit: "{session}",
        kind: Kind::Gauge,
        description: "Open.",
        attributes: &[
            Attribute {
                name: "destination",
                values: Values::Named("the destinations"),
            },
            Attribute {
                name: "stage",
                values: Values::Words(&["held"]),
            },
        ],
    };
    static AGE: Instrument = Instrument {
        name: "ferrypost.test.age",
        unit: "s",
        kind: Kind::Gauge,
        description: "How old.",
        attributes: &[],
    };

    #[test]
    fn a_gauge_says_what_it_was_told_and_no_name_breaks_its_line() {
        let metrics = Metrics::new(&[&OPEN, &AGE]);
        let mut levels = Levels::default();
        levels.say(&OPEN, &["a\"\\\nb", "held"], 7_usize);
        levels.say(&OPEN, &["b", "alice@example.org"], true);
        levels.say(&AGE, &[], Duration::from_millis(1500));
        let expected = "# HELP ferrypost_test_open Open.\n\
            # TYPE ferrypost_test_open gauge\n\
            ferrypost_test_open{destination=\"a\\\"\\\\\\nb\",stage=\"held\"} 7\n\
            ferrypost_test_open{destination=\"b\",stage=\"_OTHER\"} 1\n\
            # HELP ferrypost_test_age_seconds How old.\n\
            # TYPE ferrypost_test_age_seconds gauge\n\
            ferrypost_test_age_seconds 1.5\n";
        assert_eq!(prometheus(&metrics.read(&levels)), expected);
    }

    #[test]
    fn a_section_of_the_page_is_written_anew_and_the_others_stay() {
        let one = page("# Metrics\n", "One", &[&AGE]);
        let both = page(&one, "Two", &[&TIME]);
        assert!(both.starts_with(&one), "{both}");
        let stale = both.replace("How old.", "Stale.");
        assert_eq!(page(&stale, "One", &[&AGE]), both);
        assert_eq!(page(&both, "Two", &[&TIME]), both);
    }
}
