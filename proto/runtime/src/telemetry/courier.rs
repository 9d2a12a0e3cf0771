//! What takes one signal to its collector, for as long as the process lives.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::{
    clock,
    collector::{Collector, Undelivered},
    otlp::{Data, KeyValue, Metric, MetricsRequest, Request, Resource, Scope},
    queue::Queue,
    readings::Readings,
};
use crate::{admin::Source, metrics::Counter};

/// How often it is said that nothing is delivered.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);

/// Who sends, and what there is to say of it.
pub(super) struct Sender {
    pub(super) signal: &'static str,
    pub(super) collector: Collector,
    pub(super) resource: Vec<KeyValue>,
    /// For one batch.
    pub(super) limit: Duration,
    pub(super) undelivered: Counter,
    pub(super) ending: CancellationToken,
}

/// A signal's. There is one, and so one batch at a time is on its way.
pub(super) struct Courier<R> {
    sender: Sender,
    complained: Option<Instant>,
    of: PhantomData<fn(R)>,
}

impl<R: Request> Courier<R> {
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            sender,
            complained: None,
            of: PhantomData,
        }
    }

    /// Empties a queue whenever there is something in it; at the end, until it is empty.
    pub(super) async fn empty(mut self, queue: Arc<Queue<R::Item>>, ending: CancellationToken) {
        loop {
            _ = ending.run_until_cancelled(queue.filled()).await;
            loop {
                let batch = queue.take();
                let is_all = batch.len() < queue.batch().size;
                let count = batch.len() as u64;
                if count > 0 {
                    self.deliver(batch, count).await;
                }
                if is_all {
                    break;
                }
            }
            if ending.is_cancelled() {
                return;
            }
        }
    }

    async fn deliver(&mut self, items: Vec<R::Item>, count: u64) {
        let scope = Scope {
            name: "ferrypost".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let resource = Resource {
            attributes: self.sender.resource.clone(),
        };
        let request = R::of(resource, scope, items);
        let sender = &mut self.sender;
        let delivering = sender
            .collector
            .deliver(request, sender.limit, &sender.ending);
        match delivering.await {
            Ok(rejected) => {
                self.sender.undelivered.add(rejected.min(count));
                if self.complained.take().is_some() {
                    tracing::info!(signal = self.sender.signal, "telemetry is delivered again");
                }
            }
            Err(error) => {
                self.sender.undelivered.add(count);
                self.complain(&error);
            }
        }
    }

    fn complain(&mut self, error: &Undelivered) {
        if self
            .complained
            .is_some_and(|last| last.elapsed() < COMPLAINT_PAUSE)
        {
            return;
        }
        self.complained = Some(Instant::now());
        tracing::warn!(signal = self.sender.signal, %error, lost = self.sender.undelivered.value(),
            "telemetry is not delivered and is dropped; nobody who is served notices");
    }
}

impl Courier<MetricsRequest> {
    /// Reads all instruments again and again, and a last time at the end.
    pub(super) async fn report(
        mut self,
        source: Arc<dyn Source>,
        mut readings: Readings,
        interval: Duration,
        ending: CancellationToken,
    ) {
        let mut times = interval_at(Instant::now() + interval, interval);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            _ = ending.run_until_cancelled(times.tick()).await;
            let metrics = readings.metrics(source.metrics(), clock::now());
            let count = metrics.iter().map(points).sum();
            self.deliver(metrics, count).await;
            if ending.is_cancelled() {
                return;
            }
        }
    }
}

fn points(metric: &Metric) -> u64 {
    let points = match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        None => 0,
    };
    points as u64
}
