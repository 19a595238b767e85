//! `/metrics` and its kin, in the text format that Prometheus reads, by upstream's names.

use super::Server;
use super::stats::{ContainerUse, containers};
use crate::pod::PodExt;
use crate::runtime::observed::State;
use crate::streaming::{Body, text};
use http::{HeaderValue, Response, StatusCode};
use std::collections::BTreeMap;
use std::fmt::Write;

fn answer(body: String) -> Response<Body> {
    let mut r = text(StatusCode::OK, body);
    r.headers_mut()
        .insert("content-type", HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    r
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn labels(u: &ContainerUse) -> String {
    format!("container={:?},namespace={:?},pod={:?}", u.name, u.namespace, u.pod)
}

/// Processor and memory of node, pods and containers: what the metrics server reads.
pub(super) async fn resource(server: &Server) -> Response<Body> {
    let uses = containers(server).await;
    let now = jiff::Timestamp::now().as_millisecond();
    let mut out = String::new();
    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    for u in &uses {
        if let Some(n) = u.cpu_nanos {
            let _ = writeln!(out, "container_cpu_usage_seconds_total{{{}}} {} {now}", labels(u), seconds(n));
        }
    }
    head(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
    );
    for u in &uses {
        if let Some(n) = u.working_set {
            let _ = writeln!(out, "container_memory_working_set_bytes{{{}}} {n} {now}", labels(u));
        }
    }
    head(
        &mut out,
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    for u in &uses {
        let _ = writeln!(out, "container_start_time_seconds{{{}}} {}", labels(u), u.started as f64 / 1e9);
    }
    let node = server.cx.cgroups.node_usage();
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {} {now}", seconds(node.cpu_nanos.unwrap_or(0)));
    head(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    let _ = writeln!(out, "node_memory_working_set_bytes {} {now}", node.working_set.unwrap_or(0));
    let pods: Vec<_> = server
        .pods
        .list()
        .into_iter()
        .filter(|(_, s)| s.any_running())
        .map(|(p, _)| (server.cx.cgroups.pod_usage(p.qos(), p.uid()), p))
        .collect();
    head(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    for (u, p) in &pods {
        let _ = writeln!(
            out,
            "pod_cpu_usage_seconds_total{{namespace={:?},pod={:?}}} {} {now}",
            p.namespace(),
            p.name(),
            seconds(u.cpu_nanos.unwrap_or(0))
        );
    }
    head(
        &mut out,
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
    );
    for (u, p) in &pods {
        let _ = writeln!(
            out,
            "pod_memory_working_set_bytes{{namespace={:?},pod={:?}}} {} {now}",
            p.namespace(),
            p.name(),
            u.working_set.unwrap_or(0)
        );
    }
    head(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    out.push_str("resource_scrape_error 0\n");
    answer(out)
}

/// The same under the names that cAdvisor gave them.
pub(super) async fn containers_by_cadvisor(server: &Server) -> String {
    let mut out = String::new();
    let uses = containers(server).await;
    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
    );
    for u in &uses {
        let _ = writeln!(
            out,
            "container_cpu_usage_seconds_total{{cpu=\"total\",{}}} {}",
            labels(u),
            seconds(u.cpu_nanos.unwrap_or(0))
        );
    }
    for (name, help, get) in [
        (
            "container_memory_working_set_bytes",
            "Current working set in bytes.",
            (|u: &ContainerUse| u.working_set) as fn(&ContainerUse) -> Option<u64>,
        ),
        (
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |u| u.memory.memory_usage,
        ),
        ("container_memory_rss", "Size of RSS in bytes.", |u| u.memory.rss),
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            |u| u.rootfs,
        ),
    ] {
        head(&mut out, name, "gauge", help);
        for u in &uses {
            if let Some(n) = get(u) {
                let _ = writeln!(out, "{name}{{{}}} {n}", labels(u));
            }
        }
    }
    head(&mut out, "machine_cpu_cores", "gauge", "Number of logical CPU cores.");
    let _ = writeln!(out, "machine_cpu_cores {}", sys::node::processors());
    head(&mut out, "machine_memory_bytes", "gauge", "Amount of memory installed on the machine.");
    let _ = writeln!(out, "machine_memory_bytes {}", server.cx.memory_capacity);
    out
}

/// `/metrics/cadvisor`.
pub(super) async fn containers_answer(server: &Server) -> Response<Body> {
    answer(containers_by_cadvisor(server).await)
}

/// The kubelet's own.
pub(super) async fn own(server: &Server) -> Response<Body> {
    let pods = server.pods.list();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for c in pods.iter().flat_map(|(_, s)| &s.containers) {
        let name = match c.state {
            State::Created => "created",
            State::Running => "running",
            State::Exited => "exited",
            State::Unknown => "unknown",
        };
        *states.entry(name).or_default() += 1;
    }
    let mut out = String::new();
    head(&mut out, "kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    let _ = writeln!(out, "kubelet_node_name{{node={:?}}} 1", server.cx.config.node_name);
    head(&mut out, "kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    let running = pods.iter().filter(|(_, s)| s.sandboxes.iter().any(|s| s.ready)).count();
    let _ = writeln!(out, "kubelet_running_pods {running}");
    head(
        &mut out,
        "kubelet_desired_pods",
        "gauge",
        "[ALPHA] The number of pods the kubelet is being instructed to run.",
    );
    let _ = writeln!(out, "kubelet_desired_pods {}", pods.len());
    head(&mut out, "kubelet_running_containers", "gauge", "[BETA] Number of currently running containers");
    for (state, n) in states {
        let _ = writeln!(out, "kubelet_running_containers{{container_state={state:?}}} {n}");
    }
    head(
        &mut out,
        "process_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the process since unix epoch in seconds.",
    );
    let _ = writeln!(out, "process_start_time_seconds {}", server.started as f64 / 1e9);
    let status = crate::blocking::quick(move || std::fs::read_to_string("/proc/self/status")).await;
    if let Ok(Ok(status)) = status {
        let kb = |key: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(key)?.trim().trim_end_matches(" kB").parse::<u64>().ok())
        };
        if let Some(rss) = kb("VmRSS:") {
            head(&mut out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
            let _ = writeln!(out, "process_resident_memory_bytes {}", rss * 1024);
        }
    }
    head(
        &mut out,
        "kubernetes_build_info",
        "gauge",
        "[BETA] A metric with a constant '1' value labeled by major, minor and version.",
    );
    let version = crate::node::facts::VERSION;
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let _ = writeln!(
        out,
        "kubernetes_build_info{{git_version=\"{version}\",major=\"{major}\",minor=\"{minor}\"}} 1"
    );
    answer(out)
}
