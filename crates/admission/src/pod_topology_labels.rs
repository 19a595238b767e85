//! A pod that is bound gets the zone and the region of its node as labels.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::{Status, read};
use k8s_openapi::api::core::v1::{Binding, Node, Pod};

/// See the module.
pub struct PodTopologyLabels;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        let pods = request.resource.group.is_empty() && request.resource.resource == "pods";
        let (true, Operation::Create, Some(object)) = (pods, request.operation, object) else {
            return Ok(());
        };
        let node = match request.subresource {
            "" => object.get::<Pod>().and_then(|p| p.spec.as_ref()?.node_name.clone()),
            "binding" => object
                .get::<Binding>()
                .filter(|b| b.target.kind.as_deref().is_none_or(|k| k == "Node"))
                .and_then(|b| b.target.name.clone()),
            _ => None,
        };
        let Some(node) = node.filter(|n| !n.is_empty()) else { return Ok(()) };
        let Some(node) = read::get::<Node>(request.reader, "", &node) else { return Ok(()) };
        let copied = node.metadata.labels.into_iter().flatten().filter(|(k, _)| LABELS.contains(&k.as_str()));
        let copied: Vec<(String, String)> = copied.collect();
        if !copied.is_empty() {
            object.meta_mut().labels.get_or_insert_default().extend(copied);
        }
        Ok(())
    }
}
