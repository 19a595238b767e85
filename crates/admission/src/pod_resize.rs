//! A pod that runs grows only as far as its node can bear.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::{Status, pod_resources, read};
use k8s_openapi::api::core::v1::{Node, Pod};

/// See the module.
pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        let pods = request.resource.group.is_empty() && request.resource.resource == "pods";
        if !pods || request.subresource != "resize" || request.operation != Operation::Update {
            return Ok(());
        }
        let new = object.and_then(|o| o.get::<Pod>()).and_then(|p| p.spec.as_ref());
        let old = request.old.and_then(|o| o.get::<Pod>()).and_then(|p| p.spec.as_ref());
        let Some(new) = new.filter(|new| old != Some(*new)) else { return Ok(()) };
        let Some(name) = new.node_name.as_deref().filter(|n| !n.is_empty()) else { return Ok(()) };
        let node: Node = read::get(request.reader, "", name)
            .ok_or_else(|| request.forbidden(format!("node {name:?} not found")))?;
        let os = node.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
        if let Some(os) = os.filter(|os| *os != "linux") {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
            return Err(request.forbidden(why).cause("UnsupportedPlatform", "", ""));
        }
        let most = pod_resources::read(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        let asked = pod_resources::requests_with_overhead(new);
        let amount = |of: &pod_resources::Amounts, name: &str| of.get(name).copied().unwrap_or_default();
        let mut over = Vec::new();
        let (cpu, cpus) = (amount(&asked, "cpu"), amount(&most, "cpu"));
        if cpu > cpus {
            over.push(format!("cpu, requested: {}, allocatable: {}", cpu.milli_value(), cpus.milli_value()));
        }
        let (memory, memories) = (amount(&asked, "memory"), amount(&most, "memory"));
        if memory > memories {
            over.push(format!("memory, requested: {}, allocatable: {}", memory.value(), memories.value()));
        }
        if over.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", over.join("; "));
        Err(request.forbidden(why).cause("NodeCapacity", "", ""))
    }
}
