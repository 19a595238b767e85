//! Pods that must be kept apart are kept apart by nodes, not by anything larger.

use crate::{Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::Pod;

/// See the module.
pub struct LimitPodHardAntiAffinity;

const HOSTNAME: &str = "kubernetes.io/hostname";

impl Plugin for LimitPodHardAntiAffinity {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.writes("", "pods") {
            return Ok(());
        }
        let spec = object.and_then(|o| o.get::<Pod>()).and_then(|p| p.spec.as_ref());
        let anti = spec.and_then(|s| s.affinity.as_ref()).and_then(|a| a.pod_anti_affinity.as_ref());
        let mut terms = anti.into_iter().flat_map(|a| {
            a.required_during_scheduling_ignored_during_execution.iter().flatten().map(|t| &t.topology_key)
        });
        match terms.find(|key| *key != HOSTNAME) {
            Some(key) => Err(request.forbidden(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
            ))),
            None => Ok(()),
        }
    }
}
