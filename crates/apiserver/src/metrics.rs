//! Metrics under upstream's names.

use crate::catalog::Catalog;
use crate::request::{RequestInfo, Verb};
use crate::verbs;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Instant;

/// By what requests are told apart. Words of the client's own never get in: each would be a series for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Upper case, as upstream's: GET, LIST, WATCH, POST, PUT, PATCH, APPLY, DELETE, DELETECOLLECTION, CONNECT.
    pub verb: &'static str,
    /// `All` for a dry run.
    pub dry_run: &'static str,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// `namespace`, `resource` or `cluster`.
    pub scope: &'static str,
    /// Always `apiserver`.
    pub component: &'static str,
    /// The HTTP status.
    pub code: u16,
}

/// By what durations are told apart, and requests that go on for long.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    /// See [`RequestLabels::verb`].
    pub verb: &'static str,
    /// See [`RequestLabels::dry_run`].
    pub dry_run: &'static str,
    /// See [`RequestLabels::group`].
    pub group: String,
    /// See [`RequestLabels::version`].
    pub version: String,
    /// See [`RequestLabels::resource`].
    pub resource: String,
    /// See [`RequestLabels::subresource`].
    pub subresource: String,
    /// See [`RequestLabels::scope`].
    pub scope: &'static str,
    /// See [`RequestLabels::component`].
    pub component: &'static str,
}

/// How one request is counted.
pub struct Counted(RequestLabels);

impl Counted {
    /// What is served is counted by its name, everything else as one.
    pub fn of(catalog: &Catalog, info: &RequestInfo, dry_run: bool, apply: bool) -> Self {
        let mut labels = RequestLabels { component: "apiserver", verb: "OTHER", ..RequestLabels::default() };
        let Some(resource) = catalog.find(&info.group, &info.version, &info.resource) else {
            return Counted(labels);
        };
        let names = &resource.names;
        labels.group = names.group.into();
        labels.version = names.version.into();
        labels.resource = names.plural.into();
        let known = resource.kind.subresources().into_iter().find(|s| s.name() == info.subresource);
        labels.subresource = known.map(|s| s.name().into()).unwrap_or_default();
        labels.dry_run = if dry_run { "All" } else { "" };
        labels.verb = match info.verb {
            _ if verbs::connect::is_connect(&labels.subresource) => "CONNECT",
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch if apply => "APPLY",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            _ => "OTHER",
        };
        labels.scope = match (info.namespace.is_empty(), info.name.is_empty()) {
            (_, false) => "resource",
            (false, true) => "namespace",
            (true, true) => "cluster",
        };
        Counted(labels)
    }

    fn durations(&self) -> DurationLabels {
        let RequestLabels { verb, dry_run, group, version, resource, subresource, scope, component, .. } =
            self.0.clone();
        DurationLabels { verb, dry_run, group, version, resource, subresource, scope, component }
    }

    /// The request is answered.
    pub fn count(self, metrics: &Metrics, code: u16, started: Instant) {
        if !matches!(self.0.verb, "WATCH" | "CONNECT") {
            let taken = started.elapsed().as_secs_f64();
            metrics.durations.get_or_create(&self.durations()).observe(taken);
        }
        metrics.requests.get_or_create(&RequestLabels { code, ..self.0 }).inc();
    }

    /// The request goes on until this is dropped.
    pub fn goes_on(&self, metrics: &Metrics) -> LongRunning {
        let gauge = metrics.long_running.get_or_create_owned(&self.durations());
        gauge.inc();
        LongRunning(gauge)
    }
}

/// A request that goes on for long, counted while it does.
pub struct LongRunning(Gauge);

impl Drop for LongRunning {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the server counts.
pub struct Metrics {
    registry: Registry,
    /// `apiserver_request_total`.
    pub requests: Family<RequestLabels, Counter>,
    /// `apiserver_request_duration_seconds`.
    pub durations: Family<DurationLabels, Histogram>,
    /// `apiserver_longrunning_requests`.
    pub long_running: Family<DurationLabels, Gauge>,
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
        // Upstream's, by which others' rules and dashboards ask.
        const BUCKETS: [f64; 23] = [
            0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
            15.0, 20.0, 30.0, 45.0, 60.0,
        ];
        let durations = Family::<DurationLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register("apiserver_request_duration_seconds", "How long requests took", durations.clone());
        let long_running = Family::<DurationLabels, Gauge>::default();
        let help = "Watches, logs and connections under way";
        registry.register("apiserver_longrunning_requests", help, long_running.clone());
        Metrics { registry, requests, durations, long_running }
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
