//! A kubelet changes its own node and the pods on it, and nothing that would let it gain more.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::{Status, read};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::BTreeMap;

/// See the module.
pub struct NodeRestriction;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels below these that a kubelet may set on itself; all others below them are for administrators.
const OWN_LABELS: [&str; 10] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/windows-build",
];
const OLD_TOPOLOGY_LABELS: [&str; 2] =
    ["failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"];

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let in_nodes = request.groups.iter().any(|g| g == "system:nodes");
        let Some(node) = request.user.strip_prefix("system:node:").filter(|_| in_nodes) else {
            return Ok(());
        };
        match (request.resource.group.as_str(), request.resource.resource.as_str()) {
            ("", "nodes") => admit_node(node, request, object),
            ("", "pods") => admit_pod(node, request, object),
            ("coordination.k8s.io", "leases") => {
                let name = object.as_ref().and_then(|o| o.meta().name.as_deref()).unwrap_or(request.name);
                if request.namespace != "kube-node-lease" || name != node {
                    return Err(request.forbidden("can only access own lease"));
                }
                Ok(())
            }
            ("", "serviceaccounts") if request.subresource == "token" => admit_token(node, request, object),
            _ => Ok(()),
        }
    }
}

fn admit_node(node: &str, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
    let name = object.as_ref().and_then(|o| o.meta().name.as_deref()).unwrap_or(request.name);
    if name != node {
        return Err(request.forbidden(format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let Some(new) = object.and_then(|o| o.get_mut::<Node>()) else {
        return Err(request.forbidden(format!("node {node:?} is not allowed to delete itself")));
    };
    let old = request.old.and_then(|o| o.get::<Node>());
    if request.operation == Operation::Update && request.subresource.is_empty() {
        let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        if old.is_some_and(|old| taints(old) != taints(new)) {
            return Err(request.forbidden(format!("node {node:?} is not allowed to modify taints")));
        }
    }
    let empty = BTreeMap::new();
    let before = old.and_then(|o| o.metadata.labels.as_ref()).unwrap_or(&empty);
    let after = new.metadata.labels.as_ref().unwrap_or(&empty);
    let changed = before.keys().chain(after.keys()).filter(|k| before.get(*k) != after.get(*k));
    let refused: Vec<&str> = changed.map(String::as_str).filter(|k| is_reserved(k)).collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(request.forbidden(format!("is not allowed to modify labels: {}", refused.join(", "))))
}

/// A kubelet gets tokens for the pods on its node alone.
fn admit_token(node: &str, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
    let asked = object.and_then(|o| o.get::<TokenRequest>());
    let bound = asked.and_then(|t| t.spec.as_ref()).and_then(|s| s.bound_object_ref.as_ref());
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let Some(pod) = bound.filter(|b| text(&b.kind) == "Pod" && !text(&b.name).is_empty()) else {
        return Err(request.forbidden("node requested token not bound to a pod"));
    };
    let (name, uid) = (text(&pod.name), text(&pod.uid));
    if uid.is_empty() {
        return Err(request.forbidden("node requested token with a pod binding without a uid"));
    }
    let there: Pod = read::get(request.reader, request.namespace, &name)
        .ok_or_else(|| request.forbidden(format!("pod {name:?} not found")))?;
    if there.metadata.uid.as_deref() != Some(&uid) {
        return Err(request.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            there.metadata.uid.unwrap_or_default()
        )));
    }
    if there.spec.and_then(|s| s.node_name).as_deref() != Some(node) {
        return Err(request.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    Ok(())
}

fn is_reserved(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    if OWN_LABELS.contains(&label) || OLD_TOPOLOGY_LABELS.contains(&label) {
        return false;
    }
    let below = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if below("node-restriction.kubernetes.io") {
        return true;
    }
    (below("kubernetes.io") || below("k8s.io"))
        && !below("kubelet.kubernetes.io")
        && !below("node.kubernetes.io")
}

fn admit_pod(node: &str, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
    let assigned = |p: &Pod| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node);
    match (request.operation, request.subresource) {
        (Operation::Create, "") => {
            let Some(pod) = object.and_then(|o| o.get::<Pod>()) else { return Ok(()) };
            let is_mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR));
            if !is_mirror || !assigned(pod) {
                return Err(request.forbidden(format!(
                    "node {node:?} can only create mirror pods with spec.nodeName set to itself"
                )));
            }
            Ok(())
        }
        (Operation::Create, "eviction") => {
            let pod: Option<Pod> = read::get(request.reader, request.namespace, request.name);
            if pod.is_some_and(|p| !assigned(&p)) {
                return Err(request.forbidden(format!(
                    "node {node:?} can only evict pods with spec.nodeName set to itself"
                )));
            }
            Ok(())
        }
        (Operation::Update, "status") | (Operation::Delete, "") => {
            let on_node = request.old.and_then(|o| o.get::<Pod>()).is_none_or(assigned);
            if !on_node {
                return Err(request.forbidden(format!(
                    "node {node:?} can only change pods with spec.nodeName set to itself"
                )));
            }
            Ok(())
        }
        _ => Err(request.forbidden(format!("unexpected operation {:?} by node {node:?}", request.operation))),
    }
}
