//! A Job's pods: how they are made, and which go first.

use super::policy::{self, INDEX};
use crate::common::pods;
use client::ObjectExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// So much of a name may be given for the server to add to.
const LONGEST: usize = 58;

/// Whether a pod has not been counted for good.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// The patch that lets a pod go.
pub fn untrack() -> serde_json::Value {
    json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})
}

/// A pod of a Job; for an index, which replaces one that failed, if any.
pub fn make(job: &Job, index: Option<i32>, replaces: Option<&Pod>) -> Pod {
    let spec = policy::spec(job);
    let mut pod = pods::from_template(&spec.template, job);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let Some(index) = index else { return pod };
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        for (key, count) in policy::failure_counts(&spec, replaces) {
            annotations.insert(key.into(), count.to_string());
        }
    }
    let suffix = format!("-{index}-");
    let kept = job.name().len().min(LONGEST.saturating_sub(suffix.len()));
    pod.metadata.generate_name = Some(format!("{}{suffix}", job.name().get(..kept).unwrap_or_default()));
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{}-{index}", job.name()));
    for c in pod_spec.containers.iter_mut().chain(pod_spec.init_containers.iter_mut().flatten()) {
        let env = c.env.get_or_insert_default();
        if !env.iter().any(|e| e.name == INDEX_VARIABLE) {
            let field =
                ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
            let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
            env.push(EnvVar { name: INDEX_VARIABLE.into(), value: None, value_from: Some(source) });
        }
    }
    pod
}

/// The active pods that are too many, when at least so many are: of an index the spare ones, then those that
/// have come the least far.
pub fn surplus(active: &[Arc<Pod>], at_least: usize, completions: Option<i32>) -> Vec<Arc<Pod>> {
    let rank = |p: &Pod| {
        let phase = match pods::phase(p) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let age = std::cmp::Reverse(p.metadata.creation_timestamp.clone());
        (!pods::node_name(p).is_empty(), phase, pods::is_ready(p), age, p.name().to_string())
    };
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    match completions {
        None => left = active.to_vec(),
        Some(completions) => {
            let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
            for pod in active {
                match policy::index(pod, completions) {
                    Some(i) => by_index.entry(i).or_default().push(pod.clone()),
                    None => gone.push(pod.clone()),
                }
            }
            for mut same in by_index.into_values() {
                same.sort_by_cached_key(|p| rank(p));
                left.extend(same.pop());
                gone.extend(same);
            }
        }
    }
    if gone.len() < at_least {
        left.sort_by_cached_key(|p| rank(p));
        gone.extend(left.into_iter().take(at_least - gone.len()));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "j", "namespace": "ns", "uid": "u"},
            "spec": {"backoffLimitPerIndex": 1, "template": {"spec": {"containers": [{"name": "c"}]}}},
        }))
        .unwrap();
        let pod = make(&job, Some(3), None);
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("j-3-"));
        assert_eq!((pod.label(INDEX), pod.annotation(INDEX), is_tracked(&pod)), (Some("3"), Some("3"), true));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("j-3"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, INDEX_VARIABLE);
        assert_eq!(make(&job, None, None).metadata.generate_name.as_deref(), Some("j-"));
    }

    #[test]
    fn spare_pods_of_an_index_go_first() {
        let pod = |name: &str, index: &str, phase: &str| {
            Arc::new(serde_json::from_value::<Pod>(json!({"metadata": {"name": name, "annotations": {INDEX: index}}, "spec": {"containers": []}, "status": {"phase": phase}})).unwrap())
        };
        let active = [
            pod("a", "0", "Running"),
            pod("b", "0", "Pending"),
            pod("c", "1", "Running"),
            pod("d", "9", "Running"),
            pod("e", "2", "Pending"),
        ];
        let names = |v: Vec<Arc<Pod>>| v.iter().map(|p| p.name().to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(names(surplus(&active, 0, Some(3))), "d b");
        assert_eq!(names(surplus(&active, 3, Some(3))), "d b e");
        assert_eq!(names(surplus(&active, 2, None)), "b e");
    }
}
