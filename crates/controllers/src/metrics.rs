//! What can be measured of the daemon, in Prometheus' text form.

use client::Metrics;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

/// The text of `/metrics`: the process as the standard library of Prometheus clients names it, and what the client,
/// its queues and the election measure.
pub fn text(metrics: &Metrics) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    for (name, help, value) in process() {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        text.clear();
    }
    text
}

fn process() -> Vec<(&'static str, &'static str, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|f| f.parse().unwrap_or_default())
        .collect();
    // Counted from the third field of the file; ticks are hundredths of a second, pages 4 KiB.
    let field = |n: usize| fields.get(n - 3).copied().unwrap_or_default();
    vec![
        (
            "process_cpu_seconds",
            "Total user and system CPU time spent in seconds",
            (field(14) + field(15)) / 100.0,
        ),
        ("process_resident_memory_bytes", "Resident memory size in bytes", field(24) * 4096.0),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes", field(23)),
    ]
}
