//! A pod's priority is its class's.

use crate::{Operation, Plugin, Request};
use api::object::Object;
use api::{Status, read};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use std::sync::Arc;

/// See the module.
pub struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit(&self, request: &Request<'_>, object: Option<&mut Object>) -> Result<(), Status> {
        if !request.is("", "pods") || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(spec) = object.and_then(|o| o.get_mut::<Pod>()).and_then(|p| p.spec.as_mut()) else {
            return Ok(());
        };
        let class = match spec.priority_class_name.as_deref().filter(|n| !n.is_empty()) {
            Some(name) => {
                let class: Option<Arc<PriorityClass>> = read::kept(request.reader, "", name);
                Some(class.ok_or_else(|| {
                    request.forbidden(format!("no PriorityClass with name {name} was found"))
                })?)
            }
            // Of several that are the default, upstream takes the lowest.
            None => read::list_kept::<PriorityClass>(request.reader, None)
                .into_iter()
                .filter(|c| c.global_default == Some(true))
                .min_by_key(|c| c.value),
        };
        let (name, value, policy) = match class {
            Some(c) => (c.metadata.name.clone(), c.value.unwrap_or_default(), c.preemption_policy.clone()),
            None => (None, 0, None),
        };
        let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
        if spec.priority.is_some_and(|p| p != value) {
            return Err(request.forbidden(format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                spec.priority.unwrap_or_default()
            )));
        }
        if spec.preemption_policy.as_ref().is_some_and(|p| *p != policy) {
            return Err(request.forbidden(format!(
                "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
                spec.preemption_policy.as_deref().unwrap_or_default()
            )));
        }
        (spec.priority_class_name, spec.priority, spec.preemption_policy) = (name, Some(value), Some(policy));
        Ok(())
    }

    fn validate(&self, request: &Request<'_>, object: Option<&Object>) -> Result<(), Status> {
        if !request.is("scheduling.k8s.io", "priorityclasses") || request.operation == Operation::Delete {
            return Ok(());
        }
        let Some(class) = object.and_then(|o| o.get::<PriorityClass>()) else { return Ok(()) };
        if class.global_default != Some(true) {
            return Ok(());
        }
        let name = class.metadata.name.as_deref();
        let other = read::list_kept::<PriorityClass>(request.reader, None)
            .into_iter()
            .find(|c| c.global_default == Some(true) && c.metadata.name.as_deref() != name);
        match other.and_then(|c| c.metadata.name.clone()) {
            Some(other) => Err(request.forbidden(format!(
                "PriorityClass {other} is already marked as default. Only one default can exist"
            ))),
            None => Ok(()),
        }
    }
}
