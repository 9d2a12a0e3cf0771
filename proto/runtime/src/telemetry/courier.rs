//! What takes one signal to its collector, for as long as the process lives.

use std::{marker::PhantomData, mem, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::{
    clock,
    collector::{Collector, Undelivered},
    otlp::{Data, InstrumentationScope, KeyValue, Metric, MetricsRequest, Request, Resource},
    queue::Queue,
    readings::Readings,
};
use crate::{admin::Source, metrics::Counter};

/// At most so often it is said that something was lost.
const COMPLAINT_PAUSE: Duration = Duration::from_mins(1);

/// Who sends, and what there is to say of it.
pub(super) struct Sender {
    pub(super) signal: &'static str,
    pub(super) collector: Collector,
    pub(super) resource: Vec<KeyValue>,
    /// For one batch.
    pub(super) limit: Duration,
    pub(super) undelivered: Counter,
    /// What its queue had no room for.
    pub(super) crowded_out: Counter,
    pub(super) ending: CancellationToken,
}

/// A signal's. There is one, and so one batch at a time is on its way.
pub(super) struct Courier<R> {
    sender: Sender,
    /// Why the last batch was not taken, where it was not.
    failing: Option<Undelivered>,
    /// Whether that has been told.
    is_failing_told: bool,
    complained: Option<Instant>,
    /// How much was lost when it was told last.
    told: u64,
    of: PhantomData<fn(R)>,
}

impl<R: Request> Courier<R> {
    pub(super) fn new(sender: Sender) -> Self {
        Self {
            sender,
            failing: None,
            is_failing_told: false,
            complained: None,
            told: 0,
            of: PhantomData,
        }
    }

    /// Empties a queue whenever there is something in it; at the end, until it is empty.
    pub(super) async fn empty(mut self, queue: Arc<Queue<R::Item>>, ending: CancellationToken) {
        loop {
            _ = ending.run_until_cancelled(queue.filled()).await;
            // The end may come during a delivery, and behind it what the end itself has to say.
            let last = ending.is_cancelled();
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
            self.tell_losses();
            if last {
                return;
            }
        }
    }

    async fn deliver(&mut self, items: Vec<R::Item>, count: u64) {
        let scope = InstrumentationScope {
            name: "ferrypost".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let resource = Resource {
            attributes: self.sender.resource.clone(),
            ..Resource::default()
        };
        let request = R::of(resource, scope, items);
        let sender = &mut self.sender;
        let delivering = sender
            .collector
            .deliver(request, sender.limit, &sender.ending);
        match delivering.await {
            Ok(rejected) => {
                self.sender.undelivered.add(rejected.min(count));
                self.failing = None;
                if mem::take(&mut self.is_failing_told) {
                    tracing::info!(signal = self.sender.signal, "telemetry is delivered again");
                }
            }
            Err(error) => {
                self.sender.undelivered.add(count);
                self.failing = Some(error);
            }
        }
        self.tell_losses();
    }

    /// Says in the log that more was lost than was said, unless something was said just now.
    fn tell_losses(&mut self) {
        let sender = &self.sender;
        let lost = sender.undelivered.value() + sender.crowded_out.value();
        let just_now = |last: Instant| last.elapsed() < COMPLAINT_PAUSE;
        if lost <= self.told || self.complained.is_some_and(just_now) {
            return;
        }
        self.told = lost;
        self.complained = Some(Instant::now());
        self.is_failing_told = self.failing.is_some();
        let signal = sender.signal;
        if let Some(error) = &self.failing {
            tracing::warn!(signal, %error, lost,
                "telemetry is not delivered and is dropped; nobody who is served notices");
        } else {
            tracing::warn!(
                signal,
                lost,
                "telemetry is dropped, as there is more than the queue holds or the collector takes; nobody who is \
                 served notices"
            );
        }
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
            // What is read during a delivery at the end is not the last of it.
            let last = ending.is_cancelled();
            let metrics = readings.metrics(source.metrics(), clock::now());
            let count = metrics.iter().map(points).sum();
            self.deliver(metrics, count).await;
            if last {
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
        // Of which nothing is made.
        Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => 0,
    };
    points as u64
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::SocketAddr};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::{BodyExt as _, Full};
    use hyper::{body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::{
        net::TcpListener,
        sync::{mpsc, oneshot},
        time::timeout,
    };

    use super::*;
    use crate::{
        Random,
        metrics::{Instrument, Kind, Metrics, Reading},
        telemetry::{
            environment::{Batch, Target},
            otlp::{self, AnyValue, LogRecord, LogsRequest},
        },
    };

    const SOON: Duration = Duration::from_mins(1);

    /// Batches that nobody has looked at yet.
    const WAITING: usize = 64;

    /// A batch as it came, and what lets it be answered.
    type Came = (String, oneshot::Sender<()>);

    /// A collector that answers each batch when a test says so.
    struct Fake {
        address: SocketAddr,
        batches: mpsc::Receiver<Came>,
    }

    impl Fake {
        #[expect(
            clippy::disallowed_methods,
            reason = "a collector stands outside what a simulation looks at"
        )]
        async fn start() -> Self {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let (sender, batches) = mpsc::channel(WAITING);
            tokio::spawn(async move {
                let (connection, _) = socket.accept().await.unwrap();
                let answering = service_fn(move |request| take(request, sender.clone()));
                let server = http2::Builder::new(TokioExecutor::new());
                let serving = server.serve_connection(TokioIo::new(connection), answering);
                // It ends with the client.
                _ = serving.await;
            });
            Self { address, batches }
        }

        async fn next(&mut self) -> Came {
            let next = timeout(SOON, self.batches.recv()).await;
            next.expect("a batch in time").expect("a batch")
        }

        fn sender(&self, ending: &CancellationToken) -> Sender {
            let target = Target {
                endpoint: format!("http://{}", self.address).parse().unwrap(),
                headers: Vec::new(),
                timeout: SOON,
                gzip: false,
                authorities: None,
                identity: None,
            };
            Sender {
                signal: "logs",
                collector: Collector::new(&target, Random::seeded(1)).unwrap(),
                resource: Vec::new(),
                limit: SOON,
                undelivered: Counter::default(),
                crowded_out: Counter::default(),
                ending: ending.clone(),
            }
        }
    }

    async fn take(
        request: http::Request<Incoming>,
        batches: mpsc::Sender<Came>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible>
    {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let (answer, told) = oneshot::channel();
        batches
            .send((String::from_utf8_lossy(&body).into_owned(), answer))
            .await
            .unwrap();
        told.await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        // A message without anything in it.
        let body = Full::new(Bytes::from_static(&[0; 5]));
        let body = body.with_trailers(async move { Some(Ok(trailers)) });
        let response = Response::builder().header("content-type", "application/grpc");
        Ok(response.body(Box::pin(body)).unwrap())
    }

    fn queue() -> Arc<Queue<LogRecord>> {
        let batch = Batch {
            delay: Duration::from_millis(1),
            timeout: SOON,
            queue: 10,
            size: 10,
        };
        Arc::new(Queue::new(batch, Counter::default()))
    }

    fn line(text: &str) -> LogRecord {
        LogRecord {
            body: Some(AnyValue {
                value: Some(otlp::text(text)),
            }),
            ..LogRecord::default()
        }
    }

    #[tokio::test]
    async fn what_comes_during_the_last_delivery_is_sent_too() {
        let (mut fake, ending, queue) = (Fake::start().await, CancellationToken::new(), queue());
        let courier = Courier::<LogsRequest>::new(fake.sender(&ending));
        queue.put(line("one"));
        let sending = tokio::spawn(courier.empty(Arc::clone(&queue), ending.clone()));
        let (first, answer) = fake.next().await;
        assert!(first.contains("one"), "{first:?}");
        queue.put(line("two"));
        ending.cancel();
        answer.send(()).unwrap();
        let (last, answer) = fake.next().await;
        assert!(last.contains("two"), "{last:?}");
        answer.send(()).unwrap();
        timeout(SOON, sending)
            .await
            .expect("it ends")
            .expect("in order");
    }

    static COUNTED: Instrument = Instrument {
        name: "ferrypost.test.counted",
        unit: "{thing}",
        kind: Kind::Counter,
        description: "Things.",
        attributes: &[],
    };

    struct Facts(Metrics);

    impl Source for Facts {
        fn ready(&self) -> bool {
            true
        }

        fn stats(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn metrics(&self) -> Vec<Reading> {
            self.0.counter(&COUNTED, &[]).add(1);
            self.0.read(&crate::metrics::Levels::default())
        }
    }

    #[tokio::test]
    async fn instruments_are_read_once_more_when_the_end_comes_during_a_delivery() {
        let (mut fake, ending) = (Fake::start().await, CancellationToken::new());
        let courier = Courier::<MetricsRequest>::new(fake.sender(&ending));
        let facts = Arc::new(Facts(Metrics::new(&[&COUNTED])));
        let (readings, soon) = (Readings::new(1, false), Duration::from_millis(1));
        let sending = tokio::spawn(courier.report(facts, readings, soon, ending.clone()));
        let (_, answer) = fake.next().await;
        ending.cancel();
        answer.send(()).unwrap();
        let (last, answer) = fake.next().await;
        assert!(last.contains(COUNTED.name), "{last:?}");
        answer.send(()).unwrap();
        timeout(SOON, sending)
            .await
            .expect("it ends")
            .expect("in order");
    }

    #[tokio::test(start_paused = true)]
    async fn losses_are_told_once_a_minute_at_most_also_while_a_collector_comes_and_goes() {
        let fake = Fake {
            address: ([127, 0, 0, 1], 9).into(),
            batches: mpsc::channel(1).1,
        };
        let sender = fake.sender(&CancellationToken::new());
        let (undelivered, crowded_out) = (sender.undelivered.clone(), sender.crowded_out.clone());
        let mut courier = Courier::<LogsRequest>::new(sender);
        let mut told_of = |failing: Option<Undelivered>| {
            courier.failing = failing;
            courier.tell_losses();
            courier.told
        };
        assert_eq!(told_of(Some(Undelivered::Late)), 0, "nothing is lost yet");
        undelivered.add(1);
        assert_eq!(told_of(Some(Undelivered::Late)), 1);
        undelivered.add(1);
        assert_eq!(told_of(None), 1);
        assert_eq!(told_of(Some(Undelivered::Late)), 1);
        crowded_out.add(1);
        tokio::time::advance(COMPLAINT_PAUSE).await;
        assert_eq!(told_of(None), 3, "what had no room counts as well");
    }
}
