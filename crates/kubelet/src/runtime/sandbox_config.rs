//! From a pod to the sandbox the runtime is asked for.

use super::{dns, hosts, labels, resources, security};
use crate::context::Context;
use crate::pod::PodExt;
use crate::quantity::{self, Amount};
use cri::types::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata,
    PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;

/// Where the logs of a pod's containers are.
pub fn log_directory(cx: &Context, pod: &Pod) -> std::path::PathBuf {
    cx.config.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
}

/// The sandbox of a pod, and what could not be done as asked.
pub fn build(
    cx: &Context,
    pod: &Pod,
    attempt: u32,
    node_dns: &DnsConfig,
) -> (PodSandboxConfig, Vec<dns::Note>) {
    let (dns_config, notes) = dns::for_pod(pod, &cx.config, node_dns);
    let (hostname, _) = hosts::names(pod, &cx.config.node_name, &cx.config.cluster_domain);
    let spec = pod.spec();
    let mut sysctls = HashMap::new();
    for s in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        sysctls.insert(s.name.replace('/', "."), s.value.clone());
    }
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: cx.cgroups.pod_parent(pod.qos(), pod.uid()),
        security_context: Some(security::sandbox(pod, &cx.config)),
        sysctls,
        overhead: Some(overhead(pod)),
        resources: Some(sum(cx, pod)),
    };
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().into(),
            uid: pod.uid().into(),
            namespace: pod.namespace().into(),
            attempt,
        }),
        // a pod in the node's network has the node's name already
        hostname: if pod.host_network() && spec.hostname_override.is_none() {
            String::new()
        } else {
            hostname
        },
        log_directory: log_directory(cx, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns_config),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: pod.annotations().iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        linux: Some(linux),
        windows: None,
    };
    (config, notes)
}

fn overhead(pod: &Pod) -> LinuxContainerResources {
    let list = pod.spec().overhead.as_ref();
    let cpu = quantity::of(list, "cpu").milli();
    LinuxContainerResources {
        cpu_shares: if cpu == 0 { 0 } else { resources::shares(cpu) },
        memory_limit_in_bytes: quantity::of(list, "memory").bytes(),
        ..Default::default()
    }
}

/// What the pod's containers take together, for runtimes that size a virtual machine by it.
fn sum(cx: &Context, pod: &Pod) -> LinuxContainerResources {
    let l = resources::of_pod(pod, &cx.config);
    LinuxContainerResources {
        cpu_shares: l.shares,
        cpu_quota: l.quota.map_or(0, |q| q.0),
        cpu_period: l.quota.map_or(0, |q| q.1),
        memory_limit_in_bytes: l.memory.unwrap_or_else(|| Amount::default().bytes()),
        ..Default::default()
    }
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let ports = pod.containers().flat_map(|(_, c)| c.ports.iter().flatten());
    ports
        .filter(|p| !pod.host_network() && p.host_port.unwrap_or(0) > 0)
        .map(|p| PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => Protocol::Udp.into(),
                Some("SCTP") => Protocol::Sctp.into(),
                _ => Protocol::Tcp.into(),
            },
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or(0),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}
