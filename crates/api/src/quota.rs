//! How much of a namespace's quota an object uses: what admission charges and the controller counts anew.

use crate::GroupResource;
use crate::object::Object;
use crate::pod_resources::{self, Amounts, add, container_limits, container_requests};
use crate::quantity::{Format, Quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ResourceQuotaSpec,
    ScopedResourceSelectorRequirement as Scope, Service,
};
use std::collections::{BTreeMap, BTreeSet};

/// An object, as quotas see it.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// Counted by what it requests.
    Pod(&'a Pod),
    /// Counted by its ports and its load balancer too.
    Service(&'a Service),
    /// Counted by its storage.
    Claim(&'a PersistentVolumeClaim),
    /// Merely counted.
    Other,
}

impl<'a> From<&'a Object> for Item<'a> {
    fn from(object: &'a Object) -> Self {
        let pod = object.get::<Pod>().map(Item::Pod);
        let service = || object.get::<Service>().map(Item::Service);
        let claim = || object.get::<PersistentVolumeClaim>().map(Item::Claim);
        pod.or_else(service).or_else(claim).unwrap_or(Item::Other)
    }
}

/// Names that count objects of a resource without `count/`.
const COUNTED: [&str; 7] = [
    "pods",
    "services",
    "persistentvolumeclaims",
    "configmaps",
    "resourcequotas",
    "replicationcontrollers",
    "secrets",
];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// A quota of these demands that each container says how much.
const DEMANDED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Resources that no quota counts.
pub fn is_ignored(resource: &GroupResource) -> bool {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "bindings" | "componentstatuses" | "events") | ("events.k8s.io", "events") => true,
        (group, _) => matches!(group, "authentication.k8s.io" | "authorization.k8s.io"),
    }
}

/// `count/deployments.apps`, `count/pods`.
pub fn count_name(resource: &GroupResource) -> String {
    match resource.group.as_str() {
        "" => format!("count/{}", resource.resource),
        group => format!("count/{}.{group}", resource.resource),
    }
}

/// Whether a quota's entry of this name is about objects of this resource.
pub fn concerns(resource: &GroupResource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    if !resource.group.is_empty() {
        return false;
    }
    if name == resource.resource {
        return COUNTED.contains(&name);
    }
    match resource.resource.as_str() {
        "pods" => {
            let requested = name.strip_prefix("requests.");
            let plain = requested.or(name.strip_prefix("limits.")).unwrap_or(name);
            COMPUTE.contains(&plain)
                || requested.unwrap_or(name).starts_with("hugepages-")
                || requested.is_some_and(is_extended)
        }
        "services" => matches!(name, "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            let (_, what) = name.split_once(BY_CLASS).unwrap_or(("", name));
            matches!(what, "requests.storage" | "persistentvolumeclaims")
        }
        _ => false,
    }
}

/// `example.com/gpu`, and what stands for a device class.
fn is_extended(name: &str) -> bool {
    name.starts_with("deviceclass.resource.kubernetes.io/")
        || name.contains('/') && !name.contains("kubernetes.io/")
}

/// What an object uses.
pub fn usage(resource: &GroupResource, item: Item<'_>, now: Timestamp) -> Amounts {
    let of = |n: usize| Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi);
    let mut used = Amounts::from([(count_name(resource), of(1))]);
    let mut set = |name: &str, amount: Quantity| used.insert(name.into(), amount);
    match item {
        Item::Pod(pod) if counts(pod, now) => {
            let spec = pod.spec.clone().unwrap_or_default();
            let (requests, limits) =
                (pod_resources::requests_with_overhead(&spec), pod_resources::limits_with_overhead(&spec));
            add(&mut used, &compute(&requests, &limits));
        }
        Item::Pod(_) => {}
        Item::Service(service) => {
            let spec = service.spec.clone().unwrap_or_default();
            let ports = spec.ports.as_deref().unwrap_or_default();
            let balanced = spec.type_.as_deref() == Some("LoadBalancer");
            let on_nodes = match spec.type_.as_deref() {
                Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
                    ports.iter().filter(|p| p.node_port.is_some_and(|n| n != 0)).count()
                }
                Some("NodePort" | "LoadBalancer") => ports.len(),
                _ => 0,
            };
            set("services", of(1));
            set("services.nodeports", of(on_nodes));
            set("services.loadbalancers", of(balanced.into()));
        }
        Item::Claim(claim) => {
            let class = class(claim);
            let storage = storage(claim);
            for (name, amount) in [("persistentvolumeclaims", Some(of(1))), ("requests.storage", storage)] {
                let Some(amount) = amount else { continue };
                set(name, amount);
                if !class.is_empty() {
                    set(&format!("{class}{BY_CLASS}{name}"), amount);
                }
            }
        }
        Item::Other => {
            if resource.group.is_empty() && COUNTED.contains(&resource.resource.as_str()) {
                set(&resource.resource, of(1));
            }
        }
    }
    used
}

/// A pod that has ended, or that should be gone by now, uses nothing.
fn counts(pod: &Pod, now: Timestamp) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Failed" | "Succeeded")) {
        return false;
    }
    match (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => {
            at.0.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
        }
        _ => true,
    }
}

fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_string(), Quantity::new(1, Format::DecimalSi))]);
    for name in COMPUTE {
        if let Some(amount) = requests.get(name) {
            used.insert(name.into(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        }
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    for (name, amount) in requests {
        let pages = name.starts_with("hugepages-");
        if pages {
            used.insert(name.clone(), *amount);
        }
        if pages || is_extended(name) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    used
}

/// The class a claim names, in its annotation or its field.
pub fn class(claim: &PersistentVolumeClaim) -> &str {
    let annotations = claim.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    let named = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref());
    annotated.or(named).map_or("", String::as_str)
}

/// What is asked for, or was allocated if that is more.
fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let asked = requests.and_then(|r| r.get("storage")).map(Quantity::lenient)?;
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    let allocated = allocated.and_then(|a| a.get("storage")).map(Quantity::lenient);
    let larger = allocated.filter(|a| *a > asked).unwrap_or(asked);
    Some(if larger.is_integer() { larger } else { Quantity::new(larger.value(), larger.format()) })
}

/// All scopes of a quota.
pub fn scopes(spec: &ResourceQuotaSpec) -> Vec<Scope> {
    let plain = spec.scopes.iter().flatten().map(|name| Scope {
        scope_name: name.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten().cloned());
    plain.chain(selected).collect()
}

/// Whether the object is in every scope of a quota.
pub fn in_scopes(spec: &ResourceQuotaSpec, item: Item<'_>) -> bool {
    scopes(spec).iter().all(|scope| in_scope(scope, item))
}

/// Whether the object is in a scope.
pub fn in_scope(scope: &Scope, item: Item<'_>) -> bool {
    match item {
        Item::Pod(pod) => {
            let spec = pod.spec.as_ref();
            match scope.scope_name.as_str() {
                "Terminating" => is_terminating(pod),
                "NotTerminating" => !is_terminating(pod),
                "BestEffort" => is_best_effort(pod),
                "NotBestEffort" => !is_best_effort(pod),
                "PriorityClass" => {
                    let class = spec.and_then(|s| s.priority_class_name.as_deref()).filter(|n| !n.is_empty());
                    selects(scope, &class.into_iter().collect::<Vec<_>>())
                }
                "CrossNamespacePodAffinity" => crosses_namespaces(pod),
                _ => false,
            }
        }
        Item::Claim(claim) if scope.scope_name == "VolumeAttributesClass" => {
            let status = claim.status.as_ref();
            let modified = status.and_then(|s| s.modify_volume_status.as_ref());
            let names = [
                claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref()),
                status.and_then(|s| s.current_volume_attributes_class_name.as_deref()),
                modified.and_then(|m| m.target_volume_attributes_class_name.as_deref()),
            ];
            selects(scope, &names.into_iter().flatten().filter(|n| !n.is_empty()).collect::<Vec<_>>())
        }
        _ => false,
    }
}

fn selects(scope: &Scope, names: &[&str]) -> bool {
    let listed = |name: &&str| scope.values.iter().flatten().any(|v| v == name);
    match scope.operator.as_str() {
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        "In" => names.iter().any(listed),
        "NotIn" => names.is_empty() || names.iter().any(|n| !listed(n)),
        _ => false,
    }
}

/// Whether a pod ends at a time of its own.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.active_deadline_seconds).is_some_and(|s| s >= 0)
}

/// Whether a pod says of no container how much processor or memory it wants.
fn is_best_effort(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let some =
        |amounts: &Amounts| ["cpu", "memory"].iter().any(|n| amounts.get(*n).is_some_and(|a| a.sign() > 0));
    let whole = spec.resources.as_ref();
    let stated = whole.is_some_and(|r| {
        some(&pod_resources::read(r.requests.as_ref())) || some(&pod_resources::read(r.limits.as_ref()))
    });
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    !stated && !containers.any(|c| some(&container_requests(c)) || some(&container_limits(c)))
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let crosses = |t: &PodAffinityTerm| {
        t.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || t.namespace_selector.is_some()
    };
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return false };
    let with = affinity.pod_affinity.iter().any(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().flatten().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .any(|w| crosses(&w.pod_affinity_term))
    });
    with || affinity.pod_anti_affinity.iter().any(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().flatten().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .any(|w| crosses(&w.pod_affinity_term))
    })
}

/// What a quota of these resources misses in a pod: each container must say how much it wants.
pub fn missing<'a>(names: impl Iterator<Item = &'a str>, item: Item<'_>) -> Option<String> {
    let Item::Pod(Pod { spec: Some(spec), .. }) = item else { return None };
    let whole = spec.resources.as_ref();
    let of_pod = |m: Option<&BTreeMap<_, _>>| m.is_some_and(|m| !m.is_empty());
    if whole.is_some_and(|r| of_pod(r.requests.as_ref()) || of_pod(r.limits.as_ref())) {
        return None;
    }
    let required: BTreeSet<&str> = names.filter(|n| DEMANDED.contains(n)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for c in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let stated = compute(&container_requests(c), &container_limits(c));
        for name in required.iter().filter(|n| !stated.contains_key(**n)) {
            missing.entry(name).or_default().insert(&c.name);
        }
    }
    if missing.is_empty() {
        return None;
    }
    let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
    let parts: Vec<String> = missing.iter().map(|(name, of)| format!("{name} for: {}", list(of))).collect();
    Some(format!("must specify {}", parts.join("; ")))
}

/// The entries of a quota, as its status has them, that are about a resource.
pub fn entries(quota: &ResourceQuota, resource: &GroupResource) -> Vec<String> {
    let hard = quota.status.as_ref().and_then(|s| s.hard.as_ref());
    hard.into_iter().flatten().map(|(name, _)| name.clone()).filter(|n| concerns(resource, n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(amounts: &Amounts) -> String {
        amounts.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn objects_use_what_they_ask_for() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a", "resources": {
            "requests": {"cpu": "100m", "example.com/gpu": "2"}, "limits": {"memory": "1Gi"}}}]}}))
        .unwrap();
        let pods = GroupResource::new("", "pods");
        assert_eq!(
            show(&usage(&pods, Item::Pod(&pod), Timestamp::now())),
            "count/pods=1 cpu=100m limits.memory=1Gi pods=1 requests.cpu=100m requests.example.com/gpu=2"
        );
        let mut ended = pod.clone();
        ended.status.get_or_insert_default().phase = Some("Failed".into());
        assert_eq!(show(&usage(&pods, Item::Pod(&ended), Timestamp::now())), "count/pods=1");
        let service: Service = serde_json::from_value(
            json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}),
        )
        .unwrap();
        assert_eq!(
            show(&usage(&GroupResource::new("", "services"), Item::Service(&service), Timestamp::now())),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"
        );
        let claim: PersistentVolumeClaim = serde_json::from_value(
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}}),
        )
        .unwrap();
        assert_eq!(
            show(&usage(
                &GroupResource::new("", "persistentvolumeclaims"),
                Item::Claim(&claim),
                Timestamp::now()
            )),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
        );
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(show(&usage(&deployments, Item::Other, Timestamp::now())), "count/deployments.apps=1");
    }

    #[test]
    fn entries_are_about_one_resource() {
        for (resource, name, want) in [
            ("pods", "cpu", true),
            ("pods", "requests.hugepages-2Mi", true),
            ("pods", "requests.example.com/gpu", true),
            ("pods", "requests.storage", false),
            ("pods", "services", false),
            ("services", "services.nodeports", true),
            ("persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true),
            ("secrets", "secrets", true),
            ("secrets", "count/secrets", true),
            ("endpoints", "endpoints", false),
            ("endpoints", "count/endpoints", true),
        ] {
            assert_eq!(concerns(&GroupResource::new("", resource), name), want, "{resource} {name}");
        }
    }

    #[test]
    fn scopes_choose() {
        let pod = |json| serde_json::from_value::<Pod>(json).unwrap();
        let scope = |name: &str, operator: &str, values: &[&str]| Scope {
            scope_name: name.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|v| v.to_string()).collect()),
        };
        let high =
            pod(json!({"spec": {"containers": [], "priorityClassName": "high", "activeDeadlineSeconds": 5}}));
        for (scope, want) in [
            (scope("PriorityClass", "In", &["high"]), true),
            (scope("PriorityClass", "NotIn", &["high"]), false),
            (scope("PriorityClass", "Exists", &[]), true),
            (scope("PriorityClass", "DoesNotExist", &[]), false),
            (scope("Terminating", "Exists", &[]), true),
            (scope("BestEffort", "Exists", &[]), true),
            (scope("NotBestEffort", "Exists", &[]), false),
            (scope("CrossNamespacePodAffinity", "Exists", &[]), false),
        ] {
            assert_eq!(in_scope(&scope, Item::Pod(&high)), want, "{scope:?}");
        }
        assert!(!in_scope(&scope("Terminating", "Exists", &[]), Item::Other));
    }

    #[test]
    fn containers_say_how_much() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}}))
        .unwrap();
        let names = ["requests.cpu", "limits.memory", "pods"];
        assert_eq!(
            missing(names.into_iter(), Item::Pod(&pod)).as_deref(),
            Some("must specify limits.memory for: a,b; requests.cpu for: b")
        );
    }
}
