//! What a set of replicas needs next, and what its status is.

use super::kinds::{Condition, ReplicaKind, ReplicaStatus};
use crate::common::pods;
use api::selector::LabelSelector;
use api::time;
use client::ObjectExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// At most so many pods are made or deleted at once.
const BURST: usize = 500;

#[derive(Debug)]
pub enum Step {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// What to do about `wanted` replicas when `mine` are active.
pub fn plan(wanted: i32, mine: &[Arc<Pod>], related: impl FnOnce() -> Vec<Arc<Pod>>, now: Timestamp) -> Step {
    let wanted = usize::try_from(wanted).unwrap_or_default();
    if mine.len() < wanted {
        return Step::Create((wanted - mine.len()).min(BURST));
    }
    if mine.len() == wanted {
        return Step::Nothing;
    }
    let count = (mine.len() - wanted).min(BURST);
    let mut on_node: HashMap<String, usize> = HashMap::new();
    if wanted > 0 {
        for pod in related().iter().filter(|p| pods::is_active(p)) {
            *on_node.entry(pods::node_name(pod).into()).or_default() += 1;
        }
    }
    let mut ranked: Vec<_> = mine.iter().map(|p| (rank(p, &on_node, now), p.clone())).collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    Step::Delete(ranked.into_iter().take(count).map(|(_, p)| p).collect())
}

/// What is deleted first has the least: not on a node, pending, not ready, cheap, on a crowded node, ready or
/// made for a shorter time, restarted more often. Times count by order of magnitude.
type Rank = (bool, u8, bool, i32, Reverse<usize>, u32, Reverse<i32>, u32, String);

fn rank(pod: &Pod, on_node: &HashMap<String, usize>, now: Timestamp) -> Rank {
    let node = pods::node_name(pod);
    let phase = match pods::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let ready = pods::ready_since(pod);
    let cost = pod
        .annotation("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let crowd = on_node.get(node).copied().unwrap_or_default();
    let made = pod.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    (
        !node.is_empty(),
        phase,
        ready.is_some(),
        cost,
        Reverse(crowd),
        ready.map_or(0, |t| magnitude(t, now)),
        Reverse(pods::restarts(pod)),
        magnitude(made, now),
        pod.uid().into(),
    )
}

fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    time::between(since, now).as_secs().checked_ilog2().map_or(0, |n| n + 1)
}

/// The status of a set with these active pods.
pub fn status<T: ReplicaKind>(
    set: &T,
    mine: &[Arc<Pod>],
    terminating: usize,
    trouble: Option<String>,
    now: Timestamp,
) -> ReplicaStatus {
    let count = |f: &dyn Fn(&Pod) -> bool| mine.iter().filter(|p| f(p)).count() as i32;
    let labels = set.template().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
    let fully = LabelSelector::from_map(labels.into_iter().flatten());
    let mut conditions = set.status().conditions;
    let known = conditions.iter().any(|c| c.kind == FAILURE);
    match trouble {
        None => conditions.retain(|c| c.kind != FAILURE),
        Some(message) if !known => {
            let short = mine.len() < usize::try_from(set.replicas()).unwrap_or_default();
            let reason = if short { "FailedCreate" } else { "FailedDelete" };
            conditions.push(Condition {
                kind: FAILURE.into(),
                status: "True".into(),
                reason: Some(reason.into()),
                message: Some(message),
                since: Some(Time(time::truncate(now))),
            });
        }
        Some(_) => {}
    }
    ReplicaStatus {
        replicas: mine.len() as i32,
        fully_labeled: count(&|p| fully.matches_labels(p.metadata.labels.as_ref())),
        ready: count(&pods::is_ready),
        available: count(&|p| pods::is_available(p, set.min_ready(), now)),
        terminating: T::COUNTS_TERMINATING.then_some(terminating as i32),
        observed_generation: set.metadata().generation.unwrap_or_default(),
        conditions,
    }
}

const FAILURE: &str = "ReplicaFailure";

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: Option<&str>) -> Arc<Pod> {
        let conditions =
            ready.map(|t| vec![json!({"type": "Ready", "status": "True", "lastTransitionTime": t})]);
        let value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}},
            "spec": {"containers": [], "nodeName": node},
            "status": {"phase": phase, "conditions": conditions},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let mut costly = (*pod("costly", "m", "Running", Some("2026-01-01T00:10:00Z"))).clone();
        costly.metadata.annotations =
            Some([("controller.kubernetes.io/pod-deletion-cost".to_string(), "5".to_string())].into());
        let all = [
            Arc::new(costly),
            pod("old", "n", "Running", Some("2026-01-01T00:10:00Z")),
            pod("young", "n", "Running", Some("2026-01-01T00:59:59Z")),
            pod("alone", "m", "Running", Some("2026-01-01T00:10:00Z")),
            pod("unready", "n", "Running", None),
            pod("pending", "n", "Pending", None),
            pod("unbound", "", "Pending", None),
        ];
        let order = |wanted| match plan(wanted, &all, || all.to_vec(), now()) {
            Step::Delete(p) => p.iter().map(|p| p.name().to_string()).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(order(1), "unbound pending unready young old alone");
        assert_eq!(order(5), "unbound pending");
        assert_eq!(
            (order(7).as_str(), order(9).as_str(), order(10_000).as_str()),
            ("Nothing", "Create(2)", "Create(500)")
        );
    }

    #[test]
    fn the_status_counts() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"generation": 3},
            "spec": {"replicas": 3, "minReadySeconds": 60, "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap();
        let mine = [
            pod("a", "n", "Running", Some("2026-01-01T00:10:00Z")),
            pod("b", "n", "Running", Some("2026-01-01T00:59:30Z")),
            pod("c", "n", "Running", None),
        ];
        let s = status(&set, &mine, 2, None, now());
        assert_eq!(
            (s.replicas, s.fully_labeled, s.ready, s.available, s.terminating, s.observed_generation),
            (3, 3, 2, 1, Some(2), 3)
        );
        let failed = status(&set, &mine[..1], 0, Some("quota".into()), now());
        assert_eq!(failed.conditions[0].reason.as_deref(), Some("FailedCreate"));
        let again = status(&set.with_status(&failed), &mine[..1], 0, Some("other".into()), now());
        assert_eq!(again.conditions, failed.conditions);
        assert!(status(&set.with_status(&failed), &mine, 0, None, now()).conditions.is_empty());
    }
}
