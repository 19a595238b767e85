//! The labels and annotations by which containers in the runtime are known again: upstream's, so that
//! either kubelet takes over what the other left running.

use crate::pod::PodExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{BTreeMap, HashMap};

pub mod names {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
    pub const PORTS: &str = "io.kubernetes.container.ports";
    pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
    pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
}
use names::*;

/// Labels of a sandbox: the pod's own and its identity.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut l: HashMap<_, _> = pod.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    l.extend(identity(pod));
    l
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, c: &Container) -> HashMap<String, String> {
    let mut l: HashMap<_, _> = identity(pod).into();
    l.insert(CONTAINER_NAME.into(), c.name.clone());
    l
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.into(), pod.name().into()),
        (POD_NAMESPACE.into(), pod.namespace().into()),
        (POD_UID.into(), pod.uid().into()),
    ]
}

/// Annotations of a container.
pub fn container_annotations(pod: &Pod, c: &Container, restart_count: u32) -> HashMap<String, String> {
    let mut a = HashMap::from([
        (HASH.into(), container_hash(c)),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (MESSAGE_PATH.into(), message_path(c).into()),
        (MESSAGE_POLICY.into(), c.termination_message_policy.clone().unwrap_or_else(|| "File".into())),
    ]);
    if let Some(secs) = pod.metadata.deletion_grace_period_seconds {
        a.insert(DELETION_GRACE.into(), secs.to_string());
    }
    if let Some(secs) = pod.spec().termination_grace_period_seconds {
        a.insert(TERMINATION_GRACE.into(), secs.to_string());
    }
    if let Some(h) = c.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
        && let Ok(json) = serde_json::to_string(h)
    {
        a.insert(PRE_STOP.into(), json);
    }
    if let Some(ports) = c.ports.as_ref().filter(|p| !p.is_empty())
        && let Ok(json) = serde_json::to_string(ports)
    {
        a.insert(PORTS.into(), json);
    }
    a
}

/// Where a container leaves word of why it ended.
pub fn message_path(c: &Container) -> &str {
    c.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log")
}

/// The hash of what, when changed in a pod, makes the container start anew: its name and image.
/// Upstream prints the bytes of their JSON as Go shows a byte slice and takes FNV-1a of that.
pub fn container_hash(c: &Container) -> String {
    let fields = BTreeMap::from([("image", c.image.as_deref().unwrap_or("")), ("name", c.name.as_str())]);
    let json = serde_json::to_string(&fields).unwrap_or_default();
    let shown: Vec<String> = json.bytes().map(|b| b.to_string()).collect();
    let text = format!("([]uint8)[{}]", shown.join(" "));
    let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_and_image_count_for_the_hash() {
        let c = |name: &str, image: &str, dir: &str| Container {
            name: name.into(),
            image: Some(image.into()),
            working_dir: Some(dir.into()),
            ..Default::default()
        };
        assert_eq!(container_hash(&c("a", "b", "x")), container_hash(&c("a", "b", "y")));
        assert_ne!(container_hash(&c("a", "b", "")), container_hash(&c("a", "c", "")));
    }
}
