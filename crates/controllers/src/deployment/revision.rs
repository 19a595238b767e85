//! Which ReplicaSet is a Deployment's newest, and the annotations by which `kubectl rollout` knows revisions.

use crate::common::hash;
use client::ObjectExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// At most so many letters of history, as upstream.
const HISTORY_LETTERS: usize = 2000;

/// Annotations of a Deployment that its ReplicaSets don't get.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Whether two templates say the same, whatever hash they carry.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |t: &PodTemplateSpec| {
        let mut t = t.clone();
        if let Some(labels) = t.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        hash::normal(&t)
    };
    a == b || plain(a) == plain(b)
}

/// The ReplicaSet that has the Deployment's template, and the others, oldest first.
pub fn split(
    d: &Deployment,
    mut sets: Vec<Arc<ReplicaSet>>,
) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    sets.sort_by(|a, b| by_age(a, b));
    let template = d.spec.as_ref().map(|s| &s.template);
    let is_new = |rs: &Arc<ReplicaSet>| {
        let own = rs.spec.as_ref().and_then(|s| s.template.as_ref());
        own.zip(template).is_some_and(|(a, b)| same_template(a, b))
    };
    let new = sets.iter().position(is_new).map(|i| sets.remove(i));
    (new, sets)
}

/// Older first, then by name.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    (&a.metadata.creation_timestamp, a.name()).cmp(&(&b.metadata.creation_timestamp, b.name()))
}

/// The revision in an annotation; 0 if there is none.
pub fn of(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|a| a.get(REVISION)?.parse().ok()).unwrap_or_default()
}

/// The revision that comes after these.
pub fn next(old: &[Arc<ReplicaSet>]) -> i64 {
    old.iter().map(|rs| of(&rs.metadata)).max().unwrap_or_default() + 1
}

fn set(meta: &mut ObjectMeta, key: &str, value: String) -> bool {
    let annotations = meta.annotations.get_or_insert_default();
    if annotations.get(key) == Some(&value) {
        return false;
    }
    annotations.insert(key.into(), value);
    true
}

/// Notes on a ReplicaSet how large the Deployment is and may grow; whether that was news.
pub fn note_sizes(meta: &mut ObjectMeta, desired: i32, max: i32) -> bool {
    let news = set(meta, DESIRED, desired.to_string());
    set(meta, MAX, max.to_string()) || news
}

/// Gives the newest ReplicaSet the Deployment's annotations and its revision; whether that was news.
pub fn note_newest(d: &Deployment, meta: &mut ObjectMeta, revision: i64, exists: bool) -> bool {
    let mut news = false;
    for (key, value) in d.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            news |= set(meta, key, value.clone());
        }
    }
    let old = of(meta);
    if old >= revision {
        return news;
    }
    set(meta, REVISION, revision.to_string());
    if exists && old > 0 {
        // An old template is the newest again: the revisions it had before are its history.
        let history = meta.annotations.as_ref().and_then(|a| a.get(HISTORY).cloned()).unwrap_or_default();
        let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
        let text = old.to_string();
        revisions.push(&text);
        while revisions.len() > 1 && revisions.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LETTERS {
            revisions.remove(0);
        }
        set(meta, HISTORY, revisions.join(","));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(image: &str, hash: &str) -> PodTemplateSpec {
        let labels = if hash.is_empty() { json!({"a": "b"}) } else { json!({"a": "b", HASH_LABEL: hash}) };
        serde_json::from_value(
            json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}),
        )
        .unwrap()
    }

    fn set_of(name: &str, image: &str, revision: i64) -> Arc<ReplicaSet> {
        let mut rs: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {REVISION: revision.to_string()}}, "spec": {"selector": {}},
        }))
        .unwrap();
        rs.spec.as_mut().unwrap().template = Some(template(image, name));
        Arc::new(rs)
    }

    #[test]
    fn the_newest_is_found_by_its_template() {
        let mut d: Deployment =
            serde_json::from_value(json!({"spec": {"selector": {}, "template": {}}})).unwrap();
        d.spec.as_mut().unwrap().template = template("two", "");
        let (new, old) =
            split(&d, vec![set_of("c", "three", 4), set_of("b", "two", 2), set_of("a", "one", 1)]);
        assert_eq!(
            (new.unwrap().name(), old.iter().map(|r| r.name()).collect::<Vec<_>>(), next(&old)),
            ("b", vec!["a", "c"], 5)
        );
    }

    #[test]
    fn a_revision_that_comes_again_keeps_its_history() {
        let d: Deployment = serde_json::from_value(
            json!({"metadata": {"annotations": {"kubernetes.io/change-cause": "x", REVISION: "9"}}}),
        )
        .unwrap();
        let mut meta = ObjectMeta::default();
        assert!(note_newest(&d, &mut meta, 1, false));
        assert!(!note_newest(&d, &mut meta, 1, true));
        assert!(note_newest(&d, &mut meta, 3, true));
        assert!(note_newest(&d, &mut meta, 7, true));
        let a = meta.annotations.unwrap();
        assert_eq!(
            (a[REVISION].as_str(), a[HISTORY].as_str(), a["kubernetes.io/change-cause"].as_str()),
            ("7", "1,3", "x")
        );
    }
}
