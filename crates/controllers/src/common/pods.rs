//! What controllers need to know about pods, and how they make and delete them.

use super::{conditions, controller_ref, delete_uid};
use api::time;
use client::{Client, EventRecorder, EventType, Object, ObjectExt, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Duration;

/// The index of pods (and of what else has owners) by their controller; see [`owner_keys`].
pub const BY_OWNER: &str = "owner";
/// The index of pods by node.
pub const BY_NODE: &str = "node";

/// Under which keys [`BY_OWNER`] has an object: its controller's unique id, or as an orphan of its namespace.
pub fn owner_keys<T: client::Meta>(object: &T) -> Vec<String> {
    vec![match object.controller() {
        Some(c) => c.uid.clone(),
        None => orphan_key(object.namespace()),
    }]
}

/// Under which key [`BY_OWNER`] has the orphans of a namespace.
pub fn orphan_key(namespace: &str) -> String {
    format!("orphans of {namespace}")
}

/// The pod's phase.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether its containers have ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether it runs or will.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !pod.is_deleting()
}

/// The node it is bound to; empty if it is not.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// A condition of it.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    conditions::find(pod.status.as_ref()?.conditions.as_ref(), kind)
}

/// Since when it is ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

/// Whether it is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// In how long it will have been ready for `min_ready` seconds: zero if it has, none if it is not ready.
pub fn available_in(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    let needed = Duration::from_secs(u64::try_from(min_ready).unwrap_or_default());
    if needed.is_zero() {
        return Some(Duration::ZERO);
    }
    Some(needed.saturating_sub(time::between(since, now)))
}

/// Whether it is ready, and has been for `min_ready` seconds.
pub fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready, now) == Some(Duration::ZERO)
}

/// How often its containers started again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|s| s.restart_count).max().unwrap_or_default()
}

/// Drops of a cached pod what no controller reads: most of it. Controllers change pods by patches only.
pub fn strip(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    let Some(spec) = &mut pod.spec else { return };
    (spec.ephemeral_containers, spec.image_pull_secrets) = (None, None);
    // A list keeps its room whatever is taken out of it, and a volume takes 3 KB of it.
    let kept = |v: &Volume| v.persistent_volume_claim.is_some() || v.ephemeral.is_some();
    let volumes: Vec<Volume> = spec.volumes.take().into_iter().flatten().filter(kept).collect();
    spec.volumes = Some(volumes).filter(|v| !v.is_empty()).map(shrunk);
    spec.containers.shrink_to_fit();
    spec.init_containers = spec.init_containers.take().map(shrunk);
    for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        (c.args, c.command, c.env, c.env_from, c.volume_mounts) = (None, None, None, None, None);
        (c.liveness_probe, c.readiness_probe, c.startup_probe, c.lifecycle) = (None, None, None, None);
        (c.security_context, c.image, c.termination_message_path) = (None, None, None);
    }
    let Some(status) = &mut pod.status else { return };
    for s in status.container_statuses.iter_mut().flatten() {
        (s.volume_mounts, s.resources, s.image_id, s.container_id) = (None, None, String::new(), None);
    }
    status.container_statuses = status.container_statuses.take().map(shrunk);
    status.conditions = status.conditions.take().map(shrunk);
}

fn shrunk<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

/// A pod from a template; `owner` controls it and gives its name a beginning.
pub fn from_template<T: Object>(template: &PodTemplateSpec, owner: &T) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    // A name has to fit with the five letters that the server adds; it cuts the beginning itself.
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name())),
            namespace: Some(owner.namespace().into()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Makes and deletes pods and tells of it in events.
#[derive(Clone)]
pub struct PodControl {
    /// With whose rights.
    pub client: Client,
    /// Where events go.
    pub events: EventRecorder,
}

impl PodControl {
    /// Creates a pod for its owner.
    pub async fn create<T: Object>(&self, pod: &Pod, owner: &T) -> Result<Pod, client::Error> {
        let result = self.client.create(pod).await;
        match &result {
            Ok(made) => {
                let text = format!("Created pod: {}", made.name());
                self.events.event(&object_ref(owner), EventType::Normal, "SuccessfulCreate", text);
            }
            Err(e) if e.is_namespace_terminating() => {}
            Err(e) => {
                self.events.event(
                    &object_ref(owner),
                    EventType::Warning,
                    "FailedCreate",
                    format!("Error creating: {e}"),
                );
            }
        }
        result
    }

    /// Deletes a pod of its owner. That it is gone already is an error, so that nobody waits for its deletion.
    pub async fn delete<T: Object>(&self, pod: &Pod, owner: &T) -> Result<(), client::Error> {
        let result = self.client.delete::<Pod>(pod.namespace(), pod.name(), &delete_uid(pod.uid())).await;
        match &result {
            Ok(()) => {
                let text = format!("Deleted pod: {}", pod.name());
                self.events.event(&object_ref(owner), EventType::Normal, "SuccessfulDelete", text);
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => {
                self.events.event(
                    &object_ref(owner),
                    EventType::Warning,
                    "FailedDelete",
                    format!("Error deleting: {e}"),
                );
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_pod_holds_no_room_for_what_was_dropped() {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [{"name": "c", "env": [{"name": "A"}]}],
                "volumes": [{"name": "t", "projected": {}}, {"name": "d", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "e", "emptyDir": {}}]},
            "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "x", "ready": true, "restartCount": 0}]},
        }))
        .unwrap();
        strip(&mut pod);
        let (spec, status) = (pod.spec.as_mut().unwrap(), pod.status.as_ref().unwrap());
        let volumes = spec.volumes.as_ref().unwrap();
        assert_eq!((volumes.len(), volumes.capacity(), spec.containers.capacity()), (1, 1, 1));
        assert_eq!(status.container_statuses.as_ref().unwrap().capacity(), 1);
        assert!(pod.metadata.managed_fields.is_none() && spec.containers[0].env.is_none());
        spec.volumes.as_mut().unwrap()[0].persistent_volume_claim = None;
        strip(&mut pod);
        assert!(pod.spec.unwrap().volumes.is_none());
    }
}
