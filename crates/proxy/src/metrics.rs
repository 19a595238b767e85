//! What `/metrics` says, under upstream's names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

type Float = Gauge<f64, AtomicU64>;

/// A family of addresses, and the table where it matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    pub ip_family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabels {
    pub ip_family: &'static str,
    pub table: &'static str,
}

/// All metrics.
pub struct Metrics {
    pub registry: Registry,
    pub latency: Family<Labels, Histogram>,
    pub last_sync: Family<Labels, Float>,
    pub last_queued: Family<Labels, Float>,
    pub failures: Family<Labels, Counter>,
    pub rules_last: Family<TableLabels, Gauge>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kubeproxy");
        let latency = Family::<Labels, Histogram>::new_with_constructor(|| {
            Histogram::new((0..15).map(|n| 0.001 * f64::from(1 << n)))
        });
        let (last_sync, last_queued) =
            (Family::<Labels, Float>::default(), Family::<Labels, Float>::default());
        let failures = Family::<Labels, Counter>::default();
        let rules_last = Family::<TableLabels, Gauge>::default();
        registry.register(
            "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            latency.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            last_sync.clone(),
        );
        registry.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            last_queued.clone(),
        );
        registry.register(
            "sync_proxy_rules_iptables_restore_failures",
            "Cumulative proxy iptables restore failures",
            failures.clone(),
        );
        registry.register(
            "sync_proxy_rules_iptables_last",
            "Number of iptables rules written by kube-proxy in last sync",
            rules_last.clone(),
        );
        Metrics { registry, latency, last_sync, last_queued, failures, rules_last }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}
