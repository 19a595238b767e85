//! What `/metrics` says, under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How an attempt ended: `scheduled`, `unschedulable` or `error`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Attempt {
    pub result: &'static str,
    pub profile: String,
}

/// Where pods wait: `active`, `backoff` or `unschedulable`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Queue {
    pub queue: &'static str,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    pub attempts: Family<Attempt, Counter>,
    pub duration: Family<Attempt, Histogram>,
    pub pending: Family<Queue, Gauge>,
    pub preemptions: Counter,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("scheduler");
        let (attempts, pending, preemptions) =
            (Family::<Attempt, Counter>::default(), Family::<Queue, Gauge>::default(), Counter::default());
        let duration = Family::<Attempt, Histogram>::new_with_constructor(|| {
            Histogram::new((0..15).map(|n| 0.001 * f64::from(1 << n)))
        });
        registry.register("schedule_attempts", "Number of attempts to schedule pods", attempts.clone());
        registry.register(
            "scheduling_attempt_duration_seconds",
            "Scheduling attempt latency",
            duration.clone(),
        );
        registry.register("pending_pods", "Number of pending pods, by the queue type", pending.clone());
        registry.register("preemption_attempts", "Preemption attempts in the cluster", preemptions.clone());
        Metrics { registry, attempts, duration, pending, preemptions }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}
