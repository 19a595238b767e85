//! A pod that asks for an extended resource tolerates the taint that keeps others off the nodes that have it.

use crate::{Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use std::collections::BTreeSet;

/// See the module.
pub struct ExtendedResourceToleration;

/// `example.com/gpu` is; `cpu`, `hugepages-2Mi` and `kubernetes.io/x` are not.
fn is_extended(resource: &str) -> bool {
    resource.contains('/') && !resource.contains("kubernetes.io/") && !resource.starts_with("requests.")
}

impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.writes("", "pods") {
            return Ok(());
        }
        let Some(spec) = object.and_then(|o| o.get_mut::<Pod>()).and_then(|p| p.spec.as_mut()) else {
            return Ok(());
        };
        let wanted: BTreeSet<String> = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten())
            .flat_map(|c| c.resources.iter().flat_map(|r| r.requests.iter().flatten()))
            .map(|(name, _)| name.clone())
            .filter(|name| is_extended(name))
            .collect();
        for key in wanted {
            let toleration = Toleration {
                key: Some(key),
                operator: Some("Exists".into()),
                effect: Some("NoSchedule".into()),
                ..Toleration::default()
            };
            let all = spec.tolerations.get_or_insert_default();
            if !all.contains(&toleration) {
                all.push(toleration);
            }
        }
        Ok(())
    }
}
