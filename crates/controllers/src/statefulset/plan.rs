//! What a StatefulSet needs next, and what its status is.

use crate::common::{intstr, pods};
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::sync::Arc;

/// The label by which a pod tells of which revision it is.
pub const REVISION: &str = "controller-revision-hash";

/// A set and its pods.
pub struct Picture<'a> {
    pub set: &'a StatefulSet,
    pub pods: &'a [Arc<Pod>],
    /// Names of the revision that is being left and of the one that is wanted.
    pub current: &'a str,
    pub update: &'a str,
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Makes the pod of an ordinal, of the revision being left or of the wanted one.
    Create { ordinal: i32, current: bool },
    /// Makes claims that a pending pod lacks.
    Claims(i32),
    /// Gives a pod the labels that tell who it is.
    Label(Arc<Pod>),
    /// Deletes a pod.
    Delete(Arc<Pod>),
}

/// The number at the end of a pod's name, if it is one of the set's.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let digits = pod.name().strip_prefix(set.name())?.strip_prefix('-')?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

fn start(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or_default()
}

/// The ordinals that there should be.
pub fn range(set: &StatefulSet) -> std::ops::Range<i32> {
    let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    start(set)..start(set).saturating_add(replicas)
}

fn min_ready(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
}

impl Picture<'_> {
    fn is_ready(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pods::is_ready(pod)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, min_ready(self.set), self.now)
    }

    fn is_missed(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod.is_deleting()
    }

    /// Whether pods need not wait for each other.
    pub fn is_parallel(&self) -> bool {
        self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()) == Some("Parallel")
    }

    /// The partition of a rolling update, and how many pods may be missed; none for another strategy.
    fn rolling(&self) -> Option<(i32, Option<i32>)> {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") != "RollingUpdate" {
            return None;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let most = rolling.and_then(|r| r.max_unavailable.as_ref());
        let total = range(self.set).len() as i32;
        Some((
            rolling.and_then(|r| r.partition).unwrap_or_default(),
            most.map(|m| intstr::scaled(Some(m), total, false).max(1)),
        ))
    }

    /// The pods that there should be, by ordinal, and those that there should not, the last first.
    fn sorted(&self) -> (Vec<(i32, Option<Arc<Pod>>)>, Vec<Arc<Pod>>) {
        let wanted = range(self.set);
        let mut all: Vec<(i32, Arc<Pod>)> =
            self.pods.iter().filter_map(|p| Some((ordinal(self.set, p)?, p.clone()))).collect();
        all.sort_by_key(|(n, _)| *n);
        let find = |n: i32| all.iter().find(|(o, _)| *o == n).map(|(_, p)| p.clone());
        let replicas = wanted.clone().map(|n| (n, find(n))).collect();
        let condemned =
            all.iter().rev().filter(|(n, _)| !wanted.contains(n)).map(|(_, p)| p.clone()).collect();
        (replicas, condemned)
    }

    /// The steps, in their order. Those of an ordered set end at the first pod that has to be waited for.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.set.is_deleting() {
            return steps;
        }
        let (replicas, condemned) = self.sorted();
        let ordered = !self.is_parallel();
        let partition = self.rolling().map(|(p, _)| start(self.set).saturating_add(p));
        let mut replaced = false;
        for (ordinal, pod) in &replicas {
            let Some(pod) = pod else {
                let current = partition.is_some_and(|p| *ordinal < p);
                steps.push(Step::Create { ordinal: *ordinal, current });
                if ordered {
                    return steps;
                }
                continue;
            };
            if pods::is_terminal(pod) {
                if !pod.is_deleting() {
                    steps.push(Step::Delete(pod.clone()));
                }
                if ordered {
                    return steps;
                }
                replaced = true;
                continue;
            }
            if pods::phase(pod) == "Pending" {
                steps.push(Step::Claims(*ordinal));
            }
            if ordered && (pod.is_deleting() || !self.is_ready(pod) || !self.is_available(pod)) {
                return steps;
            }
            if pod.label("statefulset.kubernetes.io/pod-name") != Some(pod.name()) {
                steps.push(Step::Label(pod.clone()));
            }
        }
        if replaced {
            return steps;
        }
        let unhealthy = replicas
            .iter()
            .filter_map(|(_, p)| p.as_ref())
            .chain(condemned.iter().rev())
            .find(|p| self.is_missed(p))
            .map(|p| p.uid().to_string());
        for pod in &condemned {
            if pod.is_deleting() {
                if ordered {
                    return steps;
                }
                continue;
            }
            let waits = !self.is_ready(pod) || !self.is_available(pod);
            if ordered && waits && unhealthy.as_deref() != Some(pod.uid()) {
                return steps;
            }
            steps.push(Step::Delete(pod.clone()));
            if ordered {
                return steps;
            }
        }
        steps.extend(self.outdated(&replicas).into_iter().map(Step::Delete));
        steps
    }

    /// Pods that make way for the wanted revision.
    fn outdated(&self, replicas: &[(i32, Option<Arc<Pod>>)]) -> Vec<Arc<Pod>> {
        let Some((partition, most)) = self.rolling() else { return Vec::new() };
        let partition = usize::try_from(partition).unwrap_or_default();
        let there: Vec<&Arc<Pod>> = replicas.iter().filter_map(|(_, p)| p.as_ref()).collect();
        if there.len() < replicas.len() {
            return Vec::new();
        }
        let old = |p: &Pod| p.label(REVISION) != Some(self.update) && !p.is_deleting();
        let below = there.iter().skip(partition).rev();
        let Some(most) = most else {
            // One after the other: the first that is old goes, unless a later one is still missed.
            let next = below.into_iter().find(|p| old(p) || self.is_missed(p));
            return next.filter(|p| old(p)).map(|p| (*p).clone()).into_iter().collect();
        };
        let missed = there.iter().filter(|p| self.is_missed(p)).count();
        let free = usize::try_from(most).unwrap_or_default().saturating_sub(missed);
        below.filter(|p| old(p)).take(free).map(|p| (*p).clone()).collect()
    }

    /// The status; `collisions` as they were counted.
    pub fn status(&self, collisions: Option<i32>) -> StatefulSetStatus {
        let count = |f: &dyn Fn(&Pod) -> bool| self.pods.iter().filter(|p| f(p)).count() as i32;
        let created = |p: &Pod| !pods::phase(p).is_empty();
        let of = |revision: &str| {
            count(&|p| created(p) && !p.is_deleting() && p.label(REVISION) == Some(revision))
        };
        let old = self.set.status.clone().unwrap_or_default();
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&created),
            ready_replicas: Some(count(&|p| self.is_ready(p))),
            available_replicas: Some(count(&|p| self.is_ready(p) && self.is_available(p))),
            current_replicas: Some(of(self.current)),
            updated_replicas: Some(of(self.update)),
            current_revision: Some(self.current.into()),
            update_revision: Some(self.update.into()),
            collision_count: Some(collisions.unwrap_or_default()),
            conditions: old.conditions,
        };
        let wanted = range(self.set).len() as i32;
        let all = [Some(status.replicas), status.ready_replicas, status.updated_replicas];
        if self.rolling().is_some() && all.iter().all(|n| *n == Some(wanted)) {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }
}

/// `TEMPLATE-SET-ORDINAL`.
pub fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name(), set.name())
}

/// Whether a claim may be one of the set's, by its name.
pub fn may_have(set: &StatefulSet, claim: &str) -> bool {
    let templates = set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_ref());
    templates.into_iter().flatten().any(|t| {
        let rest = claim.strip_prefix(t.name()).and_then(|r| r.strip_prefix('-')?.strip_prefix(set.name()));
        rest.and_then(|r| r.strip_prefix('-')).is_some_and(|n| n.parse::<i32>().is_ok())
    })
}

/// Whether a claim belongs to an earlier pod of the name, and so will be deleted, though the new pod is yet to come.
pub fn is_stale(set: &StatefulSet, claim: &PersistentVolumeClaim, ordinal: i32) -> bool {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let pod = format!("{}-{ordinal}", set.name());
    policy.and_then(|p| p.when_scaled.as_deref()) == Some("Delete")
        && claim
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|r| r.api_version == "v1" && r.kind == "Pod" && r.name == pod)
}

/// The owners a claim should have by the retention policy, if they are not those it has. `pod` is the claim's.
pub fn claim_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: &OwnerReference,
    scaled_down: bool,
) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |of: Option<&String>| of.is_some_and(|p| p == "Delete");
    let on_scale = deletes(policy.and_then(|p| p.when_scaled.as_ref()));
    let on_delete = deletes(policy.and_then(|p| p.when_deleted.as_ref()));
    let refs = claim.metadata.owner_references.clone().unwrap_or_default();
    let mine = crate::common::controller_ref(set);
    let about = |r: &OwnerReference, to: &OwnerReference| {
        r.api_version == to.api_version && r.kind == to.kind && r.name == to.name
    };
    // A reference to another object of the same name is stale: the collector takes the claim.
    if refs.iter().any(|r| about(r, &mine) && r.uid != mine.uid || about(r, pod) && r.uid != pod.uid) {
        return None;
    }
    let foreign = |r: &OwnerReference| !about(r, &mine) && !about(r, pod);
    let others: Vec<OwnerReference> = refs.iter().filter(|r| foreign(r)).cloned().collect();
    let taken = (on_scale || on_delete) && others.iter().any(|r| r.controller == Some(true));
    let mut wanted = others;
    if !taken {
        let (by_set, by_pod) = match (on_scale, on_delete) {
            (false, whole) => (whole, false),
            (true, whole) => (whole && !scaled_down, scaled_down),
        };
        wanted.extend(by_set.then_some(mine));
        wanted.extend(by_pod.then(|| pod.clone()));
    }
    let key = |list: &[OwnerReference]| {
        let mut keys: Vec<(String, bool)> =
            list.iter().map(|r| (r.uid.clone(), r.controller == Some(true))).collect();
        keys.sort();
        keys
    };
    (key(&wanted) != key(&refs)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> StatefulSet {
        let mut base = json!({"replicas": 3, "selector": {}, "template": {}, "updateStrategy": {"type": "RollingUpdate"}});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "w", "uid": "s"}, "spec": base})).unwrap()
    }

    /// `0`: ready and of the wanted revision; `0o` of the old one, `0u` not ready, `0t` being deleted, `0f` failed.
    fn pod(text: &str) -> Arc<Pod> {
        let n: String = text.chars().filter(char::is_ascii_digit).collect();
        let is = |c| text.contains(c);
        let deleted = is('t').then_some("2026-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("w-{n}"), "uid": n, "deletionTimestamp": deleted, "labels": {
                    "statefulset.kubernetes.io/pod-name": format!("w-{n}"), "controller-revision-hash": if is('o') { "old" } else { "new" }}},
                "spec": {"containers": []},
                "status": {"phase": if is('f') { "Failed" } else { "Running" }, "conditions": [{"type": "Ready",
                    "status": if is('u') { "False" } else { "True" }, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap(),
        )
    }

    fn shown(spec: Value, pods: &str) -> String {
        let set = set(spec);
        let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let picture = Picture { set: &set, pods: &pods, current: "old", update: "new", now };
        let one = |s: &Step| match s {
            Step::Create { ordinal, current } => format!("+{ordinal}{}", if *current { "o" } else { "" }),
            Step::Delete(p) => format!("-{}", p.uid()),
            other => format!("{other:?}"),
        };
        picture.steps().iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let parallel = json!({"podManagementPolicy": "Parallel"});
        let partition =
            |n: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": n}}});
        let most = |n: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": n}}});
        for (spec, pods, want) in [
            (json!({}), "", "+0"),
            (json!({}), "0u", ""),
            (json!({}), "0", "+1"),
            (json!({}), "0 1 2", ""),
            (json!({}), "0 1f 2", "-1"),
            (json!({}), "0 1t 2", ""),
            (parallel.clone(), "", "+0 +1 +2"),
            (parallel.clone(), "1", "+0 +2"),
            (json!({"replicas": 1}), "0 1 2", "-2"),
            (json!({"replicas": 1}), "0 1 2t", ""),
            (json!({"replicas": 1, "podManagementPolicy": "Parallel"}), "0 1 2", "-2 -1"),
            (json!({"ordinals": {"start": 5}, "replicas": 1}), "", "+5"),
            (json!({}), "0o 1o 2o", "-2"),
            (json!({}), "0o 1o 2", "-1"),
            (json!({"podManagementPolicy": "Parallel"}), "0o 1o 2u", ""),
            (partition(2), "0o 1o 2o", "-2"),
            (partition(2), "0o 1o 2", ""),
            (partition(2), "", "+0o"),
            (partition(2), "0o 1o", "+2"),
            (most(2), "0o 1o 2o", "-2 -1"),
            (json!({"updateStrategy": {"type": "OnDelete"}}), "0o 1o 2o", ""),
            (json!({"minReadySeconds": 7200}), "0", ""),
        ] {
            assert_eq!(shown(spec.clone(), pods), want, "{spec} {pods}");
        }
    }

    #[test]
    fn the_status_counts() {
        let set = set(json!({}));
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let status = |pods: &str| {
            let pods: Vec<_> = pods.split_whitespace().map(pod).collect();
            let s = Picture { set: &set, pods: &pods, current: "old", update: "new", now }.status(None);
            (s.replicas, s.ready_replicas, s.current_replicas, s.updated_replicas, s.current_revision)
        };
        assert_eq!(status("0o 1u"), (2, Some(1), Some(1), Some(1), Some("old".into())));
        assert_eq!(status("0 1 2"), (3, Some(3), Some(3), Some(3), Some("new".into())));
    }

    #[test]
    fn a_claim_of_an_earlier_pod_is_not_used_again() {
        let claim: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"name": "data-w-2", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "w-2", "uid": "gone"}]}}))
            .unwrap();
        let policy = |scaled: &str| {
            set(
                json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": "Retain"},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}]}),
            )
        };
        assert!(is_stale(&policy("Delete"), &claim, 2) && !is_stale(&policy("Retain"), &claim, 2));
        assert!(!is_stale(&policy("Delete"), &claim, 1));
        assert!(!is_stale(&policy("Delete"), &PersistentVolumeClaim::default(), 2));
        let of = policy("Delete");
        assert!(may_have(&of, "data-w-2") && !may_have(&of, "data-w") && !may_have(&of, "data-x-2"));
    }

    #[test]
    fn claims_belong_to_whom_they_go_with() {
        let pod = OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: "w-0".into(),
            uid: "p".into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        for (scaled, deleted, down, want) in [
            ("Retain", "Retain", false, None),
            ("Retain", "Delete", false, Some("s")),
            ("Retain", "Delete", true, Some("s")),
            ("Delete", "Retain", false, None),
            ("Delete", "Retain", true, Some("p")),
            ("Delete", "Delete", false, Some("s")),
            ("Delete", "Delete", true, Some("p")),
        ] {
            let set = set(
                json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted}}),
            );
            let claim = PersistentVolumeClaim::default();
            let owners = claim_owners(&set, &claim, &pod, down);
            let uid = owners.as_ref().and_then(|o| o.first()).map(|o| o.uid.as_str());
            assert_eq!(uid, want, "{scaled} {deleted} {down}");
        }
    }
}
