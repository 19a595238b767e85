//! What the client, work queues and leader election measure, by upstream's names, labels and buckets.
//! Make one [`Metrics`] for a daemon, hand it to them, and [`register`](Metrics::register) it where metrics are served.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

type Labels<const N: usize> = [(&'static str, String); N];

/// Makes histograms with the same buckets.
#[derive(Clone, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

const REQUESTS: Buckets = Buckets(&[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0]);
/// Ten of them, from ten nanoseconds on.
const WORK: Buckets = Buckets(&[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]);

type Histograms<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

#[derive(Debug)]
struct Inner {
    depth: Family<Labels<1>, Gauge>,
    adds: Family<Labels<1>, Counter>,
    waited: Histograms<1>,
    worked: Histograms<1>,
    retries: Family<Labels<1>, Counter>,
    leads: Family<Labels<1>, Gauge>,
    requests: Family<Labels<3>, Counter>,
    request_retries: Family<Labels<3>, Counter>,
    took: Histograms<2>,
    limited: Histograms<2>,
    working: Working,
}

/// Since when keys of each queue are worked on.
#[derive(Clone, Debug, Default)]
struct Working(Arc<Mutex<HashMap<&'static str, HashMap<u64, Instant>>>>);

/// The metrics of a daemon's client, queues and elections. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Arc::new(Inner {
            depth: Family::default(),
            adds: Family::default(),
            waited: Family::new_with_constructor(WORK),
            worked: Family::new_with_constructor(WORK),
            retries: Family::default(),
            leads: Family::default(),
            requests: Family::default(),
            request_retries: Family::default(),
            took: Family::new_with_constructor(REQUESTS),
            limited: Family::new_with_constructor(REQUESTS),
            working: Working::default(),
        }))
    }
}

impl Metrics {
    /// Puts them where they are served.
    pub fn register(&self, registry: &mut Registry) {
        let m = &*self.0;
        registry.register("workqueue_depth", "Current depth of workqueue", m.depth.clone());
        registry.register("workqueue_adds", "Total number of adds handled by workqueue", m.adds.clone());
        let help = "How long in seconds an item stays in workqueue before being requested";
        registry.register("workqueue_queue_duration_seconds", help, m.waited.clone());
        let help = "How long in seconds processing an item from workqueue takes";
        registry.register("workqueue_work_duration_seconds", help, m.worked.clone());
        let help = "Total number of retries handled by workqueue";
        registry.register("workqueue_retries", help, m.retries.clone());
        registry.register_collector(Box::new(m.working.clone()));
        let help = "Whether this instance leads (1) or stands by (0), by the name of the lease";
        registry.register("leader_election_master_status", help, m.leads.clone());
        let help = "Number of HTTP requests, partitioned by status code, method, and host";
        registry.register("rest_client_requests", help, m.requests.clone());
        let help = "Number of request retries, partitioned by status code, verb, and host";
        registry.register("rest_client_request_retries", help, m.request_retries.clone());
        let help = "Request latency in seconds, by verb and host";
        registry.register("rest_client_request_duration_seconds", help, m.took.clone());
        let help = "Client side rate limiter latency in seconds, by verb and host";
        registry.register("rest_client_rate_limiter_duration_seconds", help, m.limited.clone());
    }

    /// Whether an instance leads by a lease.
    pub(crate) fn leads(&self, lease: &str, leads: bool) {
        self.0.leads.get_or_create(&[("name", lease.into())]).set(i64::from(leads));
    }

    /// A request was answered; `<error>` stands for the code where there was no answer.
    pub(crate) fn request(&self, host: &str, verb: &str, code: &str, took: Duration, again: bool) {
        let all = [("code", code.to_string()), ("method", verb.to_string()), ("host", host.to_string())];
        self.0.requests.get_or_create(&all).inc();
        if again {
            let all = [("code", code.to_string()), ("verb", verb.to_string()), ("host", host.to_string())];
            self.0.request_retries.get_or_create(&all).inc();
        }
        let labels = [("verb", verb.to_string()), ("host", host.to_string())];
        self.0.took.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A request waited for the client's own limits.
    pub(crate) fn limited(&self, host: &str, verb: &str, waited: Duration) {
        let labels = [("verb", verb.to_string()), ("host", host.to_string())];
        self.0.limited.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// The metrics of one queue.
    pub(crate) fn queue(&self, name: &'static str) -> QueueMetrics {
        let m = &self.0;
        let label = [("name", name.to_string())];
        m.working.0.lock().unwrap_or_else(|e| e.into_inner()).entry(name).or_default();
        QueueMetrics {
            name,
            depth: m.depth.get_or_create(&label).clone(),
            adds: m.adds.get_or_create(&label).clone(),
            waited: m.waited.get_or_create(&label).clone(),
            worked: m.worked.get_or_create(&label).clone(),
            retries: m.retries.get_or_create(&label).clone(),
            working: m.working.clone(),
        }
    }
}

/// The metrics of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueMetrics {
    name: &'static str,
    pub depth: Gauge,
    pub adds: Counter,
    pub waited: Histogram,
    pub worked: Histogram,
    pub retries: Counter,
    working: Working,
}

impl QueueMetrics {
    /// Work on a key begins or, without a time, ends.
    pub fn works(&self, number: u64, since: Option<Instant>) {
        let mut all = self.working.0.lock().unwrap_or_else(|e| e.into_inner());
        let queue = all.entry(self.name).or_default();
        match since {
            Some(at) => drop(queue.insert(number, at)),
            None => drop(queue.remove(&number)),
        }
    }
}

impl Working {
    /// Per queue: the seconds of all work under way, and of the longest.
    fn seconds(&self) -> Vec<(&'static str, f64, f64)> {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let of = |since: &HashMap<u64, Instant>| {
            let each = since.values().map(|at| at.elapsed().as_secs_f64());
            (each.clone().sum(), each.fold(0.0, f64::max))
        };
        all.iter().map(|(name, since)| (*name, of(since))).map(|(n, (sum, most))| (n, sum, most)).collect()
    }
}

impl Collector for Working {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let (sums, longest) = <(Gauges, Gauges)>::default();
        for (name, sum, most) in self.seconds() {
            let label = [("name", name.to_string())];
            sums.get_or_create(&label).set(sum);
            longest.get_or_create(&label).set(most);
        }
        let help = "How many seconds of work are in progress and not observed by work_duration. Large values indicate stuck threads";
        let one =
            encoder.encode_descriptor("workqueue_unfinished_work_seconds", help, None, MetricType::Gauge)?;
        put(&sums, one)?;
        let help = "How many seconds the longest running processor of workqueue has been running";
        let one = encoder.encode_descriptor(
            "workqueue_longest_running_processor_seconds",
            help,
            None,
            MetricType::Gauge,
        )?;
        put(&longest, one)
    }
}

type Gauges = Family<Labels<1>, Gauge<f64, AtomicU64>>;

fn put(gauges: &Gauges, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    gauges.encode(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkQueue;

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_measured_by_upstream_s_names() {
        let metrics = Metrics::default();
        let queue = WorkQueue::new().metered(&metrics, "job-controller");
        queue.add("a");
        queue.add("b");
        let a = queue.get().await.unwrap();
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.add_rate_limited("c");
        metrics.leads("kube-controller-manager", true);
        metrics.request("127.0.0.1:6443", "GET", "200", Duration::from_millis(30), true);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "workqueue_depth{name=\"job-controller\"} 1",
            "workqueue_adds_total{name=\"job-controller\"} 2",
            "workqueue_retries_total{name=\"job-controller\"} 1",
            "workqueue_unfinished_work_seconds{name=\"job-controller\"} 3.0",
            "workqueue_longest_running_processor_seconds{name=\"job-controller\"} 3.0",
            "workqueue_queue_duration_seconds_count{name=\"job-controller\"} 1",
            "leader_election_master_status{name=\"kube-controller-manager\"} 1",
            "rest_client_requests_total{code=\"200\",method=\"GET\",host=\"127.0.0.1:6443\"} 1",
            "rest_client_request_retries_total{code=\"200\",verb=\"GET\",host=\"127.0.0.1:6443\"} 1",
            "rest_client_request_duration_seconds_bucket{le=\"0.1\",verb=\"GET\",host=\"127.0.0.1:6443\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        queue.done(&a);
        assert_eq!(metrics.0.working.seconds(), [("job-controller", 0.0, 0.0)]);
    }
}
