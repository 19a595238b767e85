//! Which of a DaemonSet's pods to make and to delete, and its status.

use crate::common::history::HASH_LABEL;
use crate::common::intstr::scaled;
use crate::common::{pods, scheduling};
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Toleration,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a plan is made from.
pub struct Picture<'a> {
    pub ds: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    /// By the node they are on or meant for.
    pub pods: &'a BTreeMap<String, Vec<Arc<Pod>>>,
    /// Of the template now.
    pub hash: &'a str,
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that need a pod.
    pub create: Vec<String>,
    /// Pods to delete, for whatever reason.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that ended: deleted too, but those that failed no faster than their back-off allows.
    pub failed: Vec<(String, Arc<Pod>)>,
    /// Pods that ended well.
    pub succeeded: Vec<(String, Arc<Pod>)>,
}

/// The node a pod is on or meant for.
pub fn target(pod: &Pod) -> Option<&str> {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    fields.filter(|f| f.key == "metadata.name" && f.operator == "In").find_map(|f| {
        match f.values.as_deref() {
            Some([only]) => Some(only.as_str()),
            _ => None,
        }
    })
}

/// The template as pods are made from it: it tolerates what a daemon has to.
pub fn pod_template(ds: &DaemonSet, hash: &str) -> PodTemplateSpec {
    let mut template = ds.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let spec = template.spec.get_or_insert_default();
    let mut wanted = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        wanted.push(("network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in wanted {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        // One for the same taint with a time limit would let the daemon go.
        let same = |t: &Toleration| {
            t.key == toleration.key && t.effect == toleration.effect && t.operator == toleration.operator
        };
        tolerations.retain(|t| !same(t));
        tolerations.push(toleration);
    }
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = ds.annotation("deprecated.daemonset.template.generation") {
        labels.insert("pod-template-generation".into(), generation.into());
    }
    labels.insert(HASH_LABEL.into(), hash.into());
    template
}

/// Ties a pod to a node; the scheduler does the rest.
pub fn tie(spec: &mut PodSpec, node: &str) {
    let field = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    // Fields replace the template's: it is the node alone that counts.
    required.node_selector_terms =
        vec![NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None }];
}

/// Whether a daemon's pod should be started on a node, and whether one that runs there may stay.
pub fn should_run(template: &PodTemplateSpec, node: &Node) -> (bool, bool) {
    let Some(spec) = &template.spec else { return (false, false) };
    let named = spec.node_name.as_deref().filter(|n| !n.is_empty());
    if named.is_some_and(|n| n != node.name()) || !scheduling::selects(spec, node) {
        return (false, false);
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let free =
        |effects: &[&str]| scheduling::untolerated(scheduling::taints(node), tolerations, effects).is_none();
    (free(&["NoExecute", "NoSchedule"]), free(&["NoExecute"]))
}

impl Picture<'_> {
    fn min_ready(&self) -> i32 {
        self.ds.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready(), self.now)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.label(HASH_LABEL) == Some(self.hash)
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.ds.spec.as_ref().and_then(|s| s.update_strategy.as_ref()?.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn template(&self) -> PodTemplateSpec {
        pod_template(self.ds, self.hash)
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many pods may be there too many, and how many too few, in an update.
    fn bounds(&self, desired: i32) -> (usize, usize) {
        let rolling = self.ds.spec.as_ref().and_then(|s| s.update_strategy.as_ref()?.rolling_update.clone());
        let rolling = rolling.filter(|_| self.is_rolling()).unwrap_or_default();
        let surge = scaled(rolling.max_surge.as_ref(), desired, true);
        let missing = scaled(rolling.max_unavailable.as_ref(), desired, true);
        let missing = if surge == 0 && missing == 0 { 1 } else { missing };
        (usize::try_from(surge).unwrap_or_default(), usize::try_from(missing).unwrap_or_default())
    }

    fn desired(&self, template: &PodTemplateSpec) -> i32 {
        self.nodes.iter().filter(|n| should_run(template, n).0).count() as i32
    }

    /// One pod on each node that should have one, none on the others.
    pub fn manage(&self) -> Plan {
        let (template, mut plan) = (self.template(), Plan::default());
        let surging = self.bounds(self.desired(&template)).0 > 0;
        for node in self.nodes {
            let (start, stay) = should_run(&template, node);
            let there = self.on(node.name());
            if start && there.is_empty() {
                plan.create.push(node.name().into());
            } else if stay {
                let ended = self.prune(node.name(), there, surging, &mut plan);
                let alive = there.iter().any(|p| !p.is_deleting() && !pods::is_terminal(p));
                // An ending pod keeps its node, unless a second one may be there.
                if surging && start && !alive && ended == 0 {
                    plan.create.push(node.name().into());
                }
            } else {
                plan.delete.extend(there.iter().filter(|p| !p.is_deleting()).cloned());
            }
        }
        // Pods tied to nodes that are gone and never bound would wait for ever.
        for (name, there) in self.pods {
            if !self.nodes.iter().any(|n| n.name() == name) {
                let waiting = there.iter().filter(|p| pods::node_name(p).is_empty() && !p.is_deleting());
                plan.delete.extend(waiting.cloned());
            }
        }
        plan
    }

    /// Deletes what ended and what is too much on a node; answers how much had ended.
    fn prune(&self, node: &str, there: &[Arc<Pod>], surging: bool, plan: &mut Plan) -> usize {
        let mut running = Vec::new();
        let mut ended = 0;
        for pod in there.iter().filter(|p| !p.is_deleting()) {
            match pods::phase(pod) {
                "Failed" => plan.failed.push((node.into(), pod.clone())),
                "Succeeded" => plan.succeeded.push((node.into(), pod.clone())),
                _ => {
                    running.push(pod.clone());
                    continue;
                }
            }
            ended += 1;
        }
        // Bound ones first, then the oldest.
        running.sort_by_key(|p| {
            (pods::node_name(p).is_empty(), p.metadata.creation_timestamp.clone(), p.name().to_string())
        });
        if !surging {
            plan.delete.extend(running.into_iter().skip(1));
            return ended;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| self.is_new(p));
        if let (Some(n), Some(o)) = (new.first(), old.first())
            && (!pods::is_ready(o) || self.is_available(n))
        {
            plan.delete.push(o.clone());
        }
        plan.delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
        ended
    }

    /// The next step of an update: old pods to delete, or nodes that get a second pod.
    pub fn roll(&self) -> Plan {
        let (template, mut plan) = (self.template(), Plan::default());
        if !self.is_rolling() {
            return plan;
        }
        let desired = self.desired(&template);
        let (surge, missing) = self.bounds(desired);
        let mut candidates: Vec<Arc<Pod>> = Vec::new();
        let (mut unavailable, mut surged, mut available) = (0, 0, 0);
        let mut unwanted = Vec::new();
        for (name, there) in self.pods {
            let (new, old): (Vec<_>, Vec<_>) =
                there.iter().filter(|p| !p.is_deleting()).partition(|p| self.is_new(p));
            let (new, old) = match (new.as_slice(), old.as_slice()) {
                ([], []) => (None, None),
                ([n], []) => (Some(*n), None),
                ([], [o]) => (None, Some(*o)),
                ([n], [o]) => (Some(*n), Some(*o)),
                _ => {
                    // Too many there: that is seen to first.
                    (unavailable, surged) = (unavailable + 1, surged + 1);
                    continue;
                }
            };
            available += usize::from(old.or(new).is_some_and(|p| self.is_available(p)));
            match (new, old) {
                (Some(n), None) => unavailable += usize::from(!self.is_available(n)),
                (None, None) => unavailable += 1,
                (Some(n), Some(o)) if surge > 0 => {
                    if self.is_available(n) {
                        plan.delete.push(o.clone())
                    } else {
                        surged += 1
                    }
                }
                (Some(_), Some(_)) => unavailable += 1,
                (None, Some(o)) if surge == 0 => {
                    if self.is_available(o) {
                        candidates.push(o.clone());
                    } else {
                        plan.delete.push(o.clone()); // nothing is lost by it
                        unavailable += 1;
                    }
                }
                (None, Some(o)) => {
                    let start = self
                        .nodes
                        .iter()
                        .find(|n| n.name() == name)
                        .is_some_and(|n| should_run(&template, n).0);
                    match (self.is_available(o), start) {
                        (false, false) => plan.delete.push(o.clone()),
                        (false, true) => plan.create.push(name.clone()),
                        (true, false) => unwanted.push(o.clone()),
                        (true, true) => candidates.push(o.clone()),
                    }
                }
            }
        }
        if surge == 0 {
            plan.delete.extend(candidates.into_iter().take(missing.saturating_sub(unavailable)));
        } else {
            let spare = available.saturating_sub(usize::try_from(desired).unwrap_or_default());
            plan.delete.extend(unwanted.into_iter().take(spare));
            let next = candidates.iter().filter_map(|p| target(p).map(String::from));
            plan.create.extend(next.take(surge.saturating_sub(surged)));
        }
        plan
    }

    /// The numbers. `settled` says that the caches show all that was done, so that the generation counts as seen.
    pub fn status(&self, settled: bool) -> DaemonSetStatus {
        let template = self.template();
        let mut s = DaemonSetStatus::default();
        let (mut available, mut updated) = (0, 0);
        for node in self.nodes {
            let start = should_run(&template, node).0;
            let there = self.on(node.name());
            if !start {
                s.number_misscheduled += i32::from(!there.is_empty());
                continue;
            }
            s.desired_number_scheduled += 1;
            let oldest = there
                .iter()
                .min_by_key(|p| (pods::node_name(p).is_empty(), p.metadata.creation_timestamp.clone()));
            s.current_number_scheduled += i32::from(oldest.is_some());
            if let Some(pod) = oldest {
                s.number_ready += i32::from(pods::is_ready(pod));
                available += i32::from(self.is_available(pod));
                // While two are there, the old one counts until it has gone: then only the new one is known to work.
                updated += i32::from(self.is_new(pod));
            }
        }
        let some = |n: i32| (n != 0).then_some(n);
        s.number_available = some(available);
        s.number_unavailable = some(s.desired_number_scheduled - available);
        s.updated_number_scheduled = some(updated);
        s.observed_generation = match settled {
            true => self.ds.metadata.generation,
            false => self.ds.status.as_ref().and_then(|s| s.observed_generation),
        };
        s.collision_count = self.ds.status.as_ref().and_then(|s| s.collision_count);
        s.conditions = self.ds.status.as_ref().and_then(|s| s.conditions.clone());
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ds(surge: i32, missing: i32) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"selector": {}, "template": {"spec": {"containers": []}},
                     "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}},
        }))
        .unwrap()
    }

    fn node(name: &str, taint: &str) -> Arc<Node> {
        let taints = if taint.is_empty() { json!([]) } else { json!([{"key": "k", "effect": taint}]) };
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap(),
        )
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {HASH_LABEL: hash}, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"containers": [], "nodeName": node},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
            }))
            .unwrap(),
        )
    }

    fn show(plan: &Plan) -> String {
        let names = plan.delete.iter().map(|p| p.name()).collect::<Vec<_>>().join(",");
        format!("+{} -{names}", plan.create.join(","))
    }

    fn with<R>(
        ds: &DaemonSet,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        f: impl FnOnce(&Picture<'_>) -> R,
    ) -> R {
        let mut map: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        pods.iter().for_each(|p| map.entry(target(p).unwrap().into()).or_default().push(p.clone()));
        f(&Picture { ds, nodes, pods: &map, hash: "new", now: Timestamp::now() })
    }

    #[test]
    fn each_fitting_node_has_one() {
        let nodes = [node("a", ""), node("b", ""), node("c", "NoSchedule"), node("d", "NoExecute")];
        let mut tied = (*pod("tied", "", "new", false)).clone();
        tie(tied.spec.as_mut().unwrap(), "gone");
        let pods = [
            pod("b1", "b", "new", true),
            pod("b2", "b", "new", true),
            pod("c1", "c", "new", true),
            pod("d1", "d", "new", true),
            Arc::new(tied),
        ];
        with(&ds(0, 1), &nodes, &pods, |p| {
            assert_eq!(show(&p.manage()), "+a -b2,d1,tied");
            let s = p.status(true);
            assert_eq!(
                (
                    s.desired_number_scheduled,
                    s.current_number_scheduled,
                    s.number_misscheduled,
                    s.number_available,
                    s.number_unavailable
                ),
                (2, 1, 2, Some(1), Some(1))
            );
        });
    }

    #[test]
    fn updates_keep_to_their_bounds() {
        let nodes = [node("a", ""), node("b", ""), node("c", "")];
        let old = [pod("a", "a", "old", true), pod("b", "b", "old", true), pod("c", "c", "old", false)];
        with(&ds(0, 1), &nodes, &old, |p| assert_eq!(show(&p.roll()), "+ -c"));
        with(&ds(0, 2), &nodes, &old, |p| assert_eq!(show(&p.roll()), "+ -c,a"));
        with(&ds(1, 0), &nodes, &old, |p| assert_eq!(show(&p.roll()), "+c,a -"));
        let both =
            [old[0].clone(), pod("a2", "a", "new", true), old[1].clone(), pod("b2", "b", "new", false)];
        with(&ds(1, 0), &nodes, &both, |p| {
            assert_eq!(show(&p.roll()), "+ -a");
            assert_eq!(show(&p.manage()), "+c -a");
            // As long as the old one is there, the new one is not known to work.
            let (s, early) = (p.status(true), p.status(false));
            assert_eq!((s.updated_number_scheduled, s.observed_generation), (None, Some(2)));
            assert_eq!(early.observed_generation, None);
        });
        let mut on_delete = ds(0, 1);
        on_delete.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().type_ = Some("OnDelete".into());
        with(&on_delete, &nodes, &old, |p| assert_eq!(show(&p.roll()), "+ -"));
    }

    #[test]
    fn daemons_tolerate_what_they_have_to() {
        let template = pod_template(&ds(0, 1), "h");
        assert_eq!(template.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), 6);
        let lost: Node = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"taints": [
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}})).unwrap();
        assert_eq!(should_run(&template, &lost), (true, true));
    }
}
