//! The registry's readings as OTLP's metrics.

use std::{borrow::Cow, collections::HashMap};

use super::otlp::{
    self, AggregationTemporality, Data, Gauge, Histogram, HistogramDataPoint, KeyValue, Metric,
    Number, NumberDataPoint, Sum,
};
use crate::metrics::{Instrument, Kind, Level, Point, Reading, Stand};

/// What makes metrics out of readings, one after the other.
pub(super) struct Readings {
    /// Since when is counted.
    begun: u64,
    /// What was said last, where only what came since is said.
    said: Option<HashMap<Series, Stand>>,
}

type Series = (&'static str, Vec<Cow<'static, str>>);

impl Readings {
    pub(super) fn new(begun: u64, deltas: bool) -> Self {
        Self {
            begun,
            said: deltas.then(HashMap::new),
        }
    }

    /// The metrics of what is read now. Instruments of which nothing is said are left out.
    pub(super) fn metrics(&mut self, readings: Vec<Reading>, now: u64) -> Vec<Metric> {
        let readings = readings.into_iter().filter(|it| !it.points.is_empty());
        let metrics = readings.map(|reading| self.metric(reading, now)).collect();
        if self.said.is_some() {
            self.begun = now;
        }
        metrics
    }

    fn metric(&mut self, reading: Reading, now: u64) -> Metric {
        let instrument = reading.instrument;
        let points = reading.points.into_iter();
        let points: Vec<_> = points
            .into_iter()
            .map(|it| self.since(instrument, it))
            .collect();
        let times = (self.begun, now);
        Metric {
            name: instrument.name.to_owned(),
            description: instrument.description.to_owned(),
            unit: instrument.unit.to_owned(),
            data: Some(match instrument.kind {
                Kind::Counter => Data::Sum(Sum {
                    data_points: points
                        .iter()
                        .map(|it| number(instrument, it, times))
                        .collect(),
                    aggregation_temporality: self.temporality().into(),
                    is_monotonic: true,
                }),
                Kind::Gauge => Data::Gauge(Gauge {
                    data_points: points
                        .iter()
                        .map(|it| number(instrument, it, times))
                        .collect(),
                }),
                Kind::Histogram(_) => Data::Histogram(Histogram {
                    data_points: points
                        .iter()
                        .filter_map(|it| buckets(instrument, it, times))
                        .collect(),
                    aggregation_temporality: self.temporality().into(),
                }),
            }),
            ..Metric::default()
        }
    }

    const fn temporality(&self) -> AggregationTemporality {
        match self.said {
            Some(_) => AggregationTemporality::Delta,
            None => AggregationTemporality::Cumulative,
        }
    }

    /// What came since the last time, where that is asked for.
    fn since(&mut self, instrument: &'static Instrument, point: Point) -> Point {
        let Some(said) = &mut self.said else {
            return point;
        };
        // It has no last time: what it is now is all that is said of it.
        if matches!(point.at, Stand::Level(_)) {
            return point;
        }
        let series = (instrument.name, point.values.clone());
        let last = said.insert(series, point.at.clone());
        let at = match last {
            Some(last) => difference(point.at, &last),
            None => point.at,
        };
        Point { at, ..point }
    }
}

fn difference(now: Stand, last: &Stand) -> Stand {
    match (now, last) {
        (Stand::Counted(now), Stand::Counted(last)) => Stand::Counted(now.saturating_sub(*last)),
        (
            Stand::Lasted {
                counts,
                microseconds,
            },
            Stand::Lasted {
                counts: last,
                microseconds: lasted,
            },
        ) => Stand::Lasted {
            counts: counts
                .iter()
                .zip(last)
                .map(|(now, last)| now.saturating_sub(*last))
                .collect(),
            microseconds: microseconds.saturating_sub(*lasted),
        },
        (now, _) => now,
    }
}

fn number(instrument: &Instrument, point: &Point, (begun, now): (u64, u64)) -> NumberDataPoint {
    let (begun, value) = match &point.at {
        Stand::Counted(count) => (begun, whole(*count)),
        Stand::Level(Level::Count(count)) => (0, whole(*count)),
        Stand::Level(Level::Time(time)) => (0, Number::AsDouble(time.as_secs_f64())),
        Stand::Lasted { counts, .. } => (begun, whole(counts.iter().sum())),
    };
    NumberDataPoint {
        start_time_unix_nano: begun,
        time_unix_nano: now,
        value: Some(value),
        attributes: attributes(instrument, point),
        ..NumberDataPoint::default()
    }
}

fn whole(count: u64) -> Number {
    Number::AsInt(i64::try_from(count).unwrap_or(i64::MAX))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds are sums of microseconds and need no last digit"
)]
fn buckets(
    instrument: &Instrument,
    point: &Point,
    (begun, now): (u64, u64),
) -> Option<HistogramDataPoint> {
    let Stand::Lasted {
        counts,
        microseconds,
    } = &point.at
    else {
        return None;
    };
    let bounds = instrument.bounds().iter();
    Some(HistogramDataPoint {
        start_time_unix_nano: begun,
        time_unix_nano: now,
        count: counts.iter().sum(),
        sum: Some(*microseconds as f64 / 1e6),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.map(|bound| *bound as f64 / 1e3).collect(),
        attributes: attributes(instrument, point),
        ..HistogramDataPoint::default()
    })
}

fn attributes(instrument: &Instrument, point: &Point) -> Vec<KeyValue> {
    let pairs = instrument.attributes.iter().zip(&point.values);
    pairs
        .map(|(attribute, value)| otlp::attribute(attribute.name, otlp::text(&**value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Attribute, Levels, Metrics, Values};

    static COUNTED: Instrument = Instrument {
        name: "ferrypost.test.counted",
        unit: "{thing}",
        kind: Kind::Counter,
        description: "Things.",
        attributes: &[Attribute {
            name: "kind",
            values: Values::Words(&["a", "b"]),
        }],
    };
    static LASTED: Instrument = Instrument {
        name: "ferrypost.test.lasted",
        unit: "s",
        kind: Kind::Histogram(&[10, 1500]),
        description: "Times.",
        attributes: &[],
    };
    static OPEN: Instrument = Instrument {
        name: "ferrypost.test.open",
        unit: "{thing}",
        kind: Kind::Gauge,
        description: "Open things.",
        attributes: &[],
    };

    struct World {
        metrics: Metrics,
        readings: Readings,
    }

    impl World {
        fn new(deltas: bool) -> Self {
            Self {
                metrics: Metrics::new(&[&COUNTED, &LASTED, &OPEN]),
                readings: Readings::new(5, deltas),
            }
        }

        fn read(&mut self, now: u64) -> Vec<Metric> {
            let mut levels = Levels::default();
            levels.say(&OPEN, &[], 3_usize);
            self.readings.metrics(self.metrics.read(&levels), now)
        }

        fn counted(&mut self, more: u64, now: u64) -> NumberDataPoint {
            self.metrics.counter(&COUNTED, &["b"]).add(more);
            let data = self.read(now).remove(0).data;
            let Some(Data::Sum(sum)) = data else {
                panic!("{data:?}");
            };
            assert!(sum.is_monotonic);
            sum.data_points[0].clone()
        }
    }

    #[test]
    fn an_instrument_is_sent_with_its_name_unit_kind_and_attributes() {
        let mut world = World::new(false);
        assert_eq!(
            world.read(7).len(),
            1,
            "what nothing was counted in is left out"
        );
        let series = world.metrics.histogram(&LASTED, &[]);
        series.record(Duration::from_millis(7));
        series.record(Duration::from_secs(9));
        let point = world.counted(2, 9);
        assert_eq!(point.attributes, [otlp::attribute("kind", otlp::text("b"))]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 9));
        let metrics = world.read(9);
        assert_eq!(metrics[1].unit, "s");
        let Some(Data::Histogram(histogram)) = &metrics[1].data else {
            panic!("{:?}", metrics[1].data);
        };
        assert_eq!(
            histogram.aggregation_temporality(),
            AggregationTemporality::Cumulative
        );
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts, [1, 0, 1]);
        assert_eq!(point.explicit_bounds, [0.01, 1.5]);
        assert_eq!((point.count, point.sum), (2, Some(9.007)));
        let Some(Data::Gauge(gauge)) = &metrics[2].data else {
            panic!("{:?}", metrics[2].data);
        };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsInt(3)));
    }

    #[test]
    fn a_count_is_said_since_the_beginning_or_since_the_last_time() {
        let mut world = World::new(false);
        assert_eq!(world.counted(2, 7).value, Some(Number::AsInt(2)));
        let point = world.counted(1, 9);
        assert_eq!(
            (point.value, point.start_time_unix_nano),
            (Some(Number::AsInt(3)), 5)
        );
        let mut world = World::new(true);
        assert_eq!(world.counted(2, 7).value, Some(Number::AsInt(2)));
        let point = world.counted(1, 9);
        assert_eq!(
            (point.value, point.start_time_unix_nano),
            (Some(Number::AsInt(1)), 7)
        );
        let kept = world.readings.said.expect("what was said");
        assert!(kept.keys().all(|(name, _)| *name != OPEN.name), "{kept:?}");
    }
}
