//! The history of a template, as ControllerRevisions: `kubectl rollout history` and `undo` read it.

use super::{claim, controller_ref, delete_uid, gone_is_fine, hash, pods};
use crate::Error;
use client::{Client, Lister, Object, ObjectExt, ResourceId};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The label by which a pod tells of which revision it is.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What a revision holds: the patch that brings its template back, byte for byte as upstream makes it of the object
/// as the server shows it.
fn snapshot(mut template: Value) -> Value {
    if let Some(map) = template.as_object_mut() {
        map.insert("$patch".into(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template as the server writes it: with what Go's types print though it is empty, and without what they don't.
async fn written<T: Object>(client: &Client, owner: &T, template: &PodTemplateSpec) -> Result<Value, Error> {
    let resource = ResourceId {
        group: T::GROUP.into(),
        version: T::VERSION.into(),
        plural: T::URL_PATH_SEGMENT.into(),
        namespaced: true,
    };
    let mut object = client.get_dyn(&resource, owner.namespace(), owner.name()).await?;
    let written = object.pointer_mut("/spec/template").map(Value::take).unwrap_or_default();
    match PodTemplateSpec::deserialize(&written) {
        Ok(read) if read == *template => Ok(written),
        _ => Err(Error::Behind(format!("{} {}", T::KIND, owner.key()))),
    }
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

/// Whether a revision is of a template, whatever the server or another writer added that says nothing.
fn same(revision: &ControllerRevision, template: &Value) -> bool {
    let held = revision.data.as_ref().and_then(|d| d.0.pointer("/spec/template"));
    held.and_then(|t| PodTemplateSpec::deserialize(t).ok()).is_some_and(|t| hash::normal(&t) == *template)
}

/// Finds or makes the revision of `template` among those of `owner`. [`Error::NameTaken`] says that the name for it
/// is taken by another template: the caller has to count a collision and come back.
pub async fn keep<T: Object>(
    client: &Client,
    owner: &T,
    revisions: &Lister<ControllerRevision>,
    matches: impl Fn(&ControllerRevision) -> bool,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Result<History, Error> {
    let mut candidates = revisions.by_index(pods::BY_OWNER, owner.uid());
    candidates.extend(revisions.by_index(pods::BY_OWNER, &pods::orphan_key(owner.namespace())));
    let mine = claim::claim(client, owner, candidates, matches).await?;
    let normal = hash::normal(template);
    let (mut current, mut old): (Vec<_>, Vec<_>) = mine.into_iter().partition(|r| same(r, &normal));
    old.sort_by_key(|r| r.revision);
    let next = old.last().map_or(0, |r| r.revision) + 1;
    current.sort_by_key(|r| r.revision);
    if let Some(newest) = current.pop() {
        let mut newest = (*newest).clone();
        if newest.revision < next {
            newest.revision = next;
            newest = client.update(&newest).await?;
        }
        return Ok(History { current: newest, old });
    }
    let data = snapshot(written(client, owner, template).await?);
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
        data: Some(RawExtension(data)),
        revision: next,
    };
    match client.create(&revision).await {
        Ok(made) => Ok(History { current: made, old }),
        Err(e) if e.is_already_exists() => {
            let there: ControllerRevision = client.get(owner.namespace(), &name).await?;
            let mine = there.controller().is_some_and(|c| c.uid == owner.uid());
            if mine && same(&there, &normal) {
                Ok(History { current: there, old })
            } else {
                Err(Error::NameTaken(name))
            }
        }
        Err(e) => Err(e.into()),
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
        let normal = hash::normal(&template);
        let data = snapshot(
            json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {}}], "securityContext": {}}, "metadata": {"labels": {"a": "b"}}}),
        );
        // As upstream prints it: what its types always show is there, and keys are sorted.
        assert_eq!(
            data.to_string(),
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"image":"i","name":"c","resources":{}}],"securityContext":{}}}}}"#
        );
        let of = |v: Value| ControllerRevision { data: Some(RawExtension(v)), ..Default::default() };
        assert!(same(&of(data.clone()), &normal));
        let mut noisy = data.clone();
        noisy["spec"]["template"]["metadata"]["creationTimestamp"] = json!(null);
        noisy["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        assert!(same(&of(noisy), &normal));
        let mut other = data.clone();
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
        assert!(!same(&of(other), &normal));
    }
}
