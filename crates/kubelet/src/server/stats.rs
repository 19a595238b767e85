//! `/stats/summary`: what the node, its pods and their containers use.

use super::Server;
use super::routes::json;
use crate::cgroups::Usage;
use crate::pod::PodExt;
use crate::runtime::labels::names;
use crate::streaming::Body;
use http::Response;
use serde_json::{Value, json as value};
use std::path::Path;

fn cpu(nanos: Option<u64>, rate: Option<u64>, time: &str) -> Value {
    let mut v = value!({"time": time});
    if let Some(n) = nanos {
        v["usageCoreNanoSeconds"] = n.into();
    }
    v["usageNanoCores"] = rate.unwrap_or(0).into();
    v
}

fn memory(u: &Usage, available: Option<u64>, time: &str) -> Value {
    let mut v = value!({"time": time});
    let fields = [
        ("availableBytes", available),
        ("usageBytes", u.memory_usage),
        ("workingSetBytes", u.working_set),
        ("rssBytes", u.rss),
        ("pageFaults", u.page_faults),
        ("majorPageFaults", u.major_faults),
    ];
    for (name, n) in fields {
        if let Some(n) = n {
            v[name] = n.into();
        }
    }
    v
}

fn disk(path: &Path, time: &str) -> Value {
    let u = sys::mount::usage(path).unwrap_or_default();
    value!({"time": time, "availableBytes": u.available, "capacityBytes": u.capacity, "usedBytes": u.used,
            "inodesFree": u.inodes_free, "inodes": u.inodes, "inodesUsed": u.inodes.saturating_sub(u.inodes_free)})
}

/// A container's use as the runtime tells it.
pub(super) struct ContainerUse {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    pub name: String,
    pub cpu_nanos: Option<u64>,
    pub cpu_rate: Option<u64>,
    pub working_set: Option<u64>,
    pub memory: Usage,
    pub rootfs: Option<u64>,
    pub rootfs_inodes: Option<u64>,
    pub started: i64,
}

/// All running containers' use.
pub(super) async fn containers(server: &Server) -> Vec<ContainerUse> {
    let list = server.cx.runtime.list_container_stats(None).await.unwrap_or_default();
    let started: std::collections::HashMap<String, i64> = server
        .pods
        .list()
        .into_iter()
        .flat_map(|(_, s)| s.containers)
        .map(|c| (c.id, c.started_at))
        .collect();
    list.into_iter()
        .filter_map(|s| {
            let a = s.attributes?;
            let label = |n: &str| a.labels.get(n).cloned().unwrap_or_default();
            let m = s.memory.unwrap_or_default();
            let number = |v: Option<cri::types::UInt64Value>| v.map(|v| v.value).filter(|v| *v > 0);
            let working_set = number(m.working_set_bytes);
            let memory = Usage {
                cpu_nanos: None,
                memory_usage: number(m.usage_bytes),
                working_set,
                rss: number(m.rss_bytes),
                page_faults: number(m.page_faults),
                major_faults: number(m.major_page_faults),
            };
            let c = s.cpu.unwrap_or_default();
            let layer = s.writable_layer.unwrap_or_default();
            Some(ContainerUse {
                uid: label(names::POD_UID),
                namespace: label(names::POD_NAMESPACE),
                pod: label(names::POD_NAME),
                name: label(names::CONTAINER_NAME),
                cpu_nanos: c.usage_core_nano_seconds.map(|v| v.value),
                cpu_rate: c.usage_nano_cores.map(|v| v.value),
                working_set,
                memory,
                rootfs: layer.used_bytes.map(|v| v.value),
                rootfs_inodes: layer.inodes_used.map(|v| v.value),
                started: started.get(&a.id).copied().unwrap_or_default(),
            })
        })
        .collect()
}

fn stamp(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanos.into())
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// The summary.
pub(super) async fn summary(server: &Server) -> Response<Body> {
    let cx = &server.cx;
    let now = jiff::Timestamp::now();
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let uses = containers(server).await;
    let mut pods = Vec::new();
    for (pod, seen) in server.pods.list() {
        if !seen.any_running() {
            continue;
        }
        let own: Vec<&ContainerUse> = uses.iter().filter(|u| u.uid == pod.uid()).collect();
        let mut total = cx.cgroups.pod_usage(pod.qos(), pod.uid());
        if total.cpu_nanos.is_none() {
            total.cpu_nanos = Some(own.iter().filter_map(|u| u.cpu_nanos).sum());
            total.working_set = Some(own.iter().filter_map(|u| u.working_set).sum());
        }
        let rate = server.rates.rate(pod.uid(), total.cpu_nanos);
        let list: Vec<Value> = own
            .iter()
            .map(|u| {
                let rate =
                    u.cpu_rate.or_else(|| server.rates.rate(&format!("{}/{}", u.uid, u.name), u.cpu_nanos));
                value!({
                    "name": u.name, "startTime": stamp(u.started),
                    "cpu": cpu(u.cpu_nanos, rate, &time), "memory": memory(&u.memory, None, &time),
                    "rootfs": {"time": time, "usedBytes": u.rootfs, "inodesUsed": u.rootfs_inodes},
                })
            })
            .collect();
        let started = cx
            .status
            .get(pod.uid())
            .and_then(|s| s.start_time)
            .map(|t| t.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        pods.push(value!({
            "podRef": {"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()},
            "startTime": started, "containers": list,
            "cpu": cpu(total.cpu_nanos, rate, &time), "memory": memory(&total, None, &time),
        }));
    }
    let node = cx.cgroups.node_usage();
    let available = Some(cx.memory_capacity.saturating_sub(node.working_set.unwrap_or(0)));
    let rate = server.rates.rate("", node.cpu_nanos);
    let (root, at) = (cx.config.root_dir.clone(), time.clone());
    let fs = crate::blocking::quick(move || disk(&root, &at)).await.unwrap_or_default();
    json(&value!({
        "node": {
            "nodeName": cx.config.node_name, "startTime": stamp(server.started),
            "cpu": cpu(node.cpu_nanos, rate, &time), "memory": memory(&node, available, &time),
            "fs": fs, "runtime": {"imageFs": fs},
        },
        "pods": pods,
    }))
}
