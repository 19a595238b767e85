//! Metrics under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// By what requests are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Upper case, as upstream's: GET, LIST, WATCH, POST, PUT, PATCH, DELETE.
    pub verb: &'static str,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// `namespace`, `resource` or `cluster`.
    pub scope: &'static str,
    /// The HTTP status.
    pub code: u16,
}

/// By what durations are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// See [`RequestLabels::verb`].
    pub verb: &'static str,
    /// See [`RequestLabels::group`].
    pub group: String,
    /// See [`RequestLabels::version`].
    pub version: String,
    /// See [`RequestLabels::resource`].
    pub resource: String,
}

/// What the server counts.
pub struct Metrics {
    registry: Registry,
    /// `apiserver_request_total`.
    pub requests: Family<RequestLabels, Counter>,
    /// `apiserver_request_duration_seconds`.
    pub durations: Family<DurationLabels, Histogram>,
    /// `apiserver_longrunning_requests`, without its labels.
    pub watches: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and HTTP status",
            requests.clone(),
        );
        const BUCKETS: [f64; 15] =
            [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
        let durations = Family::<DurationLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register("apiserver_request_duration_seconds", "How long requests took", durations.clone());
        let watches = Gauge::default();
        registry.register("apiserver_longrunning_requests", "Watches under way", watches.clone());
        Metrics { registry, requests, durations, watches }
    }
}

impl Metrics {
    /// The text that Prometheus scrapes.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if encode(&mut out, &self.registry).is_err() {
            tracing::error!("metrics can't be written");
        }
        out
    }
}
