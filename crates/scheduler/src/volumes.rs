//! VolumeBinding: a pod goes where its volumes are, or can be made.

use crate::cluster::{Cluster, Decided, NodeRow};
use crate::framework::{Prepared, Reason, Verdict};
use crate::plugins::{Plugin, selector_matches};
use crate::pod::PodInfo;
use api::quantity::Quantity;
use api::selector::LabelSelector;
use client::ObjectExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use std::sync::Arc;

/// Set on a claim when both sides of its binding are written.
const BOUND: &str = "pv.kubernetes.io/bind-completed";
/// Tells the provisioner where a volume is needed.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The plugin.
pub const PLUGIN: Plugin = Plugin { name: "VolumeBinding", weight: 0, filter, score: |_, _, _| None };

/// What has to happen to a claim before a pod can go to a node.
#[derive(Clone, Debug)]
pub enum Step {
    /// A volume that is there is kept for the claim.
    Reserve(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// A volume is made.
    Provision(Arc<PersistentVolumeClaim>),
    /// Another pod has the one or the other done for the same claim.
    Await(Arc<PersistentVolumeClaim>),
}

impl Step {
    /// The claim.
    pub fn claim(&self) -> &Arc<PersistentVolumeClaim> {
        let (Step::Reserve(_, claim) | Step::Provision(claim) | Step::Await(claim)) = self;
        claim
    }
}

fn key(claim: &PersistentVolumeClaim) -> (String, String) {
    (claim.namespace().to_string(), claim.name().to_string())
}

enum Need<'a> {
    /// The volume is there.
    Bound(&'a Arc<PersistentVolumeClaim>),
    /// It is decided with the node.
    Open(&'a Arc<PersistentVolumeClaim>, &'a StorageClass),
}

fn needs<'a>(pod: &PodInfo, cluster: &'a Cluster) -> Result<Vec<Need<'a>>, Reason> {
    let mut needs = Vec::new();
    for volume in pod.spec().and_then(|s| s.volumes.as_ref()).into_iter().flatten() {
        let ephemeral = volume.ephemeral.is_some();
        let name = match &volume.persistent_volume_claim {
            Some(source) => source.claim_name.clone(),
            None if ephemeral => format!("{}-{}", pod.pod.name(), volume.name),
            None => continue,
        };
        let claim =
            cluster.claims.get(&(pod.pod.namespace().to_string(), name.clone())).ok_or_else(|| {
                match ephemeral {
                    true => format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    ),
                    false => format!("persistentvolumeclaim {name:?} not found"),
                }
            })?;
        if claim.is_deleting() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted").into());
        }
        if claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|v| !v.is_empty()) {
            if claim.annotation(BOUND).is_none() {
                return Err("pod has unbound immediate PersistentVolumeClaims".into());
            }
            needs.push(Need::Bound(claim));
            continue;
        }
        let class = class_of(claim).and_then(|name| cluster.classes.get(name));
        match class {
            Some(class) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
                needs.push(Need::Open(claim, class));
            }
            _ => return Err("pod has unbound immediate PersistentVolumeClaims".into()),
        }
    }
    Ok(needs)
}

fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.storage_class_name.as_deref()
}

fn filter<'a>(pod: &'a PodInfo, cluster: &'a Cluster) -> Prepared<'a> {
    let needs = match needs(pod, cluster) {
        Ok(needs) if needs.is_empty() => return Prepared::Skip,
        Ok(needs) => needs,
        Err(reason) => return Prepared::Reject(reason),
    };
    if needs.iter().any(|n| matches!(n, Need::Bound(c) if taken_by_another(c, pod, cluster))) {
        return Prepared::Reject(
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
                .into(),
        );
    }
    Prepared::Check(Box::new(move |at| {
        let Some(row) = cluster.rows.get(at) else { return Verdict::Fits };
        let mut used = Vec::new();
        for need in &needs {
            match need {
                Need::Bound(claim) => {
                    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
                    let Some(volume) = cluster.volumes.get(name) else {
                        return Verdict::never(
                            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
                        );
                    };
                    if !reaches(volume, row) {
                        return Verdict::never("node(s) didn't match PersistentVolume's node affinity");
                    }
                }
                Need::Open(claim, class) => {
                    if !possible(claim, class, row, cluster, &mut used) {
                        return Verdict::never("node(s) didn't find available persistent volumes to bind");
                    }
                }
            }
        }
        Verdict::Fits
    }))
}

fn taken_by_another(claim: &PersistentVolumeClaim, pod: &PodInfo, cluster: &Cluster) -> bool {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    if !modes.into_iter().flatten().any(|m| m == "ReadWriteOncePod") {
        return false;
    }
    cluster.pods().any(|(_, other)| {
        let volumes = other.spec().and_then(|s| s.volumes.as_ref()).into_iter().flatten();
        let uses = |v: &k8s_openapi::api::core::v1::Volume| {
            v.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name == claim.name())
        };
        other.pod.namespace() == claim.namespace()
            && other.pod.uid() != pod.pod.uid()
            && volumes.into_iter().any(uses)
    })
}

fn reaches(volume: &PersistentVolume, row: &NodeRow) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|s| selector_matches(s, row))
}

fn possible(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    row: &NodeRow,
    cluster: &Cluster,
    used: &mut Vec<String>,
) -> bool {
    if let Some(decided) = cluster.decided.get(&key(claim)) {
        return match decided.volume.as_ref().and_then(|name| cluster.volumes.get(name)) {
            Some(volume) => reaches(volume, row),
            None => decided.node == row.name,
        };
    }
    if let Some(node) = claim.annotation(SELECTED_NODE) {
        return node == row.name;
    }
    if let Some(volume) = matching(claim, row, cluster, used) {
        used.push(volume.name().into());
        return true;
    }
    let topologies = class.allowed_topologies.iter().flatten();
    let allowed = topologies.clone().next().is_none()
        || topologies.into_iter().any(|t| {
            t.match_label_expressions
                .iter()
                .flatten()
                .all(|e| row.label(&e.key).is_some_and(|value| e.values.iter().any(|v| v == value)))
        });
    class.provisioner != "kubernetes.io/no-provisioner" && allowed
}

/// The smallest volume that would do.
fn matching<'a>(
    claim: &PersistentVolumeClaim,
    row: &NodeRow,
    cluster: &'a Cluster,
    used: &[String],
) -> Option<&'a Arc<PersistentVolume>> {
    let spec = claim.spec.as_ref()?;
    let amount = |list: Option<&std::collections::BTreeMap<String, _>>| {
        list.and_then(|l| l.get("storage")).map_or(0, |q| Quantity::lenient(q).value())
    };
    let wanted = amount(spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let selector = spec.selector.as_ref().map(LabelSelector::from_object);
    let mode = |m: &Option<String>| m.clone().unwrap_or_else(|| "Filesystem".into());
    let fits = |volume: &&Arc<PersistentVolume>| {
        let Some(v) = &volume.spec else { return false };
        let free = match &v.claim_ref {
            None => volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available"),
            Some(r) => {
                let same = r.namespace.as_deref() == Some(claim.namespace())
                    && r.name.as_deref() == Some(claim.name());
                same && r.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
            }
        };
        let modes = v.access_modes.as_deref().unwrap_or_default();
        free && !used.iter().any(|name| name == volume.name())
            && !cluster.decided.values().any(|d| d.volume.as_deref() == Some(volume.name()))
            && v.storage_class_name.as_deref().unwrap_or_default() == class_of(claim).unwrap_or_default()
            && mode(&v.volume_mode) == mode(&spec.volume_mode)
            && spec.access_modes.iter().flatten().all(|m| modes.contains(m))
            && amount(v.capacity.as_ref()) >= wanted
            && match &selector {
                None => true,
                Some(Ok(s)) => s.matches_labels(volume.metadata.labels.as_ref()),
                Some(Err(_)) => false,
            }
            && reaches(volume, row)
    };
    cluster
        .volumes
        .values()
        .filter(fits)
        .min_by_key(|v| amount(v.spec.as_ref().and_then(|s| s.capacity.as_ref())))
}

/// What has to happen before a pod can go to a node that was found to fit.
pub fn steps(pod: &PodInfo, cluster: &Cluster, node: &str) -> Vec<Step> {
    let (Ok(needs), Some(row)) =
        (needs(pod, cluster), cluster.index(node).and_then(|at| cluster.rows.get(at)))
    else {
        return Vec::new();
    };
    let (mut used, mut steps) = (Vec::new(), Vec::new());
    for need in needs {
        if let Need::Open(claim, _) = need {
            if cluster.decided.contains_key(&key(claim)) {
                steps.push(Step::Await(claim.clone()));
                continue;
            }
            match matching(claim, row, cluster, &used).filter(|_| claim.annotation(SELECTED_NODE).is_none()) {
                Some(volume) => {
                    used.push(volume.name().into());
                    steps.push(Step::Reserve(volume.clone(), claim.clone()));
                }
                None => steps.push(Step::Provision(claim.clone())),
            }
        }
    }
    steps
}

/// Remembers what the steps of a pod on its way to a node decide, until the claims show it: the next pod must not decide otherwise.
pub fn decide(steps: &[Step], pod: &str, node: &str, cluster: &mut Cluster) {
    for step in steps {
        let volume = match step {
            Step::Reserve(volume, _) => Some(volume.name().to_string()),
            Step::Provision(_) => None,
            Step::Await(_) => continue,
        };
        let decided = Decided { node: node.into(), volume, pod: pod.into() };
        cluster.decided.insert(key(step.claim()), decided);
    }
}

/// Whether a claim says by itself where its volume is or will be.
pub fn tells(claim: &PersistentVolumeClaim) -> bool {
    claim.annotation(SELECTED_NODE).is_some()
        || claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|v| !v.is_empty())
}

/// Whether a node reaches a volume.
pub fn reached_from(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    required.is_none_or(|s| {
        let row = NodeRow {
            name: node.name().into(),
            node: Some(Arc::new(node.clone())),
            other: Default::default(),
            used_other: Default::default(),
            pods: Default::default(),
        };
        selector_matches(s, &row)
    })
}

/// Whether a claim has its volume.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
        && claim.annotation(BOUND).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::{Outcome, place};
    use crate::plugins::DEFAULT;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    /// Two nodes, and a class whose volumes are decided with the node.
    fn cluster(provisioner: &str) -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["a", "b"] {
            cluster.set_node(read(json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
            })));
        }
        let class = json!({"metadata": {"name": "late"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
        cluster.classes.insert("late".into(), read(class));
        cluster
    }

    fn claim(cluster: &mut Cluster, name: &str) {
        let spec = json!({"storageClassName": "late", "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}});
        let claim = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": spec});
        cluster.claims.insert(("n".into(), name.into()), read(claim));
    }

    fn pod(name: &str, claim: &str, node: Option<&str>) -> Arc<PodInfo> {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        let selector = node.map(|n| json!({"kubernetes.io/hostname": n}));
        let pod: Arc<Pod> = read(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"containers": [], "volumes": volumes, "nodeSelector": selector}}));
        Arc::new(PodInfo::new(pod))
    }

    /// Places a pod as the loop does, without writing anything.
    fn placed(cluster: &mut Cluster, pod: &PodInfo) -> Option<String> {
        match place(&DEFAULT, pod, cluster, &mut 0) {
            Outcome::Placed(node) => {
                let steps = steps(pod, cluster, &node);
                decide(&steps, pod.pod.uid(), &node, cluster);
                Some(node)
            }
            Outcome::Unplaced(_) => None,
        }
    }

    #[test]
    fn two_pods_with_one_claim_go_to_one_node_in_the_same_instant() {
        let mut cluster = cluster("example.com/driver");
        claim(&mut cluster, "c");
        assert_eq!(placed(&mut cluster, &pod("first", "c", Some("a"))).as_deref(), Some("a"));
        assert_eq!(placed(&mut cluster, &pod("second", "c", Some("b"))), None);
        assert_eq!(placed(&mut cluster, &pod("third", "c", None)).as_deref(), Some("a"));
        let third = steps(&pod("third", "c", None), &cluster, "a");
        assert!(matches!(third.as_slice(), [Step::Await(_)]), "{third:?}");
        // What failed is decided anew.
        cluster.undecide("first");
        assert_eq!(placed(&mut cluster, &pod("second", "c", Some("b"))).as_deref(), Some("b"));
    }

    #[test]
    fn two_claims_do_not_get_one_volume() {
        let mut cluster = cluster("kubernetes.io/no-provisioner");
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}]}});
        let volume: Arc<PersistentVolume> = read(
            json!({"metadata": {"name": "pv"}, "status": {"phase": "Available"}, "spec": {
            "storageClassName": "late", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}, "nodeAffinity": affinity}}),
        );
        cluster.volumes.insert("pv".into(), volume);
        claim(&mut cluster, "c");
        claim(&mut cluster, "d");
        assert_eq!(placed(&mut cluster, &pod("first", "c", None)).as_deref(), Some("a"));
        assert_eq!(placed(&mut cluster, &pod("second", "d", None)), None);
        assert_eq!(placed(&mut cluster, &pod("third", "c", None)).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_with_resource_claims_waits() {
        let cluster = cluster("example.com/driver");
        let pod: Arc<Pod> = read(
            json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [], "resourceClaims": [{"name": "gpu"}]}}),
        );
        match place(&DEFAULT, &PodInfo::new(pod), &cluster, &mut 0) {
            Outcome::Unplaced(d) => assert!(d.message().contains("resource claims"), "{}", d.message()),
            Outcome::Placed(node) => panic!("placed on {node}"),
        }
    }
}
