//! Events: what the kubelet tells people about pods and the node, through the API.

use crate::pod::PodExt;
use client::{Client, EventRecorder, EventType};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tracing::info;

/// Where in a pod a container is, as events name it: `spec.containers{web}`.
pub fn container_path(pod: &Pod, name: &str) -> String {
    let spec = pod.spec();
    let list = if spec.init_containers.iter().flatten().any(|c| c.name == name) {
        "initContainers"
    } else if spec.ephemeral_containers.iter().flatten().any(|c| c.name == name) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{name}}}")
}

/// Sends events; dropping one under load is fine, waiting is not.
pub struct Events {
    node: String,
    recorder: Option<EventRecorder>,
}

impl Events {
    /// Events from the kubelet of a node.
    pub fn new(node: &str, client: Option<&Client>) -> Self {
        let recorder = client.map(|c| EventRecorder::new(c.clone(), "kubelet", node));
        Events { node: node.to_owned(), recorder }
    }

    /// Something about a pod.
    pub fn pod(&self, pod: &Pod, kind: &str, reason: &str, message: &str) {
        self.container(pod, "", kind, reason, message);
    }

    /// Something about a container of a pod.
    pub fn container(&self, pod: &Pod, path: &str, kind: &str, reason: &str, message: &str) {
        let uid = match pod.annotations().get(crate::pod::HASH_ANNOTATION) {
            // what is shown of a static pod is its mirror, known by the hash
            Some(hash) if pod.is_static() => hash.clone(),
            _ => pod.uid().to_owned(),
        };
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace().into()),
            name: Some(pod.name().into()),
            uid: Some(uid),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: Some(path.to_owned()).filter(|p| !p.is_empty()),
        };
        self.send(about, kind, reason, message);
    }

    /// Something about the node.
    pub fn node(&self, kind: &str, reason: &str, message: &str) {
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.node.clone()),
            uid: Some(self.node.clone()),
            ..Default::default()
        };
        self.send(about, kind, reason, message);
    }

    fn send(&self, about: ObjectReference, kind: &str, reason: &str, message: &str) {
        let name = about.name.as_deref().unwrap_or("");
        info!(
            object = name,
            part = about.field_path.as_deref().unwrap_or(""),
            kind,
            reason,
            message,
            "event"
        );
        let kind = if kind == "Warning" { EventType::Warning } else { EventType::Normal };
        if let Some(r) = &self.recorder {
            r.event(&about, kind, reason, message);
        }
    }
}
