//! Whether a pod that was bound to this node can run here. One that cannot fails at once, so that whoever made it
//! can make another: the scheduler may not have known, or was not asked.

use crate::config::Config;
use crate::pod::{self, PodExt};
use crate::quantity::{self, Amount, Resources};
use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sysctls a pod may set without the operator's leave: they stay within it.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Why a pod cannot run here: the reason and message it fails with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For machines.
    pub reason: String,
    /// For people.
    pub message: String,
}

fn no(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason: reason.into(), message: message.into() })
}

/// Checks a new pod against the node and the pods that are here already.
pub fn admit(
    config: &Config,
    pod: &Pod,
    others: &[Arc<Pod>],
    allocatable: &Resources,
    labels: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    fits(config, pod, others, allocatable, labels)
        .map_err(|r| Rejection { message: format!("Pod was rejected: {}", r.message), ..r })
}

/// Whether a pod, new or not, fits beside the others.
pub fn fits(
    config: &Config,
    pod: &Pod,
    others: &[Arc<Pod>],
    allocatable: &Resources,
    labels: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    let others: Vec<&Arc<Pod>> = others.iter().filter(|p| !p.is_terminal() && p.uid() != pod.uid()).collect();
    sysctls(config, pod)?;
    let pods = quantity::of(Some(allocatable), "pods");
    if Amount::from_units(others.len() as u64 + 1) > pods {
        let used = others.len();
        return no(
            "OutOfpods",
            format!(
                "Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {}",
                pods.bytes()
            ),
        );
    }
    for (name, reason) in
        [("cpu", "OutOfcpu"), ("memory", "OutOfmemory"), ("ephemeral-storage", "OutOfephemeral-storage")]
    {
        let wanted = pod::requests(pod.spec(), name);
        if wanted.is_zero() {
            continue;
        }
        let used = others.iter().fold(Amount::default(), |sum, p| sum.plus(pod::requests(p.spec(), name)));
        let there = quantity::of(Some(allocatable), name);
        if used.plus(wanted) > there {
            let n = |a: Amount| if name == "cpu" { a.milli() } else { a.bytes() };
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                n(wanted),
                n(used),
                n(there)
            );
            return no(reason, message);
        }
    }
    let selector = pod.spec().node_selector.iter().flatten();
    if !selector.clone().all(|(k, v)| labels.get(k) == Some(v)) {
        return no(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        );
    }
    if host_ports(pod).any(|p| others.iter().any(|o| host_ports(o).any(|q| clash(p, q)))) {
        return no(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
    }
    Ok(())
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = &ContainerPort> {
    pod.containers().flat_map(|(_, c)| c.ports.iter().flatten()).filter(|p| p.host_port.unwrap_or(0) > 0)
}

/// Whether two containers want the same port of the node.
fn clash(a: &ContainerPort, b: &ContainerPort) -> bool {
    let protocol = |p: &ContainerPort| p.protocol.clone().unwrap_or_else(|| "TCP".into());
    let any = |p: &ContainerPort| matches!(p.host_ip.as_deref(), None | Some("" | "0.0.0.0" | "::"));
    a.host_port == b.host_port && protocol(a) == protocol(b) && (any(a) || any(b) || a.host_ip == b.host_ip)
}

fn sysctls(config: &Config, pod: &Pod) -> Result<(), Rejection> {
    let spec = pod.spec();
    for s in spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten()) {
        let name = s.name.replace('/', ".");
        let allowed = config.allowed_unsafe_sysctls.iter().any(|a| match a.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *a == name,
        });
        if !allowed && !SAFE_SYSCTLS.contains(&name.as_str()) {
            return no("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        let of_network = name.starts_with("net.");
        if of_network && spec.host_network == Some(true) || !of_network && spec.host_ipc == Some(true) {
            let what = if of_network { "host network" } else { "host ipc" };
            return no(
                "SysctlForbidden",
                format!("forbidden sysctl: {name:?} not allowed with {what} enabled"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    #[test]
    fn verdicts() -> Result<(), String> {
        let flags =
            <crate::Flags as clap::Parser>::parse_from(["kubelet", "--allowed-unsafe-sysctls=kernel.msg*"]);
        let config = Config::resolve(&flags, Default::default(), "".as_ref()).map_err(|e| e.to_string())?;
        let pod = |uid: &str, spec: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": uid}, "spec": spec}))
                .unwrap_or_else(|e| panic!("{e}"))
        };
        let cpu = |n: &str| json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": n}}}]});
        let port = |ip: &str| json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
        let sysctl =
            |n: &str| json!({"containers": [], "securityContext": {"sysctls": [{"name": n, "value": "1"}]}});
        let allocatable = Resources::from([
            ("cpu".to_owned(), Quantity("2".into())),
            ("pods".to_owned(), Quantity("3".into())),
        ]);
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let here = [Arc::new(pod("1", cpu("1500m"))), Arc::new(pod("2", port("1.1.1.1")))];
        for (spec, want) in [
            (cpu("500m"), ""),
            (cpu("501m"), "OutOfcpu"),
            (json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), ""),
            (json!({"containers": [], "nodeSelector": {"disk": "tape"}}), "NodeAffinity"),
            (port("1.1.1.1"), "NodePorts"),
            (port("0.0.0.0"), "NodePorts"),
            (port("2.2.2.2"), ""),
            (sysctl("net.ipv4.tcp_syncookies"), ""),
            (sysctl("kernel.msgmax"), ""),
            (sysctl("vm.swappiness"), "SysctlForbidden"),
        ] {
            let got = admit(&config, &pod("9", spec.clone()), &here, &allocatable, &labels);
            assert_eq!(got.err().map(|r| r.reason).unwrap_or_default(), want, "{spec}");
        }
        let full = [&here[..], &[Arc::new(pod("3", cpu("0")))]].concat();
        assert!(admit(&config, &pod("9", cpu("0")), &full, &allocatable, &labels).is_err());
        Ok(())
    }
}
