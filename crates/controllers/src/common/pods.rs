//! What controllers need to know about pods, and how they make and delete them.

use super::{controller_ref, delete_uid};
use api::time;
use client::{Client, EventRecorder, EventType, Object, ObjectExt, object_ref};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
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
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
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
    spec.volumes
        .iter_mut()
        .for_each(|v| v.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()));
    for c in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        (c.args, c.command, c.env, c.env_from, c.volume_mounts) = (None, None, None, None, None);
        (c.liveness_probe, c.readiness_probe, c.startup_probe, c.lifecycle) = (None, None, None, None);
        (c.security_context, c.image, c.termination_message_path) = (None, None, None);
    }
    let statuses = pod.status.as_mut().and_then(|s| s.container_statuses.as_mut());
    for s in statuses.into_iter().flatten() {
        (s.volume_mounts, s.resources, s.image_id, s.container_id) = (None, None, String::new(), None);
    }
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
