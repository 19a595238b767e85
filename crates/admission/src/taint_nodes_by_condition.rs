//! A new node takes no pods until it is seen to be ready.

use crate::{Operation, Plugin, Request};
use api::Status;
use api::object::Object;
use k8s_openapi::api::core::v1::{Node, Taint};

/// See the module.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.is("", "nodes") || request.operation != Operation::Create {
            return Ok(());
        }
        if let Some(node) = object.and_then(|o| o.get_mut::<Node>()) {
            let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
            let (key, effect) = ("node.kubernetes.io/not-ready", "NoSchedule");
            if !taints.iter().any(|t| t.key == key && t.effect == effect) {
                taints.push(Taint { key: key.into(), effect: effect.into(), ..Taint::default() });
            }
        }
        Ok(())
    }
}
