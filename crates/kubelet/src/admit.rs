//! Whether a pod that was bound to this node can run here. One that cannot fails at once, so that whoever made it
//! can make another: the scheduler may not have known, or was not asked.

use crate::config::Config;
use crate::pod::{self, PodExt};
use crate::quantity::{self, Amount, Resources};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, NodeSelectorRequirement, NodeSelectorTerm, Pod, Volume,
};
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
pub(crate) struct Rejection {
    /// For machines.
    pub reason: String,
    /// For people.
    pub message: String,
}

fn no(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason: reason.into(), message: message.into() })
}

/// What a pod is held against.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeFacts {
    /// What pods may use, by resource.
    pub allocatable: Resources,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// The node's name.
    pub name: String,
    /// Whether the runtime can hold processes to the pod's own groups.
    pub supplemental_groups_policy: bool,
    /// Whether the kernel can enforce AppArmor profiles.
    pub apparmor: bool,
}

/// Checks a new pod against the node and the pods that are here already.
pub(crate) fn admit(
    config: &Config,
    pod: &Pod,
    others: &[Arc<Pod>],
    node: &NodeFacts,
) -> Result<(), Rejection> {
    supported(pod, node)
        .and_then(|()| fits(config, pod, others, node))
        .map_err(|r| Rejection { message: format!("Pod was rejected: {}", r.message), ..r })
}

/// What a pod may ask for and this kubelet cannot give, by the fields of the spec. Left out in silence each would run
/// a pod otherwise than it says, or never.
fn supported(pod: &Pod, node: &NodeFacts) -> Result<(), Rejection> {
    const UNSUPPORTED: &str = "PodFeatureUnsupported";
    let spec = pod.spec();
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return no("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let selected = spec.node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if selected.is_some_and(|os| os != "linux") {
        return no(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    let context = spec.security_context.as_ref();
    if context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict")
        && !node.supplemental_groups_policy
    {
        return no(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    if spec.host_users == Some(false) {
        return no(
            UNSUPPORTED,
            "can't set `spec.hostUsers: false`, this kubelet does not support user namespaces",
        );
    }
    if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        return no(
            UNSUPPORTED,
            "can't set `spec.resourceClaims`, this kubelet does not support dynamic resource allocation",
        );
    }
    let ephemeral: Vec<Container> =
        spec.ephemeral_containers.iter().flatten().map(pod::from_ephemeral).collect();
    let containers = || pod.containers().map(|(_, c)| c).chain(&ephemeral);
    if let Some(c) = containers().find(|c| c.volume_devices.as_ref().is_some_and(|d| !d.is_empty())) {
        return no(
            UNSUPPORTED,
            format!(
                "container {:?}: `volumeDevices` (block volumes) are not supported by this kubelet",
                c.name
            ),
        );
    }
    let rules = || containers().flat_map(|c| c.restart_policy_rules.iter().flatten());
    if rules().any(|r| r.action == "RestartAllContainers") {
        return no(
            UNSUPPORTED,
            "restart rule action `RestartAllContainers` is not supported by this kubelet",
        );
    }
    for v in spec.volumes.iter().flatten() {
        if let Some(kind) = unsupported_volume(v) {
            return no(
                UNSUPPORTED,
                format!("volume {:?}: `{kind}` is not supported by this kubelet", v.name),
            );
        }
        let sub_path = containers()
            .flat_map(|c| c.volume_mounts.iter().flatten())
            .any(|m| m.name == v.name && (m.sub_path.is_some() || m.sub_path_expr.is_some()));
        if v.image.is_some() && sub_path {
            return no(
                UNSUPPORTED,
                format!(
                    "volume {:?}: `subPath` of an `image` volume is not supported by this kubelet",
                    v.name
                ),
            );
        }
    }
    let profile = context.and_then(|c| c.app_armor_profile.as_ref());
    let own = containers().filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    let mut enforced = profile.into_iter().chain(own).filter(|p| p.type_ != "Unconfined");
    if enforced.next().is_some() && !node.apparmor {
        return no("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    Ok(())
}

/// The source of a volume that this kubelet has nothing for.
fn unsupported_volume(v: &Volume) -> Option<&'static str> {
    let kinds = [
        (v.csi.is_some(), "csi"),
        (v.iscsi.is_some(), "iscsi"),
        (v.fc.is_some(), "fc"),
        (v.flex_volume.is_some(), "flexVolume"),
        (v.git_repo.is_some(), "gitRepo"),
        (v.glusterfs.is_some(), "glusterfs"),
        (v.rbd.is_some(), "rbd"),
        (v.cephfs.is_some(), "cephfs"),
        (v.cinder.is_some(), "cinder"),
        (v.flocker.is_some(), "flocker"),
        (v.quobyte.is_some(), "quobyte"),
        (v.storageos.is_some(), "storageos"),
        (v.scale_io.is_some(), "scaleIO"),
        (v.portworx_volume.is_some(), "portworxVolume"),
        (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (v.vsphere_volume.is_some(), "vsphereVolume"),
        (v.azure_disk.is_some(), "azureDisk"),
        (v.azure_file.is_some(), "azureFile"),
        (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (
            v.projected.iter().flat_map(|p| p.sources.iter().flatten()).any(|s| s.pod_certificate.is_some()),
            "projected.sources.podCertificate",
        ),
        (
            v.empty_dir
                .as_ref()
                .and_then(|e| e.medium.as_deref())
                .is_some_and(|m| m.starts_with("HugePages")),
            "emptyDir.medium: HugePages",
        ),
    ];
    kinds.into_iter().find(|(there, _)| *there).map(|(_, name)| name)
}

/// Whether the kernel can enforce AppArmor profiles.
pub(crate) fn has_apparmor() -> bool {
    crate::blocking::text_of("/sys/module/apparmor/parameters/enabled".as_ref()).starts_with('Y')
}

/// Whether the node's labels are what the pod wants them to be.
pub(crate) fn selects(pod: &Pod, node: &NodeFacts) -> bool {
    let spec = pod.spec();
    if !spec.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|r| r.node_selector_terms.iter().any(|t| meets(t, node)))
}

/// A term without demands matches nothing.
fn meets(term: &NodeSelectorTerm, node: &NodeFacts) -> bool {
    let list = |l: &Option<Vec<NodeSelectorRequirement>>| l.clone().unwrap_or_default();
    let (labels, fields) = (list(&term.match_expressions), list(&term.match_fields));
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let demand = |r: &NodeSelectorRequirement, value: Option<&str>| {
        use api::selector::{LabelSelector, Operator, Requirement};
        let values = r.values.clone().unwrap_or_default();
        let number = || values.first().and_then(|v| v.parse::<i64>().ok());
        let operator = match r.operator.as_str() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => number().map_or(Operator::In(Vec::new()), Operator::GreaterThan),
            "Lt" => number().map_or(Operator::In(Vec::new()), Operator::LessThan),
            _ => Operator::In(Vec::new()),
        };
        LabelSelector { requirements: vec![Requirement { key: r.key.clone(), operator }] }.matches(|_| value)
    };
    labels.iter().all(|r| demand(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && demand(r, Some(&node.name)))
}

/// Whether a pod, new or not, fits beside the others.
pub(crate) fn fits(
    config: &Config,
    pod: &Pod,
    others: &[Arc<Pod>],
    node: &NodeFacts,
) -> Result<(), Rejection> {
    let allocatable = &node.allocatable;
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
    // what the node does not count is somebody else's to give
    let counted = allocatable.keys().map(String::as_str).filter(|name| *name != "pods");
    for name in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(counted) {
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
            return no(format!("OutOf{name}"), message);
        }
    }
    if !selects(pod, node) {
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
            ("hugepages-2Mi".to_owned(), Quantity("2Mi".into())),
        ]);
        let node = NodeFacts {
            allocatable,
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), ("n".to_owned(), "5".to_owned())]),
            name: "here".into(),
            ..Default::default()
        };
        let affinity = |term: Value| json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
        let expression = |key: &str, operator: &str, values: Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        let volume = |v: Value| {
            let mut v = v;
            v["name"] = json!("v");
            json!({"containers": [], "volumes": [v]})
        };
        let context = |c: Value| json!({"containers": [], "securityContext": c});
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
            (expression("disk", "In", json!(["ssd", "tape"])), ""),
            (expression("disk", "NotIn", json!(["ssd"])), "NodeAffinity"),
            (expression("n", "Gt", json!(["4"])), ""),
            (expression("n", "Lt", json!(["4"])), "NodeAffinity"),
            (expression("none", "DoesNotExist", json!(null)), ""),
            (
                affinity(
                    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["there"]}]}),
                ),
                "NodeAffinity",
            ),
            (affinity(json!({})), "NodeAffinity"),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"hugepages-2Mi": "4Mi"}}}]}),
                "OutOfhugepages-2Mi",
            ),
            (
                json!({"containers": [{"name": "a", "resources": {"requests": {"vendor.example/gpu": "1"}}}]}),
                "",
            ),
            (json!({"containers": [], "hostUsers": true}), ""),
            (json!({"containers": [], "hostUsers": false}), "PodFeatureUnsupported"),
            (
                json!({"containers": [], "resourceClaims": [{"name": "c", "resourceClaimName": "x"}]}),
                "PodFeatureUnsupported",
            ),
            (
                json!({"containers": [{"name": "a", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}]}),
                "PodFeatureUnsupported",
            ),
            (volume(json!({"csi": {"driver": "d"}})), "PodFeatureUnsupported"),
            (volume(json!({"fc": {}})), "PodFeatureUnsupported"),
            (volume(json!({"emptyDir": {"medium": "HugePages-2Mi"}})), "PodFeatureUnsupported"),
            (
                volume(
                    json!({"projected": {"sources": [{"podCertificate": {"keyType": "ED25519", "signerName": "a/b"}}]}}),
                ),
                "PodFeatureUnsupported",
            ),
            (volume(json!({"emptyDir": {}})), ""),
            (json!({"containers": [], "os": {"name": "windows"}}), "PodOSNotSupported"),
            (context(json!({"supplementalGroupsPolicy": "Strict"})), "SupplementalGroupsPolicyNotSupported"),
            (context(json!({"supplementalGroupsPolicy": "Merge"})), ""),
            (context(json!({"appArmorProfile": {"type": "RuntimeDefault"}})), "AppArmor"),
            (context(json!({"appArmorProfile": {"type": "Unconfined"}})), ""),
            (
                json!({"containers": [{"name": "a", "securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}}}]}),
                "AppArmor",
            ),
        ] {
            let got = admit(&config, &pod("9", spec.clone()), &here, &node);
            assert_eq!(got.err().map(|r| r.reason).unwrap_or_default(), want, "{spec}");
        }
        let full = [&here[..], &[Arc::new(pod("3", cpu("0")))]].concat();
        assert!(admit(&config, &pod("9", cpu("0")), &full, &node).is_err());
        Ok(())
    }
}
