//! The history of a template, as ControllerRevisions: `kubectl rollout history` and `undo` read it.

use super::{claim, controller_ref, delete_uid, gone_is_fine, hash, pods};
use crate::Error;
use client::{Client, Lister, Object, ObjectExt};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::sync::Arc;

/// The label by which a pod tells of which revision it is.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What a revision holds: the patch that brings its template back.
pub fn snapshot(template: &PodTemplateSpec) -> Value {
    let mut template = hash::normal(template);
    if let Some(map) = template.as_object_mut() {
        map.insert("$patch".into(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The revisions of an object: the one of its template now, and the others by number.
pub struct History {
    /// The template's own.
    pub current: ControllerRevision,
    /// The others, oldest first.
    pub old: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// The hash that pods of the template carry.
    pub fn hash(&self) -> &str {
        self.current.label(HASH_LABEL).unwrap_or_default()
    }
}

fn same(revision: &ControllerRevision, data: &Value) -> bool {
    // What the server or another writer added that says nothing does not make it another revision.
    let read = |v: &Value| {
        let template = v.pointer("/spec/template")?.clone();
        let template: PodTemplateSpec = serde_json::from_value(template).ok()?;
        Some(hash::normal(&template))
    };
    revision.data.as_ref().is_some_and(|d| d.0 == *data || (read(&d.0).is_some() && read(&d.0) == read(data)))
}

/// Finds or makes the revision of `template` among those of `owner`. `Err(None)` says that the name for it is
/// taken by another template: the caller has to count a collision and come back.
pub async fn keep<T: Object>(
    client: &Client,
    owner: &T,
    revisions: &Lister<ControllerRevision>,
    matches: impl Fn(&ControllerRevision) -> bool,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Result<History, Option<Error>> {
    let mut candidates = revisions.by_index(pods::BY_OWNER, owner.uid());
    candidates.extend(revisions.by_index(pods::BY_OWNER, &pods::orphan_key(owner.namespace())));
    let mine = claim::claim(client, owner, candidates, matches).await.map_err(Some)?;
    let data = snapshot(template);
    let (mut current, mut old): (Vec<_>, Vec<_>) = mine.into_iter().partition(|r| same(r, &data));
    old.sort_by_key(|r| r.revision);
    let next = old.last().map_or(0, |r| r.revision) + 1;
    current.sort_by_key(|r| r.revision);
    if let Some(newest) = current.pop() {
        let mut newest = (*newest).clone();
        if newest.revision < next {
            newest.revision = next;
            newest = client.update(&newest).await.map_err(|e| Some(e.into()))?;
        }
        return Ok(History { current: newest, old });
    }
    let hash = hash::bytes(data.to_string().as_bytes(), collisions);
    let name = format!("{}-{hash}", owner.name());
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(HASH_LABEL.into(), hash);
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(owner.namespace().into()),
            labels: Some(labels),
            annotations: owner.metadata().annotations.clone(),
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data.clone())),
        revision: next,
    };
    match client.create(&revision).await {
        Ok(made) => Ok(History { current: made, old }),
        Err(e) if e.is_already_exists() => {
            let there: ControllerRevision =
                client.get(owner.namespace(), &name).await.map_err(|e| Some(e.into()))?;
            let mine = there.controller().is_some_and(|c| c.uid == owner.uid());
            if mine && same(&there, &data) { Ok(History { current: there, old }) } else { Err(None) }
        }
        Err(e) => Err(Some(e.into())),
    }
}

/// Deletes the oldest revisions beyond `limit` that no pod is of.
pub async fn clean_up(
    client: &Client,
    history: &History,
    limit: usize,
    live: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let excess = history.old.len().saturating_sub(limit);
    let unused = history.old.iter().filter(|r| !r.label(HASH_LABEL).is_some_and(&live));
    for r in unused.take(excess) {
        let options = delete_uid(r.uid());
        gone_is_fine(client.delete::<ControllerRevision>(r.namespace(), r.name(), &options).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_recognised() {
        let template: PodTemplateSpec =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).unwrap();
        let data = snapshot(&template);
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        let of = |v: Value| ControllerRevision { data: Some(RawExtension(v)), ..Default::default() };
        assert!(same(&of(data.clone()), &data));
        let mut noisy = data.clone();
        noisy["spec"]["template"]["metadata"]["creationTimestamp"] = json!(null);
        noisy["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        assert!(same(&of(noisy), &data));
        let mut other = data.clone();
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
        assert!(!same(&of(other), &data));
    }
}
